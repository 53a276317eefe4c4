"""The start of a layer: bounds of its variables, and its probe step."""

from __future__ import annotations

import numpy as np

from photonloop.controller.learning.estimators import Estimator
from photonloop.controller.learning.estimators.probe_step import Losses, choose_step
from photonloop.controller.learning.network import Layer
from photonloop.controller.learning.variables import Bounds, longest_with_room, lsb_rad
from photonloop.protocols.device import DeviceDescription


def layer_bounds(layer: Layer, estimator: Estimator, step_rad: float) -> tuple[Bounds, Bounds]:
    """Return the bounds of the variables of `layer`, and the bounds of its probe settings, for a probe step [rad]."""
    probe_extent = estimator.probe_extent(step_rad, layer.groups)
    return layer.space.bounds(probe_extent), layer.space.bounds(0.0)


def measured_probe_step(
    description: DeviceDescription, layer: Layer, estimator: Estimator, losses: Losses, rng: np.random.Generator
) -> tuple[float, tuple[str, ...]]:
    """Return the probe step [rad] of least slope error that leaves variables half their range, and the reasons.

    Parameters
    ----------
    description
        The device.
    layer
        The layer, at its starting variables.
    estimator
        Defines what the length of a step means.
    losses
        Measures losses at offsets [rad] from the starting variables.
    rng
        Draws the directions probed.
    """
    choice = choose_step(losses, layer.stage.channels, layer.stage.ports, lsb_rad(description.drive), rng)
    step_rad = estimator.step_from_rms(choice.rms_rad, layer.groups)
    if layer.space.periodic:
        return step_rad, choice.reasons
    limited_rad = longest_with_room(description, layer.stage, lambda step: estimator.probe_extent(step, layer.groups), step_rad)
    if limited_rad == step_rad:
        return step_rad, choice.reasons
    rms_rad = estimator.rms_from_step(limited_rad, layer.groups)
    return limited_rad, (*choice.reasons, f"limited to {rms_rad:.3g} rad per phase, so that variables keep half their range")
