"""The structure of a stage, for the twin: interferometers, waveguide segments, and which heater lies where.

A stage has half columns: φ of column 0, θ of column 0, φ of column 1, …, and γ. In every half column each mode has one
waveguide segment. A heater lies on one of them. Its heat reaches all others nearby, and each has a phase of its own:

    half column   0     1     2     3    …    last
    mode 0     ══[φ]══[θ]════════════════ … ══[γ]══      [φ], [θ], [γ]: segments with heaters
    mode 1     ═══════════════[φ]══[θ]═══ … ══[γ]══
    mode 2     ══[φ]══[θ]════════════════ … ══[γ]══

The other arm of the θ of an attenuator has no mode of its own. It is an extra segment, half a mode pitch further.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import sparse
from scipy.spatial import KDTree

from photonloop.controller.calibration.heat_lattice import HeatLattice, heat_lattice
from photonloop.protocols.device import DeviceDescription, StageDescription, StageGeometry

REACH_M = 3e-3
"""Default distance [m] beyond which the twin assumes no thermal crosstalk."""

LATTICE_PORTS = 16
"""For more ports than this, crosstalk is computed as a convolution, if the geometry is a regular lattice."""

REFERENCE_M = 1e-4
"""Distance [m] for which `TwinParameters.crosstalk_share` is given."""


HEAT_COMPONENTS: dict[int, tuple[int, int]] = {8: (4, 3), 16: (2, 2)}
"""Numbers of slow components of the heat along and across the light, for meshes up to a number of ports."""


@dataclass(frozen=True)
class TwinLayout:
    """The structure of one stage.

    Parameters
    ----------
    ports, taps, channels
        Numbers of modes, detectors and heaters.
    column, top
        Column and upper mode of each interferometer, in the order of light, shape (interferometers,).
    theta, phi
        Its channels within the stage.
    alone
        True for attenuators, which act on mode `top` only.
    lower
        True for interferometers whose heaters lie on the lower arm.
    gamma
        Channels of the output phases, shape (ports,); empty if there are none.
    full_scale
        Reading at which a detector saturates.
    own
        Number of the segment of each heater, shape (channels,).
    near_to, near_from, near_ln
        Pairs of segment and heater with thermal crosstalk, and ln(REFERENCE_M / distance), shape (pairs,); empty if
        there is a `lattice`.
    partner_ln
        ln(REFERENCE_M / distance) of the other arm of each heater's interferometer; -inf if there is none.
    pitch_ln
        The same for two neighbouring modes.
    segments
        Number of waveguide segments.
    ground_bus
        Number of the ground conductor of each heater, shape (channels,). The heaters of a half column share one.
    effective
        Matrix from the phases of all segments to the effective phases of the channels, (channels, segments).
    lattice
        For crosstalk as a convolution: all segments, half column by half column. None: `near_to` has all pairs.
    """

    ports: int
    taps: int
    channels: int
    column: NDArray[np.int64]
    top: NDArray[np.int64]
    theta: NDArray[np.int64]
    phi: NDArray[np.int64]
    alone: NDArray[np.bool_]
    lower: NDArray[np.bool_]
    gamma: NDArray[np.int64]
    full_scale: float
    own: NDArray[np.int64]
    near_to: NDArray[np.int64]
    near_from: NDArray[np.int64]
    near_ln: NDArray[np.float64]
    partner_ln: NDArray[np.float64]
    pitch_ln: float
    segments: int
    ground_bus: NDArray[np.int64]
    effective: sparse.csr_array
    lattice: HeatLattice | None = None

    @property
    def interferometers(self) -> int:
        """Number of interferometers, including attenuators."""
        return self.top.size

    @property
    def distance_ln(self) -> NDArray[np.float64]:
        """ln(REFERENCE_M / distance) of all distances with thermal crosstalk; some occur several times."""
        return self.near_ln if self.lattice is None else self.lattice.ln[np.isfinite(self.lattice.ln)]

    @cached_property
    def grounds(self) -> sparse.csr_array:
        """Matrix that adds values of the heaters of each ground conductor, shape (grounds, channels)."""
        entries = np.ones(self.channels), (self.ground_bus, np.arange(self.channels))
        return sparse.csr_array(entries, shape=(int(self.ground_bus.max()) + 1, self.channels))

    @cached_property
    def heat_components(self) -> NDArray[np.float64]:
        """Slow components of the heat of the stage, as weights of the heaters' powers, shape (channels, components).

        Products of cosines along and across the light, divided by the number of heaters. The first one is the mean.
        Large meshes and weight banks have none.
        """
        if self.interferometers == 0:
            return np.zeros((self.channels, 0))
        along, across = next((count for ports, count in HEAT_COMPONENTS.items() if self.ports <= ports), (0, 0))
        x, y = self.own // self.ports / (2 * self.column.max() + 2), self.own % self.ports / (self.ports - 1)
        waves = [np.cos(np.pi * k * x) * np.cos(np.pi * m * y) for k in range(along) for m in range(min(across, self.ports // 2))]
        return np.array(waves).reshape(-1, self.channels).T / self.channels


def twin_layout(description: DeviceDescription, stage: StageDescription, reach_m: float | None = None) -> TwinLayout:
    """Return the structure of `stage` for a twin.

    Parameters
    ----------
    description, stage
        The device and its stage.
    reach_m
        Distance beyond which the twin assumes no thermal crosstalk [m]; None: REACH_M. If the
        geometry is not known, only neighbours have crosstalk, at one and the same distance.

    Raises
    ------
    ValueError
        The stage is no mesh with a known layout.
    """
    if not stage.layout or stage.topology == "weight_bank":
        raise ValueError(f"stage {stage.name} ({stage.topology}) has no layout of interferometers: a twin needs a mesh with one")
    rows = np.array(sorted(stage.layout), np.int64)
    column, top, theta, phi = rows.T.copy()
    alone_from, alone_to = stage.groups.get("attenuator_theta", (0, 0))
    alone = (theta >= alone_from) & (theta < alone_to)
    gamma = np.arange(*stage.groups.get("gamma", (0, 0)))
    if gamma.size not in {0, stage.ports} or 2 * top.size + gamma.size != stage.channels:
        raise ValueError(
            f"stage {stage.name} has {stage.channels} channels, but its layout has {2 * top.size} and its group gamma "
            f"{gamma.size}: the description contradicts itself"
        )
    columns = int(column.max()) + 1
    reach_m = reach_m or REACH_M
    geometry, reach_m = (_lattice(stage.ports, columns), REFERENCE_M) if stage.geometry is None else (stage.geometry, reach_m)
    lower = np.full(top.size, geometry.heated_arm == "lower") & ~alone
    half, mode = np.empty(stage.channels, np.int64), np.empty(stage.channels, np.int64)
    half[phi], half[theta], half[gamma] = 2 * column, 2 * column + 1, 2 * columns
    mode[phi] = mode[theta] = top + lower
    mode[gamma] = np.arange(gamma.size)
    places = _places(geometry, stage, column[alone], top[alone])
    own = half * stage.ports + mode
    regular = _regular(places, (2 * columns + 1, stage.ports), reach_m) if stage.ports > LATTICE_PORTS else None
    to, source, ln = near_pairs(places, places[own], reach_m if regular is None else 0.0)
    y, across = np.asarray(geometry.mode_y_m), np.zeros(stage.channels)
    pairs = ~alone
    across[theta[pairs]] = across[phi[pairs]] = np.abs(np.diff(y))[top[pairs]]
    across[theta[alone]] = float(np.mean(np.abs(np.diff(y)))) / 2
    return TwinLayout(
        ports=stage.ports,
        taps=stage.tap_ports,
        channels=stage.channels,
        column=column,
        top=top,
        theta=theta,
        phi=phi,
        alone=alone,
        lower=lower,
        gamma=gamma,
        full_scale=description.readout.full_scale[description.stage_index(stage.name)],
        own=own,
        near_to=to,
        near_from=source,
        near_ln=ln,
        lattice=regular,
        partner_ln=_ln_within(across, reach_m),
        pitch_ln=float(_ln_within(np.mean(np.abs(np.diff(y))), reach_m)),
        ground_bus=half,
        segments=len(places),
        effective=_effective(stage, columns, rows, alone, gamma),
    )


def _lattice(ports: int, columns: int) -> StageGeometry:
    """Return the geometry that stands for an unknown one: neighbours in both directions at REFERENCE_M."""
    x = REFERENCE_M * np.arange(2 * columns + 1)
    return StageGeometry(
        mode_y_m=tuple(REFERENCE_M * np.arange(ports)),
        phi_x_m=tuple(x[0:-1:2]),
        theta_x_m=tuple(x[1::2]),
        gamma_x_m=float(x[-1]),
    )


def _places(
    geometry: StageGeometry, stage: StageDescription, lone_column: NDArray[np.int64], lone_mode: NDArray[np.int64]
) -> NDArray[np.float64]:
    """Return the positions of all segments [m], shape (segments, 2)."""
    phi_x, theta_x, y = (np.asarray(part) for part in (geometry.phi_x_m, geometry.theta_x_m, geometry.mode_y_m))
    columns = max(row[0] for row in stage.layout) + 1
    if phi_x.size != columns or theta_x.size != columns or y.size != stage.ports:
        raise ValueError(
            f"the geometry of stage {stage.name} has {phi_x.size} columns of φ, {theta_x.size} of θ and {y.size} modes, "
            f"but its layout has {columns} columns and {stage.ports} modes"
        )
    last = theta_x[-1] + (theta_x[-1] - phi_x[-1]) if geometry.gamma_x_m is None else geometry.gamma_x_m
    x = np.append(np.stack((phi_x, theta_x), axis=1).ravel(), last)
    grid = np.stack(np.meshgrid(x, y, indexing="ij"), axis=-1).reshape(-1, 2)
    extra = np.stack((theta_x[lone_column], y[lone_mode] + np.mean(np.diff(y)) / 2), axis=1)
    return np.concatenate((grid, extra))


def _regular(places: NDArray[np.float64], size: tuple[int, int], reach_m: float) -> HeatLattice | None:
    """Return the lattice of all segments, or None if they are not evenly spaced, or if there are extra ones."""
    if len(places) != size[0] * size[1]:
        return None
    grid = places.reshape(*size, 2)
    pitch_m = float(grid[1, 0, 0] - grid[0, 0, 0]), float(grid[0, 1, 1] - grid[0, 0, 1])
    even = np.stack(
        np.meshgrid(*(np.arange(count) * pitch for count, pitch in zip(size, pitch_m, strict=True)), indexing="ij"), -1
    )
    if not np.allclose(grid - grid[0, 0], even, rtol=0, atol=1e-3 * min(pitch_m)):
        return None
    return heat_lattice(size, pitch_m, reach_m, REFERENCE_M)


def near_pairs(
    places: NDArray[np.float64], heaters: NDArray[np.float64], reach_m: float
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.float64]]:
    """Return the pairs of segment and heater at most `reach_m` apart, without a heater's own, and `near_ln`."""
    # A margin, so that rounding errors do not exclude a neighbour at exactly this distance.
    pairs = KDTree(places).sparse_distance_matrix(KDTree(heaters), reach_m * (1 + 1e-9), output_type="ndarray")
    pairs = pairs[pairs["v"] > 1e-12]
    order = np.lexsort((pairs["j"], pairs["i"]))
    return pairs["i"][order], pairs["j"][order], np.log(REFERENCE_M / pairs["v"][order])


def _ln_within(distance_m: ArrayLike, reach_m: float) -> NDArray[np.float64]:
    """Return ln(REFERENCE_M / distance), or -inf for distances of 0 and beyond `reach_m`."""
    distance_m = np.asarray(distance_m, np.float64)
    inside = (distance_m > 0) & (distance_m <= reach_m * (1 + 1e-9))
    return np.where(inside, np.log(REFERENCE_M / np.where(inside, distance_m, 1.0)), -np.inf)


def _effective(
    stage: StageDescription, columns: int, rows: NDArray[np.int64], alone: NDArray[np.bool_], gamma: NDArray[np.int64]
) -> sparse.csr_array:
    """Return `TwinLayout.effective`.

    Upper and lower arms with the phases θt, θb, φt, φb multiply the fields by e^{i(θb + φb)} · M(θt - θb, φt - φb). The
    common phase is moved towards the outputs: every mode has a running phase, a sum of segments. It is added to the φ
    of the next interferometer on the mode, or to γ. An interferometer on modes a and b leaves ψb + φb + θb on both.
    """
    ports = stage.ports
    entries: list[tuple[int, int, float]] = []
    running: list[list[int]] = [[] for _ in range(ports)]
    extra = (2 * columns + 1) * ports
    by_column = np.split(np.arange(len(rows)), np.flatnonzero(np.diff(rows[:, 0])) + 1)
    for number, here in enumerate(by_column):
        before, behind = 2 * number * ports, (2 * number + 1) * ports
        after = [running[mode] + [before + mode, behind + mode] for mode in range(ports)]
        for k in here:
            _, t, theta, phi = (int(value) for value in rows[k])
            entries += [(theta, behind + t, 1.0), (phi, before + t, 1.0)]
            entries += [(phi, segment, 1.0) for segment in running[t]]
            if alone[k]:
                entries.append((theta, extra, -1.0))
                after[t] = [extra]
                extra += 1
                continue
            entries += [(theta, behind + t + 1, -1.0), (phi, before + t + 1, -1.0)]
            entries += [(phi, segment, -1.0) for segment in running[t + 1]]
            after[t] = after[t + 1]
        running = after
    last = 2 * columns * ports
    for mode, channel in enumerate(gamma):
        entries += [(int(channel), segment, 1.0) for segment in [*running[mode], last + mode]]
    to, source, sign = (np.array(part) for part in zip(*entries, strict=True))
    matrix = sparse.csr_array((sign.astype(np.float64), (to, source)), shape=(stage.channels, extra))
    matrix.eliminate_zeros()
    return matrix
