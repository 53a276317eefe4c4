"""Heat and light of a whole chip: what its heaters take at random phases, and what light arrives at the last detectors.

A simulated chip works at any power and in any darkness. The warnings here are about chips that could not be built.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from photonloop.simulator.parameters import ChipParameters

COOLABLE_W_PER_CM2 = 100.0
"""Power density that a cold plate removes; more needs microchannels in the chip (Tuckerman and Pease 1981) [W/cm²]."""

HOTTEST_RISE_K = 60.0
"""Rise from 25 °C to 85 °C, the upper operating temperature of packaged optoelectronics (Telcordia GR-468) [K]."""


@dataclass(frozen=True)
class HeatEstimate:
    """Heat of a chip whose heaters set independent phases, uniform in [0, 2π).

    Parameters
    ----------
    power_w
        Mean total power of all heaters [W].
    current_a
        Mean total current of all voltage sources [A].
    density_w_per_cm2
        Mean power per area of the meshes or the weight bank [W/cm²].
    rise_k
        Rise of the chip's temperature above its controlled stage [K].
    warnings
        Sentences, if the chip cannot be cooled.
    """

    power_w: float
    current_a: float
    density_w_per_cm2: float
    rise_k: float
    warnings: tuple[str, ...]


@dataclass(frozen=True)
class LightEstimate:
    """Light at the detectors of the last stage, for all inputs fully lit and random phases.

    Parameters
    ----------
    loss_db
        Loss from a fully lit input port to the mean power at a detector of the last stage [dB].
    mean_a
        Mean photocurrent there, without dark current [A].
    noise_a
        Standard deviation of the noise of a reading there [A].
    warnings
        Sentences, if readings of the last stage show no light.
    """

    loss_db: float
    mean_a: float
    noise_a: float
    warnings: tuple[str, ...]


def heat_estimate(parameters: ChipParameters, channels: int, area_m2: float) -> HeatEstimate:
    """Return the heat of a chip with `channels` heaters on `area_m2` [m²], for nominal heaters at uniform phases."""
    own = parameters.heater
    turns = (np.arange(2000) + 0.5) / 1000.0  # phases in half turns, in the middle of equal intervals
    share = 2.0 * turns * (1.0 + own.curvature)
    share /= 1.0 + np.sqrt(1.0 + 4.0 * own.curvature * turns * (1.0 + own.curvature))
    watts = own.pi_power_w * share
    amperes = np.sqrt(watts / (own.resistance_ohm * (1.0 + own.self_heating * share)))
    power_w, current_a = channels * float(watts.mean()), channels * float(amperes.mean())
    density = power_w / (1e4 * area_m2)
    rise_k = parameters.temperature.heating_k_per_w * power_w
    found = []
    if density > COOLABLE_W_PER_CM2:
        found.append(
            f"The heaters take {power_w:.3g} W on average, {density:.3g} W/cm², but a cold plate removes about "
            f"{COOLABLE_W_PER_CM2:g} W/cm²: use fewer ports or a heater with a lower heater.pi_power_w."
        )
    if rise_k > HOTTEST_RISE_K:
        found.append(
            f"The heaters warm the chip by {rise_k:.3g} K on average, more than {HOTTEST_RISE_K:g} K: use fewer ports or stages, "
            f"a lower heater.pi_power_w or a lower temperature.heating_k_per_w."
        )
    return HeatEstimate(power_w, current_a, density, rise_k, tuple(found))


def light_estimate(
    parameters: ChipParameters, transmitted: float, lit_a: float, thermal_a2: float, shot_a: float
) -> LightEstimate:
    """Return the light at the detectors of the last stage.

    Parameters
    ----------
    transmitted
        Mean power at a detector of the last stage, relative to one fully lit input port.
    lit_a
        Photocurrent of the power of one fully lit input port [A].
    thermal_a2, shot_a
        The variance of the noise is thermal_a2 + shot_a · current [A²].
    """
    dark_a, mean_a = parameters.photodiode.dark_a, transmitted * lit_a
    noise_a = float(np.sqrt(thermal_a2 + shot_a * (mean_a + dark_a)))
    loss_db = float(-10.0 * np.log10(transmitted))
    found = []
    for level_a, name in ((dark_a, "the dark current"), (noise_a, "the noise of a reading")):
        if mean_a < level_a:
            found.append(
                f"The mean photocurrent of the last stage, {mean_a:.3g} A after a loss of {loss_db:.3g} dB, is below {name}, "
                f"{level_a:.3g} A: use fewer ports or stages, lower losses or more laser power."
            )
    return LightEstimate(loss_db, mean_a, noise_a, tuple(found))
