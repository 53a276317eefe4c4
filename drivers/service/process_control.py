"""How a process of this package says where it is, and learns that it should end."""

from __future__ import annotations

import json
import os
import signal
import sys
import time
from collections.abc import Callable
from typing import TextIO

from photonloop.protocols.errors import DeviceError


class Stopping:
    """Takes SIGTERM and Ctrl-C from the start: a bench that is just being opened is opened first, then closed in order."""

    def __init__(self) -> None:
        self.asked = False
        """Whether somebody wants this process to end. No more than a flag: a signal handler must not wait for a lock."""
        self._tell: Callable[[], None] = lambda: None
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, self._query)

    def wait(self, duration_s: float) -> None:
        """Return after `duration_s`, or soon after being asked to stop."""
        end_s = time.monotonic() + duration_s
        while not self.asked and time.monotonic() < end_s:
            time.sleep(0.05)

    def then(self, tell: Callable[[], None]) -> None:
        """Call `tell` when asked to stop, at once if that was already so."""
        self._tell = tell
        if self.asked:
            tell()

    def _query(self, *_: object) -> None:
        self.asked = True
        self._tell()


def own_output() -> TextIO:
    """Return standard output as it is now, for this process's own words; whatever else is printed goes to standard error.

    Drivers of others, and the libraries below them, print what they like, which nobody must take for an announcement.
    """
    sys.stdout.flush()
    own = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    return own


def announce(message: dict[str, object], output: TextIO | None = None) -> None:
    """Print one JSON line, on standard output unless `output` is another.

    Raises
    ------
    DeviceError
        "transport" where nobody reads it.
    """
    told = sys.stdout if output is None else output
    try:
        print(json.dumps(message), file=told, flush=True)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), told.fileno())
        raise DeviceError("transport", "nobody reads the address on standard output") from None
