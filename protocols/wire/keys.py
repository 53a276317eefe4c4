"""CURVE keys of servers and clients: elliptic-curve encryption and authentication of ZeroMQ.

    KEYS/                      folder of the server
      server.key               public
      server.key_secret        secret
      clients/NAME.key         public, one per client. Deleting it locks the client out (`server/authentication.py`)
      for-NAME/                to be copied to that client, then deleted here
        server.key             public
        client.key_secret      secret

Secret files are readable by their owner only.
"""

from __future__ import annotations

import re
import shutil
import struct
import tempfile
from pathlib import Path

import zmq
from zmq.utils import z85

from photonloop.protocols.errors import DeviceError

_KEY_BYTES = 32
_NAME = re.compile(r"[A-Za-z0-9_.-]{1,64}")


def create_server_keys(folder: Path) -> None:
    """Create the server's key pair in `folder`. The folder is created if it does not exist; an existing pair is kept.

    An existing folder keeps its mode.

    Raises
    ------
    DeviceError
        "bad_request" if the folder cannot be written, or contains other files.
    """
    try:
        if (folder / "server.key_secret").exists():
            return
        # It may be the folder of a client, whose server.key must not be replaced.
        if folder.exists() and any(folder.iterdir()):
            raise DeviceError(
                "bad_request", f"keys folder {folder} is not empty and has no server.key_secret: give a new or an empty folder"
            )
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        (folder / "clients").mkdir(mode=0o700)
        _create_pair(folder, "server")
    except OSError as error:
        raise _unusable(folder, error) from None


def add_client(folder: Path, name: str) -> Path:
    """Create a key pair for the client `name`, authorize it, and return the folder to copy to that client.

    This takes effect at once, also for a running server. To revoke the client's access delete `clients/NAME.key`.

    Raises
    ------
    DeviceError
        "bad_request" for an invalid or existing name, or a folder without server keys.
    """
    if not _NAME.fullmatch(name) or name.startswith("."):
        raise DeviceError("bad_request", f"client name is {name!r}, expected letters, digits, '-', '_' and '.', at most 64")
    to_carry = folder / f"for-{name}"
    try:
        if not (folder / "server.key").exists():
            raise DeviceError("bad_request", f"keys folder {folder} has no server.key: create the server's keys first")
        if (folder / "clients" / f"{name}.key").exists():
            raise DeviceError("bad_request", f"client {name!r} exists already in {folder}: choose another name")
        if to_carry.exists():
            raise DeviceError("bad_request", f"{to_carry} exists already: delete it first")
        to_carry.mkdir(mode=0o700)
        _create_pair(to_carry, "client")
        shutil.copy(folder / "server.key", to_carry / "server.key")
        (to_carry / "client.key").rename(folder / "clients" / f"{name}.key")
    except OSError as error:
        raise _unusable(folder, error) from None
    return to_carry


def secure_client(socket: zmq.Socket, folder: Path) -> None:
    """Set the keys in `folder` on `socket`, before it connects. It then connects to the server with that key only.

    Raises
    ------
    DeviceError
        "bad_request" with the name of the file, if a key is missing or invalid.
    """
    server_public = public_key(folder / "server.key")
    public, secret = key_pair(folder / "client.key_secret")
    socket.curve_serverkey, socket.curve_publickey, socket.curve_secretkey = server_public, public, secret


def public_key(path: Path) -> bytes:
    """Return the public key in the file `path`, 40 characters of Z85.

    Raises
    ------
    DeviceError
        "bad_request" with the name of the file, if there is none.
    """
    return _checked(path, "public", _load(path)[0])


def key_pair(path: Path) -> tuple[bytes, bytes]:
    """Return the public and the secret key in the file `path`; raises as `public_key` does, or if they do not match."""
    public, secret = _load(path)
    if secret is None:
        raise DeviceError("bad_request", f"key file {path} has no secret key")
    _checked(path, "public", public)
    if zmq.curve_public(_checked(path, "secret", secret)) != public:
        raise DeviceError("bad_request", f"key file {path}: its public key does not belong to its secret key")
    return public, secret


def _create_pair(folder: Path, name: str) -> None:
    from zmq.auth import create_certificates  # noqa: PLC0415

    # pyzmq creates the secret file readable by all, so it is written in a temporary folder that only the owner can
    # read. It is moved last, so that the pair is complete if the secret file exists.
    with tempfile.TemporaryDirectory(prefix=".", dir=folder) as aside:
        public_file, secret_file = map(Path, create_certificates(aside, name))
        secret_file.chmod(0o600)
        public_file.rename(folder / public_file.name)
        secret_file.rename(folder / secret_file.name)


def _unusable(folder: Path, error: OSError) -> DeviceError:
    return DeviceError("bad_request", f"keys folder {folder}: {error.strerror or error}")


def _load(path: Path) -> tuple[bytes, bytes | None]:
    from zmq.auth import load_certificate  # noqa: PLC0415

    try:
        if path.exists() and not path.is_file():  # opening a named pipe would block
            raise DeviceError("bad_request", f"key file {path} is not a file")
        return load_certificate(path)
    except OSError as error:
        raise DeviceError("bad_request", f"key file {path}: {error.strerror or 'it does not exist'}") from None
    except (ValueError, IndexError):  # the latter for a line without "="
        raise DeviceError("bad_request", f"key file {path} has no public key") from None


def _checked(path: Path, kind: str, key: bytes) -> bytes:
    """Return the key if it is valid.

    ZeroMQ also refuses invalid keys, but its error does not name the key or the file.
    """
    try:
        whole = len(z85.decode(key)) == _KEY_BYTES
    except (KeyError, ValueError, struct.error):  # a bad character, a bad length, or a group above 32 bits
        whole = False
    if not whole:
        raise DeviceError("bad_request", f"key file {path}: its {kind} key is damaged, expected 40 characters of Z85")
    return key
