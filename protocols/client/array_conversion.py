"""Conversion of a client's arguments to arrays of the protocol, and of a reply's arrays to readings."""

from __future__ import annotations

import numpy as np

from photonloop.protocols.client.server_connection import Answer
from photonloop.protocols.device import Readback, Readings
from photonloop.protocols.errors import DeviceError
from photonloop.protocols.wire.messages import AnyArray


def to_readings(answer: Answer) -> Readings:
    """Return the readings in the reply to `evaluate`; `DeviceError` "transport" if it has none."""
    try:
        values, time_s, flags = (answer.arrays[name] for name in ("values", "time_s", "flags"))
    except KeyError as error:
        raise DeviceError("transport", f"the reply to evaluate lacks the array {error}", outcome="unknown") from None
    if values.ndim != 3 or (values.dtype, time_s.dtype, flags.dtype) != (np.float32, np.float64, np.uint32):
        raise DeviceError("transport", "the reply to evaluate has arrays of the wrong type", outcome="unknown")
    settings, _, detectors = values.shape
    if time_s.shape != (settings,) or flags.shape != (settings, detectors):
        raise DeviceError(
            "transport",
            f"the reply to evaluate has values {values.shape}, time_s {time_s.shape} and flags {flags.shape}, which do not match",
            outcome="unknown",
        )
    return Readings(values, time_s, flags)  # pyright: ignore[reportArgumentType]  (just checked)


def to_readback(answer: Answer, channels: int) -> Readback:
    """Return the voltages and currents in the reply to `readback`; `DeviceError` "transport" if it has none."""
    found = {name: answer.arrays.get(name) for name in ("volts", "amperes")}
    for name, array in found.items():
        if array is None or array.dtype != np.float64 or array.shape != (channels,):
            raise DeviceError("transport", f"the reply to readback lacks the array {name}, f8 ({channels},)", outcome="unknown")
    return Readback(**found)  # pyright: ignore[reportArgumentType]  (just checked)


def to_drive_array(drive: object, field: str) -> AnyArray:
    """Return `drive` as float64; `field` is its name in errors. `DeviceError` "bad_request" if it is not numeric."""
    array = _array(drive, field)
    if array.dtype.kind not in "fiu":
        raise DeviceError("bad_request", f"{field} is not an array of volts: type {array.dtype}")
    return array.astype(np.float64, copy=False)


def amplitudes(inputs: object) -> AnyArray:
    """Return `inputs` with a dtype that the protocol has; all other checks are the device's."""
    array = _array(inputs, "inputs")
    if array.dtype.kind in "iub":
        return array.astype(np.float32)
    if array.dtype.kind == "f" and array.dtype.itemsize not in {4, 8}:
        return array.astype(np.float64)
    return array


def rows(numbers: object) -> AnyArray:
    """Return row numbers as int64 if they are integers; all other checks are the device's."""
    array = _array(numbers, "rows")
    return array.astype(np.int64, copy=False) if array.dtype.kind in "iu" else array


def _array(value: object, field: str) -> AnyArray:
    try:
        return np.asarray(value)
    except (TypeError, ValueError) as error:
        raise DeviceError("bad_request", f"{field} is not an array: {error}") from None
