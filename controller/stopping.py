"""Request to stop a session, checked at well-defined points.

    Ctrl-C ──▶ Stop.ask() ──▶ checked by      the update loop, between two updates
                                              the device link, before each request to the device
                                              every wait, for a simulator to start or a device to come back
                              interrupts      code that reads data, which has no such points and can be repeated

Everything in between is finished first. So the device is made safe, and the run folder is consistent after the last
update, at whatever point a session stops.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

_SLICE_S = 0.05


class SessionStopped(Exception):
    """The session stopped on request; its run, if there is one already, can be resumed."""


class Stop:
    """The request to stop a session. It cannot be withdrawn.

    Parameters
    ----------
    when
        A further reason to stop, called at every check. For example: return whether a time is over.
    """

    def __init__(self, when: Callable[[], bool] = lambda: False) -> None:
        self._when = when
        self._asked = False
        self.breaks_off = False
        """True inside `at_once`: a signal handler may then raise KeyboardInterrupt."""

    @property
    def asked(self) -> bool:
        """Whether to stop."""
        return self._asked or self._when()

    def ask(self) -> None:
        """Ask to stop. May be called from a signal handler and from any thread."""
        self._asked = True

    def check(self, meanwhile: str = "") -> None:
        """Raise if a stop was requested; `meanwhile` completes the message, as in "while the data was read".

        Raises
        ------
        SessionStopped
            A stop was requested.
        """
        if self.asked:
            raise SessionStopped(f"stopped on request {meanwhile}".rstrip())

    def pause(self, seconds: float, meanwhile: str = "") -> None:
        """Wait for `seconds`, or raise SessionStopped as soon as a stop is requested."""
        end_s = time.monotonic() + seconds
        self.check(meanwhile)
        while (left_s := end_s - time.monotonic()) > 0:
            time.sleep(min(left_s, _SLICE_S))
            self.check(meanwhile)

    @contextmanager
    def at_once(self, meanwhile: str) -> Iterator[None]:
        """Let a signal interrupt the code in this block at any point, for code that may be interrupted anywhere."""
        try:
            try:
                self.check(meanwhile)
                self.breaks_off = True
                yield
            finally:
                self.breaks_off = False
        except KeyboardInterrupt:
            self.check(meanwhile)
            raise  # it was not caused by a request to stop

    @contextmanager
    def deferred(self) -> Iterator[None]:
        """Inside `at_once`, let a signal interrupt the code only after this block, as for a request to a device."""
        breaks_off, self.breaks_off = self.breaks_off, False
        try:
            yield
        finally:
            self.breaks_off = breaks_off
        if breaks_off:
            self.check()
