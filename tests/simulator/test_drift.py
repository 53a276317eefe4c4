"""Slow processes: phase drift, temperature and laser power."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from support.chips import chip_of, parameters_of

from photonloop.protocols.device import LoadedRows
from photonloop.simulator.engine.ambient import STEPS_PER_TAU, Ambient, Moment, TimeGrids
from photonloop.simulator.physics.drift import OrnsteinUhlenbeck


def normals(number: int, out: NDArray[np.float32]) -> None:
    out[:] = np.random.default_rng(number).standard_normal(out.size)


def test_stationary_standard_deviation_and_correlation_time() -> None:
    """20 000 processes at several lags: standard deviation σ, correlation e^{-t/τ}."""
    sigma, steps_per_tau, size = 0.3, 64.0, 20000
    process = OrnsteinUhlenbeck(normals, size, sigma, steps_per_tau)
    lags = [0, 1, 7, 32, 64, 128, 256]
    for start in (0, 5, 4000, 4095):
        values = np.stack([process.at(start + lag) for lag in lags]).astype(float)
        np.testing.assert_allclose(values.std(axis=1), sigma, rtol=5 / np.sqrt(2 * size))
        np.testing.assert_allclose(values.mean(axis=1), 0.0, atol=5 * sigma / np.sqrt(size))
        correlation = (values @ values[0]) / size / sigma**2
        np.testing.assert_allclose(correlation, np.exp(-np.array(lags) / steps_per_tau), atol=5 * np.sqrt(2 / size))


def test_increments_have_the_expected_size_and_are_independent() -> None:
    process = OrnsteinUhlenbeck(normals, 5000, 1.0, 2.0**14)
    values = np.stack([process.at(10_000_000 + k) for k in range(33)]).astype(float)
    moved = np.diff(values, axis=0)
    np.testing.assert_allclose(moved.std(axis=1), np.sqrt(2 * (1 - np.exp(-1 / 2**14))), rtol=5 / np.sqrt(10000))
    # Increments of a random walk: independent of one another.
    assert np.abs(np.corrcoef(moved) - np.eye(32)).max() < 6 / np.sqrt(5000)


@settings(max_examples=30, deadline=None)
@given(
    steps=st.lists(st.integers(0, 10**7), min_size=1, max_size=8),
    steps_per_tau=st.sampled_from([0.5, 3.0, 1000.0, 2.0**14]),
)
def test_a_process_is_a_function_of_time(steps: list[int], steps_per_tau: float) -> None:
    """The value of a step does not depend on the steps computed before."""
    process = OrnsteinUhlenbeck(normals, 3, 1.0, steps_per_tau)
    for step in steps:
        np.testing.assert_array_equal(process.at(step), OrnsteinUhlenbeck(normals, 3, 1.0, steps_per_tau).at(step))


def test_a_long_jump_takes_few_draws() -> None:
    drawn = []

    def counted(number: int, out: NDArray[np.float32]) -> None:
        drawn.append(number)
        normals(number, out)

    process = OrnsteinUhlenbeck(counted, 2, 1.0, 2.0**14)
    process.at(0)
    drawn.clear()
    process.at(12 * 2**14)  # twelve correlation times
    assert len(drawn) <= 24
    drawn.clear()
    for step in range(12 * 2**14, 12 * 2**14 + 1000):
        process.at(step)
    assert len(drawn) < 2.1 * 1000


def test_phase_drift_has_the_given_statistics() -> None:
    parts = {"drift": {"sigma_rad": 0.05, "tau_s": 2.0}, "temperature": {"sigma_k": 0.5, "tau_s": 8.0, "imbalance_sigma": 0.4}}
    parameters = parameters_of("ideal", parts, ports=40, stages=1)
    ambient = Ambient(parameters, (1600,))
    assert ambient.grids == pytest.approx(TimeGrids(phases=2.0 / STEPS_PER_TAU, laser=0.0))
    flat = np.zeros(1600)
    start, later = (ambient.offset_rad(0, ambient.moment(t), flat) for t in (100.0, 102.0))
    assert start is not None and later is not None
    assert np.std(start) == pytest.approx(0.05, rel=5 / np.sqrt(3200))
    assert np.corrcoef(start, later)[0, 1] == pytest.approx(np.exp(-1), abs=5 / np.sqrt(1600))
    warm_rad = ambient.offset_rad(0, ambient.moment(100.0), np.ones(1600))
    temperature_k = ambient.monitor_values(ambient.moment(100.0)).temperature_k
    assert warm_rad is not None and temperature_k is not None
    np.testing.assert_allclose(warm_rad - start, 0.045 * (temperature_k - 298.15), rtol=1e-6)


def test_rings_follow_the_temperature_and_balanced_arms_do_not() -> None:
    """A ring's phase is its whole round trip. Arms of equal length have no phase difference at any temperature."""
    ambient = Ambient(parameters_of("ideal", {"temperature": {"sigma_k": 0.5, "tau_s": 8.0}}, ports=2), (4,))
    moment = ambient.moment(100.0)
    kelvin = ambient.monitor_values(moment).temperature_k
    assert kelvin is not None
    ring_rad = ambient.offset_rad(0, moment, np.ones(4))
    assert ring_rad is not None
    np.testing.assert_allclose(ring_rad, 0.045 * (kelvin - 298.15), rtol=1e-6)
    assert ambient.offset_rad(0, moment, np.zeros(4)) is None


def test_temperature_and_laser_have_the_given_deviation() -> None:
    parts = {"temperature": {"sigma_k": 0.5, "tau_s": 1.0}, "laser": {"drift_sigma": 0.1, "drift_tau_s": 1.0}}
    monitors = []
    for seed in range(400):
        ambient = Ambient(parameters_of("ideal", parts, ports=2, seed=seed), (4,))
        monitors.append(ambient.monitor_values(ambient.moment(3.0)))
    kelvin = np.array([g.temperature_k for g in monitors], float) - 298.15
    watts = np.log(np.array([g.laser_power_w for g in monitors]) / 0.01)
    for values, sigma in ((kelvin, 0.5), (watts, 0.1)):
        assert np.std(values) == pytest.approx(sigma, rel=5 / np.sqrt(800))
        assert np.mean(values) == pytest.approx(0.0, abs=5 * sigma / 20)
    assert abs(np.corrcoef(kelvin, watts)[0, 1]) < 5 / 20


def test_drift_depends_on_time_and_not_on_the_number_of_evaluations() -> None:
    parts = {"drift": {"sigma_rad": 0.2, "tau_s": 0.5}}
    chips = [chip_of("ideal", parts, ports=6) for _ in range(2)]
    volts, inputs = np.full(36, 3.0), np.random.default_rng(0).random((10, 6))
    drives = np.repeat(volts[np.newaxis], 400, axis=0)
    at_once = chips[0].evaluate(drives, inputs, "mesh1")
    one_by_one = [chips[1].evaluate(drives[:1], inputs, "mesh1") for _ in range(400)]
    times = np.concatenate([r.time_s for r in one_by_one])
    np.testing.assert_allclose(times, at_once.time_s)
    same = [chips[0].ambient().moment(a) == chips[0].ambient().moment(b) for a, b in zip(times, at_once.time_s, strict=True)]
    assert np.mean(same) > 0.99  # rounding may move a time across a step
    values = np.concatenate([r.values for r in one_by_one])
    np.testing.assert_allclose(values[same], at_once.values[same], rtol=1e-5)
    moved = np.abs(at_once.values - at_once.values[0]).max(axis=(1, 2)) / at_once.values.max()
    assert moved[1] < 0.02 < moved[-1]


def test_cached_fields_follow_the_drift() -> None:
    """Loaded rows and the same inputs sent with the evaluation give equal readings while phases drift."""
    parts = {"drift": {"sigma_rad": 0.3, "tau_s": 1e-2}, "laser": {"drift_sigma": 0.2, "drift_tau_s": 1e-2}}
    chip, other = (chip_of("ideal", parts, ports=6) for _ in range(2))
    inputs = np.random.default_rng(0).random((20, 6))
    for each in (chip, other):
        each.apply(np.full(72, 3.0))
        each.load_inputs("a", inputs)
    seen = []
    for _ in range(6):
        loaded = chip.evaluate(np.full((40, 36), 2.0), LoadedRows("a", np.arange(20)), "mesh1").values
        sent = other.evaluate(np.full((40, 36), 2.0), inputs, "mesh1").values
        np.testing.assert_array_equal(loaded, sent)
        seen.append(loaded[0])
    assert np.abs(seen[-1] - seen[0]).max() > 0.05 * seen[0].max()


def test_fields_stay_cached_between_drift_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    """In `soi` the time grid has a step of 0.2 s. Loaded rows pass earlier stages once per step."""
    from photonloop.simulator.engine.pipeline import Pipeline

    chip = chip_of("soi", {}, ports=6)
    assert chip.ambient().grids.phases == chip.ambient().grids.laser == pytest.approx(3600 / 2**14)
    passed = []
    original = Pipeline.pass_on
    monkeypatch.setattr(Pipeline, "pass_on", lambda self, *rest: passed.append(1) or original(self, *rest))
    chip.load_inputs("a", np.random.default_rng(0).random((20, 6)))
    drives = np.full((8, 36), 2.0)
    evaluations = 100
    for _ in range(evaluations):
        chip.evaluate(drives, LoadedRows("a", np.arange(20)), "mesh1")
    steps = chip.ambient().moment(chip.status().clock_s).phases
    assert len(passed) <= steps + 1 < evaluations / 10


def test_a_fast_process_of_one_part_does_not_refine_the_grids_of_the_others(monkeypatch: pytest.MonkeyPatch) -> None:
    """A laser that drifts within a millisecond leaves the matrices of the held drive and their offsets in the cache."""
    from photonloop.simulator.engine.pipeline import Pipeline

    parts = {"drift": {"sigma_rad": 0.05, "tau_s": 3600.0}, "laser": {"drift_sigma": 0.1, "drift_tau_s": 1e-3}}
    chip = chip_of("ideal", parts, ports=6)
    assert chip.ambient().grids == pytest.approx(TimeGrids(phases=3600 / STEPS_PER_TAU, laser=1e-3 / STEPS_PER_TAU))
    computed = []
    original = Pipeline.stage_matrices
    monkeypatch.setattr(Pipeline, "stage_matrices", lambda self, *rest: computed.append(1) or original(self, *rest))
    powers = set()
    for _ in range(20):
        powers.add(chip.ambient().laser_power(chip.ambient().moment(chip.status().clock_s)))
        chip.evaluate(np.full((2, 36), 2.0), np.ones((20, 6)), "mesh1")
    assert len(powers) == 20
    assert len(computed) == 1


def test_laser_drift_changes_the_second_stage_through_the_nonlinearity() -> None:
    """Readings are proportional to the laser power at the first stage, and to its cube behind the nonlinearity."""
    chip = chip_of("ideal", {"laser": {"drift_sigma": 0.3, "drift_tau_s": 1.0}}, ports=4)
    volts, inputs = np.full((1, 16), 3.0), np.ones((1, 4))
    ambient = chip.ambient()
    powers, totals = [], []
    for _ in range(2):
        powers.append(ambient.laser_power(ambient.moment(chip.status().clock_s)))
        totals.append([chip.evaluate(volts, inputs, f"mesh{k}").values.sum() for k in (0, 1)])
        chip.evaluate(np.zeros((1000, 16)), np.ones((500, 4), np.float32), "mesh0")  # five seconds
    ratio = powers[1] / powers[0]
    assert abs(ratio - 1) > 0.05
    assert totals[1][0] / totals[0][0] == pytest.approx(ratio, rel=2e-3)
    assert totals[1][1] / totals[0][1] == pytest.approx(ratio**3, rel=0.1)


def test_a_chip_without_slow_processes_does_not_change() -> None:
    ambient = Ambient(parameters_of("ideal", {}, ports=4), (16, 16))
    assert ambient.moment(0.0) == ambient.moment(1e9) == Moment()
    assert ambient.offset_rad(0, Moment(), np.zeros(16)) is None
    assert ambient.laser_power(Moment()) == 1.0
