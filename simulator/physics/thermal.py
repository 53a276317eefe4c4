"""Heaters warm up and cool down: a first-order low-pass on heater power, in closed form between changes of the drive.

                      target
    felt power      ╭──────────        P(t) = target + (P₀ - target) · e^{-t/τ},   τ = rise_s where target > P₀, else fall_s
          ╭─────────╯
    ──────╯   P₀

Because crosstalk is linear in power, it makes no difference whether it comes before or behind the low-pass; here it comes behind.
While a drive is ramped within a slew limit the lag is counted from the end of the ramp.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from photonloop.simulator.parameters import ChipParameters, HeaterParameters

SETTLED = 1e-7
"""Share of a change of power that single precision doesn't tell from nothing."""

UNSETTLED_RAD = 1e-3
"""A setting counts as read too early where one of its phases has further than this to go: several steps of a 16-bit source."""


@dataclass(frozen=True)
class ThermalState:
    """What the shifters of one stage feel: `power_w` at the time `at_s`, from then on toward `target_w`; (channels,) [W]."""

    at_s: float
    power_w: NDArray[np.float64]
    target_w: NDArray[np.float64]


def lag(elapsed_s: float, tau_s: float) -> float:
    """Return the share of a change still to come after `elapsed_s`: e^{-t/τ}, 0 where there is no time constant."""
    return math.exp(-max(elapsed_s, 0.0) / tau_s) if tau_s > 0 else 0.0


def power_at(heat: ThermalState, time_s: float, heater: HeaterParameters) -> NDArray[np.float64]:
    """Return the power [W] that each shifter feels at `time_s`, no earlier than `heat.at_s`."""
    change = heat.target_w - heat.power_w
    elapsed_s = time_s - heat.at_s
    return heat.target_w - change * np.where(change > 0, lag(elapsed_s, heater.rise_s), lag(elapsed_s, heater.fall_s))


def with_target(heat: ThermalState, time_s: float, target_w: NDArray[np.float64], heater: HeaterParameters) -> ThermalState:
    """Return the heat of a stage whose drive changes at `time_s`."""
    return ThermalState(time_s, power_at(heat, time_s, heater), target_w)


def settles_within(heater: HeaterParameters) -> float:
    """Return the time [s] after which nothing of any change is left to see."""
    return -math.log(SETTLED) * max(heater.rise_s, heater.fall_s)


def always_settled(parameters: ChipParameters) -> bool:
    """Return whether every reading of the chip comes late enough for the lag to be left out."""
    return parameters.clock.settle_s >= settles_within(parameters.heater)
