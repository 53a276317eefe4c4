"""The server over real sockets: replies, order, leases, stopping and errors."""

from __future__ import annotations

import itertools
import logging
import socket
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np
import pytest
import zmq
from support.fake_device import FakeDevice, Gate, Serve, wait_until

from photonloop.protocols.client.device_client import connect
from photonloop.protocols.device import DeviceDescription, DeviceStatus, Readings
from photonloop.protocols.errors import DeviceError
from photonloop.protocols.server.device_server import DeviceServer, ServerOptions
from photonloop.protocols.wire import messages


class Raw:
    """A client that sends any header, also invalid ones."""

    def __init__(self, address: str, client_id: str = "raw") -> None:
        self._context = zmq.Context()
        self.socket = self._context.socket(zmq.DEALER)
        self.socket.linger = 0
        self.socket.rcvtimeo = 10_000
        self.socket.connect(address)
        self.client_id = client_id
        self.epoch = ""
        self._ids = itertools.count(1)
        self._seqs = itertools.count(1)
        self.epoch = self.ask("hello").epoch

    def send(
        self, op: str, body: Mapping[str, Any] | None = None, arrays: Mapping[str, np.ndarray] | None = None, **more: Any
    ) -> int:
        specs, ready = messages.array_specs(arrays or {})
        fields = {"id": next(self._ids), "client_id": self.client_id, "epoch": self.epoch, **more}
        request = messages.Request(op=op, body=body or {}, arrays=specs, **fields)  # pyright: ignore[reportArgumentType]
        self.socket.send_multipart(messages.encode(request, ready))
        return request.id

    def receive(self) -> messages.Reply:
        self.last = self.socket.recv_multipart()
        return messages.decode_reply(self.last[1])

    def ask(self, op: str, body: Mapping[str, Any] | None = None, arrays: Any = None, **more: Any) -> messages.Reply:
        sent = self.send(op, body, arrays, **more)
        while True:
            reply = self.receive()
            if reply.id == sent and reply.state != "working":
                return reply

    def command(self, op: str, body: Mapping[str, Any] | None = None, arrays: Any = None, **more: Any) -> messages.Reply:
        return self.ask(op, body, arrays, **{"seq": next(self._seqs), **more})

    def acquire(self, key: str = "raw key", label: str = "raw", ttl_s: float = 30.0) -> messages.Reply:
        return self.command("acquire", {"lease_key": key, "label": label, "ttl_s": ttl_s})

    def close(self) -> None:
        self._context.destroy(0)


RawFactory = Callable[..., Raw]

DRIVES = np.ones((3, 8))
INPUTS = np.full((2, 4), 0.5, np.float32)


@pytest.fixture
def raw() -> Iterator[RawFactory]:
    made: list[Raw] = []

    def make(server: DeviceServer, client_id: str = "raw") -> Raw:
        made.append(Raw(server.address, client_id))
        return made[-1]

    yield make
    for one in made:
        one.close()


def code(reply: messages.Reply) -> str:
    assert reply.state == "error"
    assert reply.error is not None
    return reply.error.code


def evaluate(client: Raw, **more: Any) -> messages.Reply:
    return client.command("evaluate", {"stage": "mesh1"}, {"drives": DRIVES, "inputs": INPUTS}, **more)


def number(reply: messages.Reply, name: str) -> float:
    value = reply.body[name]
    assert isinstance(value, float)
    return value


def status_of(client: Raw) -> DeviceStatus:
    return DeviceStatus.model_validate(client.ask("status").body["status"])


def test_hello_and_describe(serve: Serve, raw: RawFactory) -> None:
    device = FakeDevice()
    client = raw(serve(device, max_message_bytes=12345))
    before_s = time.monotonic()
    hello = client.ask("hello", {"label": "me"})
    assert hello.body["protocol"] == 3
    assert hello.body["max_message_bytes"] == 12345
    assert before_s <= number(hello, "now_s") <= time.monotonic()
    described = client.ask("describe")
    assert described.arrays[0].dtype == "u1"
    assert DeviceDescription.model_validate_json(client.last[2]) == device.description


def test_a_retry_gets_the_same_reply_and_is_carried_out_once(serve: Serve, raw: RawFactory) -> None:
    device = FakeDevice()
    server = serve(device)
    client = raw(server)
    client.acquire()
    evaluate(client, id=77, seq=50)
    first = client.last
    evaluate(client, id=77, seq=50)
    assert client.last == first
    assert device.calls == ["evaluate"]
    # The same client may use another socket.
    other = raw(server)
    evaluate(other, id=77, seq=50)
    assert other.last == first
    assert device.calls == ["evaluate"]


def test_a_retry_of_a_running_command_attaches_to_it(serve: Serve, raw: RawFactory) -> None:
    gate = Gate()
    device = FakeDevice(before_setting=gate)
    server = serve(device)
    client, other = raw(server), raw(server)
    client.acquire()
    client.send("evaluate", {"stage": "mesh1"}, {"drives": DRIVES, "inputs": INPUTS}, id=9, seq=50)
    assert gate.reached.wait(10)
    other.send("evaluate", {"stage": "mesh1"}, {"drives": DRIVES, "inputs": INPUTS}, id=9, seq=50)
    status_of(other)  # the server handled the retry before this request
    gate.opened.set()
    reply = other.receive()
    assert (reply.id, reply.state) == (9, "done")
    assert device.calls == ["evaluate"]


def test_a_retry_is_refused_if_its_reply_is_no_longer_kept(serve: Serve, raw: RawFactory) -> None:
    device = FakeDevice()
    client = raw(serve(device, cache_bytes=1))
    client.acquire()
    evaluate(client, id=77, seq=50)
    evaluate(client, seq=51)
    assert evaluate(client, id=77, seq=50).state == "done"  # the last two are always kept
    evaluate(client, seq=52)
    again = evaluate(client, seq=50)
    assert code(again) == "transport"
    assert again.error is not None
    assert again.error.outcome == "unknown"
    assert device.calls == ["evaluate"] * 3


def test_writing_needs_the_lease_and_reading_does_not(serve: Serve, raw: RawFactory) -> None:
    device = FakeDevice()
    server = serve(device)
    writer, reader = raw(server, "writer"), raw(server, "reader")
    assert code(evaluate(writer)) == "lease"
    writer.acquire("key 1", "night run")
    assert evaluate(writer).state == "done"
    refused = reader.acquire("key 2", "day run")
    assert code(refused) == "lease"
    assert refused.error is not None
    assert "'night run'" in refused.error.detail
    for op, body, arrays in (
        ("apply", {}, {"drive": np.zeros(16)}),
        ("evaluate", {"stage": "mesh1"}, {"drives": DRIVES, "inputs": INPUTS}),
        ("load_inputs", {"name": "a", "dtype": "f4", "shape": [1, 1], "offset": 0}, {"chunk": np.zeros(4, np.uint8)}),
        ("cancel", {}, {}),
        ("clear_fault", {"name": "x"}, {}),
        ("release", {}, {}),
    ):
        assert code(reader.command(op, body, arrays)) == "lease"
    assert code(reader.ask("renew")) == "lease"
    assert status_of(reader).leased_to == "night run"
    assert device.calls == ["evaluate"]


def test_a_lost_lease_makes_safe_and_latches_a_fault(serve: Serve, raw: RawFactory) -> None:
    device = FakeDevice()
    client = raw(serve(device))
    client.acquire("run 7", "night run", ttl_s=0.1)
    assert client.command("apply", {}, {"drive": np.ones(16)}).state == "done"
    assert not status_of(client).safe
    wait_until(lambda: status_of(client).safe)
    status = status_of(client)
    assert [(fault.name, fault.lease_key) for fault in status.faults] == [("lease_lost", "run 7")]
    assert status.leased_to == ""
    assert code(client.command("apply", {}, {"drive": np.ones(16)})) == "lease"
    # The next client can acquire the lease, but must clear the fault by name before it can write.
    client.acquire("run 7")
    refused = client.command("apply", {}, {"drive": np.ones(16)})
    assert code(refused) == "interlock"
    assert refused.error is not None
    assert "lease_lost" in refused.error.detail
    assert code(evaluate(client)) == "interlock"
    assert code(client.command("clear_fault", {"name": "other"})) == "bad_request"
    assert client.command("clear_fault", {"name": "lease_lost"}).state == "done"
    assert evaluate(client).state == "done"
    assert device.calls == ["apply", "safe", "evaluate"]


def test_a_lost_lease_stops_a_running_evaluation(serve: Serve, raw: RawFactory) -> None:
    device = FakeDevice(before_setting=lambda setting: time.sleep(0.02))
    client = raw(serve(device))
    client.acquire(ttl_s=0.1)
    reply = client.command("evaluate", {"stage": "mesh1"}, {"drives": np.ones((200, 8)), "inputs": INPUTS})
    assert code(reply) == "lease"
    assert device.evaluations < 200
    wait_until(lambda: "safe" in device.calls)


def test_every_write_renews_the_lease(serve: Serve, raw: RawFactory) -> None:
    client = raw(serve(FakeDevice()))
    client.acquire(ttl_s=0.4)
    until_s = time.monotonic() + 1.0
    while time.monotonic() < until_s:
        assert evaluate(client).state == "done"
        time.sleep(0.02)
    assert status_of(client).faults == ()


def test_a_release_makes_safe_without_a_fault(serve: Serve, raw: RawFactory) -> None:
    device = FakeDevice()
    client = raw(serve(device))
    client.acquire()
    client.command("apply", {}, {"drive": np.ones(16)})
    assert client.command("release").state == "done"
    status = status_of(client)
    assert (status.safe, status.faults, status.leased_to) == (True, (), "")
    assert client.acquire("another key").state == "done"


def test_taking_the_lease_over_stops_the_evaluation_of_the_old_client(serve: Serve, raw: RawFactory) -> None:
    gate = Gate(1)
    device = FakeDevice(before_setting=gate)
    server = serve(device)
    old, new = raw(server, "old"), raw(server, "new")
    old.acquire("run 7")
    old.send("evaluate", {"stage": "mesh1"}, {"drives": DRIVES, "inputs": INPUTS}, seq=50)
    assert gate.reached.wait(10)
    assert new.acquire("run 7").state == "done"
    gate.opened.set()
    assert code(old.receive()) == "lease"
    assert device.evaluations == 1
    assert code(evaluate(old)) == "lease"
    assert evaluate(new).state == "done"
    assert status_of(new).faults == ()


def test_status_is_answered_while_an_evaluation_is_blocked(serve: Serve, raw: RawFactory) -> None:
    gate = Gate()
    server = serve(FakeDevice(before_setting=gate))
    writer, reader = raw(server, "writer"), raw(server, "reader")
    writer.acquire()
    writer.send("evaluate", {"stage": "mesh1"}, {"drives": DRIVES, "inputs": INPUTS}, seq=50)
    assert gate.reached.wait(10)
    assert status_of(reader).busy
    assert not gate.opened.is_set()
    gate.opened.set()
    assert writer.receive().state == "done"
    assert not status_of(reader).busy


@pytest.mark.parametrize("op", ["safe", "cancel"])
def test_safe_and_cancel_stop_an_evaluation_at_its_next_setting(serve: Serve, raw: RawFactory, op: str) -> None:
    gate = Gate(1)
    device = FakeDevice(before_setting=gate)
    server = serve(device)
    writer, side = raw(server, "writer"), raw(server, "writer")
    writer.acquire()
    writer.send("evaluate", {"stage": "mesh1"}, {"drives": DRIVES, "inputs": INPUTS}, seq=50)
    writer.send("apply", {}, {"drive": np.ones(16)}, seq=51)
    assert gate.reached.wait(10)
    reply = side.command(op, seq=0 if op == "safe" else 52)
    assert reply.state == "done"  # while the evaluation is still blocked
    if op == "safe":
        assert reply.body == {"in_effect": False}
        assert side.ask("status").body["safe_pending"] is True
    gate.opened.set()
    stopped, behind = writer.receive(), writer.receive()
    assert code(stopped) == "interlock"
    assert stopped.error is not None
    assert stopped.error.outcome == "not_applied"
    assert device.evaluations == 1
    if op == "safe":
        assert code(behind) == "interlock"
        wait_until(lambda: side.ask("status").body["safe_pending"] is False)
        assert status_of(side).safe
        assert device.calls == ["evaluate", "safe"]
    else:
        assert behind.state == "done"
        assert device.calls == ["evaluate", "apply"]


def test_safe_needs_no_lease_and_reports_whether_it_is_in_effect(serve: Serve, raw: RawFactory) -> None:
    device = FakeDevice()
    server = serve(device)
    writer, reader = raw(server, "writer"), raw(server, "reader")
    writer.acquire()
    writer.command("apply", {}, {"drive": np.ones(16)})
    assert reader.ask("safe", deadline=time.monotonic() - 5).body == {"in_effect": True}  # safe ignores its deadline
    assert status_of(reader).safe


def test_a_safe_by_another_client_latches_a_fault(serve: Serve, raw: RawFactory) -> None:
    device = FakeDevice()
    server = serve(device)
    writer, reader = raw(server, "writer"), raw(server, "reader")
    reader.ask("safe")
    assert status_of(reader).faults == ()  # no client holds the lease
    writer.acquire()
    writer.command("apply", {}, {"drive": np.ones(16)})
    reader.ask("hello", {"label": "door switch"})
    reader.ask("safe")
    (fault,) = status_of(reader).faults
    assert (fault.name, fault.lease_key) == ("made_safe", "")
    assert fault.detail == "the device was made safe by another client ('door switch')"
    for reply in (evaluate(writer), writer.command("apply", {}, {"drive": np.ones(16)})):
        assert code(reply) == "interlock"
        assert reply.error is not None
        assert "made_safe" in reply.error.detail
    assert code(reader.command("clear_fault", {"name": "made_safe"})) == "lease"
    assert writer.command("clear_fault", {"name": "made_safe"}).state == "done"
    assert code(evaluate(writer)) == "interlock"  # no drive is applied
    assert code(writer.command("apply", {}, {"drive": np.full(16, 99.0)})) == "limit"
    assert code(evaluate(writer)) == "interlock"  # still no drive
    assert writer.command("apply", {}, {"drive": np.ones(16)}).state == "done"
    assert evaluate(writer).state == "done"
    assert device.calls == ["safe", "apply", "safe", "apply", "apply", "evaluate"]


def test_after_its_own_safe_a_writer_must_apply_first(serve: Serve, raw: RawFactory) -> None:
    client = raw(serve(FakeDevice()))
    client.acquire()
    client.command("apply", {}, {"drive": np.ones(16)})
    client.ask("safe")
    assert status_of(client).faults == ()
    reply = evaluate(client)
    assert code(reply) == "interlock"
    assert reply.error is not None
    assert (reply.error.detail, reply.error.outcome) == ("the device was made safe: apply a drive first", "not_applied")
    assert client.command("apply", {}, {"drive": np.ones(16)}).state == "done"
    assert evaluate(client).state == "done"


def test_an_apply_that_began_before_safe_does_not_count(serve: Serve, raw: RawFactory) -> None:
    class Slow(FakeDevice):
        gate = Gate()

        def apply(self, drive: Any) -> None:
            self.gate(0)
            super().apply(drive)

    device = Slow()
    client = raw(serve(device))
    client.acquire()
    sent = client.send("apply", {}, {"drive": np.ones(16)}, seq=50)
    assert device.gate.reached.wait(10)
    client.send("safe")
    assert client.receive().body == {"in_effect": False}
    device.gate.opened.set()
    assert client.receive().id == sent
    wait_until(lambda: status_of(client).safe)
    assert code(evaluate(client)) == "interlock"


def test_the_reply_to_renew_has_the_time(serve: Serve, raw: RawFactory) -> None:
    client = raw(serve(FakeDevice()))
    client.acquire()
    before_s = time.monotonic()
    assert before_s <= number(client.ask("renew"), "now_s") <= time.monotonic()


@pytest.mark.parametrize("inline_s", [0.0, 10.0])
def test_a_cancel_also_stops_evaluations_that_arrive_after_it(serve: Serve, raw: RawFactory, inline_s: float) -> None:
    device = FakeDevice()
    client = raw(serve(device, inline_s=inline_s))
    client.acquire()
    assert evaluate(client, id=77, seq=10).state == "done"
    client.command("cancel", seq=13)
    assert code(evaluate(client, seq=12)) == "interlock"
    assert evaluate(client, id=77, seq=10).state == "done"  # carried out before
    assert evaluate(client, seq=14).state == "done"
    assert device.calls == ["evaluate"] * 2


def test_a_cancel_before_the_device_has_started_is_repeated(serve: Serve, raw: RawFactory) -> None:
    class Slow(FakeDevice):
        """A device on which `cancel` has no effect before its evaluation has started."""

        entered = threading.Event()
        go_on = threading.Event()

        def evaluate(self, drives: Any, inputs: Any, stage: str) -> Readings:
            self.entered.set()
            assert self.go_on.wait(10)
            return super().evaluate(drives, inputs, stage)

    device = Slow(before_setting=lambda setting: time.sleep(0.02))
    server = serve(device)
    client, side = raw(server), raw(server)
    client.acquire()
    drives = np.ones((100, 8))
    client.send("evaluate", {"stage": "mesh1"}, {"drives": drives, "inputs": INPUTS}, seq=50)
    assert device.entered.wait(10)
    side.command("cancel", seq=60)
    device.go_on.set()
    assert code(client.receive()) == "interlock"
    assert device.evaluations < 100


def test_safe_reaches_the_device_while_an_evaluation_hangs(serve: Serve, raw: RawFactory) -> None:
    gate = Gate()
    device = FakeDevice(before_setting=gate)
    client = raw(serve(device))
    client.acquire()
    client.command("apply", {}, {"drive": np.ones(16)})
    client.send("evaluate", {"stage": "mesh1"}, {"drives": DRIVES, "inputs": INPUTS}, seq=50)
    assert gate.reached.wait(10)
    client.send("safe")
    wait_until(lambda: "safe" in device.calls)
    assert not gate.opened.is_set()
    assert not device.held.any()
    assert not status_of(client).safe  # not before the evaluation has ended
    gate.opened.set()
    wait_until(lambda: status_of(client).safe)


def test_a_device_that_cannot_be_made_safe_latches_a_fault(serve: Serve, raw: RawFactory) -> None:
    device = FakeDevice()
    device.safe_error = DeviceError("device", "the source does not answer", outcome="unknown")
    client = raw(serve(device))
    assert code(client.ask("safe")) == "device"
    assert [fault.name for fault in status_of(client).faults] == ["safe_failed"]
    client.acquire()
    assert code(evaluate(client)) == "interlock"
    device.safe_error = None
    assert client.command("clear_fault", {"name": "safe_failed"}).state == "done"
    assert evaluate(client).state == "done"


def test_waiting_clients_are_sent_working(serve: Serve, raw: RawFactory) -> None:
    gate = Gate()
    client = raw(serve(FakeDevice(before_setting=gate), working_s=0.02))
    client.acquire()
    sent = client.send("evaluate", {"stage": "mesh1"}, {"drives": DRIVES, "inputs": INPUTS}, seq=50)
    for _ in range(3):
        reply = client.receive()
        assert (reply.id, reply.state) == (sent, "working")
    gate.opened.set()
    wait_until(lambda: client.receive().state == "done")


def test_requests_with_another_epoch_are_refused(serve: Serve, raw: RawFactory) -> None:
    device = FakeDevice()
    client = raw(serve(device))
    client.acquire()
    for epoch in ("", "0123456789abcdef"):
        reply = evaluate(client, epoch=epoch)
        assert code(reply) == "transport"
        assert reply.error is not None
        assert (reply.error.outcome, reply.error.retryable) == ("not_applied", True)
        assert "restarted" in reply.error.detail
    assert device.calls == []


def test_requests_after_their_deadline_are_refused_or_stopped(serve: Serve, raw: RawFactory) -> None:
    device = FakeDevice(before_setting=lambda setting: time.sleep(0.01))
    client = raw(serve(device))
    client.acquire()
    late = evaluate(client, deadline=time.monotonic() - 0.1)
    assert code(late) == "deadline"
    assert late.error is not None
    assert late.error.outcome == "not_applied"
    assert code(client.ask("status", deadline=time.monotonic() - 0.1)) == "deadline"
    assert device.calls == []
    drives = np.ones((200, 8))
    body, arrays = {"stage": "mesh1"}, {"drives": drives, "inputs": INPUTS}
    overrun = client.command("evaluate", body, arrays, deadline=time.monotonic() + 0.1)
    assert code(overrun) == "deadline"
    assert 0 < device.evaluations < 200
    assert evaluate(client, deadline=time.monotonic() + 60).state == "done"


def test_requests_whose_deadline_passes_in_the_queue_are_refused(serve: Serve, raw: RawFactory) -> None:
    gate = Gate()
    device = FakeDevice(before_setting=gate)
    client = raw(serve(device))
    client.acquire()
    client.send("evaluate", {"stage": "mesh1"}, {"drives": DRIVES, "inputs": INPUTS}, seq=50)
    assert gate.reached.wait(10)
    client.send("apply", {}, {"drive": np.ones(16)}, seq=51, deadline=time.monotonic() + 0.05)
    body, arrays = {"stage": "mesh1"}, {"drives": DRIVES, "inputs": INPUTS}
    client.send("evaluate", body, arrays, seq=52, deadline=time.monotonic() + 0.05)
    status_of(client)
    time.sleep(0.1)
    gate.opened.set()
    assert client.receive().state == "done"
    for op in ("apply", "evaluate"):
        reply = client.receive()
        assert code(reply) == "deadline"
        assert reply.error is not None
        assert reply.error.detail == f"the deadline of this {op} passed before it could start"
        assert reply.error.retryable
    assert device.calls == ["evaluate"]


def test_another_version_gets_an_error_and_foreign_messages_no_reply(serve: Serve, raw: RawFactory) -> None:
    server = serve(FakeDevice())
    client = raw(server)
    request = messages.Request(op="status", id=5, client_id="raw", epoch=client.epoch)
    client.socket.send_multipart([b"PLP\x01", messages.encode(request)[1]])
    reply = client.receive()
    assert (reply.id, code(reply)) == (5, "version")
    for frames in ([b"GET / HTTP/1.1"], [b"", b""], [b"PLP"], [b"PLP\x03"], [b"PLP\x03\x00", b"{}"]):
        client.socket.send_multipart(frames)
    status_of(client)  # the next reply is to this request
    assert server.dropped == 5


def test_the_error_for_a_malformed_request_has_its_id(serve: Serve, raw: RawFactory) -> None:
    client = raw(serve(FakeDevice()))
    client.socket.send_multipart([b"PLP\x03", b'{"op": "unknown", "id": 41, "client_id": "raw"}'])
    reply = client.receive()
    assert (reply.id, code(reply)) == (41, "bad_request")
    assert code(client.ask("evaluate", {"stage": "mesh1"})) == "bad_request"  # a command without a number
    client.acquire()
    for body, arrays in (
        ({"stage": "mesh1"}, {"drives": DRIVES}),
        ({"stage": "mesh1"}, {"inputs": INPUTS}),
        ({"stage": "mesh1", "loaded": "a"}, {"drives": DRIVES, "inputs": INPUTS}),
        ({}, {"drives": DRIVES, "inputs": INPUTS}),
        ({"stage": "mesh9"}, {"drives": DRIVES, "inputs": INPUTS}),
        ({"stage": "mesh1"}, {"drives": np.ones(()), "inputs": np.ones((), np.float32)}),
        ({"stage": "mesh1"}, {"drives": np.ones((0, 8)), "inputs": INPUTS}),
        ({"stage": "mesh1"}, {"drives": DRIVES * np.nan, "inputs": INPUTS}),
    ):
        assert code(client.command("evaluate", body, arrays)) == "bad_request"


def test_an_unexpected_exception_of_the_device_is_reported(
    serve: Serve, raw: RawFactory, caplog: pytest.LogCaptureFixture
) -> None:
    def explode(setting: int) -> None:
        raise RuntimeError("overflow in the DAC")

    device = FakeDevice(before_setting=explode)
    client = raw(serve(device))
    client.acquire()
    with caplog.at_level(logging.ERROR):
        reply = evaluate(client)
    assert code(reply) == "device"
    assert reply.error is not None
    assert reply.error.outcome == "unknown"
    assert "overflow in the DAC" in reply.error.detail
    assert "Traceback" in caplog.text
    device.before_setting = lambda setting: None
    assert evaluate(client).state == "done"


@pytest.mark.parametrize("inline_s", [0.0, 10.0])
def test_inline_and_worker_give_the_same_readings(serve: Serve, raw: RawFactory, inline_s: float) -> None:
    threads: list[str] = []
    device = FakeDevice(before_setting=lambda setting: threads.append(threading.current_thread().name))
    client = raw(serve(device, inline_s=inline_s))
    client.acquire()
    for _ in range(3):
        reply = evaluate(client)
        assert reply.state == "done"
        values = messages.decode_arrays(reply.arrays, client.last[2:])["values"]
        np.testing.assert_allclose(values, np.full((3, 2, 4), 0.25))
    in_worker = [name == "photonloop-device" for name in threads[::3]]
    # The first evaluation runs in the worker, because its duration cannot be predicted.
    assert in_worker == ([True, True, True] if inline_s == 0 else [True, False, False])


def test_inline_evaluations_keep_the_order_of_requests(serve: Serve, raw: RawFactory) -> None:
    device = FakeDevice()
    client = raw(serve(device, inline_s=10.0))
    client.acquire()
    evaluate(client)
    gate = Gate(5)
    device.before_setting = gate
    long_drives = np.ones((64, 8))
    first = client.send("evaluate", {"stage": "mesh2"}, {"drives": long_drives, "inputs": INPUTS}, seq=50)
    assert gate.reached.wait(10)
    second = client.send("evaluate", {"stage": "mesh1"}, {"drives": DRIVES, "inputs": INPUTS}, seq=51)
    assert status_of(client).busy  # the loop is not blocked
    gate.opened.set()
    replies = [client.receive(), client.receive()]
    assert [(reply.id, reply.state) for reply in replies] == [(first, "done"), (second, "done")]


def test_too_many_waiting_requests_are_refused(serve: Serve, raw: RawFactory) -> None:
    gate = Gate()
    device = FakeDevice(before_setting=gate)
    client = raw(serve(device))
    client.acquire()
    client.send("evaluate", {"stage": "mesh1"}, {"drives": DRIVES, "inputs": INPUTS}, seq=100)
    assert gate.reached.wait(10)
    for seq in range(101, 132):
        client.send("apply", {}, {"drive": np.ones(16)}, seq=seq)
    refused = client.command("apply", {}, {"drive": np.ones(16)}, seq=132)
    assert code(refused) == "transport"
    assert refused.error is not None
    assert (refused.error.outcome, refused.error.retryable) == ("not_applied", True)
    gate.opened.set()
    wait_until(lambda: device.calls.count("apply") == 31)


def test_too_many_waiting_bytes_are_refused(serve: Serve, raw: RawFactory) -> None:
    gate = Gate()
    device = FakeDevice(before_setting=gate)
    client = raw(serve(device, waiting_bytes=500))
    client.acquire()
    client.send(
        "evaluate", {"stage": "mesh1"}, {"drives": np.ones((20, 8)), "inputs": INPUTS}, seq=100
    )  # a single request may exceed it
    assert gate.reached.wait(10)
    refused = client.command("apply", {}, {"drive": np.ones(16)}, seq=101)
    assert code(refused) == "transport"
    assert refused.error is not None
    assert (refused.error.outcome, refused.error.retryable) == ("not_applied", True)
    assert "this apply has 128 bytes, and 1312 of at most 500 bytes wait" in refused.error.detail
    gate.opened.set()
    wait_until(lambda: not status_of(client).busy)
    assert client.command("apply", {}, {"drive": np.ones(16)}, seq=101).state == "done"


def test_an_ipc_path_in_use_is_refused_and_unchanged(serve: Serve, tmp_path_factory: pytest.TempPathFactory) -> None:
    folder = tmp_path_factory.mktemp("i")
    mine = folder / "notes"
    mine.write_text("some text")
    with pytest.raises(DeviceError, match="the path exists and is not a socket"):
        DeviceServer(FakeDevice(), f"ipc://{mine}").bind()
    assert mine.read_text() == "some text"
    first = serve(FakeDevice(), f"ipc://{folder}/s")
    with pytest.raises(DeviceError, match="another server answers there"):
        DeviceServer(FakeDevice(), f"ipc://{folder}/s").bind()
    with connect(first.address) as client:
        assert client.status().safe
    # A socket that a killed server has left is replaced.
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(f"{folder}/dead")
    with connect(serve(FakeDevice(), f"ipc://{folder}/dead").address) as client:
        assert client.status().safe


def test_a_stop_during_on_tick_takes_effect() -> None:
    """A signal handler may call `stop` at any time."""
    server: DeviceServer

    def interrupted() -> bool:
        server.stop()
        return True

    server = DeviceServer(FakeDevice(), "tcp://127.0.0.1:*", options=ServerOptions(on_tick=interrupted, tick_s=0.02))
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    thread.join(10)
    assert not thread.is_alive()


def test_the_server_stops_and_makes_safe_if_on_tick_returns_false(serve: Serve) -> None:
    device = FakeDevice()
    device.held[:] = 1.0
    ticks = itertools.count()
    server = DeviceServer(device, "tcp://127.0.0.1:*", options=ServerOptions(on_tick=lambda: next(ticks) < 3, tick_s=0.02))
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    thread.join(10)
    assert not thread.is_alive()
    assert next(ticks) == 4
    assert device.status().safe


def test_stopping_the_server_answers_waiting_clients(serve: Serve, raw: RawFactory) -> None:
    device = FakeDevice(before_setting=lambda setting: time.sleep(0.01))
    server = serve(device)
    client = raw(server)
    client.acquire()
    drives = np.ones((200, 8))
    client.send("evaluate", {"stage": "mesh1"}, {"drives": drives, "inputs": INPUTS}, seq=50)
    wait_until(lambda: device.evaluations > 0)
    server.stop()
    reply = client.receive()
    assert code(reply) == "transport"
    assert reply.error is not None
    assert reply.error.outcome == "not_applied"
    wait_until(lambda: "safe" in device.calls)


def test_an_address_in_use_is_reported(serve: Serve) -> None:
    server = serve(FakeDevice())
    with pytest.raises(DeviceError, match="cannot serve at tcp://127.0.0.1") as caught:
        DeviceServer(FakeDevice(), server.address).bind()
    assert caught.value.code == "transport"


def test_every_server_has_its_own_epoch(serve: Serve) -> None:
    assert serve(FakeDevice()).epoch != serve(FakeDevice()).epoch


def test_health_values_may_be_nan_or_text(serve: Serve) -> None:
    device = FakeDevice()
    device.health = {"laser_w": float("nan"), "fan": "on", "celsius": 31.5}
    with connect(serve(device).address) as client:
        assert client.status().health == {"laser_w": "nan", "fan": "on", "celsius": 31.5}
