"""Measure which kinds of probing help on noisy and drifting chips: digits on 64 ports, one layer, equal evaluations.

    python scripts/studies/probe_aids.py [--json] [--quick] [--seeds 0 1 2] [--presets soi harsh lab] [--jobs 2]

Each probing is trained on the same chips with the same number of settings (`learning_loop`):

    interleaved  pairs + - + - …, 4 directions per update, with the probe step that a session measures
    blocks       the same settings in the order + + + + - - - -
    reference    differences to a setting at the present variables, measured anew in every update (5 settings)
    repeated     each setting is measured twice and averaged, so there are half as many updates
    1, 16        directions per update
    step × k     the measured probe step times k, and the fixed step of 0.05 rad
"""

from __future__ import annotations

import argparse
import json
import sys
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass, replace
from functools import cache

import numpy as np
from learning_loop import Outcome, Recipe, digits_task, learn

MEASURED = Recipe(step_rad=None)
PROBINGS: dict[str, Recipe | float] = {
    "interleaved": MEASURED,
    "blocks": replace(MEASURED, order="blocks"),
    "reference": replace(MEASURED, order="reference"),
    "repeated": replace(MEASURED, repeats=2),
    "1 direction": replace(MEASURED, directions=1),
    "16 directions": replace(MEASURED, directions=16),
    "step × 0.3": 0.3,
    "step × 3": 3.0,
    "step × 10": 10.0,
    "step 0.05 rad": Recipe(step_rad=0.05),
}
"""Recipes by name; a number stands for the interleaved recipe with the measured step times this number."""


@dataclass(frozen=True)
class ProbedChip:
    """One trained chip."""

    preset: str
    probing: str
    seed: int
    outcome: Outcome


@cache
def measured_step_rad(preset: str, seed: int) -> float:
    """Return the probe step [rad] that a session measures on this chip."""
    return learn(digits_task(preset, seed), replace(MEASURED, evaluations=0)).step_rad


def run(preset: str, probing: str, seed: int, evaluations: int) -> ProbedChip:
    recipe = PROBINGS[probing]
    if not isinstance(recipe, Recipe):
        recipe = replace(MEASURED, step_rad=recipe * measured_step_rad(preset, seed))
    return ProbedChip(preset, probing, seed, learn(digits_task(preset, seed), replace(recipe, evaluations=evaluations)))


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.add_argument("--quick", action="store_true", help="one seed, 8 000 evaluations")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2], help="seeds of experiment and chip")
    parser.add_argument("--presets", nargs="+", default=["soi", "harsh", "lab"])
    parser.add_argument("--evaluations", type=int, default=26_400)
    parser.add_argument("--jobs", type=int, default=2, help="chips at the same time")
    args = parser.parse_args()
    seeds, evaluations = (args.seeds[:1], 8_000) if args.quick else (args.seeds, args.evaluations)
    cases = [(preset, probing, seed, evaluations) for preset in args.presets for probing in PROBINGS for seed in seeds]
    with ProcessPoolExecutor(args.jobs) as pool:
        rows = list(pool.map(run, *zip(*cases, strict=True)))
    if args.json:
        print(json.dumps({"evaluations": evaluations, "results": [asdict(row) for row in rows]}))
        return 0
    print("| probing | " + " | ".join(f"`{preset}` | step [rad]" for preset in args.presets) + " |")
    print("|---|" + "---|---|" * len(args.presets))
    for probing in PROBINGS:
        cells = []
        for preset in args.presets:
            found = [row.outcome for row in rows if (row.preset, row.probing) == (preset, probing)]
            accuracy = np.array([outcome.accuracy for outcome in found])
            cells.append(f"{accuracy.mean():.3f} ({accuracy.min():.3f}) | {np.mean([o.step_rad for o in found]):.4f}")
        print(f"| {probing} | " + " | ".join(cells) + " |")
    return 0


if __name__ == "__main__":
    sys.exit(main())
