"""Fields that enter the mesh, as a function of the requested amplitudes, and their derivatives.

    amplitude a ──▶ √(ε² + (1 - ε²)·a²) ──▶ × gain · e^{i phase} of the port ──▶ weak couplings of neighbours ──▶ mesh

ε is `TwinParameters.input_leak`. Neighbouring input waveguides couple twice: modes (0, 1), (2, 3), … first, then
(1, 2), (3, 4), …; each mode passes the share `input_coupling`² of its power to its neighbour.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from photonloop.controller.calibration.twin_parameters import TwinParameters

Array = NDArray[np.float64]
Complex = NDArray[np.complex128]


@dataclass(frozen=True)
class InputFields:
    """Fields that enter the mesh, and what their derivatives need; shapes (settings or 1, ports, samples).

    Parameters
    ----------
    fields
        The fields.
    by_leak
        Derivative by the leak, before gains and couplings.
    single
        The fields before couplings.
    phasor
        e^{i phase} of each port times that of the requested amplitude.
    coupling, coupling_change
        Matrix of the couplings, and its derivative, shape (ports, ports).
    """

    fields: Complex
    by_leak: Array
    single: Complex
    phasor: Complex
    coupling: Complex
    coupling_change: Complex


def input_fields(own: TwinParameters, inputs: NDArray[np.inexact]) -> InputFields:
    """Return the fields for amplitudes `inputs`, shape (samples, ports) or (settings, samples, ports)."""
    inputs = np.swapaxes(inputs if inputs.ndim == 3 else inputs[np.newaxis], 1, 2)
    power, leak = np.abs(inputs).astype(np.float64) ** 2, own.input_leak
    magnitude = np.sqrt(leak**2 + (1.0 - leak**2) * power)
    by_leak = np.where(magnitude > 0, leak * (1.0 - power) / np.where(magnitude > 0, magnitude, 1.0), 1.0)
    phase_rad = own.input_phase_rad[:, np.newaxis] + (np.angle(inputs) if np.iscomplexobj(inputs) else np.zeros((1, 1, 1)))
    phasor: Complex = np.exp(np.complex128(1j) * phase_rad)
    single: Complex = own.input_gain[:, np.newaxis] * magnitude * phasor
    coupling, change = _couplings(own.input_gain.size, own.input_coupling)
    fields = coupling @ single if own.input_coupling else single
    return InputFields(fields, by_leak, single, phasor, coupling, change)


def inputs_adjoint(own: TwinParameters, at: InputFields, slopes: Complex) -> tuple[Array, Array, float, float]:
    """Return derivatives by gains, phases, leak and coupling from `slopes` by the fields (`mesh_fields`), summed."""
    by_coupling = float(np.sum(slopes.conj() * (at.coupling_change @ at.single)).real)
    single = slopes if not own.input_coupling else at.coupling.conj().T @ slopes
    product = np.sum(single.conj() * at.single, axis=(0, 2))
    by_leak = np.sum((single.conj() * at.phasor).real * at.by_leak, axis=(0, 2)) @ own.input_gain
    return product.real / own.input_gain, -product.imag, float(by_leak), by_coupling


def input_changes(own: TwinParameters, at: InputFields) -> tuple[Complex, Complex, Complex]:
    """Return the derivatives of the fields at the mesh for one setting.

    Returns
    -------
        By the logarithm of each gain, (ports, ports of the mesh, samples); i times it is the derivative by the phase.
        By the leak and by the coupling, each (ports, samples).
    """
    single = at.single[0]
    by_port = at.coupling.T[:, :, np.newaxis] * single[:, np.newaxis, :]
    by_leak = at.coupling @ (own.input_gain[:, np.newaxis] * at.phasor[0] * at.by_leak[0])
    return by_port, by_leak, at.coupling_change @ single


def input_couplings(own: TwinParameters) -> Complex:
    """Return the matrix of both couplings of neighbouring inputs, shape (ports, ports)."""
    return _couplings(own.input_gain.size, own.input_coupling)[0]


def _couplings(ports: int, coupling: float) -> tuple[Complex, Complex]:
    """Return the matrix of both couplings, and its derivative by the field that couples."""
    stays, whole, change = np.sqrt(1.0 - coupling**2), np.eye(ports, dtype=np.complex128), np.zeros((ports, ports), np.complex128)
    for first in (0, 1):
        layer, by_layer = np.eye(ports, dtype=np.complex128), np.zeros((ports, ports), np.complex128)
        for t in range(first, ports - 1, 2):
            layer[t : t + 2, t : t + 2] = [[stays, 1j * coupling], [1j * coupling, stays]]
            by_layer[t : t + 2, t : t + 2] = [[-coupling / stays, 1j], [1j, -coupling / stays]]
        whole, change = layer @ whole, by_layer @ whole + layer @ change
    return whole, change
