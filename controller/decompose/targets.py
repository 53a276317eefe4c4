"""Target matrices by name or from a file, checked for a stage.

haar:SEED             a random unitary matrix, Haar distributed
dft                   the discrete Fourier transform
identity              the unit matrix
permutation:2,0,1,…   light at input 0 leaves at output 2, light at input 1 at output 0, …
FILE.npy, FILE.csv    a matrix, one row per output, one column per input
"""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
from numpy.typing import ArrayLike, NDArray

from photonloop.controller.decompose.stage_layout import check_topology
from photonloop.controller.decompose.unitarity import checked_square, distance_from_unitary, nearest_unitary, unitarity_error
from photonloop.protocols.config import ConfigError, suggestion
from photonloop.protocols.device import StageDescription

KNOWN_TARGETS = ("haar:SEED", "dft", "identity", "permutation:2,0,1,…", "FILE.npy", "FILE.csv")
"""The forms of a target."""

TARGET_TOLERANCE = 1e-5
"""Largest ‖U†U − 1‖ of a target for a unitary mesh, and largest excess of the norm over 1 for topology "svd". It allows
for elements that are written with six digits or in single precision."""


def target_matrix(target: str, stage: StageDescription) -> NDArray[np.complex128]:
    """Return the matrix that `target` names, shape (ports, ports), as `checked_target`.

    Parameters
    ----------
    target
        One of the forms of `KNOWN_TARGETS`; a file name may be relative to the working directory.
    stage
        The stage that is to have this matrix.

    Raises
    ------
    ConfigError
        The target is unknown or cannot be read, or it is not possible on this stage.
    """
    kind, _, value = target.partition(":")
    if kind == "haar":
        matrix = haar_matrix(stage.ports, _seed(value, target))
    elif target == "dft":
        matrix = dft_matrix(stage.ports)
    elif target == "identity":
        matrix = np.eye(stage.ports, dtype=np.complex128)
    elif kind == "permutation":
        matrix = permutation_matrix(_outputs(value, stage.ports, target))
    elif Path(target).suffix == ".npy":
        matrix = _read_npy(Path(target), "target")
    elif Path(target).suffix == ".csv":
        matrix = _read_csv(Path(target), "target")
    else:
        raise ConfigError(f"target {target!r} is unknown{suggestion(target, list(KNOWN_TARGETS))}")
    return checked_target(matrix, stage, f"target {target}")


def checked_target(matrix: ArrayLike, stage: StageDescription, what: str = "the target") -> NDArray[np.complex128]:
    """Return `matrix` as complex128 if it is possible on `stage`, without its rounding errors.

    For a unitary mesh, the nearest unitary matrix is returned; for topology "svd", a norm slightly above 1 is set to 1.

    Parameters
    ----------
    matrix
        Transfer matrix from input to output fields, shape (ports, ports).
    stage
        A stage of topology "clements", "reck" or "svd".
    what
        The target's name in error messages.

    Raises
    ------
    ConfigError
        The stage has another topology, or the matrix is not square, not of the stage's size, not finite, or exceeds
        `TARGET_TOLERANCE`.
    """
    check_topology(stage)
    try:
        square = checked_square(matrix)
    except ValueError as error:
        raise ConfigError(f"{what}: {error}") from None
    if len(square) != stage.ports:
        raise ConfigError(
            f"{what} is a {len(square)} × {len(square)} matrix, but stage {stage.name} has {stage.ports} ports: "
            f"give a {stage.ports} × {stage.ports} matrix"
        )
    if stage.topology == "svd":
        return _of_norm_one(square, stage, what)
    error = unitarity_error(square)
    if error > TARGET_TOLERANCE:
        raise ConfigError(
            f"{what} is not unitary: ‖U†U − 1‖ is {error:.3g}, but a mesh of topology {stage.topology!r} needs at most "
            f"{TARGET_TOLERANCE:g}; its distance from the nearest unitary matrix is {distance_from_unitary(square):.3g} "
            f"(spectral norm): write the matrix with more digits, use the nearest unitary matrix, which "
            f"photonloop.controller.decompose.unitarity.nearest_unitary returns, or use a stage of topology 'svd'"
        )
    return nearest_unitary(square)


def read_phases(path: Path, stage: StageDescription) -> NDArray[np.float64]:
    """Return the phases [rad] of all channels of `stage` from a .npy or .csv file, shape (channels,).

    Raises
    ------
    ConfigError
        The file cannot be read, or it does not hold one finite real number per channel.
    """
    if path.suffix not in {".npy", ".csv"}:
        raise ConfigError(f"phases file {path} has the suffix {path.suffix!r}, but must be .npy or .csv")
    phases = np.asarray(_read_npy(path, "phases file") if path.suffix == ".npy" else _read_csv(path, "phases file")).squeeze()
    if phases.shape != (stage.channels,):
        raise ConfigError(
            f"phases file {path} has shape {phases.shape}, but stage {stage.name} has {stage.channels} channels: "
            "give one phase per channel"
        )
    if not np.isfinite(phases).all() or (phases.imag != 0).any():
        raise ConfigError(f"phases file {path} contains complex numbers, NaN or infinity, but phases are real and finite")
    return phases.real.astype(np.float64)


def haar_matrix(ports: int, seed: int) -> NDArray[np.complex128]:
    """Return a random unitary matrix, Haar distributed, shape (ports, ports).

    Q of the QR decomposition of a complex Gaussian matrix, with column phases such that the diagonal of R is positive.
    Source: Mezzadri, Notices of the AMS 54, 592 (2007).
    """
    rng = np.random.default_rng(seed)
    gaussian = rng.standard_normal((ports, ports)) + 1j * rng.standard_normal((ports, ports))
    q, r = np.linalg.qr(gaussian.astype(np.complex128))
    return q * np.exp(1j * np.angle(np.diag(r)))


def dft_matrix(ports: int) -> NDArray[np.complex128]:
    """Return the unitary discrete Fourier transform, e^{−2πi jk/ports} / √ports, shape (ports, ports)."""
    index = np.arange(ports)
    return np.exp(-2j * np.pi * (np.outer(index, index) % ports) / ports) / np.sqrt(ports)


def permutation_matrix(outputs: ArrayLike) -> NDArray[np.complex128]:
    """Return the matrix that moves light from input j to output `outputs[j]`, shape (ports, ports)."""
    outputs = np.asarray(outputs, np.int64)
    matrix = np.zeros((outputs.size, outputs.size), np.complex128)
    matrix[outputs, np.arange(outputs.size)] = 1.0
    return matrix


def _of_norm_one(square: NDArray[np.complex128], stage: StageDescription, what: str) -> NDArray[np.complex128]:
    norm = float(np.linalg.norm(square, 2))
    if norm > 1 + TARGET_TOLERANCE:
        raise ConfigError(
            f"{what} has norm {norm:.6g}, but stage {stage.name} of topology 'svd' has no gain, so the largest singular value "
            f"must be ≤ 1: divide the matrix by {norm:.6g}"
        )
    return square / max(norm, 1.0)


def _seed(value: str, target: str) -> int:
    if not re.fullmatch(r"[0-9]{1,18}", value):
        raise ConfigError(f"target {target!r}: the seed is {value!r}, but must be an integer ≥ 0, as in haar:7")
    return int(value)


def _outputs(value: str, ports: int, target: str) -> list[int]:
    entries = [entry.strip() for entry in value.split(",")]
    wrong = [entry for entry in entries if not re.fullmatch(r"[0-9]{1,9}", entry) or int(entry) >= ports]
    if wrong:
        raise ConfigError(f"target {target!r}: output {wrong[0]!r} does not exist, the stage has outputs 0 … {ports - 1}")
    if len(entries) != ports:
        raise ConfigError(f"target {target!r} has {len(entries)} outputs, but the stage has {ports}: give one output per input")
    if twice := sorted(entry for entry in {int(e) for e in entries} if [int(e) for e in entries].count(entry) > 1):
        raise ConfigError(f"target {target!r} has output {twice[0]} more than once, but a permutation has each output once")
    return [int(entry) for entry in entries]


def _read_npy(path: Path, what: str) -> NDArray:
    try:
        with path.open("rb") as file:
            matrix = np.lib.format.read_array(file, allow_pickle=False)
    except FileNotFoundError:
        raise ConfigError(f"{what} {path} does not exist") from None
    except (OSError, ValueError, EOFError) as error:
        raise ConfigError(f"{what} {path} cannot be read as a NumPy array: {error}") from None
    if matrix.dtype.kind not in "biufc":
        raise ConfigError(f"{what} {path} has type {matrix.dtype}, but must contain real or complex numbers")
    return matrix


def _read_csv(path: Path, what: str) -> NDArray[np.complex128]:
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except FileNotFoundError:
        raise ConfigError(f"{what} {path} does not exist") from None
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{what} {path} cannot be read as text: {error}") from None
    rows = [
        [_number(cell, f"{what} {path}", number, column) for column, cell in enumerate(line.split(","), 1)]
        for number, line in enumerate(lines, 1)
        if line.strip() and not line.lstrip().startswith("#")
    ]
    if not rows:
        raise ConfigError(f"{what} {path} has no rows, but must have one line per output")
    if len({len(row) for row in rows}) > 1:
        lengths = sorted({len(row) for row in rows})
        raise ConfigError(f"{what} {path} has rows of {lengths[0]} and of {lengths[-1]} numbers, but they must be equally long")
    return np.array(rows, np.complex128)


def _number(cell: str, where: str, line: int, column: int) -> complex:
    """Return a real or complex Python literal; spaces around signs are allowed."""
    try:
        return complex(re.sub(r"\s*([+-])\s*", r"\1", cell.strip()))
    except ValueError:
        raise ConfigError(
            f"{where}, line {line}, column {column} is {cell.strip()!r}, but must be a number such as 0.5 or 0.5+0.1j"
        ) from None
