"""Meshes of Mach-Zehnder interferometers, as data.

One interferometer couples modes `top` and top + 1. Light comes from the left and passes φ first:

    top     ──[φ]──╲  ╱──[θ]──╲  ╱──
                    BS         BS             M = BS · diag(e^{iθ}, 1) · BS · diag(e^{iφ}, 1)
    top + 1 ───────╱  ╲───────╱  ╲──          BS = 1/√2 [[1, i], [i, 1]]

θ = 0 is the cross state, θ = π the bar state. Behind the last column every output has a phase shifter γ. A topology is
a list of such interferometers, sorted by column, so the same code computes every topology.

An attenuator is an interferometer on a single mode: no light enters its lower input, and the light at its lower output
is lost. It multiplies the mode by M₀₀ of the same 2 × 2 matrix, which is -e^{iφ} at θ = π and 0 at θ = 0.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

WAVEFRONT_COLUMNS = 32
"""Number of columns in one group of `schedule`."""


@dataclass(frozen=True)
class Mesh:
    """A programmable interferometer mesh.

    Parameters
    ----------
    topology
        Name of the topology.
    ports
        Number of modes.
    column, top
        Column of each interferometer, and the upper of its two modes, shape (interferometers,), sorted by column, then
        top. For an attenuator, `top` is its only mode.
    theta, phi
        Indices of its θ and its φ in the arrays given to `transfer_matrix`.
    attenuates
        True for attenuators. Their θ and φ have the highest indices.
    gammas
        Number of phase shifters of the output screen: `ports`, or 0 if there is no screen.
    """

    topology: str
    ports: int
    column: NDArray[np.int64]
    top: NDArray[np.int64]
    theta: NDArray[np.int64]
    phi: NDArray[np.int64]
    attenuates: NDArray[np.bool_]
    gammas: int

    @property
    def interferometers(self) -> int:
        """Number of interferometers of the mesh, including attenuators."""
        return self.top.size

    @property
    def channels(self) -> int:
        """Number of phase shifters of the mesh."""
        return 2 * self.interferometers + self.gammas

    @property
    def outputs(self) -> int:
        """Number of detectors behind the mesh."""
        return self.ports

    @property
    def groups(self) -> dict[str, tuple[int, int]]:
        """Kinds of phase shifters as [start, stop) of the channels: θ, φ, γ, and separate kinds for attenuators."""
        count, alone = self.interferometers, int(self.attenuates.sum())
        parts = {"theta": count - alone, "attenuator_theta": alone, "phi": count - alone, "attenuator_phi": alone}
        found, start = {}, 0
        for name, size in {**parts, "gamma": self.gammas}.items():
            if size:
                found[name] = (start, start + size)
            start += size
        return found

    @property
    def mean_passes(self) -> float:
        """Mean number of interferometers on a path from input to output."""
        return float(np.where(self.attenuates, 1, 2).sum()) / self.ports

    @property
    def mean_transmitted(self) -> float:
        """Mean share of the power that lossless elements transmit at random θ: 1, or 1/2 with attenuators."""
        return 0.5 ** (float(self.attenuates.sum()) / self.ports)


def clements(n: int) -> Mesh:
    """Return the rectangular mesh on `n` ≥ 2 modes: n columns, n(n-1)/2 interferometers, paths of equal length.

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


def svd(n: int) -> Mesh:
    """Return the mesh on `n` ≥ 2 modes that implements any matrix of norm ≤ 1, M = U·Σ·V†, apart from its losses.

        ──┤      ├──[ Σ₀ ]──┤     ├──[ γ₀ ]──        V†, U: rectangular meshes. V† has no output screen;
        ──┤  V†  ├──[ Σ₁ ]──┤  U  ├──[ γ₁ ]──        its output phases are the φ of the attenuators
        ──┤      ├──[ Σ₂ ]──┤     ├──[ γ₂ ]──

    n(n-1) interferometers and n attenuators. Source: Miller, Photonics Research 1, 1 (2013); Shen et al., Nature
    Photonics 11, 441 (2017).

    Raises
    ------
    ValueError
        For fewer than two modes.
    """
    half = clements(n)
    depth, count = int(half.column.max()) + 1, half.interferometers
    first = np.arange(count)
    index = np.concatenate((first, 2 * count + np.arange(n), count + first))
    return Mesh(
        topology="svd",
        ports=n,
        column=np.concatenate((half.column, np.full(n, depth), half.column + depth + 1)),
        top=np.concatenate((half.top, np.arange(n), half.top)),
        theta=index,
        phi=index.copy(),
        attenuates=np.repeat([False, True, False], (count, n, count)),
        gammas=n,
    )


TOPOLOGIES: dict[str, Callable[[int], Mesh]] = {"clements": clements, "reck": reck, "svd": svd}
"""Functions from the number of modes to a mesh, by the name of the topology."""


def schedule(mesh: Mesh, columns: int = WAVEFRONT_COLUMNS) -> NDArray[np.int64]:
    """Return an order of the interferometers, (interferometers,), that keeps fields in registers and first-level cache.

    Within a group of `columns` columns, interferometers are sorted along anti-diagonals, by top + column, then by
    column:

        top 0    ·   ·   c      a, b, c are a chain: each shares a mode with the one before it, and that mode stays in
        top 1    ·   b   ·      registers; d, e, f are the next chain. A chain uses one mode per column.
        top 2    a   ·   f
        top 3    ·   e   ·
        top 4    d   ·   …
        column   0   1   2

    The top modes of two interferometers that share a mode differ by at most 1, so the one in the earlier column comes
    first.
    """
    return np.lexsort((mesh.column, mesh.top + mesh.column, mesh.column // columns))


def keeps_causality(mesh: Mesh, order: NDArray[np.int64]) -> bool:
    """Return whether `order` has every interferometer once, and those of each mode sorted by column."""
    if not np.array_equal(np.sort(order), np.arange(mesh.interferometers)):
        return False
    last = np.full(mesh.ports, -1)
    for k in order:
        modes = slice(mesh.top[k], mesh.top[k] + (1 if mesh.attenuates[k] else 2))
        if last[modes].max() >= mesh.column[k]:
            return False
        last[modes] = mesh.column[k]
    return True


def couplers(mesh: Mesh, coupler_error: ArrayLike | None = None, loss_db: ArrayLike | None = None) -> NDArray[np.float64]:
    """Return cos₂cos₁, sin₂sin₁, cos₂sin₁, sin₂cos₁ of each interferometer's couplers 1 and 2, (interferometers, 4).

    The angles of the couplers are π/4 + coupler_error. All products are multiplied by the field transmission, from
    `loss_db`.
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


class Elements(NamedTuple):
    """The 2 × 2 matrices of all interferometers, M = (through · e^{iθ} + around) · diag(e^{iφ}, 1).

    Parameters
    ----------
    through, around
        Contributions of the arm with θ and of the other arm, including couplers and losses, shape (interferometers, 2,
        2). For an attenuator, only element [0, 0] is used.
    internal, external
        e^{iθ} and e^{iφ} of each, shape (interferometers,), times the field transmission of a shifter.
    screen
        e^{iγ} likewise, shape (ports,); empty if there is no output screen.
    """

    through: NDArray[np.complex128]
    around: NDArray[np.complex128]
    internal: NDArray[np.complex128]
    external: NDArray[np.complex128]
    screen: NDArray[np.complex128]

    @property
    def matrices(self) -> NDArray[np.complex128]:
        """The matrices M, shape (interferometers, 2, 2)."""
        return self._with_external(self.through * self.internal[:, np.newaxis, np.newaxis] + self.around)

    @property
    def inverses(self) -> NDArray[np.complex128]:
        """M⁻¹, shape (interferometers, 2, 2)."""
        (a, b), (c, d) = self.matrices.transpose(1, 2, 0)
        return _two_by_two(d, -b, -c, a) / (a * d - b * c)[:, np.newaxis, np.newaxis]

    @property
    def theta_slopes(self) -> NDArray[np.complex128]:
        """∂M/∂θ, shape (interferometers, 2, 2)."""
        return self._with_external(1j * self.through * self.internal[:, np.newaxis, np.newaxis])

    def _with_external(self, matrices: NDArray[np.complex128]) -> NDArray[np.complex128]:
        matrices[:, :, 0] *= self.external[:, np.newaxis]
        return matrices


def elements(
    mesh: Mesh,
    theta: ArrayLike,
    phi: ArrayLike,
    gamma: ArrayLike,
    coupler_error: ArrayLike | None = None,
    loss_db: ArrayLike | None = None,
    shifter_db: float = 0.0,
) -> Elements:
    """Return the matrices of a mesh's elements, in its order; parameters and errors as for `transfer_matrix`."""
    for name, phases in (("theta", theta), ("phi", phi)):
        if np.shape(phases) != (mesh.interferometers,):
            raise ValueError(f"{name} has shape {np.shape(phases)}, but the mesh needs ({mesh.interferometers},)")
    if np.shape(gamma) not in {(0,), (mesh.ports,)}:
        raise ValueError(f"gamma has shape {np.shape(gamma)}, but the mesh needs ({mesh.ports},), or (0,) for no output screen")
    cc, ss, cs, sc = couplers(mesh, coupler_error, loss_db).T
    survives = 10.0 ** (-shifter_db / 20.0)
    internal, external, screen = (survives * np.exp(1j * np.asarray(phases, np.float64)) for phases in (theta, phi, gamma))
    return Elements(
        through=_two_by_two(cc, 1j * cs, 1j * sc, -ss),
        around=_two_by_two(-ss, 1j * sc, 1j * cs, cc),
        internal=internal[mesh.theta],
        external=external[mesh.phi],
        screen=screen,
    )


class Column(NamedTuple):
    """Indices of the interferometers on two modes (`pairs`) and of the attenuators (`alone`) in one column."""

    pairs: NDArray[np.int64]
    alone: NDArray[np.int64]


def columns(mesh: Mesh) -> list[Column]:
    """Return the columns of a mesh, from inputs to outputs."""
    by_column = np.split(np.arange(mesh.interferometers), np.flatnonzero(np.diff(mesh.column)) + 1)
    return [Column(here[~mesh.attenuates[here]], here[mesh.attenuates[here]]) for here in by_column]


def pass_column(mesh: Mesh, matrices: NDArray[np.complex128], column: Column, fields: NDArray[np.complex128]) -> None:
    """Propagate `fields`, shape (ports, samples), through one column in place; `matrices` as `Elements.matrices`."""
    top = mesh.top[column.pairs]
    upper, lower = fields[top], fields[top + 1]
    (m00, m01), (m10, m11) = matrices[column.pairs].transpose(1, 2, 0)[..., np.newaxis]
    fields[top] = m00 * upper + m01 * lower
    fields[top + 1] = m10 * upper + m11 * lower
    fields[mesh.top[column.alone]] *= matrices[column.alone, 0, 0, np.newaxis]


def transfer_matrix(
    mesh: Mesh,
    theta: ArrayLike,
    phi: ArrayLike,
    gamma: ArrayLike,
    coupler_error: ArrayLike | None = None,
    loss_db: ArrayLike | None = None,
    *,
    shifter_db: float = 0.0,
) -> NDArray[np.complex128]:
    """Return the transfer matrix from input fields to output fields, complex128 (ports, ports).

    Parameters
    ----------
    mesh
        The mesh.
    theta, phi, gamma
        Phases [rad]: θ indexed by `mesh.theta`, φ by `mesh.phi`, and γ one per output (empty for no output screen).
    coupler_error
        Angle errors [rad] of the first and the second coupler, shape (interferometers, 2): angle = π/4 + error,
        B = [[cos, i sin], [i sin, cos]].
    loss_db
        Insertion loss of each interferometer [dB], equal in both arms; a number or shape (interferometers,).
    shifter_db
        Loss of every phase shifter [dB], in its own arm only.

    Raises
    ------
    ValueError
        If the number of phases is not the number of phase shifters of the mesh.
    """
    parts = elements(mesh, theta, phi, gamma, coupler_error, loss_db, shifter_db)
    return propagated(mesh, parts, np.eye(mesh.ports, dtype=np.complex128))


def propagated(mesh: Mesh, parts: Elements, fields: NDArray[np.complex128]) -> NDArray[np.complex128]:
    """Return the output fields of a mesh for input `fields`, both of shape (ports, samples)."""
    fields, matrices = fields.astype(np.complex128), parts.matrices
    for column in columns(mesh):
        pass_column(mesh, matrices, column, fields)
    return fields * parts.screen[:, np.newaxis] if parts.screen.size else fields


def _two_by_two(a: NDArray, b: NDArray, c: NDArray, d: NDArray) -> NDArray[np.complex128]:
    return np.stack((a, b, c, d), axis=1).reshape(-1, 2, 2).astype(np.complex128)


def _mesh(topology: str, n: int, places: list[tuple[int, int]]) -> Mesh:
    column, top = np.array(places, np.int64).T.copy()
    index = np.arange(top.size)
    return Mesh(topology, n, column, top, theta=index, phi=index, attenuates=np.zeros(top.size, np.bool_), gammas=n)


def _check_modes(n: int) -> None:
    if n < 2:
        raise ValueError(f"a mesh has {n} modes, but it needs at least 2")
