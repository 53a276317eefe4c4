"""One socket to a device server: send a request, wait for its answer, send it again where none comes."""

from __future__ import annotations

import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import zmq

from protocols import wire
from protocols.errors import DeviceError
from protocols.keys import secure_client
from protocols.sockets import send_frames
from protocols.wire import AnyArray, Frames, Reply, Request

_SLICE_MS = 100
_ATTEMPTS = 3
"""How often a request is sent within the time after which a silent server is given up."""
_GONE_S = 1.0


@dataclass(frozen=True)
class Answer:
    """A reply that says "done"."""

    header: Reply
    arrays: Mapping[str, AnyArray]


class Channel:
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

    def ask(self, request: Request, frames: Frames, patience_s: float = _GONE_S, silence_s: float | None = None) -> Answer:
        """Send `frames`, the encoded `request`, and return its answer.

        Raises
        ------
        DeviceError
            What the server answered; or "transport" where it does not answer, outcome "not_applied" where the request
            cannot have reached it, "unknown" otherwise.
        """
        with self._lock:
            self._post(frames, patience_s)
            return self._wait(request, frames, self._silence_s if silence_s is None else silence_s)

    def post(self, frames: Frames) -> None:
        """Send a request whose answer `wait` will get; raises as `ask` does."""
        with self._lock:
            self._post(frames, _GONE_S)

    def wait(self, request: Request, frames: Frames) -> Answer:
        """Return the answer to what `post` sent; raises as `ask` does."""
        with self._lock:
            return self._wait(request, frames, self._silence_s)

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

    def _wait(self, request: Request, frames: Frames, silence_s: float) -> Answer:
        heard_s = sent_s = connected_s = time.monotonic()
        while True:
            try:
                received = self._socket.recv_multipart(copy=False)
            except zmq.Again:
                if self._closing:
                    raise self._closed("closed by this side") from None
                now_s = time.monotonic()
                # With IMMEDIATE a socket can send only while it is connected.
                if self._socket.get(zmq.EVENTS) & zmq.POLLOUT:
                    connected_s = now_s
                if now_s - connected_s >= _GONE_S or now_s - heard_s >= silence_s:
                    raise DeviceError(
                        "transport",
                        f"the device server at {self._address} has gone silent while it had a request ({request.op})",
                        retryable=True,
                        outcome="unknown",
                    ) from None
                if now_s - sent_s >= silence_s / _ATTEMPTS and connected_s == now_s:
                    sent_s = now_s
                    self._post(frames, 0.0)
                continue
            except zmq.ZMQError as error:
                raise self._closed(error.strerror) from None
            answer = self._read(request, [frame.buffer for frame in received])
            if answer is not None:
                return answer
            heard_s = sent_s = connected_s = time.monotonic()

    def _read(self, request: Request, frames: Frames) -> Answer | None:
        """Return the answer in `frames`; None where it belongs to an older request or says "working"."""
        try:
            wire.check_prefix(frames[0])
            if len(frames) < 2:
                return None
            header = wire.decode_reply(frames[1])
            if header.id != request.id or header.state == "working":
                return None
            arrays = wire.decode_arrays(header.arrays, frames[2:])
        except ValueError:
            return None
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
        return Answer(header, arrays)

    def _nobody(self, patience_s: float) -> DeviceError:
        waited = f" within {patience_s:g} s" if patience_s else ""
        return DeviceError("transport", f"no device server answers at {self._address}{waited}", retryable=True)

    def _closed(self, why: str | None) -> DeviceError:
        return DeviceError("transport", f"the connection to {self._address} is closed: {why}", outcome="unknown")
