"""The time of a bench: one place that waits, so that tests hold the clock and a stop ends every wait."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Protocol

_SHORT_S = 1e-3
"""Below this a wait is a plain sleep, which oversleeps less than a condition does; a stop is noticed at its end."""


class BenchClock(Protocol):
    """Seconds that never go back."""

    def now_s(self) -> float:
        """Return the time [s]. Never waits."""
        ...

    def wait_until(self, time_s: float, stopped: Callable[[], bool]) -> bool:
        """Return True at `time_s`, or False as soon as `stopped` says so (asked at every `wake`)."""
        ...

    def wake(self) -> None:
        """Let every wait ask whether it is stopped. From any thread."""
        ...


class WallClock:
    """Seconds since the clock was made."""

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
        """Make a waiting `wait_until` ask whether it is stopped."""
        with self._woken:
            self._woken.notify_all()
