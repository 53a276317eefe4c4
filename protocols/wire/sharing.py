"""Who may use which part of the memory that client and server share, and for how long: `ClientSharedBuffer` here, `ServerSharedBuffer` there.

A slot belongs to one evaluation from `take` until its answer has come, so a retry finds its drives where they were, and no
late answer is written over another's. After anything that leaves the server's doings in doubt, the client gives the whole
window up; the server does when the lease changes hands.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from pydantic import JsonValue

from photonloop.protocols.errors import DeviceError
from photonloop.protocols.wire.messages import MOST_PENDING, AnyArray, Request, ShareBody, write_shared
from photonloop.protocols.wire.shared_buffer import AVAILABLE, SharedBuffer, create_shared_buffer, open_shared_buffer

WORTH_SHARING_BYTES = 32 * 1024
"""Arrays that are smaller together are better off in the message that is sent anyway."""

_LINE = 64


def largest_buffer_bytes(max_message_bytes: int) -> int:
    """Return how much memory a client and a server share at most: drives and readings of every evaluation under way."""
    return 2 * MOST_PENDING * max_message_bytes


@dataclass(frozen=True)
class Slot:
    """Room for the drives of one evaluation and for the readings it answers.

    Parameters
    ----------
    window, number
        The memory, and the server's number for it.
    place
        Which of the window's slots it is.
    at, answer_at, answer_bytes
        Where drives begin, where readings may be written, and how many bytes.
    """

    buffer: SharedBuffer
    number: int
    place: int
    at: int
    answer_at: int
    answer_bytes: int

    def write(self, array: AnyArray) -> None:
        """Write `array`, in C order, to where drives belong."""
        write_shared(array, self.buffer, self.at)

    def body(self) -> dict[str, JsonValue]:
        """Return what the request says of it."""
        return {"buffer": self.number, "answer_at": self.answer_at, "answer_bytes": self.answer_bytes}


class ClientSharedBuffer:
    """The client's side: slots of one window, which is made when first asked for and grows with what is asked.

    Parameters
    ----------
    ask
        Sends the body of a `share` to the server; returns the body of its answer, or raises `DeviceError`.
    allowed
        False where client and server cannot see the same memory, or must not.
    most_bytes
        Largest window.
    """

    def __init__(self, ask: Callable[[dict[str, JsonValue]], Mapping[str, JsonValue]], *, allowed: bool, most_bytes: int) -> None:
        self._ask = ask
        self._allowed = allowed and AVAILABLE
        self._most_bytes = most_bytes
        self._buffer: SharedBuffer | None = None
        self._number = 0
        self._room = 0
        self._taken: set[int] = set()

    def take(self, sent: int, answered: int) -> Slot | None:
        """Return a slot for an evaluation that sends and is answered so many bytes; None where frames have to do."""
        if not self._allowed or sent + answered < WORTH_SHARING_BYTES:
            return None
        lead = -(-sent // _LINE) * _LINE
        room = lead + -(-answered // _LINE) * _LINE
        if (self._buffer is None or room > self._room) and not self._taken:
            self._renew(room)
        if self._buffer is None or room > self._room or len(self._taken) == MOST_PENDING:
            return None
        place = next(place for place in range(MOST_PENDING) if place not in self._taken)
        self._taken.add(place)
        at = place * self._room
        return Slot(self._buffer, self._number, place, at, at + lead, answered)

    def free(self, slot: Slot | None) -> None:
        """Take back the slot of an evaluation that was answered."""
        if slot is not None and slot.buffer is self._buffer:
            self._taken.discard(slot.place)

    def forget(self) -> None:
        """Give the window up: nobody knows what the server may still write there, or it knows the window no more."""
        self._buffer = None
        self._taken.clear()

    def _renew(self, room: int) -> None:
        self.forget()
        nbytes = MOST_PENDING * room
        if nbytes > self._most_bytes:
            return
        try:
            buffer, handle = create_shared_buffer(nbytes)
        except OSError:
            self._allowed = False
            return
        try:
            answer = self._ask({"pid": os.getpid(), "fd": handle, "name": buffer.name, "nbytes": nbytes})
        except DeviceError as error:
            if error.code not in {"bad_request", "limit", "version"}:
                raise
            self._allowed = False  # another machine, another user, or a server that knows nothing of this
            return
        finally:
            os.close(handle)
        number = answer.get("buffer")
        if isinstance(number, int):
            self._buffer, self._number, self._room = buffer, number, room


class ServerSharedBuffer:
    """The server's side: one window, shared with whoever holds the lease.

    Parameters
    ----------
    most_bytes
        Largest window; 0: none is shared.
    """

    def __init__(self, most_bytes: int) -> None:
        self._most_bytes = most_bytes
        self._buffer: SharedBuffer | None = None
        self._client_id = ""
        self._number = 0

    def open(self, body: ShareBody, client_id: str) -> int:
        """Look through the window that `client_id` has made, instead of any older one; return its number.

        Raises
        ------
        DeviceError
            "limit" where it is too large, "bad_request" where it cannot be seen from here.
        """
        if body.nbytes > self._most_bytes:
            raise DeviceError("limit", f"shared memory of {body.nbytes} bytes: at most {self._most_bytes} are shared here")
        self._buffer = open_shared_buffer(body.pid, body.fd, body.name, body.nbytes)
        self._client_id = client_id
        self._number += 1  # of its own: requests that refer to an older window are told from those to this one
        return self._number

    def buffer_of(self, request: Request) -> SharedBuffer | None:
        """Return the window that `request` refers to; None where it names none, or one that is no longer shared."""
        known = request.client_id == self._client_id and request.body.get("buffer") == self._number
        return self._buffer if known else None

    def write(self, request: Request, name: str, values: AnyArray) -> Mapping[str, int]:
        """Write the array called `name` where `request` wants it, if it has room there; return its place, by its name."""
        buffer = self.buffer_of(request)
        at, room = request.body.get("answer_at"), request.body.get("answer_bytes")
        if buffer is None or not isinstance(at, int) or not isinstance(room, int):
            return {}
        if not 0 < values.nbytes <= room or at + values.nbytes > buffer.nbytes:
            return {}
        write_shared(values, buffer, at)
        return {name: at}

    def forget(self) -> None:
        """Share no memory any more."""
        self._buffer = None
