"""Estimators and the choice of the probe step, on functions with a known gradient."""

from __future__ import annotations

import numpy as np
import pytest

from photonloop.controller.experiment import EstimatorSpec
from photonloop.controller.learning.estimators import Probe, estimator, slopes
from photonloop.controller.learning.estimators.probe_step import MIN_LSBS, choose_step, longest_step

GROUPS = [slice(0, 12), slice(12, 20)]


@pytest.mark.parametrize("name", ["spsa", "directional"])
def test_mean_direction_is_the_gradient_of_a_linear_loss(name: str) -> None:
    chosen = estimator(EstimatorSpec(name=name))  # pyright: ignore[reportArgumentType]
    rng = np.random.default_rng(1)
    gradient = rng.standard_normal(20)
    directions = chosen.draw(20, GROUPS, 40_000, rng)
    probe = Probe(directions, 0.01)
    losses = probe.settings(np.ones(20)) @ gradient + 3.0
    # A component of one estimate has a standard deviation of about |gradient|·√(dim/K): allow 5 of those of the mean.
    mean = chosen.combine(directions, slopes(probe, losses), GROUPS)
    assert np.abs(mean - gradient).max() < 5 * np.linalg.norm(gradient) * np.sqrt(2 / 40_000) * 1.5


def test_directional_directions_have_unit_length_over_every_group() -> None:
    chosen = estimator(EstimatorSpec(name="directional"))
    directions = chosen.draw(20, GROUPS, 3, np.random.default_rng(0))
    for group in GROUPS:
        np.testing.assert_allclose(np.linalg.norm(directions[:, group], axis=1), 1.0)


def test_directional_agrees_with_the_formula_of_the_paper() -> None:
    chosen = estimator(EstimatorSpec(name="directional"))
    rng = np.random.default_rng(3)
    w, epsilon = rng.standard_normal(20), 1e-3
    u = chosen.draw(20, GROUPS, 1, rng)

    def loss(x: np.ndarray) -> float:
        return float(np.sum(np.sin(x)))

    probe = Probe(u, epsilon)
    measured = np.array([loss(x) for x in probe.settings(w)])
    g = (loss(w + epsilon * u[0]) - loss(w - epsilon * u[0])) / (2 * epsilon) * u[0]
    expected = np.concatenate((12 * g[:12], 8 * g[12:]))
    np.testing.assert_allclose(chosen.combine(u, slopes(probe, measured), GROUPS), expected, rtol=1e-9)


def test_spsa_signs_are_balanced_and_independent() -> None:
    signs = estimator(EstimatorSpec(name="spsa")).draw(1001, [slice(0, 1001)], 400, np.random.default_rng(0))
    assert set(np.unique(signs)) == {-1.0, 1.0}
    correlations = signs @ signs.T / 1001
    np.fill_diagonal(correlations, 0.0)
    assert np.abs(correlations).max() < 5.5 / np.sqrt(1001)
    assert abs(signs.mean()) < 5 / np.sqrt(signs.size)


@pytest.mark.parametrize("name", ["spsa", "directional"])
def test_step_from_rms_and_rms_from_step_are_inverse(name: str) -> None:
    chosen = estimator(EstimatorSpec(name=name))  # pyright: ignore[reportArgumentType]
    assert chosen.rms_from_step(chosen.step_from_rms(0.03, GROUPS), GROUPS) == pytest.approx(0.03)


def cubic(noise: float, bend: float, channels: int, seed: int):
    """Losses a·x + bend·(b·x)³ with Gaussian noise, for which the curvature of a slope is known."""
    rng = np.random.default_rng(seed)
    a, b = rng.standard_normal(channels), rng.standard_normal(channels)
    measured = []

    def losses(offsets: np.ndarray) -> np.ndarray:
        measured.append(len(offsets))
        return 1.0 + offsets @ a + bend * (offsets @ b) ** 3 + noise * rng.standard_normal(len(offsets))

    return losses, measured


@pytest.mark.parametrize("noise", [1e-4, 1e-2])
def test_auto_step_is_near_the_step_of_least_error(noise: float) -> None:
    channels, bend, ports = 200, 0.05, 16
    losses, measured = cubic(noise, bend, channels, 5)
    choice = choose_step(losses, channels, ports, 0.0, np.random.default_rng(0))
    assert choice.noise == pytest.approx(noise, rel=0.6)
    # Along signs d the curvature is bend·(b·d)³. b·d is Gaussian with variance n, so the mean square is 15·bend²·n³.
    stray = bend * np.sqrt(15 * channels**3)
    best = min((noise**2 / (4 * stray**2)) ** (1 / 6), longest_step(ports))
    assert best / 2 < choice.rms_rad < best * 2
    assert sum(measured) < 250


def test_auto_step_is_at_least_several_dac_steps() -> None:
    losses, _ = cubic(1e-9, 0.05, 100, 1)
    choice = choose_step(losses, 100, 16, 0.02, np.random.default_rng(0))
    assert choice.rms_rad == pytest.approx(MIN_LSBS * 0.02)
    assert any("drive source" in reason for reason in choice.reasons)


def test_auto_step_of_a_linear_loss_is_long() -> None:
    losses, _ = cubic(1e-2, 0.0, 100, 1)
    choice = choose_step(losses, 100, 8, 0.0, np.random.default_rng(0))
    assert choice.rms_rad > 0.3 * longest_step(8)
