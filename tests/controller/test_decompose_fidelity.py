"""Figures of merit against closed forms, invariances and a general optimiser."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import minimize
from support.target_matrices import unitary

from photonloop.controller.decompose.fidelity import (
    best_diagonals,
    fidelity,
    output_distributions,
    power_errors,
    total_variation_distance,
)
from photonloop.controller.decompose.targets import haar_matrix

SEEDS = st.integers(0, 2**32 - 1)


def diagonal(n: int, seed: int, free: bool) -> Any:
    rng = np.random.default_rng(seed)
    return np.exp(1j * rng.uniform(0, 7, n)) * (rng.uniform(0.2, 2, n) if free else 1.0)


@settings(max_examples=40, deadline=None)
@given(seed=SEEDS, n=st.integers(2, 9))
def test_diagonals_do_not_matter(seed: int, n: int) -> None:
    target = haar_matrix(n, seed)
    behind = diagonal(n, seed + 1, free=True)[:, np.newaxis] * target
    both = behind * diagonal(n, seed + 2, free=False)
    assert fidelity(target, behind) == pytest.approx(1, abs=1e-12)
    assert fidelity(target, both, "free") == pytest.approx(1, abs=1e-12)
    assert fidelity(target, both) < 1 - 1e-6
    other = haar_matrix(n, seed + 3)
    dressed = diagonal(n, seed + 1, free=True)[:, np.newaxis] * other
    assert fidelity(target, dressed) == pytest.approx(fidelity(target, other), abs=1e-12)


@settings(max_examples=40, deadline=None)
@given(seed=SEEDS, n=st.integers(2, 9))
def test_free_input_phases_never_lower_the_fidelity(seed: int, n: int) -> None:
    target, found = haar_matrix(n, seed), haar_matrix(n, seed + 1)
    assert 0 <= fidelity(target, found) <= fidelity(target, found, "free") + 1e-12 <= 1 + 1e-12
    assert fidelity(target, found, "free", restarts=1) <= fidelity(target, found, "free", restarts=10) + 1e-12


def test_one_interferometer_in_a_wrong_state() -> None:
    """Rows (cos a, i sin a) against (1, 0): every row overlaps by cos a, whatever the output amplitudes."""
    a = 0.3
    found = np.array([[np.cos(a), 1j * np.sin(a)], [1j * np.sin(a), np.cos(a)]])
    assert fidelity(np.eye(2), found) == pytest.approx(np.cos(a))
    assert fidelity(np.eye(2), np.diag([0.1, 3j]) @ found) == pytest.approx(np.cos(a))


def test_formula_with_the_best_diagonals() -> None:
    target, found = unitary("haar", 5), haar_matrix(5, 1)
    for input_phases in ("fixed", "free"):
        outputs, inputs = best_diagonals(target, found, input_phases)
        b = np.diag(outputs) @ found @ np.diag(inputs)
        value = abs(np.trace(target.conj().T @ b)) / np.sqrt(5 * np.trace(b.conj().T @ b).real)
        assert fidelity(target, found, input_phases) == pytest.approx(value)
        np.testing.assert_allclose(np.abs(inputs), 1)


@pytest.mark.parametrize("input_phases", ["fixed", "free"])
@pytest.mark.parametrize("seed", range(4))
def test_no_general_optimiser_finds_better_diagonals(input_phases: Any, seed: int) -> None:
    n, target, found = 4, unitary("haar", 4), haar_matrix(4, seed)

    def negative(x: Any) -> float:
        inputs = np.exp(1j * x[2 * n :]) if input_phases == "free" else 1.0
        b = (x[:n] + 1j * x[n : 2 * n])[:, np.newaxis] * found * inputs
        return -float(abs(np.vdot(target, b)) / (2 * np.linalg.norm(b)))

    rng = np.random.default_rng(seed)
    best = min(minimize(negative, rng.standard_normal(3 * n)).fun for _ in range(8))
    assert fidelity(target, found, input_phases) == pytest.approx(-best, abs=1e-6)


def test_targets_that_are_not_unitary() -> None:
    target = np.diag([1.0, 0.5, 0.0])
    assert fidelity(target, target) == pytest.approx(1)
    assert fidelity(target, np.eye(3)) == pytest.approx(1)
    assert fidelity(target, np.eye(3)[::-1]) == pytest.approx(0.5 / np.sqrt(1.25))


def test_dark_outputs_count_as_no_overlap() -> None:
    found = np.eye(4)
    found[1] = 0
    assert fidelity(np.eye(4), found) == pytest.approx(np.sqrt(3 / 4))
    assert fidelity(np.eye(4), found, "free") == pytest.approx(np.sqrt(3 / 4))
    assert fidelity(np.eye(4), np.zeros((4, 4))) == 0


@pytest.mark.parametrize(
    ("target", "found", "sentence"),
    [
        (np.eye(2), np.eye(3), r"shape \(2, 2\) and the found matrix \(3, 3\), but both must have the same shape"),
        (np.ones(4), np.ones(4), "the same shape"),
        (np.eye(2), np.diag([1, np.nan]), "contains NaN or infinity"),
        (np.zeros((2, 2)), np.eye(2), "all elements of the target are 0"),
    ],
)
def test_matrices_without_a_fidelity(target: Any, found: Any, sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        fidelity(target, found)


# Powers -------------------------------------------------------------------------------------------------------------


def test_total_variation_distance_of_two_distributions() -> None:
    """½(|.7 − .5| + |.2 − .3| + |.1 − .2|) = .2 for input 0, and 0 for input 1."""
    target = np.array([[0.7, 0.25], [0.2, 0.25], [0.1, 0.5]])
    found = np.array([[5, 1], [3, 1], [2, 2]]) * 1e-6
    assert total_variation_distance(target, found) == pytest.approx(0.1)


@settings(max_examples=40, deadline=None)
@given(seed=SEEDS, n=st.integers(2, 9))
def test_total_variation_distance_is_a_metric(seed: int, n: int) -> None:
    a, b, c = (np.random.default_rng([seed, k]).uniform(0, 1, (n, n)) for k in range(3))
    assert total_variation_distance(a, 3 * a) == pytest.approx(0, abs=1e-15)
    assert total_variation_distance(a, b) == pytest.approx(total_variation_distance(b, a))
    assert total_variation_distance(a, c) <= total_variation_distance(a, b) + total_variation_distance(b, c) + 1e-15
    assert 0 <= total_variation_distance(a, b) <= 1


def test_total_variation_distance_is_one_if_the_light_leaves_elsewhere() -> None:
    assert total_variation_distance(np.eye(4), np.eye(4)[::-1]) == 1


def test_rule_of_thumb_for_small_errors() -> None:
    """TVD ≈ ½ √(2(1 − F)) for random errors of a random unitary matrix."""
    rng, target = np.random.default_rng(0), haar_matrix(16, 1)
    noisy = target + 0.01 * (rng.standard_normal((16, 16)) + 1j * rng.standard_normal((16, 16))) / np.sqrt(32)
    distance = total_variation_distance(np.abs(target) ** 2, np.abs(noisy) ** 2)
    assert distance == pytest.approx(np.sqrt(2 * (1 - fidelity(target, noisy))) / 2, rel=0.15)


@pytest.mark.parametrize(
    ("powers", "sentence"),
    [
        ([[1, -1e-9], [0, 1]], "finite numbers ≥ 0: subtract dark readings"),
        ([[1, np.nan], [0, 1]], "finite numbers ≥ 0"),
        ([1, 2], "must be a matrix"),
        ([[1, 0], [1, 0]], "input 1 gives no power at any output"),
    ],
)
def test_powers_without_distributions(powers: Any, sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        output_distributions(powers)


def test_power_errors_after_the_best_factor() -> None:
    target = np.eye(2)
    errors = power_errors(target, [[8e-6, 0], [6e-6, 0]])
    # s = 8/100 per 1e-6, so the errors are −.36, 0, .48, −1.
    assert errors.largest == pytest.approx(1)
    assert errors.rms == pytest.approx(np.sqrt((0.36**2 + 0.48**2 + 1) / 4))
    assert power_errors(target, 1e-3 * target) == pytest.approx((0, 0))


@settings(max_examples=40, deadline=None)
@given(seed=SEEDS)
def test_no_other_factor_gives_smaller_power_errors(seed: int) -> None:
    target, found = (np.random.default_rng([seed, k]).uniform(0, 1, (3, 5)) for k in range(2))
    least = power_errors(target, found).rms
    for factor in np.linspace(0, 3, 50):
        assert least <= np.sqrt(((factor * found - target) ** 2).mean()) + 1e-15


@pytest.mark.parametrize(
    ("found", "sentence"),
    [
        (np.zeros((2, 2)), "all found powers are 0"),
        (np.diag([np.inf, 1]), "powers must be finite"),
        (np.eye(3), "same shape"),
    ],
)
def test_powers_without_errors(found: Any, sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        power_errors(np.eye(2), found)
