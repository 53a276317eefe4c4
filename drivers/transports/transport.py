"""What drivers ask of a transport, and what a transport asks of a medium."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol, TypeVar

T = TypeVar("T")


class ConnectionLost(Exception):
    """The medium failed: refused, reset, unplugged. `sent` is false where no byte of the last message can have left."""

    def __init__(self, reason: str, *, sent: bool = True) -> None:
        super().__init__(reason)
        self.reason = reason
        self.sent = sent


class ReadTimeout(Exception):
    """Nothing, or not everything, came in time; `got` is what did."""

    def __init__(self, got: bytes = b"") -> None:
        super().__init__(f"silence after {got!r}")
        self.got = got


class Stream(Protocol):
    """One open medium. Raises `ConnectionLost` for whatever the medium does wrong, and nothing else."""

    @property
    def fresh_when_reopened(self) -> bool:
        """True where nothing sent before can be answered after closing and opening again: sockets, not serial lines."""
        ...

    @property
    def keeps_messages(self) -> bool:
        """True where `receive` returns whole messages, terminated or not (USB, GPIB, VXI-11), false for streams of bytes."""
        ...

    def send(self, data: bytes) -> None:
        """Send all of `data`; a dead peer is found first where the medium can tell."""
        ...

    def receive(self, timeout_s: float, count: int) -> bytes:
        """Return between 1 and `count` bytes as soon as there are any, or none once `timeout_s` are over."""
        ...

    def waiting(self) -> bytes:
        """Return what has come without being asked for, at once; nothing where the medium cannot tell."""
        ...

    def clear(self) -> None:
        """Throw away what has come, and tell the instrument to forget what it was about to send where the medium can."""
        ...

    def close(self) -> None:
        """Let go of the medium. Closing twice is harmless."""
        ...


class Transport(Protocol):
    """Questions and commands in text, to one instrument.

    Raises `DeviceError` only: "transport" with a sentence naming the instrument, the command and what was answered.
    """

    @property
    def name(self) -> str:
        """Name and address of the instrument, as errors call it."""
        ...

    @property
    def timeout_s(self) -> float:
        """How long one answer may take."""
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
        """Send `command` and return what `parse` makes of the answer.

        Parameters
        ----------
        command
            One message; several joined as the instrument allows cost one round trip.
        understand
            Turns the lines of the answer into a value; ValueError where they make no sense, and the question is repeated.
            `DeviceError` goes through to the caller.
        lines
            Lines of the answer; 0 for everything until the instrument is quiet for a tenth of the timeout.
        changes
            True where the command changes the instrument: then an error has outcome "unknown" once a byte may have left,
            and the command is not sent into an instrument that was lost and found again on the way.
        repeats
            How often to repeat after silence or nonsense; None for the transport's own number. 0 where a repeat can do harm:
            relative changes, triggers, questions whose answer is taken away by asking.
        wait_s
            Time that the instrument needs for its work, on top of the timeout.
        """
        ...

    def query_line(self, command: str) -> str:
        """Return the one-line answer to `command`, which changes nothing."""
        ...

    def write(self, command: str) -> None:
        """Send `command`, to which there is no answer. Not repeated; what became of it is for a later question."""
        ...

    def send_without_reply(self, commands: Sequence[str]) -> None:
        """Send absolute commands and wait for no answer: the last resort with an instrument that may hear but is not understood.

        Each is a message of its own, and all are sent twice. Goes over the connection that is open, or over one that is opened
        for it where that was lost; the next exchange gets back into step first, so that no answer to this is taken for another's.
        Returning says that the bytes have left, not what became of them: "transport" where they could not.
        """
        ...

    def identity(self) -> str:
        """Ask who is there and return the answer, which brings both sides into step as well."""
        ...

    def pop_unsolicited(self) -> list[str]:
        """Return, once, the lines that came without being asked for, oldest first."""
        ...

    def on_reconnect(self, configure: Callable[[], None]) -> None:
        """Call `configure` whenever the instrument was lost and found again, before anything else is sent.

        It may raise `DeviceError`, which goes to whoever was about to send something: so a source says that it was restarted.
        """
        ...

    def close(self) -> None:
        """Let go of the instrument. Closing twice is harmless."""
        ...
