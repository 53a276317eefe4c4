"""Programming of matrices and phases on virtual chips whose parameters are known."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from support.chips import chip_of
from support.known_stages import DESCRIBED, LOSSLESS, known_stage

from photonloop.controller.calibration.calibrated_device import StageCalibration
from photonloop.controller.calibration.input_fields import input_couplings
from photonloop.controller.calibration.matrix_merit import matrix_merit
from photonloop.controller.calibration.phase_inversion import PhaseInversion
from photonloop.controller.calibration.phase_signs import best_signs, with_signs
from photonloop.controller.calibration.program import ProgrammedMatrix, program_matrix, program_phases
from photonloop.controller.calibration.twin_layout import twin_layout
from photonloop.controller.decompose.fidelity import fidelity
from photonloop.controller.decompose.stage_phases import mesh_matrix, stage_phases
from photonloop.controller.decompose.targets import target_matrix
from photonloop.controller.learning.variables import Bounds, stage_bounds, to_drive
from photonloop.simulator.engine.chip import Chip
from photonloop.simulator.truth.chip_truth import stage_matrix

TURN = 2 * np.pi


def bounds_of(chip: Chip) -> Bounds:
    description = chip.describe()
    return stage_bounds(description, description.stages[0], 0.0)


def programmed(chip: Chip, target: str, *, steady_inputs: bool = True) -> ProgrammedMatrix:
    found = known_stage(chip, steady_inputs=steady_inputs)
    return program_matrix(found, target_matrix(target, found.stage), bounds_of(chip), np.random.default_rng(0))


def true_fidelity(chip: Chip, found: ProgrammedMatrix) -> float:
    """Of the chip's matrix from requested amplitudes to outputs."""
    known = known_stage(chip)
    matrix = stage_matrix(chip, 0, to_drive(found.nominal, chip.describe().drive)) @ input_couplings(known.parameters)
    return fidelity(found.target, matrix * np.exp(1j * known.parameters.input_phase_rad), found.input_phases)


def differences(found: StageCalibration, nominal: np.ndarray, wanted: np.ndarray) -> np.ndarray:
    return np.abs(np.remainder(found.phases(nominal) - wanted + np.pi, TURN) - np.pi)


@pytest.mark.parametrize(("topology", "ports"), [("clements", 4), ("clements", 8), ("reck", 5), ("svd", 4)])
def test_haar_matrices_on_chips_with_wrong_couplers_and_crosstalk(topology: str, ports: int) -> None:
    """Coupler errors of 0.02 rad alone cost up to 0.3 % of the fidelity."""
    chip = chip_of("soi", {**LOSSLESS, "mesh": {"topology": topology}}, ports=ports, stages=1, seed=3)
    for seed in (0, 1):
        found = programmed(chip, f"haar:{seed}")
        assert true_fidelity(chip, found) > 0.99999
        assert found.expected.fidelity.value == pytest.approx(true_fidelity(chip, found), abs=2e-6)
        assert not found.limited


@pytest.mark.parametrize("target", ["identity", "dft", "permutation:2,0,3,1", "haar:7"])
def test_an_ideal_chip_has_the_target_exactly(target: str) -> None:
    found = programmed(chip_of("ideal", {}, ports=4, stages=1, seed=1), target)
    assert found.expected.fidelity.value == pytest.approx(1, abs=1e-12)
    assert found.expected.tvd.value < 1e-9 and found.expected.power_largest.value < 1e-9


def test_what_the_calibration_predicts_is_what_the_chip_does() -> None:
    """With losses, which no unitary mesh can make up for; input phases known and unknown."""
    chip = chip_of("soi", DESCRIBED, ports=4, stages=1, seed=5)
    for steady_inputs in (True, False):
        found = programmed(chip, "haar:1", steady_inputs=steady_inputs)
        assert found.input_phases == ("fixed" if steady_inputs else "free")
        assert found.expected.fidelity.value == pytest.approx(true_fidelity(chip, found), abs=1e-6)
        assert 0.999 < found.expected.fidelity.value < 0.99999


def test_signs_do_not_matter_to_an_ideal_mesh_but_to_one_with_losses() -> None:
    rng = np.random.default_rng(4)
    for topology, ports in (("clements", 6), ("reck", 4), ("svd", 3)):
        stage = chip_of("ideal", {"mesh": {"topology": topology}}, ports=ports, stages=1).describe()
        layout = twin_layout(stage, stage.stages[0])
        phases = rng.uniform(0, TURN, layout.channels)
        moved = with_signs(layout, phases, rng.random(layout.interferometers) < 0.5)
        assert np.abs(moved - phases).max() > 1
        np.testing.assert_allclose(mesh_matrix(stage.stages[0], moved), mesh_matrix(stage.stages[0], phases), atol=1e-12)
    known = known_stage(chip_of("soi", {**DESCRIBED, "coupler": {"angle_sigma_rad": 0.0}}, ports=6, stages=1, seed=1))
    merit, nothing = matrix_merit(known, target_matrix("haar:1", known.stage)), np.zeros(6)
    start = stage_phases(known.stage, merit.target @ np.linalg.inv(merit.entering))
    before, after = (merit.value_and_slopes(each, nothing)[0] for each in (start, best_signs(merit, start, rng)))
    assert after < 0.8 * before


@pytest.mark.parametrize(("topology", "preset"), [("clements", "soi"), ("reck", "harsh"), ("svd", "soi")])
def test_heaters_give_the_wanted_phases_with_least_power(topology: str, preset: str) -> None:
    """No heater could give its phase with one turn less: its arm would have to be cooled."""
    chip = chip_of(preset, {**DESCRIBED, "mesh": {"topology": topology}}, ports=5, stages=1, seed=2)
    known, rng = known_stage(chip), np.random.default_rng(1)
    wanted = rng.uniform(0, TURN, (3, known.layout.channels))
    found = PhaseInversion(known.twin, bounds_of(chip)).nominal(wanted)
    assert not found.limited.any() and found.error_rad < 1e-9
    assert differences(known, found.nominal, wanted).max() < 1e-9
    assert found.nominal.min() >= 0
    for channel in np.flatnonzero(found.nominal[0] > 0.8 * TURN):
        lowered = found.nominal[:1].copy()
        lowered[0, channel] = 0.0
        moved = known.phases(found.nominal[:1])[0, channel] - known.phases(lowered)[0, channel]
        assert moved < TURN * 1.05


def test_phases_that_no_reading_depends_on_need_no_heat() -> None:
    chip = chip_of("soi", DESCRIBED, ports=4, stages=1, seed=2)
    found, gamma = programmed(chip, "haar:1"), known_stage(chip).layout.gamma
    assert (found.nominal[gamma] == 0).all() and np.isnan(found.effective[gamma]).all()
    others = np.setdiff1d(np.arange(found.nominal.size), gamma)
    assert differences(known_stage(chip), found.nominal[np.newaxis], found.effective)[0, others].max() < 1e-9


def test_narrow_bounds_and_little_power_are_respected() -> None:
    """Half a turn per heater: the refinement within the bounds improves on the phases clipped to them."""
    chip = chip_of("soi", LOSSLESS, ports=4, stages=1, seed=4)
    known, wide = known_stage(chip), bounds_of(chip)
    target = target_matrix("haar:2", known.stage)
    narrow = dataclasses.replace(wide, high=np.full(wide.high.size, 4.5))
    weak = dataclasses.replace(wide, total=30.0)
    for bounds in (narrow, weak):
        found = program_matrix(known, target, bounds, np.random.default_rng(0))
        assert (found.nominal <= bounds.high).all() and found.nominal.sum() <= bounds.total * (1 + 1e-9)
        assert found.expected.fidelity.value == pytest.approx(true_fidelity(chip, found), abs=1e-6)
    clipped = PhaseInversion(known.twin, narrow).nominal(np.nan_to_num(found.effective)[np.newaxis])
    assert clipped.limited.any()


def test_given_phases_are_programmed_without_refinement() -> None:
    chip = chip_of("soi", DESCRIBED, ports=4, stages=1, seed=6)
    known = known_stage(chip)
    phases = np.random.default_rng(2).uniform(-3, 9, known.layout.channels)
    found = program_phases(known, phases, mesh_matrix(known.stage, phases), bounds_of(chip))
    assert differences(known, found.nominal[np.newaxis], phases).max() < 1e-9
    assert found.steps == 0
    with pytest.raises(ValueError, match="power limit of stage"):
        program_phases(known, phases, found.target, dataclasses.replace(bounds_of(chip), total=5.0))


@pytest.mark.parametrize(("topology", "steady_inputs"), [("clements", True), ("svd", False)])
def test_the_slopes_of_the_infidelity(topology: str, steady_inputs: bool) -> None:
    """Against central differences, far from the minimum."""
    chip = chip_of("soi", {**DESCRIBED, "mesh": {"topology": topology}}, ports=3, stages=1, seed=1)
    known, rng = known_stage(chip, steady_inputs=steady_inputs), np.random.default_rng(3)
    merit = matrix_merit(known, target_matrix("haar:3", known.stage))
    phases, inputs = rng.uniform(0, TURN, known.layout.channels), rng.uniform(0, TURN, 3)
    _, by_phases, by_inputs = merit.value_and_slopes(phases, inputs)
    vector, slopes = np.concatenate((phases, inputs)), np.concatenate((by_phases, by_inputs))
    for k, step in enumerate(1e-6 * np.eye(vector.size)):
        ends = [merit.value_and_slopes(*np.split(moved, [phases.size]))[0] for moved in (vector + step, vector - step)]
        assert slopes[k] == pytest.approx((ends[0] - ends[1]) / 2e-6, abs=1e-8)
