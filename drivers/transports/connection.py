"""A wire with a buffer that can be lost and opened again."""

from __future__ import annotations

from collections.abc import Callable

from photonloop.drivers.transports.transport import ConnectionLost, ReadTimeout, Stream
from photonloop.drivers.transports.transport_clock import TransportClock

_CHUNK = 65536

LONGEST_ANSWER = 1 << 20
"""Bytes without a terminator after which an answer is nonsense rather than long."""


class Connection:
    """Bytes to and from one instrument, with deadlines.

    Parameters
    ----------
    opener
        Opens the wire anew; raises `ConnectionLost` where that fails.
    wire
        The wire that `opener` opened first.
    clock
        For deadlines.
    """

    def __init__(self, opener: Callable[[], Stream], wire: Stream, clock: TransportClock) -> None:
        self._opener = opener
        self._wire = wire
        self._clock = clock
        self._buffer = bytearray()
        self.lost = False

    @property
    def fresh_when_reopened(self) -> bool:
        """As the wire says."""
        return self._wire.fresh_when_reopened

    def reopen(self) -> None:
        """Close the wire and open it anew; `ConnectionLost`, and still lost, where that fails."""
        self.lost = True
        self._wire.close()
        self._buffer.clear()
        self._wire = self._opener()
        self.lost = False

    def send(self, data: bytes) -> None:
        """Send all of `data`."""
        try:
            self._wire.send(data)
        except ConnectionLost:
            self.lost = True
            raise

    def line(self, terminator: bytes, deadline_s: float) -> bytes:
        """Return the next line without its terminator; `ReadTimeout` at the deadline, keeping what has come so far."""
        while (end := self._buffer.find(terminator)) < 0:
            if len(self._buffer) > LONGEST_ANSWER:
                self._buffer.clear()
                raise ValueError(f"no end of line within {LONGEST_ANSWER} bytes")
            self._more(deadline_s, _CHUNK)
            if self._wire.keeps_messages and not self._buffer.endswith(terminator):
                self._buffer += terminator  # the end of the message is the end of the line
        line = bytes(self._buffer[:end])
        del self._buffer[: end + len(terminator)]
        return line

    def exactly(self, count: int, deadline_s: float) -> bytes:
        """Return the next `count` bytes; `ReadTimeout` at the deadline."""
        while len(self._buffer) < count:
            self._more(deadline_s, _CHUNK)  # what comes behind stays in the buffer
        got = bytes(self._buffer[:count])
        del self._buffer[:count]
        return got

    def has_waiting(self) -> bool:
        """Return, at once, whether anything has come that was not read; nothing comes from a wire that is lost."""
        if self.lost:
            return False
        try:
            self._buffer += self._wire.waiting()
        except ConnectionLost:
            self.lost = True
        return bool(self._buffer)

    def clear(self) -> None:
        """Throw away whatever has come."""
        self._buffer.clear()
        if self.lost:
            return
        try:
            self._wire.clear()
        except ConnectionLost:
            self.lost = True

    def quiet(self, quiet_s: float, patience_s: float) -> None:
        """Throw away what comes until nothing has come for `quiet_s`, for `patience_s` at most."""
        end_s = self._clock.now_s() + patience_s
        while self._clock.now_s() < end_s:
            self._buffer.clear()
            try:
                self._more(self._clock.now_s() + quiet_s, _CHUNK)
            except ReadTimeout:
                return

    def close(self) -> None:
        """Let go of the wire. Closing twice is harmless."""
        self._wire.close()

    def _more(self, deadline_s: float, count: int) -> None:
        left_s = deadline_s - self._clock.now_s()
        try:
            got = self._wire.receive(max(0.0, left_s), count)
        except ConnectionLost:
            self.lost = True
            raise
        if not got:
            raise ReadTimeout(bytes(self._buffer))
        self._buffer += got
