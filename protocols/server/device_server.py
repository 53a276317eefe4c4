"""Serve a device over ZeroMQ with one ROUTER socket.

The socket loop passes messages to the dispatcher, which checks them and sends replies. A worker thread calls the
device. So `status` and `safe` are answered while an evaluation runs, and a device that hangs cannot block the server.
If the device is itself a client of another server, its `status` and `cancel` are also called in threads of their own.

    socket ──▶ [ loop ─▶ dispatcher: header, epoch, cache, lease, faults ] ──jobs──▶ [ worker: device ]
           ◀── replies ─────────────────────────────────────────────────── ◀─outcomes─
"""

from __future__ import annotations

import logging
import os
import socket
import stat
import time
from collections.abc import Callable
from contextlib import suppress

import zmq

from photonloop.protocols.device import PhotonicDevice
from photonloop.protocols.errors import DeviceError
from photonloop.protocols.server.authentication import Authenticator, client_of, secure_server
from photonloop.protocols.server.dispatcher import RequestDispatcher
from photonloop.protocols.server.server_options import ServerOptions
from photonloop.protocols.wire import messages
from photonloop.protocols.wire.messages import Frames
from photonloop.protocols.wire.server_address import check_server_address, on_this_machine
from photonloop.protocols.wire.sockets import receive_from, send_frames

__all__ = ["DeviceServer", "ServerOptions"]

log = logging.getLogger(__name__)

_BUSY_TICK_S = 0.01


class DeviceServer:
    """Serves `device` at the address `bind`, from `run` until `stop`.

    At the end the device is safe, and still open: the caller closes it.

    Raises
    ------
    DeviceError
        "bad_request" for an invalid address, or one that other machines can reach if there are no keys.
    """

    def __init__(self, device: PhotonicDevice, bind: str, *, options: ServerOptions | None = None) -> None:
        self._options = options or ServerOptions()
        self._bind_to = check_server_address(bind, to_bind=True)
        if self._options.keys is None and not on_this_machine(self._bind_to):
            raise DeviceError(
                "bad_request",
                f"address {bind} can be reached from other machines: give a folder of keys, or bind to 127.0.0.1",
            )
        self.address = ""
        """Address for clients; empty before `bind`."""
        self.dropped = 0
        """Number of messages that were not of this protocol, or whose sender was gone or not authorized."""
        self._context: zmq.Context | None = None
        self._router: zmq.Socket | None = None
        self._authenticator: Authenticator | None = None
        self._wake_in, self._wake_out = socket.socketpair()
        self._wake_in.setblocking(False)
        self._wake_out.setblocking(False)
        self._stopping = False
        self._dispatcher = RequestDispatcher(device, self._options, self._send, self._wake)

    @property
    def epoch(self) -> str:
        """Random name of this run of the server. Requests with another epoch are refused."""
        return self._dispatcher.epoch

    def bind(self) -> str:
        """Open the socket and return the address for clients. A second call has no effect.

        Raises
        ------
        DeviceError
            "transport" if the address cannot be bound, "bad_request" if keys are missing.
        """
        if self._router is not None:
            return self.address
        if self._bind_to.startswith("ipc://"):
            _check_free(self._bind_to)
        context = zmq.Context()
        router = context.socket(zmq.ROUTER)
        router.linger = 200
        router.router_mandatory = True
        router.ipv6 = "[" in self._bind_to
        router.maxmsgsize = max(self._options.max_message_bytes, messages.MAX_REQUEST_HEADER_BYTES)
        # A client that does not read its replies, or sends too much, must not fill the memory.
        router.sndhwm = 32
        router.rcvhwm = 32
        router.heartbeat_ivl = 5000
        router.heartbeat_timeout = 15000
        try:
            if self._options.keys is not None:
                self._authenticator = secure_server(context, router, self._options.keys)
            router.bind(self._bind_to)
        except BaseException as error:
            self._close(context, router)
            if not isinstance(error, zmq.ZMQError):
                raise
            raise DeviceError("transport", f"cannot serve at {self._bind_to}: {error.strerror}") from None
        self._context, self._router = context, router
        self.address = router.getsockopt_string(zmq.LAST_ENDPOINT).rstrip("\0")
        return self.address

    def run(self) -> None:
        """Serve until `stop`; then make the device safe and close the socket."""
        self.bind()
        context, router = self._context, self._router
        if context is None or router is None:
            raise DeviceError("transport", "the server was stopped and cannot run again")
        on_tick, tick_s = self._options.on_tick, self._options.tick_s
        poller = zmq.Poller()
        poller.register(router, zmq.POLLIN)
        poller.register(self._wake_in, zmq.POLLIN)
        self._dispatcher.start()
        ticked_s = called_s = time.monotonic()
        try:
            while not self._stopping:
                # If a message is there already, polling is skipped, because it takes as long as handling a message.
                if self._dispatcher.busy or not self._receive(router):
                    timeout_s = _BUSY_TICK_S if self._dispatcher.busy else tick_s / 2
                    for ready, _ in poller.poll(int(1000 * timeout_s)):
                        if ready is router:
                            self._receive(router)
                        else:
                            self._collect()
                now_s = time.monotonic()
                if now_s - ticked_s >= _BUSY_TICK_S:
                    ticked_s = now_s
                    _guard(self._dispatcher.tick)
                if on_tick is not None and now_s - called_s >= tick_s / 2:
                    called_s = now_s
                    if not on_tick():  # not `stopping = not on_tick()`: a signal handler may call `stop` meanwhile
                        self._stopping = True
        finally:
            _guard(self._dispatcher.shut_down)
            self._close(context, router)
            self._wake_in.close()
            self._wake_out.close()

    def stop(self) -> None:
        """Make `run` return soon. May be called from any thread and from a signal handler."""
        self._stopping = True
        self._wake()

    def _receive(self, router: zmq.Socket) -> bool:
        """Handle one message; return False if there is none."""
        try:
            first, frames = receive_from(router, zmq.NOBLOCK)
        except zmq.ZMQError:
            return False
        # The client was authorized when it connected, but its key may have been removed since.
        is_authorized = self._authenticator is None or self._authenticator.is_authorized(client_of(first))
        if not is_authorized or not self._dispatcher.handle(first.bytes, frames):
            self.dropped += 1
        return True

    def _send(self, route: bytes, frames: Frames) -> None:
        router = self._router
        if router is None:
            return
        try:
            send_frames(router, (route, *frames))
        except zmq.ZMQError:  # the client is gone, or does not read
            self.dropped += 1

    def _wake(self) -> None:
        with suppress(OSError):  # full: it will wake up anyway; closed: the loop has ended
            self._wake_out.send(b"\0")

    def _collect(self) -> None:
        with suppress(OSError):
            while self._wake_in.recv(4096):
                pass
        _guard(self._dispatcher.collect)

    def _close(self, context: zmq.Context, router: zmq.Socket) -> None:
        router.close()
        context.term()
        self._context = self._router = None


def _check_free(address: str) -> None:
    """Check that an `ipc://PATH` is free: ZeroMQ would delete any file or socket at that path.

    Raises
    ------
    DeviceError
        "transport" if it is not free.
    """
    path = address.removeprefix("ipc://")
    if path.startswith("@"):  # Linux: an abstract socket is not a file, and the kernel refuses a second one
        return
    try:
        mode = os.lstat(path).st_mode
    except OSError:
        return  # it does not exist, or is not accessible, in which case binding fails
    if not stat.S_ISSOCK(mode):
        raise DeviceError("transport", f"cannot serve at {address}: the path exists and is not a socket")
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.settimeout(1.0)
        try:
            probe.connect(path)
        except (ConnectionRefusedError, FileNotFoundError):
            return  # left by a server that ended
        except (TimeoutError, BlockingIOError):
            pass  # a server exists, but is busy
        except OSError as error:
            raise DeviceError("transport", f"cannot serve at {address}: {error.strerror or error}") from None
    raise DeviceError("transport", f"cannot serve at {address}: another server answers there")


def _guard(call: Callable[[], None]) -> None:
    """Call and log any exception, so that it does not end the loop."""
    try:
        call()
    except Exception:
        log.exception("internal error of the device server")
