"""Calibration of a stage that may have defects: they are named, left out, and the rest is calibrated.

Before the scans, the sources are read back, and one setting shows whether all detectors can be used. If the twin does
not describe the readings in the end, `find_troubles` searches for other defects, and the stage is calibrated again
without them.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Protocol

import numpy as np

from photonloop.controller.calibration.calibrated_device import StageCalibration, Trouble
from photonloop.controller.calibration.exclusions import Exclusions
from photonloop.controller.calibration.heater_readback import MeasuringDevice
from photonloop.controller.calibration.setting_reader import ReadableDevice, SettingReader
from photonloop.controller.calibration.stage_methods import MeasuredStage
from photonloop.controller.calibration.stage_troubles import can_search, exclusions, find_troubles, first_troubles

SUSPICIOUS_MISFIT = 0.05
"""Median misfit of the held-out settings above which defects are searched for."""

BROKEN_RAD = 0.2
"""Error of a coupler's angle above which it is broken: 5 standard deviations of the prior."""


class DefectiveDevice(ReadableDevice, MeasuringDevice, Protocol):
    """The part of `PhotonicDevice` that this calibration uses, besides its method."""


def calibrate_sound_parts(
    device: DefectiveDevice,
    stage_name: str,
    calibrate: Callable[[SettingReader], MeasuredStage],
    rng: np.random.Generator,
    report: Callable[[str], None],
) -> MeasuredStage:
    """Calibrate a stage without its defective parts.

    Parameters
    ----------
    device, stage_name
        The device, and the stage.
    calibrate
        Calibrates the stage with the settings that it reads.
    rng
        Draws settings and inputs of the search for defects.
    report
        Receives what is done, one sentence at a time.

    Returns
    -------
        The calibration, with all defects in `troubles` and all settings counted.

    Raises
    ------
    ValueError
        There is no light.
    """
    plain = SettingReader(device, stage_name)
    troubles = first_troubles(plain, rng, device)
    for trouble in troubles:
        if trouble.kind == "no signal":
            raise ValueError(f"{stage_name} cannot be calibrated: {trouble.detail}")
    found = calibrate(_reader(device, stage_name, troubles))
    settings = found.calibration.settings + plain.settings
    searchable = can_search(plain.description, plain.stage)
    if searchable and (_is_bad(found.calibration) or broken_couplers(found.calibration)):
        report(f"{stage_name}: the twin does not describe the readings, or has unlikely couplers: searching for defects")
        before = plain.settings
        more = find_troubles(plain, found.calibration.layout, rng, device)
        settings += plain.settings - before
        if exclusions(more) != exclusions(troubles):
            report(f"{stage_name}: {len(more)} found: calibrating again without them")
            found = calibrate(_reader(device, stage_name, more))
            settings += found.calibration.settings
        troubles = more
    broken = () if searchable else broken_couplers(found.calibration)
    everything = (*troubles, *found.calibration.troubles, *broken)
    return dataclasses.replace(found, calibration=dataclasses.replace(found.calibration, troubles=everything, settings=settings))


def broken_couplers(found: StageCalibration) -> tuple[Trouble, ...]:
    """Return the couplers whose fitted angle is far from 45°.

    In an interferometer with a dead heater they cannot be distinguished from its phases, and may be sound.
    """
    layout, error_rad = found.layout, found.parameters.coupler_error_rad
    troubles = []
    for k, coupler in np.argwhere(np.abs(error_rad) > BROKEN_RAD).tolist():
        top, channels = int(layout.top[k]), (int(layout.theta[k]), int(layout.phi[k]))
        degrees = np.degrees(error_rad[k, coupler])
        detail = f"coupler {coupler + 1} of the interferometer in column {layout.column[k]} is {degrees:+.0f}° from 45°"
        troubles.append(Trouble("broken coupler", found.stage.name, channels, (top, top + 1), detail))
    return tuple(troubles)


def _is_bad(found: StageCalibration) -> bool:
    misfit = found.held_out.misfit
    return bool(misfit.size) and not np.median(misfit) <= SUSPICIOUS_MISFIT


def _reader(device: ReadableDevice, stage_name: str, troubles: tuple[Trouble, ...]) -> SettingReader:
    left_out: Exclusions = exclusions(troubles)
    return SettingReader(device, stage_name, exclusions=left_out)
