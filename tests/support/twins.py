"""Twins for tests: random parameters, and the true parameters of a virtual chip."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
from numpy.typing import NDArray

from photonloop.controller.calibration.twin_layout import TwinLayout, twin_layout
from photonloop.controller.calibration.twin_parameters import TwinParameters, TwinPrior, filled, pack, unpack
from photonloop.protocols.device import StageGeometry
from photonloop.simulator.engine.chip import Chip
from photonloop.simulator.physics import photodiode
from support.chips import chip_of

COLUMN_M, MODE_M = 2e-4, 5e-5

STEADY: dict[str, dict[str, Any]] = {
    "dac": {"bits": 0, "inl_lsb": 0.0, "noise_v": 0.0, "slow_noise_v": 0.0, "gain_drift_sigma": 0.0},
    "heater": {"resistance_sigma": 0.0, "ground_ohm": 0.0},
    "crosstalk": {"fraction": 0.0},
    "drift": {"sigma_rad": 0.0},
    "temperature": {"sigma_k": 0.0, "heating_k_per_w": 0.0},
    "laser": {"drift_sigma": 0.0, "jitter_pm": 0.0},
    "modulator": {"phase_drift_rad": 0.0, "coupling_drift_sigma": 0.0, "path_sigma_m": 0.0},
    "adc": {"gain_drift_sigma": 0.0, "offset_drift_lsb": 0.0, "offset_sigma_lsb": 0.0, "offset_lsb": 0.0},
}
"""Effects that a twin has no parameters for are absent, and so is the simulator's crosstalk."""


def geometry_of(ports: int, columns: int, heated_arm: str = "upper") -> StageGeometry:
    x = COLUMN_M * np.arange(columns)
    return StageGeometry.model_validate(
        {
            "mode_y_m": tuple(MODE_M * np.arange(ports)),
            "phi_x_m": tuple(x),
            "theta_x_m": tuple(x + COLUMN_M / 2),
            "gamma_x_m": COLUMN_M * columns,
            "heated_arm": heated_arm,
        }
    )


def layout_of(topology: str, ports: int, heated_arm: str | None = "upper", reach_m: float = 1.6e-4) -> TwinLayout:
    """The layout of a virtual chip, with a geometry unless `heated_arm` is None."""
    chip = chip_of("ideal", {"mesh": {"topology": topology}}, ports=ports, stages=1)
    description = chip.describe()
    stage = description.stages[0]
    if heated_arm is not None:
        columns = max(row[0] for row in stage.layout) + 1
        stage = stage.model_copy(update={"geometry": geometry_of(ports, columns, heated_arm)})
    return twin_layout(description, stage, reach_m)


def drawn(layout: TwinLayout, prior: TwinPrior, rng: np.random.Generator) -> TwinParameters:
    """Parameters from the prior; those that cannot be negative are reflected at 0."""
    vector = pack(prior.mean)
    found = unpack(layout, vector + pack(prior.sigma) * rng.standard_normal(vector.size))
    kinds = (
        "level",
        "crosstalk_share",
        "ground_ratio",
        "shifter_db",
        "input_leak",
        "input_coupling",
        "compression",
        "detector_memory",
    )
    return dataclasses.replace(found, **{kind: abs(getattr(found, kind)) for kind in kinds})


def true_parameters(chip: Chip, layout: TwinLayout) -> TwinParameters:
    """The true values of the first stage of a virtual chip."""
    own, stage, modulators = chip.parameters, chip.stages[0], chip.input_truth()
    saturation_a, extinction_db = own.photodiode.saturation_a, own.modulator.extinction_db
    return filled(
        layout,
        offset_rad=stage.truth.offset_rad,
        kappa=own.heater.pi_power_w / stage.truth.pi_power_w,
        curvature=own.heater.curvature,
        self_heating=own.heater.self_heating,
        coupler_error_rad=stage.truth.coupler_error_rad,
        loss_db=stage.truth.loss_db,
        shifter_db=own.loss.shifter_db,
        level=stage.levels.ampere,
        input_gain=modulators.amplitude,
        input_phase_rad=modulators.phase_rad,
        input_leak=10 ** (-extinction_db / 20) if extinction_db else 0.0,
        input_coupling=np.sqrt(own.modulator.crosstalk),
        detector_gain=stage.truth.responsivity,
        detector_dark=own.photodiode.dark_a,
        compression=layout.full_scale / saturation_a if saturation_a else 0.0,
        detector_memory=photodiode.kept_share(own.photodiode, own.sample_s),
    )


def random_inputs(samples: int, ports: int, rng: np.random.Generator) -> NDArray[np.float64]:
    """Amplitudes, half of them 0."""
    return rng.uniform(0, 1, (samples, ports)) * (rng.random((samples, ports)) < 0.5)
