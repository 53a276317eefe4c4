"""Keys that let a device server leave this machine: CURVE, elliptic-curve encryption and authentication of ZeroMQ.

    KEYS/                      stays with the server
      server.key               public
      server.key_secret        secret
      clients/NAME.key         public, one for every client that may come in
      for-NAME/                to be carried to that client, and deleted here
        server.key             public
        client.key_secret      secret

Secret files are readable by their owner only.
"""

from __future__ import annotations

import re
import shutil
from pathlib import Path
from typing import TYPE_CHECKING

import zmq

from protocols.errors import DeviceError

if TYPE_CHECKING:
    from zmq.auth.thread import ThreadAuthenticator

_NAME = re.compile(r"[A-Za-z0-9_.-]{1,64}")


def create_server_keys(folder: Path) -> None:
    """Create the server's key pair in `folder`; an existing pair is kept.

    Raises
    ------
    DeviceError
        "bad_request" where the folder cannot be written.
    """
    if (folder / "server.key_secret").exists():
        return
    try:
        (folder / "clients").mkdir(parents=True, exist_ok=True)
        folder.chmod(0o700)
        _create_pair(folder, "server")
    except OSError as error:
        raise DeviceError("bad_request", f"keys folder {folder}: {error}") from None


def add_client(folder: Path, name: str) -> Path:
    """Create a key pair for a client called `name`, let it in, and return the folder to carry to that client.

    Raises
    ------
    DeviceError
        "bad_request" for a bad or a taken name, or a folder without server keys.
    """
    if not _NAME.fullmatch(name) or name.startswith("."):
        raise DeviceError("bad_request", f"client name is {name!r}, expected letters, digits, '-', '_' and '.', at most 64")
    if not (folder / "server.key").exists():
        raise DeviceError("bad_request", f"keys folder {folder} holds no server.key: create the server's keys first")
    if (folder / "clients" / f"{name}.key").exists():
        raise DeviceError("bad_request", f"client name {name!r} is taken in {folder}")
    to_carry = folder / f"for-{name}"
    try:
        to_carry.mkdir(mode=0o700)
        _create_pair(to_carry, "client")
        shutil.copy(folder / "server.key", to_carry / "server.key")
        (to_carry / "client.key").rename(folder / "clients" / f"{name}.key")
    except OSError as error:
        raise DeviceError("bad_request", f"keys folder {folder}: {error}") from None
    return to_carry


def secure_server(context: zmq.Context, socket: zmq.Socket, folder: Path) -> ThreadAuthenticator:
    """Make `socket`, not yet bound, accept the clients of `folder` and nobody else.

    Returns the running authenticator, to be stopped after the socket is closed.

    Raises
    ------
    DeviceError
        "bad_request" where keys are missing.
    """
    from zmq.auth.thread import ThreadAuthenticator  # noqa: PLC0415  (slow to import, and rarely needed)

    public, secret = _load(folder / "server.key_secret")
    if secret is None:
        raise DeviceError("bad_request", f"{folder / 'server.key_secret'} holds no secret key")
    if not (folder / "clients").is_dir():
        raise DeviceError("bad_request", f"keys folder {folder} has no folder clients")
    authenticator = ThreadAuthenticator(context)
    authenticator.start()
    authenticator.configure_curve(domain="*", location=str(folder / "clients"))
    socket.curve_publickey, socket.curve_secretkey, socket.curve_server = public, secret, True
    return authenticator


def secure_client(socket: zmq.Socket, folder: Path) -> None:
    """Make `socket`, not yet connected, prove itself with the keys of `folder` and talk to that server only.

    Raises
    ------
    DeviceError
        "bad_request" where keys are missing.
    """
    server_public, _ = _load(folder / "server.key")
    public, secret = _load(folder / "client.key_secret")
    if secret is None:
        raise DeviceError("bad_request", f"{folder / 'client.key_secret'} holds no secret key")
    socket.curve_serverkey, socket.curve_publickey, socket.curve_secretkey = server_public, public, secret


def _create_pair(folder: Path, name: str) -> None:
    from zmq.auth import create_certificates  # noqa: PLC0415

    _, secret_file = create_certificates(folder, name)
    Path(secret_file).chmod(0o600)


def _load(path: Path) -> tuple[bytes, bytes | None]:
    from zmq.auth import load_certificate  # noqa: PLC0415

    try:
        return load_certificate(path)
    except (OSError, ValueError) as error:
        raise DeviceError("bad_request", f"key file {path}: {error}") from None
