"""True matrices of a chip, and the exact gradient of a loss on its readings."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from photonloop.simulator.engine.chip import Chip
from photonloop.simulator.parameters import load_chip
from photonloop.simulator.physics.chip_faults import FaultParameters
from photonloop.simulator.truth.chip_truth import Gradient, entering_fields, gradient, stage_matrix

ALL = pytest.mark.parametrize("topology", ["clements", "reck", "svd"])


FLAWS = {
    "photodiode.bandwidth_hz": 0.0,
    "adc.bits": 0,
    "adc.headroom": 0.0,
    "adc.gain_drift_sigma": 0.0,
    "dac.bits": 0,
    "dac.inl_lsb": 0.0,
    "dac.noise_v": 0.0,
    "dac.slow_noise_v": 0.0,
    "heater.self_heating": 0.05,
    "heater.ground_ohm": 0.5,
    "heater.curvature": 0.02,
    "crosstalk.fraction": 0.02,
    "loss.shifter_db": 0.1,
    "loss.coupler_db": 0.05,
    "photodiode.responsivity_sigma": 0.05,
    "photodiode.saturation_a": 3.0e-3,
    "drift.sigma_rad": 0.05,
    "modulator.extinction_db": 25.0,
    "modulator.crosstalk": 0.01,
    "modulator.amplitude_sigma": 0.02,
}


def imperfect_chip(folder: Path, topology: str, ports: int = 6, **changes: float) -> Chip:
    """A chip with all imperfections except noise and quantisation. Changes are given as dac__bits = 18."""
    flaws = FLAWS | {key.replace("__", "."): value for key, value in changes.items()}
    path = folder / "chip.toml"
    head = f'preset = "soi"\nports = {ports}\nstages = 2\nseed = 3\nmesh.topology = "{topology}"\n'
    path.write_text(head + "\n".join(f"{key} = {value}" for key, value in flaws.items()))
    return Chip(load_chip(path), threads=1)


def held(chip: Chip, seed: int = 1) -> NDArray[np.float64]:
    drive = np.random.default_rng(seed).uniform(0, 6, chip.describe().channels)
    chip.apply(drive)
    return drive


def loss_and_slope(readings: NDArray[np.float64]) -> tuple[float, NDArray[np.float64]]:
    """Mean squared cosine between readings and a fixed direction: nonlinear, and independent of the laser power."""
    wanted = np.cos(np.arange(readings.shape[1]))
    projection, power = readings @ wanted, np.sum(readings**2, axis=1)
    samples = len(readings)
    slope = 2 * np.outer(projection / power, wanted) - 2 * readings * (projection**2 / power**2)[:, np.newaxis]
    return float(np.mean(projection**2 / power)), slope / samples


@ALL
@pytest.mark.parametrize("stage", [0, 1])
def test_readings_follow_from_the_true_matrix(tmp_path: Path, topology: str, stage: int) -> None:
    chip = imperfect_chip(tmp_path, topology, ports=7)
    held(chip)
    inputs = np.random.default_rng(2).uniform(0, 1, (5, 7)).astype(np.float32)
    here, diode = chip.stages[stage], chip.parameters.photodiode
    fields = stage_matrix(chip, stage) @ entering_fields(chip, stage, inputs)
    expected = here.levels.ampere * here.truth.responsivity * np.abs(fields.T) ** 2
    expected = expected / (1 + expected / diode.saturation_a) + diode.dark_a
    drive = chip.held_drive()[here.channels]
    readings = chip.evaluate(drive[np.newaxis], inputs, here.description.name).values[0]
    np.testing.assert_allclose(readings, expected, atol=1e-5 * expected.max(), rtol=1e-5)


def by_central_differences(chip: Chip, stage: int, inputs: NDArray[np.float64], step: float) -> NDArray[np.float64]:
    """The gradient by voltage at the held drive, from double-precision readings."""
    drive = chip.held_drive()[chip.stages[stage].channels]
    found = np.empty(drive.size)
    for k in range(drive.size):
        moved = [drive + offset * step * (np.arange(drive.size) == k) for offset in (-2, -1, 1, 2)]
        at = [gradient(chip, stage, volts, inputs, loss_and_slope).loss for volts in moved]
        found[k] = (at[0] - 8 * at[1] + 8 * at[2] - at[3]) / (12 * step)
    return found


@ALL
@pytest.mark.parametrize("stage", [0, 1])
def test_gradient_by_voltage_agrees_with_central_differences(tmp_path: Path, topology: str, stage: int) -> None:
    chip = imperfect_chip(tmp_path, topology, ports=5)
    held(chip)
    inputs = np.random.default_rng(2).uniform(0, 1, (4, 5))
    drive = chip.held_drive()[chip.stages[stage].channels]
    found = gradient(chip, stage, None, inputs, loss_and_slope)
    expected = by_central_differences(chip, stage, inputs, 1e-3)
    assert np.linalg.norm(found.drive_v - expected) <= 1e-6 * np.linalg.norm(expected)
    ohm = chip.parameters.heater.resistance_ohm
    np.testing.assert_allclose(found.power_w * 2 * drive / ohm, found.drive_v, rtol=1e-12)


def test_gradient_includes_the_nonlinearity_of_the_source(tmp_path: Path) -> None:
    """DAC steps are 46 µV. In differences over 50 mV their error is 1000 times smaller than the INL's 1.5 %."""
    chip = imperfect_chip(tmp_path, "clements", ports=4, dac__bits=18, dac__inl_lsb=1000.0)
    held(chip)
    inputs = np.random.default_rng(2).uniform(0, 1, (4, 4))
    found = gradient(chip, 0, None, inputs, loss_and_slope).drive_v
    expected = by_central_differences(chip, 0, inputs, 0.05)
    assert np.linalg.norm(found - expected) <= 2e-3 * np.linalg.norm(expected)


def test_the_gradient_by_a_dead_heater_is_zero(tmp_path: Path) -> None:
    chip = imperfect_chip(tmp_path, "clements", ports=4)
    parameters = chip.parameters.model_copy(update={"faults": (FaultParameters(kind="dead_heater", channel=1),)})
    broken = Chip(parameters, threads=1)
    held(broken)
    found = gradient(broken, 0, None, np.ones((2, 4)), loss_and_slope).drive_v
    assert found[1] == 0.0 and np.count_nonzero(found) >= found.size - 4 - 1


@pytest.mark.parametrize("stage", [0, 1])
def test_gradient_follows_faults_and_inputs_that_have_drifted(tmp_path: Path, stage: int) -> None:
    """With exchanged wires, a dying heater and a drifting detector; the drive's own channels are differentiated."""
    chip = imperfect_chip(tmp_path, "clements", ports=4, modulator__phase_drift_rad=2.0, laser__jitter_pm=50.0)
    faults = (
        FaultParameters(kind="swapped_heaters", channel=16 * stage + 1, other=16 * stage + 9),
        FaultParameters(kind="swapped_heaters", channel=16 * stage + 9, other=16 * stage + 4),
        FaultParameters(kind="stuck_channel", channel=16 * stage + 4, volts=3.0),
        FaultParameters(kind="dying_heater", channel=16 * stage + 1, tau_s=1.0),
        FaultParameters(kind="drifting_detector", stage=stage, port=2, tau_s=2.0),
        FaultParameters(kind="swapped_inputs", port=0, other=2),
    )
    broken = Chip(chip.parameters.model_copy(update={"faults": faults}), threads=1)
    held(broken)
    broken.let_pass(0.5)
    inputs = np.random.default_rng(2).uniform(0, 1, (4, 4))
    found = gradient(broken, stage, None, inputs, loss_and_slope)
    expected = by_central_differences(broken, stage, inputs, 1e-3)
    assert np.linalg.norm(found.drive_v - expected) <= 1e-6 * np.linalg.norm(expected)
    assert found.drive_v[4] == 0.0, "the stuck source drives another heater, and its setpoint has no effect"
    drive = broken.held_drive()[broken.stages[stage].channels]
    readings = broken.evaluate(drive[np.newaxis], inputs, f"mesh{stage}").values[0].astype(np.float64)
    assert loss_and_slope(readings)[0] == pytest.approx(found.loss, rel=1e-4)


@ALL
def test_gradient_agrees_with_the_measured_loss(tmp_path: Path, topology: str) -> None:
    """The change of readings of `evaluate` along a direction agrees with the gradient, within single precision."""
    chip = imperfect_chip(tmp_path, topology)
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
    chip = imperfect_chip(tmp_path, "clements")
    held(chip)
    found: Gradient = gradient(chip, 0, None, np.ones((2, 6)), loss_and_slope)
    np.testing.assert_allclose(found.gamma, 0.0, atol=1e-12 * np.abs(found.theta).max())
