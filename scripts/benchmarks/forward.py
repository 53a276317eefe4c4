"""Speed of the forward through a mesh, compared with NumPy and with the limits of the machine.

    python scripts/benchmarks/forward.py [--json] [--ports 16 64 256 784] [--batch 128] [--rounds 15] [--only forward
    settings …]

A forward propagates a batch of complex single-precision fields through a Clements mesh at given phases. The couplers
have errors, so all eight numbers of every 2 × 2 matrix matter. `ours` is the kernel of the virtual chip on its worker
threads; `numpy` is a loop over columns that computes a whole column for the whole batch at once. Both start from
matrices and fields in the layout that suits them, and the script compares the resulting fields. Limits are measured in
the same rounds, on all processors together:

    arithmetic   28 operations per interferometer and sample, at the rate of fused multiply-adds on registers
    cache        one mode read and written and one matrix read per interferometer, at the rate of the first-level cache
    stream       all matrices, once per block of 16 samples, at the rate of reading an array of their size

The largest of the three times is the binding limit, and `limit_fraction` is its share of the measured time. All
measurements take turns within each round, so that changes of the machine's speed affect all of them. Times are medians
over rounds, and the ratio is the median of the ratios of the rounds. A limit is the best of all rounds, so that other
load does not enter it. For the same reason the shortest times are reported too, and `one_thread_fraction`: one thread
against the arithmetic limit of one, both in processor time of the thread.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import psutil
from machine_limits import MODE_BYTES, SLICE_S, Machine, operations_per_thread_s, seconds
from numba import njit

from photonloop.controller.device.open_device import open_device
from photonloop.controller.device.processes import VirtualChip
from photonloop.protocols.device import LoadedRows
from photonloop.simulator import kernels
from photonloop.simulator.engine.chip import Chip
from photonloop.simulator.engine.workers import Workers, default_count
from photonloop.simulator.parameters import load_chip
from photonloop.simulator.physics.mesh import clements, couplers, schedule

_compiled: Any = njit(nogil=True)

SEED = 0
_MATRIX_BYTES = 32


# --- The forward, ours and NumPy's ------------------------------------------------------------------------------------


@_compiled
def _forward(worker, control, blocks, tops, matrices):
    place = np.zeros(2, np.int64)
    while True:
        item = kernels.next_item(control, blocks.shape[0], worker, place)
        if item < 0:
            break
        kernels.sweep(blocks[item], tops, matrices)
        kernels.finish_item(control)


class Forward:
    """A mesh with random phases, coupler errors and inputs, laid out for our kernels and for NumPy."""

    def __init__(self, ports: int, batch: int) -> None:
        rng = np.random.default_rng(SEED)
        mesh = clements(ports)
        self.interferometers = n = mesh.interferometers
        phase = rng.uniform(0, 2 * np.pi, 2 * n)
        order = schedule(mesh)
        self.phasor = np.stack([np.cos(phase), np.sin(phase)]).astype(np.float32)
        self.couplers = couplers(mesh, rng.normal(0, 0.02, (n, 2)))[order].astype(np.float32)
        self.tops, self.theta, self.phi = mesh.top[order], order, n + order
        self.matrices = np.empty((n, 8), np.float32)
        self.coefficients()
        self.fields = (rng.normal(size=(batch, ports, 2)) / np.sqrt(2 * ports)).astype(np.float32)
        self.blocks = np.empty((-(-batch // kernels.LANES), ports, 2, kernels.LANES), np.float32)
        kernels.gather(self.fields, np.arange(batch), self.blocks)
        self.state = np.ascontiguousarray(self.fields.view(np.complex64)[..., 0].T)
        in_order_of_mesh = self.matrices[np.argsort(order)].view(np.complex64)
        columns = [np.flatnonzero(mesh.column == c) for c in range(int(mesh.column.max()) + 1)]
        self.columns = [(int(mesh.top[here[0]]), in_order_of_mesh[here]) for here in columns if here.size]

    @property
    def flops(self) -> float:
        """Floating-point operations of a forward."""
        return self.blocks.shape[0] * self.interferometers * kernels.FLOPS_PER_BLOCK

    @property
    def cache_bytes(self) -> float:
        """Bytes that the interferometers read from and write to the first-level cache."""
        return self.blocks.shape[0] * self.interferometers * (2 * MODE_BYTES + _MATRIX_BYTES)

    @property
    def stream_bytes(self) -> float:
        """Bytes of matrices that are read."""
        return self.blocks.shape[0] * self.interferometers * _MATRIX_BYTES

    def coefficients(self) -> None:
        """Compute the matrices from the phasors, on this thread."""
        kernels.coefficients(self.phasor, self.theta, self.phi, self.couplers, self.matrices)

    def ours(self, workers: Workers) -> None:
        """Propagate the blocks with the compiled kernel, in place."""
        job = workers.new_job(self.blocks.shape[0], self.flops)
        workers.run(job, lambda worker: _forward(worker, job.control, self.blocks, self.tops, self.matrices))

    def numpy(self) -> None:
        """Propagate the fields, complex64 (ports, batch), with NumPy, in place."""
        state = self.state
        for top, m in self.columns:
            stop = top + 2 * m.shape[0]
            upper, lower = state[top:stop:2], state[top + 1 : stop : 2]
            above = m[:, 0:1] * upper + m[:, 1:2] * lower
            state[top + 1 : stop : 2] = m[:, 2:3] * upper + m[:, 3:4] * lower
            state[top:stop:2] = above

    def disagreement(self, workers: Workers) -> float:
        """Run both once; return the largest difference of a field."""
        self.ours(workers)
        self.numpy()
        out = np.empty_like(self.fields)
        kernels.scatter(self.blocks, np.arange(out.shape[0]), out)
        return float(np.max(np.abs(out.view(np.complex64)[..., 0].T - self.state)))


# --- Measuring --------------------------------------------------------------------------------------------------------


def in_turn(
    works: dict[str, Callable[[], object]], rounds: int, clock: Callable[[], float] = time.perf_counter
) -> dict[str, list[float]]:
    """Return the time [s] of each work in each round; short works are repeated to fill `SLICE_S`."""
    repeats = {}
    for name, work in works.items():
        work()
        repeats[name] = max(1, round(SLICE_S / seconds(work)))
    times: dict[str, list[float]] = {name: [] for name in works}
    for _ in range(rounds):
        for name, work in works.items():
            times[name].append(seconds(work, repeats[name], clock))
    return times


# --- What is measured -------------------------------------------------------------------------------------------------


def forward(ports: int, args: argparse.Namespace, workers: Workers, machine: Machine) -> dict[str, Any]:
    """Return times at one size, the ratio to NumPy and the share of the binding limit."""
    it, alone = Forward(ports, args.batch), Workers(1)
    difference = it.disagreement(workers)
    if not difference < 1e-5:
        raise SystemExit(f"at {ports} ports the fields of kernel and NumPy differ by {difference:.1e}, more than 1e-5")
    rows = max(2, it.matrices.nbytes // (2 * MODE_BYTES) * 2)
    shared = np.zeros((rows, 2, kernels.LANES), np.float32)
    measured: dict[str, list[float]] = {"arithmetic": [], "cache": [], "stream": []}
    fractions: list[float] = []
    often = max(1, round(SLICE_S / seconds(partial(it.ours, alone))))

    def measure_limits() -> None:
        measured["arithmetic"].append(it.flops / machine.operations_per_s())
        measured["cache"].append(it.cache_bytes / machine.cache_bytes_per_s())
        measured["stream"].append(it.stream_bytes / machine.stream_bytes_per_s(shared))
        own_s = seconds(partial(it.ours, alone), often, time.thread_time)
        fractions.append(it.flops / operations_per_thread_s() / own_s)

    works = {
        "ours": partial(it.ours, workers),
        "one_thread": partial(it.ours, alone),
        "coefficients": it.coefficients,
        "numpy": it.numpy,
        "limits": measure_limits,
    }
    times = in_turn(works, args.rounds)
    alone.close()
    del times["limits"]
    median = {name: statistics.median(values) for name, values in times.items()}
    limit = {name: min(values) for name, values in measured.items()}
    binding = max(limit, key=lambda name: limit[name])
    return {
        "ports": ports,
        **{f"{name}_ms": 1e3 * value for name, value in median.items()},
        "ratio": statistics.median(b / a for a, b in zip(times["ours"], times["numpy"], strict=True)),
        "limit_fraction": limit[binding] / median["ours"],
        "one_thread_fraction": statistics.median(fractions),
        "gflops": it.flops / median["ours"] / 1e9,
        "binding": binding,
        **{f"{name}_limit_ms": 1e3 * value for name, value in limit.items()},
        **{f"{name}_least_ms": 1e3 * min(times[name]) for name in ("ours", "one_thread", "numpy")},
    }


def growth(args: argparse.Namespace) -> dict[str, Any]:
    """Return exponents of time ~ ports^a at `args.batch` and ~ batch^b at 128 ports, least times of one thread."""
    sizes, batches = (128, 192, 256, 384, 512, 784), (64, 128, 256, 512, 1024)
    alone = Workers(1)
    by_size = in_turn({str(n): partial(Forward(n, args.batch).ours, alone) for n in sizes}, args.rounds, time.thread_time)
    by_batch = in_turn({str(b): partial(Forward(128, b).ours, alone) for b in batches}, args.rounds, time.thread_time)
    size_ms = {name: 1e3 * min(times) for name, times in by_size.items()}
    batch_ms = {name: 1e3 * min(times) for name, times in by_batch.items()}
    return {
        "ports_exponent": float(np.polyfit(np.log(sizes), np.log(list(size_ms.values())), 1)[0]),
        "batch_exponent": float(np.polyfit(np.log(batches), np.log(list(batch_ms.values())), 1)[0]),
        "ms_by_ports": size_ms,
        "ms_by_batch": batch_ms,
    }


def settings(args: argparse.Namespace) -> list[dict[str, Any]]:
    """Return the time per setting of whole evaluations with S settings, on one thread and on all threads."""
    lines = []
    for ports in (16, 64):
        for count in (1, 2, 16, 64):
            works: dict[str, Callable[[], object]] = {}
            for name, threads in (("one_thread", 1), ("all_threads", None)):
                chip, inputs, volts = ready_chip("ideal", ports, 1, args.batch, count, threads)
                works[name] = partial(chip.evaluate, volts, inputs, "mesh0")
            times = in_turn(works, args.rounds)
            lines.append(
                {
                    "ports": ports,
                    "settings": count,
                    **{f"{name}_ms": 1e3 * statistics.median(values) / count for name, values in times.items()},
                    "speedup": statistics.median(a / b for a, b in zip(times["one_thread"], times["all_threads"], strict=True)),
                }
            )
    return lines


def remembered(args: argparse.Namespace) -> list[dict[str, Any]]:
    """Return the time of a reading at each of two stages, and of the first after a change of stage 1's held drive."""
    lines = []
    for ports in (64, 256):
        chip, inputs, volts = ready_chip("ideal", ports, 2, args.batch, 1, None)
        upstream = [np.tile(volts[0], 2), np.tile(volts[0] * 0.9, 2)]
        times = in_turn(
            {
                "stage_1": partial(chip.evaluate, volts, inputs, "mesh0"),
                "stage_2": partial(chip.evaluate, volts, inputs, "mesh1"),
            },
            args.rounds,
        )
        changed = []
        for turn in range(args.rounds):
            chip.apply(upstream[turn % 2])
            changed.append(seconds(partial(chip.evaluate, volts, inputs, "mesh1")))
        lines.append(
            {
                "ports": ports,
                **{f"{name}_ms": 1e3 * statistics.median(values) for name, values in times.items()},
                "stage_2_after_a_change_of_stage_1_ms": 1e3 * statistics.median(changed),
            }
        )
    return lines


def largest(args: argparse.Namespace) -> dict[str, Any]:
    """Return the start time, memory and time per reading of a simulator process with 784 ports and two stages."""
    start = time.perf_counter()
    opened = open_device("sim:ideal", write=True, chip=VirtualChip(ports=784, stages=2, seed=SEED))
    try:
        opened_s = time.perf_counter() - start
        assert opened.process is not None
        process = psutil.Process(opened.process.process.pid)
        device, description = opened.device, opened.device.describe()
        rng = np.random.default_rng(SEED)
        device.load_inputs("bench", rng.uniform(0, 1, (args.batch, 784)).astype(np.float32))
        highest_v = np.sqrt(description.limits.total_power_w * description.drive.resistance_ohm / description.channels)
        device.apply(rng.uniform(0, highest_v, description.channels))
        inputs = LoadedRows("bench", np.arange(args.batch))
        answer: dict[str, Any] = {"ports": 784, "stages": 2, "channels": description.channels, "open_s": opened_s}
        for stage in description.stages:
            volts = rng.uniform(0, highest_v, (1, stage.channels))
            device.evaluate(volts, inputs, stage.name)
            times = [seconds(partial(device.evaluate, volts, inputs, stage.name)) for _ in range(args.rounds)]
            answer[f"{stage.name}_ms"] = 1e3 * statistics.median(times)
        return {**answer, "resident_mb": process.memory_info().rss / 1e6, "peak_mb": peak_mb(process.pid)}
    finally:
        opened.close()


def ready_chip(
    preset: str, ports: int, stages: int, batch: int, count: int, threads: int | None
) -> tuple[Chip, LoadedRows, np.ndarray]:
    """Return a chip with a loaded batch, and `count` settings of one stage."""
    chip = Chip(load_chip(preset, ports=ports, stages=stages, seed=SEED), threads=threads)
    rng = np.random.default_rng(SEED)
    chip.load_inputs("bench", rng.uniform(0, 1, (batch, ports)).astype(np.float32))
    return chip, LoadedRows("bench", np.arange(batch)), rng.uniform(0, 4, (count, chip.describe().stages[0].channels))


def peak_mb(pid: int) -> float | None:
    """Return the peak resident memory of a process [MB], or None if the system does not report it (only Linux does)."""
    status = Path(f"/proc/{pid}/status")
    if not status.exists():
        return None
    line = next(line for line in status.read_text().splitlines() if line.startswith("VmHWM:"))
    return float(line.split()[1]) * 1024 / 1e6


# --- Output -----------------------------------------------------------------------------------------------------------


_FORWARD = ("ports", "ours_ms", "one_thread_ms", "numpy_ms", "ratio", "limit_fraction", "one_thread_fraction", "gflops")
_LIMITS = ("ports", "ours_least_ms", "arithmetic_limit_ms", "cache_limit_ms", "stream_limit_ms", "binding", "coefficients_ms")


def table(lines: list[dict[str, Any]], names: Sequence[str] = ()) -> str:
    """Return records with the same keys as a Markdown table, with the columns `names` or all."""
    names = list(names or lines[0])
    rows = [names, ["---"] * len(names), *([shown(line[name]) for name in names] for line in lines)]
    return "\n".join("| " + " | ".join(row) + " |" for row in rows)


def shown(value: Any) -> str:
    """Return a value as text, numbers with three digits."""
    if isinstance(value, float):
        return f"{value:.0f}" if value >= 100 else f"{value:.3g}"
    if isinstance(value, list):
        return ", ".join(shown(v) for v in value)
    return ", ".join(f"{k}: {shown(v)}" for k, v in value.items()) if isinstance(value, dict) else str(value)


def main() -> int:
    parts = ("forward", "growth", "settings", "remembered", "largest")
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--ports", type=int, nargs="+", default=[16, 64, 256, 784])
    parser.add_argument("--batch", type=int, default=128)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--only", nargs="+", choices=parts, default=parts, help="measurements to run (default: all)")
    args = parser.parse_args()
    processors = default_count()
    workers = Workers(processors)
    machine = Machine(processors, ThreadPoolExecutor(processors))
    before = os.getloadavg()[0]
    answer: dict[str, Any] = {"batch": args.batch, "rounds": args.rounds, "threads": processors}
    if "forward" in args.only:
        answer["results"] = [forward(ports, args, workers, machine) for ports in args.ports]
    if "growth" in args.only:
        answer["growth"] = growth(args)
    if "settings" in args.only:
        answer["settings"] = settings(args)
    if "remembered" in args.only:
        answer["remembered"] = remembered(args)
    if "largest" in args.only:
        answer["largest"] = largest(args)
    answer["load"] = [before, os.getloadavg()[0]]
    if args.json:
        print(json.dumps(answer))
        return 0
    for name, part in answer.items():
        if name == "results":
            print(f"\nforward\n\n{table(part, _FORWARD)}\n\nlimits\n\n{table(part, _LIMITS)}")
        elif name in {"settings", "remembered"}:
            print(f"\n{name}\n\n{table(part)}")
        elif isinstance(part, dict):
            print(f"\n{name}\n")
            print("\n".join(f"    {key:18} {shown(value)}" for key, value in part.items()))
        else:
            print(f"{name:10} {shown(part)}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
