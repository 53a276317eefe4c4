"""How far a session is, for whoever watches it live."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Protocol


@dataclass(frozen=True)
class EpochReport:
    """Progress at the end of an epoch; accuracies only where they were just measured."""

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
    """Whoever watches a session live."""

    def epoch(self, report: EpochReport) -> None:
        """Take note of an epoch's end."""
        ...

    def message(self, text: str) -> None:
        """Take note of something a person should read."""
        ...


class Stopwatch:
    """Wall time of a session and its pace, from where it began or went on.

    Parameters
    ----------
    evaluations
        Settings measured before.
    """

    def __init__(self, evaluations: int) -> None:
        self._began_s = time.monotonic()
        self._before = evaluations

    @property
    def wall_s(self) -> float:
        """Seconds since the session began or went on."""
        return time.monotonic() - self._began_s

    def evaluations_per_s(self, evaluations: int) -> float:
        """Return the mean pace, at `evaluations` settings measured."""
        return (evaluations - self._before) / max(self.wall_s, 1e-9)


class SilentListener:
    """A listener that ignores all reports."""

    def epoch(self, report: EpochReport) -> None:
        """Do nothing."""

    def message(self, text: str) -> None:
        """Do nothing."""
