"""Check of a calibration: is the device still what it was when it was calibrated?

Every stage that was calibrated is read at some random settings, in minutes at the pace of a lab (`stage_check`).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from photonloop.controller.calibration.calibrated_device import Calibration, StageCalibration, Trouble
from photonloop.controller.calibration.setting_reader import ReadableDevice, SettingReader
from photonloop.controller.calibration.stage_check import CheckOptions, StageCheck, Verdict, check_stage

VERDICTS: tuple[Verdict, ...] = ("fresh", "drifted", "broken")
"""From the best to the worst."""


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
    device: ReadableDevice, calibration: Calibration, rng: np.random.Generator, options: CheckOptions | None = None
) -> CalibrationCheck:
    """Read some random settings of every calibrated stage and compare them with the calibration.

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
        Agreement of readings and twin then and now, and a verdict with the channels that moved.

    Raises
    ------
    ValueError
        The calibration has no stage.
    """
    if not calibration.stages:
        raise ValueError("the calibration has no stage: calibrate the device")
    return CalibrationCheck(tuple(check_stage(_reader(device, found), found, rng, options) for found in calibration.stages))


def _reader(device: ReadableDevice, found: StageCalibration) -> SettingReader:
    return SettingReader(device, found.stage.name)
