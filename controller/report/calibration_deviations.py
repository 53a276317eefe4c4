"""Fitted parameters that disagree with their neighbours on the chip.

Fabrication varies smoothly, so the parameters of one interferometer resemble those of others nearby. A value far from
the median of its neighbours is either a defect or an error of the fit. Offsets are random, and are left out.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.spatial import KDTree

from photonloop.controller.calibration.calibrated_device import StageCalibration
from photonloop.controller.calibration.twin_misfit import NORMAL_MAD
from photonloop.controller.report.calibration_names import heater_names

Array = NDArray[np.float64]

NEIGHBOURS = 8
"""Number of neighbours of a parameter."""

LEAST = 6
"""Parameters of a kind of which there are fewer are not compared: their spread is not known well enough."""


@dataclass(frozen=True)
class DeviationGroup:
    """Parameters of one kind, compared with their neighbours.

    Parameters
    ----------
    name, unit
        What they are.
    of
        The heaters of the group, "θ" or "φ and γ"; empty for parameters of something else.
    places
        Name of each, such as "θ(1, 1)".
    channels
        The heater at whose place each is drawn; empty if they are not drawn.
    values, sigma
        Fitted values and their standard deviations.
    neighbours
        Median of the nearest values.
    z
        Difference of value and neighbours in standard deviations. These contain the spread of the kind and the
        uncertainty of the fit.
    """

    name: str
    unit: str
    of: str
    places: tuple[str, ...]
    channels: NDArray[np.int64]
    values: Array
    sigma: Array
    neighbours: Array
    z: Array


@dataclass(frozen=True)
class Deviation:
    """One parameter and its neighbours, as in `DeviationGroup`."""

    name: str
    unit: str
    place: str
    value: float
    sigma: float
    neighbours: float
    z: float


class _Elements(NamedTuple):
    """Where the parameters of a group are: names, heaters, and positions as column and mode, or port."""

    places: list[str]
    channels: NDArray[np.int64]
    position: Array


def deviation_groups(found: StageCalibration) -> list[DeviationGroup]:
    """Return κ of θ, κ of φ and γ, coupler errors, losses and detector gains, each with its deviations."""
    layout, own, sigma = found.layout, found.parameters, found.sigma
    names, at = heater_names(layout), np.stack((layout.column, layout.top), axis=1).astype(np.float64)
    mesh = [f"({column}, {top})" for column, top in zip(layout.column, layout.top, strict=True)]
    outputs = np.stack((np.full(layout.gamma.size, at[:, 0].max() + 1), np.arange(float(layout.gamma.size))), axis=1)
    second = np.concatenate((layout.phi, layout.gamma))
    second_at = np.concatenate((at, outputs))
    couplers = [f"{place}, coupler {side}" for place in mesh for side in (1, 2)]
    errors, error_sigma = own.coupler_error_rad.ravel(), sigma.coupler_error_rad.ravel()
    of_second = "φ and γ" if layout.gamma.size else "φ"
    ports, port_at = [f"port {port}" for port in range(layout.taps)], np.arange(float(layout.taps))[:, np.newaxis]
    thetas = _Elements([names[k] for k in layout.theta], layout.theta, at)
    seconds = _Elements([names[k] for k in second], second, second_at)
    groups = [
        _group("κ", "", thetas, own.kappa[layout.theta], sigma.kappa[layout.theta], "θ"),
        _group("κ", "", seconds, own.kappa[second], sigma.kappa[second], of_second),
        _group("angle error", "rad", _Elements(couplers, layout.theta.repeat(2), at.repeat(2, axis=0)), errors, error_sigma),
        _group("loss", "dB", _Elements(mesh, layout.theta, at), own.loss_db, sigma.loss_db),
        _group("gain", "", _Elements(ports, np.empty(0, np.int64), port_at), own.detector_gain, sigma.detector_gain),
    ]
    return [group for group in groups if len(group.places) >= LEAST]


def largest_deviations(groups: list[DeviationGroup], count: int) -> list[Deviation]:
    """Return the parameters with the largest deviations of all kinds, largest first."""
    every = [
        Deviation(group.name, group.unit, place, *(float(part) for part in numbers))
        for group in groups
        for place, *numbers in zip(group.places, group.values, group.sigma, group.neighbours, group.z, strict=True)
    ]
    return sorted(every, key=lambda deviation: -abs(deviation.z))[:count]


def _group(name: str, unit: str, elements: _Elements, values: Array, sigma: Array, of: str = "") -> DeviationGroup:
    # The nearest point is the parameter itself. If two are at one place, either may come first, which does no harm.
    count = min(NEIGHBOURS + 1, len(values))
    near = np.reshape(KDTree(elements.position).query(elements.position, count)[1], (len(values), count))[:, 1:]
    neighbours = np.median(values[near], axis=1) if count > 1 else values
    difference = values - neighbours
    scale = np.hypot(NORMAL_MAD * np.median(np.abs(difference)), sigma)
    z = np.divide(difference, scale, out=np.zeros_like(difference), where=scale > 0)
    return DeviationGroup(name, unit, of, tuple(elements.places), elements.channels, values, sigma, neighbours, z)
