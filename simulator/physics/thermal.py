"""Thermal response of heaters: a first-order low-pass on heater power, in closed form between changes of the drive.

                      target
    thermal power   ╭──────────        P(t) = target + (P₀ - target) · e^{-t/τ},   τ = rise_s if target > P₀,
          ╭─────────╯                                                          else fall_s
    ──────╯   P₀

Crosstalk is linear in power and is applied after the low-pass. If a slew limit ramps the drive, the response is
computed from the end of the ramp.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from photonloop.simulator.parameters import ChipParameters, HeaterParameters

SETTLED = 1e-7
"""Share of a change of power that is negligible in single precision."""

UNSETTLED_RAD = 1e-3
"""Distance of a phase from its settled value above which a reading is flagged: several LSB of a 16-bit source."""


@dataclass(frozen=True)
class ThermalState:
    """Thermal power of one stage's heaters: `power_w` at time `at_s`, then approaching `target_w`; (channels,) [W]."""

    at_s: float
    power_w: NDArray[np.float64]
    target_w: NDArray[np.float64]


def lag(elapsed_s: float, tau_s: float) -> float:
    """Return the remaining share of a change after `elapsed_s`: e^{-t/τ}, or 0 if τ is 0."""
    return math.exp(-max(elapsed_s, 0.0) / tau_s) if tau_s > 0 else 0.0


def power_at(state: ThermalState, time_s: float, heater: HeaterParameters) -> NDArray[np.float64]:
    """Return the thermal power [W] of each heater at `time_s`, which is not before `state.at_s`."""
    change = state.target_w - state.power_w
    elapsed_s = time_s - state.at_s
    return state.target_w - change * np.where(change > 0, lag(elapsed_s, heater.rise_s), lag(elapsed_s, heater.fall_s))


def with_target(state: ThermalState, time_s: float, target_w: NDArray[np.float64], heater: HeaterParameters) -> ThermalState:
    """Return the thermal state of a stage whose drive changes at `time_s`, with the new target."""
    return ThermalState(time_s, power_at(state, time_s, heater), target_w)


def shifted(state: ThermalState, target_w: NDArray[np.float64]) -> ThermalState:
    """Return the thermal state after a change of the target so slow that the heaters follow it."""
    return ThermalState(state.at_s, state.power_w + (target_w - state.target_w), target_w)


def settles_within(heater: HeaterParameters) -> float:
    """Return the time [s] after which the rest of any change is negligible."""
    return -math.log(SETTLED) * max(heater.rise_s, heater.fall_s)


def always_settled(parameters: ChipParameters) -> bool:
    """Return whether heaters have always settled when a reading is taken."""
    return parameters.clock.settle_s >= settles_within(parameters.heater)
