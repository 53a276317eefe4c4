"""Distance of a twin's transfer matrix from a target, and its gradient by its effective phases.

The matrix is that from requested amplitudes to the fields behind the mesh: couplings and phases of the inputs are
included if they are known. What power detectors cannot see is left out: phases of the outputs, and global loss. On a
mesh for unitary matrices the loss of each output is left out too. Phases of inputs are left out if they are unknown.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from photonloop.controller.calibration.calibrated_device import StageCalibration
from photonloop.controller.calibration.input_fields import input_couplings
from photonloop.controller.calibration.mesh_fields import mesh_elements, propagated, propagated_back
from photonloop.controller.calibration.twin import Twin, transfer_matrices
from photonloop.controller.decompose.fidelity import InputPhases
from photonloop.controller.learning.variables import Phases

Array = NDArray[np.float64]
Complex = NDArray[np.complex128]


@dataclass(frozen=True)
class MatrixMerit:
    """Infidelity 1 - F² of a mesh with a target.

    Parameters
    ----------
    twin
        The model of the stage.
    target
        Target matrix, shape (ports, ports).
    entering
        Matrix from requested amplitudes to the fields that enter the mesh (`entering_matrix`), (ports, ports).
    scaled_outputs
        True if the loss of each output is left out. For topology "svd" it is part of the target.
    """

    twin: Twin
    target: Complex
    entering: Complex
    scaled_outputs: bool

    def value_and_slopes(self, effective: Array, input_phase_rad: Array) -> tuple[float, Array, Array]:
        """Return 1 - F² and its derivatives.

        Parameters
        ----------
        effective
            Effective phases of the channels [rad], shape (channels,).
        input_phase_rad
            Phases of the inputs that the target's columns are compared with [rad], shape (ports,).

        Returns
        -------
            1 - F², the derivatives by `effective`, where those of γ are 0, and by `input_phase_rad`.
        """
        layout, own = self.twin.layout, self.twin.parameters
        elements = mesh_elements(layout, own, effective[np.newaxis])
        turned = self.entering * np.exp(1j * input_phase_rad)
        at = propagated(layout, elements, turned[np.newaxis], keep=True)
        value, by_matrix = _infidelity(self.target, at.out[0], self.scaled_outputs)
        by_entering, by_elements = propagated_back(layout, elements, at.kept, by_matrix[np.newaxis])
        by_phases = np.zeros(layout.channels)
        by_phases[layout.theta], by_phases[layout.phi] = by_elements.values[0, :, 0], by_elements.values[0, :, 1]
        return value, by_phases, -(by_entering[0].conj() * turned).imag.sum(axis=0)


def matrix_merit(found: StageCalibration, target: Complex) -> MatrixMerit:
    """Return the infidelity of a calibrated stage with `target`."""
    return MatrixMerit(found.twin, target, entering_matrix(found, found.twin), found.layout.alone.sum() == 0)


def entering_matrix(found: StageCalibration, twin: Twin) -> Complex:
    """Return the matrix from requested amplitudes to the fields that enter the mesh of `twin`, (ports, ports).

    It has the couplings of neighbouring inputs, and the phases of the inputs if they are known. Relative gains of
    inputs are left out: matrix elements are relative to the power of each input.
    """
    own = twin.parameters
    couplings = input_couplings(own)
    return couplings * np.exp(1j * own.input_phase_rad) if found.steady_inputs else couplings


def device_matrix(found: StageCalibration, twin: Twin, nominal: Phases) -> Complex:
    """Return the matrix from requested amplitudes to output fields at nominal heater phases (channels,).

    `twin` is the fitted one, or another draw from its posterior.
    """
    return transfer_matrices(twin, nominal[np.newaxis])[0] @ entering_matrix(found, twin)


def input_phases(found: StageCalibration) -> InputPhases:
    """Return whether a fidelity is for known phases of the inputs ("fixed"), or for the best ones ("free")."""
    return "fixed" if found.steady_inputs else "free"


def _infidelity(target: Complex, matrix: Complex, scaled_outputs: bool) -> tuple[float, Complex]:
    """Return 1 - F² and its slope by the matrix, ∂L/∂Re + i ∂L/∂Im.

    With c_k = ⟨u_k, b_k⟩ of the rows of target and matrix, F² is Σ_k |c_k|²/‖b_k‖² / ‖U‖² if every output is scaled,
    and (Σ_k |c_k|)² / (‖B‖² ‖U‖²) otherwise.
    """
    overlap = (target.conj() * matrix).sum(axis=1, keepdims=True)
    norm = (np.abs(target) ** 2).sum()
    power = (np.abs(matrix) ** 2).sum(axis=1, keepdims=True)
    if scaled_outputs:
        share = np.abs(overlap) ** 2 / power
        return 1 - float(share.sum() / norm), -2 * (overlap * target - share * matrix) / (power * norm)
    size, whole = np.abs(overlap), power.sum()
    phasor = np.where(size > 0, overlap / np.where(size > 0, size, 1.0), 0.0)
    total = size.sum()
    share = total**2 / whole
    return 1 - float(share / norm), -2 * (total * phasor * target - share * matrix) / (whole * norm)
