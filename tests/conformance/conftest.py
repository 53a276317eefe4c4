"""All kinds of devices, for the tests that every device must pass.

To add a kind, add an entry to `KINDS`: a context manager that yields a function, which opens the device with the lease
held.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

import pytest
from support.fake_device import FakeDevice
from support.fake_instruments import FakeLab, bench_of

from photonloop.controller.device.address import parse_device_string
from photonloop.controller.device.processes import start_process
from photonloop.drivers.bench.bench_clock import WallClock
from photonloop.drivers.bench.bench_opening import open_lab
from photonloop.protocols.client.device_client import connect
from photonloop.protocols.device import PhotonicDevice
from photonloop.protocols.server.device_server import DeviceServer, ServerOptions
from photonloop.simulator.engine.chip import Chip
from photonloop.simulator.parameters import load_chip

Open = Callable[[], PhotonicDevice]


@contextmanager
def in_process(make: Callable[[], PhotonicDevice]) -> Iterator[Open]:
    yield make


@contextmanager
def behind_a_server(make: Callable[[], PhotonicDevice], bind: str, options: ServerOptions) -> Iterator[Open]:
    device = make()
    server = DeviceServer(device, bind, options=options)
    address = server.bind()
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    try:
        yield lambda: opened(address)
    finally:
        server.stop()
        thread.join(10)
        device.close()
        assert not thread.is_alive()


@contextmanager
def in_a_process_of_its_own() -> Iterator[Open]:
    command = [sys.executable, "-m", "photonloop.simulator", "--chip", "soi", "--ports", "4", "--stages", "2", "--seed", "1"]
    process = subprocess.Popen([*command, "--bind", "tcp://127.0.0.1:*"], stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        address = json.loads(process.stdout.readline())["address"]
        yield lambda: opened(address)
        process.terminate()
        assert process.wait(10) == 0
    finally:
        process.kill()
        process.wait()
        if process.stdout is not None:
            process.stdout.close()


def opened(address: str) -> PhotonicDevice:
    client = connect(address)
    client.acquire()
    return client


def chip(preset: str) -> Callable[[], PhotonicDevice]:
    return lambda: Chip(load_chip(preset, ports=4, stages=2, seed=1))


def bench() -> Callable[[], PhotonicDevice]:
    """A bench of instruments in memory."""
    locks = Path(tempfile.mkdtemp())
    clock = WallClock()
    return lambda: bench_of(FakeLab(clock), clock, locks)


@contextmanager
def virtual_instruments() -> Iterator[Path]:
    """Start virtual instruments in a process; yield their station file, with small capacities for short tests."""
    folder = Path(tempfile.mkdtemp())
    command = [
        sys.executable,
        "-m",
        "photonloop.simulator.emulators",
        "--chip",
        "soi",
        "--ports",
        "4",
        "--stages",
        "2",
        "--seed",
        "1",
    ]
    process = subprocess.Popen([*command, "--out", str(folder)], stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        station = Path(json.loads(process.stdout.readline())["station"])
        capacity = "[capacity]\nmax_batch = 128\nmax_settings = 8\nmax_readings = 1024\n\n[limits]"
        station.write_text(station.read_text().replace("[limits]", capacity))
        yield station
    finally:
        process.terminate()
        process.communicate(timeout=20)


@contextmanager
def bench_on_virtual_instruments() -> Iterator[Open]:
    with virtual_instruments() as station:
        yield lambda: open_lab(str(station))


@contextmanager
def virtual_instruments_behind_a_server() -> Iterator[Open]:
    with virtual_instruments() as station:
        process = start_process(parse_device_string(f"lab:{station}"))
        try:
            yield lambda: opened(process.address)
        finally:
            process.end()


def wired(topology: str, stages: int) -> Callable[[], PhotonicDevice]:
    parameters = load_chip("soi", ports=4, stages=stages, seed=1)
    mesh = parameters.mesh.model_copy(update={"topology": topology})
    return lambda: Chip(parameters.model_copy(update={"mesh": mesh}))


def one_input() -> PhotonicDevice:
    """A chip whose inputs are lit one at a time, by a laser that cannot be switched."""
    parameters = load_chip("soi", ports=4, stages=2, seed=1)
    modulator = parameters.modulator.model_copy(update={"kind": "switch"})
    laser = parameters.laser.model_copy(update={"switch": False})
    return Chip(parameters.model_copy(update={"modulator": modulator, "laser": laser}))


def ipc() -> str:
    return f"ipc://{tempfile.mkdtemp()}/device"


# PIECES: small messages, so that loaded inputs are sent in pieces. INLINE: as in the simulator's process.
PIECES = ServerOptions(max_message_bytes=4096)
INLINE = ServerOptions(inline_s=0.005)

KINDS: dict[str, Callable[[], AbstractContextManager[Open]]] = {
    "fake": lambda: in_process(FakeDevice),
    "fake-tcp": lambda: behind_a_server(FakeDevice, "tcp://127.0.0.1:*", PIECES),
    "fake-ipc": lambda: behind_a_server(FakeDevice, ipc(), INLINE),
    "ideal": lambda: in_process(chip("ideal")),
    "soi": lambda: in_process(chip("soi")),
    "svd": lambda: in_process(wired("svd", 2)),
    "weight-bank": lambda: in_process(wired("weight_bank", 1)),
    "one-input": lambda: in_process(one_input),
    "one-input-tcp": lambda: behind_a_server(one_input, "tcp://127.0.0.1:*", ServerOptions()),
    "soi-tcp": lambda: behind_a_server(chip("soi"), "tcp://127.0.0.1:*", PIECES),
    "soi-process": in_a_process_of_its_own,
    "bench": lambda: in_process(bench()),
    "bench-instruments": bench_on_virtual_instruments,
    "bench-process": virtual_instruments_behind_a_server,
    "bench-tcp": lambda: behind_a_server(bench(), "tcp://127.0.0.1:*", ServerOptions()),
}


STARTS_PROCESSES = frozenset({"soi-process", "bench-process"})


@pytest.fixture(
    scope="session",
    params=[pytest.param(kind, marks=pytest.mark.slow) if kind in STARTS_PROCESSES else kind for kind in KINDS],
)
def open_device(request: pytest.FixtureRequest) -> Iterator[Open]:
    """Function that opens the device. It may be called repeatedly, after the earlier device was closed."""
    with KINDS[request.param]() as opener:
        yield opener


@pytest.fixture
def device(open_device: Open) -> Iterator[PhotonicDevice]:
    one = open_device()
    yield one
    one.close()
