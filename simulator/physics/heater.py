"""Heaters: voltage to power, power to phase.

Double precision; `kernels.powers` and `kernels.phasors` are the compiled versions.

    V ──▶ P = V²/R,  R = R₀ (1 + ρ P/P_π) ──▶ (thermal lag, crosstalk) ──▶ φ = φ₀ + π · p · (1 + ηp)/(1 + η),  p = P/P_π

The resistance follows a heater's own power without delay. The thermal lag (`thermal`) affects the phase only.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray


def power_w(
    volts: NDArray[np.float64], resistance_ohm: float, pi_power_w: NDArray[np.float64], self_heating: float = 0.0
) -> NDArray[np.float64]:
    """Return the power P [W] of heaters at `volts` [V], which solves P · R₀ (1 + ρ P/P_π) = V².

    The positive root of the quadratic, written without cancellation: P = 2P₀ / (1 + √(1 + 4ρ P₀/P_π)) with P₀ = V²/R₀.
    """
    cold_w = volts**2 / resistance_ohm
    return 2.0 * cold_w / (1.0 + np.sqrt(1.0 + 4.0 * self_heating * cold_w / pi_power_w))


def phase_rad(
    power_w: NDArray[np.float64], pi_power_w: NDArray[np.float64], offset_rad: NDArray[np.float64], curvature: float = 0.0
) -> NDArray[np.float64]:
    """Return the phases [rad] of shifters that receive `power_w` [W]. P = P_π gives offset + π for every η.

    Source of the curve: successive powers for 2π measured by Jacques et al., Optics Express 27, 10456 (2019).
    """
    p = power_w / pi_power_w
    return offset_rad + np.pi * p * (1.0 + curvature * p) / (1.0 + curvature)
