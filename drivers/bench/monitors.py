"""Monitoring of a bench: instrument errors, heater currents, the quantities of `[[monitors]]`, the laser.

Limits are checked before a write with nominal resistances. Here the actual currents and powers of the heaters are
measured.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from photonloop.drivers.bench.bench_clock import BenchClock
from photonloop.drivers.bench.instrument_handle import InstrumentHandle
from photonloop.drivers.bench.laser_light import LaserControl
from photonloop.drivers.bench.output_channels import OutputChannels
from photonloop.drivers.bench.wiring import Wiring
from photonloop.drivers.instrument import ChannelLimits, ReadsAmps
from photonloop.drivers.station.schema import LaserTable, MonitorTable

OVER_POWER = "over_power"
LASER_DARK = "laser_dark"

MARGIN = 0.1
"""Measured currents and powers may exceed their limits by this share: a real heater may have a slightly lower
resistance than the nominal one that the limit was checked with, and a source measures its current to a few percent."""


class TrippedError(Exception):
    """A measured value is beyond its bound; `name` is that of the fault to latch."""

    def __init__(self, name: str, detail: str) -> None:
        super().__init__(detail)
        self.name = name
        self.detail = detail


class MonitorReader:
    """Reads everything that is monitored, at most every `watch_s` of the station file.

    Parameters
    ----------
    wiring
        The bounds.
    handles
        The instruments, by their names in the station file.
    heaters
        The sources whose currents are measured, if they can measure them.
    light
        The laser, checked while it should be on.
    clock
        The time between readings.
    """

    def __init__(
        self,
        wiring: Wiring,
        handles: Mapping[str, InstrumentHandle],
        heaters: Sequence[OutputChannels],
        light: LaserControl,
        clock: BenchClock,
    ) -> None:
        self._wiring = wiring
        self._handles = handles
        self._heaters = heaters
        self._light = light
        self._clock = clock
        self._read_at_s = -np.inf
        self.values: dict[str, str | float] = {}
        """The values that were last read, by name."""

    @property
    def is_due(self) -> bool:
        """Whether `watch_s` has passed since the last reading."""
        return self._clock.now_s() >= self.due_at_s

    @property
    def due_at_s(self) -> float:
        """Time of the next reading on the clock of the bench [s]."""
        return self._read_at_s + self._wiring.station.watch_s

    def restart_interval(self) -> None:
        """Count `watch_s` from now, as if everything had been read."""
        self._read_at_s = self._clock.now_s()

    def read(self) -> None:
        """Check all instruments for errors and read all monitored values into `values`.

        Raises
        ------
        InstrumentError
            An instrument reports an error or does not answer.
        TrippedError
            The first value beyond its bound.
        """
        self.restart_interval()
        for handle in self._handles.values():
            handle.query("check", lambda instrument: instrument.check())
        self.values = read_monitors(self._wiring, self._handles, self._heaters, self._light)


def read_monitors(
    wiring: Wiring, handles: Mapping[str, InstrumentHandle], heaters: Sequence[OutputChannels], light: LaserControl
) -> dict[str, str | float]:
    """Read everything that is monitored and return it by name, the laser only while it should be on.

    Raises
    ------
    TrippedError
        The first value beyond its bound.
    InstrumentError
        An instrument that could not be read.
    """
    values: dict[str, str | float] = {}
    measured_w = [_heater_power_w(output, bank.limits) for output, bank in zip(heaters, wiring.heaters, strict=True)]
    known_w = [power_w for power_w in measured_w if power_w is not None]
    if known_w:
        values["measured_heater_w"] = total_w = sum(known_w)
        limit_w = wiring.description.limits.total_power_w
        if limit_w > 0 and total_w > limit_w * (1 + MARGIN):
            raise TrippedError(
                OVER_POWER, f"the heaters take {total_w:.4g} W, above total_power_w {limit_w:.4g} W by more than {MARGIN:.0%}"
            )
    for monitor in wiring.station.monitors:
        values[f"{monitor.name}_{monitor.unit}".rstrip("_")] = _monitored(monitor, handles[monitor.instrument])
    if (laser := light.lit) is not None:
        handle = handles[laser.instrument]
        with handle.lock:  # not between a `switch_off` of another thread and this check
            if light.lit is not None:
                values["laser_w"] = _laser_power_w(laser, handle)
    return values


def _heater_power_w(output: OutputChannels, limits: Mapping[int, ChannelLimits]) -> float | None:
    """Return the measured power of the heaters on one source [W], or None if it does not measure currents."""
    instrument = output.handle.instrument
    if not isinstance(instrument, ReadsAmps):
        return None
    with output.handle.lock:  # so that currents and voltages belong together
        volts = output.volts.copy()
        amps = np.asarray(output.handle.query("read_amps", lambda _: instrument.read_amps(output.channels.tolist())), np.float64)
    powers = np.abs(np.nan_to_num(volts) * amps)
    for place, channel in enumerate(output.channels.tolist()):
        limit = limits[channel]
        for value, bound, key, unit in (
            (abs(amps[place]), limit.max_a, "max_a", "A"),
            (powers[place], limit.max_w, "max_w", "W"),
        ):
            if bound > 0 and value > bound * (1 + MARGIN):
                heater = f"heater {int(output.members[place])} ({output.handle.name}:{channel})"
                raise TrippedError(
                    OVER_POWER,
                    f"{heater} takes {value:.4g} {unit} at {volts[place]:.4g} V, "
                    f"above its {key} {bound:.4g} {unit} by more than {MARGIN:.0%}",
                )
    return float(powers.sum())


def _monitored(monitor: MonitorTable, handle: InstrumentHandle) -> float:
    reading = float(handle.query("read", lambda instrument: instrument.read([monitor.channel]))[0])
    value = monitor.scale * reading + monitor.offset
    # Negated comparisons, so that NaN is beyond every bound.
    if monitor.max is not None and not value <= monitor.max:
        raise TrippedError(monitor.name, f"{value:.5g} {monitor.unit} is above its max {monitor.max:g} {monitor.unit}")
    if monitor.min is not None and not value >= monitor.min:
        raise TrippedError(monitor.name, f"{value:.5g} {monitor.unit} is below its min {monitor.min:g} {monitor.unit}")
    return value


def _laser_power_w(laser: LaserTable, handle: InstrumentHandle) -> float:
    if not handle.query("is_on", lambda instrument: instrument.is_on()):
        raise TrippedError(LASER_DARK, f"{handle.name} reports that the light is off, although the bench did not switch it off")
    power_w = float(handle.query("power_w", lambda instrument: instrument.power_w()))
    if laser.max_power_w is not None and not power_w <= laser.max_power_w:
        raise TrippedError(OVER_POWER, f"{handle.name} emits {power_w:.4g} W, above max_power_w {laser.max_power_w:.4g} W")
    return power_w
