"""Progress of a calibration: its listener, and the time left."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Protocol


@dataclass(frozen=True)
class CalibrationProgress:
    """How far a calibration is.

    Parameters
    ----------
    step
        What is done at present.
    settings, expected
        Settings read so far, and expected in total.
    left_s
        Estimate of the time left [s]; infinity if it is not known yet.
    """

    step: str
    settings: int
    expected: int
    left_s: float


class CalibrationListener(Protocol):
    """Receives the progress and the messages of a calibration."""

    def progress(self, report: CalibrationProgress) -> None:
        """Receive the progress."""
        ...

    def message(self, text: str) -> None:
        """Receive a message for the user."""
        ...


class SilentCalibrationListener:
    """A listener that ignores all reports."""

    def progress(self, report: CalibrationProgress) -> None:
        """Do nothing."""

    def message(self, text: str) -> None:
        """Do nothing."""


class ProgressCounter:
    """Counts settings, and estimates the time left from the pace of those that were measured.

    Parameters
    ----------
    listener
        Receives the progress.
    expected
        Settings expected in total.
    """

    def __init__(self, listener: CalibrationListener, expected: int) -> None:
        self._listener, self._expected = listener, expected
        self._step = ""
        self.settings = self._measured = 0
        self._began_s = time.monotonic()

    def step(self, name: str) -> None:
        """Begin a step."""
        self._step = name
        self._report()

    def read(self, settings: int, replayed: bool) -> None:
        """Count settings that were read, or replayed."""
        self.settings += settings
        if replayed:
            self._began_s = time.monotonic()
        else:
            self._measured += settings
        self._report()

    def _report(self) -> None:
        expected = max(self._expected, self.settings)
        left_s = float("inf")
        if self._measured:
            left_s = (time.monotonic() - self._began_s) / self._measured * (expected - self.settings)
        self._listener.progress(CalibrationProgress(self._step, self.settings, expected, left_s))
