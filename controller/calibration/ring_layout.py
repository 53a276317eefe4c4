"""The structure of a weight bank, for its model: rows, wavelengths, and where the rings' heaters lie.

A bank has N rows of M rings. Channel n · M + m is the ring of row n for wavelength m. All rings of a row lie between
the same two waveguides: the row itself, and the drop bus, on which light comes back to the first ring. A balanced pair
of detectors reads the difference.

               ring 0      ring 1             ring M-1
    light ──▶ ══(  )════════(  )═══════ … ═════(  )══▶ through: -
    drop  ◀── ══(  )════════(  )═══════ … ═════(  )══            reading = drop - through
              +
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np
from scipy import sparse

from photonloop.controller.calibration.twin_layout import REACH_M, REFERENCE_M, TwinLayout, near_pairs
from photonloop.protocols.device import DeviceDescription, StageDescription


@dataclass(frozen=True)
class RingLayout:
    """The structure of one weight bank.

    Parameters
    ----------
    rows, wavelengths
        N and M.
    heaters
        Heaters, crosstalk between them and their grounds, as in a mesh without interferometers.
    full_scale
        Reading at which a balanced pair saturates, in both directions.
    kept
        Share of the previous sample in a reading, from the nominal bandwidth of the detectors; 0 if it is not known.
    """

    rows: int
    wavelengths: int
    heaters: TwinLayout
    full_scale: float
    kept: float

    @property
    def channels(self) -> int:
        """Number of rings."""
        return self.rows * self.wavelengths


def ring_layout(description: DeviceDescription, stage: StageDescription) -> RingLayout:
    """Return the structure of a weight bank.

    If the positions of the rings are not known, only neighbours have thermal crosstalk, at one and the same distance.

    Raises
    ------
    ValueError
        The stage is not a weight bank, or its description contradicts itself.
    """
    rows, wavelengths = stage.tap_ports, stage.ports
    if stage.topology != "weight_bank":
        raise ValueError(f"stage {stage.name} is {stage.topology}, but this calibration needs a weight_bank")
    if rows * wavelengths != stage.channels:
        raise ValueError(
            f"stage {stage.name} has {stage.channels} channels, but {rows} rows of {wavelengths} rings: correct its description"
        )
    x_m, y_m, reach_m = REFERENCE_M * np.arange(wavelengths), REFERENCE_M * np.arange(rows), REFERENCE_M
    if stage.geometry is not None and stage.geometry.ring_x_m:
        x_m, y_m, reach_m = np.asarray(stage.geometry.ring_x_m), np.asarray(stage.geometry.mode_y_m), REACH_M
    if x_m.size != wavelengths or y_m.size != rows:
        raise ValueError(
            f"the geometry of stage {stage.name} has {y_m.size} rows of {x_m.size} rings, but the stage has {rows} of "
            f"{wavelengths}: correct its description"
        )
    places = np.stack(np.meshgrid(y_m, x_m, indexing="ij"), axis=-1)[..., ::-1].reshape(-1, 2)
    full_scale = description.readout.full_scale[description.stage_index(stage.name)]
    readout = description.readout
    kept = math.exp(-4 * readout.bandwidth_hz * readout.sample_s) if readout.bandwidth_hz else 0.0
    return RingLayout(rows, wavelengths, _heaters(rows, places, reach_m, full_scale), full_scale, kept)


def first_rows(layout: RingLayout, rows: int) -> RingLayout:
    """Return the structure of the first rows alone, as if there were no others."""
    heaters, count = layout.heaters, rows * layout.wavelengths
    near = (heaters.near_to < count) & (heaters.near_from < count)
    some = replace(
        heaters,
        taps=rows,
        channels=count,
        own=heaters.own[:count],
        near_to=heaters.near_to[near],
        near_from=heaters.near_from[near],
        near_ln=heaters.near_ln[near],
        partner_ln=heaters.partner_ln[:count],
        segments=count,
        ground_bus=heaters.ground_bus[:count],
        effective=heaters.effective[:count, :count],
    )
    return replace(layout, rows=rows, heaters=some)


def _heaters(rows: int, places: np.ndarray, reach_m: float, full_scale: float) -> TwinLayout:
    """Return heaters on segments of their own. The heaters of a row share a ground conductor."""
    channels, none = len(places), np.empty(0, np.int64)
    to, source, ln = near_pairs(places, places, reach_m)
    return TwinLayout(
        ports=channels // rows,
        taps=rows,
        channels=channels,
        column=none,
        top=none,
        theta=none,
        phi=none,
        alone=none.astype(np.bool_),
        lower=none.astype(np.bool_),
        gamma=none,
        lattice=None,
        full_scale=full_scale,
        own=np.arange(channels),
        near_to=to,
        near_from=source,
        near_ln=ln,
        partner_ln=np.full(channels, -np.inf),
        pitch_ln=-np.inf,
        segments=channels,
        ground_bus=np.repeat(np.arange(rows), channels // rows),
        effective=sparse.csr_array(sparse.eye_array(channels)),
    )
