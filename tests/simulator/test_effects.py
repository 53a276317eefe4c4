"""Every effect alone, all together, and absent: compiled kernels against the double-precision reference."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy import optimize
from support.chips import chip_of, parameters_of

from photonloop.protocols.device import LoadedRows
from photonloop.simulator import kernels
from photonloop.simulator.engine.chip import Chip
from photonloop.simulator.parameters import DacParameters, LaserParameters, ModulatorParameters, load_chip
from photonloop.simulator.physics import dac, heater, laser, modulator, photodiode
from photonloop.simulator.physics.fabrication import fabricate_inputs
from photonloop.simulator.truth import reference

EFFECTS: dict[str, dict[str, dict[str, Any]]] = {
    "dac bits": {"dac": {"bits": 10}},
    "inl": {"dac": {"bits": 10, "inl_lsb": 3.0}},
    "pi power": {"heater": {"pi_power_sigma": 0.05}},
    "offsets": {"heater": {"offset_span_rad": 6.0}},
    "self-heating": {"heater": {"self_heating": 0.1}},
    "curvature": {"heater": {"curvature": 0.03}},
    "negative curvature": {"heater": {"curvature": -0.03}},
    "lag, settled": {"heater": {"rise_s": 5e-7, "fall_s": 4e-7}},
    "crosstalk": {"crosstalk": {"fraction": 0.02}},
    "ground": {"heater": {"ground_ohm": 2.0}},
    "resistances": {"heater": {"resistance_sigma": 0.1}},
    "heating": {"temperature": {"heating_k_per_w": 3.0, "imbalance_sigma": 0.5}},
    "crosstalk over the chip": {"crosstalk": {"fraction": 0.01, "reach_m": 0.1}},
    "far crosstalk": {"crosstalk": {"fraction": 0.02, "reach_m": 4e-4, "exponent": 2.0}},
    "drift": {"drift": {"sigma_rad": 0.3, "tau_s": 1.0}},
    "temperature": {"temperature": {"sigma_k": 3.0, "imbalance_sigma": 1.0, "tau_s": 1.0}},
    "couplers": {"coupler": {"angle_sigma_rad": 0.1}},
    "loss": {"loss": {"mzi_db": 0.2, "mzi_sigma_db": 0.1}},
    "coupler loss": {"loss": {"coupler_db": 0.1}},
    "shifter loss": {"loss": {"shifter_db": 0.4}},
    "extinction": {"modulator": {"extinction_db": 15.0}},
    "amplitudes": {"modulator": {"amplitude_sigma": 0.1}},
    "input phases": {"modulator": {"phase_span_rad": 6.0}},
    "input crosstalk": {"modulator": {"crosstalk": 0.02}},
    "phase drift": {"modulator": {"phase_drift_rad": 2.0, "phase_drift_tau_s": 10.0}},
    "coupling drift": {"modulator": {"coupling_drift_sigma": 0.2, "coupling_drift_tau_s": 1.0}},
    "detuned paths": {"modulator": {"path_sigma_m": 0.01}, "laser": {"detuning_pm": 30.0}},
    "wavelength": {"laser": {"jitter_pm": 300.0, "jitter_tau_s": 1.0}, "temperature": {"imbalance_sigma": 1.0}},
    "coupler slope": {"coupler": {"slope_rad_per_nm": 0.01}, "laser": {"detuning_pm": -4000.0}},
    "laser drift": {"laser": {"drift_sigma": 0.2, "drift_tau_s": 1.0}},
    "tap": {"tap": {"fraction": 0.2}},
    "responsivity": {"photodiode": {"responsivity_sigma": 0.1}},
    "diode saturation": {"photodiode": {"saturation_a": 5e-4}},
    "dark": {"photodiode": {"dark_a": 1e-5}},
    "adc": {"adc": {"bits": 10, "headroom": 3.0}},
    "slow source noise": {"dac": {"slow_noise_v": 0.02, "slow_noise_tau_s": 1.0}},
    "source gain": {"dac": {"gain_drift_sigma": 0.01, "gain_drift_tau_s": 1.0}},
    "converter offset": {"adc": {"bits": 10, "headroom": 3.0, "offset_lsb": 20.0, "offset_sigma_lsb": 3.0}},
    "offset drift": {"adc": {"bits": 10, "headroom": 3.0, "offset_drift_lsb": 3.0, "offset_drift_tau_s": 1.0}},
    "converter gain": {"adc": {"gain_drift_sigma": 0.01, "gain_drift_tau_s": 1.0}},
    # Shot noise is the only noise, and below the tolerance.
    "memory": {"photodiode": {"has_memory": True, "bandwidth_hz": 5.0}, "clock": {"sample_s": 0.1}},
}


def together() -> dict[str, dict[str, Any]]:
    parts: dict[str, dict[str, Any]] = {}
    for effect in EFFECTS.values():
        for name, fields in effect.items():
            parts.setdefault(name, {}).update(fields)
    return parts


def drive_of(chip: Chip, seed: int = 5) -> NDArray:
    return np.random.default_rng(seed).uniform(0, 6, chip.describe().channels)


def assert_agrees_with_the_reference(chip: Chip) -> None:
    rng = np.random.default_rng(3)
    inputs = rng.random((21, chip.parameters.ports))
    chip.load_inputs("all", inputs)
    chip.apply(drive_of(chip))
    for index, stage in enumerate(chip.stages):
        drives = rng.uniform(0, 6, (2, stage.description.channels))
        readings = chip.evaluate(drives, LoadedRows("all", np.arange(21)), stage.description.name)
        assert not (readings.flags & ~np.uint32(1)).any()
        for volts, values, time_s in zip(drives, readings.values, readings.time_s, strict=True):
            exact = reference.settled_currents_a(chip, index, volts, inputs, chip.ambient().moment(time_s))
            expected = reference.converted_a(chip, index, exact, chip.ambient().moment(time_s))
            # Single precision; with an ADC, rounding may change the code by one.
            off = chip.stages[index].levels.code_a
            near = np.abs(values - expected) <= 2e-5 * exact.max() + off * (1 + 1e-5)
            assert near.all()
            assert np.count_nonzero(np.abs(values - expected) > 2e-5 * exact.max()) <= 0.06 * values.size


@pytest.mark.parametrize("name", EFFECTS)
def test_a_single_effect_agrees_with_the_reference(name: str) -> None:
    """Readings agree with the reference and differ from those of a chip without the effect."""
    chip = chip_of("ideal", EFFECTS[name], ports=7)
    assert_agrees_with_the_reference(chip)
    plain = chip_of("ideal", {}, ports=7)
    drive, inputs = drive_of(chip), np.random.default_rng(1).random((9, 7))
    readings = []
    for each in (chip, plain):
        each.apply(drive)
        readings.append(each.evaluate(drive[np.newaxis, each.stages[1].channels], inputs, "mesh1").values)
    changed = np.abs(readings[0] - readings[1]).max() > 1e-5 * readings[1].max()
    assert changed == (name != "lag, settled")


@pytest.mark.parametrize("topology", ["clements", "reck"])
def test_all_effects_together_agree_with_the_reference(topology: str) -> None:
    assert_agrees_with_the_reference(chip_of("ideal", {**together(), "mesh": {"topology": topology}}, ports=9, stages=3))


@pytest.mark.parametrize("preset", ["soi", "harsh"])
def test_presets_agree_with_the_reference(preset: str) -> None:
    settled = {"heater": {"rise_s": 0.0, "fall_s": 0.0}}
    assert_agrees_with_the_reference(chip_of(preset, settled, ports=10))


def test_a_large_mesh_agrees_with_the_reference() -> None:
    """From `SHARED_CHANNELS` on, workers share the work on each setting; readings do not depend on their number."""
    chip = chip_of("soi", {}, ports=190, stages=1, threads=2)
    assert_agrees_with_the_reference(chip)
    drives = np.stack([drive_of(chip, 1), drive_of(chip, 2), drive_of(chip, 3)])
    inputs = np.random.default_rng(0).random((40, 190))
    found = []
    for threads in (1, 3):
        noisy = chip_of("soi", {}, quiet=False, ports=190, stages=1, threads=threads)
        found.append(noisy.evaluate(drives, inputs, "mesh0").values)
    np.testing.assert_array_equal(found[0], found[1])


ABSENT: dict[str, dict[str, dict[str, Any]]] = {
    "ground": {"heater": {"ground_ohm": 0.0, "resistance_sigma": 0.0}},
    "heating": {"temperature": {"heating_k_per_w": 0.0, "imbalance_sigma": 1.0}},
    "inl": {"dac": {"inl_lsb": 0.0}},
    "heater": {"heater": {"self_heating": 0.0, "curvature": 0.0, "rise_s": 0.0, "fall_s": 0.0}},
    "crosstalk": {"crosstalk": {"fraction": 0.0, "reach_m": 1e-3, "at_m": 1e-5}},
    "no reach": {"crosstalk": {"fraction": 0.1, "reach_m": 0.0}},
    "drift": {"drift": {"sigma_rad": 0.0, "tau_s": 1e-3}},
    "temperature": {"temperature": {"sigma_k": 0.0, "imbalance_sigma": 1.0, "tau_s": 1e-3}},
    "loss": {"loss": {"coupler_db": 0.0, "shifter_db": 0.0}},
    "modulators": {"modulator": dict.fromkeys(("extinction_db", "amplitude_sigma", "phase_span_rad", "crosstalk"), 0.0)},
    "laser": {"laser": {"rin_db_per_hz": 0.0, "drift_sigma": 0.0, "drift_tau_s": 1e-3}},
    "photodiode": {"photodiode": {"responsivity_sigma": 0.0, "saturation_a": 0.0}},
    "sources": {"dac": {"noise_v": 0.0, "slow_noise_v": 0.0, "slow_noise_tau_s": 1e-3, "gain_drift_tau_s": 1e-3}},
    "converters": {"adc": {"noise_lsb": 0.0, "offset_drift_tau_s": 1e-3, "gain_drift_tau_s": 1e-3}},
    "almost absent": {
        "dac": {"noise_v": 1e-300, "slow_noise_v": 1e-300, "gain_drift_sigma": 1e-30},
        "adc": {"noise_lsb": 1e-30, "offset_lsb": 1e-30, "gain_drift_sigma": 1e-30},
    },
    "inputs": {
        "modulator": {"phase_drift_rad": 0.0, "phase_drift_tau_s": 1e-3, "coupling_drift_sigma": 0.0, "path_sigma_m": 0.1},
        "laser": {"jitter_pm": 0.0, "jitter_tau_s": 1e-3},
    },
    "no paths": {"laser": {"jitter_pm": 5.0, "detuning_pm": 30.0}, "coupler": {"slope_rad_per_nm": 0.0}},
}


@pytest.mark.parametrize("name", ABSENT)
def test_an_effect_at_zero_changes_no_bit(name: str) -> None:
    """Readings are bitwise those of a chip without the effect, whatever its other parameters are."""
    base = {
        "photodiode": {"bandwidth_hz": 5e4, "temperature_k": 300.0},
        "dac": {"bits": 16},
        "adc": {"bits": 16, "headroom": 8.0},
    }
    readings = []
    for parts in (base, {key: {**base.get(key, {}), **ABSENT[name].get(key, {})} for key in {*base, *ABSENT[name]}}):
        chip = chip_of("ideal", parts, quiet=False, ports=6)
        drive = drive_of(chip)
        chip.apply(drive)
        inputs = np.random.default_rng(0).random((20, 6))
        readings += [chip.evaluate(drive[np.newaxis, s.channels], inputs, s.description.name).values for s in chip.stages]
    np.testing.assert_array_equal(readings[:2], readings[2:])


def test_adding_rin_leaves_other_noise_unchanged() -> None:
    chips = [
        chip_of("soi", {"laser": {"rin_db_per_hz": rin}, "adc": {"bits": 0}}, quiet=False, ports=6, stages=1)
        for rin in (0.0, -200.0)
    ]
    dark = np.zeros((30, 6))
    drive = drive_of(chips[0])[np.newaxis]
    readings = [chip.evaluate(drive, dark, "mesh0").values for chip in chips]
    np.testing.assert_allclose(readings[0], readings[1], rtol=1e-5)


@settings(max_examples=50, deadline=None)
@given(
    bits=st.integers(4, 20),
    inl_lsb=st.floats(0, 20),
    share=st.floats(-1, 1),
    sign=st.sampled_from([-1.0, 1.0]),
    code=st.floats(0, 1),
)
def test_dac_quantisation_and_nonlinearity_are_bounded(bits: int, inl_lsb: float, share: float, sign: float, code: float) -> None:
    own = DacParameters(bits=bits, inl_lsb=inl_lsb)
    lsb_v = dac.lsb_v(own)
    assert lsb_v == pytest.approx(own.range_v / (2**bits - 1))
    exact = np.array([0.0, np.floor(code * (2**bits - 1)) * lsb_v, own.range_v])
    quantised = dac.quantised_v(exact + np.array([0.2, 0.49, -0.49]) * lsb_v, lsb_v)
    np.testing.assert_allclose(quantised, exact, atol=1e-9)
    bow, twist = dac.inl_coefficients(own, np.repeat([[share, sign]], 3, axis=0))
    output = dac.output_v(exact, own.range_v, bow, twist)
    assert np.abs(output - exact).max() <= inl_lsb * lsb_v * (1 + 1e-9)
    np.testing.assert_allclose((output - exact)[[0, 2]], 0.0, atol=1e-12)


def test_integral_nonlinearity_reaches_its_bound() -> None:
    own = DacParameters(bits=16, inl_lsb=4.0)
    code = np.linspace(0, own.range_v, 10001)
    for share, least in ((1.0, 1.0), (-1.0, 1.0), (0.0, 0.38)):
        bow, twist = dac.inl_coefficients(own, np.repeat([[share, 1.0]], code.size, axis=0))
        deviation = np.abs(dac.output_v(code, own.range_v, bow, twist) - code).max() / dac.lsb_v(own)
        assert least * 4.0 - 1e-6 <= deviation <= 4.0 + 1e-6


@settings(max_examples=50, deadline=None)
@given(volts=st.floats(0, 10.8), rho=st.floats(0, 1), pi_power_w=st.floats(0.005, 0.1))
def test_self_heating_obeys_ohms_law(volts: float, rho: float, pi_power_w: float) -> None:
    watts = heater.power_w(np.array([volts]), 770.0, np.array([pi_power_w]), rho)[0]
    resistance_ohm = 770.0 * (1 + rho * watts / pi_power_w)
    assert watts * resistance_ohm == pytest.approx(volts**2, rel=1e-12, abs=1e-15)


@pytest.mark.parametrize(("rho", "bound"), [(0.0, 1e-12), (0.07, 1e-6)])
def test_the_shared_ground_obeys_kirchhoffs_laws(rho: float, bound: float) -> None:
    """Nodal analysis: the currents of all heaters flow through the ground conductor. Relative error of all voltages."""
    rng = np.random.default_rng(0)
    volts, ohm, pi_w = rng.uniform(0, 6, 32), rng.normal(770, 20, 32), rng.normal(0.0248, 0.001, 32)
    found = heater.ground_v(volts, ohm, pi_w, 0.05, rho)

    def missing_a(ground: float) -> float:
        across = volts - ground
        watts = heater.power_w(across, ohm, pi_w, rho)
        return ground / 0.05 - float(np.sum(across / (ohm * (1 + rho * watts / pi_w))))

    exact = float(optimize.root_scalar(missing_a, bracket=(0.0, 1.0), xtol=1e-15).root)
    assert abs(found - exact) < bound * volts.max()
    if rho == 0:
        network = np.diag(np.append(1 / ohm, 1 / 0.05 + np.sum(1 / ohm)))  # sources are fixed; the last node is the ground
        sums = np.append(volts / ohm, np.sum(volts / ohm))
        assert found == pytest.approx(np.linalg.solve(network, sums)[-1], rel=1e-12)


def test_all_heaters_warm_the_chip() -> None:
    chip = chip_of("ideal", {"temperature": {"heating_k_per_w": 2.0}}, ports=4)
    drive = np.full(chip.describe().channels, 4.0)
    assert chip.status().health["chip_temperature_k"] == pytest.approx(298.15)
    chip.apply(drive)
    assert chip.status().health["chip_temperature_k"] == pytest.approx(298.15 + 2.0 * drive.size * 16.0 / 770)


@pytest.mark.parametrize("eta", [-0.05, 0.0, 0.012, 0.1])
def test_the_heater_curve_passes_through_pi(eta: float) -> None:
    power_w = 0.023 * np.array([0.0, 0.5, 1.0, 2.0])
    phase = heater.phase_rad(power_w, np.full(4, 0.023), np.full(4, 0.3), eta)
    assert phase[0] == pytest.approx(0.3)
    assert phase[2] - phase[0] == pytest.approx(np.pi)
    # Successive powers for π: the second one is smaller if the curvature is positive.
    assert phase[3] - phase[2] == pytest.approx(np.pi * (1 + 3 * eta) / (1 + eta))
    assert np.sign(phase[1] - 0.3 - np.pi / 2) == -np.sign(eta)


@settings(max_examples=30, deadline=None)
@given(
    seed=st.integers(0, 2**20),
    ports=st.integers(2, 12),
    crosstalk=st.floats(0, 0.5),
    phases=st.booleans(),
    is_complex=st.booleans(),
)
def test_modulator_crosstalk_conserves_energy(seed: int, ports: int, crosstalk: float, phases: bool, is_complex: bool) -> None:
    rng = np.random.default_rng(seed)
    own = ModulatorParameters(phase_span_rad=6.0 * phases, crosstalk=crosstalk)
    truth = fabricate_inputs(parameters_of("ideal", {"modulator": own.model_dump()}, ports=ports))
    inputs = rng.random((5, ports)) * (np.exp(2j * np.pi * rng.random((5, ports))) if is_complex else 1.0)
    field = modulator.modulated(inputs, own, truth)
    np.testing.assert_allclose(np.sum(np.abs(field) ** 2, axis=1), np.sum(np.abs(inputs) ** 2, axis=1), rtol=1e-12)


def test_modulators_have_the_given_extinction_and_crosstalk() -> None:
    own = ModulatorParameters(extinction_db=20.0)
    truth = modulator.InputTruth(np.ones(5), np.zeros(5), np.zeros(5))
    levels = modulator.modulated(np.array([[0.0, 0.3, 0.6, 0.9, 1.0]]), own, truth)[0]
    assert abs(levels[0]) ** 2 == pytest.approx(0.01)
    assert abs(levels[-1]) ** 2 == pytest.approx(1.0)
    assert (np.diff(np.abs(levels)) > 0).all()
    one = np.zeros((1, 5))
    one[0, 2] = 1.0
    coupled = np.abs(modulator.modulated(one, ModulatorParameters(crosstalk=1e-3), truth)[0]) ** 2
    np.testing.assert_allclose(coupled[[1, 3]], 1e-3, rtol=2e-3)
    assert max(coupled[[0, 4]]) < 2e-6


def test_photodiodes_saturate() -> None:
    current_a = np.array([0.0, 1e-6, 1e-3, 1.0])
    output = photodiode.compressed_a(current_a, 1e-3)
    np.testing.assert_allclose(output, [0.0, 1e-6 / 1.001, 0.5e-3, 1e-3 / 1.001])
    np.testing.assert_array_equal(photodiode.compressed_a(current_a, 0.0), current_a)


def test_rin_is_common_to_all_detectors_and_follows_its_formula() -> None:
    assert laser.rin_sigma(LaserParameters(rin_db_per_hz=-120.0), 1e6) == pytest.approx(1e-3)
    assert laser.rin_sigma(LaserParameters(), 1e6) == 0.0
    parts = {"laser": {"rin_db_per_hz": -120.0}, "photodiode": {"bandwidth_hz": 1e6, "load_ohm": 1e12}}
    chip = chip_of("ideal", parts, quiet=False, ports=4, stages=1)
    drives = np.repeat(drive_of(chip)[np.newaxis], 200, axis=0)
    values = chip.evaluate(drives, np.ones((100, 4)), "mesh0").values.reshape(-1, 4).astype(float)
    relative = values / values.mean(axis=0) - 1.0
    shot = 2 * photodiode.ELEMENTARY_CHARGE_C * 1e6 / values.mean(axis=0)
    count = values.shape[0]
    np.testing.assert_allclose(relative.var(axis=0), 1e-6 + shot, rtol=6 * np.sqrt(2 / count))
    assert np.corrcoef(relative.T).min() > 0.99
    between = relative.mean(axis=1).reshape(200, 100)
    assert np.abs(np.corrcoef(between[:, :50].T) - np.eye(50)).max() < 6 / np.sqrt(200)


@pytest.mark.parametrize("preset", ["ideal", "soi"])
def test_detected_power_never_exceeds_the_input_power(preset: str) -> None:
    """Behind one mesh: all input power without loss, less with loss, never more."""
    parts = {"photodiode": {"bandwidth_hz": 0.0, "dark_a": 0.0, "responsivity_sigma": 0.0, "saturation_a": 0.0}}
    parts["laser"] = {"drift_sigma": 0.0}
    chip = chip_of(preset, {**parts, "tap": {"fraction": 0.0}}, ports=8, stages=1)
    inputs = np.random.default_rng(2).random((40, 8))
    field = modulator.modulated(inputs, chip.parameters.modulator, chip.input_truth())
    entered_a = 0.01 / 8 * np.sum(np.abs(field) ** 2, axis=1)
    drives = np.stack([drive_of(chip, seed) for seed in range(5)])
    detected = chip.evaluate(drives, inputs, "mesh0").values.sum(axis=2)
    if preset == "ideal":
        np.testing.assert_allclose(detected, np.broadcast_to(entered_a, detected.shape), rtol=1e-5)
    else:
        passed = detected / entered_a
        assert passed.max() < 1.0
        assert np.mean(passed) == pytest.approx(10 ** (-(0.15 * 7 + 0.11) / 10), abs=0.03)


def test_loaded_inputs_are_modulated_once(monkeypatch: pytest.MonkeyPatch) -> None:
    calls = []
    original = modulator.modulated
    monkeypatch.setattr("photonloop.simulator.engine.chip.modulated", lambda *arguments: calls.append(1) or original(*arguments))
    chip = chip_of("soi", {}, ports=6)
    calls.clear()
    inputs = np.random.default_rng(0).random((30, 6))
    drive = drive_of(chip)[np.newaxis, chip.stages[1].channels]
    chip.load_inputs("a", inputs)
    loaded = [chip.evaluate(drive, LoadedRows("a", np.arange(30)), "mesh1").values for _ in range(3)]
    assert len(calls) == 1
    np.testing.assert_allclose(chip.evaluate(drive, inputs, "mesh1").values, loaded[0], rtol=1e-6)
    assert len(calls) == 2


def test_memory_of_loaded_inputs_counts_as_they_were_sent() -> None:
    parts = {"limits": {"max_loaded_bytes": 4 * 30 * 6}}
    chip = chip_of("soi", parts, ports=6)
    chip.load_inputs("a", np.ones((30, 6)))  # stored with eight bytes each, sent with four


def test_crosstalk_across_chunks_agrees_with_the_reference() -> None:
    """Runs of crosstalk are cut at the borders of chunks."""
    chip = chip_of("soi", {"crosstalk": {"fraction": 0.05, "reach_m": 3e-4}}, ports=100, stages=1)
    assert chip.describe().channels > kernels.CHUNK
    assert_agrees_with_the_reference(chip)


def test_status_has_the_values_of_instruments_around_the_chip() -> None:
    chip = Chip(load_chip("soi", ports=6))
    health = chip.status().health
    assert set(health) == {"supply_current_a", "laser_power_w", "chip_temperature_k"}
    assert health["supply_current_a"] == 0.0
    drive = np.full(chip.describe().channels, 4.0)
    chip.apply(drive)
    expected = sum(float(np.sum(reference.power_w(chip, k, drive[s.channels])) / 4.0) for k, s in enumerate(chip.stages))
    assert chip.status().health["supply_current_a"] == pytest.approx(expected, rel=1e-3)
    ideal = Chip(load_chip("ideal", ports=6))
    assert set(ideal.status().health) == {"supply_current_a", "laser_power_w"}
