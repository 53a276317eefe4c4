"""Estimators are unbiased: the mean estimate agrees with the adjoint gradient of an ideal chip."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from photonloop.controller.experiment import EstimatorSpec
from photonloop.controller.learning.estimators import Probe, estimator, slopes
from photonloop.controller.learning.variables import phases_of_drive, to_drive
from photonloop.protocols.device import LoadedRows
from photonloop.simulator.engine.chip import Chip
from photonloop.simulator.parameters import load_chip
from photonloop.simulator.truth.chip_truth import gradient

PORTS, SAMPLES, DIRECTIONS, STEP_RAD = 5, 8, 16_000, 0.004


def losses(readings: NDArray) -> NDArray[np.float64]:
    """Return the mean over samples of 1 − cosine between a reading and a fixed direction, shape (settings,)."""
    wanted = np.cos(2.0 * np.arange(PORTS))
    values = readings.astype(np.float64)
    return np.mean(1 - (values @ wanted) / np.linalg.norm(values, axis=-1), axis=-1)


def loss_and_slope(readings: NDArray) -> tuple[float, NDArray]:
    wanted, norm = np.cos(2.0 * np.arange(PORTS)), np.linalg.norm(readings, axis=1, keepdims=True)
    along = (readings @ wanted)[:, np.newaxis] / norm
    return float(losses(readings[np.newaxis])[0]), -(wanted / norm - along * readings / norm**2) / len(readings)


@pytest.mark.parametrize("topology", ["clements", "svd"])
@pytest.mark.parametrize("name", ["spsa", "directional"])
def test_mean_estimate_is_the_adjoint_gradient(name: str, topology: str) -> None:
    parameters = load_chip("ideal", ports=PORTS, stages=1, seed=2)
    chip = Chip(parameters.model_copy(update={"mesh": parameters.mesh.model_copy(update={"topology": topology})}), threads=1)
    drive, (stage,) = chip.describe().drive, chip.describe().stages
    rng = np.random.default_rng(11)
    variables = phases_of_drive(rng.uniform(1, 5, stage.channels), drive)
    inputs = rng.uniform(0, 1, (SAMPLES, PORTS)).astype(np.float32)
    chip.load_inputs("light", inputs)

    exact = gradient(chip, 0, to_drive(variables, drive), inputs, loss_and_slope)
    true = exact.power_w * drive.pi_power_w / np.pi

    chosen = estimator(EstimatorSpec.model_validate({"name": name}))
    groups = [slice(*bounds) for bounds in stage.groups.values()]
    step = chosen.step_from_rms(STEP_RAD, groups)
    estimates = np.empty((DIRECTIONS, stage.channels))
    for start in range(0, DIRECTIONS, 500):
        probe = Probe(chosen.draw(stage.channels, groups, 500, rng), step)
        readings = chip.evaluate(to_drive(probe.settings(variables), drive), LoadedRows("light", np.arange(SAMPLES)), stage.name)
        found = slopes(probe, losses(readings.values))
        # One direction per estimate, as in an update with one pair of settings.
        estimates[start : start + 500] = [
            chosen.combine(direction[np.newaxis], slope[np.newaxis], groups)
            for direction, slope in zip(probe.directions, found, strict=True)
        ]
    mean, deviation = estimates.mean(axis=0), estimates.std(axis=0) / np.sqrt(DIRECTIONS)
    off = (mean - true) / deviation
    assert np.abs(off).max() < 5
    assert np.mean(off**2) == pytest.approx(1.0, abs=6 * np.sqrt(2 / off.size))
    # The length is correct too, not only the direction: (d·g)²/|g|² has mean 1 and a variance of at most 2.
    assert mean @ true / (true @ true) == pytest.approx(1.0, abs=5 * np.sqrt(2 / DIRECTIONS))
    assert mean @ true / (np.linalg.norm(mean) * np.linalg.norm(true)) > 0.99
