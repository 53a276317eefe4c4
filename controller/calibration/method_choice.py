"""Choice of the method by which each stage of a device is calibrated."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from photonloop.controller.calibration.calibrated_device import Method
from photonloop.controller.calibration.calibration_options import CalibrationOptions
from photonloop.controller.calibration.calibration_price import StepPrice, step_prices
from photonloop.controller.calibration.columns import TOPOLOGIES
from photonloop.controller.calibration.diagonal import MOST_PORTS
from photonloop.controller.learning.variables import POWER_SHARE, stage_bounds
from photonloop.protocols.config import ConfigError, suggestion
from photonloop.protocols.device import DeviceDescription, StageDescription

NEEDED_RAD = 2.4 * np.pi
"""Nominal phase that a heater must reach: 2π with self-heating, curvature and the spread of P_π."""

NEEDED_MEAN_RAD = 1.2 * np.pi
"""Nominal phase of all heaters on average, for random settings."""


@dataclass(frozen=True)
class MethodPlan:
    """How a stage is calibrated.

    Parameters
    ----------
    stage
        The stage.
    method
        The method.
    reason
        Why it was chosen, as in "several inputs can be lit at once".
    steps
        What is read, and the price of it.
    """

    stage: StageDescription
    method: Method
    reason: str
    steps: tuple[StepPrice, ...]

    @property
    def settings(self) -> int:
        """Settings of all steps."""
        return sum(step.settings for step in self.steps)

    @property
    def readings(self) -> int:
        """Readings of all steps."""
        return sum(step.readings for step in self.steps)

    @property
    def device_s(self) -> float:
        """Time on the device's clock [s]."""
        return sum(step.device_s for step in self.steps)


def planned(description: DeviceDescription, options: CalibrationOptions) -> tuple[list[MethodPlan], list[str]]:
    """Return how each stage is calibrated, and one sentence for each stage that is left out.

    Raises
    ------
    ConfigError
        The stage of the options does not exist, or a stage cannot be calibrated: its topology is not known, or the
        limits of the device leave less than a phase of 2π.
    """
    names = [stage.name for stage in description.stages]
    if options.stage is not None and options.stage not in names:
        raise ConfigError(f"stage {options.stage!r} does not exist" + suggestion(options.stage, names))
    if description.stages[0].topology == "weight_bank":  # banks are in parallel
        chosen = [stage for stage in description.stages if options.stage in {None, stage.name}]
        return [_bank_plan(description, stage, options) for stage in chosen], []
    first, *later = description.stages
    if options.stage not in {None, first.name}:
        raise ConfigError(
            f"stage {options.stage} gets its light through {first.name}, and only the first stage of a device can be calibrated: "
            f"leave --stage out, or give --stage {first.name}"
        )
    skipped = [f"{stage.name} is not calibrated: its light comes through {first.name}" for stage in later]
    check_limits(description, first)
    return [_plan(description, first, options)], skipped if options.stage is None else []


def check_limits(description: DeviceDescription, stage: StageDescription) -> None:
    """Refuse a stage whose heaters cannot reach a phase of 2π.

    Raises
    ------
    ConfigError
        The sentence has the limit and what is needed.
    """
    bounds = stage_bounds(description, stage, 0.0)
    if bounds.high.min() < NEEDED_RAD:
        channel = stage.first_channel + int(bounds.high.argmin())
        raise ConfigError(
            f"the limits allow a nominal phase of {bounds.high.min():.3g} rad at channel {channel}, but a calibration needs "
            f"{NEEDED_RAD:.3g} rad: raise voltage_v, current_a or power_w"
        )
    needed_w = NEEDED_MEAN_RAD / np.pi * description.drive.pi_power_w * description.channels / POWER_SHARE
    if bounds.total < NEEDED_MEAN_RAD * stage.channels:
        raise ConfigError(
            f"total_power_w is {description.limits.total_power_w:.3g} W, but random settings of {description.channels} heaters "
            f"need {needed_w:.3g} W: raise it"
        )


def _plan(description: DeviceDescription, stage: StageDescription, options: CalibrationOptions) -> MethodPlan:
    if not stage.layout:
        raise ConfigError(
            f"the layout of stage {stage.name} (topology {stage.topology!r}) is not known: give the topology of the chip in the "
            "description of the device"
        )
    method, reason = _choice(description, stage, options)
    return MethodPlan(stage, method, reason, step_prices(description, stage, method))


def _bank_plan(description: DeviceDescription, stage: StageDescription, options: CalibrationOptions) -> MethodPlan:
    if options.method != "auto":
        raise ConfigError(f"method {options.method} cannot be used for stage {stage.name}, a weight bank: leave --method out")
    if description.inputs_at_once == "one":
        raise ConfigError(
            f"weight bank {stage.name} cannot be calibrated: this needs several lit inputs, but one is lit at a time"
        )
    return MethodPlan(stage, "rings", "it is a weight bank", step_prices(description, stage, "rings"))


def _choice(description: DeviceDescription, stage: StageDescription, options: CalibrationOptions) -> tuple[Method, str]:
    """Return the method for a mesh, and why.

    Raises
    ------
    ConfigError
        No method applies, or not the one that is asked for.
    """
    obstacles = _obstacles(description, stage)
    if options.method != "auto":
        if obstacle := obstacles[options.method]:
            raise ConfigError(f"method {options.method} cannot be used for stage {stage.name}: {obstacle}")
        return options.method, "it was asked for"
    if obstacles["columns"] and not obstacles["diagonal"]:
        return "diagonal", obstacles["columns"]
    if obstacles["diagonal"] and not obstacles["columns"]:
        return "columns", obstacles["diagonal"]
    if obstacles["columns"]:
        raise ConfigError(f"stage {stage.name} cannot be calibrated: {obstacles['columns']}, and {obstacles['diagonal']}")
    duration_s = sum(step.device_s for step in step_prices(description, stage, "columns"))
    steady_s = description.phases_steady_s
    if steady_s is None:
        return "diagonal", "it is not known whether the phases of the inputs are steady"
    if steady_s < duration_s:
        return "diagonal", f"the phases of the inputs are steady for {steady_s:.3g} s, and columns takes {duration_s:.3g} s"
    return "columns", "several inputs can be lit at once, and their phases are steady"


def _obstacles(description: DeviceDescription, stage: StageDescription) -> dict[Method, str]:
    """Return why each method cannot be used, or an empty text."""
    columns = diagonal = ""
    if description.inputs_at_once == "one":
        columns = "one input is lit at a time"
    elif stage.topology not in TOPOLOGIES:
        columns = f"columns needs one of {', '.join(TOPOLOGIES)}, and the stage is {stage.topology}"
    if stage.topology not in {"clements", "reck"}:
        diagonal = f"diagonal needs a rectangular or triangular mesh, and the stage is {stage.topology}"
    elif stage.ports > MOST_PORTS:
        diagonal = f"diagonal is for at most {MOST_PORTS} ports, and the stage has {stage.ports}"
    elif stage.tap_ports < stage.ports:
        diagonal = f"diagonal needs a detector at each of the {stage.ports} outputs, and there are {stage.tap_ports}"
    return {"columns": columns, "diagonal": diagonal}
