"""What can go wrong between a driver and an instrument, on demand: which message it strikes, and how often."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

Kind = Literal["silence", "late", "garbage", "disconnect", "reset", "error"]
"""silence: the message is neither carried out nor answered · late: carried out, answered `delay_s` later · garbage: carried out,
answered with other bytes · disconnect: the connection breaks before the message is carried out · reset: the instrument loses
power before it, and comes back with outputs at zero · error: not carried out, the instrument complains of `code`."""


class UnitFault(BaseModel):
    """One fault to come."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    kind: Kind
    count: Annotated[int, Field(ge=1)] = 1
    """Messages it strikes."""
    after: Annotated[int, Field(ge=0)] = 0
    """Messages that pass before."""
    match: str = ""
    """Only messages that contain this text, whatever its case, are struck or counted."""
    now: bool = False
    """Strike at once, without waiting for a message: disconnect, reset and error only."""
    delay_s: Annotated[float, Field(ge=0, le=3600)] = 1.0
    """late: seconds of wall time."""
    code: int = -240
    """error: the instrument's own number."""
    channel: Annotated[int, Field(ge=0)] = 0
    """error: channel at fault, where the instrument names one."""


@dataclass
class _Pending:
    fault: UnitFault
    after: int
    left: int


class UnitFaults:
    """The faults that an instrument still has before it."""

    def __init__(self) -> None:
        self._pending: list[_Pending] = []

    def add(self, fault: UnitFault) -> None:
        """Expect another fault, after those already planned."""
        self._pending.append(_Pending(fault, fault.after, fault.count))

    def clear(self) -> None:
        """Forget what has not struck yet."""
        self._pending.clear()

    def __len__(self) -> int:
        """Return how many faults have not struck as often as they shall."""
        return len(self._pending)

    def strike(self, message: bytes) -> UnitFault | None:
        """Return the fault that strikes `message`, or None. At most one does; the others wait."""
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
