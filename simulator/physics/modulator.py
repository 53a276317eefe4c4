"""Input modulators: from requested amplitudes to the fields that enter the mesh.

    amplitude ──▶ extinction ──▶ × (1 + error of port) · e^{i phase of port} ──▶ ═ neighbouring waveguides ═ ──▶ mesh
                                                                                                              ▲
                              × e^{x/2 + iφ} of each port, from phase drift, coupling drift and path lengths ─┘

Everything up to the neighbouring waveguides is applied once, when inputs are loaded. The factor e^{x/2 + iφ} of each
port changes with time. It is applied when inputs enter the mesh, and is constant during a setting.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from photonloop.simulator.parameters import ChipParameters, ModulatorParameters
from photonloop.simulator.physics.laser import HEATER_M

Amplitudes = NDArray[np.inexact]
"""float64 or complex128."""


_FOREVER_S = 1e9


class InputTruth(NamedTuple):
    """True relative amplitude, phase [rad] and path length relative to the mean [m] of each input port, (ports,)."""

    amplitude: NDArray[np.float64]
    phase_rad: NDArray[np.float64]
    path_m: NDArray[np.float64]


def own_modulator(parameters: ChipParameters) -> ModulatorParameters:
    """Return the modulator parameters of a chip, without crosstalk and drift of phases for a weight bank.

    The inputs of a weight bank are wavelengths in one waveguide, which do not couple, and their phases do not matter.
    """
    if parameters.mesh.topology != "weight_bank":
        return parameters.modulator
    return parameters.modulator.model_copy(update={"crosstalk": 0.0, "phase_drift_rad": 0.0, "path_sigma_m": 0.0})


def is_ideal(modulator: ModulatorParameters) -> bool:
    """Return whether the fields that enter the mesh are the requested amplitudes."""
    return not any((modulator.extinction_db, modulator.amplitude_sigma, modulator.phase_span_rad, modulator.crosstalk))


def has_phases(modulator: ModulatorParameters) -> bool:
    """Return whether real amplitudes become complex fields."""
    return modulator.phase_span_rad > 0 or modulator.crosstalk > 0


def modulated(inputs: Amplitudes, modulator: ModulatorParameters, truth: InputTruth) -> Amplitudes:
    """Return the fields that enter the mesh, shape (samples, ports); complex if `inputs` are or `has_phases`."""
    field = _leaking(inputs, modulator.extinction_db) * truth.amplitude
    if has_phases(modulator):
        field = field * np.exp(1j * truth.phase_rad)
    return _coupled(field, modulator.crosstalk) if modulator.crosstalk > 0 else field


def input_factor(phase_rad: NDArray[np.float64], coupling: NDArray | None) -> NDArray[np.complex128]:
    """Return the factors e^{x/2 + iφ} of the fields that enter the mesh: phases φ [rad], logarithms x of powers."""
    turned = np.exp(1j * phase_rad)
    return turned if coupling is None else turned * np.exp(0.5 * coupling)


def phase_processes(parameters: ChipParameters) -> list[tuple[float, float]]:
    """Return standard deviation [rad] and correlation time [s] of the processes that move an input's phase.

    These are the drift of the port, and wavelength and chip temperature, which act on its path length.
    """
    own, laser, temperature = own_modulator(parameters), parameters.laser, parameters.temperature
    lengths = own.path_sigma_m / HEATER_M
    processes = [
        (own.phase_drift_rad, own.phase_drift_tau_s),
        (lengths * laser.phase_rad_per_pm * laser.jitter_pm, laser.jitter_tau_s),
        (lengths * temperature.phase_rad_per_k * temperature.sigma_k, temperature.tau_s),
    ]
    return [(sigma_rad, tau_s) for sigma_rad, tau_s in processes if sigma_rad > 0]


def phases_steady_s(parameters: ChipParameters, change_rad: float = 0.1) -> float:
    """Return the time [s] in which the phase between two inputs changes by `change_rad` rms, or 1e9 if it never does.

    The difference of two independent Ornstein-Uhlenbeck processes changes by 2σ·√(1 - e^{-t/τ}) rms in a time t, and
    variances of several processes add.
    """
    processes = phase_processes(parameters)

    def variance(time_s: float) -> float:
        return sum(-4.0 * sigma_rad**2 * math.expm1(-time_s / tau_s) for sigma_rad, tau_s in processes)

    if variance(_FOREVER_S) < change_rad**2:
        return _FOREVER_S
    low, high = math.log(1e-12), math.log(_FOREVER_S)
    for _ in range(60):
        middle = 0.5 * (low + high)
        low, high = (middle, high) if variance(math.exp(middle)) < change_rad**2 else (low, middle)
    return math.exp(high)


def _leaking(inputs: Amplitudes, extinction_db: float) -> Amplitudes:
    """Return √(ε + (1-ε)a²) for amplitudes a: an interferometric modulator with leakage ε = 10^(-ER/10)."""
    if extinction_db == 0:
        return inputs
    leak = 10.0 ** (-extinction_db / 10.0)
    magnitude = np.sqrt(leak + (1.0 - leak) * np.abs(inputs) ** 2)
    return magnitude * np.exp(1j * np.angle(inputs)) if np.iscomplexobj(inputs) else magnitude


def _coupled(field: Amplitudes, share: float) -> Amplitudes:
    """Return fields behind two weak, lossless couplings, first of modes (0, 1), (2, 3), …, then of (1, 2), (3, 4), ….

    Each mode passes `share` x of its power to its neighbour: B = [[√(1-x), i√x], [i√x, √(1-x)]].
    """
    stays, leaves = np.sqrt(1.0 - share), 1j * np.sqrt(share)
    out = field.copy()
    for first in (0, 1):
        lower = out[..., first + 1 :: 2]
        upper = out[..., first : first + 2 * lower.shape[-1] : 2].copy()
        kept = lower.copy()
        out[..., first : first + 2 * lower.shape[-1] : 2] = stays * upper + leaves * kept
        out[..., first + 1 :: 2] = leaves * upper + stays * kept
    return out
