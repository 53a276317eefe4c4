"""Input modulators: from requested amplitudes to the fields that enter the mesh.

    amplitude ──▶ extinction ──▶ × (1 + error of port) · e^{i phase of port} ──▶ ═ neighbouring waveguides ═ ──▶ mesh

This is applied once, when inputs are loaded. Evaluating loaded rows needs no further computation here.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from photonloop.simulator.parameters import ChipParameters, ModulatorParameters

Amplitudes = NDArray[np.inexact]
"""float64 or complex128."""


class InputTruth(NamedTuple):
    """True relative amplitude and phase [rad] of each input port, shape (ports,)."""

    amplitude: NDArray[np.float64]
    phase_rad: NDArray[np.float64]


def own_modulator(parameters: ChipParameters) -> ModulatorParameters:
    """Return the modulator parameters of a chip, without crosstalk for a weight bank.

    The inputs of a weight bank are wavelengths in one waveguide, which do not couple.
    """
    alone = parameters.mesh.topology == "weight_bank"
    return parameters.modulator.model_copy(update={"crosstalk": 0.0}) if alone else parameters.modulator


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
