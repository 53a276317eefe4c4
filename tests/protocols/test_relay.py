"""A server whose device is a client of another server (a relay) answers while that server's process is stopped."""

from __future__ import annotations

import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from support.fake_device import FakeDevice, Gate, Serve, wait_until

from photonloop.protocols.client.device_client import ClientOptions, DeviceClient, connect
from photonloop.protocols.errors import DeviceError
from photonloop.protocols.server.device_server import DeviceServer

pytestmark = pytest.mark.slow

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
    """A device server in another process, and its address."""
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


def connect_with_long_timeout(address: str) -> DeviceClient:
    return connect(address, options=ClientOptions(silence_s=30.0))


def safe_is_accepted(address: str) -> None:
    """Send `safe` without waiting until the device is safe: it must be accepted while the other server is stopped."""
    with connect(address) as client:
        assert client._ask(client._side, "safe").header.body == {"in_effect": False}


@contextmanager
def holder_and_other(address: str) -> Iterator[tuple[DeviceClient, DeviceClient]]:
    """Two clients of the relay: one with a long timeout, which holds the lease and a drive, and one without a lease."""
    with connect_with_long_timeout(address) as client, connect(address) as other:
        client.acquire()
        client.apply(np.ones(16))
        yield client, other


def test_a_relay_answers_while_the_server_behind_it_is_stopped(
    relay: DeviceServer, behind: tuple[subprocess.Popen[str], str]
) -> None:
    process, _ = behind
    with holder_and_other(relay.address) as (client, other):
        shown = client.status()
        assert not shown.safe
        assert "status_age_s" not in shown.health
        process.send_signal(signal.SIGSTOP)
        readers = [threading.Thread(target=client.status) for _ in range(3)]
        for thread in readers:
            thread.start()
        time.sleep(0.05)
        other._ask(other._side, "hello")
        safe_is_accepted(relay.address)
        for thread in readers:
            thread.join()
        status = other.status()
        assert (status.safe, status.heater_power_w) == (False, shown.heater_power_w)
        assert float(status.health["status_age_s"]) > 0.0
        process.send_signal(signal.SIGCONT)
        wait_until(lambda: client.status().safe, 30.0)
        assert "status_age_s" not in client.status().health


def test_an_old_status_is_never_safe(relay: DeviceServer, behind: tuple[subprocess.Popen[str], str]) -> None:
    process, _ = behind
    with connect(relay.address) as client:
        assert client.status().safe
        process.send_signal(signal.SIGSTOP)
        assert not client.status().safe
        process.send_signal(signal.SIGCONT)
        wait_until(lambda: client.status().safe)


def test_an_evaluation_on_a_stopped_server_does_not_block_the_relay(
    relay: DeviceServer, behind: tuple[subprocess.Popen[str], str]
) -> None:
    process, _ = behind
    with holder_and_other(relay.address) as (client, other):
        pending = client.submit(DRIVES, INPUTS, "mesh1")
        wait_until(lambda: client.status().busy)
        process.send_signal(signal.SIGSTOP)
        client.cancel()
        other._ask(other._side, "hello")
        safe_is_accepted(relay.address)
        process.send_signal(signal.SIGCONT)
        with pytest.raises(DeviceError) as caught:
            pending.result()
        assert caught.value.code == "interlock"
        wait_until(lambda: client.status().safe, 30.0)
        client.clear_fault("made_safe")  # it was another client than the writer
        client.apply(np.ones(16))
        assert client.evaluate(DRIVES[:3], INPUTS, "mesh1").values.shape == (3, 2, 4)


def test_the_status_of_a_relay_is_read_after_the_request(relay: DeviceServer) -> None:
    with connect(relay.address) as client:
        client.acquire()
        for volts in np.linspace(0.5, 1.5, 20):
            client.apply(np.full(16, volts))
            assert client.status().heater_power_w == pytest.approx(16 * volts**2 / 1000)


class SlowCancelDevice(FakeDevice):
    """A device whose `cancel` waits until the test lets it return."""

    may_wait = True

    def __init__(self, **more: Any) -> None:
        super().__init__(**more)
        self.cancelling = threading.Event()
        self.cancelled = threading.Event()

    def cancel(self) -> None:
        self.cancelling.set()
        assert self.cancelled.wait(20)
        super().cancel()


def test_a_slow_cancel_does_not_stop_the_next_evaluation(serve: Serve) -> None:
    gate = Gate()
    device = SlowCancelDevice(before_setting=gate)
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
        assert stopped.result().values.shape == (1, 2, 4)  # it had reached its last setting


@pytest.mark.parametrize("far", [False, True])
def test_the_device_is_made_safe_if_cancel_fails(serve: Serve, far: bool) -> None:
    class UncancellableDevice(FakeDevice):
        may_wait = far

        def cancel(self) -> None:
            if self._running:
                raise DeviceError("transport", "the connection is lost", retryable=True)

    gate = Gate()
    device = UncancellableDevice(before_setting=gate)
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
