"""The clock of a bench. All waits go through it, so a stop ends every wait, and a test can replace it."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Protocol

_SHORT_S = 1e-3
"""Waits shorter than this are a plain sleep, which is more precise than a condition; a stop is noticed afterwards."""


class BenchClock(Protocol):
    """A monotonic clock that can wait."""

    def now_s(self) -> float:
        """Return the time [s]. Never waits."""
        ...

    def wait_until(self, time_s: float, stopped: Callable[[], bool]) -> bool:
        """Return True at `time_s`, or False as soon as `stopped` returns True; it is called again at every `wake`."""
        ...

    def wake(self) -> None:
        """Make every wait check whether it is stopped. May be called from any thread."""
        ...


class WallClock:
    """The real time since the clock was created."""

    def __init__(self) -> None:
        self._start_s = time.monotonic()
        self._woken = threading.Condition()

    def now_s(self) -> float:
        """Return the time [s]."""
        return time.monotonic() - self._start_s

    def wait_until(self, time_s: float, stopped: Callable[[], bool]) -> bool:
        """Wait for `time_s` on this clock."""
        while not stopped():
            left_s = time_s - self.now_s()
            if left_s <= 0:
                return True
            if left_s <= _SHORT_S:
                time.sleep(left_s)
                continue
            with self._woken:
                if not stopped():
                    self._woken.wait(left_s - _SHORT_S / 2)
        return False

    def wake(self) -> None:
        """Make every `wait_until` check whether it is stopped."""
        with self._woken:
            self._woken.notify_all()
