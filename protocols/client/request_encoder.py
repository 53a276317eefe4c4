"""Encoding of a client's requests: numbers, epoch, deadlines on the server's clock."""

from __future__ import annotations

import itertools
import secrets
import time
from collections.abc import Mapping

from pydantic import JsonValue, ValidationError

from photonloop.protocols.errors import DeviceError
from photonloop.protocols.wire import messages
from photonloop.protocols.wire.messages import COMMANDS, AnyArray, ArraySpec, Frames, Op, Reply, Request

_NO_DEADLINE: frozenset[Op] = frozenset({"hello", "safe", "status", "describe", "renew", "cancel", "release"})
"""Operations without a deadline: a clock that drifts must not keep a device from being made safe."""


class RequestEncoder:
    """Encodes the requests of one client, whose random `client_id` is the same on all its sockets.

    Parameters
    ----------
    deadline_s
        Time that a request has, unless its operation has no deadline.
    """

    def __init__(self, deadline_s: float) -> None:
        self.max_message_bytes = 0
        """Largest array that the server accepts in one message."""
        self.server_ahead_s = 0.0
        """The server's clock minus this process's `time.monotonic`."""
        self._deadline_s = deadline_s
        self.client_id = secrets.token_hex(16)
        self._ids = itertools.count(1)
        self._seqs = itertools.count(1)
        self._epoch = ""

    def hello(self, label: str) -> tuple[Request, Frames]:
        """Return the `hello` request, the first one to a server, before its epoch is known."""
        self._epoch = ""
        request = self._request("hello", {"label": label}, ())
        return request, messages.encode(request)

    def note_hello(self, reply: Reply, asked_s: float, answered_s: float) -> None:
        """Store the epoch, the clock and the largest message size from the reply to `hello`."""
        self._epoch = reply.epoch
        self.note_clock(reply.body, asked_s, answered_s)
        self.max_message_bytes = int(_number(reply.body, "max_message_bytes"))

    def note_clock(self, body: Mapping[str, JsonValue], asked_s: float, answered_s: float) -> None:
        """Update the estimate of the server's clock from the `now_s` of a reply."""
        self.server_ahead_s = _number(body, "now_s") - (asked_s + answered_s) / 2

    def encode(
        self,
        op: Op,
        body: dict[str, JsonValue],
        arrays: Mapping[str, AnyArray],
        places: Mapping[str, int] | None = None,
    ) -> tuple[Request, Frames]:
        """Return a request and its frames; arrays named in `places` are in shared memory, at these bytes.

        Raises
        ------
        DeviceError
            "limit" for an array larger than the server's largest message, "bad_request" for a bad field.
        """
        specs, sent = messages.array_specs(arrays, places)
        for spec in specs:
            if spec.nbytes > self.max_message_bytes:
                raise DeviceError(
                    "limit",
                    f"{spec.name} takes {spec.nbytes} bytes, more than the server's max_message_bytes "
                    f"{self.max_message_bytes}: send less at once",
                )
        request = self._request(op, body, specs)
        return request, messages.encode(request, sent)

    def _request(self, op: Op, body: dict[str, JsonValue], specs: tuple[ArraySpec, ...]) -> Request:
        deadline = None if op in _NO_DEADLINE else time.monotonic() + self.server_ahead_s + self._deadline_s
        try:
            return Request(
                op=op,
                id=next(self._ids),
                client_id=self.client_id,
                seq=next(self._seqs) if op in COMMANDS else 0,
                epoch=self._epoch,
                deadline=deadline,
                arrays=specs,
                body=body,
            )
        except ValidationError as error:
            raise DeviceError("bad_request", f"{op}: {error.errors()[0]['msg']}") from None


def _number(body: Mapping[str, JsonValue], name: str) -> float:
    value = body.get(name)
    if not isinstance(value, int | float):
        raise DeviceError("transport", f"the device server's reply lacks {name}")
    return float(value)
