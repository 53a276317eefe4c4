"""Thermal crosstalk: the power that every waveguide segment of a stage receives from the heaters of the same stage.

Segments lie on a lattice, half columns along the direction of light and modes across it. Every mode passes every half
column, in the upper arm of an interferometer (where the heater is), in its lower arm, or outside interferometers:

    half column   0     1     2     3    …    last
    mode 0     ══[φ]══[θ]════════════════ … ══[γ]══      ◀─ column_pitch / 2 ─▶   from one half column to the next
    mode 1     ═══════════════[φ]══[θ]═══ … ══[γ]══
    mode 2     ══[φ]══[θ]════════════════ … ══[γ]══      ▲ mode_pitch ▼           from mode to mode

[φ], [θ], [γ]: heaters. All other segments have no heater, but they receive heat too ("induced phase shifters", arXiv
2506.05988). An attenuator is an interferometer on a single mode: the other arm of its θ has no mode of its own and lies
half a mode pitch below. The rings of a weight bank are half a column pitch apart along their row, and rows are one mode
pitch apart; a ring is the only segment at its place.

A segment at distance d from a heater receives the share fraction · (at_m / d)^exponent of its power, up to reach_m; a
heater's own segment receives all of it. If the reach is long, the shares are split into a near part, added pair by
pair, and a smooth part (`far_heat`). This module is the double-precision reference; `engine.heat_map` has the tables
for the kernels.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from photonloop.simulator.parameters import CrosstalkParameters
from photonloop.simulator.physics import far_heat
from photonloop.simulator.physics.mesh import Mesh
from photonloop.simulator.physics.weight_bank import WeightBank


@dataclass(frozen=True)
class Segments:
    """Positions of a stage's heaters and waveguide segments as [half column, mode].

    Parameters
    ----------
    size
        Number of half columns and of modes.
    heaters
        Position of each channel's heater, int64 (channels, 2), all different.
    others
        Positions of segments that are not on the lattice, (others, 2): the other arms of attenuators, in their order.
    half_column_m, mode_m
        Distance of neighbouring half columns and of neighbouring modes [m].

    Segment number x · modes + y lies at half column x on mode y. The segments in `others` come after these.
    """

    size: tuple[int, int]
    heaters: NDArray[np.int64]
    others: NDArray[np.float64]
    half_column_m: float
    mode_m: float

    @property
    def own(self) -> NDArray[np.int64]:
        """Number of the segment of each heater, shape (channels,)."""
        return self.heaters[:, 0] * self.size[1] + self.heaters[:, 1]

    @property
    def count(self) -> int:
        """Number of segments."""
        return self.size[0] * self.size[1] + self.others.shape[0]


class Pairs(NamedTuple):
    """Pairs of segment and heater: `received_w[to] += share · power_w[source]`.

    All arrays have shape (pairs,), sorted by `to`, then `source`.
    """

    to: NDArray[np.int64]
    source: NDArray[np.int64]
    share: NDArray[np.float64]


class Crosstalk(NamedTuple):
    """Thermal crosstalk of one stage: the near pairs, and the smooth rest, which is None if the reach is short."""

    segments: Segments
    near: Pairs
    far: far_heat.FarHeat | None


def lattice(mesh: Mesh) -> NDArray[np.int64]:
    """Return the position of each channel's heater as [half column, mode], shape (channels, 2)."""
    order = np.argsort(mesh.theta), np.argsort(mesh.phi)
    theta = np.stack((2 * mesh.column + 1, mesh.top), axis=1)[order[0]]
    phi = np.stack((2 * mesh.column, mesh.top), axis=1)[order[1]]
    last = 2 * (int(mesh.column.max()) + 1)
    gamma = np.stack((np.full(mesh.gammas, last), np.arange(mesh.gammas)), axis=1)
    return np.concatenate((theta, phi, gamma))


def mesh_segments(mesh: Mesh, crosstalk: CrosstalkParameters) -> Segments:
    """Return the segments of a mesh; `Segments.others` has the other arm of each attenuator's θ."""
    alone = np.flatnonzero(mesh.attenuates)
    others = np.stack((2.0 * mesh.column[alone] + 1.0, mesh.top[alone] + 0.5), axis=1).astype(np.float64)
    size = 2 * (int(mesh.column.max()) + 1) + 1, mesh.ports
    return Segments(size, lattice(mesh), others, crosstalk.column_pitch_m / 2, crosstalk.mode_pitch_m)


def bank_segments(bank: WeightBank, crosstalk: CrosstalkParameters) -> Segments:
    """Return the segments of a weight bank, one per ring, at [row, ring in its row]."""
    rings = np.stack(np.divmod(np.arange(bank.channels), bank.inputs), axis=1)
    size = bank.outputs, bank.inputs
    return Segments(size, rings, np.empty((0, 2)), crosstalk.mode_pitch_m, crosstalk.column_pitch_m / 2)


def share_at(distance_m: ArrayLike, crosstalk: CrosstalkParameters) -> NDArray[np.float64]:
    """Return the share of a heater's power that a segment at `distance_m` [m] receives; 0 at distance 0."""
    distance_m = np.asarray(distance_m, np.float64)
    # A margin, so that rounding errors do not exclude a segment at exactly this distance.
    inside = (distance_m > 0.0) & (distance_m <= crosstalk.reach_m * (1 + 1e-9))
    return np.where(inside, crosstalk.fraction * (crosstalk.at_m / np.where(inside, distance_m, 1.0)) ** crosstalk.exponent, 0.0)


def partner_share(mesh: Mesh, crosstalk: CrosstalkParameters) -> NDArray[np.float64]:
    """Return the share of each heater's power that the other arm of its own interferometer receives, (channels,).

    The other arm is one mode pitch away, for the θ of an attenuator half of it. A γ has no other arm, and neither has
    the φ of an attenuator.
    """
    n, pitch_m = mesh.interferometers, crosstalk.mode_pitch_m
    distance_m = np.zeros(mesh.channels)
    distance_m[mesh.theta] = np.where(mesh.attenuates, pitch_m / 2, pitch_m)
    distance_m[n + mesh.phi] = np.where(mesh.attenuates, 0.0, pitch_m)
    return share_at(distance_m, crosstalk)


def crosstalk_of(segments: Segments, crosstalk: CrosstalkParameters) -> Crosstalk:
    """Return the thermal crosstalk of a stage. For a large mesh this takes a lot of memory; kernels do not need it."""
    split = far_heat.split_of(segments.half_column_m, segments.mode_m, crosstalk)
    near = near_pairs(segments, crosstalk, split)
    return Crosstalk(segments, near, None if split is None else far_heat_of(segments, split, crosstalk))


def far_heat_of(segments: Segments, split: far_heat.Split, crosstalk: CrosstalkParameters) -> far_heat.FarHeat:
    """Return the coarse grid of a stage."""
    return far_heat.far_heat(segments.size, (segments.half_column_m, segments.mode_m), split, crosstalk)


def received_w(crosstalk: Crosstalk, power_w: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the power [W] that each segment receives from heaters other than its own, shape (segments,)."""
    segments, near = crosstalk.segments, crosstalk.near
    found = np.bincount(near.to, near.share * power_w[near.source], minlength=segments.count).astype(np.float64)
    if crosstalk.far is not None:
        found += far_heat.received(crosstalk.far, segments.heaters.astype(np.float64), power_w, positions(segments))
    return found


def received_transposed(crosstalk: Crosstalk, by_segment: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return derivatives by the power of each heater, (channels,), from those by received power, (segments,)."""
    segments, near = crosstalk.segments, crosstalk.near
    found = np.bincount(near.source, near.share * by_segment[near.to], minlength=segments.heaters.shape[0]).astype(np.float64)
    if crosstalk.far is not None:
        found += far_heat.received(crosstalk.far, positions(segments), by_segment, segments.heaters.astype(np.float64))
    return found


def positions(segments: Segments) -> NDArray[np.float64]:
    """Return the position of every segment as [half column, mode], shape (segments, 2)."""
    x, y = np.divmod(np.arange(segments.size[0] * segments.size[1]), segments.size[1])
    return np.concatenate((np.stack((x, y), axis=1).astype(np.float64), segments.others))


def near_shares(
    distance_m: NDArray[np.float64], crosstalk: CrosstalkParameters, split: far_heat.Split | None
) -> NDArray[np.float64]:
    """Return the near part of the share at distances [m]: all of it, or without the smooth part if it is split."""
    whole = share_at(distance_m, crosstalk)
    if split is None:
        return whole
    return np.where(distance_m < split.near_m, whole - far_heat.smooth_share(distance_m, crosstalk, split.near_m), 0.0)


def near_offsets(
    segments: Segments, crosstalk: CrosstalkParameters, split: far_heat.Split | None, shift: float
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return all offsets [half columns, modes] of heaters within the near part of a segment, (offsets, 2), and shares.

    `shift`: position of the segment below its mode, in mode pitches; 0 or 0.5.
    """
    reach_m = crosstalk.reach_m * (1 + 1e-9) if split is None else split.near_m
    along, across = int(reach_m / segments.half_column_m), int(reach_m / segments.mode_m) + 1
    x, y = np.meshgrid(np.arange(-along, along + 1), np.arange(-across, across + 1) - shift, indexing="ij")
    offsets = np.stack((x.ravel(), y.ravel()), axis=1).astype(np.float64)
    distance_m = np.hypot(offsets[:, 0] * segments.half_column_m, offsets[:, 1] * segments.mode_m)
    share = near_shares(distance_m, crosstalk, split)
    return offsets[share != 0.0], share[share != 0.0]


def near_pairs(segments: Segments, crosstalk: CrosstalkParameters, split: far_heat.Split | None) -> Pairs:
    """Return all pairs of segment and heater in the near part."""
    found: list[tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.float64]]] = []
    at = np.full(segments.size, -1)
    at[segments.heaters[:, 0], segments.heaters[:, 1]] = np.arange(segments.heaters.shape[0])
    places = positions(segments)
    for shift in np.unique(places[:, 1] % 1.0):
        here = np.flatnonzero(places[:, 1] % 1.0 == shift)
        for offset, share in zip(*near_offsets(segments, crosstalk, split, float(shift)), strict=True):
            x, y = np.rint(places[here] + offset).astype(np.int64).T
            inside = (x >= 0) & (x < segments.size[0]) & (y >= 0) & (y < segments.size[1])
            source = at[x[inside], y[inside]]
            to = here[inside][source >= 0]
            found.append((to, source[source >= 0], np.full(to.size, share)))
    if not found:
        return Pairs(np.empty(0, np.int64), np.empty(0, np.int64), np.empty(0))
    to, source, share = (np.concatenate(part) for part in zip(*found, strict=True))
    order = np.lexsort((source, to))
    return Pairs(to[order], source[order], share[order])
