"""Between what is learned and what is sent: nominal heater phases [rad] and volts.

A learned variable is the *nominal heater phase* x = π · P / P_π, with the power P of one heater and the description's
nominal P_π: what the phase would be if the heater were as designed and its offset zero. The true phase of an uncalibrated
heater differs by its own P_π and its unknown offset, which learning by probing does not need to know.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from photonloop.protocols.device import DeviceDescription, Drive, DriveDescription, StageDescription
from photonloop.protocols.limits import highest_drive_v

Phases = NDArray[np.float64]
"""Nominal heater phases [rad], shape (channels,) or (settings, channels)."""

POWER_SHARE = 0.98
"""Share of the device's total heater power that variables may use: the rest is room for probes around them."""


@dataclass(frozen=True)
class Bounds:
    """Where the variables of one stage may live.

    Parameters
    ----------
    low, high
        Bounds of every variable [rad], shape (channels,).
    total
        Highest sum over the stage's variables [rad]: its share of the total heater power; infinity where there is none.
    """

    low: Phases
    high: Phases
    total: float


def to_drive(phases: Phases, drive: DriveDescription) -> Drive:
    """Return the drive [V] that gives nominal phases, V = √(x/π · P_π · R); shape as `phases`."""
    return np.sqrt(phases * (drive.pi_power_w * drive.resistance_ohm / np.pi))


def phases_of_drive(drive_v: Drive, drive: DriveDescription) -> Phases:
    """Return the nominal phases [rad] of a drive [V]: the inverse of `to_drive`."""
    return np.square(drive_v) * (np.pi / (drive.pi_power_w * drive.resistance_ohm))


def lsb_rad(drive: DriveDescription) -> float:
    """Return the phase [rad] of one step of the drive source around V_π, dφ = 2π·dV/V_π; 0 where it is continuous."""
    pi_v = np.sqrt(drive.pi_power_w * drive.resistance_ohm)
    return float(2 * np.pi * drive.step_v / pi_v)


def stage_bounds(
    description: DeviceDescription, stage: StageDescription, reach_rad: float | Phases, reserve_rad: float = 0.0
) -> Bounds:
    """Return where variables of `stage` may live so that a probe `reach_rad` to either side stays inside every limit.

    `reach_rad` is one number, or one for every channel of the stage.

    Signs of a probe cancel in the total power only on average: room is left for five deviations of their sum, at a step of
    `reach_rad` or, where that is larger, `reserve_rad`.

    Raises
    ------
    ValueError
        The limits leave less than 2·`reach_rad` of range.
    """
    ceiling_v = highest_drive_v(description, stage.first_channel, stage.channels)
    # The volt is computed from the phase and back with rounding: a hair inside, or the limit itself would be refused.
    high = phases_of_drive(ceiling_v, description.drive) * (1 - 1e-9) - reach_rad
    low = np.full(stage.channels, float(phases_of_drive(np.array(description.drive.min_v), description.drive))) + reach_rad
    if np.any(high <= low):
        raise ValueError(f"a step of {np.max(reach_rad):.3g} rad leaves no room within the drive limits of stage {stage.name}")
    limit_w = description.limits.total_power_w
    share_w = limit_w * POWER_SHARE * stage.channels / description.channels if limit_w > 0 else np.inf
    spread = 5 * float(np.linalg.norm(np.broadcast_to(np.maximum(reach_rad, reserve_rad), stage.channels)))
    total = np.pi * share_w / description.drive.pi_power_w - spread
    if total < float(low.sum()):
        raise ValueError(
            f"a step of {np.max(reach_rad):.3g} rad heats stage {stage.name} beyond its share of total_power_w {limit_w:.3g}"
        )
    return Bounds(low=low, high=high, total=float(total))


def longest_with_room(
    description: DeviceDescription, stage: StageDescription, probe_extent: Callable[[float], Phases], step_rad: float
) -> float:
    """Return `step_rad`, or the longest shorter step that leaves variables half their range.

    `probe_extent` must be proportional to the step.

    Raises
    ------
    ValueError
        The total power leaves no room for any step.
    """
    widest = stage_bounds(description, stage, 0.0)
    share = float(np.max(4.0 * probe_extent(step_rad) / (widest.high - widest.low)))
    longest = step_rad / max(1.0, share)
    while True:
        try:
            stage_bounds(description, stage, probe_extent(longest))
        except ValueError:
            longest *= 0.8
            if longest < 1e-6 * step_rad:
                raise
        else:
            return longest


def start_variables(bounds: Bounds, rng: np.random.Generator) -> Phases:
    """Return starting variables, uniform over one turn of phase (less where the box is narrower), shape (channels,)."""
    width = np.minimum(2 * np.pi, bounds.high - bounds.low)
    return project(bounds.low + width * rng.random(bounds.low.size), bounds)


def reflect(phases: Phases, bounds: Bounds) -> Phases:
    """Return `phases`, shape (…, channels), reflected at the bounds of the box; untouched where they lie inside."""
    below, above = phases < bounds.low, phases > bounds.high
    if not (below.any() or above.any()):
        return phases
    outside = below | above
    # A handful of thousands, usually: the rest need no arithmetic.
    low, width = (np.broadcast_to(bound, phases.shape)[outside] for bound in (bounds.low, bounds.high - bounds.low))
    folded = np.mod(phases[outside] - low, 2 * width)
    inside = phases.copy()
    inside[outside] = low + np.where(folded > width, 2 * width - folded, folded)
    return inside


def project(phases: Phases, bounds: Bounds) -> Phases:
    """Return `phases` reflected into the box, then, where they heat more than the stage may, all drawn towards its floor.

    Reflection keeps a random walk uniform where clipping would pile it up at the bounds; wrapping by 2π needs a calibration.
    """
    inside = reflect(phases, bounds)
    excess, floor = float(inside.sum()), float(bounds.low.sum())
    if excess > bounds.total:
        inside = bounds.low + (inside - bounds.low) * ((bounds.total - floor) / (excess - floor))
    return inside
