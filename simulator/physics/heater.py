"""Heaters: voltage to power, power to phase.

Double precision; `kernels.powers` and `kernels.phasors` are the compiled versions.

    V ──▶ V - R_g · ΣI ──▶ P = V²/R,  R = R₀ (1 + ρ P/P_π) ──▶ (thermal lag, crosstalk) ──▶ φ = π · p · (1 + ηp)/(1 + η)

The resistance follows a heater's own power without delay. The thermal lag (`thermal`) affects the phase only.

P_π is the power that changes the phase *difference* of the two arms of an interferometer by π. A heater also warms the
other arm, by the share s of its power, so its own arm turns by more than π at P_π: p = P/P_arm with P_arm =
P_π (1 - s) for a heater with the nominal P_π and η = 0 (`arm_pi_power_w`). Arms and waveguides without a heater of
their own turn by π/(P_π (1 - s)) per watt at the nominal P_π, in proportion to the power (`unheated_rad_per_w`).
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray


def power_w(
    volts: NDArray[np.float64],
    resistance_ohm: NDArray[np.float64] | float,
    pi_power_w: NDArray[np.float64],
    self_heating: float = 0.0,
) -> NDArray[np.float64]:
    """Return the power P [W] of heaters at `volts` [V], which solves P · R₀ (1 + ρ P/P_π) = V².

    The positive root of the quadratic, written without cancellation: P = 2P₀ / (1 + √(1 + 4ρ P₀/P_π)) with P₀ = V²/R₀.
    """
    cold_w = volts**2 / resistance_ohm
    return 2.0 * cold_w / (1.0 + np.sqrt(1.0 + 4.0 * self_heating * cold_w / pi_power_w))


def ground_v(
    volts: NDArray[np.float64],
    resistance_ohm: NDArray[np.float64],
    pi_power_w: NDArray[np.float64],
    ground_ohm: float,
    self_heating: float = 0.0,
) -> NDArray[np.float64]:
    """Return the voltage [V] of the ground conductor that some heaters share, R_g · ΣI, shape (…,).

    The last axis of `volts` [V] are the heaters, whose other ends are at these voltages. With hot resistances R held
    fixed the ground is at R_g Σ(V/R) / (1 + R_g Σ(1/R)). The resistances are those at the full voltages: to lower them
    by the ground's share g = V_g/V would change V_g by less than the share 2gρ/(1 + ρ), 1 µV for preset `soi`.
    """
    power = power_w(volts, resistance_ohm, pi_power_w, self_heating)
    hot_ohm = resistance_ohm * (1.0 + self_heating * power / pi_power_w)
    return ground_ohm * np.sum(volts / hot_ohm, axis=-1) / (1.0 + ground_ohm * np.sum(1.0 / hot_ohm, axis=-1))


def arm_pi_power_w(
    pi_power_w: NDArray[np.float64], partner_share: NDArray[np.float64], unheated: float, curvature: float = 0.0
) -> NDArray[np.float64]:
    """Return the power [W] for a phase of π of each heater's own arm alone, shape (channels,).

    At this value the difference of the phases of both arms is π at P_π: the own arm is at π + `unheated` · s · P_π.

    Parameters
    ----------
    pi_power_w
        P_π of each heater, of the phase difference [W].
    partner_share
        s: share of its power that the other arm receives (`crosstalk.partner_share`).
    unheated
        Phase of an arm without heater per power, `unheated_rad_per_w` [rad/W].
    curvature
        η.
    """
    turns = 1.0 + unheated * partner_share * pi_power_w / np.pi
    # p · (1 + ηp) = turns · (1 + η), the root without cancellation
    p = 2.0 * turns * (1.0 + curvature) / (1.0 + np.sqrt(1.0 + 4.0 * curvature * turns * (1.0 + curvature)))
    return pi_power_w / p


def unheated_rad_per_w(nominal_w: float, share: float) -> float:
    """Return the phase per received power [rad/W] of a segment without a heater of its own: π / (P_π (1 - s)).

    `share`: share of a heater's power that the other arm of its interferometer receives, one mode pitch away.
    """
    return float(np.pi / (nominal_w * (1.0 - share)))


def phase_rad(
    power_w: NDArray[np.float64], pi_power_w: NDArray[np.float64], offset_rad: NDArray[np.float64], curvature: float = 0.0
) -> NDArray[np.float64]:
    """Return the phases [rad] of shifters that receive `power_w` [W]. P = `pi_power_w` gives offset + π for every η.

    Source of the curve: successive powers for 2π measured by Jacques et al., Optics Express 27, 10456 (2019).
    """
    p = power_w / pi_power_w
    return offset_rad + np.pi * p * (1.0 + curvature * p) / (1.0 + curvature)
