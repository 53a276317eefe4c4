"""Measure the time that a bench costs: a session on a chip and on instruments, TCP_NODELAY on and off, QDAC-II lists.

    python scripts/benchmarks/lab.py --compare [--json] [--epochs 300] [--experiment examples/iris.toml]
    python scripts/benchmarks/lab.py --nodelay [--json] [--updates 10000] [--slow-updates 20]
    python scripts/benchmarks/lab.py --lists [--json] [--updates 400] [--settings 2 4 8 16 64]

--compare runs an experiment on `sim:soi`, and on `lab:` with virtual instruments of the same chip and seed. Each device
runs in a process of its own, and the virtual instruments in another. The table divides the time of an update into:

    physics      the chip behind the virtual instruments, for every measurement
    instrument   the rest of the virtual instruments' work: parsing commands, keeping their state
    transport    the rest of the time that drivers spent on exchanges: sockets, serial line, waiting at both ends
    settling     waits of the bench for heaters and modulators (virtual instruments settle at once by default)
    bench        the rest of the time of evaluations: limits, ramps, conversions
    controller   everything else: session, estimator, rule, and the messages to the process of the bench

--nodelay drives two benches of 4 ports, one with Nagle's algorithm off, which is the default of the transports, and one
with it on. Their source of heaters, source of modulators and readout are on TCP. An update has 2 settings and 2
samples. The benches take turns in blocks of updates, so that a machine whose speed drifts slows both. Drivers join the
commands of a write with the error query, so that there is never more than one message in transit. "one by one" is the
same comparison with a source of heaters that takes one command per message, for fewer updates because they are slow.

--lists drives two benches of 4 ports whose 16 heaters are on a QDAC-II. On one, the settings of an update are loaded as
a list and stepped through by triggers; on the other, they are written one by one. The benches take turns in blocks as
well. The settings of an update are a few millivolts around a held drive, with 1 sample. Messages and characters are
those between the computer and the QDAC-II. "source_ms" is the time per update that these exchanges took, "ms" the time
of the whole update.
"""

from __future__ import annotations

import argparse
import io
import json
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from photonloop.controller.data.datasets import load_dataset
from photonloop.controller.device.address import parse_device_string
from photonloop.controller.device.compatibility import virtual_chip
from photonloop.controller.device.open_device import OpenDevice, open_device
from photonloop.controller.device.reconnecting import ReconnectingDevice
from photonloop.controller.experiment import Experiment, load_experiment
from photonloop.controller.learning.network import build_network
from photonloop.controller.learning.progress import SilentListener
from photonloop.controller.learning.session import Samples, Session
from photonloop.controller.runs.checkpoint import Checkpoint
from photonloop.controller.runs.run_folder import RunFolder
from photonloop.controller.training import load_sets
from photonloop.drivers.bench.bench_device import Bench
from photonloop.drivers.bench.bench_opening import open_bench
from photonloop.drivers.instrument import Instrument
from photonloop.drivers.registry import open_instrument
from photonloop.drivers.station.loading import load_station
from photonloop.drivers.station.schema import InstrumentTable, Station
from photonloop.drivers.transports.connection_settings import ConnectionSettings
from photonloop.drivers.transports.recording import Recorder
from photonloop.protocols.process import module_command

BLOCK = 50
"""Updates of one bench before it is the other's turn."""


@dataclass(frozen=True)
class BenchProcess:
    """A virtual bench in a process of its own: its station file and its control port."""

    station: Path
    control: str

    def state(self) -> dict[str, Any]:
        """Return its voltages, light and counters."""
        host, _, port = self.control.partition(":")
        with socket.create_connection((host, int(port)), timeout=10.0) as control, control.makefile("rw") as lines:
            lines.write('{"do": "state"}\n')
            lines.flush()
            return json.loads(lines.readline())


@contextmanager
def bench_process(*options: str) -> Iterator[BenchProcess]:
    """Run a virtual bench with the given command line options."""
    with tempfile.TemporaryDirectory(prefix="photonloop-lab-") as folder:
        command = module_command("photonloop.simulator.emulators", "--out", folder, *options)
        process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        assert process.stdout is not None
        try:
            announced = json.loads(process.stdout.readline())
            yield BenchProcess(Path(announced["station"]), announced["control"])
        finally:
            process.terminate()
            process.wait(20.0)
            process.stdout.close()


# ---- the same session on a chip and on its bench ---------------------------------------------------------------------


@dataclass(frozen=True)
class SessionResult:
    """The result of one session.

    Parameters
    ----------
    accuracy
        Test accuracy, by vote.
    updates, evaluations
        Number of updates made and of settings measured.
    wall_s
        Time of the session without opening the device [s].
    health
        Increase of the device's counters during the session.
    """

    accuracy: float
    updates: int
    evaluations: int
    wall_s: float
    health: dict[str, float]


def learn(experiment: Experiment, device: str) -> SessionResult:
    """Run a session of `experiment` on `device`."""
    dataset = load_dataset(experiment.data)
    chip = virtual_chip(parse_device_string("sim:soi"), experiment, dataset)
    opened: list[OpenDevice] = []

    def opener() -> OpenDevice:
        opened.append(open_device(device, write=True, chip=chip))
        return opened[-1]

    def counters() -> dict[str, float]:
        return {name: value for name, value in opened[-1].device.status().health.items() if isinstance(value, float)}

    link = ReconnectingDevice(opener)
    try:
        layers = build_network(experiment, link.description, len(dataset.classes))
        load_sets(link, experiment, dataset)
        samples = Samples(dataset.y_train, dataset.y_test, tuple(str(name) for name in dataset.classes))
        with tempfile.TemporaryDirectory() as path:
            folder = RunFolder(Path(path))
            session = Session(
                experiment=experiment,
                link=link,
                layers=layers,
                samples=samples,
                state=Checkpoint(),
                folder=folder,
                listener=SilentListener(),
            )
            before, began_s = counters(), time.perf_counter()
            prediction = session.run()
            wall_s, after = time.perf_counter() - began_s, counters()
            folder.close()
        accuracy = float(np.mean(prediction.vote == dataset.y_test))
        increase = {name: value - before.get(name, 0.0) for name, value in after.items()}
        return SessionResult(accuracy, session.state.total, session.state.evaluations, wall_s, increase)
    finally:
        link.close()


def compare(path: Path, epochs: int) -> dict[str, float]:
    """Return the accuracies on both devices, and the parts of the time of an update on the bench [ms]."""
    overrides = [f"training.epochs={epochs}", f"training.evaluate_every={epochs}"]
    experiment = load_experiment(path, overrides, device="sim:soi")
    chip = virtual_chip(parse_device_string("sim:soi"), experiment, load_dataset(experiment.data))
    on_chip = learn(experiment, "sim:soi")
    options = {"--chip": "soi", "--ports": chip.ports, "--stages": chip.stages, "--seed": chip.seed}
    with bench_process(*(str(word) for pair in options.items() for word in pair)) as virtual:
        names = [table.name for table in load_station(virtual.station).instruments]
        before = virtual.state()
        on_bench = learn(experiment, f"lab:{virtual.station}")
        after = virtual.state()
    worked_s = sum(after["instruments"][name]["working_s"] - before["instruments"][name]["working_s"] for name in names)
    physics_s = after["physics_s"] - before["physics_s"]
    health, updates = on_bench.health, on_bench.updates
    exchanging_s = sum(health[f"{name}_busy_s"] for name in names)
    evaluating_s, settling_s = health["evaluating_s"], health["settling_s"]
    parts_s = {
        "physics": physics_s,
        "instrument": worked_s - physics_s,
        "transport": exchanging_s - worked_s,
        "settling": settling_s,
        "bench": evaluating_s - exchanging_s - settling_s,
        "controller": on_bench.wall_s - evaluating_s,
    }
    return {
        "updates": updates,
        "evaluations": on_bench.evaluations,
        "sim_accuracy": on_chip.accuracy,
        "lab_accuracy": on_bench.accuracy,
        "sim_ms_per_update": 1e3 * on_chip.wall_s / updates,
        "lab_ms_per_update": 1e3 * on_bench.wall_s / updates,
        "round_trips_per_update": sum(health[f"{name}_calls"] for name in names) / updates,
        **{f"round_trips_{name}": health[f"{name}_calls"] / updates for name in names},
        **{f"{name}_ms": 1e3 * part_s / updates for name, part_s in parts_s.items()},
        "real_instruments_ms": 1e3 * (after["clock_s"] - before["clock_s"]) / updates,
    }


# ---- Nagle's algorithm off and on ------------------------------------------------------------------------------------

TCP = ("--chip", "ideal", "--ports", "4", "--seed", "0", "--heaters", "scpi-source", "--modulators", "qdac2")
TCP = (*TCP, "--detectors", "scpi-readout", "--laser", "scpi-laser")


def open_table(table: InstrumentTable, *, nodelay: bool = True, recorder: Recorder | None = None) -> Instrument:
    """Open the instrument of a station's table, with Nagle's algorithm off or on."""
    link = ConnectionSettings(table.address, name=table.name, nodelay=nodelay, recorder=recorder)
    return open_instrument(table.driver, link, table.settings)


def one_by_one(station: Station) -> Station:
    """Return `station` with a source of heaters that takes one command per message, with an error query after each."""
    changed = {"joins": False, "query_volts": "", "query_amps": ""}
    tables = [
        table.model_copy(update={"settings": table.settings | changed}) if table.driver == "scpi-source" else table
        for table in station.instruments
    ]
    return station.model_copy(update={"instruments": tuple(tables)})


def drive(bench: Bench, rng: np.random.Generator, updates: int) -> float:
    """Time `updates` updates [s] of 2 settings around a held drive and 2 samples."""
    description = bench.describe()
    light = np.array([[0.2, 0.4, 0.6, 0.8], [0.8, 0.6, 0.4, 0.2]], np.float32)
    drives_v = rng.uniform(0.5, 2.0, (updates, 2, description.stages[0].channels))
    began_s = time.perf_counter()
    for settings_v in drives_v:
        bench.evaluate(settings_v, light, description.stages[0].name)
    return time.perf_counter() - began_s


def race(updates: int, *, joined: bool) -> tuple[float, float, float]:
    """Time `updates` updates with TCP_NODELAY and without [s]; return both times and the round trips per update."""
    with ExitStack() as stack:
        benches: list[Bench] = []
        for nodelay in (True, False):
            station = load_station(stack.enter_context(bench_process(*TCP)).station)
            station = station if joined else one_by_one(station)
            benches.append(stack.enter_context(open_bench(station, partial(open_table, nodelay=nodelay))))
        for bench in benches:
            drive(bench, np.random.default_rng(0), 2)  # first calls compile code and switch on the laser
        calls = sum_calls(benches[0])
        rng, times_s, left = np.random.default_rng(1), [0.0, 0.0], updates
        while left > 0:
            block = min(BLOCK, left)
            for index, bench in enumerate(benches):
                times_s[index] += drive(bench, rng, block)
            left -= block
        return times_s[0], times_s[1], (sum_calls(benches[0]) - calls) / updates


def sum_calls(bench: Bench) -> float:
    """Return the number of exchanges of all instruments so far."""
    return sum(float(value) for name, value in bench.status().health.items() if name.endswith("_calls"))


def nodelay(updates: int, slow_updates: int) -> dict[str, float]:
    """Return times [s], times per update [ms], and the ratios of times without and with TCP_NODELAY."""
    with_s, without_s, round_trips = race(updates, joined=True)
    single_with_s, single_without_s, single_round_trips = race(slow_updates, joined=False)
    return {
        "updates": updates,
        "round_trips_per_update": round_trips,
        "nodelay_s": with_s,
        "nagle_s": without_s,
        "nodelay_ms": 1e3 * with_s / updates,
        "nagle_ms": 1e3 * without_s / updates,
        "ratio": without_s / with_s,
        "one_by_one_updates": slow_updates,
        "one_by_one_calls_per_update": single_round_trips,
        "one_by_one_nodelay_ms": 1e3 * single_with_s / slow_updates,
        "one_by_one_nagle_ms": 1e3 * single_without_s / slow_updates,
        "one_by_one_ratio": single_without_s / single_with_s,
    }


# ---- lists -----------------------------------------------------------------------------------------------------------

QDAC = ("--chip", "ideal", "--ports", "4", "--seed", "0", "--heaters", "qdac2", "--modulators", "scpi-source", *TCP[-4:])
PROBE_V = 5e-3


def with_lists(station: Station) -> Station:
    """Return `station` with a QDAC-II that uses lists."""
    tables = [
        table.model_copy(update={"settings": table.settings | {"lists": True}}) if table.driver == "qdac2" else table
        for table in station.instruments
    ]
    return station.model_copy(update={"instruments": tuple(tables)})


def probe(bench: Bench, rng: np.random.Generator, updates: int, settings: int) -> float:
    """Time `updates` updates [s] of `settings` settings near a held drive and 1 sample."""
    description = bench.describe()
    held_v = np.linspace(1.0, 2.0, description.channels)
    bench.apply(held_v)
    drives_v = held_v + rng.uniform(-PROBE_V, PROBE_V, (updates, settings, description.channels))
    began_s = time.perf_counter()
    for settings_v in drives_v:
        bench.evaluate(settings_v, np.array([[0.2, 0.4, 0.6, 0.8]], np.float32), description.stages[0].name)
    return time.perf_counter() - began_s


def traffic(station: Station, settings: int) -> dict[str, float]:
    """Count the messages and characters of one update to and from the source of heaters."""
    file = io.StringIO()
    with open_bench(station, partial(open_table, recorder=Recorder(file))) as bench:
        probe(bench, np.random.default_rng(0), 2, settings)
        bench.apply(np.linspace(1.0, 2.0, 16))
        file.seek(0)
        file.truncate()
        probe(bench, np.random.default_rng(1), 1, settings)
        events = [json.loads(line) for line in file.getvalue().splitlines()]
    here = [event for event in events if event["to"] == "qdac2"]
    sent = [len(event["data"]) for event in here if event["event"] == "sent"]
    got = [len(event["data"]) for event in here if event["event"] == "got"]
    return {"messages": len(sent), "characters_sent": sum(sent), "characters_got": sum(got)}


def lists(updates: int, counts: list[int]) -> dict[str, float]:
    """Return messages, characters and times per update [ms], with lists and without, for each number of settings."""
    answer: dict[str, float] = {"updates": updates}
    for settings in counts:
        with ExitStack() as stack:
            listed, written = (load_station(stack.enter_context(bench_process(*QDAC)).station) for _ in range(2))
            stations = {"listed": with_lists(listed), "written": written}
            for mode, station in stations.items():
                answer |= {f"{mode}_{settings}_{name}": value for name, value in traffic(station, settings).items()}
            benches = {mode: stack.enter_context(open_bench(station, open_table)) for mode, station in stations.items()}
            times_s, rng, left = dict.fromkeys(stations, 0.0), np.random.default_rng(1), updates
            for bench in benches.values():
                probe(bench, rng, 2, settings)
            busy_s = {mode: float(bench.status().health["qdac2_busy_s"]) for mode, bench in benches.items()}
            while left > 0:
                for mode, bench in benches.items():
                    times_s[mode] += probe(bench, rng, min(BLOCK, left), settings)
                left -= BLOCK
            for mode, bench in benches.items():
                source_s = float(bench.status().health["qdac2_busy_s"]) - busy_s[mode]
                answer[f"{mode}_{settings}_source_ms"] = 1e3 * source_s / updates
                answer[f"{mode}_{settings}_ms"] = 1e3 * times_s[mode] / updates
            answer[f"ratio_{settings}"] = times_s["written"] / times_s["listed"]
    return answer


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.add_argument("--compare", action="store_true", help="the same session on a chip and on its virtual bench")
    parser.add_argument("--nodelay", action="store_true", help="a bench over TCP with Nagle's algorithm off and on")
    parser.add_argument("--lists", action="store_true", help="a QDAC-II with lists and without")
    parser.add_argument("--settings", type=int, nargs="+", default=[2, 4, 8, 16, 64], help="settings per update of --lists")
    parser.add_argument("--experiment", type=Path, default=Path(__file__).parents[2] / "examples" / "iris.toml")
    parser.add_argument("--epochs", type=int, default=300, help="epochs of --compare")
    parser.add_argument("--updates", type=int, default=0, help="updates of --nodelay (0: 10000) and of --lists (0: 400)")
    parser.add_argument("--slow-updates", type=int, default=20, help="updates of --nodelay with one command per message")
    options = parser.parse_args(arguments)
    if not (options.compare or options.nodelay or options.lists):
        parser.error("no measurement chosen: give --compare, --nodelay or --lists")
    answer: dict[str, dict[str, float]] = {}
    if options.compare:
        answer["compare"] = compare(options.experiment, options.epochs)
    if options.nodelay:
        answer["nodelay"] = nodelay(options.updates or 10_000, options.slow_updates)
    if options.lists:
        answer["lists"] = lists(options.updates or 400, options.settings)
    if options.json:
        print(json.dumps(answer if len(answer) > 1 else next(iter(answer.values()))))
    else:
        for what, figures in answer.items():
            print(what)
            for name, value in figures.items():
                print(f"    {name:32} {value:.4g}" if isinstance(value, float) else f"    {name:32} {value}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
