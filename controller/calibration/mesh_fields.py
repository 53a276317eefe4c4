"""Fields in a mesh with imperfect couplers and losses, and derivatives of a loss by its parameters.

The convention is that of the device contract: M = B₂ · diag(e^{iθ}, 1) · B₁ · diag(e^{iφ}, 1) with couplers
B = [[cos, i sin], [i sin, cos]] at angles π/4 + error. A slope of a loss L by a complex quantity z is
∂L/∂Re z + i ∂L/∂Im z, so dL = Re Σ conj(slope) · dz.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from photonloop.controller.calibration import twin_kernels
from photonloop.controller.calibration.twin_layout import TwinLayout
from photonloop.controller.calibration.twin_parameters import TwinParameters

Array = NDArray[np.float64]
Complex = NDArray[np.complex128]

LN_PER_DB = -np.log(10.0) / 20.0
"""Derivative of the logarithm of a field by the loss in dB."""


@dataclass(frozen=True)
class MeshElements:
    """The 2 × 2 matrices of all interferometers at some settings.

    Parameters
    ----------
    through, around
        Contributions of the arm with θ and of the other arm, without phases, shape (interferometers, 2, 2).
    internal, external
        e^{iθ} and e^{iφ}, times the field transmission of a shifter if it is in the upper arm, shape (settings,
        interferometers).
    lower
        Field transmission of a shifter in the lower arm, or 1, shape (interferometers,).
    matrices
        M, shape (settings, interferometers, 2, 2).
    """

    through: Complex
    around: Complex
    internal: Complex
    external: Complex
    lower: Array
    matrices: Complex

    @property
    def rows(self) -> Array:
        """`matrices` in the layout of `twin_kernels`, shape (settings, interferometers, 8)."""
        return self.matrices.view(np.float64).reshape(*self.matrices.shape[:2], 8)


@dataclass(frozen=True)
class ElementSlopes:
    """Derivatives by θ, φ, both coupler errors, loss and shifter loss, in this order, shape (…, interferometers, 6)."""

    values: Array


@dataclass(frozen=True)
class MeshFields:
    """Fields behind a mesh, complex (settings, ports, columns), and those that enter its interferometers (`kept`)."""

    out: Complex
    kept: Array


@dataclass(frozen=True)
class OutputDerivatives:
    """Fields behind a mesh at one setting, and their derivatives.

    Parameters
    ----------
    fields
        The fields, shape (ports, samples).
    matrix
        Transfer matrix, shape (ports, ports).
    by_elements
        Derivatives by the parameters of each interferometer, in the order of `ElementSlopes`, each of shape
        (interferometers, ports, samples).
    """

    fields: Complex
    matrix: Complex
    by_elements: list[Complex]


def mesh_elements(layout: TwinLayout, own: TwinParameters, effective: Array) -> MeshElements:
    """Return the matrices at effective phases [rad], shape (settings, channels)."""
    first, second = np.pi / 4 + own.coupler_error_rad.T
    field = np.exp(LN_PER_DB * own.loss_db)
    cc, ss = field * np.cos(second) * np.cos(first), field * np.sin(second) * np.sin(first)
    cs, sc = field * np.cos(second) * np.sin(first), field * np.sin(second) * np.cos(first)
    through, around = _two_by_two(cc, 1j * cs, 1j * sc, -ss), _two_by_two(-ss, 1j * sc, 1j * cs, cc)
    survives = np.exp(LN_PER_DB * own.shifter_db)
    upper = np.where(layout.lower, 1.0, survives)
    internal = upper * np.exp(1j * effective[:, layout.theta])
    external = upper * np.exp(1j * effective[:, layout.phi])
    lower = np.where(layout.lower, survives, 1.0)
    return MeshElements(through, around, internal, external, lower, _joined(through, around, internal, external, lower))


def _joined(through: Complex, around: Complex, internal: Complex, external: Complex, lower: Array) -> Complex:
    """Return (through · internal + around · lower) · diag(external, lower), shape (settings, interferometers, 2, 2)."""
    matrices = through * internal[..., np.newaxis, np.newaxis] + around * lower[:, np.newaxis, np.newaxis]
    matrices[..., 0] *= external[..., np.newaxis]
    matrices[..., 1] *= lower[:, np.newaxis]
    return matrices


def propagated(layout: TwinLayout, elements: MeshElements, fields: Complex, *, keep: bool, stop: int | None = None) -> MeshFields:
    """Return the fields behind the last column for `fields` that enter the first, (settings or 1, ports, columns).

    If `stop` is given, they are the fields in front of that column of the mesh, and nothing may be kept.
    """
    settings, (_, ports, columns) = elements.matrices.shape[0], fields.shape
    split = np.empty((settings, ports, 2, columns))
    split[:, :, 0], split[:, :, 1] = fields.real, fields.imag
    kept = np.empty((settings if keep else 0, layout.interferometers, 2, 2, columns))
    top = layout.top if stop is None else layout.top[layout.column < stop]
    twin_kernels.propagate(elements.rows, top, layout.alone, split, kept)
    return MeshFields(split[:, :, 0] + 1j * split[:, :, 1], kept)


def propagated_back(layout: TwinLayout, elements: MeshElements, kept: Array, slopes: Complex) -> tuple[Complex, ElementSlopes]:
    """Return the slopes by the entering fields and by the elements, from `slopes` by the fields behind the mesh."""
    settings, ports, columns = slopes.shape
    split = np.empty((settings, ports, 2, columns))
    split[:, :, 0], split[:, :, 1] = slopes.real, slopes.imag
    by_matrix = np.empty((settings, layout.interferometers, 8))
    nothing = np.empty((0, layout.interferometers, 2, 2, columns))
    twin_kernels.propagate_back(elements.rows, layout.top, layout.alone, split, kept, by_matrix, nothing)
    by_matrix[:, layout.alone, 2:] = 0.0
    conjugate = by_matrix.view(np.complex128).reshape(settings, -1, 2, 2).conj()
    found = np.stack([(conjugate * change).sum(axis=(-2, -1)).real for change in element_changes(layout, elements)], axis=-1)
    return split[:, :, 0] + 1j * split[:, :, 1], ElementSlopes(found)


def element_changes(layout: TwinLayout, elements: MeshElements) -> list[Complex]:
    """Return the derivatives of `matrices` by θ, φ, both coupler errors, loss and shifter loss.

    They are in the order of `ElementSlopes`, each of shape (settings, interferometers, 2, 2).
    """
    internal, external, lower = elements.internal, elements.external, elements.lower
    none = np.zeros_like(elements.through)
    with_theta = _joined(elements.through, none, internal, external, lower)
    with_phi = elements.matrices.copy()
    with_phi[..., 1] = 0.0
    # A coupler's derivative is i times the same coupler with its two outputs, or inputs, exchanged.
    by_first, by_second = 1j * elements.through[..., ::-1], 1j * elements.through[:, ::-1]
    in_upper = ~layout.lower[:, np.newaxis, np.newaxis]
    by_shifters = with_theta + with_phi
    return [
        1j * with_theta,
        1j * with_phi,
        _joined(by_first, by_second, internal, external, lower),
        _joined(by_second, by_first, internal, external, lower),
        LN_PER_DB * elements.matrices,
        LN_PER_DB * np.where(in_upper, by_shifters, 2 * elements.matrices - by_shifters),
    ]


def output_derivatives(layout: TwinLayout, elements: MeshElements, fields: Complex) -> OutputDerivatives:
    """Return the fields behind the mesh for one setting, and their derivatives by the parameters of interferometers.

    `fields` enter the mesh, shape (ports, samples).
    """
    through = propagated(layout, elements, fields[np.newaxis], keep=True)
    entering = through.kept[0, :, :, 0] + 1j * through.kept[0, :, :, 1]
    split = np.zeros((1, layout.ports, 2, layout.ports))
    split[0, :, 0] = np.eye(layout.ports)
    back = np.empty((1, layout.interferometers, 2, 2, layout.ports))
    nothing = np.empty((0, layout.interferometers, 2, 2, layout.ports))
    twin_kernels.propagate_back(elements.rows, layout.top, layout.alone, split, nothing, np.empty((1, 0, 8)), back)
    # Conjugate transposes propagate backward, so the conjugate is the way from an interferometer to each output.
    ahead = (back[0, :, :, 0] - 1j * back[0, :, :, 1]).transpose(0, 2, 1)
    changes = element_changes(layout, elements)
    for change in changes:
        change[:, layout.alone, :, 1] = change[:, layout.alone, 1, :] = 0.0
    return OutputDerivatives(
        fields=through.out[0],
        matrix=(split[0, :, 0] - 1j * split[0, :, 1]).T,
        by_elements=[ahead @ change[0] @ entering for change in changes],
    )


def _two_by_two(a: NDArray, b: NDArray, c: NDArray, d: NDArray) -> Complex:
    return np.stack((a, b, c, d), axis=-1).reshape(-1, 2, 2).astype(np.complex128)
