"""Progress of a session in the terminal, and stopping it by signals."""

from __future__ import annotations

import signal
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TextIO, cast

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn

from photonloop.controller.cli.printing import print_message
from photonloop.controller.learning.progress import EpochReport, Listener
from photonloop.controller.stopping import Stop
from photonloop.protocols.output_streams import PipeTolerantStream
from photonloop.protocols.stop_request import STOP_SIGNALS, stop_signals

PLAIN_EVERY_S = 5.0
"""Seconds between progress lines if standard error is not a terminal."""


@contextmanager
def stop_on_signals() -> Iterator[Stop]:
    """Yield a `Stop` that the first Ctrl-C, SIGTERM or hang-up of the terminal requests; a second Ctrl-C interrupts at
    once.

    Hang-ups are ignored under nohup.
    """
    stop = Stop()

    def handle(number: int) -> None:
        again = stop.asked
        stop.ask()
        if stop.breaks_off or (again and number == signal.SIGINT):
            raise KeyboardInterrupt

    with stop_signals(handle, (*STOP_SIGNALS, signal.SIGHUP)):
        yield stop


@contextmanager
def show_progress() -> Iterator[Listener]:
    """Yield a listener that shows the progress of a session on standard error.

    A terminal gets live bars, anything else one line every few seconds. If the terminal or the pipe is closed, the
    session continues without output.
    """
    with live_progress() as progress:
        yield _PlainLines() if progress is None else _LiveBars(progress)


@contextmanager
def live_progress() -> Iterator[Progress | None]:
    """Yield bars on standard error; None if it is not a terminal."""
    console = Console(file=cast(TextIO, PipeTolerantStream(sys.stderr)), highlight=False)
    if not console.is_terminal:
        yield None
        return
    # The bar takes the width that the text leaves, which may be nothing.
    columns = (TextColumn("{task.description}"), TextColumn("{task.fields[figures]}"), BarColumn(bar_width=None))
    with Progress(*columns, console=console, refresh_per_second=5, expand=True) as progress:
        yield progress


class _LiveBars:
    """One bar per layer."""

    def __init__(self, progress: Progress) -> None:
        self._progress = progress
        self._bars: dict[int, TaskID] = {}
        self._accuracy = ""

    def epoch(self, report: EpochReport) -> None:
        if report.layer not in self._bars:
            self._bars[report.layer] = self._progress.add_task(
                f"layer {report.layer + 1}/{report.layers}", total=report.epochs, figures=""
            )
            self._accuracy = ""
        if report.test_accuracy is not None:
            self._accuracy = f" · test {report.test_accuracy:.3f}"
        self._progress.update(self._bars[report.layer], completed=report.epoch, figures=_figures(report, self._accuracy))

    def message(self, text: str) -> None:
        self._progress.console.print(text, markup=False)


class _PlainLines:
    """One line every few seconds."""

    def __init__(self) -> None:
        self._printed_at = -PLAIN_EVERY_S
        self._accuracy = ""

    def epoch(self, report: EpochReport) -> None:
        if report.test_accuracy is not None:
            self._accuracy = f" · test {report.test_accuracy:.3f}"
        if time.monotonic() - self._printed_at >= PLAIN_EVERY_S or report.epoch == report.epochs:
            self.message(f"layer {report.layer + 1}/{report.layers} " + _figures(report, self._accuracy))
            self._printed_at = time.monotonic()

    def message(self, text: str) -> None:
        print_message(text)


def left_text(left_s: float) -> str:
    """Return the time left, as in " · 1:05 left", of at most 99 hours; empty if it is not known."""
    if left_s == float("inf"):
        return ""
    minutes, seconds = divmod(round(min(left_s, 359_999)), 60)
    return f" · {minutes}:{seconds:02d} left"


def _figures(report: EpochReport, accuracy: str) -> str:
    return (
        f"epoch {report.epoch}/{report.epochs} · loss {report.loss:.4f}{accuracy} · "
        f"{report.evaluations_per_s:,.0f} eval/s{left_text(report.left_s)}"
    )
