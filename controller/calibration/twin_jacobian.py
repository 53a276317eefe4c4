"""All derivatives of the readings of one setting by the parameters of the twin, for the fit of small meshes.

A parameter of an interferometer changes the field at a detector by (way from the interferometer to the detector) ×
(change of its matrix) × (fields that enter it). One forward pass gives the last factor for all samples, and one
backward pass the first one for all detectors. All parameters of heaters act through the effective phases.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from photonloop.controller.calibration.detector_memory import memory_change, with_memory
from photonloop.controller.calibration.heater_phases import HEAT_SCALARS, heater_phases, phases_adjoint
from photonloop.controller.calibration.input_fields import input_changes, input_fields
from photonloop.controller.calibration.mesh_fields import LN_PER_DB, mesh_elements, output_derivatives
from photonloop.controller.calibration.twin import Twin
from photonloop.controller.calibration.twin_parameters import slices

Array = NDArray[np.float64]
Complex = NDArray[np.complex128]


class ReadingsJacobian(NamedTuple):
    """Readings of one setting, and their derivatives.

    Parameters
    ----------
    readings
        Readings, shape (samples, taps).
    by_parameters
        Derivatives by all parameters in the order of `pack`, (samples · taps, parameters), but 0 for `heat_response`.
    by_effective
        Derivatives by the effective phases of the channels, shape (samples · taps, channels).
    heat
        Slow components of the heat, shape (components,): those by `heat_response` are the product of both.
    """

    readings: Array
    by_parameters: Array
    by_effective: Array
    heat: Array

    def dense(self, twin: Twin) -> Array:
        """Return the derivatives by all parameters, shape (samples · taps, parameters)."""
        found = self.by_parameters.copy()
        by_response = self.by_effective[:, :, np.newaxis] * self.heat
        found[:, slices(twin.layout)["heat_response"]] = by_response.reshape(len(found), -1)
        return found


def readings_jacobian(twin: Twin, phases: Array, inputs: NDArray[np.inexact]) -> ReadingsJacobian:
    """Return the readings of one setting and their derivatives by all parameters.

    Parameters
    ----------
    twin
        The twin.
    phases
        Nominal heater phases of the setting [rad], shape (channels,).
    inputs
        Amplitudes, shape (samples, ports).
    """
    layout, own, parts = twin.layout, twin.parameters, slices(twin.layout)
    heated = heater_phases(layout, own, twin.crosstalk, phases[np.newaxis])
    entering = input_fields(own, inputs)
    found = output_derivatives(layout, mesh_elements(layout, own, heated.effective), entering.fields[0])
    fields = found.fields[: layout.taps]
    linear = twin.gain[:, np.newaxis] * np.abs(fields) ** 2
    steep = 1 / (1 + own.compression * linear / layout.full_scale)
    weight = 2 * twin.gain[:, np.newaxis] * steep**2 * fields.conj()
    jacobian = np.zeros((linear.size, parts["detector_memory"].stop))

    theta, phi, first, second, loss, shifter = (_by_fields(weight, change) for change in found.by_elements)
    by_channel = np.zeros((linear.size, layout.channels))
    by_channel[:, layout.theta], by_channel[:, layout.phi] = theta, phi
    heat = phases_adjoint(layout, own, twin.crosstalk, heated, np.eye(layout.channels))
    jacobian[:, parts["offset_rad"]] = by_channel @ heat.by_offset
    jacobian[:, parts["kappa"]] = by_channel @ heat.by_kappa
    by_scalars = by_channel @ heat.by_scalars
    for number, kind in enumerate(HEAT_SCALARS):
        jacobian[:, parts[kind].start] = by_scalars[:, number]
    jacobian[:, parts["coupler_error_rad"]] = np.stack((first, second), axis=2).reshape(linear.size, -1)
    jacobian[:, parts["loss_db"]] = loss
    jacobian[:, parts["shifter_db"].start] = shifter.sum(axis=1)

    by_port, by_leak, by_coupling = (found.matrix @ change for change in input_changes(own, entering))
    jacobian[:, parts["input_gain"]] = _by_fields(weight, by_port) / own.input_gain
    jacobian[:, parts["input_phase_rad"]] = _by_fields(weight, 1j * by_port)
    jacobian[:, parts["input_leak"]] = _by_fields(weight, by_leak[np.newaxis])
    jacobian[:, parts["input_coupling"]] = _by_fields(weight, by_coupling[np.newaxis])
    _fill_detectors(jacobian, twin, linear, steep)
    jacobian, by_channel = (_remembered(part, linear.shape[1], own.detector_memory) for part in (jacobian, by_channel))
    compressed = (linear * steep).T
    readings = with_memory(compressed, own.detector_memory)
    by_memory = memory_change(compressed, readings, own.detector_memory)
    jacobian[:, parts["detector_memory"].start] = by_memory.ravel()
    return ReadingsJacobian(readings + own.detector_dark, jacobian, by_channel, heated.heat[0])


def _remembered(jacobian: Array, samples: int, kept: float) -> Array:
    """Return derivatives of the outputs of detectors with memory, (samples · taps, …), from those in front of it."""
    return with_memory(jacobian.reshape(samples, -1), kept).reshape(jacobian.shape)


def _by_fields(weight: Complex, change: Complex) -> Array:
    """Return derivatives of readings, (samples · taps, parameters), from those of fields, shape (…, ports, samples)."""
    product = (weight * change[:, : len(weight)]).real
    return product.transpose(2, 1, 0).reshape(-1, len(change))


def _fill_detectors(jacobian: Array, twin: Twin, linear: Array, steep: Array) -> None:
    """Set the columns of gains, dark levels, compression and output shifters, without the memory of the detectors.

    `linear` has shape (taps, samples).
    """
    layout, own, parts = twin.layout, twin.parameters, slices(twin.layout)
    by_gain, taps = (linear * steep**2).T, np.arange(layout.taps)
    by_sample = jacobian.reshape(*by_gain.shape, -1)
    by_sample[:, taps, parts["detector_gain"].start + taps] = by_gain / own.detector_gain
    by_sample[:, taps, parts["detector_dark"].start + taps] = 1.0
    by_sample[:, :, parts["level"].start] = by_gain / own.level
    by_sample[:, :, parts["compression"].start] = -((linear * steep).T ** 2) / layout.full_scale
    if layout.gamma.size:
        by_sample[:, :, parts["shifter_db"].start] += 2 * LN_PER_DB * by_gain
