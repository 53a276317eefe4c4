"""Who may come in: the client keys of a server's folder as they are now, not as they were when the server started.

ZeroMQ asks once for every connection, through a socket of a fixed name in the server's context (ZAP, rfc.zeromq.org/spec/27), and
a thread looks into the folder before it answers. It also looks twice a second: a client whose key is taken away is heard no more,
though its connection stands.

    clients/NAME.key ──▶ [ thread ] ◀──ask── ZeroMQ, at every handshake
                             └──▶ admits ◀── the server's loop, at every message
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
_LOOK_MS = 500
"""How often the folder is looked into while nobody comes."""

_Stamp = tuple[int, int, int, int]
"""What changes when a file does."""


class Authenticator:
    """Lets in whoever has its public key in `folder`, in a file `NAME.key`.

    Raises
    ------
    DeviceError
        "bad_request" where there is no such folder, or a client's key cannot be read, naming it.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._known: dict[Path, tuple[_Stamp, bytes | None]] = {}
        self._let_in: frozenset[bytes] = frozenset()
        self._missing = False
        try:
            paths = _key_files(folder)
        except OSError as error:
            raise DeviceError("bad_request", f"keys folder {folder}: {error.strerror}") from None
        for path in paths:
            public_key(path)
        self._look()

    def is_authorized(self, key: bytes) -> bool:
        """Return whether the client with this public key (40 characters of Z85) may come in, as last looked up. Never waits."""
        return key in self._let_in

    def start(self, context: zmq.Context) -> None:
        """Answer for the sockets of `context`, to be called before one of them is bound; ends with the context."""
        socket = context.socket(zmq.REP)
        try:
            socket.linger = 0
            socket.rcvtimeo = _LOOK_MS
            socket.bind(_ZAP)
            threading.Thread(target=self._run, args=(socket,), name="photonloop-keys", daemon=True).start()
        except BaseException:
            socket.close()
            raise

    def _run(self, socket: zmq.Socket) -> None:
        with socket:
            while True:
                try:
                    asked = socket.recv_multipart()
                except zmq.Again:
                    self._look()
                    continue
                except zmq.ZMQError:  # the context ends
                    return
                self._look()
                try:
                    socket.send_multipart(self._answer(asked))
                except zmq.ZMQError:
                    return

    def _answer(self, asked: list[bytes]) -> list[bytes]:
        """Return the reply to a ZAP request: version, id, domain, address, identity, mechanism, key."""
        version, request_id = (*asked, b"", b"")[:2]
        key = z85.encode(asked[6]) if len(asked) == 7 and asked[5] == b"CURVE" and len(asked[6]) == 32 else b""
        if not self.is_authorized(key):
            return [version, request_id, b"400", b"no key of this server", b"", b""]
        return [version, request_id, b"200", b"OK", key, b""]

    def _look(self) -> None:
        """Read what is new or has changed in the folder. Never raises: who cannot be read stays out, all others come in."""
        try:
            paths = _key_files(self._folder)
        except OSError as error:
            if not self._missing:
                log.warning("keys folder %s: %s: nobody is let in", self._folder, error.strerror)
            self._missing, paths = True, []
        else:
            self._missing = False
        self._known = {path: self._read(path) for path in paths}
        self._let_in = frozenset(key for _, key in self._known.values() if key is not None)

    def _read(self, path: Path) -> tuple[_Stamp, bytes | None]:
        before = self._known.get(path)
        try:
            found = path.stat()
            stamp = (found.st_mtime_ns, found.st_ctime_ns, found.st_size, found.st_ino)
        except OSError:
            stamp = (0, 0, 0, 0)  # gone this moment, or a link to nowhere
        if before is not None and before[0] == stamp:
            return before
        try:
            return stamp, public_key(path)
        except DeviceError as error:
            log.warning("%s: this client is not let in", error.detail)
            return stamp, None


def secure_server(context: zmq.Context, socket: zmq.Socket, folder: Path) -> Authenticator:
    """Make `socket`, not yet bound, accept the clients of `folder` and nobody else, until `context` ends.

    Raises
    ------
    DeviceError
        "bad_request" where keys are missing or are none, naming the file.
    """
    public, secret = key_pair(folder / "server.key_secret")
    authenticator = Authenticator(folder / "clients")
    socket.curve_publickey, socket.curve_secretkey, socket.curve_server = public, secret, True
    authenticator.start(context)
    return authenticator


def client_of(frame: zmq.Frame) -> bytes:
    """Return the public key of the client that sent this frame, empty where its connection proved none."""
    try:
        user = frame.get("User-Id")
    except zmq.ZMQError:
        return b""
    return str(user).encode()


def _key_files(folder: Path) -> list[Path]:
    return sorted(path for path in folder.iterdir() if path.suffix == ".key" and not path.name.startswith("."))
