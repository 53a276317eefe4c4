"""What every emulated instrument is: whole messages in, timed answers out, no socket anywhere.

                 bytes                messages              Reply
    client ───────────────▶ framing ─────────────▶ handle ─────────▶ client
                                                      │
                                                      ▼
                                            the instrument's own state ──▶ World

Everything here can be tested with bytes alone; `links` adds faults and connections, `servers` adds sockets and serial lines.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

Framing = Callable[[bytearray], list[bytes]]
"""Takes whole messages off the front of a buffer and returns them without their terminators; a rest stays in the buffer."""


@dataclass(frozen=True)
class TimedReply:
    """What one message brings about.

    Parameters
    ----------
    data
        What is sent back, terminators included; empty: nothing.
    takes_s
        Time that the real instrument takes about the message [s].
    interrupts
        The message came while an earlier answer was unread, and the instrument has thrown that answer away.
    """

    data: bytes = b""
    takes_s: float = 0.0
    interrupts: bool = False


class Emulator(Protocol):
    """One emulated instrument: a state machine that one thread talks to."""

    @property
    def framing(self) -> Framing:
        """How its messages are told apart."""
        ...

    def handle(self, message: bytes, *, unread: bool = False) -> TimedReply:
        """Carry out one message. `unread`: an earlier answer on the same connection has not left yet."""
        ...

    def refuse(self, message: bytes, code: int, channel: int) -> bytes:
        """Do not carry out `message`: complain of it with the instrument's own error `code`; return what is sent."""
        ...

    def complain(self, code: int, channel: int) -> bytes:
        """Have an error of its own; return what the instrument says unasked (nothing, where errors wait in a queue)."""
        ...

    def reset(self) -> bytes:
        """Lose power and come back: outputs at zero, settings forgotten. Return what the instrument says unasked."""
        ...


def lines(terminator: bytes) -> Framing:
    r"""Return the framing of lines that end with `terminator`, "\n" or "\r"; the other of the two is ignored."""
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
    """Return the multiple of `step` nearest to `value`, halves upward: what a converter makes of a set-point."""
    return (value / step + 0.5) // 1.0 * step


def truncated(value: float, step: float) -> float:
    """Return `value` without what is finer than `step`, as a display or a command parser does."""
    whole = int(abs(value) / step + 1e-6)
    return whole * step if value >= 0 else -whole * step
