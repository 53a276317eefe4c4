"""Check of a calibration: whether the device still is what it was when it was calibrated.

Every stage that was calibrated is read at some random settings, in minutes at the pace of a lab (`stage_check`).
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from photonloop.controller.calibration.calibrated_device import Calibration, StageCalibration, Trouble
from photonloop.controller.calibration.fault_hypotheses import explain_misfit
from photonloop.controller.calibration.heater_readback import MeasuringDevice
from photonloop.controller.calibration.setting_reader import ReadableDevice, SettingReader
from photonloop.controller.calibration.stage_check import CheckOptions, StageCheck, Verdict, check_stage
from photonloop.controller.calibration.stage_troubles import can_search, exclusions, find_troubles
from photonloop.controller.calibration.twin_layout import twin_layout
from photonloop.controller.calibration.twin_misfit import Observations

VERDICTS: tuple[Verdict, ...] = ("fresh", "drifted", "broken")
"""From the best to the worst."""


class CheckedDevice(ReadableDevice, MeasuringDevice, Protocol):
    """The part of `PhotonicDevice` that a check uses."""


@dataclass(frozen=True)
class CalibrationCheck:
    """Result of a check.

    Parameters
    ----------
    stages
        The checks of all stages.
    """

    stages: tuple[StageCheck, ...]

    @property
    def verdict(self) -> Verdict:
        """The worst verdict of all stages."""
        found = {each.verdict for each in self.stages}
        return next(verdict for verdict in reversed(VERDICTS) if verdict in found)

    @property
    def settings(self) -> int:
        """Settings that were read."""
        return sum(each.settings for each in self.stages)

    @property
    def troubles(self) -> tuple[Trouble, ...]:
        """The defects of all stages."""
        return tuple(trouble for each in self.stages for trouble in each.troubles)


def check_calibration(
    device: CheckedDevice, calibration: Calibration, rng: np.random.Generator, options: CheckOptions | None = None
) -> CalibrationCheck:
    """Read some random settings of every calibrated mesh and compare them with the calibration.

    Parameters
    ----------
    device
        The device, the one that was calibrated.
    calibration
        Its calibration.
    rng
        Draws settings and inputs.
    options
        None: the defaults.

    Returns
    -------
        Agreement of readings and twin then and now, and a verdict with the channels that moved. If a stage is broken,
        its defects are searched for: with some settings per heater if several inputs can be lit at once, otherwise in
        what was read.

    Raises
    ------
    ValueError
        The calibration has no mesh.
    """
    if not calibration.stages:
        raise ValueError("the calibration has no mesh that could be checked: calibrate the device again")
    return CalibrationCheck(tuple(_checked(device, found, rng, options) for found in calibration.stages))


def _checked(
    device: CheckedDevice, found: StageCalibration, rng: np.random.Generator, options: CheckOptions | None
) -> StageCheck:
    reader = SettingReader(device, found.stage.name, exclusions=exclusions(found.troubles))
    plain = SettingReader(device, found.stage.name)

    def search(data: Observations) -> tuple[Trouble, ...]:
        if not (found.steady_inputs and can_search(plain.description, plain.stage)):
            return explain_misfit(found, data, 2 * float(np.median(found.held_out.misfit)))
        return find_troubles(plain, twin_layout(plain.description, plain.stage), rng, device)

    check = check_stage(reader, found, rng, options, search)
    return dataclasses.replace(check, settings=check.settings + plain.settings)
