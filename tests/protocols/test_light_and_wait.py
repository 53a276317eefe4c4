"""`wait`, `set_light` and `readback` through a server: what ends a wait, deadlines, and the light in the safe state."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial

import numpy as np
import pytest
from pydantic import JsonValue
from support.fake_device import FakeDevice, Gate, Serve, fake_description, wait_until

from photonloop.protocols.client import server_connection
from photonloop.protocols.client.device_client import DeviceClient, connect
from photonloop.protocols.device import Readings
from photonloop.protocols.errors import DeviceError
from photonloop.protocols.server.scheduler import Scheduler
from photonloop.protocols.wire.messages import COMMANDS, Op, Request, WaitBody, decode_body
from photonloop.simulator.engine.chip import Chip
from photonloop.simulator.parameters import load_chip

DRIVES = np.ones((3, 8))
INPUTS = np.full((2, 4), 0.5, np.float32)
HOUR_S = 3600.0


@contextmanager
def waiting(device: FakeDevice, client: DeviceClient) -> Iterator[Future[None]]:
    """Let `client` wait for an hour on `device` in a thread; yield its outcome when the wait has begun."""
    device.wait_ends = threading.Event()
    with ThreadPoolExecutor(1) as pool:
        outcome = pool.submit(client.wait, HOUR_S)
        assert device.waiting.wait(10)
        yield outcome
        device.wait_ends.set()


@pytest.fixture
def lit(serve: Serve) -> Iterator[tuple[FakeDevice, DeviceClient]]:
    """A served device with a held drive and its light on, and the client that holds its lease."""
    device = FakeDevice()
    with connect(serve(device).address) as client:
        client.acquire()
        client.apply(np.ones(16))
        client.set_light(True)
        assert client.status().light is True
        yield device, client


def error_of(outcome: Future[None]) -> DeviceError:
    error = outcome.exception(10)
    assert isinstance(error, DeviceError)
    return error


def test_commands_are_numbered() -> None:
    assert {"set_light", "wait", "readback"} <= COMMANDS


@pytest.mark.parametrize("seconds", [-0.1, 8 * 86_400.0, None, "5", True])
def test_the_server_checks_the_duration(seconds: object) -> None:
    with pytest.raises(DeviceError) as caught:
        decode_body(WaitBody, {"seconds": seconds})  # pyright: ignore[reportArgumentType]
    assert caught.value.code == "bad_request"


def test_all_three_need_the_lease(serve: Serve) -> None:
    device = FakeDevice()
    with connect(serve(device).address) as client:
        for call in (lambda: client.wait(1.0), lambda: client.set_light(True), client.readback):
            with pytest.raises(DeviceError) as caught:
                call()
            assert caught.value.code == "lease"
    assert device.calls == []


def test_a_read_back_with_nan_passes_the_wire(lit: tuple[FakeDevice, DeviceClient]) -> None:
    device, client = lit
    here, there = device.readback(), client.readback()
    np.testing.assert_array_equal(here.volts, there.volts)
    np.testing.assert_array_equal(here.amperes, there.amperes)
    assert np.isnan(there.amperes[-1])


@pytest.mark.parametrize("who", ["holder", "other"])
def test_safe_ends_a_wait_and_switches_the_light_off(lit: tuple[FakeDevice, DeviceClient], who: str) -> None:
    device, client = lit
    with waiting(device, client) as outcome, connect(client.address) as other:
        assert other.status().busy
        assert not other.status().safe
        (client if who == "holder" else other).safe()
        error = error_of(outcome)
        assert (error.code, error.outcome) == ("interlock", "not_applied")
        assert (other.status().safe, other.status().light) == (True, False)


def test_cancel_ends_a_wait_and_leaves_the_device_as_it_is(lit: tuple[FakeDevice, DeviceClient]) -> None:
    device, client = lit
    with waiting(device, client) as outcome:
        client.cancel()
        error = error_of(outcome)
        assert (error.code, error.detail) == ("interlock", "the wait was cancelled")
        assert (client.status().light, client.status().heater_power_w > 0) == (True, True)
    client.wait(0)


def test_a_lost_lease_ends_a_wait_and_makes_the_device_safe(serve: Serve) -> None:
    device = FakeDevice()
    address = serve(device).address
    with connect(address) as client, connect(address) as other:
        client.acquire(ttl_s=0.1)
        client.evaluate(DRIVES, INPUTS, "mesh1")
        with waiting(device, client) as outcome:
            client._lease.stop_renewing()
            assert error_of(outcome).code == "lease"
            wait_until(lambda: other.status().safe)
        status = other.status()
        assert (status.light, [fault.name for fault in status.faults]) == (False, ["lease_lost"])
        client.acquire()
        with pytest.raises(DeviceError, match="lease_lost"):
            client.set_light(True)
        client.set_light(False)
        client.wait(0)
        client.readback()
        assert other.status().safe


def test_the_light_is_off_after_a_release(lit: tuple[FakeDevice, DeviceClient]) -> None:
    device, client = lit
    client.release()
    assert (client.status().safe, client.status().light) == (True, False)
    assert not device.light


@pytest.mark.parametrize("how", ["safe", "release", "lost lease"])
def test_the_light_of_a_served_chip_is_off_after(serve: Serve, how: str) -> None:
    chip = Chip(load_chip("ideal", ports=4, stages=1), threads=1)
    address = serve(chip, inline_s=0.005).address
    with connect(address) as client, connect(address) as other:
        client.acquire(ttl_s=0.1)
        client.evaluate(np.ones((1, 16)), INPUTS, "mesh0")
        assert (other.status().safe, other.status().light) == (False, True)
        ends: dict[str, Callable[[], None]] = {
            "safe": client.safe,
            "release": client.release,
            "lost lease": client._lease.stop_renewing,
        }
        ends[how]()
        wait_until(lambda: other.status().safe)
        assert other.status().light is False
    chip.close()


def test_a_release_ends_a_wait(lit: tuple[FakeDevice, DeviceClient]) -> None:
    device, client = lit
    with waiting(device, client) as outcome:
        client.release()
        assert error_of(outcome).code == "lease"
        assert client.status().safe


def test_a_server_that_stops_ends_a_wait(serve: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server_connection, "_GONE_S", 0.05)
    device = FakeDevice()
    server = serve(device)
    with connect(server.address) as client:
        client.acquire()
        with waiting(device, client) as outcome:
            server.stop()
            assert error_of(outcome).code == "transport"
        wait_until(lambda: "safe" in device.calls)


def test_a_wait_that_has_started_is_not_stopped_by_its_deadline() -> None:
    device = FakeDevice()
    device.wait_ends = threading.Event()
    scheduler = Scheduler(device, lambda: None, working_s=0.5, max_bytes=1000)
    scheduler.start()
    now_s = time.monotonic()
    request = Request(op="wait", id=1, client_id="a", seq=1, deadline=now_s + 60.0)
    scheduler.submit(b"route", request, partial(device.wait, HOUR_S))
    assert device.waiting.wait(10)
    for later_s in range(0, 7200, 600):
        _, working = scheduler.tick(now_s + later_s)
        assert len(working) == (later_s > 0), "the client is sent working"
    device.wait_ends.set()
    ended: list[object] = []
    wait_until(lambda: ended.extend(outcome for _, _, outcome in scheduler.collect()) or ended)
    assert ended == [None]
    assert scheduler.join(10)
    assert device.clock_s == HOUR_S


def test_the_lease_is_renewed_during_a_wait(lit: tuple[FakeDevice, DeviceClient]) -> None:
    device, client = lit
    renewed = threading.Event()
    ask = client._lease._ask

    def noting(op: Op, body: dict[str, JsonValue]) -> Mapping[str, JsonValue]:
        answer = ask(op, body)
        if op == "renew":
            renewed.set()
        return answer

    with waiting(device, client) as outcome:
        client._lease._ask = noting
        client.acquire(ttl_s=0.15)
        assert renewed.wait(10)
        assert not outcome.done()
        assert device.wait_ends is not None
        device.wait_ends.set()
        assert outcome.result(10) is None


def test_a_cancel_that_overtakes_a_wait_prevents_it(serve: Serve) -> None:
    device = FakeDevice()
    with connect(serve(device).address) as client:
        client.acquire()
        late, frames = client._encoder.encode("wait", {"seconds": HOUR_S}, {})
        client.cancel()
        assert client._main is not None
        with pytest.raises(DeviceError, match="the wait was cancelled"):
            client._main.ask(late, frames)
    assert "wait" not in device.calls


def test_readings_are_pending_while_the_client_waits(lit: tuple[FakeDevice, DeviceClient]) -> None:
    _, client = lit
    pending = client.submit(DRIVES, INPUTS, "mesh1")
    for call in (lambda: client.wait(1.0), lambda: client.set_light(True), client.readback):
        with pytest.raises(DeviceError, match="still pending"):
            call()
    assert pending.result().values.shape == (3, 2, 4)


def test_the_first_evaluation_after_safe_is_not_carried_out_in_the_socket_loop(serve: Serve) -> None:
    """It switches the light on, which may take long."""
    threads: list[str] = []
    device = FakeDevice(before_setting=lambda setting: threads.append(threading.current_thread().name))
    with connect(serve(device, inline_s=10.0).address) as client:
        client.acquire()
        for _ in range(2):
            client.evaluate(DRIVES, INPUTS, "mesh1")
        client.safe()
        client.apply(np.ones(16))
        for _ in range(2):
            client.evaluate(DRIVES, INPUTS, "mesh1")
    in_worker = [name == "photonloop-device" for name in threads[:: len(DRIVES)]]
    assert in_worker == [True, False, True, False]


def test_an_evaluation_that_arrives_after_safe_does_not_light_the_chip(serve: Serve) -> None:
    gate = Gate(1)
    device = FakeDevice(before_setting=gate)
    with connect(serve(device).address) as client, connect(client.address) as other:
        client.acquire()
        client.apply(np.ones(16))
        first, second = (client.submit(DRIVES, INPUTS, "mesh1") for _ in range(2))
        assert gate.reached.wait(10)
        other._ask(other._side, "safe")
        gate.opened.set()
        for pending in (first, second):
            with pytest.raises(DeviceError):
                pending.result()
        wait_until(lambda: other.status().safe)
        assert not device.light


@pytest.mark.parametrize("wrong", ["flags", "time_s"])
def test_replies_whose_arrays_do_not_match_are_refused(serve: Serve, wrong: str) -> None:
    class Wrong(FakeDevice):
        def evaluate(self, drives: object, inputs: object, stage: str) -> Readings:
            good = super().evaluate(drives, inputs, stage)  # pyright: ignore[reportArgumentType]
            flags = good.flags[:, 0] if wrong == "flags" else good.flags
            return Readings(good.values, good.time_s[:-1] if wrong == "time_s" else good.time_s, flags)

    with connect(serve(Wrong()).address) as client:
        client.acquire()
        with pytest.raises(DeviceError, match="which do not match") as caught:
            client.evaluate(DRIVES, INPUTS, "mesh1")
    assert (caught.value.code, caught.value.outcome) == ("transport", "unknown")


def test_a_device_without_a_light_switch(serve: Serve) -> None:
    with connect(serve(FakeDevice(fake_description(light_switch=False))).address) as client:
        client.acquire()
        with pytest.raises(DeviceError, match="light_switch is false"):
            client.set_light(True)
        client.evaluate(DRIVES, INPUTS, "mesh1")
        assert (client.status().light, client.status().safe) == (None, True)


def test_a_relay_passes_them_all_on(serve: Serve) -> None:
    device = FakeDevice()
    with connect(serve(device).address) as behind:
        behind.acquire()
        with connect(serve(behind).address) as client:
            client.acquire()
            client.apply(np.ones(16))
            client.set_light(True)
            assert device.light
            np.testing.assert_array_equal(client.readback().volts, np.ones(16))
            with waiting(device, client) as outcome:
                client.cancel()
                assert error_of(outcome).detail == "the wait was cancelled"
            with waiting(device, client) as outcome:
                client.safe()
                assert error_of(outcome).code == "interlock"
            assert (client.status().safe, device.light) == (True, False)


@contextmanager
def simulator_in_real_time() -> Iterator[tuple[subprocess.Popen[str], DeviceClient]]:
    command = [sys.executable, "-m", "photonloop.simulator", "--chip", "ideal", "--ports", "4", "--realtime"]
    process = subprocess.Popen([*command, "--bind", "tcp://127.0.0.1:*"], stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        with connect(json.loads(process.stdout.readline())["address"]) as client:
            client.acquire()
            client.apply(np.ones(client.describe().channels))
            yield process, client
    finally:
        process.kill()
        process.communicate()


@pytest.mark.slow
@pytest.mark.parametrize("stop", ["cancel", "safe"])
def test_a_wait_of_a_simulator_in_real_time_can_be_stopped(stop: str) -> None:
    with simulator_in_real_time() as (_, client), ThreadPoolExecutor(1) as pool:
        client.evaluate(np.ones((1, 16)), np.ones((1, 4), np.float32), client.describe().stages[0].name)
        outcome = pool.submit(client.wait, HOUR_S)
        wait_until(lambda: client.status().busy)
        stops: dict[str, Callable[[], None]] = {"cancel": client.cancel, "safe": client.safe}
        stops[stop]()
        assert error_of(outcome).code == "interlock"
        assert (client.status().safe, client.status().light) == (stop == "safe", stop == "cancel")


@pytest.mark.slow
def test_a_simulator_that_dies_during_a_wait_is_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server_connection, "_GONE_S", 0.05)
    with simulator_in_real_time() as (process, client), ThreadPoolExecutor(1) as pool:
        outcome = pool.submit(client.wait, HOUR_S)
        wait_until(lambda: client.status().busy)
        process.kill()
        error = error_of(outcome)
        assert (error.code, error.outcome, error.retryable) == ("transport", "unknown", True)
