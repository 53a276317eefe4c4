"""Predict the duration of an evaluation from earlier evaluations of similar size."""

from __future__ import annotations

import math
import time
from collections import deque
from collections.abc import Callable

from photonloop.protocols.device import Readings

_REMEMBERED = 8


class DurationEstimator:
    """Time per setting and sample of the last evaluations, by stage and order of magnitude of settings × samples."""

    def __init__(self) -> None:
        self._rates: dict[tuple[str, int], deque[float]] = {}

    def measure(self, stage: str, settings: int, samples: int, evaluate: Callable[[], Readings]) -> Readings:
        """Carry out an evaluation and record its duration."""
        start_s = time.monotonic()
        readings = evaluate()
        self.note(stage, settings, samples, time.monotonic() - start_s)
        return readings

    def note(self, stage: str, settings: int, samples: int, took_s: float) -> None:
        """Record the duration of an evaluation."""
        work = max(1, settings * samples)
        self._rates.setdefault((stage, work.bit_length()), deque(maxlen=_REMEMBERED)).append(took_s / work)

    def forget(self) -> None:
        """Discard all durations, because the next evaluation may take longer: it switches the light on first."""
        self._rates.clear()

    def predicted_s(self, stage: str, settings: int, samples: int) -> float:
        """Return the duration [s] at the slowest recorded rate; infinity if no evaluation of that size was recorded."""
        work = max(1, settings * samples)
        rates = self._rates.get((stage, work.bit_length()))
        return work * max(rates) if rates else math.inf
