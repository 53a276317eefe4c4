"""Time that the physics around the mesh takes: a chip of preset `soi` compared with a chip without these effects.

    python scripts/benchmarks/profile_physics.py [--json] [--ports 64 784] [--batch 128] [--settings 4] [--rounds 30]

forward_ms is the time per setting for a loaded batch through a mesh with the couplers and losses of `soi`: voltages to
phases, phases to matrices, fields through the mesh, |E|². physics_ms is the additional time for all other effects:
quantisation, integral nonlinearity, drift and noise of the source, shared ground, self-heating, curvature, crosstalk,
phase drift, inputs, laser and detector noise, saturation, memory of the amplifiers and ADC. `parts` is the additional
time of each effect alone (`effects.py` has the effects one by one). The chips take turns. Times are medians, and the
time of an effect is the median of the differences
within a turn. Times are processor time of all threads divided by the number of threads, so that other load on the
machine matters less than in wall time.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import time
from typing import Any

import numpy as np

from photonloop.protocols.device import LoadedRows
from photonloop.simulator.engine.chip import Chip
from photonloop.simulator.parameters import ChipParameters, load_chip

ABSENT: dict[str, dict[str, Any]] = {
    "dac": {"bits": 0, "inl_lsb": 0.0, "noise_v": 0.0, "slow_noise_v": 0.0, "gain_drift_sigma": 0.0},
    "heater": {"self_heating": 0.0, "ground_ohm": 0.0, "curvature": 0.0, "rise_s": 0.0, "fall_s": 0.0},
    "crosstalk": {"fraction": 0.0},
    "drift": {"sigma_rad": 0.0},
    "temperature": {"sigma_k": 0.0, "heating_k_per_w": 0.0},
    "laser": {"rin_db_per_hz": 0.0, "drift_sigma": 0.0, "jitter_pm": 0.0},
    "modulator": {
        "extinction_db": 0.0,
        "amplitude_sigma": 0.0,
        "phase_span_rad": 0.0,
        "crosstalk": 0.0,
        "path_sigma_m": 0.0,
        "phase_drift_rad": 0.0,
        "coupling_drift_sigma": 0.0,
    },
    "photodiode": {"bandwidth_hz": 0.0, "responsivity_sigma": 0.0, "saturation_a": 0.0},
    "adc": {"bits": 0, "headroom": 0.0, "gain_drift_sigma": 0.0},
}
"""Parameters without effect for the plain chip; couplers, losses, offsets and spreads stay."""

PARTS = {
    "source": ("dac",),
    "heater": ("heater",),
    "crosstalk": ("crosstalk",),
    "drift": ("drift", "temperature"),
    "modulators": ("modulator",),
    "laser": ("laser",),
    "detectors": ("photodiode", "adc"),
}


def without(parameters: ChipParameters, parts: tuple[str, ...]) -> ChipParameters:
    """Return the chip with the effects of some parts absent."""
    tables = parameters.model_dump()
    for part in parts:
        tables[part].update(ABSENT[part])
    return ChipParameters.model_validate(tables)


def profile(ports: int, batch: int, settings: int, rounds: int, threads: int) -> dict[str, Any]:
    """Return one row of the result."""
    whole = load_chip("soi", ports=ports, stages=1)
    everything = tuple(ABSENT)
    variants = {"plain": without(whole, everything), "soi": whole}
    for name, kept in PARTS.items():
        variants[name] = without(whole, tuple(part for part in everything if part not in kept))
    chips = {name: Chip(parameters, threads=threads) for name, parameters in variants.items()}
    rng = np.random.default_rng(0)
    inputs = rng.random((2 * batch, ports)).astype(np.float32)
    drives = rng.uniform(0, 6, (settings, chips["soi"].describe().channels))
    rows = LoadedRows("all", np.arange(batch))
    for chip in chips.values():
        chip.load_inputs("all", inputs)
        chip.evaluate(drives, rows, "mesh0")
    times: dict[str, list[float]] = {name: [] for name in chips}
    for _ in range(rounds):
        for name, chip in chips.items():
            start_s = time.process_time()
            chip.evaluate(drives, rows, "mesh0")
            times[name].append(1e3 * (time.process_time() - start_s) / settings / threads)

    def added_ms(name: str) -> float:
        return statistics.median(a - b for a, b in zip(times[name], times["plain"], strict=True))

    forward_ms, physics_ms = statistics.median(times["plain"]), added_ms("soi")
    return {
        "ports": ports,
        "forward_ms": forward_ms,
        "physics_ms": physics_ms,
        "share": physics_ms / forward_ms,
        "parts": {name: added_ms(name) for name in PARTS},
    }


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--ports", type=int, nargs="+", default=[64, 784])
    parser.add_argument("--batch", type=int, default=128)
    parser.add_argument("--settings", type=int, default=4, help="settings per evaluation (%(default)s)")
    parser.add_argument("--rounds", type=int, default=30, help="rounds at 64 ports, fewer for larger meshes (%(default)s)")
    parser.add_argument("--threads", type=int, default=1)
    args = parser.parse_args()
    results = []
    for ports in args.ports:
        rounds = max(5, round(args.rounds * min(1.0, 64 / ports)))
        results.append(profile(ports, args.batch, args.settings, rounds, args.threads))
        if not args.json:
            row = results[-1]
            print(f"{ports} ports: forward {row['forward_ms']:.3f} ms, physics {row['physics_ms']:.3f} ms, {row['share']:.1%}")
            for name, added_ms in row["parts"].items():
                print(f"    {name:12} {added_ms:8.4f} ms  {added_ms / row['forward_ms']:6.1%}")
    if args.json:
        print(json.dumps({"batch": args.batch, "settings": args.settings, "threads": args.threads, "results": results}))
    return 0


if __name__ == "__main__":
    sys.exit(main())
