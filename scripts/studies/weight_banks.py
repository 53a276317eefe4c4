"""Calibration of weight banks, and the weights that were programmed, for several numbers of wavelengths.

    python scripts/studies/weight_banks.py [--preset soi] [--rows 4] [--wavelengths 3 4 5 6 8] [--seeds 0 1 2] [--json]

A bank is calibrated from outside only. The script then looks at the simulator's truth: the weights at random settings,
and those of random targets. Banks with more wavelengths than a fifth of the finesse are `ring.crowded`.

random_rms, random_median   error of the predicted weights at random settings
programmed_rms, _max        error of programmed weights, of targets uniform in [-0.6, 0.6]
unreached                   rms difference between targets and the weights that are expected for them
settings, chip_s, wall_s    settings read, time on the clock of the chip, and wall time of a calibration
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from dataclasses import asdict, dataclass

import numpy as np
from numpy.typing import NDArray

from photonloop.controller.calibration.noise_readings import measure_noise
from photonloop.controller.calibration.ring_calibration import calibrate_rings
from photonloop.controller.calibration.ring_weights import program_weights
from photonloop.controller.calibration.setting_reader import SettingReader
from photonloop.controller.learning.variables import start_variables, to_drive
from photonloop.simulator.engine.chip import Chip
from photonloop.simulator.parameters import ChipParameters, load_chip
from photonloop.simulator.truth import reference

Array = NDArray[np.float64]

LARGEST = 0.6
"""Largest absolute weight of a target: crowded rings cannot reach all weights near -1 and 1."""


@dataclass(frozen=True)
class BankResult:
    """What one bank gave."""

    wavelengths: int
    rows: int
    seed: int
    random_rms: float
    random_median: float
    programmed_rms: float
    programmed_max: float
    unreached: float
    held_out_misfit: float
    settings: int
    chip_s: float
    wall_s: float


def bank_of(preset: str, rows: int, wavelengths: int, seed: int) -> Chip:
    tables = load_chip(preset).model_dump()
    tables["mesh"] |= {"topology": "weight_bank", "outputs": rows}
    tables["ring"]["crowded"] = True
    return Chip(ChipParameters.model_validate({**tables, "ports": wavelengths, "stages": 1, "seed": seed}), threads=1)


def true_weights(chip: Chip, phases: Array) -> Array:
    """Return the true weights at nominal heater phases, (settings, N, M), right after a setting was applied."""
    drives = to_drive(phases, chip.describe().drive)
    rings = [reference.phases_rad(chip, 0, reference.power_w(chip, 0, drive)) for drive in drives]
    return np.array([reference.ring_shares(chip, 0, phase_rad).weights for phase_rad in rings])


def rms(values: Array) -> float:
    return float(np.sqrt(np.mean(values**2)))


def measured(preset: str, rows: int, wavelengths: int, seed: int, targets: int) -> BankResult:
    chip, rng = bank_of(preset, rows, wavelengths, seed), np.random.default_rng([seed, wavelengths])
    began_s, stage = time.monotonic(), chip.describe().stages[0]
    noise = measure_noise(chip, stage, rng).noise
    reader = SettingReader(chip, stage.name)
    found = calibrate_rings(reader, noise, rng)
    wall_s, chip_s = time.monotonic() - began_s, chip.status().clock_s
    anywhere = np.array([start_variables(reader.bounds, rng) for _ in range(20)])
    error = found.weights(anywhere) - true_weights(chip, anywhere)
    wanted = rng.uniform(-LARGEST, LARGEST, (targets, rows, wavelengths))
    phases = np.array([program_weights(found, each, reader.bounds) for each in wanted])
    programmed = true_weights(chip, phases) - wanted
    return BankResult(
        wavelengths=wavelengths,
        rows=rows,
        seed=seed,
        random_rms=rms(error),
        random_median=float(np.median(np.abs(error))),
        programmed_rms=rms(programmed),
        programmed_max=float(np.abs(programmed).max()),
        unreached=rms(found.weights(phases) - wanted),
        held_out_misfit=float(np.median(found.held_out.misfit)),
        settings=found.settings,
        chip_s=chip_s,
        wall_s=wall_s,
    )


def main() -> int:
    """Print the table or one JSON object."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--preset", default="soi")
    parser.add_argument("--rows", type=int, default=4)
    parser.add_argument("--wavelengths", type=int, nargs="+", default=[3, 4, 5, 6, 8])
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--targets", type=int, default=6)
    parser.add_argument("--json", action="store_true")
    chosen = parser.parse_args()
    results = [
        measured(chosen.preset, chosen.rows, wavelengths, seed, chosen.targets)
        for wavelengths in chosen.wavelengths
        for seed in chosen.seeds
    ]
    if chosen.json:
        print(json.dumps({"preset": chosen.preset, "banks": [asdict(result) for result in results]}))
        return 0
    columns = ("random_rms", "random_median", "programmed_rms", "programmed_max", "unreached")
    print(f"{'wavelengths':>11}{'seed':>6}" + "".join(f"{name:>16}" for name in columns) + f"{'settings':>10}{'wall s':>8}")
    for result in results:
        values = "".join(f"{getattr(result, name):>16.4f}" for name in columns)
        print(f"{result.wavelengths:>11}{result.seed:>6}{values}{result.settings:>10}{result.wall_s:>8.1f}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
