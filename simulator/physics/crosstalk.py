"""Thermal crosstalk: heat that reaches other shifters of the same stage, a sparse matrix on heater power.

Heaters lie on a lattice of half columns along the light and modes across it (`CrosstalkParameters`):

    mode 0   ──[φ]────[θ]──────────────── …        ◀─ column_pitch / 2 ─▶   from one heater of a column to the next
    mode 1   ──────────────[φ]────[θ]──── …
    mode 2   ──[φ]────[θ]──────────────── …        ▲ mode_pitch ▼           from mode to mode

A weight bank's rings lie half a column pitch apart along their row, rows one mode pitch. Either way the lattice is regular,
so that pairs of like distance lie in straight lines, also in the order of the channels: the matrix is kept as runs of
neighbouring channels that feel the same share of as many other neighbouring channels, added up a vector at a time.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from photonloop.simulator.parameters import CrosstalkParameters
from photonloop.simulator.physics.mesh import Mesh
from photonloop.simulator.physics.weight_bank import WeightBank


class Pairs(NamedTuple):
    """Which channel feels which: `crosstalk_power_w[to] += share · power_w[source]`; all of shape (pairs,), by `to`, then `source`."""

    to: NDArray[np.int64]
    source: NDArray[np.int64]
    share: NDArray[np.float64]


class Runs(NamedTuple):
    """Pairs whose `to` and `source` go up together, for the kernels.

    Parameters
    ----------
    span
        int64 (runs, 3): first `to`, one past the last, first `source`.
    share
        (runs,), share of the whole run.
    bounds
        Runs bounds[c] … bounds[c + 1] - 1 lie in chunk c of the channels; none crosses from one chunk to the next.
    """

    span: NDArray[np.int64]
    share: NDArray[np.float64]
    bounds: NDArray[np.int64]


def lattice(mesh: Mesh) -> NDArray[np.int64]:
    """Return where each channel's heater lies, [half column, mode], shape (channels, 2)."""
    order = np.argsort(mesh.theta), np.argsort(mesh.phi)
    theta = np.stack((2 * mesh.column + 1, mesh.top), axis=1)[order[0]]
    phi = np.stack((2 * mesh.column, mesh.top), axis=1)[order[1]]
    last = 2 * (int(mesh.column.max()) + 1)
    gamma = np.stack((np.full(mesh.gammas, last), np.arange(mesh.gammas)), axis=1)
    return np.concatenate((theta, phi, gamma))


def bank_lattice(bank: WeightBank) -> NDArray[np.int64]:
    """Return where each ring's heater lies: half a column pitch from one to the next along a row, rows a mode pitch apart."""
    row, ring = np.divmod(np.arange(bank.channels), bank.inputs)
    return np.stack((ring, row), axis=1)


def pairs(places: NDArray[np.int64], crosstalk: CrosstalkParameters) -> Pairs:
    """Return all pairs of heaters within reach of each other; `places` as from `lattice`, no two alike."""
    found: list[tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.float64]]] = []
    if crosstalk.fraction > 0:
        half_m, mode_m = crosstalk.column_pitch_m / 2, crosstalk.mode_pitch_m
        # Rounding must not decide whether a neighbour just within reach belongs.
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
    """Return the power [W] that each shifter feels: its own and its share of the others'. The slow, plain way."""
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
