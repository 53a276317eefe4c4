"""Thermal crosstalk: symmetry, dependence on distance, and the runs used by the kernels."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from photonloop.simulator import kernels
from photonloop.simulator.parameters import CrosstalkParameters
from photonloop.simulator.physics.crosstalk import crosstalk_power_w, lattice, pairs, runs
from photonloop.simulator.physics.mesh import Mesh, clements, reck

BOTH = pytest.mark.parametrize("build", [clements, reck])


def dense(mesh: Mesh, own: CrosstalkParameters) -> NDArray[np.float64]:
    """Matrix of crosstalk shares, from unit powers of single heaters."""
    places = lattice(mesh)
    found = pairs(places, own)
    return np.stack([crosstalk_power_w(unit, found) for unit in np.eye(places.shape[0])], axis=1)


@BOTH
@settings(max_examples=20, deadline=None)
@given(n=st.integers(2, 9), reach=st.floats(0, 4e-4), exponent=st.floats(0, 3), fraction=st.floats(1e-4, 0.1))
def test_crosstalk_is_symmetric_and_a_function_of_distance(
    build: Callable[[int], Mesh], n: int, reach: float, exponent: float, fraction: float
) -> None:
    own = CrosstalkParameters(fraction=fraction, reach_m=reach, exponent=exponent)
    mesh = build(n)
    shares = dense(mesh, own) - np.eye(2 * mesh.interferometers + n)
    np.testing.assert_array_equal(shares, shares.T)
    assert not np.diag(shares).any()
    metres = lattice(mesh) * np.array([own.column_pitch_m / 2, own.mode_pitch_m])
    distance = np.linalg.norm(metres[:, np.newaxis] - metres, axis=2)
    np.fill_diagonal(distance, np.inf)
    inside = distance <= reach * (1 + 1e-9)
    np.testing.assert_array_equal(shares > 0, inside)
    np.testing.assert_allclose(shares[inside], fraction * (own.at_m / distance[inside]) ** exponent, rtol=1e-9)


def test_neighbours_at_the_pitch_of_preset_soi() -> None:
    """Neighbours of θ of an interferometer in the middle of the mesh, by distance."""
    own = CrosstalkParameters(fraction=0.005)
    mesh = clements(12)
    middle = int(np.flatnonzero((mesh.column == 6) & (mesh.top == 6))[0])
    found = pairs(lattice(mesh), own)
    share = np.sort(found.share[found.to == middle])
    at_100_um, at_112_um, at_141_um = 0.005, 0.005 * 100 / np.hypot(100, 50), 0.005 / np.sqrt(2)
    np.testing.assert_allclose(share, sorted([at_100_um] * 3 + [at_112_um] * 2 + [at_141_um] * 2))


@BOTH
def test_all_heaters_have_different_positions(build: Callable[[int], Mesh]) -> None:
    places = lattice(build(9))
    assert np.unique(places, axis=0).shape == places.shape


def test_no_crosstalk_beyond_reach_or_at_fraction_zero() -> None:
    for own in (CrosstalkParameters(), CrosstalkParameters(fraction=0.1, reach_m=4e-5)):
        found = pairs(lattice(clements(6)), own)
        assert found.to.size == 0
        assert runs(found, 36, 10).span.shape == (0, 3)
        np.testing.assert_array_equal(crosstalk_power_w(np.arange(36.0), found), np.arange(36.0))


@BOTH
@settings(max_examples=20, deadline=None)
@given(n=st.integers(2, 20), chunk=st.integers(1, 200), reach=st.floats(5e-5, 3e-4), seed=st.integers(0, 100))
def test_runs_are_equivalent_to_the_pairs(build: Callable[[int], Mesh], n: int, chunk: int, reach: float, seed: int) -> None:
    mesh = build(n)
    channels = 2 * mesh.interferometers + n
    found = pairs(lattice(mesh), CrosstalkParameters(fraction=0.01, reach_m=reach))
    packed = runs(found, channels, chunk)
    power_w = np.random.default_rng(seed).random(channels)
    received_w = power_w.copy()
    assert packed.bounds.size == -(-channels // chunk) + 1
    for c in range(packed.bounds.size - 1):
        for r in range(packed.bounds[c], packed.bounds[c + 1]):
            first, last, source = packed.span[r]
            assert c * chunk <= first < last <= (c + 1) * chunk
            received_w[first:last] += packed.share[r] * power_w[source : source + last - first]
    np.testing.assert_allclose(received_w, crosstalk_power_w(power_w, found), rtol=1e-12)


def test_runs_are_long() -> None:
    """Long runs are fast: at 64 modes a run has thirty pairs on average."""
    mesh = clements(64)
    found = pairs(lattice(mesh), CrosstalkParameters(fraction=0.005))
    packed = runs(found, 4096, kernels.CHUNK)
    assert found.to.size / packed.share.size > 25
