"""Optimisers against their published recurrences, and the learning-rate schedule."""

from __future__ import annotations

import numpy as np
import pytest

from photonloop.controller.experiment import OptimizerSpec
from photonloop.controller.learning.optimizers import descend, fresh_moments, learning_rate


def test_sgd_steps_against_the_direction() -> None:
    change = descend(OptimizerSpec(name="sgd"), fresh_moments(2), np.array([1.0, -2.0]), 0.1)
    np.testing.assert_allclose(change, [-0.1, 0.2])


def test_momentum_accumulates_a_geometric_series() -> None:
    spec, moments = OptimizerSpec(name="momentum", momentum=0.5), fresh_moments(1)
    changes = [float(descend(spec, moments, np.array([1.0]), 1.0)[0]) for _ in range(20)]
    assert changes[:3] == pytest.approx([-1.0, -1.5, -1.75])
    assert changes[-1] == pytest.approx(-2.0, abs=1e-5)


def test_adam_under_a_constant_direction_moves_by_the_rate() -> None:
    # With bias correction both moments are exact means, so m̂/√v̂ is the sign from the first update on.
    spec, moments = OptimizerSpec(name="adam"), fresh_moments(2)
    for _ in range(5):
        change = descend(spec, moments, np.array([3.0, -0.2]), 0.01)
        np.testing.assert_allclose(change, [-0.01, 0.01], rtol=1e-6)


def test_adam_follows_algorithm_1() -> None:
    spec, moments = OptimizerSpec(name="adam", beta1=0.8, beta2=0.95, epsilon=1e-3), fresh_moments(1)
    directions = [0.3, -1.2, 2.0, 0.01]
    m = v = 0.0
    for t, g in enumerate(directions, start=1):
        m, v = 0.8 * m + 0.2 * g, 0.95 * v + 0.05 * g * g
        expected = -0.1 * (m / (1 - 0.8**t)) / ((v / (1 - 0.95**t)) ** 0.5 + 1e-3)
        assert descend(spec, moments, np.array([g]), 0.1)[0] == pytest.approx(expected, rel=1e-12)


def test_cosine_schedule_falls_from_rate_to_zero() -> None:
    spec = OptimizerSpec(rate=0.2)
    assert learning_rate(spec, 0, 100) == pytest.approx(0.2)
    assert learning_rate(spec, 50, 100) == pytest.approx(0.1)
    assert learning_rate(spec, 100, 100) == pytest.approx(0.0, abs=1e-12)
    assert learning_rate(OptimizerSpec(rate=0.2, schedule="constant"), 99, 100) == 0.2
