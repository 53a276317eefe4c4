"""A virtual bench that runs: every unit behind its socket or line, in one event loop.

In a process of its own it is `python -m photonloop.simulator.emulators`; in a test it runs in a thread beside the test
(`running`).
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
from photonloop.simulator.emulators import control
from photonloop.simulator.emulators.bench_choices import Choices
from photonloop.simulator.emulators.control import ControlServer
from photonloop.simulator.emulators.servers import SerialServer, TcpServer
from photonloop.simulator.emulators.station_writer import station_toml
from photonloop.simulator.emulators.unit_faults import UnitFault
from photonloop.simulator.emulators.virtual_bench import VirtualBench, build
from photonloop.simulator.parameters import ChipParameters

_Answer = TypeVar("_Answer")


@dataclass(frozen=True)
class Addresses:
    """Where a running bench is reached.

    Parameters
    ----------
    instruments
        VISA address of each instrument.
    control
        "HOST:PORT" of the control port.
    station
        The station file.
    """

    instruments: dict[str, str]
    control: str
    station: Path


@dataclass(frozen=True)
class RunningBench:
    """A bench in a thread beside the caller; everything is asked of it by way of its event loop."""

    bench: VirtualBench
    addresses: Addresses
    loop: asyncio.AbstractEventLoop

    def call(self, function: Callable[[], _Answer]) -> _Answer:
        """Return what `function` returns in the bench's own thread: nothing moves meanwhile."""

        async def run() -> _Answer:
            return function()

        return asyncio.run_coroutine_threadsafe(run(), self.loop).result(10.0)

    def inject(self, instrument: str, kind: str, **details: Any) -> None:
        """Plan a fault (`UnitFault`)."""
        fault = UnitFault.model_validate({"kind": kind, **details})
        self.call(lambda: control.inject(self.bench, instrument, fault))

    def state(self) -> dict[str, Any]:
        """Return what is held, lit and counted."""
        return self.call(lambda: control.state(self.bench))


@contextmanager
def running(
    parameters: ChipParameters,
    choices: Choices | None = None,
    *,
    speed: float = 0.0,
    stamped: bool = False,
    folder: Path | None = None,
) -> Iterator[RunningBench]:
    """Run the bench of a chip in a thread; see `wiring.build`. The station file goes into `folder`, or a temporary one."""
    bench = build(parameters, choices, speed=speed, stamped=stamped)
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever, name="virtual bench", daemon=True)
    thread.start()
    try:
        with tempfile.TemporaryDirectory(prefix="photonloop-bench-") as temporary:
            servers = Servers(bench)
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


class Servers:
    """All sockets and lines of a bench."""

    def __init__(self, bench: VirtualBench) -> None:
        self._bench = bench
        self._control = ControlServer(bench)
        self._servers: dict[str, TcpServer | SerialServer] = {}

    async def start(self, parameters: ChipParameters, folder: Path, speed: float) -> Addresses:
        """Open everything, write `station.toml` into `folder`; return where everything is."""
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
        """Close everything."""
        self._control.close()
        for server in self._servers.values():
            server.close()
        await asyncio.sleep(0)
