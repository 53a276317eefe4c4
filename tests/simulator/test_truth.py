"""The chip's own truth: what it reads, and the exact gradient of a loss on its readings."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from simulator.chip import Chip
from simulator.parameters import load_chip
from simulator.truth import Gradient, entering_fields, gradient, stage_matrix

ALL = pytest.mark.parametrize("topology", ["clements", "reck", "svd"])


def flawed_chip(folder: Path, topology: str, ports: int = 6, extra: str = "") -> Chip:
    """A chip with every flaw that a derivative survives: no noise, no steps."""
    path = folder / "chip.toml"
    path.write_text(
        f'preset = "soi"\nports = {ports}\nstages = 2\nseed = 3\nmesh.topology = "{topology}"\n'
        f"photodiode.bandwidth_hz = 0.0\nadc.bits = 0\nadc.headroom = 0.0\ndac.bits = 0\n{extra}"
    )
    return Chip(load_chip(path), threads=1)


def held(chip: Chip, seed: int = 1) -> NDArray[np.float64]:
    drive = np.random.default_rng(seed).uniform(0, 6, chip.describe().channels)
    chip.apply(drive)
    return drive


def loss_and_slope(readings: NDArray[np.float64]) -> tuple[float, NDArray[np.float64]]:
    """Mean squared cosine between readings and a fixed direction: bends, and does not care how bright the light is."""
    wanted = np.cos(np.arange(readings.shape[1]))
    projection, power = readings @ wanted, np.sum(readings**2, axis=1)
    samples = len(readings)
    slope = 2 * np.outer(projection / power, wanted) - 2 * readings * (projection**2 / power**2)[:, np.newaxis]
    return float(np.mean(projection**2 / power)), slope / samples


@ALL
@pytest.mark.parametrize("stage", [0, 1])
def test_readings_are_those_of_the_true_matrix(tmp_path: Path, topology: str, stage: int) -> None:
    chip = flawed_chip(tmp_path, topology, ports=7)
    held(chip)
    inputs = np.random.default_rng(2).uniform(0, 1, (5, 7)).astype(np.float32)
    here = chip.stages[stage]
    fields = stage_matrix(chip, stage) @ entering_fields(chip, stage, inputs)
    expected = here.levels.ampere * np.abs(fields.T) ** 2 + chip.parameters.photodiode.dark_a
    drive = chip.held_drive()[here.channels]
    readings = chip.evaluate(drive[np.newaxis], inputs, here.description.name).values[0]
    np.testing.assert_allclose(readings, expected, atol=1e-5 * expected.max(), rtol=1e-5)


@ALL
@pytest.mark.parametrize("stage", [0, 1])
def test_gradient_by_volts_is_that_of_central_differences(tmp_path: Path, topology: str, stage: int) -> None:
    """Of the double-precision readings; by volts, and so by everything that lies between volts and phases."""
    chip = flawed_chip(tmp_path, topology)
    held(chip)
    inputs = np.random.default_rng(2).uniform(0, 1, (4, 6))
    drive = chip.held_drive()[chip.stages[stage].channels]

    def loss(volts: NDArray[np.float64]) -> float:
        return gradient(chip, stage, volts, inputs, loss_and_slope).loss

    found = gradient(chip, stage, None, inputs, loss_and_slope)
    expected, step = np.empty(drive.size), 1e-3
    for k in range(drive.size):
        at = [loss(drive + offset * step * (np.arange(drive.size) == k)) for offset in (-2, -1, 1, 2)]
        expected[k] = (at[0] - 8 * at[1] + 8 * at[2] - at[3]) / (12 * step)
    assert np.linalg.norm(found.drive_v - expected) <= 1e-6 * np.linalg.norm(expected)
    ohm = chip.parameters.heater.resistance_ohm
    np.testing.assert_allclose(found.power_w * 2 * drive / ohm, found.drive_v, rtol=1e-12)


@ALL
def test_gradient_is_that_of_the_measured_loss(tmp_path: Path, topology: str) -> None:
    """What `evaluate` answers changes along a direction as the gradient says, as far as single precision shows it."""
    chip = flawed_chip(tmp_path, topology)
    held(chip)
    inputs = np.random.default_rng(2).uniform(0, 1, (16, 6)).astype(np.float32)
    here, rng = chip.stages[1], np.random.default_rng(7)
    drive = chip.held_drive()[here.channels]
    found = gradient(chip, 1, drive, inputs, loss_and_slope)
    direction = np.sign(found.drive_v) * rng.uniform(0.5, 1, drive.size)
    step = 2e-3
    readings = chip.evaluate(drive + step * np.outer((1, -1), direction), inputs, here.description.name).values
    plus, minus = (loss_and_slope(part.astype(np.float64))[0] for part in readings)
    assert (plus - minus) / (2 * step) == pytest.approx(float(found.drive_v @ direction), rel=2e-3)


def test_output_phases_of_the_stage_that_is_read_do_not_matter(tmp_path: Path) -> None:
    chip = flawed_chip(tmp_path, "clements")
    held(chip)
    found: Gradient = gradient(chip, 0, None, np.ones((2, 6)), loss_and_slope)
    np.testing.assert_allclose(found.gamma, 0.0, atol=1e-12 * np.abs(found.theta).max())
