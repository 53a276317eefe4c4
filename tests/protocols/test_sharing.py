"""Shared memory of client and server: the same readings as through the socket, and checks of every reference to it."""

from __future__ import annotations

import fcntl
import gc
import os
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from support.fake_device import FakeDevice, Gate, Serve, fake_description

from photonloop.protocols.client import shared_buffer_slots
from photonloop.protocols.client.device_client import ClientOptions, DeviceClient, connect
from photonloop.protocols.client.server_connection import ServerConnection
from photonloop.protocols.errors import DeviceError
from photonloop.protocols.server import server_shared_buffer
from photonloop.protocols.server.device_server import DeviceServer
from photonloop.protocols.server.dispatcher import RequestDispatcher
from photonloop.protocols.wire import messages
from photonloop.protocols.wire.keys import add_client, create_server_keys
from photonloop.protocols.wire.shared_buffer import AVAILABLE, create_shared_buffer, open_shared_buffer

pytestmark = pytest.mark.skipif(not AVAILABLE, reason="shared memory is not supported on this system")

SETTINGS, SAMPLES = 64, 128
DRIVES = np.random.default_rng(0).uniform(0.1, 1.0, (SETTINGS, 8))
INPUTS = np.random.default_rng(1).random((SAMPLES, 4)).astype(np.float32)


def expected(drives: np.ndarray) -> np.ndarray:
    power = INPUTS.astype(np.float64) ** 2
    return (np.mean(drives**2, axis=1)[:, None, None] * power[None]).astype(np.float32)


@pytest.fixture
def array_bytes(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Array bytes of every evaluation and every reply that passed through the socket."""
    sizes: list[int] = []
    handle, send = RequestDispatcher.handle, DeviceServer._send

    def note(frames: Any) -> None:
        sizes.append(sum(len(frame) for frame in frames[2:]))

    def handled(self: RequestDispatcher, route: bytes, frames: Any) -> bool:
        if b'"evaluate"' in bytes(frames[1]):
            note(frames)
        return handle(self, route, frames)

    def sent(self: DeviceServer, route: bytes, frames: Any) -> None:
        if b'"evaluate"' in bytes(frames[1]):
            note(frames)
        send(self, route, frames)

    monkeypatch.setattr(RequestDispatcher, "handle", handled)
    monkeypatch.setattr(DeviceServer, "_send", sent)
    return sizes


def writer(server: DeviceServer, **options: Any) -> DeviceClient:
    client = connect(server.address, **options)
    client.acquire()
    return client


def test_large_arrays_use_shared_memory(serve: Serve, array_bytes: list[int]) -> None:
    with writer(serve(FakeDevice())) as client:
        readings = client.evaluate(DRIVES, INPUTS, "mesh1")
        np.testing.assert_array_equal(readings.values, expected(DRIVES))
        assert array_bytes == [INPUTS.nbytes, SETTINGS * (8 + 4 * 4)]  # in the reply only times and flags
        small = client.evaluate(DRIVES[:1], INPUTS[:2], "mesh1")
        assert small.values.shape == (1, 2, 4)
        assert array_bytes[-2:] == [8 * 8 + 2 * 4 * 4, 2 * 4 * 4 + 8 + 4 * 4]


def test_readings_are_copies_of_the_shared_memory(serve: Serve) -> None:
    with writer(serve(FakeDevice())) as client:
        kept = [client.evaluate(scale * DRIVES, INPUTS, "mesh1").values for scale in (1.0, 2.0, 3.0)]
        for scale, values in zip((1.0, 2.0, 3.0), kept, strict=True):
            np.testing.assert_array_equal(values, expected(scale * DRIVES))


def test_two_pending_evaluations_have_separate_slots(serve: Serve) -> None:
    gate = Gate()
    with writer(serve(FakeDevice(before_setting=gate))) as client:
        first = client.submit(DRIVES, INPUTS, "mesh1")
        second = client.submit(2 * DRIVES, INPUTS, "mesh1")
        gate.opened.set()
        np.testing.assert_array_equal(second.result().values, expected(2 * DRIVES))
        np.testing.assert_array_equal(first.result().values, expected(DRIVES))


def test_the_buffer_grows_with_the_evaluations(serve: Serve, array_bytes: list[int]) -> None:
    with writer(serve(FakeDevice())) as client:
        client.evaluate(DRIVES[:32], INPUTS, "mesh1")
        more = np.tile(DRIVES, (4, 1))
        np.testing.assert_array_equal(client.evaluate(more, INPUTS, "mesh1").values, expected(more))
        assert max(array_bytes[-2:]) <= INPUTS.nbytes + len(more) * (8 + 4 * 4)


def test_drives_are_copied_before_they_are_checked(serve: Serve) -> None:
    """A client can write to shared memory at any time: the checked drives must be the applied ones."""
    gate = Gate()
    device = FakeDevice(before_setting=gate)
    with writer(serve(device)) as client:
        pending = client.submit(DRIVES, INPUTS, "mesh1")
        assert gate.reached.wait(10)
        slot = pending._slot
        assert slot is not None
        slot.write(np.full_like(DRIVES, 1e3))
        gate.opened.set()
        np.testing.assert_array_equal(pending.result().values, expected(DRIVES))


@pytest.mark.parametrize("bad", [np.nan, 1e3])
def test_limits_apply_to_drives_in_shared_memory(serve: Serve, bad: float) -> None:
    device = FakeDevice()
    with writer(serve(device)) as client:
        drives = DRIVES.copy()
        drives[5, 3] = bad
        with pytest.raises(DeviceError) as refused:
            client.evaluate(drives, INPUTS, "mesh1")
        assert refused.value.outcome == "not_applied"
        assert device.evaluations == 0
        np.testing.assert_array_equal(client.evaluate(DRIVES, INPUTS, "mesh1").values, expected(DRIVES))


def test_after_a_lost_reply_another_buffer_is_used(serve: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    """The server may still write to the old buffer, which must not overwrite later readings."""
    gate = Gate(at_setting=SETTINGS - 1)
    server = serve(FakeDevice(before_setting=gate))
    with writer(server, options=ClientOptions(silence_s=0.3)) as client:
        client.evaluate(DRIVES[:-1], INPUTS, "mesh1")
        monkeypatch.setattr(server._dispatcher, "_send", lambda route, frames: None)
        pending = client.submit(DRIVES, INPUTS[:64], "mesh1")
        old = pending._slot
        assert old is not None
        with pytest.raises(DeviceError, match="does not reply"):
            pending.result()
        monkeypatch.undo()
        gate.opened.set()
        np.testing.assert_array_equal(client.evaluate(2 * DRIVES, INPUTS, "mesh1").values, expected(2 * DRIVES))
        new = client._shared._buffer
        assert new is not None
        assert new.name != old.buffer.name


def test_another_buffer_is_used_after_an_interrupted_submit(serve: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    gate = Gate(at_setting=SETTINGS - 1)
    with writer(serve(FakeDevice(before_setting=gate))) as client:
        client.evaluate(DRIVES[:-1], INPUTS, "mesh1")
        old, post = client._shared._buffer, ServerConnection.post

        def interrupted(connection: ServerConnection, request: messages.Request, frames: messages.Frames) -> None:
            post(connection, request, frames)
            raise KeyboardInterrupt

        monkeypatch.setattr(ServerConnection, "post", interrupted)
        with pytest.raises(KeyboardInterrupt):
            client.submit(DRIVES, INPUTS[:64], "mesh1")
        monkeypatch.undo()
        gate.opened.set()
        np.testing.assert_array_equal(client.evaluate(2 * DRIVES, INPUTS, "mesh1").values, expected(2 * DRIVES))
        assert client._shared._buffer is not old


def test_a_buffer_is_shared_again_after_a_new_acquire(serve: Serve, array_bytes: list[int]) -> None:
    with writer(serve(FakeDevice())) as client:
        client.evaluate(DRIVES, INPUTS, "mesh1")
        client.release()
        client.acquire()
        client.apply(np.zeros(16))
        np.testing.assert_array_equal(client.evaluate(DRIVES, INPUTS, "mesh1").values, expected(DRIVES))
        assert max(array_bytes) == max(INPUTS.nbytes, SETTINGS * (8 + 4 * 4))


def test_a_server_with_keys_shares_no_memory(serve: Serve, array_bytes: list[int], tmp_path: Any) -> None:
    create_server_keys(tmp_path)
    mine = add_client(tmp_path, "me")
    with writer(serve(FakeDevice(), keys=tmp_path), keys=mine) as client:
        client.evaluate(DRIVES, INPUTS, "mesh1")
        assert client._shared._buffer is None
        assert array_bytes[0] == DRIVES.nbytes + INPUTS.nbytes


@pytest.mark.parametrize("how", ["elsewhere", "unknown"])
def test_frames_are_used_if_memory_cannot_be_shared(
    serve: Serve, array_bytes: list[int], monkeypatch: pytest.MonkeyPatch, how: str
) -> None:
    """The server may be on another machine, behind a tunnel, or may not support `share`."""

    def elsewhere(*_: object) -> None:
        raise DeviceError("bad_request", "the server cannot open it")

    monkeypatch.setattr(server_shared_buffer, "open_shared_buffer", elsewhere)
    if how == "unknown":
        monkeypatch.setattr(RequestDispatcher, "_share", lambda *_: elsewhere())
    with writer(serve(FakeDevice())) as client:
        for _ in range(2):
            np.testing.assert_array_equal(client.evaluate(DRIVES, INPUTS, "mesh1").values, expected(DRIVES))
        assert array_bytes[0] == DRIVES.nbytes + INPUTS.nbytes


def test_frames_are_used_if_the_buffer_would_be_too_large(serve: Serve) -> None:
    device = FakeDevice(fake_description(max_readings=2**24))
    with writer(serve(device, max_message_bytes=20_000)) as client:
        values = client.evaluate(DRIVES, INPUTS, "mesh1").values
        np.testing.assert_array_equal(values, expected(DRIVES))


def test_memory_that_differs_from_its_description_is_refused() -> None:
    buffer, handle = create_shared_buffer(4096)
    try:
        assert open_shared_buffer(os.getpid(), handle, buffer.name, 4096).nbytes == 4096
        for pid, fd, name, nbytes in (
            (os.getpid(), handle, "photonloop-" + "0" * 32, 4096),
            (os.getpid(), handle, buffer.name, 8192),
            (os.getpid(), 9999, buffer.name, 4096),
            (2**31 - 1, handle, buffer.name, 4096),
        ):
            with pytest.raises(DeviceError) as refused:
                open_shared_buffer(pid, fd, name, nbytes)
            assert refused.value.code == "bad_request"
    finally:
        os.close(handle)


def test_memory_that_is_not_sealed_is_refused() -> None:
    name = "photonloop-" + "a" * 32
    handle = os.memfd_create(name, os.MFD_ALLOW_SEALING)
    try:
        os.ftruncate(handle, 4096)
        with pytest.raises(DeviceError, match="not sealed"):
            open_shared_buffer(os.getpid(), handle, name, 4096)
        fcntl.fcntl(handle, fcntl.F_ADD_SEALS, fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW)
        open_shared_buffer(os.getpid(), handle, name, 4096)
        with pytest.raises(OSError):
            os.ftruncate(handle, 0)
    finally:
        os.close(handle)


def test_both_sides_free_the_memory(serve: Serve) -> None:
    def maps() -> int:
        with open("/proc/self/maps", encoding="utf-8") as lines:  # noqa: PTH123
            return sum("memfd:photonloop" in line for line in lines)

    server = serve(FakeDevice())

    def use() -> None:
        with writer(server) as client:
            client.evaluate(DRIVES, INPUTS, "mesh1")
            assert maps() >= 2

    for _ in range(3):
        use()
    gc.collect()
    assert maps() == 0


Damage = Callable[[messages.Request], dict[str, Any]]
OUTSIDE: dict[str, Damage] = {
    "beyond the end": lambda r: {
        "arrays": tuple(s.model_copy(update={"at": 2**40}) if s.at is not None else s for s in r.arrays)
    },
    "larger than it": lambda r: {
        "arrays": tuple(s.model_copy(update={"shape": (2**20, 8)}) if s.at is not None else s for s in r.arrays)
    },
    "of another number": lambda r: {"body": {**r.body, "buffer": 99}},
    "of another client": lambda r: {"client_id": "other"},
    "again and again": lambda r: {"arrays": (*(r.arrays[0].model_copy(update={"name": f"a{n}"}) for n in range(7)), r.arrays[1])},
}


@pytest.mark.parametrize("damage", OUTSIDE.values(), ids=OUTSIDE.keys())
def test_a_request_that_refers_outside_the_buffer_is_refused(
    serve: Serve, monkeypatch: pytest.MonkeyPatch, damage: Damage
) -> None:
    device = FakeDevice()
    with writer(serve(device)) as client:
        client.evaluate(DRIVES[:32], INPUTS, "mesh1")
        evaluations = device.evaluations
        encode = messages.encode

        def damaged(header: messages.Request | messages.Reply, arrays: Any = ()) -> list[messages.Buffer]:
            if isinstance(header, messages.Request) and header.op == "evaluate":
                header = header.model_copy(update=damage(header))
            return encode(header, arrays)

        monkeypatch.setattr(messages, "encode", damaged)
        with pytest.raises(DeviceError) as refused:
            client.evaluate(DRIVES[:32], INPUTS, "mesh1")
        monkeypatch.undo()
        assert refused.value.code in {"bad_request", "lease"}
        assert device.evaluations == evaluations
        client.evaluate(DRIVES[:32], INPUTS, "mesh1")


def test_readings_that_do_not_fit_are_sent_in_a_frame(
    serve: Serve, monkeypatch: pytest.MonkeyPatch, array_bytes: list[int]
) -> None:
    with writer(serve(FakeDevice())) as client:
        body = shared_buffer_slots.Slot.body
        monkeypatch.setattr(shared_buffer_slots.Slot, "body", lambda slot: {**body(slot), "answer_bytes": 8})
        np.testing.assert_array_equal(client.evaluate(DRIVES, INPUTS, "mesh1").values, expected(DRIVES))
        assert array_bytes[1] == SETTINGS * (SAMPLES * 4 * 4 + 8 + 4 * 4)
        monkeypatch.setattr(shared_buffer_slots.Slot, "body", lambda slot: {**body(slot), "answer_at": 2**40})
        np.testing.assert_array_equal(client.evaluate(DRIVES, INPUTS, "mesh1").values, expected(DRIVES))
