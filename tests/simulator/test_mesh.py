"""Meshes against closed forms, dense products and conservation laws."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from photonloop.simulator.physics.mesh import (
    Mesh,
    clements,
    columns,
    elements,
    keeps_causality,
    pass_column,
    reck,
    schedule,
    svd,
    transfer_matrix,
)

UNITARY = pytest.mark.parametrize("build", [clements, reck])
ALL = pytest.mark.parametrize("build", [clements, reck, svd])


def dense_product(
    mesh: Mesh,
    theta: NDArray,
    phi: NDArray,
    gamma: NDArray,
    error: NDArray,
    loss_db: NDArray,
) -> NDArray[np.complex128]:
    """The mesh as a product of one matrix per physical element; each attenuator has an extra mode for lost light."""
    n = mesh.ports
    dump = iter(range(n, n + int(mesh.attenuates.sum())))
    size = n + int(mesh.attenuates.sum())
    whole = np.eye(size, dtype=complex)
    for k in np.lexsort((mesh.top, mesh.column)):
        t = mesh.top[k]
        pair = np.ix_(*2 * ([t, next(dump) if mesh.attenuates[k] else t + 1],))
        p, q = phi[mesh.phi[k]], theta[mesh.theta[k]]
        for kind, value in (("phase", p), ("coupler", error[k, 0]), ("phase", q), ("coupler", error[k, 1])):
            element = np.eye(size, dtype=complex)
            if kind == "phase":
                element[t, t] = np.exp(1j * value)
            else:
                angle = np.pi / 4 + value
                element[pair] = [[np.cos(angle), 1j * np.sin(angle)], [1j * np.sin(angle), np.cos(angle)]]
            whole = element @ whole
        attenuation = np.eye(size, dtype=complex)
        attenuation[pair] *= 10 ** (-loss_db[k] / 20)
        whole = attenuation @ whole
    return np.diag(np.exp(1j * gamma)) @ whole[:n, :n]


def draw(mesh: Mesh, seed: int) -> tuple[NDArray, NDArray, NDArray]:
    rng = np.random.default_rng(seed)
    k = mesh.interferometers
    return rng.uniform(0, 7, k), rng.uniform(0, 7, k), rng.uniform(0, 7, mesh.gammas)


def test_one_interferometer_has_its_closed_form() -> None:
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


@ALL
@pytest.mark.parametrize("n", [2, 3, 4, 7, 8])
def test_matrix_is_the_product_of_the_elements(build: Callable[[int], Mesh], n: int) -> None:
    mesh = build(n)
    rng = np.random.default_rng(n)
    phases = draw(mesh, n)
    error = rng.normal(0, 0.1, (mesh.interferometers, 2))
    loss_db = rng.uniform(0, 1, mesh.interferometers)
    expected = dense_product(mesh, *phases, error, loss_db)
    np.testing.assert_allclose(transfer_matrix(mesh, *phases, error, loss_db), expected, atol=1e-13)


@UNITARY
@settings(max_examples=25, deadline=None)
@given(n=st.integers(2, 12), seed=st.integers(0, 2**32), sigma=st.floats(0, 0.7))
def test_lossless_meshes_are_unitary_for_any_couplers(build: Callable[[int], Mesh], n: int, seed: int, sigma: float) -> None:
    mesh = build(n)
    error = np.random.default_rng(seed).normal(0, sigma, (mesh.interferometers, 2))
    matrix = transfer_matrix(mesh, *draw(mesh, seed), error)
    np.testing.assert_allclose(matrix.conj().T @ matrix, np.eye(n), atol=1e-12)


@ALL
@settings(max_examples=25, deadline=None)
@given(n=st.integers(2, 12), seed=st.integers(0, 2**32), loss_db=st.floats(0.0, 3.0))
def test_loss_never_adds_power(build: Callable[[int], Mesh], n: int, seed: int, loss_db: float) -> None:
    mesh = build(n)
    losses = np.random.default_rng(seed).uniform(0, loss_db, mesh.interferometers)
    matrix = transfer_matrix(mesh, *draw(mesh, seed), None, losses)
    assert np.linalg.norm(matrix, 2) <= 1 + 1e-12
    # A uniform loss on paths of equal length is a common factor.
    if build is clements and n % 2 == 0 and n > 2:
        lost = np.sum(np.abs(transfer_matrix(mesh, *draw(mesh, seed), None, loss_db)) ** 2, axis=0)
        assert np.all(lost >= 10 ** (-loss_db * n / 10) - 1e-12)
        assert np.all(lost <= 10 ** (-loss_db * n / 20) + 1e-12)


@ALL
@settings(max_examples=25, deadline=None)
@given(n=st.integers(2, 12), seed=st.integers(0, 2**32), sigma=st.floats(0, 0.3), loss_db=st.floats(0.0, 1.0))
def test_every_column_is_invertible(build: Callable[[int], Mesh], n: int, seed: int, sigma: float, loss_db: float) -> None:
    """The inverse of a column recovers the fields before it, and a column never adds power."""
    mesh = build(n)
    rng = np.random.default_rng(seed)
    theta, phi, _ = draw(mesh, seed)
    error, losses = rng.normal(0, sigma, (mesh.interferometers, 2)), rng.uniform(0, loss_db, mesh.interferometers)
    parts = elements(mesh, theta, phi, [], error, losses)
    fields = rng.standard_normal((n, 3)) + 1j * rng.standard_normal((n, 3))
    for column in columns(mesh):
        before = fields.copy()
        pass_column(mesh, parts.matrices, column, fields)
        assert np.linalg.norm(fields) <= np.linalg.norm(before) * (1 + 1e-12)
        back = fields.copy()
        pass_column(mesh, parts.inverses, column, back)
        shut = mesh.top[column.alone]  # an attenuator may transmit nothing, so it is not invertible
        np.testing.assert_allclose(np.delete(back, shut, axis=0), np.delete(before, shut, axis=0), atol=1e-12)


@ALL
def test_a_scalar_loss_equals_an_array_of_it(build: Callable[[int], Mesh]) -> None:
    mesh = build(5)
    phases = draw(mesh, 1)
    one = transfer_matrix(mesh, *phases, loss_db=0.3)
    np.testing.assert_array_equal(one, transfer_matrix(mesh, *phases, loss_db=np.full(mesh.interferometers, 0.3)))


@ALL
@pytest.mark.parametrize("n", [2, 3, 4, 5, 16, 33, 70])
def test_counts_and_order(build: Callable[[int], Mesh], n: int) -> None:
    mesh = build(n)
    assert mesh.interferometers == (n * n if build is svd else n * (n - 1) // 2)
    assert mesh.gammas == n
    for index in (mesh.theta, mesh.phi):
        np.testing.assert_array_equal(np.sort(index), np.arange(mesh.interferometers))
    covered = np.concatenate([np.arange(*bounds) for bounds in mesh.groups.values()])
    np.testing.assert_array_equal(covered, np.arange(mesh.channels))
    assert keeps_causality(mesh, np.arange(mesh.interferometers))
    assert keeps_causality(mesh, schedule(mesh))
    assert keeps_causality(mesh, schedule(mesh, 5))


def test_an_order_that_violates_causality_is_detected() -> None:
    mesh = clements(6)
    assert not keeps_causality(mesh, np.arange(mesh.interferometers)[::-1])
    assert not keeps_causality(mesh, np.zeros(mesh.interferometers, int))


def test_depth() -> None:
    assert clements(8).column.max() + 1 == 8
    assert reck(8).column.max() + 1 == 2 * 8 - 3
    assert svd(8).column.max() + 1 == 2 * 8 + 1
    # Interferometers of one column share no mode.
    for mesh in (clements(9), reck(9)):
        for column in range(mesh.column.max() + 1):
            tops = np.sort(mesh.top[mesh.column == column])
            assert np.all(np.diff(tops) >= 2)


@ALL
@pytest.mark.parametrize("which", [0, 1, 2])
def test_a_wrong_number_of_phases_is_refused(build: Callable[[int], Mesh], which: int) -> None:
    mesh = build(4)
    phases = list(draw(mesh, 0))
    phases[which] = phases[which][:-1]
    with pytest.raises(ValueError, match=f"{('theta', 'phi', 'gamma')[which]} has shape .* but the mesh needs"):
        transfer_matrix(mesh, phases[0], phases[1], phases[2])


@ALL
def test_a_mesh_of_one_mode_is_refused(build: Callable[[int], Mesh]) -> None:
    with pytest.raises(ValueError, match="a mesh has 1 modes"):
        build(1)


@UNITARY
def test_uncorrected_coupler_errors_grow_with_the_square_root_of_size(build: Callable[[int], Mesh]) -> None:
    """‖ΔU‖_F/√N ≈ √(2N)·σ on average for a rectangular mesh; a triangle has as many couplers per path on average."""
    n, sigma = 32, 0.005
    mesh = build(n)
    found = []
    for seed in range(8):
        phases = draw(mesh, seed)
        error = np.random.default_rng(seed).normal(0, sigma, (mesh.interferometers, 2))
        change = transfer_matrix(mesh, *phases, error) - transfer_matrix(mesh, *phases)
        found.append(np.linalg.norm(change) / np.sqrt(n))
    assert np.sqrt(2 * n) * sigma == pytest.approx(np.mean(found), rel=0.1)


def test_svd_is_two_meshes_and_attenuators() -> None:
    n = 5
    mesh, half, rng = svd(n), clements(n), np.random.default_rng(2)
    theta, phi, gamma = draw(mesh, 2)
    k = half.interferometers
    first, second = slice(0, k), slice(k, 2 * k)
    before = transfer_matrix(half, theta[first], phi[first], [])
    after = transfer_matrix(half, theta[second], phi[second], gamma)
    # The closed form of M₀₀: amplitude sin(θ/2).
    sigma = 1j * np.exp(1j * (theta[2 * k :] / 2 + phi[2 * k :])) * np.sin(theta[2 * k :] / 2)
    np.testing.assert_allclose(transfer_matrix(mesh, theta, phi, gamma), after @ np.diag(sigma) @ before, atol=1e-14)
    assert mesh.mean_passes == 2 * half.mean_passes + 1
    assert mesh.groups["attenuator_theta"] == (2 * k, 2 * k + n)
    # Random attenuators transmit half of the power on average; the amplifiers of a chip are set for that.
    left = [
        np.linalg.norm(transfer_matrix(mesh, *(rng.uniform(0, 2 * np.pi, p.size) for p in (theta, phi, gamma))))
        for _ in range(400)
    ]
    assert np.mean(np.square(left)) / n == pytest.approx(mesh.mean_transmitted, rel=0.05)
