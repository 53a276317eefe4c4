"""The chip's clock: it advances by the time that operations would take in a lab, either at once or in real time."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable


class ChipClock:
    """Seconds since the chip was switched on.

    Virtual clock: `advance` moves the clock and returns at once, and between operations the clock does not move.
    Real-time clock (`realtime`): the clock follows wall time, and `advance` waits.
    """

    def __init__(self, realtime: bool = False) -> None:
        self.realtime = realtime
        self._start_s = time.monotonic()
        self._now_s = 0.0
        self._woken = threading.Condition()

    def now_s(self) -> float:
        """Return the time [s]. Never waits."""
        return time.monotonic() - self._start_s if self.realtime else self._now_s

    def advance(self, duration_s: float, stopped: Callable[[], bool]) -> bool:
        """Let `duration_s` pass; return False if `stopped` returned True before. Every `wake` calls `stopped` again."""
        if not self.realtime:
            self._now_s += duration_s
            return True
        end_s = time.monotonic() + duration_s
        with self._woken:
            while not stopped():
                left_s = end_s - time.monotonic()
                if left_s <= 0:
                    return True
                self._woken.wait(left_s)
        return False

    def wake(self) -> None:
        """Make a waiting `advance` call `stopped` again."""
        if self.realtime:
            with self._woken:
                self._woken.notify_all()
