"""Rows of rings: the transmission of every wavelength of a weight bank to the two detectors of a row.

    light ──▶ ═(ring 0)════(ring 1)═══ … ═══(ring M-1)═══▶ through detector
              ═(      )════(      )═══ … ═══(        )═
    drop ◀──                                                    the drop bus leads back to the first ring

Without spectral crosstalk (`weight_bank`), each wavelength meets its own ring only. With it, each ring drops a share of
what arrives, and the rest passes to the next ring. There are two models:

- Powers: all dropped light arrives at the drop detector.
- Fields (`bus_rad` is given): the rings that light on the drop bus passes on its way couple a part of it back into the
  row, and light of one wavelength that takes different paths interferes. With R the amplitude on the drop bus and T
  the amplitude behind the row, from the last ring to the first:

      R ← d + t² B/(1 - d B),  T ← t T/(1 - d B),  B = R e^{iβ},  t = r (1 - a e^{iφ})/(1 - b e^{iφ}),
                                                                  d = -(1 - r²) √a e^{iφ/2}/(1 - b e^{iφ})

  with β the phase of the waveguides between two rings, there and back. The interference changes weights by more than
  the powers do (`scripts/studies/bank_crosstalk.py`). t and d are the fields of an add-drop ring (Bogaerts et al.,
  Laser Photonics Rev. 6, 47 (2012)), and light between two rings goes back and forth as in a Fabry-Perot resonator. β
  is constant: temperature and heaters do not change it.

Double precision; `kernels.ring_shares` is the compiled version.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from photonloop.simulator.physics.weight_bank import Ring, Transmissions, transmission_slopes, transmissions

_Phases = NDArray[np.float64]


def row_transmissions(
    phase_rad: _Phases, ring: Ring, shift_rad: _Phases | None = None, bus_rad: _Phases | None = None
) -> Transmissions:
    """Return the transmissions of rows of rings for every wavelength.

    Parameters
    ----------
    phase_rad
        Phase of each ring for its own wavelength [rad], shape (rows, M).
    ring
        Properties of the rings.
    shift_rad
        Phase shift of each wavelength [rad], shape (M,); None: 0.
    bus_rad
        Phase of the waveguides between ring m and ring m + 1, there and back, for wavelength 0 [rad], shape (rows, M);
        the last one does not matter. None: no interference. Ignored without spectral crosstalk.

    Returns
    -------
        Transmissions from the input of a row to its detectors, shape (rows, M): one value per wavelength.
    """
    shift_rad = np.zeros(phase_rad.shape[-1]) if shift_rad is None else shift_rad
    if not ring.spectral_crosstalk:
        return transmissions(phase_rad + shift_rad, ring)
    seen_rad = _phases_seen(phase_rad, shift_rad)
    if bus_rad is not None:
        dropped, passed = _fields(seen_rad, ring, _bus_phasors(bus_rad, ring, shift_rad))[:2]
        return Transmissions(np.abs(dropped) ** 2, np.abs(passed) ** 2)
    single = transmissions(seen_rad, ring)
    arriving = _arriving(single.through_port)
    return Transmissions(np.sum(arriving * single.drop_port, axis=-1), np.prod(single.through_port, axis=-1))


def row_slopes(phase_rad: _Phases, ring: Ring, shift_rad: _Phases | None = None, bus_rad: _Phases | None = None) -> Transmissions:
    """Return the derivatives of `row_transmissions` by the phases [1/rad], shape (rows, wavelengths, rings)."""
    shift_rad = np.zeros(phase_rad.shape[-1]) if shift_rad is None else shift_rad
    if not ring.spectral_crosstalk:
        own = np.eye(phase_rad.shape[-1])
        slopes = transmission_slopes(phase_rad + shift_rad, ring)
        return Transmissions(slopes.drop_port[..., np.newaxis] * own, slopes.through_port[..., np.newaxis] * own)
    seen_rad = _phases_seen(phase_rad, shift_rad)
    if bus_rad is not None:
        dropped, passed, by_drop, by_pass = _fields(seen_rad, ring, _bus_phasors(bus_rad, ring, shift_rad))
        return Transmissions(
            2.0 * (dropped[..., np.newaxis].conj() * by_drop).real, 2.0 * (passed[..., np.newaxis].conj() * by_pass).real
        )
    single, slopes = transmissions(seen_rad, ring), transmission_slopes(seen_rad, ring)
    arriving = _arriving(single.through_port)
    # Share of the light behind ring m that the rings m + 1 … M - 1 drop, and share that passes all of them.
    dropped_later, passes_later = np.zeros_like(arriving), np.ones_like(arriving)
    for m in range(arriving.shape[-1] - 2, -1, -1):
        after = m + 1
        dropped_later[..., m] = single.drop_port[..., after] + single.through_port[..., after] * dropped_later[..., after]
        passes_later[..., m] = single.through_port[..., after] * passes_later[..., after]
    dropped = arriving * (slopes.drop_port + slopes.through_port * dropped_later)
    return Transmissions(dropped, arriving * slopes.through_port * passes_later)


_Amplitudes = NDArray[np.complex128]


def _fields(seen_rad: _Phases, ring: Ring, between: _Amplitudes) -> tuple[_Amplitudes, _Amplitudes, _Amplitudes, _Amplitudes]:
    """Return the amplitudes at a row's drop and through detectors, (rows, M), and their derivatives by the phases.

    `seen_rad` and `between`, the phasors of the waveguides behind each ring, have the shape of the derivatives, (rows,
    wavelengths, rings).
    """
    r, a, b = ring.coupler_field, ring.round_trip_field, ring.decay
    wave = np.exp(1j * seen_rad)
    inverse = 1.0 / (1.0 - b * wave)
    through = r * (1.0 - a * wave) * inverse
    dropping = -(1.0 - r**2) * np.sqrt(a) * np.exp(0.5j * seen_rad) * inverse
    by_through, by_drop = 1j * r * (b - a) * wave * inverse**2, 1j * dropping * (0.5 + b * wave * inverse)
    dropped, passed = np.zeros(seen_rad.shape[:-1], complex), np.ones(seen_rad.shape[:-1], complex)
    dropped_by, passed_by = np.zeros(seen_rad.shape, complex), np.zeros(seen_rad.shape, complex)
    for m in reversed(range(seen_rad.shape[-1])):
        t, d, by_t, by_d = (each[..., m] for each in (through, dropping, by_through, by_drop))
        back, back_by = dropped * between[..., m], dropped_by * between[..., m, np.newaxis]
        q = 1.0 / (1.0 - d * back)
        # Derivatives by the phases of later rings, which enter through `back`, then by that of ring m.
        passed_by = (t * q)[..., np.newaxis] * passed_by + (t * d * q**2 * passed)[..., np.newaxis] * back_by
        dropped_by = (t * q)[..., np.newaxis] ** 2 * back_by
        passed_by[..., m] = (by_t + t * by_d * back * q) * q * passed
        dropped_by[..., m] = by_d + 2.0 * t * by_t * back * q + (t * back * q) ** 2 * by_d
        passed, dropped = t * q * passed, d + t**2 * back * q
    return dropped, passed, dropped_by, passed_by


def _bus_phasors(bus_rad: _Phases, ring: Ring, shift_rad: _Phases) -> _Amplitudes:
    """Return e^{iβ} of the waveguides behind each ring for each wavelength, shape (rows, wavelengths, rings)."""
    count = bus_rad.shape[-1]
    wavelength_rad = 2.0 * np.pi / count * np.arange(count) + shift_rad
    return np.exp(1j * (bus_rad[..., np.newaxis, :] + ring.bus_ratio * wavelength_rad[:, np.newaxis]))


def _phases_seen(phase_rad: _Phases, shift_rad: _Phases) -> _Phases:
    """Return the round-trip phase of every wavelength at every ring [rad], shape (rows, wavelengths, rings)."""
    count = phase_rad.shape[-1]
    number = np.arange(count)
    apart_rad = 2.0 * np.pi / count * (number[:, np.newaxis] - number)
    return phase_rad[..., np.newaxis, :] + apart_rad + shift_rad[:, np.newaxis]


def _arriving(through_port: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the share of each wavelength that arrives at each ring, (…, rings), from the rings' own transmissions."""
    arriving = np.ones_like(through_port)
    np.cumprod(through_port[..., :-1], axis=-1, out=arriving[..., 1:])
    return arriving
