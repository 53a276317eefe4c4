"""Meshes against closed forms, dense products and conservation laws."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from simulator.mesh import Mesh, clements, keeps_causality, reck, schedule, transfer_matrix

BOTH = pytest.mark.parametrize("build", [clements, reck])


def dense_product(
    mesh: Mesh,
    theta: NDArray,
    phi: NDArray,
    gamma: NDArray,
    error: NDArray,
    loss_db: NDArray,
) -> NDArray[np.complex128]:
    """The mesh as a product of n × n matrices, one physical element after the other."""
    n = mesh.ports
    whole = np.eye(n, dtype=complex)
    for k in np.lexsort((mesh.top, mesh.column)):
        t = mesh.top[k]
        pair = slice(t, t + 2)
        for kind, value in (("phase", phi[k]), ("coupler", error[k, 0]), ("phase", theta[k]), ("coupler", error[k, 1])):
            element = np.eye(n, dtype=complex)
            if kind == "phase":
                element[t, t] = np.exp(1j * value)
            else:
                angle = np.pi / 4 + value
                element[pair, pair] = [[np.cos(angle), 1j * np.sin(angle)], [1j * np.sin(angle), np.cos(angle)]]
            whole = element @ whole
        attenuation = np.eye(n, dtype=complex)
        attenuation[pair, pair] *= 10 ** (-loss_db[k] / 20)
        whole = attenuation @ whole
    return np.diag(np.exp(1j * gamma)) @ whole


def draw(mesh: Mesh, seed: int) -> tuple[NDArray, NDArray, NDArray]:
    rng = np.random.default_rng(seed)
    k = mesh.interferometers
    return rng.uniform(0, 7, k), rng.uniform(0, 7, k), rng.uniform(0, 7, mesh.gammas)


def test_one_interferometer_is_the_closed_form() -> None:
    theta, phi = 0.83, 2.1
    half = theta / 2
    expected = 1j * np.exp(1j * half) * np.array([[np.sin(half), np.cos(half)], [np.cos(half), -np.sin(half)]])
    expected = expected @ np.diag([np.exp(1j * phi), 1])
    np.testing.assert_allclose(transfer_matrix(clements(2), [theta], [phi], [0, 0]), expected, atol=1e-15)


def test_theta_zero_is_cross_and_pi_is_bar() -> None:
    mesh = clements(2)
    cross = np.abs(transfer_matrix(mesh, [0.0], [0.3], [0.1, 0.2]))
    bar = np.abs(transfer_matrix(mesh, [np.pi], [0.3], [0.1, 0.2]))
    np.testing.assert_allclose(cross, [[0, 1], [1, 0]], atol=1e-15)
    np.testing.assert_allclose(bar, np.eye(2), atol=1e-15)


def test_all_cross_reverses_the_modes_of_a_clements_mesh() -> None:
    n = 6
    mesh = clements(n)
    zeros = np.zeros(mesh.interferometers)
    np.testing.assert_allclose(np.abs(transfer_matrix(mesh, zeros, zeros, np.zeros(n))), np.eye(n)[::-1], atol=1e-14)


@BOTH
@pytest.mark.parametrize("n", [2, 3, 4, 7, 8])
def test_matrix_is_the_product_of_its_elements(build: Callable[[int], Mesh], n: int) -> None:
    mesh = build(n)
    rng = np.random.default_rng(n)
    phases = draw(mesh, n)
    error = rng.normal(0, 0.1, (mesh.interferometers, 2))
    loss_db = rng.uniform(0, 1, mesh.interferometers)
    expected = dense_product(mesh, *phases, error, loss_db)
    np.testing.assert_allclose(transfer_matrix(mesh, *phases, error, loss_db), expected, atol=1e-13)


@BOTH
@settings(max_examples=25, deadline=None)
@given(n=st.integers(2, 12), seed=st.integers(0, 2**32), sigma=st.floats(0, 0.7))
def test_lossless_meshes_are_unitary_whatever_the_couplers(build: Callable[[int], Mesh], n: int, seed: int, sigma: float) -> None:
    mesh = build(n)
    error = np.random.default_rng(seed).normal(0, sigma, (mesh.interferometers, 2))
    matrix = transfer_matrix(mesh, *draw(mesh, seed), error)
    np.testing.assert_allclose(matrix.conj().T @ matrix, np.eye(n), atol=1e-12)


@BOTH
@settings(max_examples=25, deadline=None)
@given(n=st.integers(2, 12), seed=st.integers(0, 2**32), loss_db=st.floats(0.0, 3.0))
def test_loss_never_adds_light(build: Callable[[int], Mesh], n: int, seed: int, loss_db: float) -> None:
    mesh = build(n)
    losses = np.random.default_rng(seed).uniform(0, loss_db, mesh.interferometers)
    matrix = transfer_matrix(mesh, *draw(mesh, seed), None, losses)
    assert np.linalg.norm(matrix, 2) <= 1 + 1e-12
    # A uniform loss on paths of like length is one factor.
    if build is clements and n % 2 == 0 and n > 2:
        lost = np.sum(np.abs(transfer_matrix(mesh, *draw(mesh, seed), None, loss_db)) ** 2, axis=0)
        assert np.all(lost >= 10 ** (-loss_db * n / 10) - 1e-12)
        assert np.all(lost <= 10 ** (-loss_db * n / 20) + 1e-12)


@BOTH
def test_a_number_of_loss_is_the_same_as_an_array(build: Callable[[int], Mesh]) -> None:
    mesh = build(5)
    phases = draw(mesh, 1)
    one = transfer_matrix(mesh, *phases, loss_db=0.3)
    np.testing.assert_array_equal(one, transfer_matrix(mesh, *phases, loss_db=np.full(mesh.interferometers, 0.3)))


@BOTH
@pytest.mark.parametrize("n", [2, 3, 4, 5, 16, 33, 70])
def test_counts_and_order(build: Callable[[int], Mesh], n: int) -> None:
    mesh = build(n)
    assert mesh.interferometers == n * (n - 1) // 2
    assert mesh.gammas == n
    assert keeps_causality(mesh, np.arange(mesh.interferometers))
    assert keeps_causality(mesh, schedule(mesh))
    assert keeps_causality(mesh, schedule(mesh, 5))


def test_an_order_against_the_light_is_noticed() -> None:
    mesh = clements(6)
    assert not keeps_causality(mesh, np.arange(mesh.interferometers)[::-1])
    assert not keeps_causality(mesh, np.zeros(mesh.interferometers, int))


def test_depth() -> None:
    assert clements(8).column.max() + 1 == 8
    assert reck(8).column.max() + 1 == 2 * 8 - 3
    # Nobody shares a mode within a column.
    for mesh in (clements(9), reck(9)):
        for column in range(mesh.column.max() + 1):
            tops = np.sort(mesh.top[mesh.column == column])
            assert np.all(np.diff(tops) >= 2)


@BOTH
def test_one_mode_cannot_interfere(build: Callable[[int], Mesh]) -> None:
    with pytest.raises(ValueError, match="a mesh of 1 modes"):
        build(1)


@BOTH
def test_uncorrected_coupler_errors_grow_as_known(build: Callable[[int], Mesh]) -> None:
    """‖ΔU‖_F/√N ≈ √(2N)·σ on average for a rectangular mesh; a triangle has as many couplers a path on average."""
    n, sigma = 32, 0.005
    mesh = build(n)
    found = []
    for seed in range(8):
        phases = draw(mesh, seed)
        error = np.random.default_rng(seed).normal(0, sigma, (mesh.interferometers, 2))
        change = transfer_matrix(mesh, *phases, error) - transfer_matrix(mesh, *phases)
        found.append(np.linalg.norm(change) / np.sqrt(n))
    assert np.sqrt(2 * n) * sigma == pytest.approx(np.mean(found), rel=0.1)
