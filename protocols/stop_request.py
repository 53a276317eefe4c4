"""The request to stop a process: set by signals, read at well-defined points."""

from __future__ import annotations

import signal
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

_SLICE_S = 0.05

STOP_SIGNALS = (signal.SIGINT, signal.SIGTERM)
"""Ctrl-C, and the signal that other programs send to end a process."""


class StopRequest:
    """The request to stop this process. It cannot be withdrawn.

    `ask` may be called from a signal handler and from any thread.
    """

    def __init__(self) -> None:
        self.asked = False
        """Whether to stop. Only a flag: a signal handler must not wait for a lock."""
        self._callback: Callable[[], None] = lambda: None

    def ask(self) -> None:
        """Ask to stop."""
        self.asked = True
        self._callback()

    def call_when_asked(self, callback: Callable[[], None]) -> None:
        """Call `callback` when a stop is asked for, or at once if it was already. It replaces an earlier callback.

        It may run in a signal handler, so it must return quickly and take no lock.
        """
        self._callback = callback
        if self.asked:
            callback()

    def wait(self, duration_s: float) -> None:
        """Return after `duration_s`, or within 50 ms of a request to stop."""
        end_s = time.monotonic() + duration_s
        while not self.asked and (left_s := end_s - time.monotonic()) > 0:
            time.sleep(min(left_s, _SLICE_S))


def handle_stop_signals(
    handle: Callable[[int], object], signals: Sequence[signal.Signals] = STOP_SIGNALS
) -> dict[signal.Signals, Any]:
    """Call `handle` with the number of each of `signals` that arrives from now on; return the earlier handlers.

    For programs that end after the signal: their handler must stay until they have ended, since they may receive the
    same signal twice. A signal that this process ignores, as SIGHUP under `nohup`, stays ignored unless it is one of
    `STOP_SIGNALS`.
    """

    def on_signal(number: int, _frame: object) -> None:
        handle(number)

    handled = [number for number in signals if number in STOP_SIGNALS or signal.getsignal(number) is not signal.SIG_IGN]
    return {number: signal.signal(number, on_signal) for number in handled}


@contextmanager
def stop_signals(handle: Callable[[int], object], signals: Sequence[signal.Signals] = STOP_SIGNALS) -> Iterator[None]:
    """Do as `handle_stop_signals` inside the block, and restore the earlier handlers after it."""
    previous = handle_stop_signals(handle, signals)
    try:
        yield
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)
