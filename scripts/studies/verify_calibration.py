"""Calibrate virtual chips, program Haar-random matrices on them, and compare the true matrices with the targets.

    python scripts/studies/verify_calibration.py [--preset soi] [--ports 8] [--method auto] [--seeds 0 1 2] [--json]

A calibration sees a chip from outside only. This script also looks at the simulator's truth: the transfer matrix from
requested amplitudes to output fields, at the drive that was programmed.

fidelity_mean, fidelity_min     for the best phases of the inputs
fidelity_coherent_mean, _min    without phases of the inputs, if these are coherent and were calibrated
tvd_mean                        of the output distributions of single inputs, target and chip
tvd_heldout                     of settings that were not fitted, measured and predicted
settings, chip_s                settings read, and time on the clock of the chip, per chip
wall_s, peak_mb                 wall time of a calibration, and peak memory of the process
"""

from __future__ import annotations

import argparse
import json
import resource
import time
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from photonloop.controller.calibration.calibrated_device import StageCalibration
from photonloop.controller.calibration.columns import calibrate_columns
from photonloop.controller.calibration.noise_readings import measure_noise
from photonloop.controller.calibration.program import program_matrix
from photonloop.controller.calibration.setting_reader import SettingReader
from photonloop.controller.calibration.twin_layout import twin_layout
from photonloop.controller.calibration.twin_parameters import TwinPrior, nominal_prior
from photonloop.controller.decompose.fidelity import fidelity, total_variation_distance
from photonloop.controller.decompose.targets import haar_matrix
from photonloop.controller.learning.variables import stage_bounds, to_drive
from photonloop.protocols.device import Drive
from photonloop.simulator.engine.chip import Chip
from photonloop.simulator.parameters import ChipParameters, load_chip
from photonloop.simulator.physics import modulator
from photonloop.simulator.truth import reference
from photonloop.simulator.truth.chip_truth import stage_matrix

Complex = NDArray[np.complex128]

TARGET_SEED = 1000
"""Seed of the first target; the others follow."""


@dataclass(frozen=True)
class ChipResult:
    """What one chip gave: fidelities and distances per target, and what the calibration took."""

    fidelity: list[float]
    coherent: list[float]
    tvd: list[float]
    tvd_heldout: float
    residual: float
    settings: int
    chip_s: float
    wall_s: float


def chip_parameters(preset: str, ports: int, topology: str, seed: int, **changes: dict[str, Any]) -> ChipParameters:
    """Return the parameters of a chip with one stage; `changes` has fields of tables to be changed."""
    tables = load_chip(preset).model_dump()
    for table, fields in {"mesh": {"topology": topology}, **changes}.items():
        tables[table].update(fields)
    return ChipParameters.model_validate({**tables, "ports": ports, "stages": 1, "seed": seed})


def prior_of(chip: Chip, dark: NDArray[np.float64]) -> TwinPrior:
    """Return the prior for the first stage of a chip with these dark readings, (taps,)."""
    description = chip.describe()
    return nominal_prior(twin_layout(description, description.stages[0]), 1.0, dark)


def calibrated(chip: Chip, method: str, seed: int) -> StageCalibration:
    """Return the calibration of the first stage."""
    description = chip.describe()
    stage, rng = description.stages[0], np.random.default_rng(seed)
    if method not in {"auto", "columns"}:
        raise SystemExit(f"method {method} is not part of this study: choose columns")
    measured = measure_noise(chip, stage, rng)
    found = calibrate_columns(SettingReader(chip, stage.name), measured.noise, rng, prior=prior_of(chip, measured.level))
    return StageCalibration(
        stage=stage,
        method="columns",
        layout=found.twin.layout,
        parameters=found.twin.parameters,
        sigma=found.fitted.sigma,
        draws=found.fitted.draws,
        noise=measured.noise,
        held_out=found.fitted.held_out,
        settings=found.settings + measured.settings,
        steady_inputs=True,
    )


def true_matrix(chip: Chip, drive: Drive) -> Complex:
    """Return the matrix from the fields of single inputs to those behind the first stage, (ports, ports).

    It has the phases of the inputs and the couplings of their waveguides, but not their relative gains: as in
    `program_matrix`, elements are relative to the power of each input.
    """
    own, ports = modulator.own_modulator(chip.parameters), chip.parameters.ports
    equal = chip.input_truth()._replace(amplitude=np.ones(ports))
    inputs = modulator.modulated(np.eye(ports), own.model_copy(update={"extinction_db": 0.0}), equal).T
    moment = reference.moment_now(chip)
    factors = chip.ambient().input_factors([moment], chip.input_truth().path_m, reference.heating_k(chip, moment))
    entering = inputs if factors is None else factors[0][:, np.newaxis] * inputs
    return (stage_matrix(chip, 0, drive) @ entering).astype(np.complex128)


def verified(parameters: ChipParameters, method: str, targets: int) -> ChipResult:
    """Calibrate a chip and program targets on it."""
    chip, began = Chip(parameters, threads=1), time.perf_counter()
    found = calibrated(chip, method, parameters.seed)
    wall_s = time.perf_counter() - began
    bounds, rng = stage_bounds(chip.describe(), found.stage, 0.0), np.random.default_rng(parameters.seed)
    free, fixed, distances = [], [], []
    for number in range(targets):
        target = haar_matrix(parameters.ports, TARGET_SEED + number)
        nominal = program_matrix(found, target, bounds, rng).nominal
        matrix = true_matrix(chip, to_drive(nominal, chip.describe().drive))
        free.append(fidelity(target, matrix, "free"))
        fixed.append(fidelity(target, matrix, "fixed"))
        distances.append(total_variation_distance(np.abs(target) ** 2, np.abs(matrix) ** 2))
    return ChipResult(
        fidelity=free,
        coherent=fixed if found.steady_inputs else [],
        tvd=distances,
        tvd_heldout=float(np.nanmean(found.held_out.tvd)),
        residual=float(np.median(found.held_out.residual)),
        settings=found.settings,
        chip_s=chip.status().clock_s,
        wall_s=wall_s,
    )


def summary(preset: str, ports: int, method: str, results: list[ChipResult]) -> dict[str, Any]:
    """Return one row of the table."""

    def over(name: str) -> NDArray[np.float64]:
        return np.concatenate([getattr(result, name) for result in results])

    coherent = over("coherent")
    return {
        "preset": preset,
        "ports": ports,
        "method": method,
        "fidelity_mean": round(float(over("fidelity").mean()), 6),
        "fidelity_min": round(float(over("fidelity").min()), 6),
        "fidelity_coherent_mean": round(float(coherent.mean()), 6) if coherent.size else None,
        "fidelity_coherent_min": round(float(coherent.min()), 6) if coherent.size else None,
        "tvd_mean": round(float(over("tvd").mean()), 5),
        "tvd_heldout": round(float(np.mean([result.tvd_heldout for result in results])), 5),
        "settings": round(float(np.mean([result.settings for result in results]))),
        "chip_s": round(float(np.mean([result.chip_s for result in results])), 3),
        "wall_s": round(float(np.mean([result.wall_s for result in results])), 1),
        "peak_mb": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--preset", default="soi")
    parser.add_argument("--ports", type=int, default=8)
    parser.add_argument("--method", default="auto")
    parser.add_argument("--topology", default="clements")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--targets", type=int, default=12)
    parser.add_argument("--json", action="store_true")
    args = parser.parse_args()
    chips = [chip_parameters(args.preset, args.ports, args.topology, seed) for seed in args.seeds]
    row = summary(args.preset, args.ports, args.method, [verified(chip, args.method, args.targets) for chip in chips])
    if args.json:
        print(json.dumps(row))
        return
    for key, value in row.items():
        print(f"{key:24} {value}")


if __name__ == "__main__":
    main()
