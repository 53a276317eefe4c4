"""The laser of a bench: switched on when an evaluation first needs it, switched off on a fault and at the end."""

from __future__ import annotations

from collections.abc import Callable

from photonloop.drivers.bench.bench_clock import BenchClock
from photonloop.drivers.bench.instrument_handle import InstrumentHandle
from photonloop.drivers.instrument import Laser
from photonloop.drivers.station.schema import LaserTable


class LaserControl:
    """The laser in front of the input modulators, if the station has one.

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
        self.unconfirmed = False
        """True while the light should be off but the laser has not confirmed it."""

    @property
    def lit(self) -> LaserTable | None:
        """The laser's table while the light should be on; None otherwise."""
        return self._table if self._warm_at_s is not None else None

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
