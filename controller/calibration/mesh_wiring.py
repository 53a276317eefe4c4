"""Test of the wiring of a mesh: which heater each source drives, where each fibre enters, and which couplers split.

The overlaps of the measured modes (`channel_modes`) are compared with those that follow from the layout
(`mode_relations`). Wrong overlaps are explained by two exchanged sources, two exchanged fibres, or a coupler that does
not split: the explanation that lowers the sum of squares most, again and again until none lowers it much.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from photonloop.controller.calibration.channel_modes import CLOSE, LEAST_RESPONSE, ChannelModes
from photonloop.controller.calibration.mode_relations import ModeRelations, mode_relations
from photonloop.controller.calibration.twin_layout import TwinLayout

Array = NDArray[np.float64]
Complex = NDArray[np.complex128]

SIGMA = 0.03
"""Standard deviation of a measured overlap: couplers, noise, and steps that are not exactly π."""

CAP = 50.0
"""Largest contribution of one overlap to the sum of squares."""

CANDIDATES = 4
"""Exchanges that are examined closely at a time."""

MOST_EXPLANATIONS = 12
"""Largest number of explanations."""

LEAST_GAIN = 45.0
"""Least gain of an explanation, per measurement of the modes. Noise gives up to 36, and most defects 90 or more."""


@dataclass(frozen=True)
class WiringTest:
    """Result of the test.

    Parameters
    ----------
    heaters, inputs
        Pairs of exchanged channels within the stage, and of exchanged input fibres.
    couplers
        Interferometer, coupler (0 or 1) and share of light that stays in its arm (½ in a sound one; NaN: not known).
    """

    heaters: tuple[tuple[int, int], ...]
    inputs: tuple[tuple[int, int], ...]
    couplers: tuple[tuple[int, int, float], ...]


def find_wiring(layout: TwinLayout, measured: Sequence[ChannelModes]) -> WiringTest:
    """Explain measured modes by exchanges and broken couplers.

    Parameters
    ----------
    layout
        The stage.
    measured
        Modes at one or more settings: one is enough for 8 ports; meshes of 4 ports have few overlaps and need three.
    """
    relations, place = mode_relations(layout), np.arange(layout.channels + 2 * layout.ports)
    dependent = _by_coupler(layout, relations)
    heaters, inputs, couplers = [], [], []
    for _ in range(MOST_EXPLANATIONS):
        chosen = [_chosen(each, relations, place, layout) for each in measured]
        swapped, gain = _best_swap(layout, measured, chosen, relations, place)
        coupler, coupler_gain = _best_coupler(chosen, relations, place, dependent)
        if max(gain, coupler_gain) < LEAST_GAIN * len(measured):
            break
        if coupler_gain > gain:
            couplers.append((*coupler, _share(layout, chosen, place, coupler)))
            relations = ModeRelations(relations.expected, relations.exact & ~dependent[coupler])
            continue
        place = _exchanged(place, swapped)
        if max(swapped) < layout.channels:
            heaters.append(swapped)
        else:
            inputs.append((swapped[0] - layout.channels, swapped[1] - layout.channels))
    return WiringTest(tuple(heaters), tuple(inputs), tuple(couplers))


def _exchanged(place: NDArray[np.int64], pair: tuple[int, int]) -> NDArray[np.int64]:
    found = place.copy()
    found[list(pair)] = place[list(pair[::-1])]
    return found


def _total(chosen: Sequence[Complex], relations: ModeRelations, place: NDArray[np.int64]) -> float:
    return 0.5 * sum(float(_losses(modes, relations, place).sum()) for modes in chosen)


def _by_coupler(layout: TwinLayout, relations: ModeRelations) -> dict[tuple[int, int], NDArray[np.bool_]]:
    """Return, for each coupler, which overlaps change if it does not split."""
    found = {}
    for k in range(layout.interferometers):
        for coupler in (0, 1):
            other = mode_relations(layout, (k, coupler))
            found[k, coupler] = relations.exact & (~other.exact | (np.abs(other.expected - relations.expected) > 1e-6))
    return found


def _usable(modes: Complex) -> NDArray[np.bool_]:
    return np.any(modes != 0, axis=1)


def _chosen(measured: ChannelModes, relations: ModeRelations, place: NDArray[np.int64], layout: TwinLayout) -> Complex:
    """Return the modes of all labels, with the option of each channel that fits its place best; 0: not usable."""
    inputs = np.eye(layout.ports, dtype=np.complex128)
    modes = np.concatenate((measured.modes[:, 0], inputs, measured.outputs))
    live = np.flatnonzero(measured.response > LEAST_RESPONSE)
    modes[: layout.channels] = 0.0
    modes[live] = measured.modes[live, np.argmin(measured.errors[live], axis=1)]
    for _ in range(2):
        for channel in live.tolist():
            costs = _costs(measured, channel, modes, relations, place, place[channel : channel + 1])
            modes[channel] = measured.modes[channel, int(np.argmin(costs))]
    return modes


def _costs(
    measured: ChannelModes,
    channel: int,
    modes: Complex,
    relations: ModeRelations,
    place: NDArray[np.int64],
    tried: NDArray[np.int64],
) -> Array:
    """Return the sum of squares of one channel for each option at each of the `tried` places, (options, places)."""
    others = _usable(modes)
    others[channel] = False
    overlaps = np.abs(measured.modes[channel].conj() @ modes[others].T) ** 2
    expected, exact = (part[np.ix_(tried, place[others])] for part in (relations.expected, relations.exact))
    losses = np.minimum(((overlaps[:, None] - expected) / SIGMA) ** 2, CAP) * exact
    errors = measured.errors[channel]
    return np.where(errors[:, None] > errors.min() + CLOSE, np.inf, losses.sum(axis=2))


def _losses(modes: Complex, relations: ModeRelations, place: NDArray[np.int64]) -> Array:
    usable = _usable(modes)
    overlaps = np.abs(modes.conj() @ modes.T) ** 2
    expected, exact = (part[np.ix_(place, place)] for part in (relations.expected, relations.exact))
    return np.minimum(((overlaps - expected) / SIGMA) ** 2, CAP) * exact * np.outer(usable, usable)


def _best_swap(
    layout: TwinLayout,
    measured: Sequence[ChannelModes],
    chosen: Sequence[Complex],
    relations: ModeRelations,
    place: NDArray[np.int64],
) -> tuple[tuple[int, int], float]:
    """Return the exchange of two channels or of two inputs that lowers the sum of squares most, and by how much."""
    labels = layout.channels + layout.ports
    cost = np.zeros((labels, len(place)))
    for each, modes in zip(measured, chosen, strict=True):
        for label in np.flatnonzero(_usable(modes)[:labels]).tolist():
            if label < layout.channels:
                cost[label] += _costs(each, label, modes, relations, place, np.arange(len(place))).min(axis=0)
                continue
            others = _usable(modes)
            others[label] = False
            overlaps = np.abs(modes[label].conj() @ modes[others].T) ** 2
            losses = np.minimum(((overlaps - relations.expected[:, place[others]]) / SIGMA) ** 2, CAP)
            cost[label] += (losses * relations.exact[:, place[others]]).sum(axis=1)
    at = cost[np.arange(labels)[:, None], place[np.arange(labels)]]
    own = np.diagonal(at)
    gain = own[:, None] + own - at - at.T
    kind = np.arange(labels) >= layout.channels
    live = np.any([_usable(modes)[:labels] for modes in chosen], axis=0)
    gain[(kind[:, None] != kind) | ~np.outer(live, live)] = -np.inf
    gain[np.tril_indices(labels)] = -np.inf
    # These gains take the modes of the others as given. The best candidates are computed with the modes that fit then.
    before, found = _total(chosen, relations, place), []
    for number in np.argsort(-gain, axis=None)[:CANDIDATES]:
        one, other = divmod(int(number), labels)
        after = _exchanged(place, (one, other))
        found.append(
            (before - _total([_chosen(each, relations, after, layout) for each in measured], relations, after), one, other)
        )
    best, one, other = max(found)
    return (one, other), best


def _best_coupler(
    chosen: Sequence[Complex],
    relations: ModeRelations,
    place: NDArray[np.int64],
    dependent: dict[tuple[int, int], NDArray[np.bool_]],
) -> tuple[tuple[int, int], float]:
    """Return the coupler whose overlaps are worst, and their sum of squares beyond that of noise."""
    losses = [_losses(modes, relations, place) for modes in chosen]
    gains = {
        coupler: 0.5 * sum(float((each * mask[np.ix_(place, place)]).sum()) for each in losses)
        for coupler, mask in dependent.items()
    }
    best = max(gains, key=gains.__getitem__)
    return best, gains[best] - len(chosen) * 0.5 * float((relations.exact & dependent[best]).sum())


def _share(layout: TwinLayout, chosen: Sequence[Complex], place: NDArray[np.int64], coupler: tuple[int, int]) -> float:
    """Return the share of light that stays in its arm at a coupler: the overlap of the modes before and behind it."""
    k, number = coupler
    theta = int(np.flatnonzero(place == layout.theta[k])[0])
    if number == 0:
        before = int(np.flatnonzero(place == layout.phi[k])[0])
        return float(np.mean([np.abs(np.vdot(modes[before], modes[theta])) ** 2 for modes in chosen]))
    return float("nan")
