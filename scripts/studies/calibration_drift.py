"""Verdicts of the check of calibrations, before and after a virtual day, and what a refresh brings back.

    python scripts/studies/calibration_drift.py [--json] [--chip soi] [--ports 8] [--chips 20] [--tripled 3]

Every chip is calibrated, checked at once, checked again after a day, refreshed with a tenth of the settings, and
checked once more. The first `tripled` chips are also studied with three times the drift of their phases. Fidelity is
that of the matrices that the calibration predicts at random settings, with free phases of the inputs, against the true
ones. It is the fidelity of programmed matrices, because these are programmed on the twin. `closed` is the share of the
loss of fidelity within the day that the refresh brings back.
"""

from __future__ import annotations

import argparse
import json
import sys
from dataclasses import asdict, dataclass

import numpy as np

from photonloop.controller.calibration.calibrated_device import Calibration, StageCalibration
from photonloop.controller.calibration.check import CalibrationCheck, check_calibration
from photonloop.controller.calibration.noise_readings import measure_noise
from photonloop.controller.calibration.refresh import refresh_calibration
from photonloop.controller.calibration.setting_reader import SettingReader
from photonloop.controller.calibration.stage_methods import calibrate_mesh
from photonloop.controller.decompose.fidelity import fidelity
from photonloop.controller.learning.variables import stage_bounds, start_variables, to_drive
from photonloop.simulator.engine.chip import Chip
from photonloop.simulator.parameters import ChipParameters, load_chip
from photonloop.simulator.truth import reference

DAY_S = 86_400.0

TARGETS = 12


@dataclass(frozen=True)
class DriftRow:
    """One chip: verdicts, misfits and fidelities when calibrated, after a day, and after the refresh."""

    seed: int
    drift: int
    verdicts: tuple[str, str, str]
    misfits: tuple[float, float, float]
    fidelities: tuple[float, float, float]
    closed: float
    drift_rad: float
    moved: int
    settings: int
    check_settings: int
    check_device_s: float
    refresh_settings: int


def study(chip_name: str, ports: int, seed: int, drift: int) -> DriftRow:
    """Calibrate one chip and follow it for a day; `drift`: factor of the drift of its phases."""
    parameters = load_chip(chip_name, ports=ports, stages=1, seed=seed)
    tables = parameters.model_dump()
    tables["drift"]["sigma_rad"] *= drift
    chip, rng = Chip(ChipParameters.model_validate(tables), threads=1), np.random.default_rng(seed)
    description = chip.describe()
    stage = description.stages[0]
    reader = SettingReader(chip, stage.name)
    found = calibrate_mesh(reader, "columns", measure_noise(chip, stage, rng), rng, lambda _: None).calibration
    calibration = Calibration(description, "", chip.status().clock_s, {}, (found,))
    checks, fidelities, began_s = [check_calibration(chip, calibration, rng)], [mean_fidelity(chip, found)], 0.0
    chip.wait(DAY_S)
    began_s = chip.status().clock_s
    checks.append(check_calibration(chip, calibration, rng))
    check_device_s = chip.status().clock_s - began_s
    fidelities.append(mean_fidelity(chip, found))
    before = chip.status().evaluations
    refreshed = refresh_calibration(chip, calibration, rng)
    refresh_settings = chip.status().evaluations - before
    checks.append(check_calibration(chip, refreshed, rng))
    fidelities.append(mean_fidelity(chip, refreshed.stages[0]))
    fresh, old, new = fidelities
    day: CalibrationCheck = checks[1]
    return DriftRow(
        seed=seed,
        drift=drift,
        verdicts=(checks[0].verdict, checks[1].verdict, checks[2].verdict),
        misfits=(checks[0].stages[0].now.misfit, day.stages[0].now.misfit, checks[2].stages[0].now.misfit),
        fidelities=(fresh, old, new),
        closed=(new - old) / (fresh - old),
        drift_rad=day.stages[0].drift_rad,
        moved=len(day.stages[0].moved),
        settings=found.settings,
        check_settings=day.settings,
        check_device_s=check_device_s,
        refresh_settings=refresh_settings,
    )


def mean_fidelity(chip: Chip, found: StageCalibration) -> float:
    """Return the mean fidelity of predicted matrices at random settings, the same ones for every chip."""
    description, rng = chip.describe(), np.random.default_rng(0)
    bounds = stage_bounds(description, found.stage, 0.0)
    phases = np.array([start_variables(bounds, rng) for _ in range(TARGETS)])
    values = []
    for nominal, predicted in zip(phases, found.matrices(phases).matrix, strict=True):
        drive_v = to_drive(nominal, description.drive)
        true = reference.matrix(chip, 0, reference.phases_rad(chip, 0, reference.power_w(chip, 0, drive_v)))
        values.append(fidelity(true, predicted, "free"))
    return float(np.mean(values))


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.add_argument("--chip", default="soi", help="preset or chip file")
    parser.add_argument("--ports", type=int, default=8)
    parser.add_argument("--chips", type=int, default=20, help="number of chips, with the seeds 0, 1, …")
    parser.add_argument("--tripled", type=int, default=3, help="number of chips with three times the drift")
    args = parser.parse_args()
    cases = [(seed, 1) for seed in range(args.chips)] + [(seed, 3) for seed in range(args.tripled)]
    rows = []
    if not args.json:
        print("| chip | drift | verdicts | misfit | 1 - fidelity | closed | change [rad] | moved | settings | check | refresh |")
        print("|---|---|---|---|---|---|---|---|---|---|---|")
    for seed, drift in cases:
        row = study(args.chip, args.ports, seed, drift)
        rows.append(row)
        if args.json:
            continue
        misfits = ", ".join(f"{100 * value:.2f} %" for value in row.misfits)
        lost = ", ".join(f"{1 - value:.1e}" for value in row.fidelities)
        check = f"{row.check_settings} in {row.check_device_s:.2g} s"
        shown = (
            f"{100 * row.closed:.1f} % | {row.drift_rad:.3f} | {row.moved} | {row.settings} | {check} | {row.refresh_settings}"
        )
        print(f"| {seed} | {drift} × | {', '.join(row.verdicts)} | {misfits} | {lost} | {shown} |", flush=True)
    if args.json:
        print(json.dumps({"chip": args.chip, "ports": args.ports, "rows": [asdict(row) for row in rows]}))
    return 0


if __name__ == "__main__":
    sys.exit(main())
