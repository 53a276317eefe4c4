"""Weight banks: rows of microring filters that multiply powers of many wavelengths by weights in [-1, 1] and add them.

    all M wavelengths ──┬──▶ row 0:  (ring 0)(ring 1) … (ring M-1) ──▶ through ──▶ ▽ -
                        │              └───────┴──── … ────┴─────────▶ drop ─────▶ △ + ──▶ reading 0
                        ├──▶ row 1:  …
                        └──▶ row N-1: …                          one balanced pair of photodiodes per row

In resonance, ring m of a row sends wavelength m to its drop port; off resonance, the light passes to the through port.
The balanced pair measures the difference, Σ_k (drop - through)_k · P_k. Wavelengths do not interfere: inputs are
powers, and readings have a sign. Source of the scheme: Tait et al., Scientific Reports 7, 7430 (2017).

Each ring has one heater. Its phase φ is the round-trip phase for its own wavelength, 0 in resonance; heat increases it.
The M wavelengths are equally spaced over one free spectral range, and their number increases with optical frequency,
so ring m sees wavelength k at

    φ_m + 2π(k - m)/M + ψ_k

with ψ_k the phase shift by the drift of laser k. Without spectral crosstalk, wavelength k meets ring k only. With it,
wavelength k passes all rings of the row in the order of their numbers (`ring_rows`).

Double precision; `kernels.read_bank` is the compiled version.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class WeightBank:
    """Number of rings of a weight bank. Channel n·inputs + m is the ring of output n for wavelength m.

    Parameters
    ----------
    inputs
        Number of wavelengths, M.
    outputs
        Number of rows, each with a balanced pair, N.
    """

    inputs: int
    outputs: int

    @property
    def channels(self) -> int:
        """Number of rings; each has one heater."""
        return self.inputs * self.outputs

    @property
    def interferometers(self) -> int:
        """0: a weight bank has no interferometers."""
        return 0

    @property
    def groups(self) -> dict[str, tuple[int, int]]:
        """Kinds of phase shifters as [start, stop) of the channels: all are rings."""
        return {"ring": (0, self.channels)}


@dataclass(frozen=True)
class Ring:
    """Properties common to all rings of a weight bank: add-drop rings with two equal couplers.

    Parameters
    ----------
    finesse
        Free spectral range divided by the full width at half maximum of the resonance, F = π√b/(1 - b) with b the field
        transmission of a round trip including both couplers.
    drop_loss_db
        Loss from the input to the drop port in resonance [dB].
    spectral_crosstalk
        Whether each ring of a row acts on every wavelength.
    bus_ratio
        Length of waveguide between neighbouring rings of a row, on both buses together, in circumferences of a ring.
    """

    finesse: float
    drop_loss_db: float = 0.0
    spectral_crosstalk: bool = False
    bus_ratio: float = 0.0

    @property
    def steepness(self) -> float:
        """2F/π: detuning in half linewidths, divided by sin(φ/2)."""
        return 2.0 * self.finesse / np.pi

    @property
    def dropped(self) -> float:
        """D: share of the power that arrives at the drop port in resonance."""
        return 10.0 ** (-self.drop_loss_db / 10.0)

    @property
    def coupler_field(self) -> float:
        """r: field transmission of each coupler along its waveguide, in (0, 1)."""
        # D = (1 - r²)² a/(1 - b)² with b = r²a, and 2√b/(1 - b) = 2F/π, so (1 - r²)/r = 2√D/(2F/π).
        share = np.sqrt(self.dropped) / self.steepness
        return float(np.sqrt(1.0 + share**2) - share)

    @property
    def round_trip_field(self) -> float:
        """a: field transmission of a round trip without the couplers, in (0, 1]."""
        return self.decay / self.coupler_field**2

    @property
    def decay(self) -> float:
        """b = r²a: field transmission of a round trip, from the finesse."""
        return float(((np.sqrt(1.0 + self.steepness**2) - 1.0) / self.steepness) ** 2)

    @property
    def leaked(self) -> float:
        """Share of the power at the through port in resonance, (r (1 - a)/(1 - b))²."""
        return float((self.coupler_field * (1.0 - self.round_trip_field) / (1.0 - self.decay)) ** 2)


class Transmissions(NamedTuple):
    """Shares of the power of a wavelength at a row's drop detector and at its through detector."""

    drop_port: NDArray[np.float64]
    through_port: NDArray[np.float64]

    @property
    def weights(self) -> NDArray[np.float64]:
        """Weights measured by the balanced pair, drop - through, in [-1, 1]."""
        return self.drop_port - self.through_port


def transmissions(phase_rad: NDArray[np.float64], ring: Ring) -> Transmissions:
    """Return the transmissions of single rings to drop port and through port at round-trip phases [rad].

    A Lorentzian in the detuning, x = (2F/π)·sin(φ/2) half linewidths: drop = D/(1 + x²), through = (leak + x²)/(1 +
    x²). This is exact for an add-drop ring with equal couplers, and repeats every free spectral range; near resonance
    x = φ·F/π. Source: Bogaerts et al., Laser Photonics Rev. 6, 47 (2012), equations for the add-drop ring.
    """
    x2 = (ring.steepness * np.sin(phase_rad / 2.0)) ** 2
    return Transmissions(ring.dropped / (1.0 + x2), (ring.leaked + x2) / (1.0 + x2))


def transmission_slopes(phase_rad: NDArray[np.float64], ring: Ring) -> Transmissions:
    """Return the derivatives of `transmissions` with respect to the phases [1/rad]."""
    x2 = (ring.steepness * np.sin(phase_rad / 2.0)) ** 2
    # d(x²)/dφ = (2F/π)² · sin(φ)/2
    common = ring.steepness**2 * np.sin(phase_rad) / 2.0 / (1.0 + x2) ** 2
    return Transmissions(-ring.dropped * common, (1.0 - ring.leaked) * common)


def wavelength_shift_rad(drift_pm: NDArray[np.float64], fsr_nm: float) -> NDArray[np.float64]:
    """Return the phase shifts ψ [rad] of wavelengths that have drifted by `drift_pm` [pm]: -2π per free spectral range.

    The sign is negative because a longer wavelength has a smaller round-trip phase.
    """
    return -2.0 * np.pi * 1e-3 * drift_pm / fsr_nm


def phases_of(weights: NDArray[np.float64], ring: Ring) -> NDArray[np.float64]:
    """Return the phases in [0, π] [rad] at which single rings have the given weights: the inverse of `transmissions`.

    Raises
    ------
    ValueError
        If a weight is out of the range of these rings.
    """
    # w = (D - leak - x²)/(1 + x²)
    top = ring.dropped - ring.leaked
    lowest = (top - ring.steepness**2) / (1.0 + ring.steepness**2)
    low, high = float(np.min(weights)), float(np.max(weights))
    if not (lowest <= low and high <= top):
        wrong = high if high > top else low
        raise ValueError(f"weight {wrong:.6g} is out of the range of these rings, {lowest:.6g} to {top:.6g}")
    x = np.sqrt((top - weights) / (1.0 + weights))
    return 2.0 * np.arcsin(np.minimum(x / ring.steepness, 1.0))
