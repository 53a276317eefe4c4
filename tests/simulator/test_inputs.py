"""What moves at the inputs: drift of phases and coupling, path lengths, and the laser's wavelength."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.optimize import brentq
from support.chips import chip_of, parameters_of

from photonloop.protocols.device import LoadedRows
from photonloop.simulator.engine.ambient import STEPS_PER_TAU, Ambient, _normals, settings_together
from photonloop.simulator.engine.chip import Chip
from photonloop.simulator.engine.port_processes import PortProcesses
from photonloop.simulator.parameters import LaserParameters, load_chip
from photonloop.simulator.physics.drift import OrnsteinUhlenbeck
from photonloop.simulator.physics.fabrication import slow_key
from photonloop.simulator.physics.modulator import phases_steady_s
from photonloop.simulator.truth import reference

V_PI = np.sqrt(770 * 0.0248)
"""Voltage of a phase of π of an ideal heater [V]."""

FAST = {"modulator": {"phase_drift_rad": 30.0, "phase_drift_tau_s": 200.0}}
"""3 rad in a second, as in separate fibres."""


def drive_of(chip: Chip, seed: int = 5) -> NDArray:
    return np.random.default_rng(seed).uniform(0, 6, chip.describe().channels)


def fringe_phase_rad(chip: Chip) -> float:
    """Phase between two inputs, from the readings of one balanced interferometer at φ = 0 and φ = π/2.

    At θ = π/2, output 0 has the power 1 + cos(φ + Δ) for two inputs of power 1 and phase difference Δ.
    """
    drives = np.zeros((2, 4))
    drives[:, 0] = np.sqrt(0.5) * V_PI
    drives[1, 1] = np.sqrt(0.5) * V_PI
    readings = chip.evaluate(drives, np.ones((1, 2)), "mesh0").values[:, 0, 0] / 0.005
    return float(np.arctan2(1 - readings[1], readings[0] - 1))


def two_modes(parts: dict[str, dict[str, Any]], **whole: Any) -> Chip:
    return chip_of("ideal", parts, ports=2, stages=1, **whole)


# --- Drift of phases and coupling -------------------------------------------------------------------------------------


def test_the_fringe_phase_has_the_statistics_of_two_independent_processes() -> None:
    """Standard deviation σ√2, correlation e^{-t/τ}, measured by readings of an interferometer of two modes."""
    sigma, tau_s, count = 0.3, 10.0, 1500
    chip = two_modes({"modulator": {"phase_drift_rad": sigma, "phase_drift_tau_s": tau_s}})
    found = np.empty((count, 2))
    for n in range(count):
        chip.let_pass(12 * tau_s)
        found[n, 0] = fringe_phase_rad(chip)
        chip.let_pass(0.5 * tau_s)
        found[n, 1] = fringe_phase_rad(chip)
    assert np.std(found) == pytest.approx(np.sqrt(2) * sigma, rel=5 / np.sqrt(2 * count))
    assert np.mean(found) == pytest.approx(0.0, abs=5 * np.sqrt(2) * sigma / np.sqrt(count))
    assert np.corrcoef(found[:, 0], found[:, 1])[0, 1] == pytest.approx(np.exp(-0.5), abs=5 / np.sqrt(count))


@pytest.mark.parametrize(("sigma", "tau_s", "time_s", "change_rad"), [(30.0, 1.08e5, 60.0, 1.0), (30.0, 200.0, 1.0, 3.0)])
def test_rates_of_separate_fibres(sigma: float, tau_s: float, time_s: float, change_rad: float) -> None:
    """The rms change σ√(2t/τ) of each port, over many disjoint intervals."""
    parts = {"modulator": {"phase_drift_rad": sigma, "phase_drift_tau_s": tau_s}}
    ambient = Ambient(parameters_of("ideal", parts, ports=64, stages=1), (4096,))
    # Factors have phases modulo 2π. A quarter of the time has half of the change, which stays below π.
    times_s = np.arange(400) * time_s / 16
    factors = ambient.input_factors([ambient.moment(t) for t in times_s.tolist()], np.zeros(64))
    assert factors is not None
    np.testing.assert_allclose(np.abs(factors), 1.0)
    moved = np.angle(factors[1:] / factors[:-1])
    assert np.sqrt(np.mean(moved**2)) == pytest.approx(change_rad / 4, rel=5 / np.sqrt(2 * moved.size) + 1e-3)
    # Between two steps of the grid, phases move by at most a hundredth of a radian.
    assert np.sqrt(2 * ambient.grids.inputs / tau_s) * sigma == pytest.approx(np.sqrt(2 / STEPS_PER_TAU))


def test_phase_drift_never_changes_the_total_power_of_a_lossless_mesh() -> None:
    chip = chip_of("ideal", FAST, ports=6, stages=1)
    inputs = np.random.default_rng(0).random((20, 6))
    readings = chip.evaluate(np.repeat(drive_of(chip)[np.newaxis], 50, axis=0), inputs, "mesh0").values
    total = 0.01 / 6 * np.sum(inputs**2, axis=1)
    np.testing.assert_allclose(readings.sum(axis=2), np.broadcast_to(total, (50, 20)), rtol=1e-5)
    assert np.ptp(readings, axis=0).max() > 0.05 * readings.max()


def test_a_phase_drift_has_no_effect_on_a_single_lit_input_or_a_weight_bank() -> None:
    one = np.zeros((1, 6))
    one[0, 2] = 1.0
    chip = chip_of("ideal", FAST, ports=6, stages=1)
    readings = chip.evaluate(np.repeat(drive_of(chip)[np.newaxis], 20, axis=0), one, "mesh0").values
    np.testing.assert_allclose(readings, np.broadcast_to(readings[0], readings.shape), rtol=1e-5, atol=1e-9)
    bank = chip_of("ideal", {**FAST, "mesh": {"topology": "weight_bank"}}, ports=6, stages=1)
    assert bank.ambient().input_factors([bank.ambient().moment(3.0)], bank.input_truth().path_m) is None


@pytest.mark.parametrize("topology", ["clements", "weight_bank"])
def test_coupling_drift_has_its_deviation_and_is_independent_between_ports(topology: str) -> None:
    """One port lit at a time: the logarithm of the total detected power has standard deviation σ."""
    sigma, count = 0.1, 500
    parts = {"modulator": {"coupling_drift_sigma": sigma, "coupling_drift_tau_s": 1.0}, "mesh": {"topology": topology}}
    chip = chip_of("ideal", parts, ports=4, stages=1)
    name, drive = chip.stages[0].description.name, np.zeros((1, 16))
    if topology == "weight_bank":
        drive[:] = 0.99 * V_PI  # nearly all light at the through ports
    found = np.empty((count, 4))
    for n in range(count):
        chip.let_pass(12.0)
        readings = chip.evaluate(drive, np.eye(4), name).values[0]
        found[n] = np.log(np.abs(readings.sum(axis=1)))
    found -= found.mean(axis=0)
    assert np.std(found) == pytest.approx(sigma, rel=5 / np.sqrt(2 * found.size))
    assert np.abs(np.corrcoef(found.T) - np.eye(4)).max() < 5 / np.sqrt(count)


def test_compiled_processes_of_ports_agree_with_the_reference() -> None:
    for size, steps_per_tau in ((1, 0.7), (64, 3.0), (37, 2.0**14 * 900)):
        key = slow_key(1, 3, 0)
        own = PortProcesses(key, size, 2.0, steps_per_tau)
        expected = OrnsteinUhlenbeck(_normals(1, 3, 0), size, 2.0, steps_per_tau)
        steps = np.cumsum(np.random.default_rng(0).integers(0, 300, 200))
        steps[[50, 51, 120]] = 10**12, 5, 0
        np.testing.assert_allclose(own.at(steps), np.stack([expected.at(s) for s in steps.tolist()]), atol=1e-5)
        again = PortProcesses(key, size, 2.0, steps_per_tau)
        np.testing.assert_array_equal(own.at(steps[60:61]), again.at(steps[60:61]))


@pytest.mark.parametrize("name", ["fast", "slow", "paths"])
@pytest.mark.parametrize("stage", [0, 1])
def test_each_setting_has_the_inputs_of_its_own_time(monkeypatch: pytest.MonkeyPatch, name: str, stage: int) -> None:
    """Readings agree with the reference, do not depend on threads, on caches, or on how settings are grouped."""
    parts: dict[str, dict[str, Any]] = {
        "fast": FAST,
        "slow": {"modulator": {"phase_drift_rad": 3.0, "phase_drift_tau_s": 40.0, "coupling_drift_sigma": 0.2}},
        "paths": {"modulator": {"path_sigma_m": 0.01}, "laser": {"jitter_pm": 5.0, "jitter_tau_s": 0.3, "detuning_pm": 20.0}},
    }[name]
    inputs, found = np.random.default_rng(0).random((37, 6)), []
    for threads, at_once in ((1, 2**22), (2, 2**22), (1, 1)):
        monkeypatch.setattr("photonloop.simulator.engine.ambient._FIELDS_AT_ONCE", at_once)
        chip = chip_of("soi", parts, ports=6, threads=threads)
        chip.apply(drive_of(chip))
        drives = np.random.default_rng(1).uniform(0, 6, (40, 36))
        chip.load_inputs("a", inputs)
        for source in (inputs, LoadedRows("a", np.arange(37))):
            readings = chip.evaluate(drives, source, f"mesh{stage}")
            for s in (0, 17, 39):
                moment = chip.ambient().moment(readings.time_s[s])
                exact = reference.settled_currents_a(chip, stage, drives[s], inputs, moment)
                np.testing.assert_allclose(readings.values[s], exact, atol=2e-5 * exact.max())
            found.append(readings.values)
    for one, other in ((0, 2), (0, 4), (1, 3), (1, 5)):
        np.testing.assert_array_equal(found[one], found[other])


def test_samples_before_heaters_have_settled_have_the_inputs_of_their_setting() -> None:
    """Inputs are constant while a setting is read, and heaters approach its power as e^{-t/τ}."""
    tau_s = 30e-6
    chip = chip_of("ideal", {**FAST, "heater": {"rise_s": tau_s, "fall_s": tau_s}}, ports=5, stages=1)
    held, volts = drive_of(chip, 1), drive_of(chip, 2)
    inputs = np.random.default_rng(0).random((20, 5))
    chip.apply(held)
    chip.let_pass(0.1)
    readings = chip.evaluate(volts[np.newaxis], inputs, "mesh0")
    moment, clock = chip.ambient().moment(readings.time_s[0]), chip.parameters.clock
    start_w, target_w = (reference.power_w(chip, 0, each) for each in (held, volts))
    for b, sample in enumerate(inputs):
        elapsed_s = clock.settle_s + b * clock.sample_s
        watts = target_w + (start_w - target_w) * np.exp(-elapsed_s / tau_s)
        exact = reference.currents_a(chip, [watts], sample[np.newaxis], moment)[0]
        np.testing.assert_allclose(readings.values[0, b], exact, atol=2e-5 * exact.max())


def test_a_large_mesh_has_the_inputs_of_each_setting() -> None:
    chip = chip_of("ideal", FAST, ports=190, stages=1, threads=2)
    inputs = np.random.default_rng(0).random((20, 190))
    drives = np.stack([drive_of(chip, seed) for seed in range(5)])
    readings = chip.evaluate(drives, inputs, "mesh0")
    for volts, values, time_s in zip(drives, readings.values, readings.time_s, strict=True):
        exact = reference.settled_currents_a(chip, 0, volts, inputs, chip.ambient().moment(time_s))
        np.testing.assert_allclose(values, exact, atol=5e-5 * exact.max())


def test_the_fastest_drift_keeps_its_standard_deviation() -> None:
    parts = {"modulator": {"coupling_drift_sigma": 0.1, "coupling_drift_tau_s": 1e-9, "phase_drift_rad": 1e3}}
    ambient = Ambient(parameters_of("ideal", parts, ports=400, stages=1), (4,))
    assert ambient.grids.inputs == 1e-6
    factors = ambient.input_factors([ambient.moment(t) for t in (0.0, 1e5, 1e5 + 1e-5)], np.zeros(400))
    assert factors is not None
    coupling = 2 * np.log(np.abs(factors))
    np.testing.assert_allclose(coupling.std(axis=1), 0.1, rtol=5 / np.sqrt(800))
    assert np.abs(np.corrcoef(coupling) - np.eye(3)).max() < 5 / np.sqrt(400)


def test_settings_are_grouped_by_what_differs() -> None:
    ambient = Ambient(parameters_of("ideal", {**FAST, "drift": {"sigma_rad": 0.1, "tau_s": 1.0}}, ports=2, stages=1), (4,))
    moments = [ambient.moment(t) for t in (0.0, 0.2e-4, 0.4e-4, 0.7e-4, 0.8e-4, 0.9e-4)]
    assert [moment.phases for moment in moments] == [0, 0, 0, 1, 1, 1]
    assert len({moment.inputs for moment in moments}) > 2
    assert list(settings_together(moments, 1)) == [slice(0, 3), slice(3, 6)]
    assert list(settings_together(moments, 2**21)) == [slice(0, 2), slice(2, 3), slice(3, 5), slice(5, 6)]
    assert list(settings_together(moments[:1] * 4, 2**40)) == [slice(0, 4)]


def test_fields_of_later_stages_stay_cached_while_inputs_rest(monkeypatch: pytest.MonkeyPatch) -> None:
    from photonloop.simulator.engine.pipeline import Pipeline

    parts = {"modulator": {"phase_drift_rad": 1e-3, "coupling_drift_sigma": 1e-3}}
    chip = chip_of("ideal", parts, ports=6)
    passed = []
    original = Pipeline.pass_on
    monkeypatch.setattr(Pipeline, "pass_on", lambda self, *rest: passed.append(1) or original(self, *rest))
    chip.load_inputs("a", np.random.default_rng(0).random((20, 6)))
    for _ in range(50):
        chip.evaluate(np.full((8, 36), 2.0), LoadedRows("a", np.arange(20)), "mesh1")
    assert len(passed) <= chip.ambient().moment(chip.status().clock_s).inputs + 1 < 5


# --- Contract: how long phases are steady -----------------------------------------------------------------------------


def test_time_in_which_phases_are_steady() -> None:
    assert phases_steady_s(parameters_of("ideal", {})) == 1e9
    slow = parameters_of("ideal", {"modulator": {"phase_drift_rad": 0.049}})
    assert phases_steady_s(slow) == 1e9, "the rms change of a phase difference stays below 0.098 rad"
    fast = parameters_of("ideal", FAST)
    assert phases_steady_s(fast) == pytest.approx(0.1**2 / (2 * 3.0**2), rel=1e-3)  # 2 σ² · 2t/τ = 0.01
    bank = parameters_of("ideal", {**FAST, "mesh": {"topology": "weight_bank"}}, stages=1)
    assert phases_steady_s(bank) == 1e9
    several = parameters_of(
        "ideal",
        {
            "modulator": {"phase_drift_rad": 0.2, "phase_drift_tau_s": 1000.0, "path_sigma_m": 1e-3},
            "laser": {"jitter_pm": 4.0, "jitter_tau_s": 500.0},
            "temperature": {"sigma_k": 0.05, "tau_s": 100.0},
        },
    )
    lengths = 1e-3 / 61.6e-6
    parts = ((0.2, 1000.0), (lengths * 6.9e-4 * 4.0, 500.0), (lengths * 0.045 * 0.05, 100.0))

    def beyond(time_s: float) -> float:
        return 2 * sum(2 * sigma**2 * (1 - np.exp(-time_s / tau_s)) for sigma, tau_s in parts) - 0.01

    assert phases_steady_s(several) == pytest.approx(brentq(beyond, 1e-3, 1e4), rel=1e-6)


def test_the_steady_time_agrees_with_the_drift_of_a_chip() -> None:
    parts = {"modulator": {"phase_drift_rad": 1.0, "phase_drift_tau_s": 3600.0}}
    parameters = parameters_of("ideal", parts, ports=400, stages=1)
    ambient = Ambient(parameters, (4,))
    moments = [ambient.moment(t) for t in (0.0, phases_steady_s(parameters))]
    factors = ambient.input_factors(moments, np.zeros(400))
    assert factors is not None
    moved = np.angle(factors[1] / factors[0])
    assert np.sqrt(np.mean((moved[::2] - moved[1::2]) ** 2)) == pytest.approx(0.1, rel=5 / np.sqrt(400))


# --- Wavelength -------------------------------------------------------------------------------------------------------


def test_phase_per_picometre() -> None:
    """2π n_g L/λ² with n_g 4.3 and λ 1.55 µm: 0.13 mrad/pm for 12 µm, 0.11 rad/pm for 1 cm."""
    per_m = 2 * np.pi * 4.3 / 1.55e-6**2 * 1e-12
    per_heater = LaserParameters().phase_rad_per_pm
    assert per_heater == pytest.approx(per_m * 61.6e-6, rel=5e-3)
    chip = two_modes({"laser": {"detuning_pm": 1.0}, "temperature": {"imbalance_sigma": 12e-6 / 61.6e-6}}, seed=1)
    moment, imbalance = chip.ambient().moment(0.0), chip.stages[0].truth.imbalance
    added = chip.ambient().offset_rad(0, moment, imbalance)
    assert added is not None
    np.testing.assert_allclose(added / imbalance * (12 / 61.6), 0.13e-3, rtol=0.05)
    long = two_modes({"laser": {"detuning_pm": 1.0}, "modulator": {"path_sigma_m": 0.01}}, seed=1)
    path_m = long.input_truth().path_m
    assert fringe_phase_rad(long) == pytest.approx(0.112 * (path_m[0] - path_m[1]) / 0.01, rel=0.01)


def test_the_wavelength_is_common_to_all_paths() -> None:
    """Phases of inputs and of channels move together, each in proportion to its path difference."""
    parts = {
        "laser": {"jitter_pm": 3.0, "jitter_tau_s": 2.0, "detuning_pm": 40.0},
        "modulator": {"path_sigma_m": 0.01},
        "temperature": {"imbalance_sigma": 1.0},
    }
    ambient = Ambient(parameters_of("ideal", parts, ports=3, stages=2), (9, 9))
    wavelengths_pm = []
    for n in range(400):
        moment = ambient.moment(30.0 * n)
        wavelengths_pm.append(ambient.wavelength_pm(moment))
        offsets = [ambient.offset_rad(stage, moment, np.arange(9.0)) for stage in (0, 1)]
        for offset in offsets:
            assert offset is not None
            np.testing.assert_allclose(offset, np.arange(9.0) * 6.9e-4 * wavelengths_pm[-1], rtol=1e-9)
        factors = ambient.input_factors([moment], np.array([0.0, 1e-3, 2e-3]))
        assert factors is not None
        turned = 6.9e-4 / 61.6e-6 * np.array([0.0, 1e-3, 2e-3]) * wavelengths_pm[-1]
        np.testing.assert_allclose(factors[0], np.exp(1j * turned), rtol=1e-9)
    assert np.std(wavelengths_pm) == pytest.approx(3.0, rel=5 / np.sqrt(800))
    assert np.mean(wavelengths_pm) == pytest.approx(40.0, abs=5 * 3.0 / 20)


@pytest.mark.parametrize(
    "temperature", [{"sigma_k": 0.1, "tau_s": 5.0}, {"heating_k_per_w": 20.0}, {"sigma_k": 0.1, "heating_k_per_w": 20.0}]
)
def test_paths_of_the_inputs_follow_the_temperature(temperature: dict[str, float]) -> None:
    """By the thermistor, which heaters at the held drive warm too."""
    chip = two_modes({"temperature": temperature, "modulator": {"path_sigma_m": 1e-3}}, seed=2)
    path_m = chip.input_truth().path_m
    for step in range(5):
        chip.let_pass(20.0)
        chip.apply(np.full(4, 0.5 * step))
        found = fringe_phase_rad(chip)
        kelvin = chip.status().health["chip_temperature_k"]
        assert isinstance(kelvin, float)
        expected = 0.045 * (kelvin - 298.15) * (path_m[0] - path_m[1]) / 61.6e-6
        assert np.angle(np.exp(1j * (found - expected))) == pytest.approx(0.0, abs=2e-2)


@pytest.mark.parametrize("detuning_nm", [-5.0, 10.0])
def test_couplers_follow_the_wavelength(detuning_nm: float) -> None:
    """At θ = 0 both couplers add up: the share cos²(2e) crosses over if each angle is π/4 + e."""
    chip = two_modes({"laser": {"detuning_pm": 1e3 * detuning_nm}, "coupler": {"slope_rad_per_nm": 0.01}})
    readings = chip.evaluate(np.zeros((1, 4)), np.eye(2), "mesh0").values[0] / 0.005
    crossed = np.cos(2 * 0.01 * detuning_nm) ** 2
    np.testing.assert_allclose(readings, [[1 - crossed, crossed], [crossed, 1 - crossed]], atol=1e-6)


def test_couplers_are_computed_again_only_if_they_follow_the_wavelength(monkeypatch: pytest.MonkeyPatch) -> None:
    from photonloop.simulator.engine import present_stages

    computed = []
    original = present_stages.with_faults
    monkeypatch.setattr(present_stages, "with_faults", lambda *rest: computed.append(1) or original(*rest))
    for slope, tau_s, expected in ((0.0, 1.0, 0), (0.01, 1.0, 10), (0.01, 1e4, 1)):
        parts = {"laser": {"jitter_pm": 5.0, "jitter_tau_s": tau_s}, "coupler": {"slope_rad_per_nm": slope}}
        chip = two_modes(parts)
        chip.let_pass(1.0)
        computed.clear()
        for _ in range(10):
            chip.let_pass(0.02)
            chip.evaluate(np.zeros((1, 4)), np.eye(2), "mesh0")
        assert len(computed) == expected


def test_presets_state_what_their_inputs_do() -> None:
    """In `soi`, inputs come from one splitter on the chip: phases move by milliradians per hour."""
    ambient = Ambient(load_chip("soi"), (4096, 4096))
    factors = ambient.input_factors([ambient.moment(t) for t in (0.0, 3600.0)], np.zeros(64))
    assert factors is not None
    assert 1e-3 < np.std(np.angle(factors[1] / factors[0])) < 2e-2
    assert phases_steady_s(load_chip("soi")) == 1e9
    assert 1.0 < phases_steady_s(load_chip("harsh")) < 60.0
    assert phases_steady_s(load_chip("ideal")) == 1e9
