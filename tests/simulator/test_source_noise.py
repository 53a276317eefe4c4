"""Noise and slow changes of the voltage sources."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy import stats
from support.chips import chip_of

from photonloop.simulator import kernels
from photonloop.simulator.engine import stage_computation
from photonloop.simulator.engine.chip import Chip
from photonloop.simulator.truth import reference
from photonloop.simulator.truth.chip_truth import gradient

NOISY: dict[str, dict[str, Any]] = {"dac": {"noise_v": 2e-3}}


def drive_of(chip: Chip, seed: int = 5) -> NDArray[np.float64]:
    return np.random.default_rng(seed).uniform(2, 6, chip.describe().channels)


def test_noise_of_a_setting_has_the_variance_of_linear_propagation() -> None:
    """Variance of a reading: σ² · Σ (∂I/∂V)², with the derivatives of the adjoint method."""
    sigma_v, count = 2e-4, 4000
    chip = chip_of("ideal", {"dac": {"noise_v": sigma_v}, "limits": {"max_settings": count}}, ports=4, stages=1)
    drive, inputs = drive_of(chip), np.array([[1.0, 0.3, 0.7, 0.2]] * 2)
    values = chip.evaluate(np.repeat(drive[np.newaxis], count, axis=0), inputs, "mesh0").values.astype(float)
    np.testing.assert_array_equal(values[:, 0], values[:, 1])  # constant within a setting
    for port in range(4):

        def one_port(readings: NDArray, port: int = port) -> tuple[float, NDArray]:
            return float(readings[0, port]), np.eye(4)[[port]]

        slope = gradient(chip, 0, drive, inputs[:1], one_port).drive_v
        variance = sigma_v**2 * np.sum(slope**2)
        seen = values[:, 0, port]
        assert np.var(seen) == pytest.approx(variance, rel=5 * np.sqrt(2 / count) + 1e-3)
        assert abs(np.corrcoef(seen[1:], seen[:-1])[0, 1]) < 5 / np.sqrt(count)


def test_noise_of_channels_is_normal_and_independent() -> None:
    """Three chunks of channels: the voltage that follows from the power, minus the drive, is standard normal noise."""
    channels, sigma_v, volts = 5000, 1e-3, 3.0
    chip = chip_of("ideal", {"dac": {"noise_v": sigma_v}}, ports=2, stages=1)
    heaters = chip.stages[0].heaters._replace(
        inverse_pi_w=np.ones(channels),
        conductance_s=np.full(channels, 1 / 770.0),
        chunks=np.array([0, kernels.CHUNK, 2 * kernels.CHUNK, channels]),
    )
    deviates, drive = np.empty((kernels.CHUNK // kernels.LANES, kernels.LANES), np.float32), np.full(channels, volts)
    seen = np.empty((2, channels))
    for number in range(2):
        for chunk in range(3):
            start = np.uint64(kernels.stream_start(np.uint64(7), 1, number))
            kernels.powers(heaters, drive, chunk, start, deviates, seen[number])
    normal = (np.sqrt(seen / heaters.conductance_s) - volts) / sigma_v
    assert stats.kstest(normal.ravel(), "norm").pvalue > 1e-3
    for other in (normal[1], np.roll(normal[0], 1), np.roll(normal[0], kernels.LANES), np.roll(normal[0], kernels.CHUNK)):
        assert abs(np.corrcoef(normal[0], other)[0, 1]) < 5 / np.sqrt(channels)


def assert_same(values: NDArray[np.float32], others: NDArray[np.float32]) -> None:
    np.testing.assert_allclose(values, others, rtol=1e-5, atol=1e-6 * others.max())


def test_the_noise_of_a_held_stage_stays_until_its_voltages_change() -> None:
    chip, quiet = chip_of("ideal", NOISY, ports=5), chip_of("ideal", {}, ports=5)
    drive, inputs = drive_of(chip), np.random.default_rng(0).random((3, 5))
    ahead, behind = (chip.stages[k].channels for k in (0, 1))
    zero = np.zeros((1, 25))  # at 0 V, noise of the second stage makes no difference

    def seen(each: Chip, volts: NDArray[np.float64]) -> NDArray[np.float32]:
        each.apply(volts)
        return each.evaluate(zero, inputs, "mesh1").values

    first = seen(chip, drive)
    assert np.abs(first - seen(quiet, drive)).max() > 1e-4 * first.max()
    assert_same(chip.evaluate(zero, inputs, "mesh1").values, first)
    others = drive.copy()
    others[behind] += 0.1
    assert_same(seen(chip, others), first)
    moved = drive.copy()
    moved[ahead] += 0.1
    seen(chip, moved)
    assert np.abs(seen(chip, drive) - first).max() > 1e-4 * first.max()


def test_both_ways_of_computing_a_setting_have_the_same_noise(monkeypatch: pytest.MonkeyPatch) -> None:
    found = []
    for least in (stage_computation.SHARED_CHANNELS, 1):
        monkeypatch.setattr(stage_computation, "SHARED_CHANNELS", least)
        chip = chip_of("ideal", NOISY, ports=50, stages=1)
        assert chip.describe().channels > kernels.CHUNK
        drives = np.stack([drive_of(chip, seed) for seed in range(5)])
        found.append(chip.evaluate(drives, np.random.default_rng(0).random((40, 50)), "mesh0").values)
    assert_same(found[0], found[1])


def test_noise_does_not_depend_on_how_settings_are_grouped() -> None:
    """A slow process that hardly changes anything splits the settings into groups of a few each."""
    grouped = {"dac": {"noise_v": 2e-3, "slow_noise_v": 1e-12, "slow_noise_tau_s": 0.02}}
    found = []
    for parts in (NOISY, grouped):
        chip = chip_of("ideal", parts, ports=5, stages=1)
        drives = np.repeat(drive_of(chip)[np.newaxis], 40, axis=0)
        found.append(chip.evaluate(drives, np.random.default_rng(0).random((12, 5)), "mesh0").values)
    assert chip.ambient().moment(chip.status().clock_s).sources > 5
    assert_same(found[0], found[1])
    assert np.ptp(found[0], axis=0).max() > 1e-3 * found[0].max()


def test_faulty_channels_have_no_noise() -> None:
    """With every source stuck, readings are those of a chip without noise."""
    faults = [{"kind": "stuck_channel", "channel": c, "volts": 0.1 * c} for c in range(16)]
    chips = [chip_of("ideal", parts, ports=4, stages=1, faults=faults) for parts in (NOISY, {})]
    values = [chip.evaluate(np.full((3, 16), 2.0), np.ones((2, 4)), "mesh0").values for chip in chips]
    np.testing.assert_array_equal(values[0], values[1])


def test_heaters_that_have_not_settled_have_the_noise_of_their_setting() -> None:
    """With a thermal lag that is over after a few samples, the last samples are those of a chip without lag."""
    clock = {"settle_s": 1e-6, "sample_s": 1e-5}
    found = []
    for lag_s in (0.0, 1e-6):
        parts = {**NOISY, "heater": {"rise_s": lag_s, "fall_s": lag_s}, "clock": clock}
        chip = chip_of("ideal", parts, ports=5, stages=1)
        drives = np.stack([drive_of(chip, seed) for seed in range(4)])
        found.append(chip.evaluate(drives, np.random.default_rng(0).random((20, 5)), "mesh0").values)
    assert_same(found[0][:, 4:], found[1][:, 4:])


def test_slow_changes_have_the_given_statistics() -> None:
    parts = {
        "dac": {"slow_noise_v": 2e-3, "slow_noise_tau_s": 1.0, "gain_drift_sigma": 1e-3, "gain_drift_tau_s": 4.0},
        "limits": {"power_w": 0.0, "mean_power_w": 0.0},
    }
    chip = chip_of("ideal", parts, ports=40, stages=1)
    ambient, count = chip.ambient(), 1600
    start, later = (ambient.source_changes(0, ambient.moment(time_s)) for time_s in (50.0, 51.0))
    assert start is not None and later is not None
    for sigma, tau_s, before, after in ((2e-3, 1.0, start.added, later.added), (1e-3, 4.0, start.gain - 1, later.gain - 1)):
        assert np.std(before) == pytest.approx(sigma, rel=5 / np.sqrt(2 * count))
        assert np.corrcoef(before, after)[0, 1] == pytest.approx(np.exp(-1.0 / tau_s), abs=5 / np.sqrt(count))
    assert abs(np.corrcoef(start.added, start.gain)[0, 1]) < 5 / np.sqrt(count)


def test_settled_heaters_follow_slow_changes_of_the_sources() -> None:
    """A chip whose heaters have a lag is read at its held drive after its sources have drifted: all is settled."""
    parts = {"dac": {"bits": 0, "inl_lsb": 0.0, "noise_v": 0.0, "slow_noise_v": 5e-3, "slow_noise_tau_s": 0.1}}
    chip = chip_of("harsh", parts, ports=6)
    held, inputs = drive_of(chip), np.random.default_rng(0).random((30, 6))
    chip.apply(held)
    here = chip.stages[1].channels
    seen = []
    for _ in range(5):
        chip.let_pass(0.2)
        readings = chip.evaluate(held[np.newaxis, here], inputs, "mesh1")
        assert not readings.flags.any()
        exact = reference.settled_currents_a(chip, 1, held[here], inputs, chip.ambient().moment(readings.time_s[0]))
        np.testing.assert_allclose(readings.values[0], exact, atol=2e-5 * exact.max())
        seen.append(exact)
    assert np.abs(seen[-1] - seen[0]).max() > 1e-3 * seen[0].max()
