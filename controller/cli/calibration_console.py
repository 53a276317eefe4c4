"""Progress of a calibration in the terminal."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager

from rich.progress import Progress, TaskID

from photonloop.controller.calibration.calibration_progress import CalibrationListener, CalibrationProgress
from photonloop.controller.cli.console import PLAIN_EVERY_S, left_text, live_progress
from photonloop.controller.cli.printing import print_message


@contextmanager
def show_calibration() -> Iterator[CalibrationListener]:
    """Yield a listener that shows the progress of a calibration on standard error: a bar in a terminal, else lines."""
    with live_progress() as progress:
        yield _PlainProgress() if progress is None else _LiveProgress(progress)


class _LiveProgress:
    """One bar for all settings."""

    def __init__(self, progress: Progress) -> None:
        self._progress = progress
        self._bar: TaskID | None = None

    def progress(self, report: CalibrationProgress) -> None:
        if self._bar is None:
            self._bar = self._progress.add_task("", total=report.expected, figures="")
        self._progress.update(
            self._bar, description=report.step, total=report.expected, completed=report.settings, figures=_figures(report)
        )

    def message(self, text: str) -> None:
        self._progress.console.print(text, markup=False)


class _PlainProgress:
    """One line per step, and every few seconds."""

    def __init__(self) -> None:
        self._printed_at, self._step = -PLAIN_EVERY_S, ""

    def progress(self, report: CalibrationProgress) -> None:
        if report.step != self._step or time.monotonic() - self._printed_at >= PLAIN_EVERY_S:
            print_message(f"{report.step} · {_figures(report)}")
            self._printed_at, self._step = time.monotonic(), report.step

    def message(self, text: str) -> None:
        print_message(text)


def _figures(report: CalibrationProgress) -> str:
    return f"{report.settings}/{report.expected} settings{left_text(report.left_s)}"
