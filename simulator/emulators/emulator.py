"""The interface of an emulated instrument: whole messages in, timed replies out, no sockets.

                 bytes                messages            TimedReply
    client ───────────────▶ framing ─────────────▶ handle ─────────▶ client
                                                      │
                                                      ▼
                                          the instrument's own state ──▶ Laboratory

Emulators can be tested with bytes alone. `units` adds faults and connections, `servers` adds sockets and serial lines.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

Framing = Callable[[bytearray], list[bytes]]
"""Removes the whole messages from the front of a buffer and returns them without their terminators.

An incomplete message stays in the buffer."""


@dataclass(frozen=True)
class TimedReply:
    """The reply to one message.

    Parameters
    ----------
    data
        Bytes that are sent back, with terminators. Empty: nothing is sent.
    takes_s
        Time that the real instrument takes for the message [s].
    interrupts
        Whether the instrument has discarded an earlier answer that was still unread.
    """

    data: bytes = b""
    takes_s: float = 0.0
    interrupts: bool = False


class Emulator(Protocol):
    """One emulated instrument. It is used by one thread only."""

    @property
    def framing(self) -> Framing:
        """How the bytes are split into messages."""
        ...

    def handle(self, message: bytes, *, unread: bool = False) -> TimedReply:
        """Carry out one message. `unread`: an earlier answer on the same connection has not been sent yet."""
        ...

    def refuse(self, message: bytes, code: int, channel: int) -> bytes:
        """Do not carry out `message`; report the instrument's own error `code`. Return the bytes to send."""
        ...

    def report_error(self, code: int, channel: int) -> bytes:
        """Report an error that no message caused. Return the unsolicited bytes, empty if errors wait in a queue."""
        ...

    def reset(self) -> bytes:
        """Lose power and start again: outputs at zero, default settings. Return the unsolicited bytes."""
        ...


def lines(terminator: bytes) -> Framing:
    r"""Return the framing of lines that end with `terminator`, "\n" or "\r". The other of the two is ignored."""
    other = b"\r" if terminator == b"\n" else b"\n"

    def split(buffer: bytearray) -> list[bytes]:
        end = buffer.rfind(terminator)
        if end < 0:
            return []
        whole = bytes(buffer[:end])
        del buffer[: end + 1]
        return [line.strip(other) for line in whole.split(terminator)]

    return split


def to_step(value: float, step: float) -> float:
    """Round a setpoint to the nearest multiple of `step`, halves upward, as a converter does."""
    return (value / step + 0.5) // 1.0 * step


def truncated(value: float, step: float) -> float:
    """Truncate `value` to a multiple of `step`, as a display or a command parser does."""
    whole = int(abs(value) / step + 1e-6)
    return whole * step if value >= 0 else -whole * step
