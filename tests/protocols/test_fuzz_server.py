"""Random and invalid messages: the server answers or drops them, keeps running, and allocates only what it receives."""

from __future__ import annotations

import json
import os
import threading
import time
import tracemalloc
from collections.abc import Iterator
from typing import Any

import numpy as np
import psutil
import pytest
import zmq
from hypothesis import HealthCheck, assume, example, given, settings
from hypothesis import strategies as st
from support.fake_device import FakeDevice

from photonloop.protocols.client.device_client import connect
from photonloop.protocols.errors import DeviceError
from photonloop.protocols.server.device_server import DeviceServer, ServerOptions
from photonloop.protocols.wire import messages

FUZZ = settings(
    max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
)

json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=12,
)
shapes = st.lists(st.integers(-2, 5) | st.sampled_from([2**31, 2**40, 2**62, 10**30]), max_size=6)
specs = st.fixed_dictionaries(
    {
        "name": st.sampled_from(["drives", "inputs", "rows", "drive", "chunk", "values"]),
        "dtype": st.sampled_from(["f4", "f8", "c8", "c16", "u1", "u4", "i4", "i8", "O", "f2", ">f8"]),
        "shape": shapes,
    },
    optional={"at": st.integers(-1, 5000) | st.sampled_from([2**40, 2**53])},
)
bodies = (
    st.fixed_dictionaries(
        {},
        optional={
            "stage": st.sampled_from(["mesh1", "mesh2", "", "mesh9"]),
            "loaded": st.sampled_from(["a", "b"]) | st.none(),
            "name": st.sampled_from(["a", "lease_lost", ""]),
            "dtype": st.sampled_from(["f4", "u1", "O"]),
            "shape": shapes,
            "offset": st.integers(-5, 40) | st.just(2**70),
            "lease_key": st.text(max_size=5),
            "label": st.text(max_size=5),
            "ttl_s": st.floats() | st.just(30.0),
            "buffer": st.integers(-1, 3),
            "answer_at": st.integers(-5, 5000) | st.just(2**52),
            "answer_bytes": st.integers(-5, 5000) | st.just(2**52),
            "pid": st.integers(-1, 40) | st.just(os.getpid()),
            "fd": st.integers(-1, 40),
            "nbytes": st.integers(-1, 2**20),
            "on": st.booleans() | st.integers(0, 1),
            "seconds": st.floats() | st.integers(-1, 10**6) | st.text(max_size=3),
        },
    )
    | json_values
)
payloads = st.lists(
    st.binary(max_size=200)
    | st.sampled_from([np.ones((2, 8)).tobytes(), np.ones((2, 4), np.float32).tobytes(), np.arange(4).tobytes()]),
    max_size=4,
)


class FuzzedServer:
    """A server, a client that holds its lease, and a plain socket for arbitrary messages."""

    def __init__(self) -> None:
        self.device = FakeDevice()
        self.server = DeviceServer(self.device, "tcp://127.0.0.1:*", options=ServerOptions(max_message_bytes=2**20))
        self.server.bind()
        self.thread = threading.Thread(target=self.server.run, daemon=True)
        self.thread.start()
        self.client = connect(self.server.address, lease_key="client")
        self.client.acquire(30.0)
        self.client.evaluate(np.ones((64, 8)), np.ones((64, 4), np.float32), "mesh1")  # shares a buffer
        self.context = zmq.Context()
        self.socket = self.context.socket(zmq.DEALER)
        self.socket.linger = 0
        self.socket.sndtimeo = 5000
        self.socket.connect(self.server.address)

    def clear_faults(self) -> None:
        """Clear the fault of an arbitrary message that happened to be a valid `safe`."""
        for fault in self.client.status().faults:
            self.client.clear_fault(fault.name)

    def send(self, frames: list[bytes]) -> None:
        self.socket.send_multipart(frames)
        while self.socket.poll(0):
            self.socket.recv_multipart()

    def reply_to(self, frames: list[bytes]) -> messages.Reply:
        """Send a message and return the reply that must follow."""
        while self.socket.poll(0):
            self.socket.recv_multipart()
        self.socket.send_multipart(frames)
        assert self.socket.poll(5000), "no reply"
        return messages.decode_reply(self.socket.recv_multipart()[1])

    def is_running(self) -> bool:
        return self.thread.is_alive() and self.client.status().clock_s >= 0

    def close(self) -> None:
        self.client.close()
        self.context.destroy(0)
        self.server.stop()
        self.thread.join(10)
        assert not self.thread.is_alive()


@pytest.fixture(scope="module")
def fuzzed() -> Iterator[FuzzedServer]:
    one = FuzzedServer()
    yield one
    one.close()


def header(fuzzed: FuzzedServer, **fields: Any) -> bytes:
    base = {"op": "evaluate", "id": 1, "client_id": "fuzz", "seq": 1, "epoch": fuzzed.server.epoch}
    return json.dumps({**base, **fields}).encode("utf-8", "surrogatepass")


@FUZZ
@given(frames=st.lists(st.binary(max_size=300), min_size=1, max_size=6))
@example(frames=[b""] * 200)
def test_random_frames(fuzzed: FuzzedServer, frames: list[bytes]) -> None:
    fuzzed.send(frames)
    assert fuzzed.is_running()


@FUZZ
@given(head=st.binary(max_size=300) | json_values.map(lambda v: json.dumps(v).encode("utf-8", "surrogatepass")), rest=payloads)
@example(head=b"\xff\xfe\x00", rest=[])
@example(head=b"[" * 60000, rest=[])
@example(head=b'{"a":' * 10000 + b"1" + b"}" * 10000, rest=[])
@example(head=b'{"op":"status","id":' + b"9" * 6000 + b"}", rest=[])
@example(head=b"x" * 200_000, rest=[])
def test_random_headers_after_a_valid_prefix(fuzzed: FuzzedServer, head: bytes, rest: list[bytes]) -> None:
    reply = fuzzed.reply_to([messages.PREFIX, head, *rest])
    assert reply.state == "error"
    assert fuzzed.is_running()


@FUZZ
@given(
    fields=st.fixed_dictionaries(
        {},
        optional={
            "op": st.sampled_from(list(messages.OPS)) | st.text(max_size=10),
            "id": st.integers() | json_values,
            "client_id": st.sampled_from(["fuzz", "other", ""]) | json_values,
            "seq": st.integers(0, 5) | json_values,
            "epoch": st.text(max_size=20),
            "deadline": st.floats() | st.none(),
            "arrays": st.lists(specs, max_size=10) | json_values,
            "body": bodies,
            "extra": json_values,
        },
    ),
    rest=payloads,
)
def test_headers_with_invalid_fields(fuzzed: FuzzedServer, fields: dict[str, Any], rest: list[bytes]) -> None:
    reply = fuzzed.reply_to([messages.PREFIX, header(fuzzed, **fields), *rest])
    assert reply.state in {"error", "done", "working"}
    assert fuzzed.is_running()
    assert fuzzed.client.status().leased_to == "photonloop"


@FUZZ
@given(
    op=st.sampled_from(["evaluate", "apply", "load_inputs", "clear_fault", "share", "set_light", "wait", "readback"]),
    arrays=st.lists(specs, max_size=4),
    body=bodies,
    rest=payloads,
    seq=st.integers(1, 2**53 - 1),
)
def test_invalid_requests_of_the_lease_holder(
    fuzzed: FuzzedServer, op: str, arrays: list[dict[str, Any]], body: Any, rest: list[bytes], seq: int
) -> None:
    client_id = fuzzed.client._encoder.client_id
    frames = [messages.PREFIX, header(fuzzed, op=op, arrays=arrays, body=body, client_id=client_id, seq=seq), *rest]
    before = len(fuzzed.device.calls)
    reply = fuzzed.reply_to(frames)
    assert fuzzed.is_running()
    if reply.state == "error":
        assert reply.error is not None
        assert reply.error.outcome in {"not_applied", "unknown"}
        assert reply.error.code != "device", reply.error.detail
    else:
        assert len(fuzzed.device.calls) <= before + 1


@FUZZ
@given(cut=st.integers(0, 300), where=st.sampled_from(["drives", "inputs"]), grow=st.booleans())
def test_truncated_and_padded_arrays_are_refused(fuzzed: FuzzedServer, cut: int, where: str, grow: bool) -> None:
    arrays = {"drives": np.ones((2, 8)), "inputs": np.ones((3, 4), np.float32)}
    described, ready = messages.array_specs(arrays)
    request = messages.Request(
        op="evaluate",
        id=5,
        client_id=fuzzed.client._encoder.client_id,
        seq=2**40 + cut + (400 if grow else 0) + (1000 if where == "drives" else 0),
        epoch=fuzzed.server.epoch,
        arrays=described,
        body={"stage": "mesh1"},
    )
    frames = [bytes(frame) for frame in messages.encode(request, ready)]
    index = 2 if where == "drives" else 3
    damaged = frames[index] + b"\0" * cut if grow else frames[index][:cut]
    assume(len(damaged) != len(frames[index]))
    frames[index] = damaged
    before = fuzzed.device.evaluations
    reply = fuzzed.reply_to(frames)
    assert reply.error is not None
    assert (reply.error.code, reply.error.outcome) == ("bad_request", "not_applied")
    assert fuzzed.device.evaluations == before


@pytest.mark.parametrize("op", ["evaluate", "apply", "load_inputs"])
def test_an_array_that_is_only_announced_allocates_no_memory(op: str) -> None:
    fuzzed = FuzzedServer()
    claim = [2**20, 2**17]  # of f8: 2**40 bytes
    try:
        shown = {
            "arrays": [{"name": name, "dtype": "f8", "shape": claim} for name in ("drives", "inputs")],
            "body": {"stage": "mesh1"},
        }
        frames = [b"\0" * 64, b"\0" * 64]
        if op == "apply":
            shown = {"arrays": [{"name": "drive", "dtype": "f8", "shape": claim}], "body": {}}
            frames = frames[:1]
        if op == "load_inputs":
            body = {"name": "a", "dtype": "f8", "shape": claim, "offset": 0}
            shown = {"arrays": [{"name": "chunk", "dtype": "u1", "shape": [64]}], "body": body}
            frames = frames[:1]
        tracemalloc.start()
        resident = psutil.Process().memory_info().rss
        for seq in range(1, 20):
            fields = {**shown, "op": op, "client_id": fuzzed.client._encoder.client_id, "seq": 2**30 + seq}
            reply = fuzzed.reply_to([messages.PREFIX, header(fuzzed, **fields), *frames])
            assert reply.error is not None
            assert reply.error.code == ("limit" if op == "load_inputs" else "bad_request")
        _, peak = tracemalloc.get_traced_memory()
        assert peak < 8 * 2**20
        assert psutil.Process().memory_info().rss - resident < 64 * 2**20
        assert fuzzed.is_running()
    finally:
        tracemalloc.stop()
        fuzzed.close()


def test_a_message_that_is_too_long_closes_the_connection_only(fuzzed: FuzzedServer) -> None:
    context = zmq.Context()
    socket = context.socket(zmq.DEALER)
    socket.linger = 0
    socket.connect(fuzzed.server.address)
    socket.send_multipart([messages.PREFIX, header(fuzzed), b"\0" * (2 * 2**20)])
    assert fuzzed.is_running()
    assert not socket.poll(200)
    context.destroy(0)
    assert fuzzed.is_running()


def test_a_client_that_does_not_read_its_replies_does_not_block_others(fuzzed: FuzzedServer) -> None:
    context = zmq.Context()
    socket = context.socket(zmq.DEALER)
    socket.linger = 0
    socket.sndhwm = 10
    socket.rcvhwm = 1
    socket.rcvbuf = 4096
    socket.connect(fuzzed.server.address)
    request = messages.encode(messages.Request(op="describe", id=1, client_id="flood", epoch=fuzzed.server.epoch))
    until_s = time.monotonic() + 1.0
    sent = 0
    while time.monotonic() < until_s:
        try:
            socket.send_multipart(request, zmq.NOBLOCK)
            sent += 1
        except zmq.Again:
            time.sleep(0.001)
    assert sent > 100
    assert fuzzed.is_running()
    fuzzed.clear_faults()
    fuzzed.client.evaluate(np.ones((1, 8)), np.ones((1, 4), np.float32), "mesh1")
    context.destroy(0)


def test_the_valid_client_can_still_evaluate(fuzzed: FuzzedServer) -> None:
    fuzzed.clear_faults()
    values = fuzzed.client.evaluate(np.ones((2, 8)), np.ones((3, 4), np.float32), "mesh1").values
    np.testing.assert_allclose(values, np.ones((2, 3, 4)))
    with pytest.raises(DeviceError):
        fuzzed.client.apply(np.full(16, np.nan))
