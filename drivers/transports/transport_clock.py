"""Time as drivers see it: injected, so that a test of a ten-second timeout takes no time, and nothing sleeps on its own."""

from __future__ import annotations

import time
from typing import Protocol


class TransportClock(Protocol):
    """A clock that never goes back."""

    def now_s(self) -> float:
        """Return seconds since some fixed moment."""
        ...

    def pause(self, seconds: float) -> None:
        """Return `seconds` later; at once where they are not positive."""
        ...


class SystemClock:
    """The machine's own monotonic clock."""

    def now_s(self) -> float:
        """Return seconds since some fixed moment."""
        return time.monotonic()

    def pause(self, seconds: float) -> None:
        """Sleep; at once where `seconds` are not positive."""
        if seconds > 0:
            time.sleep(seconds)


class SteppedClock:
    """A clock that moves only by pauses, for tests and replays."""

    def __init__(self) -> None:
        self._now_s = 0.0

    def now_s(self) -> float:
        """Return the sum of all pauses."""
        return self._now_s

    def pause(self, seconds: float) -> None:
        """Move on by `seconds`."""
        self._now_s += max(0.0, seconds)
