"""Training in calibrated phases: what drives they stand for, and a run with a calibration."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest
from support.chips import parameters_of
from support.known_stages import DESCRIBED, known_device, known_stage

from photonloop.controller import training
from photonloop.controller.calibration.calibrated_device import Calibration
from photonloop.controller.calibration.calibration_file import save_calibration
from photonloop.controller.calibration.phase_inversion import PhaseInversion
from photonloop.controller.data.datasets import DataSpec
from photonloop.controller.device.open_device import OpenDevice
from photonloop.controller.experiment import EstimatorSpec, Experiment, NetworkSpec, TrainingSpec
from photonloop.controller.learning.progress import EpochReport
from photonloop.controller.learning.variable_space import CALIBRATION, PhaseVariables, variable_space
from photonloop.controller.learning.variables import phases_of_drive, stage_bounds, to_drive
from photonloop.controller.runs.run_folder import EXPERIMENT, read_checkpoint
from photonloop.protocols.config import ConfigError
from photonloop.simulator.engine.chip import Chip

TURN = 2 * np.pi
CHIP = parameters_of("soi", {**DESCRIBED, "crosstalk": {"fraction": 0.0}}, ports=5, stages=1, seed=3)


class Silent:
    """A listener that ignores everything."""

    def epoch(self, report: EpochReport) -> None: ...

    def message(self, text: str) -> None: ...


def distance(found: np.ndarray, wanted: np.ndarray) -> float:
    return float(np.abs(np.remainder(found - wanted + np.pi, TURN) - np.pi).max())


def phase_variables() -> tuple[PhaseVariables, Calibration]:
    """Of a chip with crosstalk."""
    chip = Chip(parameters_of("soi", DESCRIBED, ports=5, stages=1, seed=3), threads=1)
    description, found = chip.describe(), known_stage(chip)
    inversion = PhaseInversion(found.twin, stage_bounds(description, found.stage, 0.0))
    return PhaseVariables(description, inversion), known_device(chip)


def test_drives_give_the_phases_that_variables_stand_for() -> None:
    """Also across 2π, where a heater jumps by a turn and its neighbours make up for its crosstalk."""
    space, known = phase_variables()
    rng, channels = np.random.default_rng(0), known.stages[0].layout.channels
    settings = rng.uniform(0, TURN, (6, channels))
    assert distance(known.phases_of_volts(space.drives(settings)), settings) < 2e-3
    center = rng.uniform(0, TURN, channels)
    center[:3] = 0.01
    around = center + 0.05 * rng.choice([-1.0, 1.0], (8, channels))
    found = space.drives_around(center, around, space.bounds(0.05))
    assert distance(known.phases_of_volts(found), around) < 2e-3
    np.testing.assert_array_equal(space.drives_around(center, around, space.bounds(0.05)), found)


def test_variables_wrap_and_drives_are_within_the_limits() -> None:
    space, known = phase_variables()
    variables = space.project(np.linspace(-7, 14, known.stages[0].layout.channels), space.bounds(0.3))
    assert (variables >= 0).all() and (variables < TURN).all()
    weak = dataclasses.replace(space.inversion.bounds, total=20.0)
    limited = dataclasses.replace(space, inversion=PhaseInversion(space.inversion.twin, weak))
    nominal = phases_of_drive(limited.drives(variables[np.newaxis]), space.description.drive)
    assert nominal.sum() == pytest.approx(20.0)


def test_nominal_heater_phases_need_no_calibration() -> None:
    _, known = phase_variables()
    description = known.device
    space = variable_space(description, description.stages[0], None)
    x = np.full((1, description.channels), 1.5)
    np.testing.assert_array_equal(space.drives(x), to_drive(x, description.drive))
    assert not space.periodic


def experiment(calibration: Path | None, **changes: object) -> Experiment:
    """The smallest experiment."""
    given = {
        "name": "phases",
        "device": "tcp://lab:5555",
        "data": DataSpec(source="iris"),
        "network": NetworkSpec(layers=1),
        "variables": "phase",
        "calibration": None if calibration is None else str(calibration),
        "estimator": EstimatorSpec(directions=1),
        "training": TrainingSpec(epochs=2, batch=60, evaluate_every=1),
    }
    return Experiment.model_validate({**given, **changes})


@pytest.fixture
def calibrated(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The calibration file of the chip that every device string opens."""
    monkeypatch.setattr(training, "open_device", lambda *_, **__: OpenDevice(Chip(CHIP, threads=1)))
    path = tmp_path / "chip.json"
    save_calibration(path, known_device(Chip(CHIP, threads=1)))
    return path


def test_a_run_keeps_its_calibration_and_resumes_without_the_file(calibrated: Path, tmp_path: Path) -> None:
    run = Path(training.train(experiment(calibrated), runs=tmp_path, listener=Silent()).run)
    assert (run / CALIBRATION).read_bytes() == calibrated.read_bytes()
    assert str(calibrated) in (run / EXPERIMENT).read_text()
    calibrated.unlink()
    assert training.evaluate(run, listener=Silent()).layers
    training.resume(run, listener=Silent())
    variables = read_checkpoint(run)["variables_0"]
    assert (variables >= 0).all() and (variables < TURN).all() and np.ptp(variables) > 3


def test_a_calibration_of_another_device_is_refused(calibrated: Path, tmp_path: Path) -> None:
    other = Chip(parameters_of("soi", DESCRIBED, ports=5, stages=1, seed=8), threads=1)
    save_calibration(calibrated, known_device(other))
    with pytest.raises(ConfigError, match="is of another device: serials.seed"):
        training.train(experiment(calibrated), runs=tmp_path / "runs", listener=Silent())
    assert not (tmp_path / "runs").exists()


def test_keys_that_contradict_each_other_are_refused(calibrated: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="there is no calibration"):
        training.train(experiment(None), runs=tmp_path, listener=Silent())
    with pytest.raises(ConfigError, match="but variables is 'heater'"):
        training.train(experiment(calibrated, variables="heater"), runs=tmp_path, listener=Silent())
