"""The server's side of memory shared with a client."""

from __future__ import annotations

from collections.abc import Mapping

from photonloop.protocols.errors import DeviceError
from photonloop.protocols.wire.messages import AnyArray, Request, ShareBody, write_shared
from photonloop.protocols.wire.shared_buffer import SharedBuffer, open_shared_buffer


class ServerSharedBuffer:
    """The one buffer that a server shares, with the client that holds the lease.

    Parameters
    ----------
    most_bytes
        Size of the largest buffer; 0: none is shared.
    """

    def __init__(self, most_bytes: int) -> None:
        self._most_bytes = most_bytes
        self._buffer: SharedBuffer | None = None
        self._client_id = ""
        self._number = 0

    def open(self, body: ShareBody, client_id: str) -> int:
        """Open the buffer that `client_id` has created, in place of an older one, and return its number.

        Raises
        ------
        DeviceError
            "limit" if it is too large, "bad_request" if this process cannot open it.
        """
        if body.nbytes > self._most_bytes:
            raise DeviceError(
                "limit", f"shared memory of {body.nbytes} bytes is more than the {self._most_bytes} bytes that this server shares"
            )
        self._buffer = open_shared_buffer(body.pid, body.fd, body.name, body.nbytes)
        self._client_id = client_id
        self._number += 1  # a new number, so that requests that refer to an older buffer are recognised
        return self._number

    def buffer_of(self, request: Request) -> SharedBuffer | None:
        """Return the buffer that `request` refers to; None if it names none, or one that is no longer shared."""
        known = request.client_id == self._client_id and request.body.get("buffer") == self._number
        return self._buffer if known else None

    def write(self, request: Request, name: str, values: AnyArray) -> Mapping[str, int]:
        """Write the array `name` to the place that `request` offers.

        Return that place by name, or nothing if it does not fit.
        """
        buffer = self.buffer_of(request)
        at, room = request.body.get("answer_at"), request.body.get("answer_bytes")
        if buffer is None or not isinstance(at, int) or not isinstance(room, int):
            return {}
        if not 0 < values.nbytes <= room or at + values.nbytes > buffer.nbytes:
            return {}
        write_shared(values, buffer, at)
        return {name: at}

    def forget(self) -> None:
        """Stop sharing the buffer."""
        self._buffer = None
