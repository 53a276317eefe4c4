"""Optical power and photocurrent expected at each stage, and the amplifier gains and converter steps set for them.

An experimentalist adjusts amplifier gains once, to the light that arrives. Here the gains follow from the nominal
values of the chip, for all inputs fully lit and random settings. Intensities are in units of one fully lit input port
(`port_power_w`).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from photonloop.protocols.config import ConfigError
from photonloop.simulator.parameters import ChipParameters
from photonloop.simulator.physics import adc as converter
from photonloop.simulator.physics.mesh import Mesh
from photonloop.simulator.physics.nonlinearity import mean_transmitted
from photonloop.simulator.physics.photodiode import shot_variance_a, thermal_variance_a2


@dataclass(frozen=True)
class StageLevels:
    """Fixed signal levels of one stage.

    Parameters
    ----------
    ampere
        Current [A] of a detector per |E|² = 1 at the end of the mesh.
    full_scale_a
        Current [A] at which the stage's readings saturate. If they never saturate, the current of all light in one
        detector.
    saturates
        Whether readings saturate.
    code_a
        Step of the converter [A]; 0: continuous.
    thermal_a2, shot_a
        The variance of the noise is thermal_a2 + shot_a · current [A²].
    passed
        Share of the power that passes the taps.
    gain_rad
        g of the nonlinearity behind the stage [rad] per |E|² = 1.
    mean_intensity
        Expected mean |E|² at the end of the mesh, with all inputs fully lit; 1 for a weight bank.
    """

    ampere: float
    full_scale_a: float
    saturates: bool
    code_a: float
    thermal_a2: float
    shot_a: float
    passed: float
    gain_rad: float
    mean_intensity: float


DARKEST_A, DARKEST = 1e-18, 1e-12
"""Full scale [A], and share of a lit port's power, below which a chip is refused because a stage gets no light."""


def port_power_w(parameters: ChipParameters) -> float:
    """Return the power [W] of one fully lit input port."""
    return parameters.laser.total_power_w / parameters.ports


def levels(parameters: ChipParameters, mesh: Mesh) -> tuple[StageLevels, ...]:
    """Return the levels of every stage, in order."""
    diode, adc, nonlinearity = parameters.photodiode, parameters.adc, parameters.nonlinearity
    transmission = _transmission(parameters, mesh)
    lit_a = diode.responsivity_a_per_w * port_power_w(parameters)
    tap = parameters.tap.fraction
    found = []
    intensity = 1.0
    for stage in range(parameters.stages):
        intensity *= transmission
        last = stage == parameters.stages - 1
        share = tap if tap > 0 and not last else 1.0
        passed = 1.0 - tap
        full_scale_a = (adc.headroom * intensity * share if adc.headroom > 0 else parameters.ports * share) * lit_a
        full_scale_a += diode.dark_a
        if full_scale_a < DARKEST_A:
            raise ConfigError(
                f"stage {stage} of the chip gets no light: its full scale would be {full_scale_a:.3g} A; {_remedy(stage)}"
            )
        load_ohm = diode.load_ohm or adc.range_v / full_scale_a
        gain_rad = nonlinearity.gain_rad
        if nonlinearity.gain_reference == "local":
            if intensity * passed < DARKEST:
                raise ConfigError(f"stage {stage} of the chip gets no light, so no gain can be set for it; {_remedy(stage)}")
            gain_rad /= intensity * passed
        found.append(
            StageLevels(
                ampere=lit_a * share,
                full_scale_a=full_scale_a,
                saturates=adc.headroom > 0,
                code_a=converter.code_a(adc, full_scale_a),
                thermal_a2=thermal_variance_a2(diode, load_ohm),
                shot_a=shot_variance_a(diode),
                passed=passed,
                gain_rad=gain_rad,
                mean_intensity=intensity,
            )
        )
        intensity *= passed
        if nonlinearity.kind == "electro-optic":
            intensity = mean_transmitted(intensity, nonlinearity.detected_fraction, gain_rad, nonlinearity.bias_rad)
    return tuple(found)


def bank_levels(parameters: ChipParameters) -> StageLevels:
    """Return the levels of a weight bank, the same for all banks of a chip, among which the light is split equally.

    The full scale of a balanced pair, in either direction, is the current of all light of its row in one diode.
    """
    diode, adc = parameters.photodiode, parameters.adc
    rows = parameters.mesh.outputs or parameters.ports
    arrives = 10.0 ** (-parameters.ring.row_loss_db / 10.0) / (parameters.stages * rows)
    ampere = diode.responsivity_a_per_w * port_power_w(parameters) * arrives
    full_scale_a = ampere * parameters.ports
    if full_scale_a < DARKEST_A:
        raise ConfigError(f"the weight bank gets no light: its full scale would be {full_scale_a:.3g} A; reduce ring.row_loss_db")
    return StageLevels(
        ampere=ampere,
        full_scale_a=full_scale_a,
        saturates=adc.headroom > 0,
        code_a=converter.code_a(adc, 2.0 * full_scale_a),
        thermal_a2=thermal_variance_a2(diode, diode.load_ohm or adc.range_v / full_scale_a),
        shot_a=shot_variance_a(diode),
        passed=0.0,
        gain_rad=0.0,
        mean_intensity=1.0,
    )


def dark_noise_a(parameters: ChipParameters, level: StageLevels) -> float:
    """Return the nominal standard deviation of a dark reading [A] of a stage.

    Thermal noise, shot noise of the dark current (of both diodes of a balanced pair), and noise and quantisation of the
    converter. Slow changes are not included.
    """
    diodes = 2 if parameters.mesh.topology == "weight_bank" else 1
    amplifier_a2 = level.thermal_a2 + level.shot_a * diodes * parameters.photodiode.dark_a
    return math.sqrt(amplifier_a2 + converter.reading_noise_a(parameters.adc, level.code_a) ** 2)


def _transmission(parameters: ChipParameters, mesh: Mesh) -> float:
    """Return the mean share of the power that a mesh transmits. On average, half of it passes a shifter's arm."""
    loss = parameters.loss
    both_arms = 10.0 ** (-(loss.mzi_db + 2.0 * loss.coupler_db) / 10.0)
    shifter = 10.0 ** (-loss.shifter_db / 10.0)
    screen = shifter if mesh.gammas else 1.0
    return mesh.mean_transmitted * (both_arms * (0.5 + 0.5 * shifter) ** 2) ** mesh.mean_passes * screen


def _remedy(stage: int) -> str:
    blocked = ", or change nonlinearity.gain_rad or nonlinearity.bias_rad" if stage > 0 else ""
    return f"reduce the losses{blocked}"
