"""Phases of meshes for matrices, checked with the controller's model of a mesh and with the simulator."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import ArrayLike, NDArray
from scipy.stats import unitary_group
from support.chips import chip_of, parameters_of
from support.flawed_mesh import flawed
from support.target_matrices import KINDS, unitary

from photonloop.controller.decompose.clements import clements_phases
from photonloop.controller.decompose.mesh_phases import MeshPhases, earliest_columns
from photonloop.controller.decompose.reck import reck_phases
from photonloop.controller.decompose.stage_layout import TOPOLOGIES
from photonloop.controller.decompose.stage_phases import mesh_matrix, stage_phases
from photonloop.controller.decompose.svd import svd_phases
from photonloop.controller.decompose.unitarity import distance_from_unitary, nearest_unitary, unitarity_error
from photonloop.protocols.config import ConfigError
from photonloop.protocols.device import StageDescription
from photonloop.simulator.engine.stage import build_stages
from photonloop.simulator.physics.mesh import TOPOLOGIES as MESHES
from photonloop.simulator.physics.mesh import elements, propagated
from photonloop.simulator.truth.chip_truth import stage_matrix

ALL = pytest.mark.parametrize("topology", ["clements", "reck", "svd"])
UNITARY = pytest.mark.parametrize("decompose", [clements_phases, reck_phases])
SIZES = pytest.mark.parametrize("n", [2, 3, 4, 5, 8, 13, 32])

Decompose = Callable[[ArrayLike], MeshPhases]


def stage_of(topology: str, n: int) -> StageDescription:
    return build_stages(parameters_of("ideal", {"mesh": {"topology": topology}}, ports=n, stages=1))[0].description


def changed(stage: StageDescription, **changes: Any) -> StageDescription:
    return StageDescription.model_validate({**stage.model_dump(), **changes})


def contraction(kind: str, n: int) -> NDArray[np.complex128]:
    """A matrix of norm 1."""
    rng = np.random.default_rng(n)
    matrix = rng.standard_normal((n, n)).astype(np.complex128)
    if kind == "complex":
        matrix += 1j * rng.standard_normal((n, n))
    if kind == "singular":
        matrix[0] = matrix[1]
    return matrix / np.linalg.norm(matrix, 2)


# Phases and matrices ------------------------------------------------------------------------------------------------


@ALL
@SIZES
@pytest.mark.parametrize("kind", KINDS)
def test_phases_give_the_matrix_in_the_simulator(topology: str, n: int, kind: str) -> None:
    stage, mesh, target = stage_of(topology, n), MESHES[topology](n), unitary(kind, n)
    phases = stage_phases(stage, target)
    theta, phi, gamma = np.split(phases, (mesh.interferometers, 2 * mesh.interferometers))
    found = propagated(mesh, elements(mesh, theta, phi, gamma), np.eye(n, dtype=np.complex128))
    np.testing.assert_allclose(found, target, atol=1e-10)
    np.testing.assert_allclose(mesh_matrix(stage, phases), target, atol=1e-10)


@ALL
@pytest.mark.parametrize("n", [2, 5, 8])
def test_phases_give_the_matrix_on_an_ideal_chip(topology: str, n: int) -> None:
    chip = chip_of("ideal", {"mesh": {"topology": topology}}, ports=n, stages=1)
    drive, stage = chip.describe().drive, chip.describe().stages[0]
    target = unitary("haar", n)
    volts = np.sqrt(stage_phases(stage, target) / np.pi * drive.pi_power_w * drive.resistance_ohm)
    np.testing.assert_allclose(stage_matrix(chip, 0, volts), target, atol=1e-10)


@SIZES
@pytest.mark.parametrize("kind", ["complex", "real", "singular", "zero"])
def test_svd_mesh_has_any_matrix_of_norm_one(n: int, kind: str) -> None:
    stage, target = stage_of("svd", n), np.zeros((n, n)) if kind == "zero" else contraction(kind, n)
    np.testing.assert_allclose(mesh_matrix(stage, stage_phases(stage, target)), target, atol=1e-10)


@UNITARY
@SIZES
@pytest.mark.parametrize("kind", KINDS)
def test_phases_are_within_one_period(decompose: Decompose, n: int, kind: str) -> None:
    found = decompose(unitary(kind, n))
    phases = np.concatenate((found.theta, found.phi, found.gamma))
    assert (phases >= 0).all()
    assert (phases < 2 * np.pi).all()
    assert (found.theta <= np.pi).all()
    assert (found.theta.shape, found.phi.shape, found.gamma.shape) == ((n * (n - 1) // 2,), (n * (n - 1) // 2,), (n,))


@UNITARY
@SIZES
@pytest.mark.parametrize("kind", ["identity", "reversal", "permutation", "signed permutation", "diagonal"])
def test_matrices_that_only_route_light_need_bar_and_cross_states_only(decompose: Decompose, n: int, kind: str) -> None:
    found = decompose(unitary(kind, n))
    assert np.isin(found.theta, [0.0, np.pi]).all()
    assert not found.phi.any()
    if kind in {"identity", "diagonal"}:
        assert (found.theta == np.pi).all()


@UNITARY
def test_one_interferometer_has_its_closed_form(decompose: Decompose) -> None:
    theta, phi, gamma = 0.83, 2.1, np.array([0.4, 5.0])
    half = theta / 2
    matrix = 1j * np.exp(1j * half) * np.array([[np.sin(half), np.cos(half)], [np.cos(half), -np.sin(half)]])
    found = decompose(np.exp(1j * gamma)[:, np.newaxis] * matrix @ np.diag([np.exp(1j * phi), 1]))
    np.testing.assert_allclose(found.theta, [theta], atol=1e-14)
    np.testing.assert_allclose(found.phi, [phi], atol=1e-14)
    np.testing.assert_allclose(found.gamma, gamma, atol=1e-14)


ANGLES = st.sampled_from([0.0, np.pi, np.pi / 2, 1e-9, np.pi - 1e-9, 1e-13, 1e-15]) | st.floats(0, 2 * np.pi)


@settings(max_examples=60, deadline=None)
@given(data=st.data(), topology=st.sampled_from(["clements", "reck", "svd"]), n=st.integers(2, 7))
def test_matrix_of_any_phases_is_found_again(data: st.DataObject, topology: str, n: int) -> None:
    """Also for interferometers near the cross and bar states, in which the phases of a matrix are not unique."""
    stage = stage_of(topology, n)
    phases = np.array(data.draw(st.lists(ANGLES, min_size=stage.channels, max_size=stage.channels)))
    matrix = mesh_matrix(stage, phases)
    np.testing.assert_allclose(mesh_matrix(stage, stage_phases(stage, matrix)), matrix, atol=1e-10)


@settings(max_examples=60, deadline=None)
@given(n=st.integers(2, 12), seed=st.integers(0, 2**32 - 1), zeros=st.floats(0, 1))
def test_sparse_matrices(n: int, seed: int, zeros: float) -> None:
    """Products of few random rotations of random pairs of modes."""
    rng = np.random.default_rng(seed)
    matrix = np.eye(n, dtype=np.complex128)[rng.permutation(n)]
    for _ in range(int((1 - zeros) * n)):
        pair = rng.choice(n, 2, replace=False)
        matrix[pair] = unitary_group.rvs(2, random_state=rng) @ matrix[pair]
    for topology in ("clements", "reck"):
        stage = stage_of(topology, n)
        np.testing.assert_allclose(mesh_matrix(stage, stage_phases(stage, matrix)), matrix, atol=1e-10)


def test_64_modes() -> None:
    for topology in ("clements", "reck", "svd"):
        stage, target = stage_of(topology, 64), unitary("haar", 64)
        np.testing.assert_allclose(mesh_matrix(stage, stage_phases(stage, target)), target, atol=1e-10)


# Rejected matrices --------------------------------------------------------------------------------------------------


@UNITARY
def test_matrices_that_are_not_unitary_are_rejected_with_their_distance(decompose: Decompose) -> None:
    with pytest.raises(ValueError, match=r"distance of 0\.25 from the nearest unitary matrix, but at most 1e-08"):
        decompose(np.diag([1, 1.25, 1j]))


@UNITARY
def test_matrices_within_the_tolerance_are_accepted(decompose: Callable[..., MeshPhases]) -> None:
    target = unitary("haar", 4)
    np.testing.assert_allclose(decompose(target * 1.001, tolerance=0.01).theta, decompose(target).theta, atol=1e-10)


@pytest.mark.parametrize("decompose", [clements_phases, reck_phases, svd_phases])
@pytest.mark.parametrize(
    ("matrix", "sentence"),
    [
        (np.eye(3)[:2], r"shape \(2, 3\), but it must be square"),
        (np.ones(4), r"shape \(4,\), but it must be square"),
        (np.eye(1), "1 rows, but a mesh has at least 2 modes"),
        (np.diag([1, np.nan]), r"element \(1, 1\) of the matrix is \(nan\+0j\), but all elements must be finite"),
    ],
)
def test_matrices_that_are_no_square_of_numbers_are_rejected(decompose: Decompose, matrix: NDArray, sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        decompose(matrix)


def test_svd_rejects_gain() -> None:
    with pytest.raises(ValueError, match=r"largest singular value of the matrix is 1\.5, .* divide the matrix by 1\.5"):
        svd_phases(np.diag([1.5, 0.1]))


def test_distances_from_unitary_matrices() -> None:
    matrix = unitary("haar", 3) @ np.diag([1, 1, 0.9]) @ unitary("orthogonal", 3)
    assert distance_from_unitary(matrix) == pytest.approx(0.1)
    assert unitarity_error(matrix) == pytest.approx(0.19)
    assert unitarity_error(matrix) == pytest.approx(np.linalg.norm(matrix.conj().T @ matrix - np.eye(3), 2))
    assert np.linalg.norm(matrix - nearest_unitary(matrix), 2) == pytest.approx(0.1)


# Stages -------------------------------------------------------------------------------------------------------------


@ALL
@SIZES
def test_layouts_are_those_of_the_simulator(topology: str, n: int) -> None:
    mesh = MESHES[topology](n)
    found = [(top, attenuates) for _, top, attenuates in TOPOLOGIES[topology](n)]
    assert found == list(zip(mesh.top.tolist(), mesh.attenuates.tolist(), strict=True))


@ALL
@settings(max_examples=15, deadline=None)
@given(data=st.data(), n=st.integers(2, 8))
def test_rows_and_channels_may_be_in_any_order(topology: str, data: st.DataObject, n: int) -> None:
    """Columns with gaps, rows in any order, and channels of θ and φ numbered in any order within their groups."""
    stage = stage_of(topology, n)
    number = np.arange(stage.channels)
    for start, stop in stage.groups.values():
        number[start:stop] = data.draw(st.permutations(range(start, stop)))
    gamma = slice(*stage.groups["gamma"])
    number[gamma] = np.arange(stage.channels)[gamma]
    rows = [(3 * column + 1, top, int(number[theta]), int(number[phi])) for column, top, theta, phi in stage.layout]
    other, target = changed(stage, layout=data.draw(st.permutations(rows))), unitary("haar", n)
    phases = stage_phases(other, target)
    np.testing.assert_allclose(phases[number], stage_phases(stage, target), atol=1e-15)
    np.testing.assert_allclose(mesh_matrix(other, phases), target, atol=1e-10)


def test_a_triangle_may_be_drawn_in_other_columns() -> None:
    """The same circuit with one interferometer per column."""
    stage, target = stage_of("reck", 5), unitary("haar", 5)
    other = changed(stage, layout=[(index, *row[1:]) for index, row in enumerate(stage.layout)])
    np.testing.assert_allclose(mesh_matrix(other, stage_phases(other, target)), target, atol=1e-10)


@pytest.mark.parametrize("topology", ["clements", "reck"])
def test_without_output_phases_the_powers_are_right(topology: str) -> None:
    stage, target = stage_of(topology, 5), unitary("haar", 5)
    groups = {name: span for name, span in stage.groups.items() if name != "gamma"}
    bare = changed(stage, groups=groups, channels=stage.channels - 5)
    found = mesh_matrix(bare, stage_phases(bare, target))
    np.testing.assert_allclose(found * (target[:, :1] / found[:, :1]), target, atol=1e-10)


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"topology": "unknown"}, "topology 'unknown', but a matrix can be set only on clements, reck, svd"),
        ({"topology": "weight_bank", "layout": []}, "topology 'weight_bank', but"),
        ({"topology": "reck"}, "not that of topology 'reck' on 4 modes, which has 6: the first difference is a .* in column 0"),
        ({"topology": "svd"}, "has 6 rows and is not that of topology 'svd' on 4 modes, which has 16"),
        ({"layout": []}, "no layout, so the places of its interferometers are unknown: add a row"),
        ({"ports": 6}, "group gamma of stage mesh0 has 4 channels, but the stage has 6 outputs"),
        ({"ports": 3}, "row 1 of the layout of stage mesh0 has top mode 2, but with 3 modes it must be 0 … 1"),
        ({"channels": 15}, "contains channel 15, but the stage has channels 0 … 14"),
        ({"channels": 17}, "channel 16 of stage mesh0 is 0 times in its layout and its group gamma"),
    ],
)
def test_stages_that_no_matrix_can_be_decomposed_for_are_refused(changes: dict[str, Any], sentence: str) -> None:
    with pytest.raises(ConfigError, match=sentence):
        stage_phases(changed(stage_of("clements", 4), **changes), np.eye(4))


def test_contradictions_in_a_layout_are_refused() -> None:
    stage = stage_of("clements", 4)
    rows = [list(row) for row in stage.layout]
    rows[2][0] = 0
    with pytest.raises(ConfigError, match="mode 1 of stage mesh0 has two interferometers in column 0"):
        mesh_matrix(changed(stage, layout=rows), np.zeros(16))
    rows = [list(row) for row in stage.layout]
    rows[2][2] = 1
    with pytest.raises(ConfigError, match="channel 1 of stage mesh0 is 2 times in its layout"):
        mesh_matrix(changed(stage, layout=rows), np.zeros(16))


def test_sizes_are_checked() -> None:
    stage = stage_of("clements", 4)
    with pytest.raises(ValueError, match=r"shape \(3, 3\), but stage mesh0 has 4 ports"):
        stage_phases(stage, np.eye(3))
    with pytest.raises(ValueError, match=r"shape \(15,\), but stage mesh0 has 16 channels"):
        mesh_matrix(stage, np.zeros(15))


def test_earliest_columns() -> None:
    np.testing.assert_array_equal(earliest_columns([(0, 2), (2, 4), (1, 3), (4, 5), (0, 1), (3, 5)]), [0, 0, 1, 0, 1, 1])


# The model of a mesh ------------------------------------------------------------------------------------------------


@ALL
@pytest.mark.parametrize("n", [2, 5, 8])
def test_model_agrees_with_the_simulator(topology: str, n: int) -> None:
    """At random phases, with coupler errors and losses."""
    other = flawed(MESHES[topology](n), seed=n, loss_db=1.0)
    phases = np.concatenate((other.theta, other.phi, other.gamma))
    found = mesh_matrix(stage_of(topology, n), phases, other.coupler_error, other.loss_db)
    np.testing.assert_allclose(found, other.matrix, atol=1e-13)


def test_model_of_many_settings() -> None:
    stage = stage_of("svd", 4)
    phases = np.random.default_rng(0).uniform(0, 6, (2, 3, stage.channels))
    found = mesh_matrix(stage, phases, loss_db=0.2)
    assert found.shape == (2, 3, 4, 4)
    np.testing.assert_allclose(found[1, 2], mesh_matrix(stage, phases[1, 2], loss_db=0.2), atol=1e-15)


def test_model_of_a_layout_of_unknown_topology() -> None:
    """Two interferometers in a row on the same modes, both at θ = 0, cross the light twice."""
    stage = StageDescription(
        name="chip",
        topology="unknown",
        ports=2,
        first_channel=0,
        channels=4,
        groups={"theta": (0, 2), "phi": (2, 4)},
        layout=((0, 0, 0, 2), (1, 0, 1, 3)),
        tap_ports=2,
    )
    np.testing.assert_allclose(mesh_matrix(stage, np.zeros(4)), -np.eye(2), atol=1e-15)
