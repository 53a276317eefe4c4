"""Light in a row of add-drop rings: shares of every wavelength at both detectors, and their derivatives.

A ring couples four amplitudes. From the left arrives f on the row, from the right g on the drop bus; to the left leaves
G on the drop bus, to the right F on the row:

    G = d · f + t · g,   F = t · f + d · g

    t = r (1 - a e^{iψ}) / (1 - r² a e^{iψ}),   d = -(1 - r²) √a e^{iψ/2} / (1 - r² a e^{iψ})

with the field transmissions r of a coupler and a of a round trip, and its phase ψ [1]_. So a row is like a stack of
partly reflecting layers: light that one ring drops meets the rings before it again, on the drop bus. The share at the
drop detector is |R|², that at the through detector |T|², with the reflection R and the transmission T of the stack.

Derivatives follow from reciprocity: scattering matrices are symmetric. A change δS of one element gives δR = aᵀ δS a
and δT = bᵀ δS a, with the amplitudes a and b that arrive at it for light from the left and from the right.

References
----------
.. [1] W. Bogaerts et al., "Silicon microring resonators", Laser Photonics Rev. 6, 47 (2012), section 2.2.
.. [2] A. N. Tait et al., "Microring weight banks", IEEE J. Sel. Top. Quantum Electron. 22, 5900214 (2016): several
   rings between two waveguides, and their interference.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
Complex = NDArray[np.complex128]


@dataclass(frozen=True)
class RowShares:
    """Shares of each wavelength at both detectors of rows, with derivatives.

    Parameters
    ----------
    dropped, passed
        Shares at the drop detector and at the through detector, shape (…, M).
    by_ring
        Derivatives by the phase of each ring for this wavelength, (2, …, M, rings): dropped, then passed.
    by_bus
        Derivatives by the phase behind each ring, (2, …, M, rings); the last one is 0.
    by_coupler, by_loss
        Derivatives by the power that a coupler transfers, and by the round-trip loss in dB, (2, …, M).
    """

    dropped: Array
    passed: Array
    by_ring: Array
    by_bus: Array
    by_coupler: Array
    by_loss: Array


@dataclass(frozen=True)
class RingAmplitudes:
    """t and d of rings, and their derivatives by the phase, by the coupler's share and by the loss in dB."""

    t: Complex
    d: Complex
    t_by: tuple[Complex, Complex, Complex]
    d_by: tuple[Complex, Complex, Complex]


def ring_amplitudes(phase_rad: Array, coupler_share: float, round_trip_db: float) -> RingAmplitudes:
    """Return the amplitudes of add-drop rings with two equal couplers at round-trip phases ψ."""
    r2, a = 1.0 - coupler_share, 10.0 ** (-round_trip_db / 20.0)
    r, wave, half = np.sqrt(r2), np.exp(1j * phase_rad), np.exp(0.5j * phase_rad)
    inverse = 1.0 / (1.0 - r2 * a * wave)
    t, d = r * (1.0 - a * wave) * inverse, -coupler_share * np.sqrt(a) * half * inverse
    # By r² and by a; r² falls with the coupler's share.
    t_by_r2, d_by_r2 = t * (0.5 / r2 + a * wave * inverse), np.sqrt(a) * half * inverse + d * a * wave * inverse
    t_by_a, d_by_a = (r2 - 1.0) * r * wave * inverse**2, d * (0.5 / a + r2 * wave * inverse)
    a_by_db = -np.log(10.0) / 20.0 * a
    return RingAmplitudes(
        t,
        d,
        (1j * r * a * (r2 - 1.0) * wave * inverse**2, -t_by_r2, t_by_a * a_by_db),
        (1j * d * (0.5 + r2 * a * wave * inverse), -d_by_r2, d_by_a * a_by_db),
    )


def row_shares(phase_rad: Array, bus_rad: Array, coupler_share: float, round_trip_db: float, only_own: bool = False) -> RowShares:
    """Return the shares of rows.

    Parameters
    ----------
    phase_rad
        Phase of each ring for each wavelength, shape (…, M, rings).
    bus_rad
        Phase of the waveguides behind each ring, there and back, for each wavelength, same shape. The last ring's does
        not matter.
    coupler_share, round_trip_db
        Properties of all rings (`RingValues`).
    only_own
        True if ring m acts on wavelength m only.
    """
    ring = ring_amplitudes(phase_rad, coupler_share, round_trip_db)
    acts = np.eye(phase_rad.shape[-1]) if only_own else np.ones(phase_rad.shape[-2:])
    t, d = np.where(acts, ring.t, 1.0), np.where(acts, ring.d, 0.0)
    left, right, (reflected, passed) = _amplitudes(t, d, np.exp(0.5j * bus_rad))
    (f, g, ahead), (f_back, g_back, ahead_back) = left, right
    # Derivatives of R and T by d, by t and by the phase behind each ring.
    by_d, by_t = np.stack((f**2 + g**2, f * f_back + g * g_back)), np.stack((2 * f * g, f * g_back + g * f_back))
    bus = 1j * np.stack((ahead * g, 0.5 * (ahead_back * g + ahead * g_back)))
    bus[..., -1] = 0.0
    ends = 2.0 * np.stack((reflected, passed)).conj()
    by_ring, by_coupler, by_loss = (
        acts * (ends[..., np.newaxis] * (by_d * d_by + by_t * t_by)).real for t_by, d_by in zip(ring.t_by, ring.d_by, strict=True)
    )
    return RowShares(
        dropped=np.abs(reflected) ** 2,
        passed=np.abs(passed) ** 2,
        by_ring=by_ring,
        by_bus=(ends[..., np.newaxis] * bus).real,
        by_coupler=by_coupler.sum(axis=-1),
        by_loss=by_loss.sum(axis=-1),
    )


_Amplitudes = tuple[Complex, Complex, Complex]


def _amplitudes(t: Complex, d: Complex, between: Complex) -> tuple[_Amplitudes, _Amplitudes, tuple[Complex, Complex]]:
    """Return f, g and F at every ring for light from the left and from the right, and the row's R and T.

    `between`: field phasor of the way from each ring to the next one, in one direction.
    """
    rings = t.shape[-1]
    behind, ahead = np.zeros_like(t), np.zeros_like(t)  # reflection of all that follows a ring, and of all before it
    for m in range(rings - 2, -1, -1):
        follows = d[..., m + 1] + t[..., m + 1] ** 2 * behind[..., m + 1] / (1 - d[..., m + 1] * behind[..., m + 1])
        behind[..., m] = between[..., m] ** 2 * follows
    for m in range(1, rings):
        before = d[..., m - 1] + t[..., m - 1] ** 2 * ahead[..., m - 1] / (1 - d[..., m - 1] * ahead[..., m - 1])
        ahead[..., m] = between[..., m - 1] ** 2 * before
    f, out_right = np.ones_like(t), np.empty_like(t)
    g_back, out_left = np.ones_like(t), np.empty_like(t)
    for m in range(rings):
        out_right[..., m] = t[..., m] * f[..., m] / (1 - d[..., m] * behind[..., m])
        if m < rings - 1:
            f[..., m + 1] = between[..., m] * out_right[..., m]
    for m in range(rings - 1, -1, -1):
        out_left[..., m] = t[..., m] * g_back[..., m] / (1 - d[..., m] * ahead[..., m])
        if m > 0:
            g_back[..., m - 1] = between[..., m - 1] * out_left[..., m]
    g, f_back = behind * out_right, ahead * out_left
    reflected = d[..., 0] * f[..., 0] + t[..., 0] * g[..., 0]
    from_right = d * g_back + t * f_back
    return (f, g, out_right), (f_back, g_back, from_right), (reflected, out_right[..., -1])
