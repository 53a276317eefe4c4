"""Tables of the fitted values of a mesh or a weight bank, with their uncertainties."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from photonloop.controller.calibration.calibrated_device import RingCalibration, StageCalibration
from photonloop.controller.calibration.ring_values import RING_KINDS, RingValues
from photonloop.controller.calibration.twin_parameters import KINDS, TwinParameters
from photonloop.controller.report.display_text import short_text, uncertain_text

_NAMES = {
    "offset_rad": ("phase at 0 V", "rad"),
    "kappa": ("κ, nominal power for π divided by the heater's own", ""),
    "curvature": ("curvature η of the heaters", ""),
    "self_heating": ("self-heating ρ of the heaters", ""),
    "crosstalk_share": ("crosstalk: share of a heater's power at 100 µm", ""),
    "crosstalk_exponent": ("exponent of its decay with distance", ""),
    "heat_response": ("phase by the slow components of the heat, at P_π", "rad"),
    "ground_ratio": ("shared ground conductor, relative to a heater", ""),
    "coupler_error_rad": ("angle errors of the couplers", "rad"),
    "loss_db": ("loss of an interferometer", "dB"),
    "shifter_db": ("loss of a phase shifter", "dB"),
    "level": ("reading per unit of power at the detectors", ""),
    "input_gain": ("amplitudes of the inputs", ""),
    "input_phase_rad": ("phases of the inputs", "rad"),
    "input_leak": ("field of an input at amplitude 0", ""),
    "input_coupling": ("field coupled to the neighbouring input", ""),
    "detector_gain": ("gains of the detectors", ""),
    "detector_dark": ("dark readings", ""),
    "compression": ("compression of the detectors at full scale", ""),
    "detector_memory": ("share of its output that a detector keeps from one sample to the next", ""),
    "coupler_share": ("power that a coupler of a ring transfers", ""),
    "round_trip_db": ("loss of a round trip", "dB"),
    "wavelength_rad": ("phases of the wavelengths in a ring", "rad"),
    "bus_rad": ("phases between rings, there and back", "rad"),
    "bus_ratio": ("length between rings / circumference of a ring", ""),
    "row_gain": ("gains of the rows", ""),
    "row_dark": ("dark readings of the rows", ""),
    "kept": ("share of the previous sample in a reading", ""),
}

_READINGS = frozenset({"level", "detector_dark", "row_dark"})
"""Kinds in the unit of the readings."""

_RANDOM = frozenset({"offset_rad", "input_phase_rad", "bus_rad"})
"""Kinds that are random on every chip, so that their mean and spread have no meaning."""


@dataclass(frozen=True)
class FittedValue:
    """One row: a value with its standard deviation; or mean and spread of several, and their typical one."""

    name: str
    count: int
    value: str
    sigma: str


def fitted_values(found: StageCalibration | RingCalibration, unit: str) -> list[FittedValue]:
    """Return one row per kind of parameters; `unit` is that of the readings."""
    if isinstance(found, RingCalibration):
        return _rows(RING_KINDS, found.values, found.sigma, unit)
    return _rows(KINDS, found.parameters, found.sigma, unit)


def _rows(
    kinds: Sequence[str], fitted: TwinParameters | RingValues, deviations: TwinParameters | RingValues, unit: str
) -> list[FittedValue]:
    rows = []
    for kind in kinds:
        name, own_unit = _NAMES.get(kind, (kind.replace("_", " "), ""))
        own_unit = unit if kind in _READINGS else own_unit
        values, sigma = np.ravel(getattr(fitted, kind)), np.ravel(getattr(deviations, kind))
        if not values.size:
            continue
        typical = float(np.median(sigma))
        if values.size == 1:
            rows.append(FittedValue(name, 1, _single(float(values[0]), typical, own_unit), ""))
            continue
        mean = "random" if kind in _RANDOM else uncertain_text(float(values.mean()), float(values.std()), own_unit)
        rows.append(FittedValue(name, values.size, mean, short_text(typical, own_unit) if typical > 0 else "fixed"))
    return rows


def _single(value: float, sigma: float, unit: str) -> str:
    text = uncertain_text(value, sigma, unit)
    return text if sigma > 0 else f"{text} (fixed)"
