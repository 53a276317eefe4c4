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
    return Ring(own.finesse, own.drop_loss_db, own.spectral_crosstalk)


def kernel_rings(ring: Ring, inputs: int) -> kernels.Rings:
    """Return the rings of rows of `inputs` wavelengths, at their nominal wavelengths."""
    spacing = _phasors(np.arange(inputs if ring.spectral_crosstalk else 0) * (2.0 * np.pi / inputs))
    return kernels.Rings(
        inputs=inputs,
        steepness_2=np.float32(ring.steepness**2),
        dropped=np.float32(ring.dropped),
        leaked=np.float32(ring.leaked),
        spacing=spacing,
        wavelengths=spacing,
    )


def rings_at(rings: kernels.Rings, ambient: Ambient, moment: Moment) -> kernels.Rings:
    """Return `rings` at the wavelengths of `moment`.

    Without spectral crosstalk they do not change, because the shift of a wavelength counts as phase of its rings then
    (`Pipeline.offset`).
    """
    shift_rad = ambient.wavelength_shift_rad(moment)
    if shift_rad is None or rings.spacing.shape[1] == 0:
        return rings
    return rings._replace(wavelengths=_phasors(2.0 * np.pi / rings.inputs * np.arange(rings.inputs) + shift_rad))


def input_powers(ambient: Ambient, moment: Moment) -> NDArray[np.float32]:
    """Return the power of each input's laser relative to nominal, shape (inputs,)."""
    return np.array(ambient.laser_powers(moment), np.float32)


def _phasors(phase_rad: NDArray[np.floating]) -> NDArray[np.float32]:
    return np.stack((np.cos(phase_rad), np.sin(phase_rad))).astype(np.float32)
