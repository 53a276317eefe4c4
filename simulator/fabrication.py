"""What fabrication left: every heater's and coupler's own values, drawn once from the seed, known to nobody outside.

Each kind of flaw of each stage draws from a generator of its own, so that adding an effect or a stage changes no other value.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from simulator.mesh import Mesh
from simulator.parameters import ChipParameters

# Places in the tree of seeds; never renumber, or every chip of an old seed changes.
_FABRICATION, _NOISE = 0, 1
_OFFSET, _PI_POWER, _COUPLER, _LOSS = 0, 1, 2, 3


@dataclass(frozen=True)
class StageTruth:
    """The true values of one stage.

    Parameters
    ----------
    offset_rad
        Phase of each channel at zero volts [rad], shape (channels,).
    pi_power_w
        Power of each heater for a phase of π [W], shape (channels,).
    coupler_error_rad
        Angle errors of both couplers [rad], shape (interferometers, 2).
    loss_db
        Insertion loss of each interferometer [dB], shape (interferometers,).
    """

    offset_rad: NDArray[np.float64]
    pi_power_w: NDArray[np.float64]
    coupler_error_rad: NDArray[np.float64]
    loss_db: NDArray[np.float64]


def fabricate(parameters: ChipParameters, mesh: Mesh, stage: int, channels: int) -> StageTruth:
    """Return stage number `stage` as drawn from the chip's seed."""
    heater = parameters.heater
    offset = np.zeros(channels)
    if heater.offset_span_rad > 0:
        offset = _generator(parameters.seed, stage, _OFFSET).uniform(0.0, heater.offset_span_rad, channels)
    spread = np.zeros(channels)
    if heater.pi_power_sigma > 0:
        spread = heater.pi_power_sigma * _generator(parameters.seed, stage, _PI_POWER).standard_normal(channels).clip(-4, 4)
    error = np.zeros((mesh.interferometers, 2))
    if parameters.coupler.angle_sigma_rad > 0:
        draw = _generator(parameters.seed, stage, _COUPLER).standard_normal(error.shape)
        error = parameters.coupler.angle_sigma_rad * draw
    loss = np.full(mesh.interferometers, parameters.loss.mzi_db)
    if parameters.loss.mzi_sigma_db > 0:
        draw = _generator(parameters.seed, stage, _LOSS).standard_normal(loss.shape)
        loss = np.maximum(loss + parameters.loss.mzi_sigma_db * draw, 0.0)
    return StageTruth(offset, heater.pi_power_w * (1.0 + spread), error, loss)


def noise_key(seed: int) -> np.uint64:
    """Return the key of all detector noise of a chip (`kernels.stream_start`)."""
    return np.random.SeedSequence(seed, spawn_key=(_NOISE,)).generate_state(1, np.uint64)[0]


def _generator(seed: int, stage: int, effect: int) -> np.random.Generator:
    return np.random.default_rng(np.random.SeedSequence(seed, spawn_key=(_FABRICATION, stage, effect)))
