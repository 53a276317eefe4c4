"""The twin: a differentiable model of one stage, written from the device description alone.

    nominal heater phases ──▶ `heater_phases` ──▶ ┐
                                                  ├─▶ `mesh_fields` ──▶ |E|² · gain ─▶ compression ──▶ memory ──▶ + dark
    inputs ──────────────────▶ `input_fields` ──▶ ┘

`forward_pass` computes readings, `adjoint_pass` the gradient of any loss on them by heater phases and by all parameters
at once. `twin_jacobian` has all derivatives of the readings of one setting. Everything is in double precision.

If a batch has more samples than the mesh has ports, the passes compute the transfer matrix instead of the samples one
by one. The result is the same up to rounding.

References
----------
.. [1] T. W. Hughes et al., "Training of photonic neural networks through in situ backpropagation and gradient
   measurement", Optica 5, 864 (2018): the adjoint method for interferometer meshes.
.. [2] N. Maring et al., "A versatile single-photon-based quantum computing platform", Nature Photonics 18, 603 (2024):
   fit of a model of all heaters with crosstalk.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from photonloop.controller.calibration.detector_memory import memory_adjoint, memory_change, with_memory
from photonloop.controller.calibration.heater_phases import (
    HEAT_SCALARS,
    CrosstalkModel,
    HeaterPhases,
    heater_phases,
    phases_adjoint,
)
from photonloop.controller.calibration.input_fields import InputFields, input_fields, inputs_adjoint
from photonloop.controller.calibration.mesh_fields import (
    LN_PER_DB,
    MeshElements,
    mesh_elements,
    propagated,
    propagated_back,
)
from photonloop.controller.calibration.twin_layout import TwinLayout
from photonloop.controller.calibration.twin_parameters import TwinParameters

Array = NDArray[np.float64]
Complex = NDArray[np.complex128]


@dataclass(frozen=True)
class Twin:
    """A model of one stage: its structure and the values of its parameters."""

    layout: TwinLayout
    parameters: TwinParameters

    @cached_property
    def crosstalk(self) -> CrosstalkModel:
        """Thermal crosstalk at the present parameters."""
        return CrosstalkModel(self.layout, self.parameters.crosstalk_share, self.parameters.crosstalk_exponent)

    @property
    def gain(self) -> Array:
        """Reading of each detector per |E|² = 1 behind the last column, without compression, shape (taps,)."""
        own = self.parameters
        screen = np.exp(2 * LN_PER_DB * own.shifter_db) if self.layout.gamma.size else 1.0
        return own.level * screen * own.detector_gain


@dataclass(frozen=True)
class ForwardPass:
    """Readings of a twin, and what `adjoint_pass` needs.

    Parameters
    ----------
    readings
        Predicted readings, shape (settings, samples, taps).
    linear
        Readings without compression, memory and dark level, same shape.
    compressed
        The same with compression.
    fields
        Fields at the detectors, shape (settings, taps, samples).
    """

    readings: Array
    linear: Array
    compressed: Array
    fields: Complex
    phases: HeaterPhases
    elements: MeshElements
    entering: InputFields
    matrices: Complex | None
    kept: Array


@dataclass(frozen=True)
class TwinGradient:
    """Derivatives of a loss by the nominal heater phases, (settings, channels), and by all parameters, summed."""

    phases: Array
    parameters: TwinParameters


def predict(twin: Twin, phases: Array, inputs: NDArray[np.inexact]) -> Array:
    """Return the predicted readings, shape (settings, samples, taps); arguments as for `forward_pass`."""
    return forward_pass(twin, phases, inputs, keep=False).readings


def forward_pass(twin: Twin, phases: Array, inputs: NDArray[np.inexact], *, keep: bool = True) -> ForwardPass:
    """Return the predicted readings, and what the backward pass needs.

    Parameters
    ----------
    twin
        The twin.
    phases
        Nominal heater phases x = π · V² / (R · P_π) with nominal R and P_π [rad], shape (settings, channels).
    inputs
        Amplitudes as in `PhotonicDevice.evaluate`, shape (samples, ports), or (settings, samples, ports), in the order
        in which they are read (`detector_memory`).
    keep
        False if no backward pass follows. It needs the fields that enter every interferometer: per setting 64 bytes ·
        interferometers · samples, or ports if there are fewer of these.
    """
    layout, own = twin.layout, twin.parameters
    heated = heater_phases(layout, own, twin.crosstalk, phases)
    elements = mesh_elements(layout, own, heated.effective)
    entering = input_fields(own, inputs)
    if entering.fields.shape[2] > layout.ports:
        behind = propagated(layout, elements, np.eye(layout.ports, dtype=np.complex128)[np.newaxis], keep=keep)
        matrices, fields = behind.out, behind.out @ entering.fields
    else:
        behind = propagated(layout, elements, entering.fields, keep=keep)
        matrices, fields = None, behind.out
    fields = fields[:, : layout.taps]
    linear = (twin.gain[:, np.newaxis] * (fields.real**2 + fields.imag**2)).transpose(0, 2, 1)
    compressed = linear / (1 + own.compression * linear / layout.full_scale)
    readings = with_memory(compressed, own.detector_memory) + own.detector_dark
    return ForwardPass(readings, linear, compressed, fields, heated, elements, entering, matrices, behind.kept)


def adjoint_pass(twin: Twin, at: ForwardPass, slopes: Array) -> TwinGradient:
    """Return the gradient of a loss from its `slopes` by the readings, shape (settings, samples, taps)."""
    layout, own = twin.layout, twin.parameters
    steep = 1 / (1 + own.compression * at.linear / layout.full_scale)
    by_memory = memory_change(at.compressed, at.readings - own.detector_dark, own.detector_memory)
    by_compressed = memory_adjoint(slopes, own.detector_memory)
    by_linear = by_compressed * steep**2
    by_compression = -float(np.sum(by_compressed * at.compressed**2)) / layout.full_scale
    by_gain = np.sum(by_linear * at.linear, axis=(0, 1))
    by_fields = np.zeros((len(slopes), layout.ports, slopes.shape[1]), np.complex128)
    by_fields[:, : layout.taps] = 2 * (by_linear * twin.gain).transpose(0, 2, 1) * at.fields
    if at.matrices is None:
        by_entering, by_elements = propagated_back(layout, at.elements, at.kept, by_fields)
    else:
        by_matrix = by_fields @ at.entering.fields.conj().transpose(0, 2, 1)
        by_entering = at.matrices.conj().transpose(0, 2, 1) @ by_fields
        _, by_elements = propagated_back(layout, at.elements, at.kept, by_matrix)
    heated = phases_adjoint(layout, own, twin.crosstalk, at.phases, _by_channel(layout, by_elements.values))
    by_port, by_phase, by_leak, by_coupling = inputs_adjoint(own, at.entering, by_entering)
    by_mesh = by_elements.values.sum(axis=0)
    by_screen = 2 * LN_PER_DB * by_gain.sum() if layout.gamma.size else 0.0
    return TwinGradient(
        phases=heated.by_x,
        parameters=TwinParameters(
            offset_rad=heated.by_offset.sum(axis=0),
            kappa=heated.by_kappa.sum(axis=0),
            **dict(zip(HEAT_SCALARS, heated.by_scalars.sum(axis=0).tolist(), strict=True)),
            heat_response=heated.by_response.sum(axis=0),
            coupler_error_rad=by_mesh[:, 2:4],
            loss_db=by_mesh[:, 4],
            shifter_db=float(by_mesh[:, 5].sum() + by_screen),
            level=float(by_gain.sum()) / own.level,
            input_gain=by_port,
            input_phase_rad=by_phase,
            input_leak=by_leak,
            input_coupling=by_coupling,
            detector_gain=by_gain / own.detector_gain,
            detector_dark=slopes.sum(axis=(0, 1)),
            compression=by_compression,
            detector_memory=float(np.sum(slopes * by_memory)),
        ),
    )


def transfer_matrices(twin: Twin, phases: Array) -> Complex:
    """Return the transfer matrices from the fields that enter the mesh to its outputs, (settings, ports, ports).

    Phases and losses of the output shifters are included. The inputs' and detectors' own parameters are not.
    """
    layout, own = twin.layout, twin.parameters
    effective = heater_phases(layout, own, twin.crosstalk, phases).effective
    unit = np.eye(layout.ports, dtype=np.complex128)[np.newaxis]
    found = propagated(layout, mesh_elements(layout, own, effective), unit, keep=False).out
    if layout.gamma.size:
        found *= np.exp(LN_PER_DB * own.shifter_db + 1j * effective[:, layout.gamma])[:, :, np.newaxis]
    return found


def _by_channel(layout: TwinLayout, by_elements: Array) -> Array:
    """Return derivatives by the effective phases of all channels, of which γ has none, from those by elements."""
    found = np.zeros((len(by_elements), layout.channels))
    found[:, layout.theta], found[:, layout.phi] = by_elements[..., 0], by_elements[..., 1]
    return found
