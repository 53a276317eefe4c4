"""A stream with a receive buffer that can be lost and reopened."""

from __future__ import annotations

from collections.abc import Callable

from photonloop.drivers.transports.interfaces import ConnectionLost, ReadTimeout, Stream
from photonloop.drivers.transports.transport_clock import TransportClock

_CHUNK = 65536

MAX_LINE_BYTES = 1 << 20
"""Bytes without a line end after which an answer is invalid."""


class Connection:
    """Bytes to and from one instrument, with deadlines.

    Parameters
    ----------
    opener
        Reopens the stream; raises `ConnectionLost` if that fails.
    stream
        The stream that `opener` opened first.
    clock
        For deadlines.
    """

    def __init__(self, opener: Callable[[], Stream], stream: Stream, clock: TransportClock) -> None:
        self._opener = opener
        self._stream = stream
        self._clock = clock
        self._buffer = bytearray()
        self.lost = False

    @property
    def fresh_when_reopened(self) -> bool:
        """Whether reopening discards all answers to earlier messages (`Stream.fresh_when_reopened`)."""
        return self._stream.fresh_when_reopened

    def reopen(self) -> None:
        """Close the stream and open it again. Raises `ConnectionLost`, and stays lost, if that fails."""
        self.lost = True
        self._stream.close()
        self._buffer.clear()
        self._stream = self._opener()
        self.lost = False

    def send(self, data: bytes) -> None:
        """Send all of `data`."""
        try:
            self._stream.send(data)
        except ConnectionLost:
            self.lost = True
            raise

    def read_line(self, termination: bytes, deadline_s: float) -> bytes:
        """Return the next line without its termination.

        Raises `ReadTimeout` at the deadline and keeps what has arrived.
        """
        while (end := self._buffer.find(termination)) < 0:
            if len(self._buffer) > MAX_LINE_BYTES:
                self._buffer.clear()
                raise ValueError(f"no end of line within {MAX_LINE_BYTES} bytes")
            self._receive(deadline_s, _CHUNK)
            if self._stream.keeps_messages and not self._buffer.endswith(termination):
                self._buffer += termination  # the end of the message is the end of the line
        line = bytes(self._buffer[:end])
        del self._buffer[: end + len(termination)]
        return line

    def read_exactly(self, count: int, deadline_s: float) -> bytes:
        """Return the next `count` bytes; raises `ReadTimeout` at the deadline."""
        while len(self._buffer) < count:
            self._receive(deadline_s, _CHUNK)  # bytes after these stay in the buffer
        data = bytes(self._buffer[:count])
        del self._buffer[:count]
        return data

    def has_unread(self) -> bool:
        """Return, at once, whether bytes have arrived that were not read; false for a lost stream."""
        if self.lost:
            return False
        try:
            self._buffer += self._stream.read_available()
        except ConnectionLost:
            self.lost = True
        return bool(self._buffer)

    def clear(self) -> None:
        """Discard everything that has arrived."""
        self._buffer.clear()
        if self.lost:
            return
        try:
            self._stream.clear()
        except ConnectionLost:
            self.lost = True

    def discard_until_quiet(self, quiet_s: float, timeout_s: float) -> None:
        """Discard bytes until none have arrived for `quiet_s`, for at most `timeout_s`."""
        end_s = self._clock.now_s() + timeout_s
        while self._clock.now_s() < end_s:
            self._buffer.clear()
            try:
                self._receive(self._clock.now_s() + quiet_s, _CHUNK)
            except ReadTimeout:
                return

    def close(self) -> None:
        """Close the stream. Closing twice is harmless."""
        self._stream.close()

    def _receive(self, deadline_s: float, count: int) -> None:
        left_s = deadline_s - self._clock.now_s()
        try:
            data = self._stream.receive(max(0.0, left_s), count)
        except ConnectionLost:
            self.lost = True
            raise
        if not data:
            raise ReadTimeout(bytes(self._buffer))
        self._buffer += data
