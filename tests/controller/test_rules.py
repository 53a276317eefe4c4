"""The prototype rule: geometry of the prototypes, and losses compared with scikit-learn and SciPy."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.special import log_softmax
from sklearn.metrics.pairwise import cosine_similarity

from photonloop.controller.experiment import RuleSpec
from photonloop.controller.learning.rules import majority_vote, make_rule
from photonloop.controller.learning.rules.prototype import prototypes


@given(st.integers(2, 12), st.integers(0, 20), st.integers(0, 2**32 - 1))
def test_prototypes_are_corners_of_a_regular_simplex(classes: int, more: int, seed: int) -> None:
    corners = prototypes(classes, classes + more, np.random.default_rng(seed))
    expected = np.full((classes, classes), -1 / (classes - 1))
    np.fill_diagonal(expected, 1.0)
    np.testing.assert_allclose(corners @ corners.T, expected, atol=1e-12)
    np.testing.assert_allclose(corners.sum(axis=0), 0.0, atol=1e-12)


def test_prototypes_are_uniformly_distributed() -> None:
    rng = np.random.default_rng(0)
    draws = np.stack([prototypes(3, 5, rng)[0] for _ in range(4000)])
    np.testing.assert_allclose(draws.T @ draws / 4000, np.eye(5) / 5, atol=0.02)
    np.testing.assert_allclose(draws.mean(axis=0), 0.0, atol=0.04)


def test_fewer_readings_than_classes_are_refused() -> None:
    with pytest.raises(ValueError, match="10 classes need a layer of at least 10 readings, but this one has 8"):
        prototypes(10, 8, np.random.default_rng(0))


@pytest.mark.parametrize("loss", ["cosine", "margin", "softmax"])
def test_losses_agree_with_their_formulas(loss: str) -> None:
    rng = np.random.default_rng(2)
    rule = make_rule(RuleSpec(loss=loss, scale=10.0), 4, 6, np.random.default_rng(7))  # pyright: ignore[reportArgumentType]
    corners = prototypes(4, 6, np.random.default_rng(7))
    readings = rng.random((3, 5, 6)).astype(np.float32)
    targets = rng.integers(0, 4, 5)
    for setting in range(3):
        s = cosine_similarity(readings[setting], corners)
        true = s[np.arange(5), targets]
        if loss == "cosine":
            expected = np.mean(1 - true)
        elif loss == "margin":
            others = [sum(max(0.0, 0.3 + s[i, j] - true[i]) for j in range(4) if j != targets[i]) for i in range(5)]
            expected = np.mean(others)
        else:
            expected = -np.mean(log_softmax(10 * s, axis=1)[np.arange(5), targets])
        assert rule.losses(readings, targets)[setting] == pytest.approx(expected, rel=1e-5)


def test_losses_do_not_depend_on_optical_power() -> None:
    rule = make_rule(RuleSpec(), 3, 5, np.random.default_rng(0))
    readings = np.random.default_rng(1).random((1, 4, 5)).astype(np.float32)
    targets = np.array([0, 1, 2, 0])
    assert rule.losses(1e-6 * readings, targets) == pytest.approx(rule.losses(readings, targets), rel=1e-5)


def test_a_dark_layer_has_zero_goodness_and_a_finite_loss() -> None:
    rule = make_rule(RuleSpec(), 3, 5, np.random.default_rng(0))
    dark = np.zeros((1, 2, 5), dtype=np.float32)
    assert not rule.scores(dark).any()
    assert rule.losses(dark, np.array([0, 1]))[0] == pytest.approx(np.log(3))


def test_majority_vote_uses_the_last_layer_for_ties() -> None:
    predictions = np.array([[0, 0, 2], [0, 1, 1], [1, 2, 0]])
    last = np.array([[0.1, 0.9, 0.0], [0.3, 0.1, 0.6], [0.5, 0.2, 0.4]], dtype=np.float32)
    assert majority_vote(predictions, last).tolist() == [0, 2, 0]
    # Two layers that disagree give a tie: the goodness of the last layer decides between their two classes.
    assert majority_vote(np.array([[2], [0]]), np.array([[0.4, 0.9, 0.5]], dtype=np.float32)).tolist() == [2]
