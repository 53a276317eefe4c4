"""Checks of requests against a device's limits. A request either passes or is refused as a whole.

Every device uses these checks, so the simulator and a bench refuse the same drives with the same messages. Values are
never clipped: silent clipping would turn a bug in a learning rule into a wrong gradient.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from photonloop.protocols.device import MAX_WAIT_S, DeviceDescription, Drive, Inputs, LoadedRows, PerChannel
from photonloop.protocols.errors import DeviceError


def check_held_drive(description: DeviceDescription, drive: object) -> Drive:
    """Return `drive` as float64 of shape (channels,), checked against every limit of the device.

    Raises
    ------
    DeviceError
        "bad_request" for a wrong shape or type, "limit" for a value beyond a limit.
    """
    array = _as_volts(drive, "drive")
    if array.shape != (description.channels,):
        raise DeviceError(
            "bad_request",
            f"drive has shape {array.shape}, but the device has channels ({description.channels},)",
        )
    _check_volts(description, array[np.newaxis], 0, "drive")
    return array


def check_settings(description: DeviceDescription, stage: str, drives: object, held: Drive) -> Drive:
    """Return `drives` as float64 of shape (settings, channels of the stage), checked together with the held drive.

    `held`, shape (channels,), is the drive of the other stages: the total heater power is that of the whole device.
    Raises as `check_held_drive` does.
    """
    try:
        index = description.stage_index(stage)
    except KeyError:
        names = ", ".join(s.name for s in description.stages)
        raise DeviceError("bad_request", f"stage is {stage!r}, but the device has: {names}") from None
    here = description.stages[index]
    array = _as_volts(drives, "drives")
    if array.ndim != 2 or array.shape[1] != here.channels or array.shape[0] == 0:
        raise DeviceError(
            "bad_request",
            f"drives has shape {array.shape}, but stage {stage} takes (settings, {here.channels}) with at least one setting",
        )
    if array.shape[0] > description.limits.max_settings:
        raise DeviceError(
            "limit", f"drives has {array.shape[0]} settings, more than max_settings {description.limits.max_settings}"
        )
    others = held.copy()
    others[here.first_channel : here.first_channel + here.channels] = 0.0
    _check_volts(description, array, here.first_channel, "drives", heater_power_w(description, others))
    return array


def check_inputs(description: DeviceDescription, inputs: object) -> Inputs:
    """Return `inputs` as a float or complex array of shape (samples, input ports) with magnitudes in [0, 1].

    Raises
    ------
    DeviceError
        "bad_request" for a wrong shape or type, NaN, a magnitude outside [0, 1], complex inputs if the device cannot
        set phases, or a sample with several lit inputs if the device lights one at a time.
    """
    try:
        array = np.asarray(inputs)
    except ValueError as error:
        raise DeviceError("bad_request", f"inputs is not an array: {error}") from None
    if array.dtype.kind in "iub":
        array = array.astype(np.float32)
    if array.dtype.kind not in "fc":
        raise DeviceError("bad_request", f"inputs has type {array.dtype}, expected float or complex numbers")
    if array.ndim != 2 or array.shape[1] != description.input_ports or array.shape[0] == 0:
        raise DeviceError(
            "bad_request",
            f"inputs has shape {array.shape}, expected (samples, {description.input_ports}), at least one sample",
        )
    if array.dtype.kind == "c" and not description.phases_settable:
        raise DeviceError("bad_request", "inputs is complex, but this device cannot set input phases: send amplitudes")
    magnitude = np.abs(array)
    highest, lowest = float(np.max(magnitude)), float(np.min(array)) if array.dtype.kind == "f" else 0.0
    if math.isnan(highest) or highest > 1.0 + 1e-6 or lowest < 0.0:
        bad = highest if not (lowest < 0.0) else lowest
        raise DeviceError("bad_request", f"inputs contains the amplitude {bad:.6g}, outside 0 to 1: scale the inputs")
    if description.inputs_at_once == "one" and (lit := np.count_nonzero(array, axis=1)).max() > 1:
        row = int(np.argmax(lit > 1))
        raise DeviceError(
            "bad_request",
            f"row {row} of inputs lights {lit[row]} inputs, but this device lights one at a time (inputs_at_once is 'one'): "
            "set all other amplitudes of the row to 0",
        )
    return array


def check_wait(seconds: object) -> float:
    """Return the checked duration of a `wait` [s].

    Raises
    ------
    DeviceError
        "bad_request" unless 0 ≤ seconds ≤ MAX_WAIT_S.
    """
    if isinstance(seconds, bool) or not isinstance(seconds, int | float | np.integer | np.floating):
        raise DeviceError("bad_request", f"seconds is {seconds!r}, expected a number of seconds")
    if not 0 <= seconds <= MAX_WAIT_S:  # NaN is not
        raise DeviceError("bad_request", f"seconds is {seconds:g}, outside 0 to {MAX_WAIT_S:g}: wait several times")
    return float(seconds)


def check_light_switch(description: DeviceDescription) -> None:
    """Check that the device can switch its light; `DeviceError` "bad_request" otherwise."""
    if not description.light_switch:
        raise DeviceError("bad_request", "this device cannot switch its light (light_switch is false): switch the laser by hand")


def check_size(description: DeviceDescription, stage: str, settings: int, samples: int) -> None:
    """Check the number of samples and readings of an evaluation.

    Raises
    ------
    DeviceError
        "limit" if there are more than max_batch or max_readings.
    """
    limits = description.limits
    if samples > limits.max_batch:
        raise DeviceError("limit", f"inputs has {samples} samples, more than max_batch {limits.max_batch}")
    readings = settings * samples * description.stages[description.stage_index(stage)].tap_ports
    if readings > limits.max_readings:
        raise DeviceError(
            "limit",
            f"{settings} settings of {samples} samples give {readings} readings, more than max_readings {limits.max_readings}",
        )


def check_loaded_rows(rows: LoadedRows, loaded: dict[str, int]) -> NDArray[np.int64]:
    """Return the row numbers of `rows` as int64; `loaded` maps each loaded name to its number of rows.

    Raises
    ------
    DeviceError
        "bad_request" for an unknown name, no rows, or a row that the array does not have.
    """
    if rows.name not in loaded:
        known = f"loaded are {', '.join(sorted(loaded))}" if loaded else "none are loaded"
        raise DeviceError("bad_request", f"inputs {rows.name!r} are not loaded ({known}): load them first")
    numbers = np.asarray(rows.rows)
    if numbers.ndim != 1 or numbers.size == 0 or numbers.dtype.kind not in "iu":
        raise DeviceError("bad_request", f"rows has shape {numbers.shape} and type {numbers.dtype}, expected (samples,) integers")
    count = loaded[rows.name]
    lowest, highest = int(numbers.min()), int(numbers.max())
    if lowest < 0 or highest >= count:
        bad = lowest if lowest < 0 else highest
        raise DeviceError("bad_request", f"row {bad} of {rows.name!r} does not exist: rows are numbered 0 to {count - 1}")
    return numbers.astype(np.int64, copy=False)


def heater_power_w(description: DeviceDescription, drive: Drive) -> float:
    """Return the nominal electrical power [W] of all heaters at `drive`, shape (channels,)."""
    return float(np.dot(drive, drive)) / description.drive.resistance_ohm


def channel_limits(value: PerChannel, first: int, count: int) -> NDArray[np.float64]:
    """Return a limit as an array over `count` channels from `first`; infinity for channels without a limit."""
    array = np.broadcast_to(value, (count,)) if np.isscalar(value) else np.asarray(value)[first : first + count]
    return np.where(array > 0, array, np.inf).astype(np.float64)


def highest_drive_v(description: DeviceDescription, first: int, count: int) -> NDArray[np.float64]:
    """Return the highest drive [V] that the voltage, current and power limits allow, shape (count,)."""
    limits, ohm = description.limits, description.drive.resistance_ohm
    by_voltage = np.minimum(channel_limits(limits.voltage_v, first, count), description.drive.max_v)
    by_current = channel_limits(limits.current_a, first, count) * ohm
    by_power = np.sqrt(channel_limits(limits.power_w, first, count) * ohm)
    return np.minimum(by_voltage, np.minimum(by_current, by_power))


def _as_volts(drive: object, field: str) -> Drive:
    try:
        array = np.asarray(drive)
        if array.dtype.kind not in "fiu":
            raise ValueError(f"type {array.dtype}")
        return np.ascontiguousarray(array, dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise DeviceError("bad_request", f"{field} is not an array of volts: {error}") from None


def _check_volts(description: DeviceDescription, drives: Drive, first: int, field: str, other_power_w: float = 0.0) -> None:
    """Check `drives`, shape (settings, channels from `first`), and refuse the first value that exceeds a limit."""
    ceiling = highest_drive_v(description, first, drives.shape[1])
    # NaN compares false with both bounds, so this finds it as well.
    good = (drives >= description.drive.min_v) & (drives <= ceiling)
    if not good.all():
        setting, column = (int(i) for i in np.argwhere(~good)[0])
        raise _refusal(description, float(drives[setting, column]), first + column, float(ceiling[column]), field, setting)
    total_limit_w = description.limits.total_power_w
    if total_limit_w > 0:
        total_w = np.einsum("sc,sc->s", drives, drives) / description.drive.resistance_ohm + other_power_w
        if (worst := float(total_w.max())) > total_limit_w:
            raise DeviceError(
                "limit",
                f"{field} would heat the chip with {worst:.6g} W in total, more than total_power_w {total_limit_w:.6g} W",
            )


def _refusal(
    description: DeviceDescription, volts: float, channel: int, ceiling_v: float, field: str, setting: int
) -> DeviceError:
    where = f"{field} of channel {channel} in setting {setting}" if field == "drives" else f"{field} of channel {channel}"
    if not math.isfinite(volts):
        return DeviceError("bad_request", f"{where} is {volts}, not a voltage", channel=channel)
    if volts < description.drive.min_v:
        return DeviceError(
            "limit", f"{where} is {volts:.6g} V, below the lowest drive {description.drive.min_v:.6g} V", channel=channel
        )
    return DeviceError("limit", f"{where} is {volts:.6g} V, above its limit {ceiling_v:.6g} V", channel=channel)
