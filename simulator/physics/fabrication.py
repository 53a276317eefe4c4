"""Fabrication variations: the true value of every heater, coupler and detector, drawn once from the seed.

These values never leave the simulator's process. Each effect of each stage has its own random generator, so that adding
an effect or a stage changes no other value.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from photonloop.simulator.parameters import ChipParameters
from photonloop.simulator.physics.crosstalk import partner_share, share_at
from photonloop.simulator.physics.heater import arm_pi_power_w, unheated_rad_per_w
from photonloop.simulator.physics.mesh import Mesh
from photonloop.simulator.physics.modulator import InputTruth
from photonloop.simulator.physics.weight_bank import WeightBank

# Positions in the tree of seeds. Do not renumber them: every chip of an existing seed would change.
_FABRICATION, _NOISE, _INPUTS, _SLOW = 0, 1, 2, 3
_SOURCE_NOISE, _HELD_NOISE, _CONVERTER_NOISE = 10, 11, 12
_READBACK = 50
_OFFSET, _PI_POWER, _COUPLER, _LOSS, _INL, _RESPONSIVITY, _IMBALANCE = 0, 1, 2, 3, 4, 5, 6
_ZERO, _RESISTANCE, _BUS = 20, 30, 40
_AMPLITUDE, _PHASE, _PATH = 0, 1, 2


@dataclass(frozen=True)
class StageTruth:
    """The true values of one stage.

    Parameters
    ----------
    offset_rad
        Phase of each channel at 0 V [rad], shape (channels,).
    pi_power_w
        Power of each heater that changes the phase difference of the two arms of its interferometer by π [W], shape
        (channels,).
    arm_pi_power_w
        Power of each heater that changes the phase of its own arm by π [W], shape (channels,).
    resistance_ohm
        Resistance of each cold heater [Ω], shape (channels,).
    coupler_error_rad
        Angle errors of both couplers [rad], shape (interferometers, 2).
    loss_db
        Insertion loss of each interferometer on both its arms [dB], shape (interferometers,).
    inl_shape
        Random numbers of each channel's integral nonlinearity (`dac.inl_coefficients`), shape (channels, 2).
    responsivity
        Responsivity of each detector relative to the mean, shape (outputs,).
    imbalance
        Difference of the two optical paths of each phase, in lengths of a heater, shape (channels,). For a ring it is
        the whole round trip, about 1.
    zero_lsb
        Zero offset of each detector's converter [LSB], shape (outputs,).
    bus_rad
        Phase of the waveguides between a ring of a weight bank and the next one of its row, there and back, for
        wavelength 0 [rad], shape (channels,); empty without interference.
    """

    offset_rad: NDArray[np.float64]
    pi_power_w: NDArray[np.float64]
    arm_pi_power_w: NDArray[np.float64]
    resistance_ohm: NDArray[np.float64]
    coupler_error_rad: NDArray[np.float64]
    loss_db: NDArray[np.float64]
    inl_shape: NDArray[np.float64]
    responsivity: NDArray[np.float64]
    imbalance: NDArray[np.float64]
    zero_lsb: NDArray[np.float64]
    bus_rad: NDArray[np.float64]


def fabricate(parameters: ChipParameters, wiring: Mesh | WeightBank, stage: int) -> StageTruth:
    """Return stage number `stage` as drawn from the chip's seed."""
    heater, pairs, channels = parameters.heater, wiring.interferometers, wiring.channels

    def generator(effect: int) -> np.random.Generator:
        return _generator(parameters.seed, _FABRICATION, stage, effect)

    offset = np.zeros(channels)
    if heater.offset_span_rad > 0:
        offset = generator(_OFFSET).uniform(0.0, heater.offset_span_rad, channels)
    error = np.zeros((pairs, 2))
    if parameters.coupler.angle_sigma_rad > 0:
        error = parameters.coupler.angle_sigma_rad * generator(_COUPLER).standard_normal(error.shape)
    loss = np.full(pairs, parameters.loss.mzi_db + 2.0 * parameters.loss.coupler_db)
    if parameters.loss.mzi_sigma_db > 0:
        loss = np.maximum(loss + parameters.loss.mzi_sigma_db * generator(_LOSS).standard_normal(pairs), 0.0)
    inl_shape = np.zeros((channels, 2))
    if parameters.dac.inl_lsb > 0:
        inl_shape = generator(_INL).uniform(-1.0, 1.0, inl_shape.shape)
    zero_lsb = np.full(wiring.outputs, parameters.adc.offset_lsb)
    if parameters.adc.offset_sigma_lsb > 0:
        zero_lsb += parameters.adc.offset_sigma_lsb * generator(_ZERO).standard_normal(wiring.outputs).clip(-4, 4)
    imbalance = np.ones(channels) if isinstance(wiring, WeightBank) else np.zeros(channels)
    if parameters.temperature.imbalance_sigma > 0:
        imbalance += parameters.temperature.imbalance_sigma * generator(_IMBALANCE).standard_normal(channels)
    bus = np.empty(0)
    if isinstance(wiring, WeightBank) and parameters.ring.bus_interference and parameters.ring.spectral_crosstalk:
        bus = generator(_BUS).uniform(0.0, 2.0 * np.pi, channels)
    pi_power_w = heater.pi_power_w * _spread(heater.pi_power_sigma, channels, lambda: generator(_PI_POWER))
    return StageTruth(
        offset_rad=offset - parameters.ring.cold_rad if isinstance(wiring, WeightBank) else offset,
        pi_power_w=pi_power_w,
        arm_pi_power_w=_arm_pi_power_w(parameters, wiring, pi_power_w),
        resistance_ohm=heater.resistance_ohm * _spread(heater.resistance_sigma, channels, lambda: generator(_RESISTANCE)),
        coupler_error_rad=error,
        loss_db=loss,
        inl_shape=inl_shape,
        responsivity=_spread(parameters.photodiode.responsivity_sigma, wiring.outputs, lambda: generator(_RESPONSIVITY)),
        imbalance=imbalance,
        zero_lsb=zero_lsb,
        bus_rad=bus,
    )


def _arm_pi_power_w(
    parameters: ChipParameters, wiring: Mesh | WeightBank, pi_power_w: NDArray[np.float64]
) -> NDArray[np.float64]:
    own = parameters.crosstalk
    if own.fraction == 0 or isinstance(wiring, WeightBank):
        return pi_power_w
    unheated = unheated_rad_per_w(parameters.heater.pi_power_w, float(share_at(own.mode_pitch_m, own)))
    return arm_pi_power_w(pi_power_w, partner_share(wiring, own), unheated, parameters.heater.curvature)


def fabricate_inputs(parameters: ChipParameters) -> InputTruth:
    """Return the chip's inputs as drawn from its seed."""
    modulator, ports = parameters.modulator, parameters.ports
    phase = np.zeros(ports)
    if modulator.phase_span_rad > 0:
        phase = _generator(parameters.seed, _INPUTS, _PHASE).uniform(0.0, modulator.phase_span_rad, ports)
    amplitude = _spread(modulator.amplitude_sigma, ports, lambda: _generator(parameters.seed, _INPUTS, _AMPLITUDE))
    path_m = np.zeros(ports)
    if modulator.path_sigma_m > 0:
        path_m = modulator.path_sigma_m * _generator(parameters.seed, _INPUTS, _PATH).standard_normal(ports)
    return InputTruth(amplitude, phase, path_m)


def noise_key(seed: int) -> np.uint64:
    """Return the key of all detector noise of a chip, for `kernels.stream_start`."""
    return _key(seed, _NOISE)


def source_noise_key(seed: int) -> np.uint64:
    """Return the key of the noise of all voltage sources at the settings of evaluations."""
    return _key(seed, _SOURCE_NOISE)


def held_noise_key(seed: int) -> np.uint64:
    """Return the key of the noise of all voltage sources at the held drive."""
    return _key(seed, _HELD_NOISE)


def converter_noise_key(seed: int) -> np.uint64:
    """Return the key of the noise of all converters behind amplifiers with memory."""
    return _key(seed, _CONVERTER_NOISE)


def slow_key(seed: int, kind: int, stage: int) -> np.uint64:
    """Return the key of one slow random process."""
    return _key(seed, _SLOW, kind, stage)


def readback_generator(seed: int, number: int) -> np.random.Generator:
    """Return the random numbers of the noise of readback `number`."""
    return _generator(seed, _READBACK, number)


def _spread(sigma: float, count: int, generator: Callable[[], np.random.Generator]) -> NDArray[np.float64]:
    """Return 1 + σ · normal deviates clipped at ±4. If σ is 0, return ones and draw nothing."""
    return 1.0 + sigma * generator().standard_normal(count).clip(-4, 4) if sigma > 0 else np.ones(count)


def _generator(seed: int, *place: int) -> np.random.Generator:
    return np.random.default_rng(np.random.SeedSequence(seed, spawn_key=place))


def _key(seed: int, *place: int) -> np.uint64:
    return np.random.SeedSequence(seed, spawn_key=place).generate_state(1, np.uint64)[0]
