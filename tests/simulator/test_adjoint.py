"""The adjoint gradient of a mesh against central differences and conservation laws."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from photonloop.simulator.physics.mesh import Mesh, clements, elements, reck, svd, transfer_matrix
from photonloop.simulator.truth.adjoint import backward, forward

ALL = pytest.mark.parametrize("build", [clements, reck, svd])

Phases = tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]


def draw(mesh: Mesh, rng: np.random.Generator) -> Phases:
    k = mesh.interferometers
    return rng.uniform(0, 2 * np.pi, k), rng.uniform(0, 2 * np.pi, k), rng.uniform(0, 2 * np.pi, mesh.gammas)


def fields_of(ports: int, samples: int, rng: np.random.Generator) -> NDArray[np.complex128]:
    re, im = rng.standard_normal((2, ports, samples))
    return re + np.complex128(1j) * im


def loss_of(matrix: NDArray[np.complex128], fields_in: NDArray[np.complex128], weights: NDArray[np.float64]) -> float:
    """A loss that is neither linear nor quadratic in the intensities, and depends on phases too."""
    fields = matrix @ fields_in
    return float(np.sum(weights * np.abs(fields) ** 4) + np.sum((weights * fields).imag))


def slopes_of(fields: NDArray[np.complex128], weights: NDArray[np.float64]) -> NDArray[np.complex128]:
    """∂loss/∂E: of |E|⁴ it is 2|E|²·E*, of Im E it is 1/2i."""
    return weights * (2 * np.abs(fields) ** 2 * fields.conj() - 0.5j)


def central_differences(loss: Callable[[Phases], float], phases: Phases, which: int, step: float = 1e-3) -> NDArray[np.float64]:
    """Fourth order: the error is step⁴/30 times the fifth derivative, far below the tolerance of 1e-6."""
    slopes = np.empty(phases[which].size)
    for k in range(slopes.size):
        found = []
        for offset in (-2, -1, 1, 2):
            moved = phases[0].copy(), phases[1].copy(), phases[2].copy()
            moved[which][k] += offset * step
            found.append(loss(moved))
        slopes[k] = (found[0] - 8 * found[1] + 8 * found[2] - found[3]) / (12 * step)
    return slopes


@ALL
@settings(max_examples=12, deadline=None)
@given(n=st.integers(2, 7), seed=st.integers(0, 2**32), sigma=st.floats(0, 0.3), loss_db=st.floats(0, 2))
def test_gradient_agrees_with_central_differences(
    build: Callable[[int], Mesh], n: int, seed: int, sigma: float, loss_db: float
) -> None:
    mesh, rng = build(n), np.random.default_rng(seed)
    phases = draw(mesh, rng)
    error, losses = rng.normal(0, sigma, (mesh.interferometers, 2)), rng.uniform(0, loss_db, mesh.interferometers)
    fields_in = fields_of(n, 3, rng)
    weights = rng.standard_normal((n, 1))
    parts = elements(mesh, *phases, error, losses)
    transmitted = forward(mesh, parts, fields_in)
    np.testing.assert_allclose(transmitted.fields, transfer_matrix(mesh, *phases, error, losses) @ fields_in, atol=1e-12)
    found = backward(mesh, parts, transmitted, slopes_of(transmitted.fields, weights))
    np.testing.assert_allclose(found.fields, fields_in, atol=1e-10)  # recovered by inverting all columns
    for which, gradient in enumerate(found[:3]):
        expected = central_differences(
            lambda p: loss_of(transfer_matrix(mesh, *p, error, losses), fields_in, weights), phases, which
        )
        assert np.linalg.norm(gradient - expected) <= 1e-6 * np.linalg.norm(expected) + 1e-9


@ALL
def test_slopes_with_respect_to_the_input_fields(build: Callable[[int], Mesh]) -> None:
    """dL = 2 Re Σ slope · dE for any small change of the input fields."""
    mesh, rng = build(5), np.random.default_rng(8)
    phases = draw(mesh, rng)
    fields_in, change = fields_of(5, 4, rng), fields_of(5, 4, rng)
    weights, matrix, step = rng.standard_normal((5, 1)), transfer_matrix(mesh, *phases), 1e-5
    parts = elements(mesh, *phases)
    transmitted = forward(mesh, parts, fields_in)
    found = backward(mesh, parts, transmitted, slopes_of(transmitted.fields, weights))
    plus, minus = (loss_of(matrix, fields_in + sign * step * change, weights) for sign in (1, -1))
    assert 2 * np.sum(found.slopes * change).real == pytest.approx((plus - minus) / (2 * step), rel=1e-7)


def test_an_attenuator_at_zero_transmission_has_a_gradient() -> None:
    """At θ = 0 an attenuator transmits nothing and the column is singular, but the derivative by θ is not zero."""
    mesh, rng = svd(3), np.random.default_rng(3)
    phases = draw(mesh, rng)
    phases[0][-3:] = 0.0
    fields_in, weights = fields_of(3, 2, rng), rng.standard_normal((3, 1))
    parts = elements(mesh, *phases)
    transmitted = forward(mesh, parts, fields_in)
    found = backward(mesh, parts, transmitted, slopes_of(transmitted.fields, weights))
    expected = central_differences(lambda p: loss_of(transfer_matrix(mesh, *p), fields_in, weights), phases, 0)
    np.testing.assert_allclose(found.theta, expected, atol=1e-9)
    assert np.all(np.abs(found.theta[-3:]) > 1e-3)
