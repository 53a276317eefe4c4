"""Keys that let a device server leave this machine: CURVE, elliptic-curve encryption and authentication of ZeroMQ.

    KEYS/                      stays with the server
      server.key               public
      server.key_secret        secret
      clients/NAME.key         public, one for every client that may connect, while it lies here (`server/authentication.py`)
      for-NAME/                to be carried to that client, and deleted here
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
    """Create the server's key pair in `folder`, which is made where it is not there; an existing pair is kept.

    A folder that was there before keeps its mode.

    Raises
    ------
    DeviceError
        "bad_request" where the folder cannot be written, or holds other things.
    """
    try:
        if (folder / "server.key_secret").exists():
            return
        # Also a folder that was carried to a client: its server.key must not be replaced.
        if folder.exists() and any(folder.iterdir()):
            raise DeviceError(
                "bad_request", f"keys folder {folder} is not empty and holds no server.key_secret: name a new or an empty folder"
            )
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        (folder / "clients").mkdir(mode=0o700)
        _create_pair(folder, "server")
    except OSError as error:
        raise _unusable(folder, error) from None


def add_client(folder: Path, name: str) -> Path:
    """Create a key pair for a client called `name`, let it in, and return the folder to carry to that client.

    A server that runs knows the client at once. To shut it out again delete `clients/NAME.key`.

    Raises
    ------
    DeviceError
        "bad_request" for a bad or a taken name, or a folder without server keys.
    """
    if not _NAME.fullmatch(name) or name.startswith("."):
        raise DeviceError("bad_request", f"client name is {name!r}, expected letters, digits, '-', '_' and '.', at most 64")
    to_carry = folder / f"for-{name}"
    try:
        if not (folder / "server.key").exists():
            raise DeviceError("bad_request", f"keys folder {folder} holds no server.key: create the server's keys first")
        if (folder / "clients" / f"{name}.key").exists():
            raise DeviceError("bad_request", f"client name {name!r} is taken in {folder}")
        if to_carry.exists():
            raise DeviceError("bad_request", f"{to_carry} is there from before: delete it first")
        to_carry.mkdir(mode=0o700)
        _create_pair(to_carry, "client")
        shutil.copy(folder / "server.key", to_carry / "server.key")
        (to_carry / "client.key").rename(folder / "clients" / f"{name}.key")
    except OSError as error:
        raise _unusable(folder, error) from None
    return to_carry


def secure_client(socket: zmq.Socket, folder: Path) -> None:
    """Make `socket`, not yet connected, prove itself with the keys of `folder` and talk to that server only.

    Raises
    ------
    DeviceError
        "bad_request" where keys are missing or are none, naming the file.
    """
    server_public = public_key(folder / "server.key")
    public, secret = key_pair(folder / "client.key_secret")
    socket.curve_serverkey, socket.curve_publickey, socket.curve_secretkey = server_public, public, secret


def public_key(path: Path) -> bytes:
    """Return the public key in the file `path`, 40 characters of Z85.

    Raises
    ------
    DeviceError
        "bad_request" where there is none, naming the file.
    """
    return _checked(path, "public", _load(path)[0])


def key_pair(path: Path) -> tuple[bytes, bytes]:
    """Return the public and the secret key in the file `path`; raises as `public_key` does, also where they are not a pair."""
    public, secret = _load(path)
    if secret is None:
        raise DeviceError("bad_request", f"key file {path} holds no secret key")
    _checked(path, "public", public)
    if zmq.curve_public(_checked(path, "secret", secret)) != public:
        raise DeviceError("bad_request", f"key file {path}: its public key does not belong to its secret key")
    return public, secret


def _create_pair(folder: Path, name: str) -> None:
    from zmq.auth import create_certificates  # noqa: PLC0415

    # pyzmq writes the secret for all to read; nobody but the owner sees it in a folder that is the owner's. It comes last:
    # where it is, the pair is whole.
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
        if path.exists() and not path.is_file():  # opening a pipe would wait for ever
            raise DeviceError("bad_request", f"key file {path} is not a file")
        return load_certificate(path)
    except OSError as error:
        raise DeviceError("bad_request", f"key file {path}: {error.strerror or 'there is none'}") from None
    except (ValueError, IndexError):  # the latter for a line without "="
        raise DeviceError("bad_request", f"key file {path} holds no public key") from None


def _checked(path: Path, kind: str, key: bytes) -> bytes:
    """Return the key if it is one: ZeroMQ refuses any other, but blames neither key nor file."""
    try:
        whole = len(z85.decode(key)) == _KEY_BYTES
    except (KeyError, ValueError, struct.error):  # another character, a number of them not divisible by 5, over 32 bits in five
        whole = False
    if not whole:
        raise DeviceError("bad_request", f"key file {path}: its {kind} key is damaged, expected 40 characters of Z85")
    return key
