"""The optical switch in front of the input ports: selects the lit port, if that has changed."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from photonloop.drivers.bench.bench_clock import BenchClock
from photonloop.drivers.bench.input_settings import DARK
from photonloop.drivers.bench.instrument_handle import InstrumentHandle
from photonloop.drivers.instrument import OpticalSwitch


class SwitchControl:
    """An optical switch with its known channel.

    Parameters
    ----------
    handle
        The switch.
    """

    def __init__(self, handle: InstrumentHandle[OpticalSwitch]) -> None:
        self._handle = handle
        self._selected: int | None = None
        """The channel, DARK, or None if it is unknown."""
        self._seen_invalidations = handle.invalidations
        self.arrives_at_s = -np.inf
        """When the switch accepted its last channel."""
        self.writes = 0

    def select(self, channel: int, clock: BenchClock, allowed: Callable[[], bool]) -> bool:
        """Direct the light to `channel`, or to no channel (DARK); return False if `allowed` returned False."""
        handle = self._handle
        with handle.lock:
            if not allowed():
                return False
            if channel == self._selected and self._seen_invalidations == handle.invalidations:
                return True
            self._selected = None
            handle.mutate("select", lambda switch: switch.select(None if channel == DARK else channel))
            self._selected, self._seen_invalidations = channel, handle.invalidations
            self.arrives_at_s = clock.now_s()
        self.writes += 1
        return True
