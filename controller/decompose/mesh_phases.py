"""Phases of the interferometers and outputs of a mesh.

One interferometer couples modes `top` and top + 1. Light comes from the left and passes φ first:

    top     ──[φ]──╲  ╱──[θ]──╲  ╱──
                    BS         BS             M(θ, φ) = BS · diag(e^{iθ}, 1) · BS · diag(e^{iφ}, 1)
    top + 1 ───────╱  ╲───────╱  ╲──          BS = 1/√2 [[1, i], [i, 1]]

    M(θ, φ) = i e^{iθ/2} [[e^{iφ} sin θ/2, cos θ/2], [e^{iφ} cos θ/2, −sin θ/2]]

θ = 0 is the cross state, θ = π the bar state. Behind the last column every output has a phase shifter γ.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

_ROUNDING_RAD = 1e-13
"""A phase is taken as 0 if it is at most this much less than 2π."""


@dataclass(frozen=True)
class MeshPhases:
    """Phases of a mesh [rad], each in [0, 2π).

    Parameters
    ----------
    theta, phi
        Phases of the interferometers, shape (interferometers,), ordered by column, then top mode. For topology "svd":
        V†, then the attenuators, then U.
    gamma
        Output phases, shape (ports,).
    """

    theta: NDArray[np.float64]
    phi: NDArray[np.float64]
    gamma: NDArray[np.float64]


class Interferometer(NamedTuple):
    """An interferometer on modes `top` and top + 1 with phases θ and φ [rad]."""

    top: int
    theta: float
    phi: float


def wrapped(phases: ArrayLike) -> NDArray[np.float64]:
    """Return phases [rad] modulo 2π, in [0, 2π), with rounding errors just below 2π set to 0."""
    found = np.mod(np.asarray(phases, np.float64), 2 * np.pi)
    found[found > 2 * np.pi - _ROUNDING_RAD] = 0.0
    return found


def phases_with_output_screen(
    first: Sequence[Interferometer], diagonal: NDArray[np.complex128], last: Sequence[Interferometer]
) -> MeshPhases:
    """Return the phases of a mesh for M₁† ⋯ M_l† · D · M_k ⋯ M₁, with D moved through M₁† … M_l† to the outputs.

    A diagonal of phases passes an interferometer by M(θ, φ) · diag(e^{ia}, e^{ib}) = e^{ib} · M(θ, φ + a − b), and
    M(θ, φ)† = −e^{−iθ} · diag(e^{−iφ}, 1) · M(θ, 0). At θ = 0 and at θ = π, φ is redundant: it is set to 0, which needs
    no heater power, and the outputs make up for it.

    Parameters
    ----------
    first
        The factors M on the right of D, in the order in which light meets them.
    diagonal
        The diagonal of D, shape (ports,), unit modulus.
    last
        The factors M of which the adjoints are on the left of D, in the order in which light meets them.
    """
    screen = np.zeros(len(diagonal))
    placed = [_placed(each, screen) for each in first]
    screen += np.angle(diagonal)
    for top, theta, phi in last:
        placed.append(_placed(Interferometer(top, theta, 0.0), screen))
        screen[top : top + 2] += np.pi - theta
        screen[top] -= phi
    tops, theta, phi = (np.array(values) for values in zip(*placed, strict=True))
    order = np.lexsort((tops, earliest_columns([(top, top + 2) for top in tops])))
    return MeshPhases(wrapped(theta[order]), wrapped(phi[order]), wrapped(screen))


def earliest_columns(modes: Iterable[tuple[int, int]]) -> NDArray[np.int64]:
    """Return the earliest column of each element of a circuit.

    Two circuits of the same elements are the same if and only if their elements have the same earliest columns, because
    elements that share no mode commute (the normal form of Cartier and Foata).

    Parameters
    ----------
    modes
        Modes [start, stop) of each element, in the order in which light meets them.
    """
    free: dict[int, int] = {}
    columns = []
    for start, stop in modes:
        column = max(free.get(mode, 0) for mode in range(start, stop))
        free.update(dict.fromkeys(range(start, stop), column + 1))
        columns.append(column)
    return np.array(columns, np.int64)


def _placed(element: Interferometer, screen: NDArray[np.float64]) -> Interferometer:
    """Return `element` with the phases of `screen` in front of it taken up, and replace them with those behind it."""
    top, theta, phi = element
    behind = screen[top + 1]
    phi += screen[top] - behind
    screen[top] = behind
    if theta in (0.0, np.pi):
        screen[top if theta else top + 1] += phi
        phi = 0.0
    return Interferometer(top, theta, phi)
