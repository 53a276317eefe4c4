"""The client's side of memory shared with a server: one slot per pending evaluation.

A slot belongs to one evaluation from `take` until its reply has arrived. So a retry finds its drives unchanged, and a
late reply cannot overwrite the readings of another evaluation. If it is unknown what the server may still write, the
client gives up the whole buffer. The server stops sharing it if the lease changes hands.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from pydantic import JsonValue

from photonloop.protocols.errors import DeviceError
from photonloop.protocols.wire.messages import MOST_PENDING, AnyArray, write_shared
from photonloop.protocols.wire.shared_buffer import AVAILABLE, SharedBuffer, create_shared_buffer

WORTH_SHARING_BYTES = 32 * 1024
"""Smaller drives and readings, counted together, are sent in the message, which is faster for small arrays."""

_LINE = 64


@dataclass(frozen=True)
class Slot:
    """Shared memory for the drives and the readings of one evaluation.

    Parameters
    ----------
    buffer, number
        The shared memory, and the server's number for it.
    index
        Index of the slot in the buffer.
    at
        Byte at which the drives begin.
    answer_at, answer_bytes
        Byte at which the server may write the readings, and how many bytes it may write.
    """

    buffer: SharedBuffer
    number: int
    index: int
    at: int
    answer_at: int
    answer_bytes: int

    def write(self, array: AnyArray) -> None:
        """Write the drives `array`, in C order."""
        write_shared(array, self.buffer, self.at)

    def body(self) -> dict[str, JsonValue]:
        """Return the fields of the request's body that describe the slot."""
        return {"buffer": self.number, "answer_at": self.answer_at, "answer_bytes": self.answer_bytes}


class ClientSharedBuffer:
    """Slots in one shared buffer, which is created by the first `take` and replaced by a larger one if needed.

    Parameters
    ----------
    share
        Sends a `share` request with this body to the server. Returns the body of its reply, or raises `DeviceError`.
    allowed
        False if client and server cannot or must not share memory.
    most_bytes
        Size of the largest buffer.
    """

    def __init__(
        self, share: Callable[[dict[str, JsonValue]], Mapping[str, JsonValue]], *, allowed: bool, most_bytes: int
    ) -> None:
        self._share = share
        self._allowed = allowed and AVAILABLE
        self._most_bytes = most_bytes
        self._buffer: SharedBuffer | None = None
        self._number = 0
        self._slot_bytes = 0
        self._taken: set[int] = set()

    def take(self, drive_bytes: int, reading_bytes: int) -> Slot | None:
        """Return a slot for drives and readings of these sizes; None if they must be sent in the message."""
        if not self._allowed or drive_bytes + reading_bytes < WORTH_SHARING_BYTES:
            return None
        lead = -(-drive_bytes // _LINE) * _LINE
        needed = lead + -(-reading_bytes // _LINE) * _LINE
        if (self._buffer is None or needed > self._slot_bytes) and not self._taken:
            self._replace(needed)
        if self._buffer is None or needed > self._slot_bytes or len(self._taken) == MOST_PENDING:
            return None
        index = next(index for index in range(MOST_PENDING) if index not in self._taken)
        self._taken.add(index)
        at = index * self._slot_bytes
        return Slot(self._buffer, self._number, index, at, at + lead, reading_bytes)

    def free(self, slot: Slot | None) -> None:
        """Free the slot of an evaluation whose reply has arrived."""
        if slot is not None and slot.buffer is self._buffer:
            self._taken.discard(slot.index)

    def forget(self) -> None:
        """Give up the buffer: the server may still write to it, or no longer shares it."""
        self._buffer = None
        self._taken.clear()

    def _replace(self, slot_bytes: int) -> None:
        self.forget()
        nbytes = MOST_PENDING * slot_bytes
        if nbytes > self._most_bytes:
            return
        try:
            buffer, handle = create_shared_buffer(nbytes)
        except OSError:
            self._allowed = False
            return
        try:
            answer = self._share({"pid": os.getpid(), "fd": handle, "name": buffer.name, "nbytes": nbytes})
        except DeviceError as error:
            if error.code not in {"bad_request", "limit", "version"}:
                raise
            self._allowed = False  # another machine, another user, or a server without shared memory
            return
        finally:
            os.close(handle)
        number = answer.get("buffer")
        if isinstance(number, int):
            self._buffer, self._number, self._slot_bytes = buffer, number, slot_bytes
