"""Lasers of weight banks, one per input, and chips of several banks."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from photonloop.protocols.device import FLAG_UNSETTLED
from photonloop.simulator.engine.ambient import Ambient
from photonloop.simulator.engine.chip import Chip
from photonloop.simulator.parameters import ChipParameters, load_chip
from photonloop.simulator.physics.chip_faults import FaultParameters
from photonloop.simulator.physics.ring_rows import row_transmissions
from photonloop.simulator.physics.weight_bank import Ring, phases_of
from photonloop.simulator.truth.chip_truth import gradient
from photonloop.simulator.truth.reference import settled_currents_a

INPUTS, OUTPUTS = 4, 3


def banks(folder: Path, text: str = "", preset: str = "ideal", stages: int = 1) -> ChipParameters:
    path = folder / "bank.toml"
    head = f'preset = "{preset}"\nports = {INPUTS}\nstages = {stages}\nmesh.topology = "weight_bank"\nmesh.outputs = {OUTPUTS}\n'
    path.write_text(head + text)
    return load_chip(path)


def volts_for(chip: Chip, weights: np.ndarray) -> np.ndarray:
    heater, phases = chip.parameters.heater, phases_of(weights, Ring(chip.parameters.ring.finesse))
    return np.sqrt(phases / np.pi * heater.pi_power_w * heater.resistance_ohm).ravel()


def test_intensity_noise_of_the_lasers_is_independent(tmp_path: Path) -> None:
    """Covariance of rows n and l: Σ_m w_nm w_lm P_m² rin², plus the shot noise of one row."""
    chip = Chip(banks(tmp_path, "laser.rin_db_per_hz = -120.0\nphotodiode.bandwidth_hz = 1.0e9\n"), threads=1)
    rng, samples, rin = np.random.default_rng(0), 20000, np.sqrt(1e-12 * 1e9)
    weights, amplitudes = rng.uniform(-0.9, 0.9, (OUTPUTS, INPUTS)), np.array([1.0, 0.5, 0.8, 0.3])
    inputs = np.tile(amplitudes.astype(np.float32), (samples, 1))
    parts = [chip.evaluate(volts_for(chip, weights)[np.newaxis], inputs[:10000], "bank").values[0] for _ in range(2)]
    readings = np.concatenate(parts).astype(float)
    power_a = chip.parameters.laser.total_power_w / INPUTS / OUTPUTS * amplitudes**2
    shot_a2 = 2 * 1.602176634e-19 * 1e9 * power_a.sum()
    expected = (weights * power_a**2) @ weights.T * rin**2 + shot_a2 * np.eye(OUTPUTS)
    spread = np.sqrt(np.outer(np.diag(expected), np.diag(expected)))
    np.testing.assert_allclose(np.cov(readings.T), expected, atol=5 * np.sqrt(2 / samples) * spread.max())
    np.testing.assert_allclose(np.var(readings, axis=0), np.diag(expected), rtol=5 * np.sqrt(2 / samples))
    # Common noise would vanish in a row whose weights cancel; independent noise does not.
    assert expected[0, 0] > 100 * shot_a2


def test_readings_with_intensity_noise_do_not_depend_on_threads(tmp_path: Path) -> None:
    text = "laser.rin_db_per_hz = -120.0\nphotodiode.bandwidth_hz = 1.0e9\n"
    drives = np.random.default_rng(1).uniform(0, 5, (40, INPUTS * OUTPUTS))
    inputs = np.ones((200, INPUTS), np.float32)
    one, two = (Chip(banks(tmp_path, text), threads=n).evaluate(drives, inputs, "bank").values for n in (1, 2))
    np.testing.assert_array_equal(one, two)


def test_power_and_wavelength_of_each_laser_drift_independently(tmp_path: Path) -> None:
    text = "ring.fsr_nm = 8.0\n[laser]\ndrift_sigma = 0.1\ndrift_tau_s = 1.0\njitter_pm = 20.0\njitter_tau_s = 1.0\n"
    parameters = banks(tmp_path, text)
    powers, shifts = [], []
    for seed in range(400):
        ambient = Ambient(parameters.model_copy(update={"seed": seed}), (INPUTS * OUTPUTS,))
        moment = ambient.moment(3.0)
        powers.append(ambient.laser_powers(moment))
        shifts.append(ambient.wavelength_shift_rad(moment))
        assert ambient.laser_power(moment) == pytest.approx(np.mean(powers[-1]))
    for values, sigma in ((np.log(powers), 0.1), (np.array(shifts), 2 * np.pi * 0.020 / 8.0)):
        np.testing.assert_allclose(values.std(axis=0), sigma, rtol=5 / np.sqrt(800))
        np.testing.assert_allclose(values.mean(axis=0), 0.0, atol=5 * sigma / 20)
        assert np.abs(np.corrcoef(values.T) - np.eye(INPUTS)).max() < 5 / 20


def test_a_mesh_has_one_laser_whose_wavelength_acts_on_paths() -> None:
    parameters = load_chip("soi", ports=4, stages=1)
    ambient = Ambient(parameters, (16,))
    moment = ambient.moment(1e5)
    assert ambient.wavelength_shift_rad(moment) is None and len(ambient.laser_powers(moment)) == 1
    assert ambient.wavelength_pm(moment) != 0.0


@pytest.mark.parametrize("spectral_crosstalk", ["true", "false"])
def test_readings_follow_power_and_wavelength_of_the_lasers(tmp_path: Path, spectral_crosstalk: str) -> None:
    """Against weights at shifted phases times drifted powers, hours apart; zero if the lasers are off."""
    ring = f"[ring]\nfinesse = 25.0\nspectral_crosstalk = {spectral_crosstalk}\n"
    chip = Chip(banks(tmp_path, "laser.drift_sigma = 0.2\nlaser.jitter_pm = 100.0\n" + ring), threads=1)
    own = Ring(25.0, 0.0, spectral_crosstalk == "true")
    rng = np.random.default_rng(2)
    phases, inputs = rng.uniform(0.05, 0.6, (OUTPUTS, INPUTS)), rng.uniform(0, 1, (5, INPUTS)).astype(np.float32)
    heater = chip.parameters.heater
    volts = np.sqrt(phases / np.pi * heater.pi_power_w * heater.resistance_ohm).reshape(1, -1)
    full_a, seen = chip.parameters.laser.total_power_w / INPUTS / OUTPUTS, []
    for _ in range(4):
        chip.let_pass(10 * 3600.0)
        readings = chip.evaluate(volts, inputs, "bank")
        moment = chip.ambient().moment(float(readings.time_s[0]))
        weights = row_transmissions(phases, own, chip.ambient().wavelength_shift_rad(moment)).weights
        expected = full_a * (inputs.astype(float) ** 2 * chip.ambient().laser_powers(moment)) @ weights.T
        np.testing.assert_allclose(readings.values[0], expected, atol=1e-5 * full_a)
        seen.append(readings.values[0])
    assert np.std(seen, axis=0).max() > 0.02 * full_a
    off = FaultParameters(kind="laser_off")
    dark = Chip(chip.parameters.model_copy(update={"faults": (off,)}), threads=1).evaluate(volts, inputs, "bank")
    assert np.all(dark.values == 0)


def test_banks_share_the_light_and_have_channels_and_detectors_of_their_own(tmp_path: Path) -> None:
    single, chip = Chip(banks(tmp_path), threads=1), Chip(banks(tmp_path, stages=3), threads=1)
    assert [stage.name for stage in single.describe().stages] == ["bank"]
    stages = chip.describe().stages
    assert [stage.name for stage in stages] == ["bank0", "bank1", "bank2"]
    assert [stage.first_channel for stage in stages] == [0, 12, 24] and chip.describe().channels == 36
    assert chip.describe().readout.full_scale == pytest.approx([single.describe().readout.full_scale[0] / 3] * 3)
    rng = np.random.default_rng(3)
    drives, inputs = rng.uniform(0, 5, (2, 12)), rng.uniform(0, 1, (7, INPUTS)).astype(np.float32)
    whole = single.evaluate(drives, inputs, "bank").values
    np.testing.assert_allclose(chip.evaluate(drives, inputs, "bank1").values, whole / 3, rtol=1e-5, atol=1e-9)
    # What the other banks hold does not matter.
    chip.apply(np.concatenate((rng.uniform(0, 5, 12), np.zeros(12), rng.uniform(0, 5, 12))))
    np.testing.assert_allclose(chip.evaluate(drives, inputs, "bank1").values, whole / 3, rtol=1e-5, atol=1e-9)


def total(readings: np.ndarray) -> tuple[float, np.ndarray]:
    return float(np.sum(readings)), np.ones_like(readings)


def test_each_bank_is_fabricated_on_its_own_and_agrees_with_the_reference(tmp_path: Path) -> None:
    text = "photodiode.bandwidth_hz = 0.0\nadc.bits = 0\nadc.headroom = 0.0\ndac.bits = 0\ndac.inl_lsb = 0.0\n"
    chip = Chip(banks(tmp_path, text, "soi", stages=2), threads=2)
    single = Chip(banks(tmp_path, text, "soi"), threads=1)
    offsets = [stage.truth.offset_rad for stage in chip.stages]
    np.testing.assert_array_equal(offsets[0], single.stages[0].truth.offset_rad)
    assert np.abs(offsets[1] - offsets[0]).min() > 1e-6
    rng = np.random.default_rng(4)
    drive, inputs = rng.uniform(0, 4, 12), rng.uniform(0, 1, (20, INPUTS)).astype(np.float32)
    chip.apply(rng.uniform(0, 4, 24))
    for index in range(2):
        found = chip.evaluate(drive[np.newaxis], inputs, f"bank{index}").values[0]
        expected = settled_currents_a(chip, index, drive, inputs)
        np.testing.assert_allclose(found, expected, atol=5e-5 * np.abs(expected).max())
        step = 1e-4 * (np.arange(12) == 5)
        low, here, high = (gradient(chip, index, volts, inputs, total) for volts in (drive - step, drive, drive + step))
        assert here.drive_v[5] == pytest.approx((high.loss - low.loss) / 2e-4, rel=1e-5)


def test_a_bank_does_not_wait_for_the_heaters_of_another(tmp_path: Path) -> None:
    text = "heater.rise_s = 1.0e-3\nheater.fall_s = 1.0e-3\nclock.settle_s = 1.0e-5\n"
    chip = Chip(banks(tmp_path, text, stages=2), threads=1)
    chip.apply(np.concatenate((np.full(12, 4.0), np.zeros(12))))
    drive, inputs = np.zeros((1, 12)), np.ones((3, INPUTS), np.float32)
    assert chip.evaluate(drive, inputs, "bank1").flags.max() == 0
    assert chip.evaluate(np.full((1, 12), 4.0), inputs, "bank0").flags.min() & FLAG_UNSETTLED


def test_a_fault_of_a_bank_leaves_the_others_intact(tmp_path: Path) -> None:
    faults = (FaultParameters(kind="open_detector", stage=1, port=2), FaultParameters(kind="dead_heater", channel=12))
    intact = banks(tmp_path, stages=2)
    chip, healthy = Chip(intact.model_copy(update={"faults": faults}), threads=1), Chip(intact, threads=1)
    drive, inputs = np.random.default_rng(5).uniform(2, 4, (1, 12)), np.ones((2, INPUTS), np.float32)
    np.testing.assert_array_equal(chip.evaluate(drive, inputs, "bank0").values, healthy.evaluate(drive, inputs, "bank0").values)
    found, expected = (each.evaluate(drive, inputs, "bank1").values[0] for each in (chip, healthy))
    assert np.all(found[:, 2] == 0) and np.all(found[:, 0] != expected[:, 0])
    np.testing.assert_array_equal(found[:, 1], expected[:, 1])
