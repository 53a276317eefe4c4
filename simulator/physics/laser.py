"""The laser: relative intensity noise (`kernels.detect`), slow drift of power and wavelength (`engine.ambient`).

A change of wavelength changes the phase of a path by 2π · n_g · L/λ² per metre of wavelength, with the group index n_g.
It acts on phases by differences of path lengths, and on the angles of couplers.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from photonloop.simulator.parameters import ChipParameters, LaserParameters, TemperatureParameters

HEATER_M = 61.6e-6
"""Length of a heater [m], to which phases per kelvin and per picometre refer: Harris et al. 2014."""


def own_laser(parameters: ChipParameters) -> LaserParameters:
    """Return the laser parameters of a chip, without detuning for a weight bank, whose rings define its wavelengths."""
    is_bank = parameters.mesh.topology == "weight_bank"
    return parameters.laser.model_copy(update={"detuning_pm": 0.0}) if is_bank else parameters.laser


def rin_sigma(laser: LaserParameters, bandwidth_hz: float) -> float:
    """Return the relative standard deviation of the power in `bandwidth_hz`, √(10^(RIN/10) · B), or 0 without RIN."""
    return math.sqrt(10.0 ** (laser.rin_db_per_hz / 10.0) * bandwidth_hz) if laser.rin_db_per_hz < 0 else 0.0


def path_phase_rad(
    laser: LaserParameters, temperature: TemperatureParameters, detuning_pm: float, warming_k: float, lengths: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Return the phases [rad] of path differences at a detuning [pm] and at a warming [K], (paths,).

    `lengths` are the path differences in lengths of a heater.
    """
    return lengths * (laser.phase_rad_per_pm * detuning_pm + temperature.phase_rad_per_k * warming_k)


def drifted_power(deviation: float) -> float:
    """Return the power relative to nominal: e^x for a deviation x, which is always positive."""
    return math.exp(deviation)
