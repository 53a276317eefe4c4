"""The laser of a bench: on if an evaluation needs light, off in the safe state, on a fault and at the end."""

from __future__ import annotations

import logging
from collections.abc import Callable

from photonloop.drivers.bench.bench_clock import BenchClock
from photonloop.drivers.bench.instrument_handle import InstrumentError, InstrumentHandle
from photonloop.drivers.instrument import Laser
from photonloop.drivers.station.schema import LaserTable

log = logging.getLogger(__name__)


class LaserControl:
    """The laser in front of the inputs, if the station has one.

    Parameters
    ----------
    table
        Its power, wavelength and warm-up time; None if the bench does not control the light.
    handle
        The laser.
    """

    def __init__(self, table: LaserTable | None, handle: InstrumentHandle[Laser] | None) -> None:
        self._table, self._handle = table, handle
        self._warm_at_s: float | None = None
        self.is_switch = table is not None and not table.keep_on
        """Whether the light is switched on request and is off in the safe state."""
        self.stays_off = False
        """True after `set_light(False)`: evaluations do not switch the light on."""
        self.unconfirmed = self.is_switch
        """True while the light should be off but the laser has not confirmed it."""

    @property
    def lit(self) -> LaserTable | None:
        """The laser's table while the light should be on; None otherwise."""
        return self._table if self._warm_at_s is not None else None

    @property
    def is_on(self) -> bool:
        """Whether the light is on, or not confirmed to be off."""
        return self._warm_at_s is not None or self.unconfirmed

    def switch_on(self, clock: BenchClock, allowed: Callable[[], bool]) -> bool:
        """Switch the light on if it is off, with its wavelength and power set, and wait until it is warm.

        Returns False if `allowed` returned False on the way.
        """
        table, handle = self._table, self._handle
        if table is None or handle is None:
            return allowed()
        with handle.lock:  # `switch_off` in another thread runs before or after all of this
            if not allowed():
                return False
            if self._warm_at_s is None:
                if (wavelength_nm := table.wavelength_nm) is not None:
                    handle.mutate("set_wavelength_nm", lambda laser: laser.set_wavelength_nm(wavelength_nm))
                handle.mutate("set_power_w", lambda laser: laser.set_power_w(table.power_w))
                self.unconfirmed = True  # until the laser confirms that it is on
                handle.mutate("on", lambda laser: laser.on())
                self._warm_at_s = clock.now_s() + table.warm_s
                self.unconfirmed = False
                log.info("%s: the light is on, readings begin after %g s of warm-up", handle.name, table.warm_s)
            warm_at_s = self._warm_at_s
        return allowed() if clock.now_s() >= warm_at_s else clock.wait_until(warm_at_s, lambda: not allowed())

    def switch_off(self) -> None:
        """Switch the light off."""
        if self._handle is not None:
            with self._handle.lock:
                self._warm_at_s, self.unconfirmed = None, True
                self._handle.mutate("off", lambda laser: laser.off())
                self.unconfirmed = False

    def retry_off(self) -> None:
        """Switch the light off again if the laser has not confirmed that it is off."""
        if self._handle is not None:
            with self._handle.lock:
                if self.unconfirmed:
                    self.switch_off()

    def make_safe(self) -> list[InstrumentError]:
        """Switch the light off if it should be off in the safe state, or should be off already; return what failed."""
        return self.force_off() if self.unconfirmed or (self.is_switch and self.is_on) else []

    def force_off(self) -> list[InstrumentError]:
        """Switch the light off; return the error if that failed."""
        try:
            self.switch_off()
        except InstrumentError as error:
            return [error]
        return []
