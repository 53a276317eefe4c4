"""Figures of merit: how close a measured or modelled matrix is to its target.

Powers need no phase reference, so on a chip with power detectors only, `total_variation_distance` and `power_errors`
can be measured; `fidelity` needs fields, from a model or from an interferometric measurement. For small errors
TVD ≈ ½ √(2(1 − F)) for random errors of a Haar-random target, so a TVD of 1 % means F ≈ 0.9998.
"""

from __future__ import annotations

from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

_CONVERGED = 1e-14
_MOST_STEPS = 500

InputPhases = Literal["fixed", "free"]


class Diagonals(NamedTuple):
    """Diagonals of D_out and D_in, shape (outputs,) and (inputs,); D_in has unit modulus."""

    outputs: NDArray[np.complex128]
    inputs: NDArray[np.complex128]


class PowerErrors(NamedTuple):
    """Errors of the powers at the outputs, relative to the power at one input."""

    rms: float
    largest: float


def fidelity(target: ArrayLike, found: ArrayLike, input_phases: InputPhases = "fixed", restarts: int = 8) -> float:
    """Return the fidelity F of a transfer matrix, apart from output amplitudes and phases, in [0, 1].

    F = max |Tr(U†B)| / √(Tr(U†U) · Tr(B†B)),  B = D_out Û D_in

    The maximum is over diagonal matrices: D_out with any complex elements, and D_in with phases only, or D_in = 1. For
    a unitary target Tr(U†U) = N. Without D_out and D_in this is the square root of the fidelity of Clements et al.,
    Optica 3, 1460 (2016), which ignores uniform loss. With D_out, F ignores unequal losses, gains and phases at the
    outputs too, which cannot be separated from those of the detectors.

    Parameters
    ----------
    target
        U, shape (outputs, inputs), not 0.
    found
        Û, same shape.
    input_phases
        "fixed": D_in = 1. "free": D_in has unit modulus, for inputs whose phases have no reference.
    restarts
        Number of starting points for D_in if it is free, see `best_diagonals`.

    Returns
    -------
    float
        1 if and only if U = D_out Û D_in for some diagonals; 0 for Û = 0.

    Raises
    ------
    ValueError
        The shapes differ, a value is not finite, or the target is 0.
    """
    wanted, measured = _same_shape(target, found)
    outputs, inputs = best_diagonals(wanted, measured, input_phases, restarts)
    aligned = outputs[:, np.newaxis] * measured * inputs
    norm = np.linalg.norm(wanted) * np.linalg.norm(aligned)
    return float(min(np.abs(np.vdot(wanted, aligned)) / norm, 1.0)) if norm > 0 else 0.0


def best_diagonals(target: ArrayLike, found: ArrayLike, input_phases: InputPhases = "fixed", restarts: int = 8) -> Diagonals:
    """Return the diagonals of D_out and D_in that maximise the fidelity of D_out Û D_in.

    Let u_k be the rows of U and b_k those of Û D_in. By the Cauchy–Schwarz inequality, the best D_out for given D_in is
    d_k = ⟨b_k, u_k⟩ / ‖b_k‖², and F² · Tr(U†U) = Σ_k |⟨b_k, u_k⟩|² / ‖b_k‖² = ‖W p‖² with W_kj = U*_kj Û_kj / ‖b_k‖ and
    p the diagonal of D_in. The steps q = W p and p = phases of W†q alternate; none of them decreases ‖W p‖.

    Parameters
    ----------
    target, found, input_phases
        As for `fidelity`.
    restarts
        Number of starting points for p if it is free, at least 1: the phases of the first right singular vector of W,
        which are the solution if F = 1 is possible; p = 1; random phases of a fixed seed. The best result counts.
    """
    wanted, measured = _same_shape(target, found)
    lengths = np.linalg.norm(measured, axis=1)
    overlaps = wanted.conj() * measured * _inverse(lengths)[:, np.newaxis]
    inputs = np.ones(wanted.shape[1], np.complex128) if input_phases == "fixed" else _best_phases(overlaps, restarts)
    return Diagonals((overlaps @ inputs).conj() * _inverse(lengths), inputs)


def output_distributions(powers: ArrayLike) -> NDArray[np.float64]:
    """Return powers, shape (outputs, inputs), with the sum over the outputs normalised to 1 for each input.

    Raises
    ------
    ValueError
        A power is negative or not finite, or an input gives no power at any output.
    """
    found = np.asarray(powers, np.float64)
    if found.ndim != 2 or not np.isfinite(found).all() or (found < 0).any():
        raise ValueError("powers must be a matrix (outputs, inputs) of finite numbers ≥ 0: subtract dark readings and clip at 0")
    total = found.sum(axis=0)
    if (total == 0).any():
        raise ValueError(f"input {int(np.argmin(total))} gives no power at any output, so it has no distribution: leave it out")
    return found / total


def total_variation_distance(target_powers: ArrayLike, found_powers: ArrayLike) -> float:
    """Return the total variation distance (TVD) of output distributions, as a mean over the inputs, in [0, 1].

    TVD_j = ½ Σ_k |p_kj − q_kj| with p and q the shares of the power of input j at output k, in target and measurement.

    Loss that is equal for all outputs does not matter. Source: Maring et al., Nature Photonics 18, 603 (2024), who
    compare single-photon output distributions of a chip; for one photon, the distribution is that of the power.

    Parameters
    ----------
    target_powers, found_powers
        Powers in any unit, such as |U|², shape (outputs, inputs).

    Raises
    ------
    ValueError
        The shapes differ, or as `output_distributions`.

    Examples
    --------
    >>> total_variation_distance([[1, 0], [0, 1]], [[3, 0], [1, 1]])
    0.125
    """
    target, found = output_distributions(target_powers), output_distributions(found_powers)
    _check_shapes(target, found)
    return float(0.5 * np.abs(target - found).sum(axis=0).mean())


def power_errors(target_powers: ArrayLike, found_powers: ArrayLike) -> PowerErrors:
    """Return the errors of a power matrix after one common factor, which makes up for laser power and uniform loss.

    The errors are s·Q − P with P = target, Q = found and s = Σ PQ / Σ Q², which minimises their rms.

    Parameters
    ----------
    target_powers
        P, powers per power at the input, such as |U|², shape (outputs, inputs).
    found_powers
        Q, powers in any unit, same shape, not all 0.

    Raises
    ------
    ValueError
        The shapes differ, a power is not finite, or all found powers are 0.
    """
    target, found = np.asarray(target_powers, np.float64), np.asarray(found_powers, np.float64)
    _check_shapes(target, found)
    if not (np.isfinite(target).all() and np.isfinite(found).all()):
        raise ValueError("powers must be finite: replace readings that are NaN or infinite")
    if not found.any():
        raise ValueError("all found powers are 0, so they cannot be scaled to the target: check the light and the detectors")
    error = found * ((target * found).sum() / (found**2).sum()) - target
    return PowerErrors(rms=float(np.sqrt((error**2).mean())), largest=float(np.abs(error).max()))


def _best_phases(overlaps: NDArray[np.complex128], restarts: int) -> NDArray[np.complex128]:
    rng, count = np.random.default_rng(0), overlaps.shape[1]
    starts = [_phasors(np.linalg.svd(overlaps)[2][0].conj()), np.ones(count, np.complex128)]
    starts += [np.exp(2j * np.pi * rng.random(count)) for _ in range(restarts - 2)]
    ends = [_ascended(overlaps, start) for start in starts[: max(restarts, 1)]]
    return max(ends, key=lambda phases: float(np.linalg.norm(overlaps @ phases)))


def _ascended(overlaps: NDArray[np.complex128], phases: NDArray[np.complex128]) -> NDArray[np.complex128]:
    reached = np.linalg.norm(overlaps @ phases)
    for _ in range(_MOST_STEPS):
        phases = _phasors(overlaps.conj().T @ (overlaps @ phases))
        before, reached = reached, np.linalg.norm(overlaps @ phases)
        if reached - before <= _CONVERGED * reached:
            break
    return phases


def _phasors(values: NDArray[np.complex128]) -> NDArray[np.complex128]:
    return np.exp(1j * np.angle(values))


def _inverse(lengths: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return 1 / lengths, and 0 for the rows of outputs without light."""
    return np.divide(1.0, lengths, out=np.zeros_like(lengths), where=lengths > 0)


def _same_shape(target: ArrayLike, found: ArrayLike) -> tuple[NDArray[np.complex128], NDArray[np.complex128]]:
    wanted, measured = np.asarray(target, np.complex128), np.asarray(found, np.complex128)
    _check_shapes(wanted, measured)
    if not (np.isfinite(wanted).all() and np.isfinite(measured).all()):
        raise ValueError("a matrix contains NaN or infinity, but its fidelity needs finite numbers")
    if not wanted.any():
        raise ValueError("all elements of the target are 0, so there is no fidelity: give another target")
    return wanted, measured


def _check_shapes(target: NDArray, found: NDArray) -> None:
    if target.ndim != 2 or target.shape != found.shape:
        raise ValueError(
            f"the target has shape {target.shape} and the found matrix {found.shape}, but both must have the same shape "
            "(outputs, inputs)"
        )
