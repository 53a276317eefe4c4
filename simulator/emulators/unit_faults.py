"""Faults of emulated instruments: their kinds, which messages they happen to, and how often."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

FaultKind = Literal["silence", "late", "garbage", "disconnect", "reset", "error"]
"""What happens to the message:

- silence: it is neither carried out nor answered.
- late: it is carried out, and answered `delay_s` later.
- garbage: it is carried out, and answered with random bytes.
- disconnect: the connection breaks before it is carried out.
- reset: the instrument loses power before it is carried out, and comes back with outputs at zero.
- error: it is not carried out, and the instrument reports error `code`.
"""


class UnitFault(BaseModel):
    """A fault to be injected."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    kind: FaultKind
    count: Annotated[int, Field(ge=1)] = 1
    """Number of messages that it happens to."""
    after: Annotated[int, Field(ge=0)] = 0
    """Number of matching messages that are handled normally before."""
    match: str = ""
    """Only messages that contain this text, in upper or lower case, are affected or counted."""
    now: bool = False
    """Whether it happens at once, without waiting for a message: disconnect, reset and error only."""
    delay_s: Annotated[float, Field(ge=0, le=3600)] = 1.0
    """late: delay of the answer, wall time [s]."""
    code: int = -240
    """error: the instrument's own error number."""
    channel: Annotated[int, Field(ge=0)] = 0
    """error: the channel at fault, if the instrument's error messages name one."""


@dataclass
class _PendingFault:
    fault: UnitFault
    after: int
    left: int


class PendingFaults:
    """The faults of one instrument that have not happened yet, in the order in which they were added."""

    def __init__(self) -> None:
        self._pending: list[_PendingFault] = []

    def add(self, fault: UnitFault) -> None:
        """Add a fault behind those that are pending."""
        self._pending.append(_PendingFault(fault, fault.after, fault.count))

    def clear(self) -> None:
        """Remove all pending faults."""
        self._pending.clear()

    def __len__(self) -> int:
        """Return the number of faults that have not happened `count` times yet."""
        return len(self._pending)

    def take(self, message: bytes) -> UnitFault | None:
        """Return the fault that happens to `message`, or None. At most one does; the others stay pending."""
        for pending in self._pending:
            if pending.fault.match.lower().encode() not in message.lower():
                continue
            if pending.after > 0:
                pending.after -= 1
                continue
            pending.left -= 1
            if pending.left == 0:
                self._pending.remove(pending)
            return pending.fault
        return None
