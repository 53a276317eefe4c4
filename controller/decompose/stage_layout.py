"""Layout of a stage as arrays, and its comparison with the layouts that matrices can be decomposed for."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from photonloop.controller.decompose.mesh_phases import earliest_columns
from photonloop.protocols.config import ConfigError
from photonloop.protocols.device import StageDescription


@dataclass(frozen=True)
class StageLayout:
    """Interferometers and channels of a stage.

    Parameters
    ----------
    column, top
        Column and top mode of each row of `StageDescription.layout`, shape (interferometers,).
    theta, phi
        Channels of θ and φ of each row, shape (interferometers,).
    attenuates
        True for attenuators, which act on their top mode only, shape (interferometers,).
    gamma
        Channels of the output phases, shape (ports,); empty if the stage has none.
    """

    column: NDArray[np.int64]
    top: NDArray[np.int64]
    theta: NDArray[np.int64]
    phi: NDArray[np.int64]
    attenuates: NDArray[np.bool_]
    gamma: NDArray[np.int64]


class Element(NamedTuple):
    """An interferometer, or an attenuator, which acts on its top mode only."""

    column: int
    top: int
    attenuates: bool


def clements_elements(ports: int) -> list[Element]:
    """Return the interferometers of the rectangular mesh of Clements et al., in the order of `clements_phases`."""
    return [Element(column, top, False) for column in range(ports) for top in range(column % 2, ports - 1, 2)]


def reck_elements(ports: int) -> list[Element]:
    """Return the interferometers of the triangular mesh of Reck et al., in the order of `reck_phases`."""
    columns = range(2 * ports - 3)
    depth = [min(column, 2 * ports - 4 - column) for column in columns]
    return [Element(column, top, False) for column in columns for top in range(ports - 2 - depth[column], ports - 1, 2)]


def svd_elements(ports: int) -> list[Element]:
    """Return the interferometers of V†, the attenuators and the interferometers of U, in the order of `svd_phases`."""
    half = clements_elements(ports)
    attenuators = [Element(ports, mode, True) for mode in range(ports)]
    return [*half, *attenuators, *(each._replace(column=ports + 1 + each.column) for each in half)]


TOPOLOGIES: dict[str, Callable[[int], list[Element]]] = {
    "clements": clements_elements,
    "reck": reck_elements,
    "svd": svd_elements,
}
"""Functions from the number of modes to the elements of a mesh, by the name of the topology."""


def stage_layout(stage: StageDescription) -> StageLayout:
    """Return the layout of a stage, of any topology, in the order of its rows.

    Raises
    ------
    ConfigError
        The layout is empty, or it contradicts the ports, channels or groups of the stage.
    """
    if not stage.layout:
        raise ConfigError(
            f"stage {stage.name} of topology {stage.topology!r} has no layout, so the places of its interferometers are unknown: "
            "add a row [column, top mode, channel of θ, channel of φ] per interferometer to the description of the stage"
        )
    column, top, theta, phi = np.array(stage.layout, np.int64).T
    first, stop = stage.groups.get("attenuator_theta", (0, 0))
    gamma = np.arange(*stage.groups.get("gamma", (0, 0)))
    layout = StageLayout(column, top, theta, phi, (theta >= first) & (theta < stop), gamma)
    _check_modes(stage, layout)
    _check_channels(stage, layout)
    return layout


def rows_by_topology(stage: StageDescription, layout: StageLayout) -> NDArray[np.int64]:
    """Return the row of `layout` of each element of the stage's topology, in the order of `TOPOLOGIES`.

    The topology must be in `TOPOLOGIES`, see `check_topology`. Columns may be numbered differently, as long as light
    meets the same interferometers in the same order.

    Raises
    ------
    ConfigError
        The layout is not the one of the topology.
    """
    elements = TOPOLOGIES[stage.topology](stage.ports)
    expected = _earliest(elements)
    rows = [Element(int(c), int(t), bool(a)) for c, t, a in zip(layout.column, layout.top, layout.attenuates, strict=True)]
    in_order = sorted(range(len(rows)), key=lambda row: rows[row])
    found = dict(zip(_earliest([rows[row] for row in in_order]), in_order, strict=True))
    if wrong := sorted(set(expected) ^ set(found)):
        surplus = "a further" if wrong[0] in found else "a missing"
        kind = "attenuator" if wrong[0].attenuates else "interferometer"
        raise ConfigError(
            f"the layout of stage {stage.name} has {len(rows)} rows and is not that of topology {stage.topology!r} on "
            f"{stage.ports} modes, which has {len(elements)}: the first difference is {surplus} {kind} "
            f"in column {wrong[0].column} at top mode {wrong[0].top}; correct the layout or the topology of the stage"
        )
    return np.array([found[element] for element in expected], np.int64)


def check_topology(stage: StageDescription) -> None:
    """Raise ConfigError if matrices cannot be decomposed for the topology of the stage."""
    if stage.topology not in TOPOLOGIES:
        raise ConfigError(
            f"stage {stage.name} has topology {stage.topology!r}, but a matrix can be set only on "
            f"{', '.join(TOPOLOGIES)}: describe the stage as one of these if its interferometers are arranged that way"
        )
    if stage.ports < 2:
        raise ConfigError(f"stage {stage.name} has {stage.ports} port, but a mesh has at least 2: correct the ports of the stage")


def _earliest(elements: list[Element]) -> list[Element]:
    """Return the elements, given in the order of the light, each in its earliest column."""
    columns = earliest_columns((each.top, each.top + (1 if each.attenuates else 2)) for each in elements)
    return [each._replace(column=column) for each, column in zip(elements, columns.tolist(), strict=True)]


def _check_modes(stage: StageDescription, layout: StageLayout) -> None:
    lowest = layout.top + np.where(layout.attenuates, 0, 1)
    outside = np.flatnonzero((layout.top < 0) | (lowest >= stage.ports))
    if outside.size:
        row = int(outside[0])
        highest = stage.ports - (1 if layout.attenuates[row] else 2)
        raise ConfigError(
            f"row {row} of the layout of stage {stage.name} has top mode {layout.top[row]}, but with {stage.ports} modes "
            f"it must be 0 … {highest}: correct the layout or the ports of the stage"
        )
    pairs = np.flatnonzero(~layout.attenuates)
    places = np.concatenate((layout.column, layout.column[pairs])) * stage.ports + np.concatenate((layout.top, lowest[pairs]))
    place, count = np.unique(places, return_counts=True)
    if (count > 1).any():
        column, mode = divmod(int(place[count > 1][0]), stage.ports)
        raise ConfigError(
            f"mode {mode} of stage {stage.name} has two interferometers in column {column} of the layout, but at most one "
            "is possible: correct the columns of the layout"
        )


def _check_channels(stage: StageDescription, layout: StageLayout) -> None:
    if layout.gamma.size not in {0, stage.ports}:
        raise ConfigError(
            f"group gamma of stage {stage.name} has {layout.gamma.size} channels, but the stage has {stage.ports} outputs: "
            "correct the group, or leave it out if there are no output phases"
        )
    used = np.concatenate((layout.theta, layout.phi, layout.gamma))
    outside = used[(used < 0) | (used >= stage.channels)]
    if outside.size:
        raise ConfigError(
            f"the layout of stage {stage.name} contains channel {outside[0]}, but the stage has channels "
            f"0 … {stage.channels - 1}: correct the layout or the groups"
        )
    count = np.bincount(used, minlength=stage.channels)
    if (count != 1).any():
        channel = int(np.flatnonzero(count != 1)[0])
        raise ConfigError(
            f"channel {channel} of stage {stage.name} is {count[channel]} times in its layout and its group gamma, but each "
            "channel must be there once: correct the layout or the groups"
        )
