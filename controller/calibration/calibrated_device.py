"""Result of a calibration: the fitted parameters of a device, stage by stage, with uncertainties and a test.

A `Calibration` converts volts to phases and back, and predicts transfer matrices with error bars. It is immutable, and
independent of how it was measured. `calibration_file` reads and writes it.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from photonloop.controller.calibration.calibration_options import CalibrationOptions
from photonloop.controller.calibration.heater_phases import heater_phases
from photonloop.controller.calibration.ring_layout import RingLayout
from photonloop.controller.calibration.ring_readings import RingModel
from photonloop.controller.calibration.ring_values import RingValues
from photonloop.controller.calibration.twin import Twin, transfer_matrices
from photonloop.controller.calibration.twin_layout import TwinLayout
from photonloop.controller.calibration.twin_misfit import ReadingNoise
from photonloop.controller.calibration.twin_parameters import TwinParameters, pack, unpack
from photonloop.controller.learning.variables import phases_of_drive
from photonloop.protocols.device import DeviceDescription, Drive, StageDescription

Array = NDArray[np.float64]
Complex = NDArray[np.complex128]

Method = Literal["columns", "diagonal", "rings"]

TroubleKind = Literal[
    "dead heater",
    "stuck channel",
    "open detector",
    "saturated detector",
    "broken coupler",
    "swapped heaters",
    "swapped inputs",
    "low visibility",
    "no signal",
]


@dataclass(frozen=True)
class Trouble:
    """A defect that a calibration found, and that it left out.

    Parameters
    ----------
    kind
        What is wrong.
    stage
        Name of the stage.
    channels, ports
        Channels within the stage and ports that it concerns.
    detail
        One sentence: what was measured, and what was done.
    """

    kind: TroubleKind
    stage: str
    channels: tuple[int, ...] = ()
    ports: tuple[int, ...] = ()
    detail: str = ""


@dataclass(frozen=True)
class HeldOut:
    """How well the twin predicts settings that were not fitted; one number per setting.

    Parameters
    ----------
    residual
        Root mean square residual relative to the noise of the readings: 1 for a perfect twin.
    misfit
        Relative error of the square roots of the readings (`twin_misfit.relative_misfit`).
    tvd
        Total variation distance of predicted and measured output distributions, mean over the inputs; NaN for a weight
        bank, whose readings are differences.
    """

    residual: Array
    misfit: Array
    tvd: Array


class PredictedMatrix(NamedTuple):
    """Transfer matrices, (settings, ports, ports), and the standard deviation of each element's magnitude."""

    matrix: Complex
    sigma: Array


@dataclass(frozen=True)
class StageCalibration:
    """What is known of one mesh.

    Parameters
    ----------
    stage
        Description of the stage, as it was when it was calibrated.
    method
        How the start of the fit was found.
    layout
        Structure of the stage for the twin.
    parameters, sigma
        Fitted values and their standard deviations.
    draws
        Random draws from the posterior, as differences from `parameters` in the order of `pack`, shape (draws,
        parameters); (0, parameters) if the fit has no covariance. They keep the correlations of the errors.
    noise
        Noise of the readings.
    held_out
        Test on settings that were not fitted.
    settings
        Settings that were read.
    steady_inputs
        True if the phases of the inputs were steady and are known relative to each other: the fitted matrix then holds
        for inputs that are lit together.
    troubles
        Defects that were found and left out.
    """

    stage: StageDescription
    method: Method
    layout: TwinLayout
    parameters: TwinParameters
    sigma: TwinParameters
    draws: Array
    noise: ReadingNoise
    held_out: HeldOut
    settings: int
    steady_inputs: bool
    troubles: tuple[Trouble, ...] = ()

    @cached_property
    def twin(self) -> Twin:
        """The fitted model."""
        return Twin(self.layout, self.parameters)

    def phases(self, nominal: Array) -> Array:
        """Return the phases of all channels [rad] at nominal heater phases, both of shape (settings, channels).

        They contain offsets, curvature and crosstalk: with them an ideal mesh has the matrix of this one.
        """
        return heater_phases(self.layout, self.parameters, self.twin.crosstalk, nominal).effective

    def matrices(self, nominal: Array) -> PredictedMatrix:
        """Return the transfer matrices at nominal heater phases, shape (settings, channels), with error bars.

        The error bars are NaN if the fit has no covariance.
        """
        found = transfer_matrices(self.twin, nominal)
        if len(self.draws) == 0:
            return PredictedMatrix(found, np.full(found.shape, np.nan))
        center = pack(self.parameters)
        drawn = [np.abs(transfer_matrices(Twin(self.layout, unpack(self.layout, center + draw)), nominal)) for draw in self.draws]
        return PredictedMatrix(found, np.sqrt(np.mean((np.array(drawn) - np.abs(found)) ** 2, axis=0)))


@dataclass(frozen=True)
class RingCalibration:
    """What is known of one weight bank.

    Parameters
    ----------
    stage
        Description of the stage, as it was when it was calibrated.
    layout
        Structure of the bank, as `ring_layout` returns it.
    values, sigma
        Fitted values and their standard deviations.
    influence_rad, influence_sigma
        Phase of each ring per P_π of each heater, in addition to what the values say, and its standard deviation, shape
        (channels, channels).
    only_own
        True if each ring acts on its own wavelength only.
    noise
        Noise of the readings.
    held_out
        Test on settings that were not fitted; `misfit` is the rms error of the readings relative to their rms.
    settings
        Settings that were read.
    troubles
        Defects that were found and left out.
    method
        "rings".
    """

    stage: StageDescription
    layout: RingLayout
    values: RingValues
    sigma: RingValues
    influence_rad: Array
    influence_sigma: Array
    only_own: bool
    noise: ReadingNoise
    held_out: HeldOut
    settings: int
    troubles: tuple[Trouble, ...] = ()
    method: Method = "rings"

    @cached_property
    def model(self) -> RingModel:
        """The fitted model."""
        return RingModel(self.layout, self.values, self.influence_rad, self.only_own)

    def weights(self, nominal: Array) -> Array:
        """Return the weights, shape (settings, N, M), at nominal heater phases [rad], shape (settings, channels).

        A weight is the share of the light of a wavelength in its row that is dropped, less the share that passes.
        """
        return self.model.weights(nominal)


@dataclass(frozen=True)
class Calibration:
    """What is known of a device.

    Parameters
    ----------
    device
        Description of the device, as it was when it was calibrated.
    made
        Date and time in UTC, in ISO format.
    clock_s
        Clock of the device at the end [s].
    conditions
        What the device reported at the end, by name, such as temperature and wavelength (`DeviceStatus.health`).
    stages
        The meshes that were calibrated.
    banks
        The weight banks that were calibrated.
    options
        Options of the calibration, with the seed of its settings.
    """

    device: DeviceDescription
    made: str
    clock_s: float
    conditions: dict[str, str | float]
    stages: tuple[StageCalibration, ...]
    options: CalibrationOptions = field(default_factory=CalibrationOptions)
    banks: tuple[RingCalibration, ...] = ()

    def stage(self, name: str | None = None) -> StageCalibration:
        """Return the calibration of a mesh; None: the first one.

        Raises
        ------
        ValueError
            The stage was not calibrated.
        """
        for found in self.stages:
            if name is None or found.stage.name == name:
                return found
        known = ", ".join(found.stage.name for found in self.stages)
        raise ValueError(f"stage {name!r} is not in the calibration, which has {known or 'no stage'}: calibrate it")

    def bank(self, name: str | None = None) -> RingCalibration:
        """Return the calibration of a weight bank; None: the first one.

        Raises
        ------
        ValueError
            The stage was not calibrated, or it is a mesh.
        """
        for found in self.banks:
            if name is None or found.stage.name == name:
                return found
        known = ", ".join(found.stage.name for found in self.banks)
        raise ValueError(f"weight bank {name!r} is not in the calibration, which has {known or 'no bank'}: calibrate it")

    def nominal(self, drive_v: Drive) -> Array:
        """Return the nominal heater phases [rad] of a drive of one stage [V]."""
        return phases_of_drive(np.atleast_2d(drive_v), self.device.drive)

    def phases_of_volts(self, drive_v: Drive, stage: str | None = None) -> Array:
        """Return the phases of all channels of a stage [rad] at drives [V], both of shape (settings, channels)."""
        return self.stage(stage).phases(self.nominal(drive_v))

    def matrix_of_volts(self, drive_v: Drive, stage: str | None = None) -> PredictedMatrix:
        """Return the transfer matrices of a stage at drives [V], shape (settings, channels), with error bars."""
        return self.stage(stage).matrices(self.nominal(drive_v))

    @property
    def troubles(self) -> tuple[Trouble, ...]:
        """The defects of all stages."""
        return tuple(trouble for found in (*self.stages, *self.banks) for trouble in found.troubles)
