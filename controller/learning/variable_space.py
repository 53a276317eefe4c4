"""What the variables of a layer are, and which drives they stand for.

heater    nominal heater phases, which any chip has: bounded, and reflected at the bounds
phase     calibrated phases: modulo 2π, with crosstalk inverted and the multiples of 2π of least power
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np

from photonloop.controller.calibration.calibrated_device import Calibration
from photonloop.controller.calibration.calibration_file import load_calibration
from photonloop.controller.calibration.phase_inversion import TURN, PhaseInversion
from photonloop.controller.device.device_difference import chip_difference
from photonloop.controller.experiment import Experiment
from photonloop.controller.learning.variables import Bounds, Phases, project, reflect, stage_bounds, to_drive
from photonloop.protocols.config import ConfigError
from photonloop.protocols.device import DeviceDescription, Drive, StageDescription

CALIBRATION = "calibration.json"
"""Copy of the calibration in a run folder."""

ROUNDS = 30
"""Most rounds of an inversion. At 64 ports some ten are needed, at 16 ports half of them."""

TOLERANCE_RAD = 5e-4
"""Error at which an inversion ends: small compared with a probe step."""


class VariableSpace(Protocol):
    """The meaning of a layer's variables. All functions are pure, so that a session can be repeated."""

    def bounds(self, extent_rad: float | Phases, reserve_rad: float = 0.0) -> Bounds:
        """Return the bounds of variables around which probes move by `extent_rad`; as `stage_bounds`."""
        ...

    def project(self, variables: Phases, bounds: Bounds) -> Phases:
        """Return variables, shape (channels,), brought back into the bounds."""
        ...

    def drives(self, settings: Phases, bounds: Bounds | None = None) -> Drive:
        """Return the drives [V] of settings, both (settings, channels); settings beyond `bounds` are brought back."""
        ...

    def drives_around(self, center: Phases, settings: Phases, bounds: Bounds) -> Drive:
        """Return the drives [V] of settings near `center`, shape (channels,)."""
        ...

    @property
    def periodic(self) -> bool:
        """Whether variables have no bounds, so that a probe step is not limited by them."""
        ...


@dataclass(frozen=True)
class HeaterVariables:
    """Nominal heater phases of a stage."""

    description: DeviceDescription
    stage: StageDescription
    periodic: bool = False

    def bounds(self, extent_rad: float | Phases, reserve_rad: float = 0.0) -> Bounds:
        """See `VariableSpace`."""
        return stage_bounds(self.description, self.stage, extent_rad, reserve_rad)

    def project(self, variables: Phases, bounds: Bounds) -> Phases:
        """See `VariableSpace`."""
        return project(variables, bounds)

    def drives(self, settings: Phases, bounds: Bounds | None = None) -> Drive:
        """See `VariableSpace`."""
        return to_drive(settings if bounds is None else reflect(settings, bounds), self.description.drive)

    def drives_around(self, center: Phases, settings: Phases, bounds: Bounds) -> Drive:
        """See `VariableSpace`."""
        del center
        return self.drives(settings, bounds)


@dataclass(frozen=True)
class PhaseVariables:
    """Calibrated phases of a stage: the effective phases of its channels."""

    description: DeviceDescription
    inversion: PhaseInversion
    periodic: bool = True

    def bounds(self, extent_rad: float | Phases, reserve_rad: float = 0.0) -> Bounds:
        """See `VariableSpace`. Phases wrap, so probes need no room."""
        del extent_rad, reserve_rad
        channels = self.inversion.twin.layout.channels
        return Bounds(np.zeros(channels), np.full(channels, TURN), np.inf)

    def project(self, variables: Phases, bounds: Bounds) -> Phases:
        """See `VariableSpace`."""
        del bounds
        return np.mod(variables, TURN)

    def drives(self, settings: Phases, bounds: Bounds | None = None) -> Drive:
        """See `VariableSpace`."""
        del bounds
        return self._drives(self._nominal(settings))

    def drives_around(self, center: Phases, settings: Phases, bounds: Bounds) -> Drive:
        """See `VariableSpace`."""
        del bounds
        near = self._nominal(center[np.newaxis])
        start = np.broadcast_to(near, settings.shape)
        found = self.inversion.nominal(settings, start, keep_turns=True, tolerance_rad=TOLERANCE_RAD, rounds=ROUNDS)
        return self._drives(found.nominal)

    def _nominal(self, settings: Phases) -> Phases:
        """Return the nominal heater phases of any settings, both (settings, channels)."""
        return self.inversion.nominal(settings, least_power=False, tolerance_rad=TOLERANCE_RAD, rounds=ROUNDS).nominal

    def _drives(self, nominal: Phases) -> Drive:
        """Return drives within the power limit: settings that exceed it have less heat than they should."""
        total = nominal.sum(axis=1, keepdims=True)
        return to_drive(nominal * np.minimum(1.0, self.inversion.bounds.total / total), self.description.drive)


def variable_space(description: DeviceDescription, stage: StageDescription, calibration: Calibration | None) -> VariableSpace:
    """Return the variables of a stage: calibrated phases if there is a calibration, nominal heater phases otherwise.

    Raises
    ------
    ConfigError
        The stage is not in the calibration.
    """
    if calibration is None:
        return HeaterVariables(description, stage)
    try:
        found = calibration.stage(stage.name)
    except ValueError as error:
        raise ConfigError(f"variables is 'phase', but {error}") from None
    return PhaseVariables(description, PhaseInversion(found.twin, stage_bounds(description, stage, 0.0)))


def calibration_of(experiment: Experiment, run: Path | None, description: DeviceDescription) -> Calibration | None:
    """Return the calibration of an experiment with calibrated phases, None for nominal heater phases.

    Parameters
    ----------
    experiment
        The experiment.
    run
        Folder of an existing run, which has a copy of the calibration; None for a new run.
    description
        The device.

    Raises
    ------
    ConfigError
        There is no calibration, it cannot be read, or it is of another device.
    """
    if experiment.variables == "heater":
        if experiment.calibration is not None:
            raise ConfigError("calibration is given, but variables is 'heater': set variables to 'phase', or leave it out")
        return None
    if experiment.calibration is None:
        raise ConfigError("variables is 'phase', but there is no calibration: set calibration to the file of the device")
    found = load_calibration(experiment.calibration if run is None else run / CALIBRATION)
    if other := chip_difference(found.device, description):
        raise ConfigError(
            f"calibration {experiment.calibration} is of another device: {other.detail}. Calibrate this device, and start a "
            "new run"
        )
    return found
