"""One socket to a device server: send a request, wait for its answer, send it again where none comes."""

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
"""How often a request is sent within the time after which a silent server is given up."""
_GONE_S = 1.0


@dataclass(frozen=True)
class Answer:
    """A reply that says "done"."""

    header: Reply
    arrays: Mapping[str, AnyArray]


class ServerConnection:
    """A DEALER socket with a lock; `ask` may be called from any thread, one at a time.

    Parameters
    ----------
    silence_s
        A server that says nothing for this long is given up. A server at work on a request says so twice a second.
    """

    def __init__(self, context: zmq.Context, address: str, keys: Path | None, silence_s: float) -> None:
        self._address = address
        self._silence_s = silence_s
        self._lock = threading.Lock()
        self._closing = False
        self._posted: set[int] = set()
        self._overtaking: dict[int, Frames] = {}
        socket = context.socket(zmq.DEALER)
        try:
            socket.linger = 0
            socket.ipv6 = "[" in address
            # Nothing is queued for a server that is not there: it would be delivered to the one that comes after it.
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
        """Close the socket; what is on its way is lost, and who waits for it in another thread is told."""
        self._closing = True
        with self._lock:
            self._socket.close()

    def ask(self, request: Request, frames: Frames, within_s: float | None = None) -> Answer:
        """Send `frames`, the encoded `request`, and return its answer; within `within_s` in all, where that is given.

        Raises
        ------
        DeviceError
            What the server answered; or "transport" where it does not answer, outcome "not_applied" where the request
            cannot have reached it, "unknown" otherwise.
        """
        with self._lock:
            if within_s is None:
                self._post(frames, _GONE_S)
                return self._wait(request, frames, self._silence_s)
            until_s = time.monotonic() + within_s
            self._post(frames, within_s)
            return self._wait(request, frames, min(within_s, self._silence_s), until_s)

    def post(self, request: Request, frames: Frames) -> None:
        """Send a request whose answer `wait` will get; raises as `ask` does."""
        with self._lock:
            self._post(frames, _GONE_S)
            self._posted.add(request.id)

    def wait(self, request: Request, frames: Frames, buffer: SharedBuffer | None = None) -> Answer:
        """Return the answer to what `post` sent, also where it came while another was waited for; raises as `ask` does.

        `buffer`: shared memory that the answer may refer to.
        """
        with self._lock:
            try:
                answer = self._wait(request, frames, self._silence_s, buffer=buffer)
            except DeviceError:
                self._forget(request.id)
                raise
            self._forget(request.id)  # not where a KeyboardInterrupt came: then it may be waited for again
            return answer

    def _forget(self, request_id: int) -> None:
        self._posted.discard(request_id)
        self._overtaking.pop(request_id, None)

    def _post(self, frames: Frames, patience_s: float) -> None:
        try:
            return send_frames(self._socket, frames)
        except zmq.Again:
            pass
        except zmq.ZMQError as error:
            raise self._closed(error.strerror) from None
        if not self._socket.poll(int(1000 * patience_s), zmq.POLLOUT):
            raise self._nobody(patience_s)
        try:
            return send_frames(self._socket, frames)
        except zmq.ZMQError:
            raise self._nobody(patience_s) from None

    def _wait(
        self, request: Request, frames: Frames, silence_s: float, until_s: float = math.inf, buffer: SharedBuffer | None = None
    ) -> Answer:
        """Return the answer; give up at `until_s`, or earlier where the server goes silent or away."""
        if request.id in self._overtaking:
            answer, _ = self._read(request, self._overtaking[request.id], buffer)
            if answer is not None:
                return answer
        heard_s = sent_s = connected_s = time.monotonic()
        while True:
            if time.monotonic() >= until_s:
                raise self._silent(request)
            try:
                received = receive_frames(self._socket)
            except zmq.Again:
                if self._closing:
                    raise self._closed("closed by this side") from None
                now_s = time.monotonic()
                # With IMMEDIATE a socket can send only while it is connected.
                if self._socket.get(zmq.EVENTS) & zmq.POLLOUT:
                    connected_s = now_s
                if until_s == math.inf and (now_s - connected_s >= _GONE_S or now_s - heard_s >= silence_s):
                    raise self._silent(request) from None
                if now_s - sent_s >= silence_s / _ATTEMPTS and connected_s == now_s:
                    sent_s = now_s
                    self._post(frames, 0.0)
                continue
            except zmq.ZMQError as error:
                raise self._closed(error.strerror) from None
            answer, is_own = self._read(request, received, buffer)
            if answer is not None:
                return answer
            heard_s = connected_s = time.monotonic()
            if is_own:  # else the request may be lost, however much is heard of others
                sent_s = heard_s

    def _read(self, request: Request, frames: Frames, buffer: SharedBuffer | None) -> tuple[Answer | None, bool]:
        """Return the answer in `frames`, if it is one, and whether they speak of `request` at all.

        The answer to another request that is still to be waited for is kept.
        """
        try:
            messages.check_prefix(frames[0])
            if len(frames) < 2:
                return None, False
            header = messages.decode_reply(frames[1])
            if header.id != request.id:
                if header.id in self._posted and header.state != "working":
                    self._overtaking[header.id] = frames
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
                "transport", f"the device server at {self._address} answered nonsense: {error.detail}", outcome="unknown"
            ) from None
        if header.state == "error":
            if header.error is None:
                raise DeviceError("transport", "the device server answered an error without saying which", outcome="unknown")
            raise DeviceError.from_body(header.error)
        return Answer(header, arrays), True

    def _silent(self, request: Request) -> DeviceError:
        return DeviceError(
            "transport",
            f"the device server at {self._address} has gone silent while it had a request ({request.op})",
            retryable=True,
            outcome="unknown",
        )

    def _nobody(self, patience_s: float) -> DeviceError:
        waited = f" within {patience_s:g} s" if patience_s else ""
        return DeviceError("transport", f"no device server answers at {self._address}{waited}", retryable=True)

    def _closed(self, why: str | None) -> DeviceError:
        return DeviceError("transport", f"the connection to {self._address} is closed: {why}", outcome="unknown")
