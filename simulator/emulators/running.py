"""A running virtual bench: every unit behind its socket or serial line, in one event loop.

`python -m photonloop.simulator.emulators` runs it in a process of its own, `running` in a thread of the caller's
process.
"""

from __future__ import annotations

import asyncio
import tempfile
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from photonloop.protocols.atomic_files import write_atomically
from photonloop.simulator.emulators import control_port
from photonloop.simulator.emulators.bench_choices import BenchChoices
from photonloop.simulator.emulators.control_port import ControlServer
from photonloop.simulator.emulators.servers import SerialServer, TcpServer
from photonloop.simulator.emulators.station_writer import station_toml
from photonloop.simulator.emulators.unit_faults import UnitFault
from photonloop.simulator.emulators.virtual_bench import VirtualBench, build
from photonloop.simulator.parameters import ChipParameters

_Answer = TypeVar("_Answer")


@dataclass(frozen=True)
class Addresses:
    """The addresses of a running bench.

    Parameters
    ----------
    instruments
        VISA address of each instrument.
    control
        "HOST:PORT" of the control port.
    station
        Path of the station file.
    """

    instruments: dict[str, str]
    control: str
    station: Path


@dataclass(frozen=True)
class RunningBench:
    """A virtual bench that runs in another thread. Its methods go through the event loop of that thread."""

    bench: VirtualBench
    addresses: Addresses
    loop: asyncio.AbstractEventLoop

    def call(self, function: Callable[[], _Answer]) -> _Answer:
        """Call `function` in the bench's own thread and return its result. No message is handled meanwhile."""

        async def run() -> _Answer:
            return function()

        return asyncio.run_coroutine_threadsafe(run(), self.loop).result(10.0)

    def inject(self, instrument: str, kind: str, **details: Any) -> None:
        """Schedule a fault: `kind` and `details` are the fields of a `UnitFault`."""
        fault = UnitFault.model_validate({"kind": kind, **details})
        self.call(lambda: control_port.inject(self.bench, instrument, fault))

    def state(self) -> dict[str, Any]:
        """Return voltages, light and counters (`control_port.state`)."""
        return self.call(lambda: control_port.state(self.bench))


@contextmanager
def running(
    parameters: ChipParameters,
    choices: BenchChoices | None = None,
    *,
    speed: float = 0.0,
    stamped: bool = False,
    folder: Path | None = None,
) -> Iterator[RunningBench]:
    """Run the virtual bench of a chip in a thread.

    Parameters
    ----------
    parameters, choices, speed, stamped
        As for `virtual_bench.build`.
    folder
        Folder for the station file and the serial lines. None: a temporary one.
    """
    bench = build(parameters, choices, speed=speed, stamped=stamped)
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever, name="virtual bench", daemon=True)
    thread.start()
    try:
        with tempfile.TemporaryDirectory(prefix="photonloop-bench-") as temporary:
            servers = BenchServers(bench)
            start = servers.start(parameters, folder or Path(temporary), speed)
            addresses = asyncio.run_coroutine_threadsafe(start, loop).result(60.0)
            try:
                yield RunningBench(bench, addresses, loop)
            finally:
                asyncio.run_coroutine_threadsafe(servers.close(), loop).result(10.0)
    finally:
        loop.call_soon_threadsafe(loop.stop)
        thread.join(10.0)
        loop.close()
        bench.laboratory.close()


class BenchServers:
    """The sockets and serial lines of a bench."""

    def __init__(self, bench: VirtualBench) -> None:
        self._bench = bench
        self._control = ControlServer(bench)
        self._servers: dict[str, TcpServer | SerialServer] = {}

    async def start(self, parameters: ChipParameters, folder: Path, speed: float) -> Addresses:
        """Start all servers and write `station.toml` into `folder`; return the addresses."""
        folder.mkdir(parents=True, exist_ok=True)
        folder = folder.resolve()
        addresses: dict[str, str] = {}
        for name, unit in self._bench.units.items():
            server = SerialServer(unit, folder / name) if name in self._bench.serial else TcpServer(unit)
            self._servers[name] = server
            addresses[name] = await server.start()
        station = folder / "station.toml"
        write_atomically(station, station_toml(self._bench, parameters, addresses, speed=speed).encode())
        return Addresses(addresses, await self._control.start(), station)

    async def close(self) -> None:
        """Close all servers."""
        self._control.close()
        for server in self._servers.values():
            server.close()
        await asyncio.sleep(0)
