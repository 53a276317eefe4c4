"""Everything that is fitted to readings of a weight bank, as one dataclass and as one flat vector."""

from __future__ import annotations

from dataclasses import dataclass, fields

import numpy as np
from numpy.typing import NDArray

from photonloop.controller.calibration.flat_vectors import by_kind, flattened, parts_of
from photonloop.controller.calibration.ring_layout import RingLayout
from photonloop.controller.calibration.twin_parameters import TwinParameters, filled

Vector = NDArray[np.float64]


@dataclass(frozen=True)
class RingValues:
    """The fitted values of one weight bank. The same class has their prior standard deviations and uncertainties.

    Parameters
    ----------
    offset_rad
        Round-trip phase of each ring for wavelength 0 at 0 V [rad], shape (channels,).
    kappa
        Nominal R · P_π divided by the ring's own, shape (channels,). P_π is the power for half a free spectral range.
    curvature, self_heating, crosstalk_share, crosstalk_exponent, ground_ratio
        Of all heaters, as in `TwinParameters`.
    coupler_share
        Share of the power that each of the two couplers of a ring transfers.
    round_trip_db
        Loss of a round trip without the couplers [dB].
    wavelength_rad
        Round-trip phase of each wavelength relative to that of wavelength 0 in the same ring [rad], shape (M,).
    bus_rad
        Phase of the waveguides between a ring and the next one of its row, there and back, for wavelength 0 [rad],
        shape (N, M - 1).
    bus_ratio
        Length of these waveguides divided by the circumference of a ring.
    level
        Reading for all light of each wavelength in one detector, at amplitude 1, shape (M,).
    input_leak
        Field of an input at amplitude 0, relative to that at 1.
    row_gain, row_dark
        Relative gain, and reading without light, of each row, shape (N,).
    compression
        Saturation of the detectors: the current i becomes i / (1 + compression · i / full scale).
    kept
        Share of the previous sample of the same setting that a reading contains.
    """

    offset_rad: Vector
    kappa: Vector
    curvature: float
    self_heating: float
    crosstalk_share: float
    crosstalk_exponent: float
    ground_ratio: float
    coupler_share: float
    round_trip_db: float
    wavelength_rad: Vector
    bus_rad: Vector
    bus_ratio: float
    level: Vector
    input_leak: float
    row_gain: Vector
    row_dark: Vector
    compression: float
    kept: float

    def heaters(self, layout: RingLayout) -> TwinParameters:
        """Return the values of the heaters as parameters of `layout.heaters`."""
        return filled(
            layout.heaters,
            offset_rad=self.offset_rad,
            kappa=self.kappa,
            curvature=self.curvature,
            self_heating=self.self_heating,
            crosstalk_share=self.crosstalk_share,
            crosstalk_exponent=self.crosstalk_exponent,
            ground_ratio=self.ground_ratio,
        )


@dataclass(frozen=True)
class RingPrior:
    """Gaussian prior: mean and standard deviation. A standard deviation of 0 fixes a value."""

    mean: RingValues
    sigma: RingValues


RING_KINDS = tuple(field.name for field in fields(RingValues))
"""Names of the kinds of values, in the order of `ring_vector`."""


def ring_shapes(layout: RingLayout) -> dict[str, tuple[int, ...]]:
    """Return the shape of each kind of values."""
    rows, wavelengths, channels = layout.rows, layout.wavelengths, layout.channels
    sized: dict[str, tuple[int, ...]] = {
        "offset_rad": (channels,),
        "kappa": (channels,),
        "wavelength_rad": (wavelengths,),
        "bus_rad": (rows, wavelengths - 1),
        "level": (wavelengths,),
        "row_gain": (rows,),
        "row_dark": (rows,),
    }
    return {kind: sized.get(kind, ()) for kind in RING_KINDS}


def ring_slices(layout: RingLayout) -> dict[str, slice]:
    """Return the part of the flat vector that each kind of values has."""
    return parts_of(ring_shapes(layout))


def ring_vector(values: RingValues) -> Vector:
    """Return all values as one flat vector, kind by kind."""
    return flattened(values, RING_KINDS)


def ring_values(layout: RingLayout, vector: Vector) -> RingValues:
    """Return the values of a flat vector: the inverse of `ring_vector`."""
    return RingValues(**by_kind(vector, ring_shapes(layout)))


def filled_rings(layout: RingLayout, **values: float | Vector) -> RingValues:
    """Return values with one number per kind, or an array of its shape; kinds that are not given are 0."""
    parts = [np.broadcast_to(np.asarray(values.get(kind, 0.0), np.float64), shape) for kind, shape in ring_shapes(layout).items()]
    return ring_values(layout, np.concatenate([part.ravel() for part in parts]))


def ring_prior(layout: RingLayout, level: float) -> RingPrior:
    """Return the prior for a weight bank of which only the description is known.

    Parameters
    ----------
    layout
        The bank.
    level
        Estimated reading for all light of one wavelength in one detector, within a factor of about 2.

    Notes
    -----
    Heaters as in `twin_parameters.nominal_prior`. Rings and wavelengths: weight banks are designed for a finesse of 20
    to 400 and equally spaced wavelengths within one free spectral range (Tait et al., Opt. Express 24, 8895 (2016)). A
    wire of 60 µm loses about 0.02 dB, and the shifter on it 0.1 dB.
    """
    uniform = 2 * np.pi / np.sqrt(12.0)
    apart: Vector = 2 * np.pi / layout.wavelengths * np.arange(float(layout.wavelengths))
    mean = filled_rings(
        layout,
        kappa=1.0,
        curvature=0.006,
        self_heating=0.02,
        crosstalk_share=0.004,
        crosstalk_exponent=1.0,
        coupler_share=0.1,
        round_trip_db=0.05,
        wavelength_rad=apart,
        bus_ratio=3.0,
        level=level,
        input_leak=0.03,
        row_gain=1.0,
        kept=layout.kept,
    )
    spread = np.full(layout.wavelengths, 0.2)
    spread[0] = 0.0
    sigma = filled_rings(
        layout,
        offset_rad=uniform,
        kappa=0.04,
        curvature=0.02,
        self_heating=0.03,
        crosstalk_share=0.004,
        crosstalk_exponent=0.3,
        ground_ratio=5e-4,
        coupler_share=0.1,
        round_trip_db=0.2,
        wavelength_rad=spread,
        bus_rad=uniform,
        bus_ratio=2.0,
        level=0.5 * level,
        input_leak=0.04,
        row_gain=0.05,
        row_dark=1e-3 * layout.full_scale,
        compression=0.5,
        kept=0.02,
    )
    return RingPrior(mean, sigma)
