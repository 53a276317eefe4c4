"""Thermal crosstalk between the segments of a regular lattice, as a convolution.

At 64 ports a reach of 3 mm connects 16 million pairs of segment and heater. In meshes whose half columns and modes are
evenly spaced, the share depends on the difference of the two positions alone. The heat that all segments receive is
then a convolution of the powers with the shares, which Fourier transforms compute in 0.5 ms per setting.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import fft

Array = NDArray[np.float64]


@dataclass(frozen=True)
class HeatLattice:
    """A lattice of segments, and the distances between them.

    Parameters
    ----------
    size
        Numbers of half columns and of modes.
    shape
        Shape of the Fourier transforms, with enough zeros that no heat comes round.
    ln
        ln(reference distance / distance) for each difference of positions, shape `shape`, negative differences at the
        end of each axis; -inf for a segment itself and beyond the reach.
    """

    size: tuple[int, int]
    shape: tuple[int, int]
    ln: Array


def heat_lattice(size: tuple[int, int], pitch_m: tuple[float, float], reach_m: float, reference_m: float) -> HeatLattice:
    """Return the lattice with `size` half columns and modes, evenly spaced by `pitch_m`."""
    reach = [min(count - 1, int(reach_m * (1 + 1e-9) / pitch)) for count, pitch in zip(size, pitch_m, strict=True)]
    shape = tuple(_fast(count + far) for count, far in zip(size, reach, strict=True))
    x, y = (np.fft.fftfreq(count, 1 / count) * pitch for count, pitch in zip(shape, pitch_m, strict=True))
    grid = np.meshgrid(x, y, indexing="ij")
    distance_m = np.hypot(*grid)
    occurs = (np.abs(grid[0]) < (size[0] - 0.5) * pitch_m[0]) & (np.abs(grid[1]) < (size[1] - 0.5) * pitch_m[1])
    inside = occurs & (distance_m > 0) & (distance_m <= reach_m * (1 + 1e-9))
    ln = np.where(inside, np.log(reference_m / np.where(inside, distance_m, 1.0)), -np.inf)
    return HeatLattice(size, (shape[0], shape[1]), ln)


def spectrum(lattice: HeatLattice, exponent: float, *, by_exponent: bool = False) -> Array:
    """Return the Fourier transform of the shares (reference / distance)^exponent, or of its derivative by the exponent.

    Shares are symmetric, so it is real.
    """
    inside = np.isfinite(lattice.ln)
    ln = np.where(inside, lattice.ln, 0.0)
    shares = np.where(inside, np.exp(exponent * ln) * (ln if by_exponent else 1.0), 0.0)
    return np.real(np.asarray(fft.rfft2(shares)))


def convolved(lattice: HeatLattice, values: Array, with_spectrum: Array) -> Array:
    """Return the convolution of values of all segments, (settings, segments), with shares of this spectrum."""
    grid = values.reshape(-1, *lattice.size)
    product = np.asarray(fft.rfft2(grid, lattice.shape)) * with_spectrum
    whole = np.asarray(fft.irfft2(product, lattice.shape))
    return whole[:, : lattice.size[0], : lattice.size[1]].reshape(len(grid), -1)


def _fast(count: int) -> int:
    """Return the next larger number for which Fourier transforms are fast."""
    found: Any = fft.next_fast_len(count, real=True)
    return int(found)
