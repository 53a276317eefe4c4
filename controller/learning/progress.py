"""Progress of a session: epoch reports, their listener, and the pace of evaluations."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Protocol


@dataclass(frozen=True)
class EpochReport:
    """Progress at the end of an epoch. Accuracies are None unless they were measured at this epoch."""

    layer: int
    layers: int
    epoch: int
    epochs: int
    update: int
    loss: float
    train_accuracy: float | None
    test_accuracy: float | None
    evaluations: int
    evaluations_per_s: float
    wall_s: float
    left_s: float


class Listener(Protocol):
    """Receives the progress and the messages of a session."""

    def epoch(self, report: EpochReport) -> None:
        """Receive the report of a finished epoch."""
        ...

    def message(self, text: str) -> None:
        """Receive a message for the user."""
        ...


class Stopwatch:
    """Wall time and pace of a session since it was started or resumed.

    Parameters
    ----------
    evaluations
        Settings measured before that.
    """

    def __init__(self, evaluations: int) -> None:
        self._began_s = time.monotonic()
        self._before = evaluations

    @property
    def wall_s(self) -> float:
        """Seconds since the session was started or resumed."""
        return time.monotonic() - self._began_s

    def evaluations_per_s(self, evaluations: int) -> float:
        """Return the mean evaluations per second, given the number of settings measured so far."""
        return (evaluations - self._before) / max(self.wall_s, 1e-9)


class SilentListener:
    """A listener that ignores all reports."""

    def epoch(self, report: EpochReport) -> None:
        """Do nothing."""

    def message(self, text: str) -> None:
        """Do nothing."""
