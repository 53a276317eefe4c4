"""A connection to a device server: send a request, wait for its reply, and repeat it if none arrives."""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import zmq

from photonloop.protocols.errors import DeviceError
from photonloop.protocols.wire import messages
from photonloop.protocols.wire.keys import secure_client
from photonloop.protocols.wire.messages import AnyArray, Frames, Reply, Request
from photonloop.protocols.wire.shared_buffer import SharedBuffer
from photonloop.protocols.wire.sockets import receive_frames, send_frames

_SLICE_MS = 100
_ATTEMPTS = 3
"""How often a request is sent before a silent server counts as dead."""
_GONE_S = 1.0
"""Time without a connection after which the server counts as dead."""


@dataclass(frozen=True)
class Answer:
    """A reply with the state "done"."""

    header: Reply
    arrays: Mapping[str, AnyArray]


class ServerConnection:
    """A DEALER socket with a lock. Any thread may call `ask`; calls wait for each other.

    Parameters
    ----------
    silence_s
        Time without a message after which a server counts as dead. A server that works on a
        request sends a message twice a second.
    """

    def __init__(self, context: zmq.Context, address: str, keys: Path | None, silence_s: float) -> None:
        self._address = address
        self._silence_s = silence_s
        self._lock = threading.Lock()
        self._closing = False
        self._posted: set[int] = set()
        self._early_replies: dict[int, Frames] = {}
        socket = context.socket(zmq.DEALER)
        try:
            socket.linger = 0
            socket.ipv6 = "[" in address
            # Nothing is queued while the server is absent: it would be delivered to its successor.
            socket.immediate = True
            socket.rcvtimeo = _SLICE_MS
            socket.reconnect_ivl = 50
            socket.reconnect_ivl_max = 500
            if keys is not None:
                secure_client(socket, keys)
            socket.connect(address)
        except zmq.ZMQError as error:
            socket.close()
            raise DeviceError("bad_request", f"address is {address!r}: {error.strerror}") from None
        except DeviceError:
            socket.close()
            raise
        self._socket = socket

    def close(self) -> None:
        """Close the socket. Pending messages are lost, and `ask` and `wait` in other threads raise."""
        self._closing = True
        with self._lock:
            self._socket.close()

    def ask(self, request: Request, frames: Frames, within_s: float | None = None) -> Answer:
        """Send `frames`, the encoded `request`, and return its reply, within `within_s` in total if that is given.

        Raises
        ------
        DeviceError
            The server's error. "transport" if the server does not reply, with outcome "not_applied" if the request
            cannot have reached it, and "unknown" otherwise.
        """
        with self._lock:
            if within_s is None:
                self._post(frames, _GONE_S)
                return self._wait(request, frames, self._silence_s)
            until_s = time.monotonic() + within_s
            self._post(frames, within_s)
            return self._wait(request, frames, min(within_s, self._silence_s), until_s)

    def post(self, request: Request, frames: Frames) -> None:
        """Send a request whose reply `wait` will return; raises as `ask` does."""
        with self._lock:
            self._post(frames, _GONE_S)
            self._posted.add(request.id)

    def wait(self, request: Request, frames: Frames, buffer: SharedBuffer | None = None) -> Answer:
        """Return the reply to a request that `post` sent, even if it arrived before another one; raises as `ask` does.

        `buffer`: shared memory that the reply may refer to.
        """
        with self._lock:
            try:
                answer = self._wait(request, frames, self._silence_s, buffer=buffer)
            except DeviceError:
                self._forget(request.id)
                raise
            self._forget(request.id)  # not after a KeyboardInterrupt: `wait` may then be called again
            return answer

    def _forget(self, request_id: int) -> None:
        self._posted.discard(request_id)
        self._early_replies.pop(request_id, None)

    def _post(self, frames: Frames, timeout_s: float) -> None:
        try:
            return send_frames(self._socket, frames)
        except zmq.Again:
            pass
        except zmq.ZMQError as error:
            raise self._closed(error.strerror) from None
        if not self._socket.poll(int(1000 * timeout_s), zmq.POLLOUT):
            raise self._unreachable(timeout_s)
        try:
            return send_frames(self._socket, frames)
        except zmq.ZMQError:
            raise self._unreachable(timeout_s) from None

    def _wait(
        self, request: Request, frames: Frames, silence_s: float, until_s: float = math.inf, buffer: SharedBuffer | None = None
    ) -> Answer:
        """Return the reply; raise at `until_s`, or earlier if the server is silent or the connection is lost."""
        if request.id in self._early_replies:
            answer, _ = self._read(request, self._early_replies[request.id], buffer)
            if answer is not None:
                return answer
        received_s = sent_s = connected_s = time.monotonic()
        while True:
            if time.monotonic() >= until_s:
                raise self._no_reply(request)
            try:
                received = receive_frames(self._socket)
            except zmq.Again:
                if self._closing:
                    raise self._closed("closed by the client") from None
                now_s = time.monotonic()
                # With ZMQ_IMMEDIATE a socket can send only while it is connected.
                if self._socket.get(zmq.EVENTS) & zmq.POLLOUT:
                    connected_s = now_s
                if until_s == math.inf and (now_s - connected_s >= _GONE_S or now_s - received_s >= silence_s):
                    raise self._no_reply(request) from None
                if now_s - sent_s >= silence_s / _ATTEMPTS and connected_s == now_s:
                    sent_s = now_s
                    self._post(frames, 0.0)
                continue
            except zmq.ZMQError as error:
                raise self._closed(error.strerror) from None
            answer, is_own = self._read(request, received, buffer)
            if answer is not None:
                return answer
            received_s = connected_s = time.monotonic()
            if is_own:  # messages about other requests do not prove that this one arrived
                sent_s = received_s

    def _read(self, request: Request, frames: Frames, buffer: SharedBuffer | None) -> tuple[Answer | None, bool]:
        """Return the reply to `request` in `frames`, or None, and whether the message belongs to `request`.

        A reply to another request that `wait` has not returned yet is kept.
        """
        try:
            messages.check_prefix(frames[0])
            if len(frames) < 2:
                return None, False
            header = messages.decode_reply(frames[1])
            if header.id != request.id:
                if header.id in self._posted and header.state != "working":
                    self._early_replies[header.id] = frames
                return None, False
            if header.state == "working":
                return None, True
            arrays = messages.decode_arrays(header.arrays, frames[2:], buffer)
        except ValueError:
            return None, False
        except DeviceError as error:
            if error.code == "version":
                raise DeviceError("version", f"the device server at {self._address}: {error.detail}") from None
            raise DeviceError(
                "transport", f"the device server at {self._address} sent an invalid reply: {error.detail}", outcome="unknown"
            ) from None
        if header.state == "error":
            if header.error is None:
                raise DeviceError("transport", "the device server sent an error reply without the error", outcome="unknown")
            raise DeviceError.from_body(header.error)
        return Answer(header, arrays), True

    def _no_reply(self, request: Request) -> DeviceError:
        return DeviceError(
            "transport",
            f"the device server at {self._address} does not reply to {request.op}",
            retryable=True,
            outcome="unknown",
        )

    def _unreachable(self, timeout_s: float) -> DeviceError:
        waited = f" within {timeout_s:g} s" if timeout_s else ""
        return DeviceError("transport", f"no device server answers at {self._address}{waited}", retryable=True)

    def _closed(self, why: str | None) -> DeviceError:
        return DeviceError("transport", f"the connection to {self._address} is closed: {why}", outcome="unknown")
