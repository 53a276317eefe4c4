"""Refresh of a calibration: what drifts is fitted again, with a tenth of the settings of the calibration."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np

from photonloop.controller.calibration.calibrated_device import Calibration, StageCalibration
from photonloop.controller.calibration.drift_fit import DriftSize, fit_drift
from photonloop.controller.calibration.reading_record import utc_now
from photonloop.controller.calibration.setting_reader import ReadableDevice, SettingReader
from photonloop.controller.calibration.stage_check import check_inputs_of, held_out
from photonloop.controller.calibration.stage_troubles import exclusions
from photonloop.controller.calibration.twin import Twin
from photonloop.controller.learning.variables import start_variables
from photonloop.protocols.device import DeviceStatus


class RefreshedDevice(ReadableDevice, Protocol):
    """The part of `PhotonicDevice` that a refresh uses."""

    def status(self) -> DeviceStatus:
        """As in `PhotonicDevice`."""
        ...


@dataclass(frozen=True)
class RefreshOptions:
    """Options of a refresh.

    Parameters
    ----------
    share
        Settings to be read, held-out ones included, divided by those of the calibration.
    held_out
        Settings that are not fitted but test the result.
    samples
        Inputs of each setting.
    drift
        Expected size of drift.
    """

    share: float = 0.1
    held_out: int = 4
    samples: int = 64
    drift: DriftSize = field(default_factory=DriftSize)


def refresh_stage(
    reader: SettingReader, found: StageCalibration, rng: np.random.Generator, options: RefreshOptions | None = None
) -> StageCalibration:
    """Read random settings, fit what drifts, and return the new calibration of a stage.

    Parameters
    ----------
    reader
        Reads settings of the stage.
    found
        The calibration.
    rng
        Draws settings and inputs.
    options
        None: the defaults.

    Returns
    -------
        The calibration with new offsets, input gains and phases, level and dark readings, and tested on settings that
        were read now. `settings` remains the number of settings of the full calibration.

    Raises
    ------
    ValueError
        A tenth of the settings of the calibration is too few to hold some out.
    """
    options = options or RefreshOptions()
    count = int(options.share * found.settings)
    if count <= options.held_out:
        raise ValueError(
            f"the calibration of stage {found.stage.name} has {found.settings} settings, and a refresh may read {count}, of "
            f"which {options.held_out} are held out: raise share, or calibrate again"
        )
    phases = np.array([start_variables(reader.bounds, rng) for _ in range(count)])
    everything = reader.read(phases, check_inputs_of(found, options.samples, rng)).observations()
    data, test = everything.part(slice(0, count - options.held_out)), everything.part(slice(count - options.held_out, None))
    fit = fit_drift(found, data, options.drift)
    tested = held_out(found, Twin(found.layout, fit.parameters), test)
    return dataclasses.replace(found, parameters=fit.parameters, held_out=tested)


def refresh_calibration(
    device: RefreshedDevice, calibration: Calibration, rng: np.random.Generator, options: RefreshOptions | None = None
) -> Calibration:
    """Refresh all meshes of a calibration; weight banks are kept as they are.

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

    Raises
    ------
    ValueError
        As `refresh_stage`.
    """
    stages = []
    for found in calibration.stages:
        reader = SettingReader(device, found.stage.name, exclusions=exclusions(found.troubles))
        stages.append(refresh_stage(reader, found, rng, options))
    status = device.status()
    return dataclasses.replace(
        calibration, made=utc_now(), clock_s=status.clock_s, conditions=dict(status.health), stages=tuple(stages)
    )
