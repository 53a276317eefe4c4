"""A server whose device is a client of another server, in a process that a test stops: the one in front goes on answering."""

from __future__ import annotations

import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from support.fake_device import FakeDevice, Gate, Serve, wait_until

from photonloop.protocols.client.device_client import ClientOptions, DeviceClient, connect
from photonloop.protocols.errors import DeviceError
from photonloop.protocols.server.device_server import DeviceServer

BEHIND = """
import time
from support.fake_device import FakeDevice
from photonloop.protocols.server.device_server import DeviceServer
server = DeviceServer(FakeDevice(before_setting=lambda setting: time.sleep(0.01)), "tcp://127.0.0.1:*")
print(server.bind(), flush=True)
server.run()
"""
DRIVES = np.ones((200, 8))
INPUTS = np.full((2, 4), 0.5, np.float32)


@pytest.fixture
def behind() -> Iterator[tuple[subprocess.Popen[str], str]]:
    """A device server in a process of its own, and its address."""
    process = subprocess.Popen([sys.executable, "-c", BEHIND], cwd=Path(__file__).parents[1], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    yield process, process.stdout.readline().strip()
    process.kill()
    process.communicate()


@pytest.fixture
def relay(serve: Serve, behind: tuple[subprocess.Popen[str], str]) -> Iterator[DeviceServer]:
    process, address = behind
    device = connect(address, label="relay")
    device.acquire(ttl_s=60.0)
    yield serve(device)
    process.send_signal(signal.SIGCONT)
    device.close()


def timed(call: Callable[[], object]) -> float:
    began_s = time.monotonic()
    call()
    return time.monotonic() - began_s


def patient(address: str) -> DeviceClient:
    return connect(address, options=ClientOptions(silence_s=30.0))


def safe_is_accepted_at_once(address: str) -> None:
    """Ask as a client does at first, without waiting until the device is safe. A server that waits itself takes seconds."""
    with connect(address) as hurried:
        took_s = [timed(lambda: hurried._ask(hurried._side, "safe")) for _ in range(5)]
    assert min(took_s) < 0.05
    assert max(took_s) < 0.5


@contextmanager
def holder_and_other(address: str) -> Iterator[tuple[DeviceClient, DeviceClient]]:
    """Two clients of the server in front: a patient one, which holds the device and a drive, and a reader."""
    with patient(address) as client, connect(address) as other:
        client.acquire()
        client.apply(np.ones(16))
        yield client, other


def test_what_is_behind_stops_and_the_server_in_front_answers(
    relay: DeviceServer, behind: tuple[subprocess.Popen[str], str]
) -> None:
    process, _ = behind
    with holder_and_other(relay.address) as (client, other):
        shown = client.status()
        assert not shown.safe
        assert "status_age_s" not in shown.health
        process.send_signal(signal.SIGSTOP)
        looking = [threading.Thread(target=client.status) for _ in range(3)]
        for thread in looking:
            thread.start()
        time.sleep(0.05)
        assert timed(lambda: other._ask(other._side, "hello")) < 0.5
        safe_is_accepted_at_once(relay.address)
        for thread in looking:
            thread.join()
        stopped_s = time.monotonic()
        status = other.status()
        assert time.monotonic() - stopped_s < 1.0
        assert (status.safe, status.heater_power_w) == (False, shown.heater_power_w)
        assert float(status.health["status_age_s"]) > 0.0
        process.send_signal(signal.SIGCONT)
        wait_until(lambda: client.status().safe, 30.0)
        assert "status_age_s" not in client.status().health


def test_never_told_safe_by_what_was_known_before(relay: DeviceServer, behind: tuple[subprocess.Popen[str], str]) -> None:
    process, _ = behind
    with connect(relay.address) as client:
        assert client.status().safe
        process.send_signal(signal.SIGSTOP)
        assert not client.status().safe
        process.send_signal(signal.SIGCONT)
        wait_until(lambda: client.status().safe)


def test_a_stopped_evaluation_does_not_stop_the_server_in_front(
    relay: DeviceServer, behind: tuple[subprocess.Popen[str], str]
) -> None:
    process, _ = behind
    with holder_and_other(relay.address) as (client, other):
        pending = client.submit(DRIVES, INPUTS, "mesh1")
        wait_until(lambda: client.status().busy)
        process.send_signal(signal.SIGSTOP)
        assert timed(client.cancel) < 0.5
        assert timed(lambda: other._ask(other._side, "hello")) < 0.5
        safe_is_accepted_at_once(relay.address)
        process.send_signal(signal.SIGCONT)
        with pytest.raises(DeviceError) as caught:
            pending.result()
        assert caught.value.code == "interlock"
        wait_until(lambda: client.status().safe, 30.0)
        client.clear_fault("made_safe")  # by another client than the writer
        client.apply(np.ones(16))
        assert client.evaluate(DRIVES[:3], INPUTS, "mesh1").values.shape == (3, 2, 4)


def test_the_status_of_a_relay_is_never_of_before_it_was_asked_for(relay: DeviceServer) -> None:
    with connect(relay.address) as client:
        client.acquire()
        for volts in np.linspace(0.5, 1.5, 20):
            client.apply(np.full(16, volts))
            assert client.status().heater_power_w == pytest.approx(16 * volts**2 / 1000)


class Far(FakeDevice):
    """Like a client: its `cancel` may take as long as a test likes."""

    may_wait = True

    def __init__(self, **more: Any) -> None:
        super().__init__(**more)
        self.cancelling = threading.Event()
        self.cancelled = threading.Event()

    def cancel(self) -> None:
        self.cancelling.set()
        assert self.cancelled.wait(20)
        super().cancel()


def test_a_cancel_that_takes_long_does_not_hit_the_next_evaluation(serve: Serve) -> None:
    gate = Gate()
    device = Far(before_setting=gate)
    with connect(serve(device, inline_s=10.0).address) as client:
        client.acquire()
        stopped = client.submit(DRIVES[:1], INPUTS, "mesh1")
        assert gate.reached.wait(10)
        client.cancel()
        assert device.cancelling.wait(10)
        gate.opened.set()
        after = client.submit(DRIVES[:1], INPUTS, "mesh1")
        time.sleep(0.1)
        assert device.calls == ["evaluate"]
        device.cancelled.set()
        assert after.result().values.shape == (1, 2, 4)
        assert stopped.result().values.shape == (1, 2, 4)  # it was at its last setting


@pytest.mark.parametrize("far", [False, True])
def test_a_cancel_that_fails_does_not_keep_the_device_from_becoming_safe(serve: Serve, far: bool) -> None:
    class Deaf(FakeDevice):
        may_wait = far

        def cancel(self) -> None:
            if self._running:
                raise DeviceError("transport", "the wire is cut", retryable=True)

    gate = Gate()
    device = Deaf(before_setting=gate)
    with connect(serve(device).address) as client:
        client.acquire()
        pending = client.submit(DRIVES[:1], INPUTS, "mesh1")
        assert gate.reached.wait(10)
        safe = threading.Thread(target=client.safe)
        safe.start()
        wait_until(lambda: client._ask(client._side, "status").header.body["safe_pending"])
        gate.opened.set()
        safe.join(10)
        assert not safe.is_alive()
        assert device.calls == ["evaluate", "safe"]
        assert pending.result().values.shape == (1, 2, 4)
