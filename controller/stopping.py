"""Whether somebody wants to stop: one owner, looked at at well-defined points.

    Ctrl-C ──▶ Stop.ask() ──▶ looked at by    the update loop, between two updates
                                              the device link, before everything it sends to the device
                                              whoever waits: for a simulator to start, for a device to come back
                              or broken off   where data is read, which has no such points and leaves nothing behind

Everything in between is finished first, so that wherever a session stops, the device is made safe in order and the run
folder stands at a step boundary.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

_SLICE_S = 0.05


class SessionStopped(Exception):
    """The session stopped because it was asked to; its run, where there is one yet, can be resumed."""


class Stop:
    """The wish to stop. Once asked for, it stays asked for.

    Parameters
    ----------
    when
        A further reason to stop, asked at every look: a time that is over, say.
    """

    def __init__(self, when: Callable[[], bool] = lambda: False) -> None:
        self._when = when
        self._asked = False
        self.breaks_off = False
        """True inside `at_once`: a signal handler may then raise KeyboardInterrupt instead of waiting."""

    @property
    def asked(self) -> bool:
        """Whether to stop."""
        return self._asked or self._when()

    def ask(self) -> None:
        """Ask to stop. May be called from a signal handler and from any thread."""
        self._asked = True

    def check(self, meanwhile: str = "") -> None:
        """Stop here if that was asked for; `meanwhile` tells where, as in "while the data was read".

        Raises
        ------
        SessionStopped
            It was.
        """
        if self.asked:
            raise SessionStopped(f"stopped as asked {meanwhile}".rstrip())

    def pause(self, seconds: float, meanwhile: str = "") -> None:
        """Let `seconds` pass, or raise SessionStopped as soon as a stop is asked for."""
        end_s = time.monotonic() + seconds
        self.check(meanwhile)
        while (left_s := end_s - time.monotonic()) > 0:
            time.sleep(min(left_s, _SLICE_S))
            self.check(meanwhile)

    @contextmanager
    def at_once(self, meanwhile: str) -> Iterator[None]:
        """Inside, a signal breaks off what runs instead of waiting for a look. For what may be cut short anywhere."""
        try:
            try:
                self.check(meanwhile)
                self.breaks_off = True
                yield
            finally:
                self.breaks_off = False
        except KeyboardInterrupt:
            self.check(meanwhile)
            raise  # not ours: nobody turned it into a wish to stop
