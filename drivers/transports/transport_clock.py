"""Clocks for transports: injected, so that a test of a ten-second timeout takes no time."""

from __future__ import annotations

import time
from typing import Protocol


class TransportClock(Protocol):
    """A monotonic clock."""

    def now_s(self) -> float:
        """Return seconds since a fixed moment."""
        ...

    def pause(self, seconds: float) -> None:
        """Return after `seconds`; at once if they are not positive."""
        ...


class SystemClock:
    """The system's monotonic clock."""

    def now_s(self) -> float:
        """Return seconds since a fixed moment."""
        return time.monotonic()

    def pause(self, seconds: float) -> None:
        """Sleep for `seconds`; return at once if they are not positive."""
        if seconds > 0:
            time.sleep(seconds)


class SteppedClock:
    """A clock that advances only by pauses, for tests and replays."""

    def __init__(self) -> None:
        self._now_s = 0.0

    def now_s(self) -> float:
        """Return the sum of all pauses."""
        return self._now_s

    def pause(self, seconds: float) -> None:
        """Advance by `seconds`."""
        self._now_s += max(0.0, seconds)
