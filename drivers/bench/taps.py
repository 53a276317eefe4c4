"""Read the detectors of a stage and convert readings to photocurrents: units, saturation, and the bounds `trip_a`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from photonloop.drivers.bench.instrument_handle import InstrumentError, InstrumentHandle
from photonloop.drivers.bench.monitors import OVER_POWER, TrippedError
from photonloop.drivers.bench.wiring import Tap
from photonloop.protocols.errors import DeviceError


def read_sample(taps: Sequence[Tap], handles: Mapping[str, InstrumentHandle], into: NDArray[np.float64]) -> None:
    """Read the detectors of a stage once into `into` [unit of the readout], shape (tap ports,): one exchange per
    readout.

    Raises
    ------
    InstrumentError
        A readout failed, or returned another number of readings.
    TrippedError
        A detector is above its `trip_a`.
    """
    for tap in taps:
        handle = handles[tap.instrument]
        readings = handle.query("read", lambda instrument, tap=tap: instrument.read(tap.channels))
        if np.shape(readings) != tap.ports.shape:
            raise _invalid(handle, f"returned readings of shape {np.shape(readings)} for {len(tap.ports)} channels")
        into[tap.ports] = readings
        if tap.trips:
            _check_bounds(tap, handle, np.asarray(readings, np.float64))


def photocurrents(
    taps: Sequence[Tap], handles: Mapping[str, InstrumentHandle], raw: NDArray[np.float64], into: NDArray[np.float32]
) -> NDArray[np.bool_]:
    """Convert the readings of one setting, shape (samples, tap ports), to currents [A] in `into`, of the same shape.

    A saturated reading becomes the full scale, which is a lower bound.

    Returns
    -------
    array of bool, shape (tap ports,)
        Whether any reading of a detector was saturated.

    Raises
    ------
    InstrumentError
        A reading is NaN.
    """
    saturated = np.zeros(into.shape[1], bool)
    for tap in taps:
        amps = raw[:, tap.ports] * tap.ampere_per_unit
        if np.isnan(amps).any():
            raise _invalid(handles[tap.instrument], "returned a reading that is NaN")
        over = np.abs(amps) >= tap.full_scale_a
        if over.any():
            saturated[tap.ports] = over.any(axis=0)
            amps = np.where(over, np.copysign(tap.full_scale_a, amps), amps)
        into[:, tap.ports] = amps
    return saturated


def _check_bounds(tap: Tap, handle: InstrumentHandle, raw: NDArray[np.float64]) -> None:
    size_a = np.abs(raw * tap.ampere_per_unit)
    if (size_a > tap.trip_a).any():
        worst = int(np.argmax(size_a / tap.trip_a))
        reading = f"detector {int(tap.ports[worst])} ({handle.name}:{tap.channels[worst]}) reads {size_a[worst]:.4g} A"
        raise TrippedError(OVER_POWER, f"{reading}, above its trip_a {tap.trip_a[worst]:.4g} A")


def _invalid(handle: InstrumentHandle, detail: str) -> InstrumentError:
    """Mark an instrument as failed, and return the error to raise."""
    handle.suspect = True
    return InstrumentError(handle.name, DeviceError("device", detail, outcome="applied"))
