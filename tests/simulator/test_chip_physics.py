"""Readings of the whole chip against an independent computation, and detectors against their formulas."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from photonloop.protocols.device import FLAG_SATURATED, LoadedRows
from photonloop.simulator.engine.chip import Chip
from photonloop.simulator.parameters import ChipParameters, load_chip
from photonloop.simulator.truth.chip_truth import stage_matrix, true_phases

BOLTZMANN = 1.380649e-23
CHARGE = 1.602176634e-19


def chip_file(folder: Path, text: str) -> Path:
    path = folder / "chip.toml"
    path.write_text(text)
    return path


def power_of(chip: Chip, stage: int, volts: NDArray) -> NDArray[np.float64]:
    """Power [W] of every heater; the resistance is found by iteration."""
    p, truth = chip.parameters, chip.stages[stage].truth
    if p.dac.bits:
        step = p.dac.range_v / (2**p.dac.bits - 1)
        volts = np.array([round(v / step) for v in volts]) * step
        x, a = volts / p.dac.range_v, truth.inl_shape[:, 0]
        volts = volts + p.dac.inl_lsb * step * 4 * x * (1 - x) * (a + (1 - abs(a)) * np.sign(truth.inl_shape[:, 1]) * (2 * x - 1))
    changes = chip.ambient().source_changes(stage, chip.ambient().moment(chip.status().clock_s))
    volts = volts if changes is None else volts * changes.gain + changes.added
    watts, across = np.zeros(volts.size), volts
    columns = [
        [row[i] for row in chip.stages[stage].description.layout if row[0] == c] for i in (2, 3) for c in range(p.ports * 2)
    ]
    gamma = range(*chip.stages[stage].description.groups["gamma"])
    for _ in range(60):
        ohm = truth.resistance_ohm * (1 + p.heater.self_heating * watts / truth.pi_power_w)
        watts = across**2 / ohm
        across, before = volts.copy(), across
        for group in (*columns, gamma):
            across[list(group)] = volts[list(group)] - p.heater.ground_ohm * np.sum((before / ohm)[list(group)])
    return watts


def received_of(chip: Chip, stage: int, watts: NDArray) -> NDArray[np.float64]:
    """Power [W] that every mode receives at every half column from heaters other than its own, by distance."""
    cross, here = chip.parameters.crosstalk, chip.stages[stage].description
    last = 2 * (1 + max(row[0] for row in here.layout))
    source = np.zeros((here.channels, 2))
    for column, top, theta, phi in here.layout:
        source[theta], source[phi] = (2 * column + 1, top), (2 * column, top)
    start, stop = here.groups["gamma"]
    source[start:stop] = [(last, port) for port in range(stop - start)]
    x, y = np.meshgrid(np.arange(last + 1), np.arange(here.ports), indexing="ij")
    apart = np.hypot(
        (x[..., np.newaxis] - source[:, 0]) * cross.column_pitch_m / 2, (y[..., np.newaxis] - source[:, 1]) * cross.mode_pitch_m
    )
    distance = np.where(apart > 0, apart, np.inf)
    share = np.where(distance < cross.reach_m * 1.000001, cross.fraction * (cross.at_m / distance) ** cross.exponent, 0.0)
    return share @ watts


def matrix_of(chip: Chip, stage: int, volts: NDArray, watts: NDArray | None = None) -> NDArray:
    """Transfer matrix at voltages (or heater powers), segment by segment, from true values and description only."""
    p, s = chip.parameters, chip.stages[stage]
    truth, eta = s.truth, p.heater.curvature
    power = power_of(chip, stage, volts) if watts is None else watts
    received = received_of(chip, stage, power)
    share = p.crosstalk.fraction * (p.crosstalk.at_m / p.crosstalk.mode_pitch_m) ** p.crosstalk.exponent
    arms = np.pi * received / (p.heater.pi_power_w * (1 - share))
    drift = chip.ambient().offset_rad(stage, chip.ambient().moment(chip.status().clock_s), truth.imbalance, heating_of(chip))
    offset = truth.offset_rad if drift is None else truth.offset_rad + drift

    def heat(channel: int, half: int, mode: int) -> None:
        u = (power[channel] + received[half, mode]) / truth.arm_pi_power_w[channel]
        arms[half, mode] = offset[channel] + np.pi * u * (1 + eta * u) / (1 + eta)

    kept = 10 ** (-p.loss.shifter_db / 20)
    whole = np.eye(p.ports, dtype=complex)
    for column in range(1 + max(row[0] for row in s.description.layout)):
        here = [(k, row) for k, row in enumerate(s.description.layout) if row[0] == column]
        for half in (0, 1):
            lost = np.ones(p.ports)
            for _, (_, top, theta, phi) in here:
                heat(theta if half else phi, 2 * column + half, top)
                lost[top] = kept
            whole = (lost * np.exp(1j * arms[2 * column + half]))[:, None] * whole
            for k, (_, top, _, _) in here:
                a = np.pi / 4 + truth.coupler_error_rad[k, half]
                coupler = np.array([[np.cos(a), 1j * np.sin(a)], [1j * np.sin(a), np.cos(a)]])
                whole[top : top + 2] = 10 ** (-truth.loss_db[k] / 40) * coupler @ whole[top : top + 2]
    start, stop = s.description.groups["gamma"]
    for port in range(stop - start):
        heat(start + port, len(arms) - 1, port)
    return kept * np.exp(1j * arms[-1])[:, None] * whole


def heating_of(chip: Chip) -> float:
    """Rise of the chip's temperature [K] due to all heaters at the held drive."""
    held = chip.held_drive()
    return chip.parameters.temperature.heating_k_per_w * sum(
        power_of(chip, k, held[s.channels]).sum() for k, s in enumerate(chip.stages)
    )


def entering(chip: Chip, inputs: NDArray) -> NDArray:
    """Fields behind modulators, input waveguides and drift, in units of the nominal power of one port."""
    p, truth = chip.parameters, chip.input_truth()
    leak = 10 ** (-p.modulator.extinction_db / 10) if p.modulator.extinction_db else 0.0
    field = np.sqrt(leak + (1 - leak) * abs(inputs) ** 2) * np.exp(1j * np.angle(inputs))
    field = field * truth.amplitude * np.exp(1j * truth.phase_rad)
    angle = np.arcsin(np.sqrt(p.modulator.crosstalk))
    for first in (0, 1):
        for top in range(first, p.ports - 1, 2):
            pair = np.array([[np.cos(angle), 1j * np.sin(angle)], [1j * np.sin(angle), np.cos(angle)]])
            field[:, top : top + 2] = field[:, top : top + 2] @ pair.T
    moment = chip.ambient().moment(chip.status().clock_s)
    factors = chip.ambient().input_factors([moment], truth.path_m, heating_of(chip))
    drifted = field if factors is None else field * factors[0]
    return drifted * np.sqrt(chip.ambient().laser_power(moment))


def currents(
    chip: Chip, drive: NDArray, inputs: NDArray, gains: list[float], watts: dict[int, NDArray] | None = None
) -> list[NDArray]:
    """Noise-free photocurrents [A] of every stage, each (samples, ports); `gains` is g of each stage per |E|² = 1.

    `watts`: heater powers of stages for which they differ from those of the drive.
    """
    p = chip.parameters
    port_w = p.laser.total_power_w / p.ports
    field = entering(chip, inputs)
    found = []
    for k, s in enumerate(chip.stages):
        field = field @ matrix_of(chip, k, drive[s.channels], (watts or {}).get(k)).T
        last = k == p.stages - 1
        share = p.tap.fraction if p.tap.fraction and not last else 1.0
        current = p.photodiode.responsivity_a_per_w * s.truth.responsivity * port_w * share * np.abs(field) ** 2
        if p.photodiode.saturation_a:
            current = current / (1 + current / p.photodiode.saturation_a)
        found.append(current + p.photodiode.dark_a)
        field = np.sqrt(1 - p.tap.fraction) * field
        a = gains[k] * np.abs(field) ** 2 / 2 + p.nonlinearity.bias_rad / 2
        if p.nonlinearity.kind == "electro-optic":
            field = np.sqrt(1 - p.nonlinearity.detected_fraction) * np.exp(-1j * a) * np.cos(a) * field
    return found


def drive_of(chip: Chip, seed: int = 5) -> NDArray:
    return np.random.default_rng(seed).uniform(0, 6, chip.describe().channels)


def assert_close(readings: NDArray, expected: NDArray) -> None:
    np.testing.assert_allclose(readings, expected, atol=1e-5 * expected.max(), rtol=1e-5)


def test_an_ideal_chip_of_three_stages_agrees_with_the_reference() -> None:
    chip = Chip(load_chip("ideal", ports=9, stages=3))
    rng = np.random.default_rng(1)
    inputs = (rng.uniform(0, 1, (37, 9)) * np.exp(2j * np.pi * rng.random((37, 9)))).astype(np.complex64)
    drive = drive_of(chip)
    chip.apply(drive)
    expected = currents(chip, drive, inputs, [0.05 * np.pi] * 3)
    for k, s in enumerate(chip.stages):
        readings = chip.evaluate(drive[s.channels][np.newaxis], inputs, s.description.name)
        assert readings.values.shape == (1, 37, 9)
        assert readings.values.dtype == np.float32
        assert_close(readings.values[0], expected[k])
    # Lossless: all power arrives at the first tap.
    total = chip.evaluate(drive[chip.stages[0].channels][np.newaxis], inputs, "mesh0").values.sum(axis=2)[0]
    np.testing.assert_allclose(total, 0.01 / 9 * np.sum(np.abs(inputs) ** 2, axis=1), rtol=1e-5)


@pytest.mark.parametrize("topology", ["clements", "reck"])
def test_an_imperfect_chip_without_noise_agrees_with_the_reference(tmp_path: Path, topology: str) -> None:
    text = f'preset = "soi"\nports = 12\nseed = 4\nmesh.topology = "{topology}"\nphotodiode.bandwidth_hz = 0.0\n'
    text += "adc.bits = 0\nadc.gain_drift_sigma = 0.0\ndac.noise_v = 0.0\n"
    text += "crosstalk.reach_m = 1.5e-4\n"
    chip = Chip(load_chip(chip_file(tmp_path, text)))
    inputs = np.random.default_rng(2).uniform(0, 1, (33, 12))
    drive = drive_of(chip)
    chip.apply(drive)
    kept = 10 ** (-0.11 / 10)  # transmission of a shifter
    lost = kept * (10 ** (-0.04 / 10) * ((1 + kept) / 2) ** 2) ** 11  # 66 interferometers on two modes each: 11 per path
    gains = [0.05 * np.pi / (lost * 0.9), 0.0]
    expected = currents(chip, drive, inputs, gains)
    for k, s in enumerate(chip.stages):
        values = chip.evaluate(drive[s.channels][np.newaxis], inputs, s.description.name).values[0]
        assert_close(values, expected[k])
        np.testing.assert_allclose(stage_matrix(chip, k), matrix_of(chip, k, drive[s.channels]), atol=1e-12)
        assert np.linalg.norm(stage_matrix(chip, k), 2) < 1


def test_each_setting_of_an_evaluation_is_read_at_its_own_drive(tmp_path: Path) -> None:
    chip = Chip(load_chip("ideal", ports=6, stages=2))
    inputs = np.random.default_rng(0).random((5, 6))
    held = drive_of(chip, 1)
    chip.apply(held)
    here = chip.stages[1]
    drives = np.random.default_rng(8).uniform(0, 6, (7, here.description.channels))
    values = chip.evaluate(drives, inputs, "mesh1").values
    for s, volts in enumerate(drives):
        whole = held.copy()
        whole[here.channels] = volts
        assert_close(values[s], currents(chip, whole, inputs, [0.05 * np.pi] * 2)[1])


def test_dac_step_is_that_of_the_description(tmp_path: Path) -> None:
    text = """
    preset = "soi"
    ports = 2
    stages = 1
    dac.inl_lsb = 0.0
    heater = { self_heating = 0.0, curvature = 0.0, resistance_sigma = 0.0, ground_ohm = 0.0 }
    crosstalk.fraction = 0.0
    """
    chip = Chip(load_chip(chip_file(tmp_path, text)))
    lsb_v = chip.describe().drive.lsb_v
    assert lsb_v == pytest.approx(12 / 65535)
    drives = np.full((3, 4), 4.0)
    drives[:, 0] = np.round(4.0 / lsb_v) * lsb_v + np.array([0.0, 0.45, 0.55]) * lsb_v
    phases = [true_phases(chip, 0, d).theta[0] for d in drives]
    assert phases[0] == phases[1]
    expected = np.pi * 2 * 4.0 * lsb_v / (770 * chip.stages[0].truth.pi_power_w[0])
    assert phases[2] - phases[0] == pytest.approx(expected, rel=1e-3)


def test_true_phases_of_an_ideal_chip() -> None:
    chip = Chip(load_chip("ideal", ports=4, stages=1))
    volts = np.sqrt(770 * 0.0248 * np.linspace(0, 2, 16))
    phases = true_phases(chip, 0, volts)
    np.testing.assert_allclose(np.concatenate(phases), np.pi * np.linspace(0, 2, 16), atol=1e-12)


def test_detector_noise_has_the_variance_of_its_formula(tmp_path: Path) -> None:
    text = """
    preset = "soi"
    ports = 4
    stages = 1
    photodiode = { bandwidth_hz = 2e6, dark_a = 1e-6, load_ohm = 50000.0 }
    laser = { rin_db_per_hz = 0.0, drift_sigma = 0.0, jitter_pm = 0.0 }
    modulator = { phase_drift_rad = 0.0, coupling_drift_sigma = 0.0 }
    drift.sigma_rad = 0.0
    temperature.sigma_k = 0.0
    crosstalk.reach_m = 1.5e-4
    dac = { noise_v = 0.0, slow_noise_v = 0.0, gain_drift_sigma = 0.0 }
    adc = { bits = 0, headroom = 1000.0, gain_drift_sigma = 0.0 }
    """
    chip = Chip(load_chip(chip_file(tmp_path, text)))
    drives = np.repeat(drive_of(chip)[np.newaxis], 1000, axis=0)
    inputs = np.repeat(np.array([[1.0, 0.4, 0.0, 0.9]]), 48, axis=0)
    values = chip.evaluate(drives, inputs, "mesh0").values.reshape(-1, 4).astype(float)
    mean = values.mean(axis=0)
    expected = currents(chip, drives[0], inputs[:1], [0.0])[0][0]
    variance = 4 * BOLTZMANN * 300 * 2e6 / 50000 + 2 * CHARGE * expected * 2e6
    count = values.shape[0]
    np.testing.assert_allclose(mean, expected, atol=5 * np.sqrt(variance.max() / count))
    np.testing.assert_allclose(values.var(axis=0), variance, rtol=5 * np.sqrt(2 / count))
    correlation = np.corrcoef(values.T) - np.eye(4)
    assert np.abs(correlation).max() < 5 / np.sqrt(count)
    assert np.ptp(2 * CHARGE * expected * 2e6) > 0.2 * variance.min()  # shot noise is a visible part of the variance


def test_readings_without_noise_are_repeatable() -> None:
    chip = Chip(load_chip("ideal", ports=4, stages=2))
    drives = drive_of(chip)[np.newaxis, :16]
    inputs = np.ones((3, 4))
    first = chip.evaluate(drives, inputs, "mesh0")
    np.testing.assert_array_equal(first.values, chip.evaluate(drives, inputs, "mesh0").values)
    noisy = Chip(load_chip("soi", ports=4, stages=2))
    inputs = np.ones((60, 4))
    first = noisy.evaluate(drives, inputs, "mesh0")
    assert not np.array_equal(first.values, noisy.evaluate(drives, inputs, "mesh0").values)


def test_adc_quantises_and_saturates(tmp_path: Path) -> None:
    text = 'preset = "ideal"\nports = 4\nstages = 1\nadc = { bits = 8, headroom = 1.5 }\n'
    chip = Chip(load_chip(chip_file(tmp_path, text)))
    full_scale = chip.describe().readout.full_scale[0]
    drives = np.stack([drive_of(chip), np.zeros(16)])
    inputs = np.vstack([np.eye(4) * 0.3, np.ones((1, 4))])
    values = chip.evaluate(drives, inputs, "mesh0").values
    codes = values / (full_scale / 255)
    np.testing.assert_allclose(codes, np.round(codes), atol=1e-3)
    assert codes.max() <= 255 + 1e-3
    exact = np.stack([currents(chip, d, inputs, [0.0])[0] for d in drives])
    np.testing.assert_allclose(values, np.minimum(exact, full_scale), atol=0.51 * full_scale / 255)
    flags = chip.evaluate(drives, inputs, "mesh0").flags.max(axis=1)
    np.testing.assert_array_equal(flags == FLAG_SATURATED, (exact >= full_scale).any(axis=(1, 2)))
    assert set(flags) == {0, FLAG_SATURATED}, "the two settings are chosen so that only one saturates"


def test_a_tap_removes_its_share_of_the_power_and_an_ideal_one_nothing(tmp_path: Path) -> None:
    drive = drive_of(Chip(load_chip("ideal", ports=4)), 3)
    readings = {}
    for tap in (0.0, 0.2):
        path = chip_file(tmp_path, f'preset = "ideal"\nports = 4\ntap.fraction = {tap}\nnonlinearity.kind = "none"\n')
        chip = Chip(load_chip(path))
        chip.apply(drive)
        readings[tap] = [chip.evaluate(drive[s.channels][None], np.ones((2, 4)), s.description.name).values for s in chip.stages]
    np.testing.assert_allclose(readings[0.2][0], 0.2 * readings[0.0][0], rtol=1e-5)
    np.testing.assert_allclose(readings[0.2][1], 0.8 * readings[0.0][1], rtol=1e-5)


def test_soi_at_64_ports_has_a_signal_above_its_noise() -> None:
    """Typical images, mean amplitude 0.3, standard deviation 0.37: signal well above noise, no saturation."""
    parameters = load_chip("soi")
    assert (parameters.ports, parameters.stages) == (64, 2)
    chip = Chip(parameters)
    rng = np.random.default_rng(0)
    images = np.clip(rng.gamma(0.66, 0.46, (200, 64)), 0, 1)
    drive = drive_of(chip)
    chip.apply(drive)
    for s, least in zip(chip.stages, (300, 10), strict=True):
        readings = chip.evaluate(np.repeat(drive[s.channels][None], 24, axis=0), images, s.description.name)
        values = readings.values.astype(float) - parameters.photodiode.dark_a
        signal, noise = np.sqrt(np.mean(values**2)), np.sqrt(values.var(axis=0, ddof=1).mean())
        assert signal / noise > least
        assert not readings.flags.any()


def test_fabrication_depends_on_the_seed_only() -> None:
    def truth(parameters: ChipParameters) -> NDArray:
        chip = Chip(parameters, threads=1)
        parts = [
            (s.truth.offset_rad, s.truth.pi_power_w, s.truth.coupler_error_rad.ravel(), s.truth.loss_db) for s in chip.stages
        ]
        return np.concatenate([np.concatenate(part) for part in parts])

    one = truth(load_chip("soi", ports=5, seed=1))
    np.testing.assert_array_equal(one, truth(load_chip("soi", ports=5, seed=1)))
    assert not np.any(np.isclose(one, truth(load_chip("soi", ports=5, seed=2)), rtol=1e-9))
    three = truth(load_chip("soi", ports=5, seed=1, stages=3))
    np.testing.assert_array_equal(three[: one.size], one)
    ideal = Chip(load_chip("ideal", ports=5, seed=1))
    assert not ideal.stages[0].truth.offset_rad.any()
    assert not ideal.stages[0].truth.coupler_error_rad.any()


def test_fabrication_has_the_given_spread() -> None:
    chip = Chip(load_chip("soi", ports=64, stages=1, seed=3))
    truth = chip.stages[0].truth
    n = truth.pi_power_w.size
    assert np.std(truth.responsivity) == pytest.approx(0.03, rel=5 / np.sqrt(2 * 64))
    assert np.std(truth.imbalance) == pytest.approx(0.2, rel=5 / np.sqrt(2 * n))
    assert np.abs(truth.inl_shape).max() <= 1
    assert np.std(truth.pi_power_w / 0.0248) == pytest.approx(0.02, rel=5 / np.sqrt(2 * n))
    assert np.std(truth.coupler_error_rad) == pytest.approx(0.02, rel=5 / np.sqrt(2 * n))
    assert np.mean(truth.offset_rad) == pytest.approx(np.pi, abs=5 * np.pi / np.sqrt(3 * n))
    assert 0 <= truth.offset_rad.min() < truth.offset_rad.max() < 2 * np.pi
    assert np.mean(truth.loss_db) == pytest.approx(2 * 0.02, abs=5 * 0.03 / np.sqrt(truth.loss_db.size))


def test_description_has_no_true_values() -> None:
    chip = Chip(load_chip("soi", ports=4, seed=3))
    description = chip.describe()
    assert description.drive.pi_power_w == 0.0248
    other = Chip(load_chip("soi", ports=4, seed=4)).describe()
    assert description.model_copy(update={"serials": {}}) == other.model_copy(update={"serials": {}})


@pytest.mark.parametrize("preset", ["ideal", "soi"])
def test_readings_do_not_depend_on_threads(preset: str) -> None:
    found = []
    for threads in (1, 2, 3):
        chip = Chip(load_chip(preset, ports=48), threads=threads)
        chip.load_inputs("all", np.random.default_rng(0).random((90, 48)))
        drive = drive_of(chip)
        chip.apply(drive)
        rng = np.random.default_rng(6)
        values = []
        for stage in (0, 1, 1, 0):
            drives = rng.uniform(0, 6, (5, chip.stages[stage].description.channels))
            rows = LoadedRows("all", rng.integers(0, 90, 70))
            values.append(chip.evaluate(drives, rows, f"mesh{stage}").values)
        found.append(np.concatenate(values))
        chip.close()
    np.testing.assert_array_equal(found[0], found[1])
    np.testing.assert_array_equal(found[0], found[2])
