"""Settings and accuracy of sweeps alone, of dense sweeps, and of the twin fit after sweeps, on the same chips.

    python scripts/studies/sweeps_compared.py [--preset soi] [--ports 4 8] [--seeds 0 1 2] [--dense 20000] [--json]

All methods light one input at a time (`photonloop.controller.calibration.diagonal`) and are tested with the same random
settings, which none of them is fitted to: `tvd` is the total variation distance of measured and predicted output
distributions.

sweeps             12 settings per column of θ and 10 per column of φ, after a search along light paths
dense sweeps       the same with as many voltages per column as one public program reads per heater
sweeps, twin fit   the twin fitted to the readings of the few sweeps
random settings    the twin fitted to random settings as well

Dense sweeps are no better than few points: what is wrong is not the noise, but crosstalk and light from elsewhere.
"""

from __future__ import annotations

import argparse
import json
from dataclasses import replace
from typing import Any

import numpy as np

from photonloop.controller.calibration.diagonal import DiagonalCalibration, DiagonalOptions, calibrate_diagonal
from photonloop.controller.calibration.fit_problem import predicted_all
from photonloop.controller.calibration.noise_readings import measure_noise
from photonloop.controller.calibration.random_settings import RandomSettingsOptions, fit_random_settings, reading_tvd
from photonloop.controller.calibration.setting_reader import SettingReader
from photonloop.controller.calibration.stage_methods import prior_with_dark
from photonloop.controller.calibration.sweep_fit import SweepFitOptions
from photonloop.controller.calibration.twin import Twin
from photonloop.controller.calibration.twin_layout import twin_layout
from photonloop.controller.calibration.twin_misfit import Observations
from photonloop.simulator.engine.chip import Chip
from photonloop.simulator.parameters import load_chip

FITTED = 48
"""Random settings that are fitted; further ones are the test."""


def swept(preset: str, ports: int, seed: int, options: DiagonalOptions) -> tuple[DiagonalCalibration, SettingReader, Any]:
    """Return the calibration of a fresh chip by sweeps, its reader, and the noise of its readings."""
    chip = Chip(load_chip(preset, ports=ports, stages=1, seed=seed), threads=1)
    description = chip.describe()
    stage, rng = description.stages[0], np.random.default_rng(seed)
    measured = measure_noise(chip, stage, rng)
    reader = SettingReader(chip, stage.name)
    prior = prior_with_dark(twin_layout(description, stage), measured)
    return calibrate_diagonal(reader, measured.noise, rng, options, prior), reader, measured.noise


def tvd(twin: Twin, test: Observations) -> float:
    """Return the mean total variation distance of measured and predicted output distributions."""
    return float(np.nanmean(reading_tvd(twin, test, predicted_all(twin, test))))


def study(preset: str, ports: int, seed: int, dense: int) -> list[dict[str, Any]]:
    """Return one row per method for one chip."""
    found, reader, noise = swept(preset, ports, seed, DiagonalOptions(fit=SweepFitOptions()))
    random = RandomSettingsOptions(inputs_at_once="one", settings=FITTED, descent_steps=300)
    fitted = fit_random_settings(reader, found.twin, found.prior, noise, np.random.default_rng(seed), random)
    test = reader.done[-1].observations().part(slice(FITTED, None))
    densely, _, _ = swept(preset, ports, seed, DiagonalOptions(theta_points=dense // 2, phi_points=dense, fit=None))
    # The memory of the detectors is not found by sweeps. It is known to all, so that the comparison is fair.
    memory = fitted.twin.parameters.detector_memory

    def row(method: str, settings: int, twin: Twin) -> dict[str, Any]:
        known = Twin(twin.layout, replace(twin.parameters, detector_memory=memory))
        return {"method": method, "ports": ports, "seed": seed, "settings": settings, "tvd": tvd(known, test)}

    return [
        row("sweeps", found.settings, found.swept),
        row("dense sweeps", densely.settings, densely.swept),
        row("sweeps, twin fit", found.settings, found.twin),
        row("random settings", found.settings + FITTED, fitted.twin),
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--preset", default="soi", help="preset or chip file [soi]")
    parser.add_argument("--ports", type=int, nargs="+", default=[4, 8], help="sizes of the chips [4 8]")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2], help="chips [0 1 2]")
    parser.add_argument("--dense", type=int, default=20_000, help="settings of each dense sweep [20000]")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    options = parser.parse_args()
    rows = [row for ports in options.ports for seed in options.seeds for row in study(options.preset, ports, seed, options.dense)]
    if options.json:
        print(json.dumps({"preset": options.preset, "dense": options.dense, "rows": rows}))
        return
    print(f"{'method':<18}{'ports':>6}{'seed':>6}{'settings':>10}{'tvd':>8}")
    for row in rows:
        print(f"{row['method']:<18}{row['ports']:>6}{row['seed']:>6}{row['settings']:>10}{row['tvd']:>8.4f}")


if __name__ == "__main__":
    main()
