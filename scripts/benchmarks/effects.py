"""Time that single effects of preset `soi` add to the forward, each alone and all together.

    python scripts/benchmarks/effects.py [--json] [--ports 64] [--batch 128] [--settings 4] [--rounds 300]

The plain chip has the effects of version 0.1: quantisation and integral nonlinearity of the sources, heaters, drift of
phases, temperature and laser, modulators, couplers, losses, noise and saturation of the detectors, ADC, and thermal
crosstalk between neighbouring heaters. Every row adds one effect to it, and the last one all of them, which is `soi`.
The chips take turns. A time is the shortest of all rounds, in processor time of all threads divided by the number of
threads, so that other load on the machine matters little. The ratio compares it with the plain chip.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from typing import Any

import numpy as np

from photonloop.protocols.device import LoadedRows
from photonloop.simulator.engine.chip import Chip
from photonloop.simulator.parameters import ChipParameters, load_chip

EFFECTS: dict[str, dict[str, dict[str, Any]]] = {
    "source noise": {"dac": {"noise_v": 0.0}},
    "source drift": {"dac": {"slow_noise_v": 0.0, "gain_drift_sigma": 0.0}},
    "resistances": {"heater": {"resistance_sigma": 0.0}},
    "shared ground": {"heater": {"ground_ohm": 0.0}},
    "far crosstalk": {"crosstalk": {"reach_m": 1.5e-4}},
    "heating": {"temperature": {"heating_k_per_w": 0.0}},
    "wavelength": {"laser": {"jitter_pm": 0.0}},
    "input drift": {"modulator": {"path_sigma_m": 0.0, "phase_drift_rad": 0.0, "coupling_drift_sigma": 0.0}},
    "amplifier memory": {"photodiode": {"has_memory": False}},
    "converters": {
        "adc": {"noise_lsb": 0.0, "offset_lsb": 0.0, "offset_sigma_lsb": 0.0, "offset_drift_lsb": 0.0, "gain_drift_sigma": 0.0}
    },
}
"""Effects, and the parameters with which each of them is absent."""


def without(parameters: ChipParameters, effects: list[str]) -> ChipParameters:
    """Return the parameters with the given effects absent."""
    tables = parameters.model_dump()
    for effect in effects:
        for table, values in EFFECTS[effect].items():
            tables[table].update(values)
    return ChipParameters.model_validate(tables)


def measured(chips: dict[str, Chip], batch: int, settings: int, rounds: int, stage: str, threads: int) -> dict[str, float]:
    """Return the shortest time per setting of each chip [ms]."""
    rng = np.random.default_rng(0)
    description = next(iter(chips.values())).describe()
    inputs = rng.random((batch, description.stages[0].ports)).astype(np.float32)
    drives = rng.uniform(0, 6, (settings, description.stages[0].channels))
    rows = LoadedRows("all", np.arange(batch))
    for chip in chips.values():
        chip.load_inputs("all", inputs)
        chip.evaluate(drives, rows, stage)
    shortest_s = dict.fromkeys(chips, np.inf)
    for _ in range(rounds):
        for name, chip in chips.items():
            start_s = time.process_time()
            chip.evaluate(drives, rows, stage)
            shortest_s[name] = min(shortest_s[name], time.process_time() - start_s)
    return {name: 1e3 * shortest / settings / threads for name, shortest in shortest_s.items()}


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--ports", type=int, default=64)
    parser.add_argument("--batch", type=int, default=128)
    parser.add_argument("--settings", type=int, default=4, help="settings per evaluation (%(default)s)")
    parser.add_argument("--rounds", type=int, default=300)
    parser.add_argument("--stage", default="mesh0", help="stage that is read, of two (%(default)s)")
    parser.add_argument("--threads", type=int, default=1)
    args = parser.parse_args()
    whole = load_chip("soi", ports=args.ports, stages=2)
    variants = {"plain": without(whole, list(EFFECTS))}
    variants |= {effect: without(whole, [other for other in EFFECTS if other != effect]) for effect in EFFECTS}
    variants["all"] = whole
    chips = {name: Chip(parameters, threads=args.threads) for name, parameters in variants.items()}
    times = measured(chips, args.batch, args.settings, args.rounds, args.stage, args.threads)
    ratios = {name: time_ms / times["plain"] for name, time_ms in times.items()}
    if args.json:
        print(json.dumps({**vars(args), "plain_ms": times["plain"], "ratios": ratios}))
        return 0
    print(f"{args.ports} ports, {args.batch} samples, {args.settings} settings: {times['plain']:.4f} ms per setting")
    for name, ratio in ratios.items():
        print(f"    {name:18} {times[name]:8.4f} ms  {ratio - 1.0:+7.1%}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
