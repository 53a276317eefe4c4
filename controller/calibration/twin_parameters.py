"""Parameters of the twin: everything that is fitted to readings, as one dataclass and as one flat vector."""

from __future__ import annotations

from dataclasses import dataclass, fields

import numpy as np
from numpy.typing import NDArray

from photonloop.controller.calibration.flat_vectors import by_kind, flattened, parts_of
from photonloop.controller.calibration.twin_layout import TwinLayout

Vector = NDArray[np.float64]


@dataclass(frozen=True)
class TwinParameters:
    """The fitted values of one stage. The same class holds their prior standard deviations and their uncertainties.

    Parameters
    ----------
    offset_rad
        Phase of each heater's arm at 0 V [rad], shape (channels,).
    kappa
        Nominal R · P_π divided by the heater's own, shape (channels,). P_π is the power for a phase difference of π
        between the two arms, so it includes the heat in the other arm.
    curvature
        η of all heaters: φ = π · p · (1 + ηp)/(1 + η), p = P/P_π.
    self_heating
        ρ of all heaters: R = R₀ (1 + ρp).
    crosstalk_share
        Share of a heater's power that a segment receives at the distance `twin_layout.REFERENCE_M`.
    crosstalk_exponent
        Exponent of the decay of this share with distance.
    heat_response
        Phase that each slow component of the heat (`TwinLayout.heat_components`) adds to each channel, beyond this law
        [rad at P_π], shape (channels, components). The law is that of an infinite chip without edges.
    ground_ratio
        Resistance of the ground conductor that the heaters of a half column share, divided by the nominal R.
    coupler_error_rad
        Angle errors of both couplers [rad], shape (interferometers, 2): angle = π/4 + error.
    loss_db
        Loss of each interferometer in both arms, without its shifters [dB], shape (interferometers,).
    shifter_db
        Loss of every phase shifter, in its own arm only [dB].
    level
        Reading per |E|² = 1, where 1 is the field of an input at amplitude 1 [unit of the readings].
    input_gain, input_phase_rad
        Relative amplitude and phase [rad] of each input port, shape (ports,).
    input_leak
        Field of an input at amplitude 0, relative to that at 1.
    input_coupling
        Field that couples into the neighbouring input waveguide before the mesh, relative to the field itself.
    detector_gain, detector_dark
        Relative gain, and reading without light [unit of the readings], of each detector, shape (taps,).
    compression
        Saturation of the detectors: i becomes i / (1 + compression · i / full scale).
    detector_memory
        Share of its output that a detector keeps from one sample to the next (`detector_memory`).
    """

    offset_rad: Vector
    kappa: Vector
    curvature: float
    self_heating: float
    crosstalk_share: float
    crosstalk_exponent: float
    heat_response: Vector
    ground_ratio: float
    coupler_error_rad: Vector
    loss_db: Vector
    shifter_db: float
    level: float
    input_gain: Vector
    input_phase_rad: Vector
    input_leak: float
    input_coupling: float
    detector_gain: Vector
    detector_dark: Vector
    compression: float
    detector_memory: float


KINDS = tuple(field.name for field in fields(TwinParameters))
"""Names of the kinds of parameters, in the order of `pack`."""


@dataclass(frozen=True)
class TwinPrior:
    """Gaussian prior of the parameters: mean and standard deviation. A standard deviation of 0 fixes a parameter."""

    mean: TwinParameters
    sigma: TwinParameters


def shapes(layout: TwinLayout) -> dict[str, tuple[int, ...]]:
    """Return the shape of each kind of parameters."""
    n, channels, ports, taps = layout.interferometers, layout.channels, layout.ports, layout.taps
    sized: dict[str, tuple[int, ...]] = {
        "offset_rad": (channels,),
        "kappa": (channels,),
        "heat_response": (channels, layout.heat_components.shape[1]),
        "coupler_error_rad": (n, 2),
        "loss_db": (n,),
        "input_gain": (ports,),
        "input_phase_rad": (ports,),
        "detector_gain": (taps,),
        "detector_dark": (taps,),
    }
    return {kind: sized.get(kind, ()) for kind in KINDS}


def slices(layout: TwinLayout) -> dict[str, slice]:
    """Return the part of the flat vector that each kind of parameters has."""
    return parts_of(shapes(layout))


def pack(parameters: TwinParameters) -> Vector:
    """Return all parameters as one flat vector, kind by kind."""
    return flattened(parameters, KINDS)


def unpack(layout: TwinLayout, vector: Vector) -> TwinParameters:
    """Return the parameters of a flat vector: the inverse of `pack`."""
    parts = slices(layout)
    if vector.shape != (parts[KINDS[-1]].stop,):
        raise ValueError(f"the vector has shape {vector.shape}, but this twin has {parts[KINDS[-1]].stop} parameters")
    return TwinParameters(**by_kind(vector, shapes(layout)))


def parameter_names(layout: TwinLayout) -> list[str]:
    """Return the name of each element of the flat vector, such as "kappa[3]"."""
    names = []
    for kind, shape in shapes(layout).items():
        names += [kind + (f"[{', '.join(map(str, index))}]" if index else "") for index in np.ndindex(*shape)]
    return names


def filled(layout: TwinLayout, **values: float | Vector) -> TwinParameters:
    """Return parameters with one value per kind, or an array of its shape; kinds that are not given are 0.

    Examples
    --------
    A chip as designed: ``filled(layout, kappa=1.0, input_gain=1.0, detector_gain=1.0, level=1e-4)``.
    """
    unknown = set(values) - set(KINDS)
    if unknown:
        raise ValueError(f"{sorted(unknown)} are no parameters of a twin: there are {', '.join(KINDS)}")
    parts = [np.broadcast_to(np.asarray(values.get(kind, 0.0), np.float64), shape) for kind, shape in shapes(layout).items()]
    return unpack(layout, np.concatenate([part.ravel() for part in parts]))


def _heat_response_sigma(layout: TwinLayout) -> Vector:
    """Return 0.03 rad for all channels but γ, whose phases no reading depends on."""
    sigma = np.full((layout.channels, layout.heat_components.shape[1]), 0.03)
    sigma[layout.gamma] = 0.0
    return sigma


def nominal_prior(layout: TwinLayout, level: float, dark: float | Vector = 0.0) -> TwinPrior:
    """Return the prior for a chip of which only the description is known.

    Parameters
    ----------
    layout
        The stage.
    level
        Estimated reading per |E|² = 1 [unit of the readings], within a factor of about 2.
    dark
        Measured dark readings: one number, or one per detector.

    Notes
    -----
    The standard deviations are the spreads published for silicon chips, rounded up: heaters 2 % (Harris 2014: 1.6 %),
    couplers 0.02 rad, loss of an interferometer 0.1 to 0.2 dB, responsivities 3 %, extinction 20 to 30 dB. Phases at
    0 V and phases of inputs are unknown; their prior, the standard deviation of a uniform phase, only keeps the
    directions in place that no reading depends on.
    """
    uniform = 2 * np.pi / np.sqrt(12.0)
    mean = filled(
        layout,
        kappa=1.0,
        curvature=0.006,
        self_heating=0.04,
        crosstalk_share=0.004,
        crosstalk_exponent=1.0,
        loss_db=0.04,
        shifter_db=0.1,
        level=level,
        input_gain=1.0,
        input_leak=0.03,
        input_coupling=0.02,
        detector_gain=1.0,
        detector_dark=dark,
    )
    sigma = filled(
        layout,
        offset_rad=uniform,
        kappa=0.04,
        curvature=0.02,
        self_heating=0.05,
        crosstalk_share=0.004,
        crosstalk_exponent=0.3,
        heat_response=_heat_response_sigma(layout),
        ground_ratio=5e-4,
        coupler_error_rad=0.04,
        loss_db=0.05,
        shifter_db=0.1,
        level=0.5 * level,
        input_gain=0.05,
        input_phase_rad=uniform,
        input_leak=0.04,
        input_coupling=0.03,
        detector_gain=0.05,
        detector_dark=1e-4 * layout.full_scale,
        compression=0.5,
        detector_memory=0.02,
    )
    return TwinPrior(mean, sigma)
