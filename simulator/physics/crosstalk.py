"""Thermal crosstalk: a sparse matrix from heater power to the power that each phase shifter of the same stage receives.

Heaters lie on a lattice, half columns along the direction of light and modes across it (`CrosstalkParameters`):

    mode 0   ──[φ]────[θ]──────────────── …        ◀─ column_pitch / 2 ─▶   from one heater of a column to the next
    mode 1   ──────────────[φ]────[θ]──── …
    mode 2   ──[φ]────[θ]──────────────── …        ▲ mode_pitch ▼           from mode to mode

The rings of a weight bank are half a column pitch apart along their row, and rows are one mode pitch apart. Both
lattices are regular, so channels with consecutive numbers receive the same share of power from other channels with
consecutive numbers. The matrix is stored as such runs, which the kernels add up with vector instructions.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from photonloop.simulator.parameters import CrosstalkParameters
from photonloop.simulator.physics.mesh import Mesh
from photonloop.simulator.physics.weight_bank import WeightBank


class Pairs(NamedTuple):
    """Pairs of channels with thermal crosstalk: `received_w[to] += share · power_w[source]`.

    All arrays have shape (pairs,), sorted by `to`, then `source`.
    """

    to: NDArray[np.int64]
    source: NDArray[np.int64]
    share: NDArray[np.float64]


class Runs(NamedTuple):
    """Runs of pairs with consecutive `to`, consecutive `source` and the same share, for the kernels.

    Parameters
    ----------
    span
        int64 (runs, 3): first `to`, one past the last `to`, first `source`.
    share
        Share of each run, shape (runs,).
    bounds
        Runs bounds[c] … bounds[c + 1] - 1 are in chunk c of the channels. No run extends over two chunks.
    """

    span: NDArray[np.int64]
    share: NDArray[np.float64]
    bounds: NDArray[np.int64]


def lattice(mesh: Mesh) -> NDArray[np.int64]:
    """Return the position of each channel's heater as [half column, mode], shape (channels, 2)."""
    order = np.argsort(mesh.theta), np.argsort(mesh.phi)
    theta = np.stack((2 * mesh.column + 1, mesh.top), axis=1)[order[0]]
    phi = np.stack((2 * mesh.column, mesh.top), axis=1)[order[1]]
    last = 2 * (int(mesh.column.max()) + 1)
    gamma = np.stack((np.full(mesh.gammas, last), np.arange(mesh.gammas)), axis=1)
    return np.concatenate((theta, phi, gamma))


def bank_lattice(bank: WeightBank) -> NDArray[np.int64]:
    """Return the position of each ring's heater as [half column, mode], shape (channels, 2): [ring in its row, row]."""
    row, ring = np.divmod(np.arange(bank.channels), bank.inputs)
    return np.stack((ring, row), axis=1)


def pairs(places: NDArray[np.int64], crosstalk: CrosstalkParameters) -> Pairs:
    """Return all pairs of heaters at most `reach_m` apart. `places` as from `lattice`, all different."""
    found: list[tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.float64]]] = []
    if crosstalk.fraction > 0:
        half_m, mode_m = crosstalk.column_pitch_m / 2, crosstalk.mode_pitch_m
        # A margin, so that rounding errors do not exclude a neighbour at exactly this distance.
        reach_m = crosstalk.reach_m * (1 + 1e-9)
        along, across = int(reach_m / half_m), int(reach_m / mode_m)
        size = places.max(axis=0) + 1 + 2 * np.array((along, across))
        grid = np.full(size, -1)
        grid[places[:, 0] + along, places[:, 1] + across] = np.arange(places.shape[0])
        for x in range(-along, along + 1):
            for y in range(-across, across + 1):
                distance_m = float(np.hypot(x * half_m, y * mode_m))
                if not 0.0 < distance_m <= reach_m:
                    continue
                other = grid[places[:, 0] + along + x, places[:, 1] + across + y]
                to = np.flatnonzero(other >= 0)
                share = crosstalk.fraction * (crosstalk.at_m / distance_m) ** crosstalk.exponent
                found.append((to, other[to], np.full(to.size, share)))
    if not found:
        return Pairs(np.empty(0, np.int64), np.empty(0, np.int64), np.empty(0))
    to, source, share = (np.concatenate(part) for part in zip(*found, strict=True))
    order = np.lexsort((source, to))
    return Pairs(to[order], source[order], share[order])


def crosstalk_power_w(power_w: NDArray[np.float64], pairs: Pairs) -> NDArray[np.float64]:
    """Return the power [W] that each shifter receives, from its own heater and from others, in double precision."""
    return power_w + np.bincount(pairs.to, pairs.share * power_w[pairs.source], minlength=power_w.size)


def runs(pairs: Pairs, channels: int, chunk: int) -> Runs:
    """Return `pairs` as runs within chunks of `chunk` channels."""
    offset = pairs.source - pairs.to
    order = np.lexsort((pairs.to, offset, pairs.share))
    to, offset, share = pairs.to[order], offset[order], pairs.share[order]
    breaks = (np.diff(to) != 1) | (np.diff(offset) != 0) | (np.diff(share) != 0) | (to[1:] % chunk == 0)
    first = np.concatenate(([0], np.flatnonzero(breaks) + 1)) if to.size else np.empty(0, np.int64)
    stop = np.append(first[1:], to.size) if to.size else first
    span = np.stack((to[first], to[first] + stop - first, to[first] + offset[first]), axis=1)
    by_place = np.argsort(span[:, 0], kind="stable")
    span, share = span[by_place], share[first][by_place]
    bounds = np.searchsorted(span[:, 0], np.arange(0, channels + chunk, chunk))
    return Runs(np.ascontiguousarray(span), share, bounds.astype(np.int64))
