"""Predict the duration of an evaluation from earlier evaluations of similar size."""

from __future__ import annotations

import math
from collections import deque

_REMEMBERED = 8


class DurationEstimator:
    """Time per setting and sample of the last evaluations, by stage and order of magnitude of settings × samples."""

    def __init__(self) -> None:
        self._rates: dict[tuple[str, int], deque[float]] = {}

    def note(self, stage: str, settings: int, samples: int, took_s: float) -> None:
        """Record the duration of an evaluation."""
        work = max(1, settings * samples)
        self._rates.setdefault((stage, work.bit_length()), deque(maxlen=_REMEMBERED)).append(took_s / work)

    def predicted_s(self, stage: str, settings: int, samples: int) -> float:
        """Return the duration [s] at the slowest recorded rate; infinity if no evaluation of that size was recorded."""
        work = max(1, settings * samples)
        rates = self._rates.get((stage, work.bit_length()))
        return work * max(rates) if rates else math.inf
