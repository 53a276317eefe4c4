"""The client against real servers, and against servers that misbehave."""

from __future__ import annotations

import contextlib
import socket
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest
import zmq
from support.fake_device import FakeDevice, Gate, Serve, fake_description, wait_until

from photonloop.protocols.client import server_connection
from photonloop.protocols.client.device_client import ClientOptions, connect
from photonloop.protocols.client.server_connection import ServerConnection
from photonloop.protocols.device import LoadedRows, PhotonicDevice
from photonloop.protocols.errors import DeviceError
from photonloop.protocols.server.device_server import DeviceServer, ServerOptions
from photonloop.protocols.wire import messages
from photonloop.protocols.wire.shared_buffer import SharedBuffer
from photonloop.protocols.wire.sockets import receive_frames

DRIVES = np.ones((3, 8))
INPUTS = np.full((2, 4), 0.5, np.float32)
QUICK = ClientOptions(timeout_s=2.0, silence_s=0.6)
LOST_CONNECTION_ONLY = ClientOptions(silence_s=3600.0)
"""With these options only a lost connection ends the wait for a reply."""


def refused(call: Callable[[], object]) -> DeviceError:
    with pytest.raises(DeviceError) as caught:
        call()
    return caught.value


def test_a_client_is_a_device(serve: Serve) -> None:
    device = FakeDevice()
    with connect(serve(device).address, label="me") as client:
        assert isinstance(client, PhotonicDevice)
        assert client.describe() == device.description
        client.acquire()
        assert client.status().leased_to == "me"
        drive = np.linspace(0.0, 2.0, 16)
        client.apply(drive)
        np.testing.assert_array_equal(device.held, drive)
        readings = client.evaluate(DRIVES, INPUTS, "mesh2")
        np.testing.assert_allclose(readings.values, np.full((3, 2, 4), 0.25))
        assert (readings.values.dtype, readings.time_s.dtype, readings.flags.dtype) == (np.float32, np.float64, np.uint32)
        client.load_inputs("train", INPUTS * np.float32(2))
        readings = client.evaluate(DRIVES, LoadedRows("train", np.array([1, 0, 1], np.int16)), "mesh1")  # pyright: ignore[reportArgumentType]
        np.testing.assert_allclose(readings.values, np.ones((3, 3, 4)))
        client.safe()
        assert device.status().safe
    assert device.status().safe


@pytest.mark.parametrize("bind", ["tcp://127.0.0.1:*", "tcp://localhost:*", "tcp://[::1]:*", "ipc"])
def test_every_kind_of_local_address(serve: Serve, bind: str, tmp_path_factory: pytest.TempPathFactory) -> None:
    if bind == "ipc":
        bind = f"ipc://{tmp_path_factory.mktemp('s')}/s"
    try:
        server = serve(FakeDevice(), bind)
    except DeviceError:
        if "::1" in bind:
            pytest.skip("no IPv6 here")
        raise
    with connect(server.address) as client:
        assert client.status().safe


def test_an_unreachable_server_is_reported_with_address_and_timeout() -> None:
    error = refused(lambda: connect("tcp://127.0.0.1:9", timeout_s=0.3))
    assert (error.code, error.outcome, error.retryable) == ("transport", "not_applied", True)
    assert error.detail == "no device server answers at tcp://127.0.0.1:9 within 0.3 s"


@pytest.mark.parametrize(
    "address",
    ["", "tcp://", "tcp://127.0.0.1", "tcp://127.0.0.1:*", "tcp://127.0.0.1:99999", "tcp://h:0", "udp://h:1", "ipc://", "x"],
)
def test_invalid_addresses_are_refused(address: str) -> None:
    error = refused(lambda: connect(address))
    assert error.code == "bad_request"
    assert repr(address) in error.detail


@pytest.mark.parametrize("count", [0, 1, 9, 10, 100])
def test_large_inputs_are_sent_in_pieces(serve: Serve, count: int) -> None:
    device = FakeDevice()
    server = serve(device, max_message_bytes=160)
    inputs = np.random.default_rng(0).random((count, 4)).astype(np.float32)
    with connect(server.address) as client:
        client.acquire()
        if count == 0:
            assert refused(lambda: client.load_inputs("a", inputs)).code == "bad_request"
            return
        client.load_inputs("a", inputs)
        np.testing.assert_array_equal(device.loaded.array("a"), inputs)
        assert device.calls == ["load_inputs"]


def test_arrays_that_are_too_large_are_refused_before_they_are_sent(serve: Serve) -> None:
    device = FakeDevice(fake_description(max_loaded_bytes=1000))
    server = serve(device, max_message_bytes=160)
    with connect(server.address) as client:
        client.acquire()
        error = refused(lambda: client.load_inputs("a", np.zeros((100, 4))))
        assert (error.code, error.detail) == ("limit", "inputs 'a' take 3200 bytes, more than max_loaded_bytes 1000")
        error = refused(lambda: client.evaluate(DRIVES, INPUTS, "mesh1"))
        assert (error.code, error.detail) == (
            "limit",
            "drives takes 192 bytes, more than the server's max_message_bytes 160: send less at once",
        )
        assert device.calls == []
        client.evaluate(DRIVES[:2], INPUTS, "mesh1")


def test_inputs_of_other_types_are_converted_or_refused(serve: Serve) -> None:
    device = FakeDevice()
    with connect(serve(device).address) as client:
        client.acquire()
        for inputs in (INPUTS > 0, np.ones((2, 4), np.int16), np.ones((2, 4), np.float16), [[1, 1, 1, 1], [1, 1, 1, 1]]):
            readings = client.evaluate(DRIVES, inputs, "mesh1")  # pyright: ignore[reportArgumentType]
            np.testing.assert_allclose(readings.values, np.ones((3, 2, 4)))
        for drives, bad_inputs in (
            (DRIVES, [[1, 2], [3]]),
            (DRIVES, np.array([["a"] * 4])),
            (DRIVES, INPUTS.astype(complex)),
            (DRIVES, INPUTS * np.nan),
            (DRIVES > 0, INPUTS),
            ([[1.0], [1.0, 2.0]], INPUTS),
            ("volts", INPUTS),
        ):
            error = refused(lambda d=drives, i=bad_inputs: client.evaluate(d, i, "mesh1"))  # pyright: ignore[reportArgumentType]
            assert error.code == "bad_request", error.detail
        assert refused(lambda: client.evaluate(DRIVES, INPUTS, "m" * 300)).code == "bad_request"
        assert refused(lambda: client.evaluate(DRIVES * 100, INPUTS, "mesh1")).code == "limit"


def test_submit_returns_before_the_readings_arrive(serve: Serve) -> None:
    gate = Gate()
    device = FakeDevice(before_setting=gate)
    with connect(serve(device).address) as client:
        client.acquire()
        pending = client.submit(DRIVES, INPUTS, "mesh1")
        assert gate.reached.wait(10)  # it runs while this thread continues
        second = client.submit(2 * DRIVES, INPUTS, "mesh1")  # waits in the server
        sentence = "2 evaluations are pending already: ask for the first one's result"
        assert refused(lambda: client.submit(DRIVES, INPUTS, "mesh1")).detail == sentence
        for call in (lambda: client.apply(np.zeros(16)), lambda: client.load_inputs("a", INPUTS)):
            error = refused(call)
            assert (error.code, error.detail) == ("bad_request", "an evaluation is still pending: ask for its result first")
        assert client.status().busy
        gate.opened.set()
        readings = pending.result()
        assert pending.result() is readings
        np.testing.assert_allclose(
            second.result().values, 4 * readings.values, rtol=1e-6
        )  # readings are proportional to squared drives
        failing = client.submit(DRIVES * 100, INPUTS, "mesh1")
        first = refused(failing.result)
        assert refused(failing.result) is first
        client.apply(np.zeros(16))


def test_results_may_be_requested_in_any_order(serve: Serve) -> None:
    with connect(serve(FakeDevice()).address) as client:
        client.acquire()
        for _ in range(3):
            first, second = (client.submit(scale * DRIVES, INPUTS, "mesh1") for scale in (1, 2))
            later = second.result()
            np.testing.assert_allclose(later.values, 4 * first.result().values, rtol=1e-6)


def test_a_failed_evaluation_does_not_affect_the_next_one(serve: Serve) -> None:
    with connect(serve(FakeDevice()).address) as client:
        client.acquire()
        bad, good = client.submit(DRIVES * 100, INPUTS, "mesh1"), client.submit(DRIVES, INPUTS, "mesh1")
        assert good.result().values.shape[0] == len(DRIVES)
        assert refused(bad.result).code == "limit"


@pytest.mark.parametrize("inline_s", [0.0, 10.0])
def test_safe_by_another_client_between_two_pending_evaluations(serve: Serve, inline_s: float) -> None:
    """The second evaluation waits in the server's socket. It must not read a dark mesh, inline or in the worker."""
    gate = Gate(at_setting=-1)
    device = FakeDevice(before_setting=gate)
    server = serve(device, inline_s=inline_s)
    with connect(server.address) as client, connect(server.address, label="other") as other, ThreadPoolExecutor() as pool:
        client.acquire()
        client.apply(np.ones(16))
        for _ in range(2):
            client.evaluate(DRIVES, INPUTS, "mesh1")
        gate.at_setting = 1
        first = client.submit(DRIVES, INPUTS, "mesh1")
        assert gate.reached.wait(10)
        stopping = pool.submit(other.safe)
        time.sleep(0.06)
        second = client.submit(DRIVES, INPUTS, "mesh1")
        gate.at_setting = -1
        gate.opened.set()
        stopping.result(10)
        if inline_s == 0:
            assert refused(first.result).code == "interlock"
        else:
            first.result()  # it ran in the socket loop, before the safe was read
        done = device.evaluations
        wait_until(lambda: other.status().safe)
        assert [fault.name for fault in other.status().faults] == ["made_safe"]
        for _ in range(2):
            third = client.submit(DRIVES, INPUTS, "mesh1")
            assert "made_safe" in refused(third.result).detail
        if inline_s == 0:
            assert refused(second.result).code == "interlock"
        else:  # if it arrived before the safe, it was read with the held drive
            with contextlib.suppress(DeviceError):
                second.result()
        assert device.evaluations == done
        assert "made_safe" in refused(lambda: client.apply(np.ones(16))).detail
        client.clear_fault("made_safe")
        client.apply(np.ones(16))
        client.evaluate(DRIVES, INPUTS, "mesh1")


@pytest.mark.parametrize("stop", ["cancel", "safe"])
def test_cancel_and_safe_stop_both_pending_evaluations(serve: Serve, stop: str) -> None:
    gate = Gate(1)
    device = FakeDevice(before_setting=gate)
    with connect(serve(device).address) as client, ThreadPoolExecutor() as pool:
        client.acquire()
        client.apply(np.ones(16))
        first, second = (client.submit(DRIVES, INPUTS, "mesh1") for _ in range(2))
        assert gate.reached.wait(10)
        stopping = pool.submit(getattr(client, stop))
        time.sleep(0.06)
        gate.opened.set()
        stopping.result(10)
        for pending in (first, second):
            error = refused(pending.result)
            assert (error.code, error.outcome) == ("interlock", "not_applied")
        assert device.evaluations == 1
        client.apply(np.ones(16))
        client.evaluate(DRIVES, INPUTS, "mesh1")


@pytest.mark.parametrize("how", ["close", "reconnect"])
def test_pending_evaluations_of_a_closed_connection(serve: Serve, how: str) -> None:
    gate = Gate()
    with connect(serve(FakeDevice(before_setting=gate)).address) as client:
        client.acquire()
        first, second = (client.submit(DRIVES, INPUTS, "mesh1") for _ in range(2))
        assert gate.reached.wait(10)
        gate.opened.set()
        getattr(client, how)()
        for pending in (first, second, first):
            error = refused(pending.result)
            assert (error.code, error.retryable, error.outcome) == ("transport", True, "unknown")
            assert error.detail == "the connection was closed while this evaluation was pending"
        if how == "reconnect":
            client.acquire()
            client.apply(np.ones(16))
            assert client.evaluate(DRIVES, INPUTS, "mesh1").values.shape == (3, 2, 4)


def test_an_interrupted_result_can_be_requested_again(serve: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    device = FakeDevice()
    with connect(serve(device).address, options=QUICK) as client:
        client.acquire()
        first, second = (client.submit(scale * DRIVES, INPUTS, "mesh1") for scale in (1, 2))
        read = ServerConnection._read
        interrupts = iter([True, True])

        def interrupted(
            connection: ServerConnection, request: messages.Request, frames: messages.Frames, buffer: SharedBuffer | None
        ) -> object:
            answer = read(connection, request, frames, buffer)
            if next(interrupts, False):  # the message is no longer in the socket
                raise KeyboardInterrupt
            return answer

        monkeypatch.setattr(ServerConnection, "_read", interrupted)
        for _ in range(2):
            with pytest.raises(KeyboardInterrupt):
                first.result()
        np.testing.assert_allclose(second.result().values, 4 * first.result().values, rtol=1e-6)
        assert device.calls == ["evaluate"] * 2
        client.apply(np.ones(16))  # nothing is pending


def test_an_error_that_arrives_before_an_earlier_reply_is_kept(serve: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    gate = Gate()
    device = FakeDevice(before_setting=gate)
    with connect(serve(device).address) as client, ThreadPoolExecutor() as pool:
        client.acquire()
        first = client.submit(DRIVES, INPUTS, "mesh1")
        assert gate.reached.wait(10)
        # The first evaluation still runs when the second is refused.
        stopping = pool.submit(client.safe)
        time.sleep(0.06)
        second = client.submit(DRIVES, INPUTS, "mesh1")
        waiting = pool.submit(first.result)
        time.sleep(0.06)
        gate.opened.set()
        assert refused(waiting.result).detail == "stopped, because the device was asked to become safe"
        stopping.result(10)

        def receive(socket: zmq.Socket) -> list[messages.Buffer]:
            assert threading.current_thread() is not threading.main_thread(), "the error was not kept"
            return receive_frames(socket)

        monkeypatch.setattr(server_connection, "receive_frames", receive)
        assert refused(second.result).detail == "the device was made safe: apply a drive first"
        monkeypatch.undo()
        assert device.calls == ["evaluate", "safe"]


def test_the_device_can_be_made_safe_if_the_clocks_differ(serve: Serve) -> None:
    with connect(serve(FakeDevice()).address, options=ClientOptions(deadline_s=5.0)) as client:
        client.acquire(ttl_s=0.6)
        client.apply(np.ones(16))
        client._encoder.server_ahead_s -= 3600.0
        assert not client.status().safe
        client.cancel()
        client.safe()
        assert client.status().safe
        wait_until(lambda: abs(client._encoder.server_ahead_s) < 1.0)  # a renewal corrects it
        client.apply(np.ones(16))
        client._encoder.server_ahead_s -= 3600.0
        client.release()
        assert client.status().safe


def test_cancel_and_safe_from_another_thread(serve: Serve) -> None:
    for stop in ("cancel", "safe"):
        gate = Gate(1)
        device = FakeDevice(before_setting=gate)
        with connect(serve(device).address) as client, ThreadPoolExecutor() as pool:
            client.acquire()
            client.apply(np.ones(16))
            running = pool.submit(client.evaluate, DRIVES, INPUTS, "mesh1")
            assert gate.reached.wait(10)
            stopping = pool.submit(getattr(client, stop))
            if stop == "cancel":
                stopping.result(10)
            else:
                wait_until(lambda c=client: c.status().busy)
                time.sleep(0.06)
                assert not stopping.done()  # the device is not safe yet, so safe() has not returned
            gate.opened.set()
            stopping.result(10)
            assert refused(lambda r=running: r.result(10)).code == "interlock"
            assert device.evaluations == 1
            assert device.status().safe is (stop == "safe")


def test_safe_raises_if_the_device_does_not_become_safe(serve: Serve) -> None:
    gate = Gate()
    device = FakeDevice(before_setting=gate)
    with connect(serve(device).address) as client, ThreadPoolExecutor() as pool:
        device.safe_error = DeviceError("device", "the source does not answer")
        assert refused(client.safe).code == "device"
        client.acquire()
        client.clear_fault("safe_failed")
        running = pool.submit(client.evaluate, DRIVES, INPUTS, "mesh1")
        assert gate.reached.wait(10)
        stopping = pool.submit(client.safe)
        wait_until(lambda: "interlock" if stopping.running() else False)
        time.sleep(0.06)
        gate.opened.set()
        error = refused(lambda: stopping.result(10))
        assert (error.code, "the source does not answer" in error.detail) == ("device", True)
        assert refused(lambda: running.result(10)).code == "interlock"
        device.safe_error = None
        client.clear_fault("safe_failed")


def test_many_clients_can_read_the_status_at_once(serve: Serve) -> None:
    device = FakeDevice(before_setting=lambda setting: time.sleep(0.002))
    server = serve(device)
    with connect(server.address, label="writer") as writer, ThreadPoolExecutor(8) as pool:
        writer.acquire()
        running = pool.submit(writer.evaluate, np.ones((100, 8)), INPUTS, "mesh1")

        def read(_: int) -> int:
            with connect(server.address) as reader:
                return sum(reader.status().leased_to == "writer" for _ in range(20))

        assert list(pool.map(read, range(6))) == [20] * 6
        assert running.result().values.shape == (100, 2, 4)


def test_many_threads_can_read_the_status_of_one_client(serve: Serve) -> None:
    with connect(serve(FakeDevice()).address) as client, ThreadPoolExecutor(8) as pool:
        client.acquire()
        statuses = [pool.submit(client.status) for _ in range(200)]
        for _ in range(50):
            assert client.evaluate(DRIVES, INPUTS, "mesh1").values.shape == (3, 2, 4)
        assert all(one.result().leased_to == "photonloop" for one in statuses)


def test_the_error_for_a_second_writer_names_the_first(serve: Serve) -> None:
    server = serve(FakeDevice())
    with connect(server.address, label="night run") as first, connect(server.address) as second:
        first.acquire()
        error = refused(second.acquire)
        assert (error.code, "'night run'" in error.detail) == ("lease", True)
        first.release()
        second.acquire()


def test_the_lease_is_renewed_in_the_background(serve: Serve) -> None:
    device = FakeDevice()
    with connect(serve(device).address) as client:
        client.acquire(ttl_s=0.3)
        time.sleep(1.0)
        assert client.lost is None
        client.apply(np.ones(16))
        assert client.status().faults == ()


def test_a_lost_lease_is_reported(serve: Serve) -> None:
    server = serve(FakeDevice())
    with connect(server.address, lease_key="run 7") as old, connect(server.address, lease_key="run 7") as new:
        old.acquire(ttl_s=0.3)
        new.acquire(ttl_s=30.0)
        wait_until(lambda: old.lost)
        assert old.lost == "the device is leased to 'photonloop', not to this client"
        assert refused(lambda: old.apply(np.zeros(16))).code == "lease"
        old.close()  # it has no lease to release
        assert new.status().leased_to == "photonloop"
        new.apply(np.zeros(16))


def test_closing_releases_and_makes_safe(serve: Serve) -> None:
    device = FakeDevice()
    server = serve(device)
    client = connect(server.address)
    client.acquire()
    client.apply(np.ones(16))
    client.close()
    client.close()
    assert device.status().safe
    assert refused(client.status).code == "transport"
    assert refused(lambda: client.submit(DRIVES, INPUTS, "mesh1")).code == "transport"
    with connect(server.address) as reader:
        assert (reader.status().faults, reader.status().leased_to) == ((), "")
    device.held[:] = 1.0
    connect(server.address).close()
    assert not device.status().safe  # closing a client without a lease has no effect


def test_a_restarted_server_is_detected_and_can_be_reconnected(serve: Serve) -> None:
    first = DeviceServer(FakeDevice(), "tcp://127.0.0.1:*", options=ServerOptions())
    address = first.bind()
    thread = threading.Thread(target=first.run, daemon=True)
    thread.start()
    with connect(address, options=QUICK) as client:
        client.acquire()
        client.load_inputs("a", INPUTS)
        first.stop()
        thread.join(10)
        assert not thread.is_alive()
        device = FakeDevice()
        serve(device, address)
        wait_until(lambda: "restarted" in refused(lambda: client.evaluate(DRIVES, INPUTS, "mesh1")).detail)
        error = refused(lambda: client.apply(np.zeros(16)))
        assert (error.code, error.outcome, error.retryable) == ("transport", "not_applied", True)
        assert device.calls == []
        client.reconnect()
        assert refused(lambda: client.apply(np.zeros(16))).code == "lease"
        client.acquire()
        assert refused(lambda: client.evaluate(DRIVES, LoadedRows("a", np.array([0])), "mesh1")).code == "bad_request"
        client.evaluate(DRIVES, INPUTS, "mesh1")


def test_a_server_that_stops_is_detected() -> None:
    server = DeviceServer(FakeDevice(), "tcp://127.0.0.1:*")
    address = server.bind()
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    client = connect(address, options=LOST_CONNECTION_ONLY)
    server.stop()
    thread.join(10)
    error = refused(client.status)
    assert (error.code, error.retryable) == ("transport", True)
    client.close()


class ScriptedServer:
    """A server that answers `hello` and `describe`, and passes all other requests to `behave`."""

    def __init__(self, behave: Callable[[zmq.Socket, list[bytes], messages.Request], None]) -> None:
        self.context = zmq.Context()
        self.router = self.context.socket(zmq.ROUTER)
        self.router.linger = 0
        self.address = f"tcp://127.0.0.1:{self.router.bind_to_random_port('tcp://127.0.0.1')}"
        self.behave = behave
        self.seen: list[messages.Request] = []
        self.ended = threading.Event()
        self.thread = threading.Thread(target=self._run, daemon=True)
        self.thread.start()

    def _run(self) -> None:
        description = np.frombuffer(fake_description().model_dump_json().encode(), np.uint8)
        while not self.ended.is_set():
            if not self.router.poll(20):
                continue
            message = self.router.recv_multipart()
            request = messages.decode_request(message[2])
            self.seen.append(request)
            if request.op == "hello":
                self.reply(message, request, {"now_s": 0.0, "max_message_bytes": 10**6})
            elif request.op == "describe":
                self.reply(message, request, arrays={"description": description})
            else:
                self.behave(self.router, message, request)

    def reply(self, message: list[bytes], request: messages.Request, body: dict | None = None, **more: object) -> None:
        specs, ready = messages.array_specs(more.pop("arrays", {}))  # pyright: ignore[reportArgumentType]
        fields = {"id": request.id, "epoch": "e", "state": "done", **more}
        header = messages.Reply(op=request.op, body=body or {}, arrays=specs, **fields)  # pyright: ignore[reportArgumentType]
        self.router.send_multipart([message[0], *messages.encode(header, ready)])

    def close(self) -> None:
        self.ended.set()
        self.thread.join(5)
        self.context.destroy(0)


@pytest.fixture
def scripted_server() -> Iterator[Callable[..., ScriptedServer]]:
    made: list[ScriptedServer] = []

    def make(behave: Callable[[zmq.Socket, list[bytes], messages.Request], None]) -> ScriptedServer:
        made.append(ScriptedServer(behave))
        return made[-1]

    yield make
    for one in made:
        one.close()


def test_a_request_is_sent_three_times_to_a_silent_server(scripted_server: Callable[..., ScriptedServer]) -> None:
    silent = scripted_server(lambda router, message, request: None)
    with connect(silent.address, options=QUICK) as client:
        error = refused(lambda: client.apply(np.zeros(16)))
    assert (error.code, error.outcome) == ("transport", "unknown")
    assert error.detail == f"the device server at {silent.address} does not reply to apply"
    attempts = [request for request in silent.seen if request.op == "apply"]
    assert len(attempts) == 3
    assert len({request.seq for request in attempts}) == 1


def test_the_client_waits_while_the_server_sends_working(scripted_server: Callable[..., ScriptedServer]) -> None:
    def work_long(router: zmq.Socket, message: list[bytes], request: messages.Request) -> None:
        for _ in range(10):
            slow.reply(message, request, state="working")
            time.sleep(0.15)
        slow.reply(message, request)

    slow = scripted_server(work_long)
    with connect(slow.address, options=QUICK) as client:
        client.apply(np.zeros(16))  # takes 1.5 s, with a message every 0.15 s


def test_stale_and_foreign_messages_are_ignored(scripted_server: Callable[..., ScriptedServer]) -> None:
    def chatter(router: zmq.Socket, message: list[bytes], request: messages.Request) -> None:
        router.send_multipart([message[0], b"noise"])
        router.send_multipart([message[0], b"PLP\x03"])
        wrong = messages.Reply(id=request.id + 1000, epoch="e", state="error", error=DeviceError("device", "stale").body())
        router.send_multipart([message[0], *messages.encode(wrong)])
        noisy.reply(message, request)

    noisy = scripted_server(chatter)
    with connect(noisy.address, options=QUICK) as client:
        client.apply(np.zeros(16))


def test_an_invalid_reply_is_a_transport_error(scripted_server: Callable[..., ScriptedServer]) -> None:
    def answer_invalidly(router: zmq.Socket, message: list[bytes], request: messages.Request) -> None:
        if request.op == "apply":
            invalid.reply(message, request, state="error")
        elif request.op == "evaluate":
            invalid.reply(message, request, arrays={"values": np.zeros(3)})
        elif request.op == "status":
            invalid.reply(message, request, {"status": {"safe": "very"}})
        else:
            header = messages.Reply(id=request.id, epoch="e", state="done")
            router.send_multipart([message[0], *messages.encode(header), b"unannounced"])

    invalid = scripted_server(answer_invalidly)
    with connect(invalid.address, options=QUICK) as client:
        for call in (
            lambda: client.apply(np.zeros(16)),
            lambda: client.evaluate(DRIVES, INPUTS, "mesh1"),
            client.status,
            lambda: client.clear_fault("x"),
        ):
            assert refused(call).code == "transport"


def test_a_server_with_another_protocol_version_is_refused(scripted_server: Callable[..., ScriptedServer]) -> None:
    def newer(router: zmq.Socket, message: list[bytes], request: messages.Request) -> None:
        router.send_multipart([message[0], b"PLP\x04", b"{}"])

    with connect(scripted_server(newer).address, options=QUICK) as client:
        error = refused(client.status)
    assert (error.code, "version 4" in error.detail) == ("version", True)


def test_a_server_that_dies_during_a_request_is_detected(scripted_server: Callable[..., ScriptedServer]) -> None:
    def die(router: zmq.Socket, message: list[bytes], request: messages.Request) -> None:
        dying.ended.set()
        router.close()

    dying = scripted_server(die)
    with connect(dying.address, options=LOST_CONNECTION_ONLY) as client:
        error = refused(lambda: client.apply(np.zeros(16)))
        assert (error.code, error.outcome, error.retryable) == ("transport", "unknown", True)


def test_the_lease_is_lost_if_the_server_is_silent(scripted_server: Callable[..., ScriptedServer]) -> None:
    def fall_silent(router: zmq.Socket, message: list[bytes], request: messages.Request) -> None:
        if request.op == "acquire":
            falling.reply(message, request)

    falling = scripted_server(fall_silent)
    with connect(falling.address, options=QUICK) as client:
        client.acquire(ttl_s=0.3)
        assert client.lost is None
        wait_until(lambda: client.lost)
        assert "does not reply" in (client.lost or "")


class Lossy:
    """A proxy that can drop messages."""

    def __init__(self, address: str) -> None:
        self.context = zmq.Context()
        self.front = self.context.socket(zmq.ROUTER)
        self.front.linger = 0
        self.address = f"tcp://127.0.0.1:{self.front.bind_to_random_port('tcp://127.0.0.1')}"
        # One DEALER socket per client, so that the server can distinguish them.
        self.server_address = address
        self.backs: dict[bytes, zmq.Socket] = {}
        self.lose_requests = 0
        self.lose_replies = 0
        self.ended = threading.Event()
        self.thread = threading.Thread(target=self._run, daemon=True)
        self.thread.start()

    def _run(self) -> None:
        poller = zmq.Poller()
        poller.register(self.front, zmq.POLLIN)
        while not self.ended.is_set():
            for ready, _ in poller.poll(20):
                if ready is self.front:
                    client, *frames = self.front.recv_multipart()
                    if client not in self.backs:
                        self.backs[client] = self.context.socket(zmq.DEALER)
                        self.backs[client].linger = 0
                        self.backs[client].connect(self.server_address)
                        poller.register(self.backs[client], zmq.POLLIN)
                    if b'"evaluate"' in frames[1] and self.lose_requests:
                        self.lose_requests -= 1
                        continue
                    self.backs[client].send_multipart(frames)
                else:
                    frames = ready.recv_multipart()
                    if b'"evaluate"' in frames[1] and self.lose_replies:
                        self.lose_replies -= 1
                        continue
                    client = next(name for name, back in self.backs.items() if back is ready)
                    self.front.send_multipart([client, *frames])

    def close(self) -> None:
        self.ended.set()
        self.thread.join(5)
        self.context.destroy(0)


@pytest.mark.parametrize(("requests", "replies"), [(1, 0), (2, 0), (0, 1), (0, 2), (1, 1)])
def test_commands_are_carried_out_once_if_messages_are_lost(serve: Serve, requests: int, replies: int) -> None:
    device = FakeDevice()
    proxy = Lossy(serve(device).address)
    try:
        with connect(proxy.address, options=QUICK) as client:
            client.acquire()
            expected = client.evaluate(DRIVES, INPUTS, "mesh1")
            proxy.lose_requests, proxy.lose_replies = requests, replies
            readings = client.evaluate(DRIVES, INPUTS, "mesh1")
            np.testing.assert_array_equal(readings.values, expected.values)
            assert (proxy.lose_requests, proxy.lose_replies) == (0, 0)
            assert device.calls == ["evaluate"] * 2
            assert readings.time_s[0] == pytest.approx(4e-3)  # two evaluations of three settings, and no third
    finally:
        proxy.close()


@pytest.mark.parametrize(("requests", "replies"), [(1, 0), (2, 0), (3, 0), (0, 1), (0, 2), (0, 3), (1, 1)])
def test_messages_are_lost_with_two_pending_evaluations(serve: Serve, requests: int, replies: int) -> None:
    device = FakeDevice()
    proxy = Lossy(serve(device).address)
    try:
        with connect(proxy.address, options=QUICK) as client:
            client.acquire()
            expected = client.evaluate(DRIVES, INPUTS, "mesh1")
            proxy.lose_requests, proxy.lose_replies = requests, replies
            first, second = (client.submit(scale * DRIVES, INPUTS, "mesh1") for scale in (1, 2))
            np.testing.assert_array_equal(first.result().values, expected.values)
            np.testing.assert_array_equal(second.result().values, 4 * expected.values)
            assert (proxy.lose_requests, proxy.lose_replies) == (0, 0)
            assert device.calls == ["evaluate"] * 3
    finally:
        proxy.close()


def test_the_timeout_includes_connecting_and_the_reply(monkeypatch: pytest.MonkeyPatch) -> None:
    """The server can be reached only after some time, which is part of the timeout."""
    wait = ServerConnection._wait
    waited_s: list[float] = []

    def note(connection: ServerConnection, *args: object, **more: object) -> object:
        waited_s.append(time.monotonic())
        until_s.append(args[3])
        return wait(connection, *args, **more)  # pyright: ignore[reportArgumentType]

    until_s: list[Any] = []
    monkeypatch.setattr(ServerConnection, "_wait", note)
    context = zmq.Context()
    mute = context.socket(zmq.ROUTER)
    mute.linger = 0
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        address = f"tcp://127.0.0.1:{probe.getsockname()[1]}"
    bound_s: list[float] = []
    late = threading.Timer(0.3, lambda: (bound_s.append(time.monotonic()), mute.bind(address)))
    late.start()
    try:
        error = refused(lambda: connect(address, timeout_s=2.0))
        assert error.detail == f"no device server answers at {address} within 2 s"
        assert until_s[0] - 2.0 < bound_s[0] <= waited_s[0]  # the 2 s began before the server could be reached
    finally:
        late.join()
        context.destroy(0)
