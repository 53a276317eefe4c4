"""Authentication of clients by their CURVE keys, which may be added and removed while the server runs.

ZeroMQ sends one request per new connection to a socket with a fixed name in the server's context (ZAP,
rfc.zeromq.org/spec/27). A thread reads the folder of keys before it replies. It also reads the folder twice a second,
so that messages of a client whose key was removed are dropped, although its connection persists.

    clients/NAME.key ──▶ [ thread ] ◀── request ── ZeroMQ, at every handshake
                             └──▶ is_authorized ◀── the server's loop, for every message

`docs/decisions/0010-authentication-by-a-folder-of-keys.md` compares this with `zmq.auth`.
"""

from __future__ import annotations

import logging
import threading
from pathlib import Path

import zmq
from zmq.utils import z85

from photonloop.protocols.errors import DeviceError
from photonloop.protocols.wire.keys import key_pair, public_key

log = logging.getLogger(__name__)

_ZAP = "inproc://zeromq.zap.01"
_READ_MS = 500
"""Interval at which the folder is read while no client connects."""

_Stamp = tuple[int, int, int, int]
"""Modification time, status change time, size and inode of a file."""


class Authenticator:
    """Authorizes the clients whose public keys are in `folder`, in files `NAME.key`.

    Raises
    ------
    DeviceError
        "bad_request" if the folder does not exist, or with the name of a file that has no valid key.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._known: dict[Path, tuple[_Stamp, bytes | None]] = {}
        self._authorized: frozenset[bytes] = frozenset()
        self._missing = False
        try:
            paths = _key_files(folder)
        except OSError as error:
            raise DeviceError("bad_request", f"keys folder {folder}: {error.strerror}") from None
        for path in paths:
            public_key(path)
        self._read_folder()

    def is_authorized(self, key: bytes) -> bool:
        """Return whether the client with this public key (40 characters of Z85) is authorized.

        Does not read the folder.
        """
        return key in self._authorized

    def start(self, context: zmq.Context) -> None:
        """Authenticate the clients of all sockets of `context`.

        Call it before they are bound. Ends with the context.
        """
        socket = context.socket(zmq.REP)
        try:
            socket.linger = 0
            socket.rcvtimeo = _READ_MS
            socket.bind(_ZAP)
            threading.Thread(target=self._run, args=(socket,), name="photonloop-keys", daemon=True).start()
        except BaseException:
            socket.close()
            raise

    def _run(self, socket: zmq.Socket) -> None:
        with socket:
            while True:
                try:
                    request = socket.recv_multipart()
                except zmq.Again:
                    self._read_folder()
                    continue
                except zmq.ZMQError:  # the context ends
                    return
                self._read_folder()
                try:
                    socket.send_multipart(self._reply(request))
                except zmq.ZMQError:
                    return

    def _reply(self, request: list[bytes]) -> list[bytes]:
        """Return the reply to a ZAP request: version, id, domain, address, identity, mechanism, key."""
        version, request_id = (*request, b"", b"")[:2]
        key = z85.encode(request[6]) if len(request) == 7 and request[5] == b"CURVE" and len(request[6]) == 32 else b""
        if not self.is_authorized(key):
            return [version, request_id, b"400", b"unknown key", b"", b""]
        return [version, request_id, b"200", b"OK", key, b""]

    def _read_folder(self) -> None:
        """Read new and changed files.

        Never raises: a client whose file cannot be read is not authorized, all others are.
        """
        try:
            paths = _key_files(self._folder)
        except OSError as error:
            if not self._missing:
                log.warning("keys folder %s: %s: no client is authorized", self._folder, error.strerror)
            self._missing, paths = True, []
        else:
            self._missing = False
        self._known = {path: self._read_key(path) for path in paths}
        self._authorized = frozenset(key for _, key in self._known.values() if key is not None)

    def _read_key(self, path: Path) -> tuple[_Stamp, bytes | None]:
        before = self._known.get(path)
        try:
            found = path.stat()
            stamp = (found.st_mtime_ns, found.st_ctime_ns, found.st_size, found.st_ino)
        except OSError:
            stamp = (0, 0, 0, 0)  # just deleted, or a broken link
        if before is not None and before[0] == stamp:
            return before
        try:
            return stamp, public_key(path)
        except DeviceError as error:
            log.warning("%s: this client is not authorized", error.detail)
            return stamp, None


def secure_server(context: zmq.Context, socket: zmq.Socket, folder: Path) -> Authenticator:
    """Set the server's keys on `socket`, before it is bound, and accept only the clients in `folder`.

    Raises
    ------
    DeviceError
        "bad_request" with the name of the file, if a key is missing or invalid.
    """
    public, secret = key_pair(folder / "server.key_secret")
    authenticator = Authenticator(folder / "clients")
    socket.curve_publickey, socket.curve_secretkey, socket.curve_server = public, secret, True
    authenticator.start(context)
    return authenticator


def client_of(frame: zmq.Frame) -> bytes:
    """Return the public key of the client that sent this frame; empty if it was not authenticated."""
    try:
        user = frame.get("User-Id")
    except zmq.ZMQError:
        return b""
    return str(user).encode()


def _key_files(folder: Path) -> list[Path]:
    return sorted(path for path in folder.iterdir() if path.suffix == ".key" and not path.name.startswith("."))
