"""Measure the time that the process boundary costs: the same session with the chip in this process and in another one.

    python scripts/benchmarks/loop.py [--json] [--ports 64] [--batch 128] [--seconds 4] [--rounds 5] [--sequential]

Both run `photonloop.controller.learning.session.Session` on digits, preset `soi`, one layer, with 2 settings per update
and with 16. They take turns, so that a machine whose speed drifts slows both. The ratio is the median over rounds of
the time with a simulator process divided by the time without.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import psutil

from photonloop.controller.data.datasets import DataSpec, load_dataset
from photonloop.controller.device.open_device import OpenDevice, open_device
from photonloop.controller.device.processes import VirtualChip
from photonloop.controller.device.reconnecting import ReconnectingDevice
from photonloop.controller.experiment import EstimatorSpec, Experiment, NetworkSpec, TrainingSpec
from photonloop.controller.learning.network import build_network
from photonloop.controller.learning.progress import SilentListener
from photonloop.controller.learning.session import Samples, Session
from photonloop.controller.runs.checkpoint import Checkpoint
from photonloop.controller.runs.run_folder import RunFolder
from photonloop.controller.training import load_sets
from photonloop.simulator.engine.chip import Chip
from photonloop.simulator.parameters import load_chip

SEED = 0


@dataclass(frozen=True)
class Timing:
    """Time of one session [s] and its number of evaluations."""

    wall_s: float
    evaluations: int


def experiment_of(ports: int, batch: int, directions: int, epochs: int, *, pipelined: bool = True) -> Experiment:
    """Return an experiment with one layer on digits (fewer pixels on fewer ports), evaluated only at the end."""
    side = min(8, int(ports**0.5))
    return Experiment(
        name="loop-benchmark",
        seed=SEED,
        data=DataSpec(source="digits") if side == 8 else DataSpec(source="digits", image="pool", size=side),
        network=NetworkSpec(ports=ports, layers=1),
        estimator=EstimatorSpec(name="spsa", probe_step_rad=0.05, directions=directions),
        training=TrainingSpec(epochs=epochs, batch=batch, evaluate_every=epochs, checkpoint_s=3600.0, pipelined=pipelined),
    )


def one_session(experiment: Experiment, opener: Callable[[], OpenDevice]) -> tuple[Timing, dict[str, float]]:
    """Time one session without opening the device and loading data; return also the memory of its processes [MB]."""
    dataset = load_dataset(experiment.data)
    link = ReconnectingDevice(opener)
    try:
        layers = build_network(experiment, link.description, len(dataset.classes))
        load_sets(link, experiment, dataset)
        with tempfile.TemporaryDirectory() as folder_path:
            folder = RunFolder(Path(folder_path))
            session = Session(
                experiment=experiment,
                link=link,
                layers=layers,
                samples=Samples(dataset.y_train, dataset.y_test, tuple(str(c) for c in dataset.classes)),
                state=Checkpoint(),
                folder=folder,
                listener=SilentListener(),
            )
            start = time.perf_counter()
            session.run()
            wall_s = time.perf_counter() - start
            folder.close()
        memory = {"controller_mb": psutil.Process().memory_info().rss / 1e6}
        for child in psutil.Process().children():
            memory["simulator_mb"] = child.memory_info().rss / 1e6
        return Timing(wall_s, session.state.evaluations), memory
    finally:
        link.close()


def compare(args: argparse.Namespace, directions: int) -> dict[str, float]:
    """Return medians with the chip in this process and in another one, and of their ratio."""
    ports, batch, pipelined = args.ports, args.batch, not args.sequential

    def in_process() -> OpenDevice:
        return OpenDevice(Chip(load_chip("soi", ports=ports, stages=1, seed=SEED)))

    def process() -> OpenDevice:
        return open_device("sim:soi", write=True, chip=VirtualChip(ports=ports, stages=1, seed=SEED))

    epochs = 5
    short = experiment_of(ports, batch, directions, epochs, pipelined=pipelined)
    one_session(short, in_process)  # compiles the kernels or loads them from the cache
    trial, _ = one_session(short, in_process)
    enough = max(epochs, round(epochs * args.seconds / trial.wall_s))
    experiment = experiment_of(ports, batch, directions, enough, pipelined=pipelined)
    pairs = []
    memory: dict[str, float] = {}
    for _ in range(args.rounds):
        here, _ = one_session(experiment, in_process)
        there, memory = one_session(experiment, process)
        pairs.append((here, there))
    return {
        "in_process_s": statistics.median(a.wall_s for a, _ in pairs),
        "process_s": statistics.median(b.wall_s for _, b in pairs),
        "ratio": statistics.median(b.wall_s / a.wall_s for a, b in pairs),
        "in_process_evaluations_per_s": statistics.median(a.evaluations / a.wall_s for a, _ in pairs),
        "process_evaluations_per_s": statistics.median(b.evaluations / b.wall_s for _, b in pairs),
        **memory,
    }


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.add_argument("--ports", type=int, default=64, help="ports of the mesh")
    parser.add_argument("--batch", type=int, default=128, help="samples per update")
    parser.add_argument("--seconds", type=float, default=4.0, help="approximate time of each session")
    parser.add_argument("--rounds", type=int, default=5, help="sessions of each kind")
    parser.add_argument("--sequential", action="store_true", help="without pipelining of updates")
    args = parser.parse_args()
    two, sixteen = compare(args, 1), compare(args, 8)
    answer = {"ports": args.ports, "batch": args.batch, **two, **{f"{k}_16": v for k, v in sixteen.items()}}
    if args.json:
        print(json.dumps(answer))
    else:
        for name, value in answer.items():
            print(f"{name:34} {value:.4g}" if isinstance(value, float) else f"{name:34} {value}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
