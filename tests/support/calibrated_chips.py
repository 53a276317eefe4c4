"""Calibrations of virtual chips for tests: fitted to random settings from a start near the truth, which is quick."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np

from photonloop.controller.calibration.calibrated_device import HeldOut, StageCalibration
from photonloop.controller.calibration.fit_problem import FitProblem
from photonloop.controller.calibration.setting_reader import SettingReader
from photonloop.controller.calibration.stage_check import held_out as held_out_test
from photonloop.controller.calibration.twin import Twin
from photonloop.controller.calibration.twin_fit import fit_least_squares
from photonloop.controller.calibration.twin_layout import twin_layout
from photonloop.controller.calibration.twin_misfit import ReadingNoise
from photonloop.controller.calibration.twin_parameters import nominal_prior
from photonloop.controller.decompose.fidelity import fidelity
from photonloop.controller.learning.variables import stage_bounds, start_variables, to_drive
from photonloop.simulator.engine.chip import Chip
from photonloop.simulator.truth import reference
from support.chips import chip_of
from support.twins import random_inputs, true_parameters

NO_MEMORY: dict[str, dict[str, Any]] = {"photodiode": {"has_memory": False}}
"""Detectors that do not remember the previous sample, which the twin has no parameter for."""


def soi_chip(ports: int, seed: int, parts: dict[str, dict[str, Any]] | None = None, **whole: Any) -> Chip:
    """A chip of one stage with all noise and drift of `soi`."""
    return chip_of("soi", NO_MEMORY | (parts or {}), quiet=False, ports=ports, stages=1, seed=seed, **whole)


def calibrated(
    chip: Chip, rng: np.random.Generator, settings: int = 36, held_out: int = 8, samples: int = 16
) -> StageCalibration:
    """The first stage of a chip, calibrated from a start near the truth."""
    return calibrated_by(SettingReader(chip, chip.describe().stages[0].name), chip, rng, settings, held_out, samples)


def calibrated_by(
    reader: SettingReader, chip: Chip, rng: np.random.Generator, settings: int = 36, held_out: int = 8, samples: int = 16
) -> StageCalibration:
    """The same with settings of a reader, which may leave defects out."""
    stage, full_scale = reader.stage, reader.full_scale
    layout = twin_layout(reader.description, stage)
    phases = np.array([start_variables(reader.bounds, rng) for _ in range(settings + held_out)])
    everything = reader.read(phases, random_inputs(samples, layout.ports, rng)).observations()
    data, test = everything.part(slice(0, settings)), everything.part(slice(settings, None))
    true, noise = true_parameters(chip, layout), ReadingNoise(full_scale / 2**16)
    prior = nominal_prior(layout, true.level, 32 * full_scale / 2**16)
    # Of little effect in small meshes, and many parameters.
    prior = dataclasses.replace(prior, sigma=dataclasses.replace(prior.sigma, heat_response=0 * prior.sigma.heat_response))
    nominal, offset_rad = twin_layout(chip.describe(), chip.describe().stages[0]), true.offset_rad.copy()
    offset_rad[layout.theta], offset_rad[layout.phi] = true.offset_rad[nominal.theta], true.offset_rad[nominal.phi]
    phase_rad = reader.exclusions.inputs(true.input_phase_rad[np.newaxis])[0]
    start = dataclasses.replace(prior.mean, offset_rad=offset_rad, input_phase_rad=phase_rad)
    fit = fit_least_squares(Twin(layout, start), FitProblem(prior, data, noise, test))
    found = StageCalibration(
        stage=stage,
        method="columns",
        layout=layout,
        parameters=fit.parameters,
        sigma=fit.sigma,
        draws=np.empty((0, 0)),
        noise=noise,
        held_out=HeldOut(np.ones(1), np.ones(1), np.ones(1)),
        settings=reader.settings,
        steady_inputs=True,
    )
    return dataclasses.replace(found, held_out=held_out_test(found, found.twin, test))


def true_fidelity(chip: Chip, found: StageCalibration, settings: int = 4) -> float:
    """Mean fidelity of the matrices that a calibration predicts at random settings, with free input phases."""
    description, rng = chip.describe(), np.random.default_rng(99)
    bounds = stage_bounds(description, found.stage, 0.0)
    phases = np.array([start_variables(bounds, rng) for _ in range(settings)])
    fidelities = []
    for nominal, predicted in zip(phases, found.matrices(phases).matrix, strict=True):
        drive_v = to_drive(nominal, description.drive)
        true = reference.matrix(chip, 0, reference.phases_rad(chip, 0, reference.power_w(chip, 0, drive_v)))
        fidelities.append(fidelity(true, predicted, "free"))
    return float(np.mean(fidelities))
