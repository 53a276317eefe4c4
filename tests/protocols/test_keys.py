"""CURVE keys: creating them, addresses that need them, and which clients they admit."""

from __future__ import annotations

import os
import re
import stat
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import zmq
from support.fake_device import FakeDevice, Serve, wait_until

from photonloop.protocols.client.device_client import ClientOptions, connect
from photonloop.protocols.errors import DeviceError
from photonloop.protocols.server.device_server import DeviceServer, ServerOptions
from photonloop.protocols.wire import keys

pytestmark = pytest.mark.slow


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    keys.create_server_keys(tmp_path / "keys")
    return tmp_path / "keys"


@pytest.mark.parametrize(
    "bind",
    [
        "tcp://*:5555",
        "tcp://0.0.0.0:5555",
        "tcp://eth0:*",
        "tcp://lo:*",
        "tcp://192.0.2.7:5555",
        "tcp://[::]:1",
        "tcp://chip.lab:80",
    ],
)
def test_addresses_that_other_machines_can_reach_need_keys(bind: str) -> None:
    with pytest.raises(DeviceError) as caught:
        DeviceServer(FakeDevice(), bind)
    assert caught.value.code == "bad_request"
    assert (
        caught.value.detail == f"address {bind} can be reached from other machines: give a folder of keys, or bind to 127.0.0.1"
    )


@pytest.mark.parametrize("bind", ["tcp://127.0.0.1:*", "tcp://127.8.8.8:0", "tcp://localhost:*", "tcp://[::1]:*", "ipc:///tmp/x"])
def test_local_addresses_need_no_keys(bind: str) -> None:
    assert DeviceServer(FakeDevice(), bind).address == ""


@pytest.mark.parametrize(
    "bind", ["tcp://127.0.0.1", "127.0.0.1:5555", "udp://127.0.0.1:5", "tcp://127.0.0.1:70000", "inproc://x"]
)
def test_invalid_addresses_to_bind_are_refused(bind: str) -> None:
    with pytest.raises(DeviceError, match="expected tcp://HOST:PORT or ipc://PATH"):
        DeviceServer(FakeDevice(), bind)


def test_secret_files_are_readable_by_their_owner_only(folder: Path) -> None:
    carried = keys.add_client(folder, "alice")
    assert sorted(path.name for path in carried.iterdir()) == ["client.key_secret", "server.key"]
    assert (folder / "clients" / "alice.key").exists()
    for secret in (folder / "server.key_secret", carried / "client.key_secret"):
        assert stat.S_IMODE(secret.stat().st_mode) == 0o600
    assert "secret-key" not in (folder / "clients" / "alice.key").read_text()


def test_existing_keys_are_not_overwritten(folder: Path) -> None:
    before = (folder / "server.key_secret").read_bytes()
    keys.create_server_keys(folder)
    assert (folder / "server.key_secret").read_bytes() == before
    keys.add_client(folder, "alice")
    with pytest.raises(DeviceError, match="client 'alice' exists already"):
        keys.add_client(folder, "alice")
    for name in ("", "../x", "a/b", ".hidden", "x" * 65):
        with pytest.raises(DeviceError, match="client name is"):
            keys.add_client(folder, name)


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def test_an_existing_folder_keeps_its_mode(tmp_path: Path) -> None:
    shared = tmp_path / "shared"
    shared.mkdir()
    shared.chmod(0o775)
    keys.create_server_keys(shared)
    assert (mode(shared), mode(shared / "server.key_secret")) == (0o775, 0o600)
    keys.create_server_keys(tmp_path / "new" / "keys")
    assert mode(tmp_path / "new" / "keys") == 0o700
    assert sorted(path.name for path in shared.iterdir()) == ["clients", "server.key", "server.key_secret"]


def test_a_folder_with_other_files_is_refused_and_unchanged(folder: Path, tmp_path: Path) -> None:
    home = tmp_path / "home"
    home.mkdir()
    home.chmod(0o755)
    (home / "notes").write_text("some text")
    carried = keys.add_client(folder, "alice")
    before = (carried / "server.key").read_bytes()
    for other in (home, carried):
        with pytest.raises(DeviceError, match=f"keys folder {other} is not empty and has no server.key_secret"):
            keys.create_server_keys(other)
    assert mode(home) == 0o755
    assert [path.name for path in home.iterdir()] == ["notes"]
    assert (carried / "server.key").read_bytes() == before
    (folder / "clients" / "alice.key").unlink()
    with pytest.raises(DeviceError, match="for-alice exists already: delete it first"):
        keys.add_client(folder, "alice")
    with pytest.raises(DeviceError, match=f"keys folder {home / 'notes'}: Not a directory"):
        keys.create_server_keys(home / "notes")


def test_only_matching_keys_connect(serve: Serve, folder: Path, tmp_path: Path) -> None:
    alice = keys.add_client(folder, "alice")
    server = serve(FakeDevice(), keys=folder)
    with connect(server.address, keys=alice) as client:
        assert client.status().safe
        client.acquire()

    keys.create_server_keys(tmp_path / "elsewhere")
    stranger = keys.add_client(tmp_path / "elsewhere", "mallory")
    (stranger / "server.key").write_bytes((folder / "server.key").read_bytes())
    deceived = keys.add_client(folder, "bob")  # is authorized, but expects another server
    (deceived / "server.key").write_bytes((tmp_path / "elsewhere" / "server.key").read_bytes())
    for wrong in (None, stranger, deceived):
        with pytest.raises(DeviceError) as caught:
            connect(server.address, keys=wrong, timeout_s=0.5)
        assert caught.value.code == "transport"
        assert caught.value.detail.startswith(f"no device server answers at {server.address} within 0.5 s")
        assert (wrong is None) or str(wrong) in caught.value.detail


def test_a_client_with_keys_does_not_connect_to_a_server_without_keys(serve: Serve, folder: Path) -> None:
    alice = keys.add_client(folder, "alice")
    with pytest.raises(DeviceError, match="or it does not accept the keys"):
        connect(serve(FakeDevice()).address, keys=alice, timeout_s=0.5)


def test_a_server_with_keys_may_bind_to_a_public_address(folder: Path) -> None:
    DeviceServer(FakeDevice(), "tcp://0.0.0.0:*", options=ServerOptions(keys=folder))  # not bound: tests stay on loopback


def test_missing_and_invalid_keys_are_reported_with_their_file(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(DeviceError, match=r"server\.key_secret"):
        DeviceServer(FakeDevice(), "tcp://127.0.0.1:*", options=ServerOptions(keys=tmp_path / "none")).bind()
    with pytest.raises(DeviceError, match=r"server\.key"):
        connect("tcp://127.0.0.1:9", keys=tmp_path / "none")
    alice = keys.add_client(folder, "alice")
    (alice / "client.key_secret").write_text("nothing here")
    with pytest.raises(DeviceError, match=r"client\.key_secret"):
        connect("tcp://127.0.0.1:9", keys=alice)
    (folder / "server.key_secret").write_bytes((folder / "server.key").read_bytes())
    with pytest.raises(DeviceError, match="has no secret key"):
        DeviceServer(FakeDevice(), "tcp://127.0.0.1:*", options=ServerOptions(keys=folder)).bind()


def cut(path: Path, kind: str, characters: int) -> None:
    """Shorten a key in its file, as an incomplete copy would."""
    path.write_text(re.sub(rf'({kind}-key = "[^"]*)[^"]{{{characters}}}"', r'\1"', path.read_text()))


def swap(path: Path) -> None:
    """Replace the secret key, so that the two are not a pair."""
    path.write_text(re.sub(r'secret-key = "[^"]*"', f'secret-key = "{zmq.curve_keypair()[1].decode()}"', path.read_text()))


DAMAGE: dict[str, Callable[[Path], object]] = {
    "public cut": lambda path: cut(path, "public", 3),
    "secret cut": lambda path: cut(path, "secret", 5),
    "secret gone": lambda path: cut(path, "secret", 40),
    "not Z85": lambda path: path.write_text(re.sub(r'secret-key = "..', 'secret-key = "~~', path.read_text())),
    "beyond 32 bits": lambda path: path.write_text(re.sub(r'secret-key = ".....', 'secret-key = "#####', path.read_text())),
    "no pair": swap,
    "not text": lambda path: path.write_bytes(bytes(range(256))),
}

BIND = """
import sys
from pathlib import Path
from support.fake_device import FakeDevice
from photonloop.protocols.errors import DeviceError
from photonloop.protocols.server.device_server import DeviceServer, ServerOptions
try:
    DeviceServer(FakeDevice(), "tcp://127.0.0.1:*", options=ServerOptions(keys=Path(sys.argv[1]))).bind()
except DeviceError as error:
    sys.exit(error.detail)
"""


@pytest.mark.parametrize("how", DAMAGE)
def test_a_server_with_a_damaged_key_reports_it_and_ends(folder: Path, how: str) -> None:
    DAMAGE[how](folder / "server.key_secret")
    command = [sys.executable, "-c", BIND, str(folder)]
    # In a process, because a server that hangs here could not be stopped from the test.
    ended = subprocess.run(command, cwd=Path(__file__).parents[1], capture_output=True, text=True, timeout=30, check=False)
    assert ended.returncode == 1
    (line,) = ended.stderr.splitlines()
    assert line.startswith(f"key file {folder / 'server.key_secret'}")


@pytest.mark.parametrize("how", DAMAGE)
def test_a_client_with_a_damaged_key_reports_the_key_file(folder: Path, how: str) -> None:
    alice = keys.add_client(folder, "alice")
    DAMAGE[how](alice / "client.key_secret")
    with pytest.raises(DeviceError) as caught:
        connect("tcp://127.0.0.1:9", keys=alice)
    assert caught.value.code == "bad_request"
    assert caught.value.detail.startswith(f"key file {alice / 'client.key_secret'}")


def test_a_client_reports_a_damaged_key_of_the_server(folder: Path) -> None:
    alice = keys.add_client(folder, "alice")
    cut(alice / "server.key", "public", 1)
    with pytest.raises(DeviceError, match=r"server\.key: its public key is damaged, expected 40 characters of Z85$"):
        connect("tcp://127.0.0.1:9", keys=alice)


def refused(server: DeviceServer, carried: Path) -> bool:
    """Return whether the server does not answer a client with these keys."""
    try:
        connect(server.address, keys=carried, timeout_s=0.5).close()
    except DeviceError as error:
        assert error.code == "transport"
        return True
    return False


def test_a_client_added_while_the_server_runs_can_connect(serve: Serve, folder: Path) -> None:
    server = serve(FakeDevice(), keys=folder)
    carried = keys.add_client(folder, "late")
    with connect(server.address, keys=carried) as client:
        client.acquire()
        assert client.status().leased_to


def test_a_client_whose_key_was_removed_cannot_connect(serve: Serve, folder: Path) -> None:
    alice, bob = keys.add_client(folder, "alice"), keys.add_client(folder, "bob")
    server = serve(FakeDevice(), keys=folder)
    connect(server.address, keys=bob).close()
    taken = folder / "clients" / "bob.key"
    content = taken.read_bytes()
    taken.unlink()
    assert refused(server, bob)
    assert not refused(server, alice)
    taken.write_bytes(content)
    assert not refused(server, bob)


def test_removing_a_key_revokes_a_connected_client(serve: Serve, folder: Path) -> None:
    alice, bob = keys.add_client(folder, "alice"), keys.add_client(folder, "bob")
    device = FakeDevice()
    server = serve(device, keys=folder)
    options = ClientOptions(silence_s=1.0)
    with connect(server.address, keys=bob, options=options) as client, connect(server.address, keys=alice) as other:
        client.acquire(ttl_s=1.0)
        client.apply(np.ones(16))
        (folder / "clients" / "bob.key").unlink()
        wait_until(lambda: "safe" in device.calls)  # its renewals are dropped
        with pytest.raises(DeviceError) as caught:
            client.safe()
        assert caught.value.code == "transport"
        assert [fault.name for fault in other.status().faults] == ["lease_lost"]
        other.acquire()


def test_a_server_does_not_start_with_an_invalid_client_key(folder: Path) -> None:
    keys.add_client(folder, "alice")
    junk = folder / "clients" / "bob.key"
    for spoil in (
        lambda: junk.write_text("not a key"),
        lambda: junk.write_text('public-key = "abc"'),
        lambda: junk.write_text("public-key"),
        lambda: (junk.unlink(), junk.mkdir()),
        lambda: (junk.rmdir(), os.mkfifo(junk)),
    ):
        spoil()
        server = DeviceServer(FakeDevice(), "tcp://127.0.0.1:*", options=ServerOptions(keys=folder))
        with pytest.raises(DeviceError) as caught:
            server.bind()
        assert caught.value.code == "bad_request"
        assert str(junk) in caught.value.detail
    junk.unlink()
    (folder / "clients" / "notes.txt").write_text("not a key")
    (folder / "clients" / ".alice.key").write_text("a temporary file of an editor")
    server.bind()


def test_a_client_key_that_becomes_invalid_affects_only_its_client(
    serve: Serve, folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    alice, bob = keys.add_client(folder, "alice"), keys.add_client(folder, "bob")
    server = serve(FakeDevice(), keys=folder)
    spoiled = folder / "clients" / "bob.key"
    with connect(server.address, keys=alice) as client:
        spoiled.write_text("invalid")
        assert refused(server, bob)
        assert not refused(server, alice)
        assert client.status().safe
    logged = [record.message for record in caplog.records if str(spoiled) in record.message]
    assert logged == [
        f"key file {spoiled} has no public key: this client is not authorized"
    ]  # once, although the folder is read repeatedly


def test_no_client_can_connect_without_the_folder_of_client_keys(
    serve: Serve, folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    alice = keys.add_client(folder, "alice")
    server = serve(FakeDevice(), keys=folder)
    (folder / "clients").rename(folder / "aside")
    assert refused(server, alice)
    assert "no client is authorized" in caplog.text
    (folder / "aside").rename(folder / "clients")
    assert not refused(server, alice)
