"""Calibrations without errors: the truth of a virtual chip as the result of a calibration."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np

from photonloop.controller.calibration.calibrated_device import Calibration, HeldOut, StageCalibration
from photonloop.controller.calibration.twin_layout import REFERENCE_M, twin_layout
from photonloop.controller.calibration.twin_misfit import ReadingNoise
from photonloop.controller.calibration.twin_parameters import filled, pack
from photonloop.simulator.engine.chip import Chip
from support.twins import STEADY, true_parameters

DESCRIBED: dict[str, dict[str, Any]] = {
    **STEADY,
    "crosstalk": {"reach_m": 4e-4},
    "heater": {"resistance_sigma": 0.0, "ground_ohm": 0.05},
}
"""Changes of a preset after which a twin describes its chips exactly, with thermal crosstalk and a common ground. The
simulator computes crosstalk of a longer reach with an approximation that a twin does not have, and its heaters have
different resistances."""

LOSSLESS: dict[str, dict[str, Any]] = {**DESCRIBED, "loss": {"shifter_db": 0.0, "coupler_db": 0.0, "mzi_sigma_db": 0.0}}
"""The same without losses: unequal losses limit the fidelity of a unitary matrix."""


def known_stage(chip: Chip, *, steady_inputs: bool = True) -> StageCalibration:
    """The true parameters of the first stage, without uncertainties."""
    description, own, nothing = chip.describe(), chip.parameters, np.empty(0)
    stage, heat, truth = description.stages[0], own.heater, chip.stages[0].truth
    layout = twin_layout(description, stage, own.crosstalk.reach_m)
    parameters = dataclasses.replace(
        true_parameters(chip, layout),
        kappa=heat.resistance_ohm * heat.pi_power_w / (truth.resistance_ohm * truth.pi_power_w),
        crosstalk_share=own.crosstalk.fraction * (own.crosstalk.at_m / REFERENCE_M) ** own.crosstalk.exponent,
        crosstalk_exponent=own.crosstalk.exponent,
        ground_ratio=heat.ground_ohm / heat.resistance_ohm,
    )
    return StageCalibration(
        stage=stage,
        method="columns",
        layout=layout,
        parameters=parameters,
        sigma=filled(layout),
        draws=np.empty((0, pack(parameters).size)),
        noise=ReadingNoise(dark=1e-9),
        held_out=HeldOut(nothing, nothing, nothing),
        settings=0,
        steady_inputs=steady_inputs,
    )


def known_device(chip: Chip, *, steady_inputs: bool = True) -> Calibration:
    """`known_stage` as the calibration of the whole device."""
    found = known_stage(chip, steady_inputs=steady_inputs)
    return Calibration(chip.describe(), "2026-01-01T00:00:00+00:00", chip.status().clock_s, {}, (found,))
