"""Variables and their bounds: nominal heater phases [rad], and the conversion to a drive [V].

A variable is a *nominal heater phase* x = π · P / P_π, with the power P of one heater and the nominal P_π of the device
description: the phase of a heater that is as designed and has no offset. The true phase of an uncalibrated heater
differs by its own P_π and its unknown offset. Training by probes does not need to know them.
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
"""Share of the total heater power that variables may use. The rest is for the probes around them."""


@dataclass(frozen=True)
class Bounds:
    """Bounds of the variables of one stage.

    Parameters
    ----------
    low, high
        Bounds of every variable [rad], shape (channels,).
    total
        Highest sum of the stage's variables [rad], its share of the total heater power; infinity if there is no limit.
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
    """Return the phase [rad] of one DAC step around V_π, dφ = 2π·dV/V_π; 0 for a continuous source."""
    pi_v = np.sqrt(drive.pi_power_w * drive.resistance_ohm)
    return float(2 * np.pi * drive.lsb_v / pi_v)


def stage_bounds(
    description: DeviceDescription, stage: StageDescription, extent_rad: float | Phases, reserve_rad: float = 0.0
) -> Bounds:
    """Return the bounds of the variables of `stage`, such that probes around them are within the limits of the device.

    Parameters
    ----------
    description, stage
        The device and its stage.
    extent_rad
        How far a probe moves each phase to either side [rad]: one number, or one per channel of the stage.
    reserve_rad
        A larger extent to be assumed for the total power only.

    Raises
    ------
    ValueError
        The limits leave less than 2·`extent_rad` of range.

    Notes
    -----
    The signs of a probe cancel in the total power on average only. The bounds leave room for five standard deviations
    of their sum.
    """
    ceiling_v = highest_drive_v(description, stage.first_channel, stage.channels)
    # Slightly inside: the conversion to volts rounds, and the device would refuse a drive above its limit.
    high = phases_of_drive(ceiling_v, description.drive) * (1 - 1e-9) - extent_rad
    low = np.full(stage.channels, float(phases_of_drive(np.array(description.drive.min_v), description.drive))) + extent_rad
    if np.any(high <= low):
        raise ValueError(
            f"probes of {np.max(extent_rad):.3g} rad leave no range within the drive limits of stage {stage.name}: "
            "use a shorter step"
        )
    limit_w = description.limits.total_power_w
    share_w = limit_w * POWER_SHARE * stage.channels / description.channels if limit_w > 0 else np.inf
    spread = 5 * float(np.linalg.norm(np.broadcast_to(np.maximum(extent_rad, reserve_rad), stage.channels)))
    total = np.pi * share_w / description.drive.pi_power_w - spread
    if total < float(low.sum()):
        raise ValueError(
            f"probes of {np.max(extent_rad):.3g} rad heat stage {stage.name} beyond its share of total_power_w {limit_w:.3g}: "
            "use a shorter step"
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
        The limit of total power leaves no room for any step.
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
    """Return starting variables, uniform over 2π or over the bounds if these are narrower, shape (channels,)."""
    width = np.minimum(2 * np.pi, bounds.high - bounds.low)
    return project(bounds.low + width * rng.random(bounds.low.size), bounds)


def reflect(phases: Phases, bounds: Bounds) -> Phases:
    """Return `phases`, shape (…, channels), with values outside the bounds reflected at them."""
    below, above = phases < bounds.low, phases > bounds.high
    if not (below.any() or above.any()):
        return phases
    outside = below | above
    # Usually a few of thousands: only these are computed.
    low, width = (np.broadcast_to(bound, phases.shape)[outside] for bound in (bounds.low, bounds.high - bounds.low))
    folded = np.mod(phases[outside] - low, 2 * width)
    inside = phases.copy()
    inside[outside] = low + np.where(folded > width, 2 * width - folded, folded)
    return inside


def project(phases: Phases, bounds: Bounds) -> Phases:
    """Return `phases` reflected into the bounds, and scaled towards the lower bounds if they exceed `bounds.total`.

    Reflection keeps a random walk uniform; clipping would make it accumulate at the bounds. Wrapping by 2π would need a
    calibrated chip.
    """
    inside = reflect(phases, bounds)
    excess, floor = float(inside.sum()), float(bounds.low.sum())
    if excess > bounds.total:
        inside = bounds.low + (inside - bounds.low) * ((bounds.total - floor) / (excess - floor))
    return inside
