"""Meshes of Mach-Zehnder interferometers, as data.

One interferometer couples modes `top` and top + 1; light comes from the left and meets φ first:

    top     ──[φ]──╲  ╱──[θ]──╲  ╱──
                    BS         BS             M = BS · diag(e^{iθ}, 1) · BS · diag(e^{iφ}, 1)
    top + 1 ───────╱  ╲───────╱  ╲──          BS = 1/√2 [[1, i], [i, 1]]

θ = 0 is cross, θ = π is bar. Behind the last column every output has a phase shifter γ. A topology is a list of such
interferometers by column; one engine serves them all.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

WAVEFRONT_COLUMNS = 32
"""Columns that advance together through the ports in `schedule`."""


@dataclass(frozen=True)
class Mesh:
    """A programmable interferometer mesh.

    Parameters
    ----------
    topology
        Name of the wiring.
    ports
        Modes.
    column, top
        Where each interferometer sits and the upper of its two modes, shape (interferometers,), sorted by column, then top.
    theta, phi
        Which θ and which φ it uses, indices into the arrays given to `transfer_matrix`.
    gammas
        Phase shifters of the output screen: `ports`, or 0 where there is none.
    """

    topology: str
    ports: int
    column: NDArray[np.int64]
    top: NDArray[np.int64]
    theta: NDArray[np.int64]
    phi: NDArray[np.int64]
    gammas: int

    @property
    def interferometers(self) -> int:
        """Interferometers of the mesh."""
        return self.top.size

    @property
    def mean_passes(self) -> float:
        """Interferometers that a path from input to output meets, averaged over all."""
        return 2.0 * self.interferometers / self.ports


def clements(n: int) -> Mesh:
    """Return the rectangular mesh on `n` ≥ 2 modes: n columns, n(n-1)/2 interferometers, every path of like length.

    Source: Clements et al., Optica 3, 1460 (2016).

    Raises
    ------
    ValueError
        For fewer than two modes.
    """
    _check_modes(n)
    return _mesh("clements", n, [(c, t) for c in range(n) for t in range(c % 2, n - 1, 2)])


def reck(n: int) -> Mesh:
    """Return the triangular mesh on `n` ≥ 2 modes: 2n - 3 columns, n(n-1)/2 interferometers, apex at mode 0.

    Source: Reck et al., Phys. Rev. Lett. 73, 58 (1994).

    Raises
    ------
    ValueError
        For fewer than two modes.
    """
    _check_modes(n)
    columns = range(2 * n - 3)
    depth = [min(c, 2 * n - 4 - c) for c in columns]
    return _mesh("reck", n, [(c, t) for c in columns for t in range(n - 2 - depth[c], n - 1, 2)])


TOPOLOGIES: dict[str, Callable[[int], Mesh]] = {"clements": clements, "reck": reck}
"""Every topology by name: modes → mesh."""


def schedule(mesh: Mesh, columns: int = WAVEFRONT_COLUMNS) -> NDArray[np.int64]:
    """Return an order of the interferometers that keeps light in registers and in the first-level cache, (interferometers,).

    Groups of `columns` columns advance together over the ports as a skewed wavefront, sorted by top + column, then by column:

        top 0    ·   ·   c      a, b, c are a chain: each shares a mode with the one before it, which stays in registers;
        top 1    ·   b   ·      d, e, f are the next one. While a chain passes, one mode a column is in use.
        top 2    a   ·   f
        top 3    ·   e   ·
        top 4    d   ·   …
        column   0   1   2

    Two interferometers that share a mode are at most one mode apart, so the earlier column always comes first.
    """
    return np.lexsort((mesh.column, mesh.top + mesh.column, mesh.column // columns))


def keeps_causality(mesh: Mesh, order: NDArray[np.int64]) -> bool:
    """Return whether `order` names every interferometer once and meets those of each mode by rising column."""
    if not np.array_equal(np.sort(order), np.arange(mesh.interferometers)):
        return False
    last = np.full(mesh.ports, -1)
    for k in order:
        top, column = mesh.top[k], mesh.column[k]
        if max(last[top], last[top + 1]) >= column:
            return False
        last[top] = last[top + 1] = column
    return True


def couplers(mesh: Mesh, coupler_error: ArrayLike | None = None, loss_db: ArrayLike | None = None) -> NDArray[np.float64]:
    """Return cos₂cos₁, sin₂sin₁, cos₂sin₁ and sin₂cos₁ of each interferometer's couplers 1 and 2, shape (interferometers, 4).

    The couplers' angles are π/4 + coupler_error; everything is multiplied by the field that survives `loss_db`.
    """
    error = np.broadcast_to(0.0 if coupler_error is None else np.asarray(coupler_error), (mesh.interferometers, 2))
    loss = np.broadcast_to(0.0 if loss_db is None else np.asarray(loss_db), (mesh.interferometers,))
    first, second = np.pi / 4 + error[:, 0], np.pi / 4 + error[:, 1]
    field = 10.0 ** (-loss / 20.0)
    products = (
        np.cos(second) * np.cos(first),
        np.sin(second) * np.sin(first),
        np.cos(second) * np.sin(first),
        np.sin(second) * np.cos(first),
    )
    return np.stack(products, axis=1) * field[:, np.newaxis]


def transfer_matrix(
    mesh: Mesh,
    theta: ArrayLike,
    phi: ArrayLike,
    gamma: ArrayLike,
    coupler_error: ArrayLike | None = None,
    loss_db: ArrayLike | None = None,
) -> NDArray[np.complex128]:
    """Return the matrix that takes input fields to output fields, complex128 (ports, ports), in double precision.

    Parameters
    ----------
    mesh
        Wiring.
    theta, phi, gamma
        Phases [rad]: indexed by `mesh.theta`, by `mesh.phi`, and one an output (empty for none).
    coupler_error
        Angle errors [rad] of the first and the second coupler, shape (interferometers, 2): angle = π/4 + error,
        B = [[cos, i sin], [i sin, cos]].
    loss_db
        Insertion loss of each interferometer [dB], on both arms alike; a number or shape (interferometers,).
    """
    cc, ss, cs, sc = couplers(mesh, coupler_error, loss_db).T
    internal = np.exp(1j * np.asarray(theta, np.float64))[mesh.theta]
    external = np.exp(1j * np.asarray(phi, np.float64))[mesh.phi]
    m00, m01 = (cc * internal - ss) * external, 1j * (cs * internal + sc)
    m10, m11 = 1j * (sc * internal + cs) * external, cc - ss * internal
    matrix = np.eye(mesh.ports, dtype=np.complex128)
    for column in np.unique(mesh.column):
        here = mesh.column == column
        top = mesh.top[here]
        upper, lower = matrix[top], matrix[top + 1]
        matrix[top] = m00[here, np.newaxis] * upper + m01[here, np.newaxis] * lower
        matrix[top + 1] = m10[here, np.newaxis] * upper + m11[here, np.newaxis] * lower
    screen = np.asarray(gamma, np.float64)
    return matrix if screen.size == 0 else np.exp(1j * screen)[:, np.newaxis] * matrix


def _mesh(topology: str, n: int, places: list[tuple[int, int]]) -> Mesh:
    column, top = np.array(places, np.int64).T.copy()
    index = np.arange(top.size)
    return Mesh(topology, n, column, top, theta=index, phi=index, gammas=n)


def _check_modes(n: int) -> None:
    if n < 2:
        raise ValueError(f"a mesh of {n} modes cannot interfere: it needs at least 2")
