"""Weight banks: rows of microring filters that multiply light of many wavelengths by weights in [-1, 1] and add it up.

    all M wavelengths ──┬──▶ row 0:  (ring 0)(ring 1) … (ring M-1) ──▶ through ──▶ ▽ -
                        │              └───────┴──── … ────┴─────────▶ drop ─────▶ △ + ──▶ reading 0
                        ├──▶ row 1:  …
                        └──▶ row N-1: …                          one balanced pair of photodiodes a row

Ring m of a row sends wavelength m to its drop port when in resonance and lets it through when not; the pair reads the
difference, Σ_m (drop - through)_m · P_m. Nothing interferes: inputs are powers, readings have a sign. Source of the scheme:
Tait et al., Scientific Reports 7, 7430 (2017).

Each ring has one heater; its phase φ is that of a round trip, 0 in resonance with the ring's wavelength. A ring sees only
its own wavelength: light of others is taken to be many linewidths away. Double precision; `kernels.read_bank` is the fast twin.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class WeightBank:
    """The wiring: which rings there are. Channel n·inputs + m is the ring of output n on wavelength m.

    Parameters
    ----------
    inputs
        Wavelengths, M.
    outputs
        Rows, each with its balanced pair, N.
    """

    inputs: int
    outputs: int

    @property
    def channels(self) -> int:
        """Rings, and so heaters."""
        return self.inputs * self.outputs

    @property
    def interferometers(self) -> int:
        """None."""
        return 0

    @property
    def groups(self) -> dict[str, tuple[int, int]]:
        """All channels are of one kind."""
        return {"ring": (0, self.channels)}


@dataclass(frozen=True)
class Ring:
    """What all rings of a bank have in common.

    Parameters
    ----------
    finesse
        Free spectral range over full width of the resonance at half its height.
    drop_loss_db
        What a ring in resonance loses on the way to its drop port [dB].
    """

    finesse: float
    drop_loss_db: float = 0.0

    @property
    def steepness(self) -> float:
        """2F/π: detuning in half linewidths over sin(φ/2)."""
        return 2.0 * self.finesse / np.pi

    @property
    def dropped(self) -> float:
        """D: share of the power that reaches the drop port in resonance."""
        return 10.0 ** (-self.drop_loss_db / 10.0)

    @property
    def leaked(self) -> float:
        """Share that still passes through in resonance, (1 - √D)²: both couplers alike, the ring's own loss the rest."""
        return (1.0 - np.sqrt(self.dropped)) ** 2


class Transmissions(NamedTuple):
    """Shares of the power of each ring's wavelength at the row's two detectors, shape of the phases."""

    drop_port: NDArray[np.float64]
    through_port: NDArray[np.float64]

    @property
    def weights(self) -> NDArray[np.float64]:
        """What the balanced pair makes of it, in [-1, 1]."""
        return self.drop_port - self.through_port


def transmissions(phase_rad: NDArray[np.float64], ring: Ring) -> Transmissions:
    """Return what rings send to drop and through port at round-trip phases [rad].

    A Lorentzian in the detuning, x = (2F/π)·sin(φ/2) half linewidths: drop = D/(1 + x²), through = (leak + x²)/(1 + x²). The
    sine repeats it every free spectral range; near resonance x = φ·F/π. Source: Bogaerts et al., Laser Photonics Rev. 6, 47
    (2012), an add-drop ring with equal couplers at high finesse.
    """
    x2 = (ring.steepness * np.sin(phase_rad / 2.0)) ** 2
    return Transmissions(ring.dropped / (1.0 + x2), (ring.leaked + x2) / (1.0 + x2))


def transmission_slopes(phase_rad: NDArray[np.float64], ring: Ring) -> Transmissions:
    """Return the derivatives of `transmissions` by the phases [1/rad]."""
    x2 = (ring.steepness * np.sin(phase_rad / 2.0)) ** 2
    # d(x²)/dφ = (2F/π)² · sin(φ)/2
    common = ring.steepness**2 * np.sin(phase_rad) / 2.0 / (1.0 + x2) ** 2
    return Transmissions(-ring.dropped * common, (1.0 - ring.leaked) * common)


def phases_of(weights: NDArray[np.float64], ring: Ring) -> NDArray[np.float64]:
    """Return the phases in [0, π] [rad] at which rings have these weights: the inverse of `transmissions`.

    Raises
    ------
    ValueError
        For a weight that no detuning gives.
    """
    # w = (D - leak - x²)/(1 + x²)
    top = ring.dropped - ring.leaked
    lowest = (top - ring.steepness**2) / (1.0 + ring.steepness**2)
    low, high = float(np.min(weights)), float(np.max(weights))
    if not (lowest <= low and high <= top):
        wrong = high if high > top else low
        raise ValueError(f"weight {wrong:.6g} is outside what these rings give, {lowest:.6g} to {top:.6g}")
    x = np.sqrt((top - weights) / (1.0 + weights))
    return 2.0 * np.arcsin(np.minimum(x / ring.steepness, 1.0))
