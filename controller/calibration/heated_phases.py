"""Phases of a stage while its offsets are found one after another: what a sweep needs from the twin."""

from __future__ import annotations

import dataclasses

import numpy as np
from numpy.typing import NDArray

from photonloop.controller.calibration.column_scans import LOW_RAD, HeaterCurve
from photonloop.controller.calibration.heater_phases import heater_phases
from photonloop.controller.calibration.twin import Twin
from photonloop.controller.calibration.twin_layout import TwinLayout
from photonloop.controller.learning.variables import Bounds

Array = NDArray[np.float64]
Channels = NDArray[np.int64]

ROUNDS = 6
"""Rounds of `nominal_for`: each makes the error smaller by about the crosstalk."""


def arm_signs(layout: TwinLayout) -> Array:
    """Return 1 for channels whose heater adds to the effective phase, -1 for those on a lower arm, (channels,)."""
    signs = np.ones(layout.channels)
    for channels in (layout.theta, layout.phi):
        signs[channels] = np.where(layout.lower, -1.0, 1.0)
    return signs


def heater_curve(twin: Twin) -> HeaterCurve:
    """Return the curve of the heaters of a twin."""
    return HeaterCurve(twin.parameters.curvature, twin.parameters.self_heating)


def effective_phases(twin: Twin, nominal: Array) -> Array:
    """Return the effective phases [rad] of all channels, shape (settings, channels)."""
    return heater_phases(twin.layout, twin.parameters, twin.crosstalk, nominal).effective


def with_offsets(twin: Twin, channels: Channels, offset_rad: Array) -> Twin:
    """Return the twin with other offsets of some channels."""
    offsets = twin.parameters.offset_rad.copy()
    offsets[channels] = np.angle(np.exp(1j * offset_rad))
    return Twin(twin.layout, dataclasses.replace(twin.parameters, offset_rad=offsets))


def nominal_for(twin: Twin, nominal: Array, channels: Channels, wanted_rad: Array, bounds: Bounds) -> Array:
    """Return settings with some channels changed, so that their effective phases are `wanted_rad` modulo 2π.

    Parameters
    ----------
    twin
        The model, with the offsets as far as they are known.
    nominal
        Settings to be changed, nominal heater phases [rad], shape (settings, channels of the stage).
    channels
        Channels to be changed.
    wanted_rad
        Their effective phases [rad], shape (channels,) or (settings, channels).
    bounds
        Bounds of the nominal heater phases.
    """
    curve, kappa = heater_curve(twin), twin.parameters.kappa[channels]
    sign = arm_signs(twin.layout)[channels]
    highest = curve.phase(kappa * bounds.high[channels])
    found = nominal.copy()
    for _ in range(ROUNDS):
        missing = sign * (wanted_rad - effective_phases(twin, found)[:, channels])
        own = curve.phase(kappa * found[:, channels]) + np.remainder(missing + np.pi, 2 * np.pi) - np.pi
        own = np.where((own < 0.1) | (own > highest - 0.1), np.remainder(own - LOW_RAD, 2 * np.pi) + LOW_RAD, own)
        found[:, channels] = np.minimum(curve.nominal(own) / kappa, bounds.high[channels])
    return found


def sweep_nominals(twin: Twin, channels: Channels, points: int, bounds: Bounds, rng: np.random.Generator) -> Array:
    """Return nominal heater phases of a sweep over 2π, shape (points, channels), in a random order per channel.

    The orders differ, so that heat from a neighbour that is swept at the same time does not look like a phase.
    """
    curve = heater_curve(twin)
    top = np.minimum(curve.phase(bounds.high[channels]) - 0.1, 2 * np.pi + 0.7)
    y = 0.2 + np.linspace(0, 1, points)[:, np.newaxis] * (top - 0.2)
    return curve.nominal(rng.permuted(y, axis=0))
