"""Defects that are named on chips with injected faults, and on sound chips.

    python scripts/studies/calibration_faults.py [--json] [--chip soi] [--ports 8] [--chips 20]

One chip per fault and place, one chip with all faults at once, and sound chips. Nothing is calibrated: the search needs
the description only. A fault is named if kind, channels and ports are right, and nothing else is named.
"""

from __future__ import annotations

import argparse
import json
import sys
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from photonloop.controller.calibration.calibrated_device import Trouble
from photonloop.controller.calibration.setting_reader import SettingReader
from photonloop.controller.calibration.stage_troubles import find_troubles
from photonloop.controller.calibration.twin_layout import TwinLayout, twin_layout
from photonloop.simulator.engine.chip import Chip
from photonloop.simulator.parameters import ChipParameters, load_chip

Named = tuple[str, tuple[int, ...], tuple[int, ...]]
"""Kind, channels and ports."""


@dataclass(frozen=True)
class FaultRow:
    """One chip: what was injected and named, and settings of the search."""

    seed: int
    injected: list[Named]
    named: list[Named]
    settings: int

    @property
    def right(self) -> bool:
        """Whether all faults and nothing else were named."""
        return sorted(self.injected) == sorted(self.named)


def study(parameters: ChipParameters, faults: list[tuple[dict[str, Any], Named]]) -> FaultRow:
    """Search for the defects of one chip."""
    tables = {**parameters.model_dump(), "faults": [fault for fault, _ in faults]}
    chip = Chip(ChipParameters.model_validate(tables), threads=1)
    description = chip.describe()
    stage = description.stages[0]
    reader = SettingReader(chip, stage.name)
    found = find_troubles(reader, twin_layout(description, stage), np.random.default_rng(parameters.seed), chip)
    return FaultRow(parameters.seed, [named for _, named in faults], [_named(each) for each in found], reader.settings)


def _named(trouble: Trouble) -> Named:
    return trouble.kind, trouble.channels, trouble.ports


def faults_of(layout: TwinLayout, rng: np.random.Generator) -> list[tuple[dict[str, Any], Named]]:
    """Return one fault of each kind at random places that do not touch each other."""
    some = rng.permutation(layout.interferometers)
    theta, phi = layout.theta[some].tolist(), layout.phi[some].tolist()
    k, top = int(some[4]), int(layout.top[some[4]])
    place = {"stage": 0, "column": int(layout.column[k]), "top": top, "coupler": int(rng.integers(1, 3))}
    pairs = rng.permutation(layout.ports // 2)[:2]
    one, other = sorted(int(2 * pair + rng.integers(2)) for pair in pairs)
    tap, swapped = int(rng.integers(layout.taps)), tuple(sorted((theta[2], phi[3])))
    return [
        ({"kind": "dead_heater", "channel": theta[0]}, ("dead heater", (theta[0],), ())),
        ({"kind": "stuck_channel", "channel": phi[1], "volts": 3.0}, ("stuck channel", (phi[1],), ())),
        ({"kind": "open_detector", "stage": 0, "port": tap}, ("open detector", (), (tap,))),
        ({"kind": "broken_coupler", **place}, ("broken coupler", (int(layout.theta[k]), int(layout.phi[k])), (top, top + 1))),
        ({"kind": "swapped_heaters", "channel": swapped[0], "other": swapped[1]}, ("swapped heaters", swapped, ())),
        ({"kind": "swapped_inputs", "port": one, "other": other}, ("swapped inputs", (), (one, other))),
    ]


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.add_argument("--chip", default="soi", help="preset or chip file")
    parser.add_argument("--ports", type=int, default=8)
    parser.add_argument("--chips", type=int, default=20, help="number of sound chips, with the seeds 0, 1, …")
    parser.add_argument("--faulty", type=int, default=3, help="number of chips for each fault, and with all faults at once")
    args = parser.parse_args()
    rows = []
    for seed in range(max(args.chips, args.faulty)):
        parameters = load_chip(args.chip, ports=args.ports, stages=1, seed=seed)
        if seed < args.chips:
            rows.append(study(parameters, []))
        if seed < args.faulty:
            description = Chip(parameters, threads=1).describe()
            faults = faults_of(twin_layout(description, description.stages[0]), np.random.default_rng(seed))
            rows += [study(parameters, [fault]) for fault in faults] + [study(parameters, faults)]
    if args.json:
        print(json.dumps({"chip": args.chip, "ports": args.ports, "rows": [asdict(row) | {"right": row.right} for row in rows]}))
        return 0
    kinds = ["none", *sorted({row.injected[0][0] for row in rows if len(row.injected) == 1}), "all of them"]
    print("| injected | chips | named, and nothing else | settings |")
    print("|---|---|---|---|")
    for kind in kinds:
        number = {"none": 0, "all of them": 6}.get(kind, 1)
        some = [row for row in rows if len(row.injected) == number and (number != 1 or row.injected[0][0] == kind)]
        if some:
            settings = f"{min(row.settings for row in some)} to {max(row.settings for row in some)}"
            print(f"| {kind} | {len(some)} | {sum(row.right for row in some)} | {settings} |")
    for row in rows:
        if not row.right:
            print(f"seed {row.seed}: injected {row.injected}, named {row.named}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
