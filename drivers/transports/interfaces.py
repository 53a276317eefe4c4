"""Interfaces between drivers, transports and streams: `Transport`, `Stream` and their errors."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol, TypeVar

T = TypeVar("T")


class ConnectionLost(Exception):
    """The medium failed: refused, reset, unplugged.

    `sent` is false if no byte of the last message can have been sent.
    """

    def __init__(self, reason: str, *, sent: bool = True) -> None:
        super().__init__(reason)
        self.reason = reason
        self.sent = sent


class ReadTimeout(Exception):
    """Nothing, or not everything, arrived in time; `received` is what did."""

    def __init__(self, received: bytes = b"") -> None:
        super().__init__(f"timeout after {received!r}")
        self.received = received


class Stream(Protocol):
    """One open medium. Raises `ConnectionLost` for every failure of the medium, and nothing else."""

    @property
    def fresh_when_reopened(self) -> bool:
        """Whether reopening discards all answers to earlier messages: true for sockets, false for serial ports."""
        ...

    @property
    def keeps_messages(self) -> bool:
        """Whether `receive` returns whole messages, with or without a line end (USB, GPIB, VXI-11), or any bytes."""
        ...

    def send(self, data: bytes) -> None:
        """Send all of `data`. If the medium can detect a closed connection, it does so before sending."""
        ...

    def receive(self, timeout_s: float, count: int) -> bytes:
        """Return between 1 and `count` bytes as soon as there are any, or none after `timeout_s`."""
        ...

    def read_available(self) -> bytes:
        """Return, at once, the bytes that have arrived; none if the medium cannot know without a query."""
        ...

    def clear(self) -> None:
        """Discard received bytes; if the medium supports it, make the instrument discard its pending output as well."""
        ...

    def close(self) -> None:
        """Close the medium. Closing twice is harmless."""
        ...


class Transport(Protocol):
    """Text queries and commands to one instrument.

    Raises `DeviceError` only: "transport", with a sentence that names the instrument, the command and the answer.
    """

    @property
    def name(self) -> str:
        """Name and address of the instrument, for error messages."""
        ...

    @property
    def timeout_s(self) -> float:
        """Time allowed for one answer."""
        ...

    def query(
        self,
        command: str,
        parse: Callable[[list[str]], T],
        *,
        lines: int = 1,
        mutates: bool = False,
        retries: int | None = None,
        wait_s: float = 0.0,
    ) -> T:
        """Send `command` and return the parsed answer.

        Parameters
        ----------
        command
            One message. Several commands joined into one, if the instrument allows it, cost one round trip.
        parse
            Converts the lines of the answer into a value. If it raises ValueError, the answer is invalid and the query
            is repeated. If it raises `DeviceError`, the caller gets that error.
        lines
            Number of lines of the answer; 0 for all lines until none has arrived for a tenth of the timeout.
        mutates
            Whether the command changes the instrument. If it does, an error has outcome "unknown" once a byte may have
            been sent, and the command is not sent to an instrument that was lost and reconnected meanwhile.
        retries
            Number of repetitions after a timeout or an invalid answer; None for the transport's default. Use 0 if a
            repetition can do harm: relative changes, triggers, queries that consume what they return.
        wait_s
            Time that the instrument needs to carry out the command, added to the timeout.
        """
        ...

    def query_line(self, command: str) -> str:
        """Return the one-line answer to `command`, which must not change the instrument."""
        ...

    def write(self, command: str) -> None:
        """Send `command`, which has no answer.

        It is not repeated; use a later query to find out whether it was applied.
        """
        ...

    def send_without_reply(self, commands: Sequence[str]) -> None:
        """Send absolute commands without waiting for answers: the last resort if answers are missing or invalid.

        Each is a message of its own, and all are sent twice, over the open connection or, if that was lost, over a new
        one. The next exchange resynchronises first, so answers to these commands are never taken for others. When this
        returns, the bytes have been sent; whether the instrument carried them out is unknown. Raises "transport" if
        they could not be sent.
        """
        ...

    def identity(self) -> str:
        """Send the identification query and return its answer; this resynchronises both sides."""
        ...

    def pop_unsolicited(self) -> list[str]:
        """Return and forget the unsolicited lines that have arrived, oldest first."""
        ...

    def on_reconnect(self, configure: Callable[[], None]) -> None:
        """Call `configure` whenever the instrument was lost and reconnected, before anything else is sent.

        It may raise `DeviceError`, which the caller of the current method gets. A source uses this to report its
        restart.
        """
        ...

    def close(self) -> None:
        """Close the connection. Closing twice is harmless."""
        ...
