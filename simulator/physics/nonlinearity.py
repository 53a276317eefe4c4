"""The electro-optic nonlinearity between two stages. Double precision; `kernels.leave_stage` is the compiled version.

    E ──●─── delay ───▶ [ MZI: -i arm phases ]──▶ f(E)        A share α of the power is detected, amplified, and drives
        └──▶ photodiode ──▶ amplifier ──▲                     the phase of an interferometer that the rest passes

Williamson et al., IEEE J. Sel. Top. Quantum Electron. 26, 7700412 (2020).
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray


def electro_optic(
    field: NDArray[np.complex128], detected_fraction: float, gain_rad: float, bias_rad: float
) -> NDArray[np.complex128]:
    """Return f(E) = √(1-α) · exp(-ia) · cos(a) · E with a = (g|E|² + φ_b)/2; g is given per unit of |E|²."""
    a = 0.5 * (gain_rad * np.abs(field) ** 2 + bias_rad)
    return np.sqrt(1.0 - detected_fraction) * np.exp(-1j * a) * np.cos(a) * field


def mean_transmitted(intensity: float, detected_fraction: float, gain_rad: float, bias_rad: float) -> float:
    """Return the mean of |f(E)|² over ports whose |E|² is exponentially distributed with mean `intensity`.

    Behind a random mesh with many lit ports, |E|² has this distribution (speckle). With m = intensity,
    ⟨|f|²⟩ = (1-α)/2 · ⟨I (1 + cos(gI + φ_b))⟩ = (1-α)/2 · (m + Re[e^{iφ_b} m / (1 - igm)²]).
    """
    wave = np.exp(1j * bias_rad) * intensity / (1.0 - 1j * gain_rad * intensity) ** 2
    return 0.5 * (1.0 - detected_fraction) * (intensity + float(wave.real))
