"""The rings and lasers of a weight bank as arguments of the kernels."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from photonloop.simulator import kernels
from photonloop.simulator.engine.ambient import Ambient, Moment
from photonloop.simulator.parameters import ChipParameters
from photonloop.simulator.physics.weight_bank import Ring


def ring_of(parameters: ChipParameters) -> Ring:
    """Return the properties common to all rings of a weight bank."""
    own = parameters.ring
    return Ring(own.finesse, own.drop_loss_db, own.spectral_crosstalk, own.bus_ratio)


def kernel_rings(ring: Ring, inputs: int, bus_rad: NDArray[np.float64]) -> kernels.Rings:
    """Return the rings of rows of `inputs` wavelengths, at their nominal wavelengths; `bus_rad` as in `StageTruth`."""
    r, a, b = ring.coupler_field, ring.round_trip_field, ring.decay
    rings = kernels.Rings(
        inputs=inputs,
        steepness_2=np.float32(ring.steepness**2),
        dropped=np.float32(ring.dropped),
        leaked=np.float32(ring.leaked),
        spacing=_phasors(np.arange(inputs if ring.spectral_crosstalk else 0) * (np.pi / inputs)),
        wavelengths=np.empty((2, 0), np.float32),
        couplers=np.array([r, a, 1.0 - a, b, 1.0 - b, (1.0 - r**2) * np.sqrt(a)], np.float32),
        bus=_phasors(bus_rad),
        bus_wavelengths=np.empty((2, 0), np.float32),
    )
    return _at_wavelengths(rings, ring.bus_ratio, 0.0)


def rings_at(rings: kernels.Rings, parameters: ChipParameters, ambient: Ambient, moment: Moment) -> kernels.Rings:
    """Return `rings` at the wavelengths of `moment`.

    Without spectral crosstalk they do not change, because the shift of a wavelength counts as phase of its rings then
    (`Pipeline.offset`).
    """
    shift_rad = ambient.wavelength_shift_rad(moment)
    return rings if shift_rad is None else _at_wavelengths(rings, parameters.ring.bus_ratio, shift_rad)


def _at_wavelengths(rings: kernels.Rings, bus_ratio: float, shift_rad: NDArray[np.float64] | float) -> kernels.Rings:
    if rings.spacing.shape[1] == 0:
        return rings
    wavelength_rad = 2.0 * np.pi / rings.inputs * np.arange(rings.inputs) + shift_rad
    bus_rad = bus_ratio * wavelength_rad if rings.bus.shape[1] > 0 else np.empty(0)
    return rings._replace(wavelengths=_phasors(0.5 * wavelength_rad), bus_wavelengths=_phasors(bus_rad))


def input_powers(ambient: Ambient, moment: Moment) -> NDArray[np.float32]:
    """Return the power of each input's laser relative to nominal, shape (inputs,)."""
    return np.array(ambient.laser_powers(moment), np.float32)


def _phasors(phase_rad: NDArray[np.floating]) -> NDArray[np.float32]:
    return np.stack((np.cos(phase_rad), np.sin(phase_rad))).astype(np.float32)
