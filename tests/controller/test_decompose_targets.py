"""Target matrices by name and from files."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.linalg import dft
from scipy.stats import kstest
from support.chips import parameters_of
from support.target_matrices import unitary

from photonloop.controller.decompose.targets import (
    TARGET_TOLERANCE,
    checked_target,
    dft_matrix,
    haar_matrix,
    permutation_matrix,
    target_matrix,
)
from photonloop.protocols.config import ConfigError
from photonloop.protocols.device import StageDescription
from photonloop.simulator.engine.stage import build_stages


def stage_of(topology: str, n: int) -> StageDescription:
    return build_stages(parameters_of("ideal", {"mesh": {"topology": topology}}, ports=n, stages=1))[0].description


FOUR = stage_of("clements", 4)
FOUR_SVD = stage_of("svd", 4)


def test_named_targets() -> None:
    np.testing.assert_allclose(target_matrix("dft", FOUR), dft(4, scale="sqrtn"), atol=1e-15)
    np.testing.assert_allclose(target_matrix("identity", FOUR), np.eye(4), atol=1e-15)
    np.testing.assert_allclose(target_matrix("haar:7", FOUR), haar_matrix(4, 7), atol=1e-15)


def test_light_at_input_j_of_a_permutation_leaves_at_output_j_of_its_list() -> None:
    found = target_matrix("permutation:2,0,3,1", FOUR)
    np.testing.assert_allclose(found @ [1, 0, 0, 0], [0, 0, 1, 0], atol=1e-15)
    np.testing.assert_allclose(found @ [0, 0, 1, 0], [0, 0, 0, 1], atol=1e-15)
    np.testing.assert_array_equal(permutation_matrix([0, 1]), np.eye(2))


def test_large_dft_is_unitary() -> None:
    found = dft_matrix(256)
    np.testing.assert_allclose(found.conj().T @ found, np.eye(256), atol=1e-12)


def test_haar_matrices_depend_on_their_seed_only() -> None:
    np.testing.assert_array_equal(haar_matrix(5, 3), haar_matrix(5, 3))
    assert not np.allclose(haar_matrix(5, 3), haar_matrix(5, 4))


def test_haar_matrices_have_the_haar_distribution() -> None:
    """|U₀₀|² is 1 − (1 − x)^{n−1} distributed, and eigenvalue phases are uniform, which QR alone does not give."""
    n, found = 3, [haar_matrix(3, seed) for seed in range(2000)]
    assert kstest([abs(u[0, 0]) ** 2 for u in found], lambda x: 1 - (1 - x) ** (n - 1)).pvalue > 1e-3
    phases = [np.angle(np.linalg.eigvals(u)[0]) for u in found]
    assert kstest(phases, "uniform", (-np.pi, 2 * np.pi)).pvalue > 1e-3


@pytest.mark.parametrize("dtype", [np.complex128, np.complex64])
def test_npy_files(tmp_path: Path, dtype: type) -> None:
    wanted = unitary("haar", 4)
    np.save(tmp_path / "u.npy", wanted.astype(dtype))
    found = target_matrix(str(tmp_path / "u.npy"), FOUR)
    np.testing.assert_allclose(found, wanted, atol=1e-6)
    np.testing.assert_allclose(found.conj().T @ found, np.eye(4), atol=1e-14)


def test_real_npy_files(tmp_path: Path) -> None:
    np.save(tmp_path / "u.npy", np.eye(4, dtype=np.int8)[::-1])
    np.testing.assert_allclose(target_matrix(str(tmp_path / "u.npy"), FOUR), np.eye(4)[::-1], atol=1e-15)


def test_csv_files(tmp_path: Path) -> None:
    path = tmp_path / "u.csv"
    path.write_text("\ufeff# two rows swapped\n0, 1j ,0,0\n(1+0j),0,0e3,0\n\n0,0, 0.6 + 0.8j,0\n0,0,0,-1\n", encoding="utf-8")
    wanted = np.array([[0, 1j, 0, 0], [1, 0, 0, 0], [0, 0, 0.6 + 0.8j, 0], [0, 0, 0, -1]])
    np.testing.assert_allclose(target_matrix(str(path), FOUR), wanted, atol=1e-15)


def test_csv_files_of_numpy(tmp_path: Path) -> None:
    path, wanted = tmp_path / "u.csv", unitary("haar", 4)
    np.savetxt(path, wanted, delimiter=",", fmt="%.6f")
    np.testing.assert_allclose(target_matrix(str(path), FOUR), wanted, atol=3e-6)


@pytest.mark.parametrize("topology", ["clements", "reck"])
def test_matrices_that_are_not_unitary_are_refused_with_their_distance(topology: str) -> None:
    with pytest.raises(ConfigError, match=r"‖U†U − 1‖ is 0\.21, but a mesh of topology '\w+' needs at most 1e-05; .* use"):
        checked_target(np.diag([1, 1.1, 1, 1]), stage_of(topology, 4))


def test_rounded_matrices_become_unitary() -> None:
    wanted = unitary("haar", 4)
    found = checked_target(wanted * (1 + 0.4 * TARGET_TOLERANCE), FOUR)
    np.testing.assert_allclose(found, wanted, atol=1e-14)


def test_svd_stages_take_any_matrix_without_gain() -> None:
    matrix = np.arange(16.0).reshape(4, 4) / 40
    np.testing.assert_array_equal(checked_target(matrix, FOUR_SVD), matrix)
    assert np.linalg.norm(checked_target(unitary("haar", 4) * (1 + 1e-7), FOUR_SVD), 2) <= 1 + 1e-15
    with pytest.raises(ConfigError, match=r"the target has norm 2, but stage mesh0 .* has no gain.*: divide the matrix by 2"):
        checked_target(2 * np.eye(4), FOUR_SVD)


@pytest.mark.parametrize(
    ("target", "sentence"),
    [
        ("haar:x", "the seed is 'x', but must be an integer ≥ 0, as in haar:7"),
        ("haar:-1", "the seed is '-1', but"),
        ("haar", "the seed is '', but"),
        ("idnetity", "target 'idnetity' is unknown; did you mean 'identity'?"),
        ("u.mat", "target 'u.mat' is unknown; "),
        ("", "target '' is unknown; known: FILE.csv, FILE.npy, dft, haar:SEED, identity"),
        ("permutation:0,1,2", "has 3 outputs, but the stage has 4: give one output per input"),
        ("permutation:0,1,2,4", "output '4' does not exist, the stage has outputs 0 … 3"),
        ("permutation:0,1,2,x", "output 'x' does not exist"),
        ("permutation:", "output '' does not exist"),
        ("permutation:0,1,1,0", "has output 0 more than once"),
        ("missing.npy", "target missing.npy does not exist"),
        ("missing.csv", "target missing.csv does not exist"),
    ],
)
def test_targets_that_cannot_be_used(target: str, sentence: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ConfigError) as caught:
        target_matrix(target, FOUR)
    assert sentence in str(caught.value)


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("1,0\n0,1\n", "is a 2 × 2 matrix, but stage mesh0 has 4 ports: give a 4 × 4 matrix"),
        ("1,0\n0\n", "has rows of 1 and of 2 numbers, but they must be equally long"),
        ("1,0\n", "has shape (1, 2), but it must be square"),
        ("# nothing\n", "has no rows, but must have one line per output"),
        ("1,0\n\n0,1 2\n", "line 3, column 2 is '1 2', but must be a number such as 0.5 or 0.5+0.1j"),
        ("1,0\n0,1,\n", "line 2, column 3 is '', but must be a number"),
        ("1,0\n0,nan\n", "element (1, 1) of the matrix is (nan+0j), but all elements must be finite"),
    ],
)
def test_csv_files_that_cannot_be_used(text: str, sentence: str, tmp_path: Path) -> None:
    path = tmp_path / "u.csv"
    path.write_text(text)
    with pytest.raises(ConfigError) as caught:
        target_matrix(str(path), FOUR)
    assert sentence in str(caught.value)
    assert str(path) in str(caught.value)


@pytest.mark.parametrize(
    ("array", "sentence"),
    [
        (np.array([["a"] * 4] * 4), "has type <U1, but must contain real or complex numbers"),
        (np.array([[None] * 4] * 4), "cannot be read as a NumPy array"),
        (np.zeros((4, 4, 4)), "shape (4, 4, 4), but it must be square"),
        (np.diag([np.inf] * 4), "but all elements must be finite"),
    ],
)
def test_npy_files_that_cannot_be_used(array: NDArray, sentence: str, tmp_path: Path) -> None:
    path = tmp_path / "u.npy"
    np.save(path, array)
    with pytest.raises(ConfigError) as caught:
        target_matrix(str(path), FOUR)
    assert sentence in str(caught.value)


@pytest.mark.parametrize("content", [b"", b"text", b"\x93NUMPY\x01\x00"])
def test_files_that_are_no_npy_files(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "u.npy"
    path.write_bytes(content)
    with pytest.raises(ConfigError, match="cannot be read as a NumPy array"):
        target_matrix(str(path), FOUR)


def test_other_topologies_are_refused() -> None:
    with pytest.raises(ConfigError, match="topology 'unknown', but a matrix can be set only on clements, reck, svd"):
        target_matrix("identity", FOUR.model_copy(update={"topology": "unknown"}))
