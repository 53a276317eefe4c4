"""The light of a bench: switched on when it is first needed, and off again by whoever finds something wrong."""

from __future__ import annotations

from collections.abc import Callable

from photonloop.drivers.bench.bench_clock import BenchClock
from photonloop.drivers.bench.instrument_handle import InstrumentHandle
from photonloop.drivers.instrument import Laser
from photonloop.drivers.station.schema import LaserTable


class LaserControl:
    """The laser behind the input modulators, where the station has one.

    Parameters
    ----------
    table
        How it is to be set; None: light that nobody here controls.
    line
        The laser.
    """

    def __init__(self, table: LaserTable | None, handle: InstrumentHandle[Laser] | None) -> None:
        self._table, self._handle = table, handle
        self._warm_at_s: float | None = None
        self.doubtful = False
        """True while the light should be out, but the laser has not confirmed it."""

    @property
    def lit(self) -> LaserTable | None:
        """The laser's table while the light should be on; None otherwise."""
        return self._table if self._warm_at_s is not None else None

    def switch_on(self, clock: BenchClock, allowed: Callable[[], bool]) -> bool:
        """Set wavelength and power and switch on, unless that is done, and let it warm up; False where `allowed` said no."""
        table, handle = self._table, self._handle
        if table is None or handle is None:
            return allowed()
        with handle.lock:  # `switch_off` of another thread comes before or after all of this
            if not allowed():
                return False
            if self._warm_at_s is None:
                if (wavelength_nm := table.wavelength_nm) is not None:
                    handle.mutate("set_wavelength_nm", lambda laser: laser.set_wavelength_nm(wavelength_nm))
                handle.mutate("set_power_w", lambda laser: laser.set_power_w(table.power_w))
                self.doubtful = True  # until the laser confirms either state
                handle.mutate("on", lambda laser: laser.on())
                self._warm_at_s = clock.now_s() + table.warm_s
                self.doubtful = False
            warm_at_s = self._warm_at_s
        return allowed() if clock.now_s() >= warm_at_s else clock.wait_until(warm_at_s, lambda: not allowed())

    def switch_off(self) -> None:
        """Put the light out."""
        if self._handle is not None:
            with self._handle.lock:
                self._warm_at_s, self.doubtful = None, True
                self._handle.mutate("off", lambda laser: laser.off())
                self.doubtful = False

    def make_sure(self) -> None:
        """Put the light out again where the laser has not confirmed that it is out."""
        if self._handle is not None:
            with self._handle.lock:
                if self.doubtful:
                    self.switch_off()
