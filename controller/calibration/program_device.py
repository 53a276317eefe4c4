"""Program a matrix, or phases, on a calibrated device, and measure what was reached.

`program` does what `photonloop program` does, for scripts and notebooks.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from photonloop.controller.calibration.calibrated_device import Calibration, StageCalibration
from photonloop.controller.calibration.calibration_file import check_same_device
from photonloop.controller.calibration.matrix_merit import entering_matrix
from photonloop.controller.calibration.program import ProgrammedMatrix, program_matrix, program_phases
from photonloop.controller.calibration.program_measurement import MeasuredErrors, measured_errors
from photonloop.controller.calibration.program_refine import refined
from photonloop.controller.calibration.setting_reader import SettingReader
from photonloop.controller.calibration.stage_troubles import exclusions
from photonloop.controller.decompose.stage_phases import mesh_matrix
from photonloop.controller.decompose.targets import read_phases, target_matrix
from photonloop.controller.device.compatibility import described_chip
from photonloop.controller.device.open_device import OpenDevice, check_device, open_device
from photonloop.controller.device.processes import VirtualChip
from photonloop.controller.device.reconnecting import ReconnectingDevice
from photonloop.controller.learning.variables import Bounds, Phases, to_drive
from photonloop.controller.stopping import Stop
from photonloop.protocols.config import ConfigError
from photonloop.protocols.device import DeviceDescription, Drive, Inputs, LoadedRows, Readings

Complex = NDArray[np.complex128]

REPEATS = 16
"""Readings that are averaged."""


@dataclass(frozen=True)
class ProgramOptions:
    """What is programmed, and how it is measured.

    Parameters
    ----------
    matrix
        Target matrix, one of `targets.KNOWN_TARGETS`; None if phases are given.
    phases
        File with effective phases [rad] of all channels of the stage; None if a matrix is given.
    stage
        Name of the stage; None: the first one of the calibration.
    refine
        Settings of the refinement by measurements; 0: none.
    repeats
        Readings that are averaged.
    seed
        Seed of the settings of the refinement.
    other_device
        Use a calibration of another device.
    """

    matrix: str | None = None
    phases: Path | None = None
    stage: str | None = None
    refine: int = 0
    repeats: int = REPEATS
    seed: int = 0
    other_device: bool = False


@dataclass(frozen=True)
class RefinedErrors:
    """Errors before and after a refinement, from as many fresh readings each.

    Parameters
    ----------
    before, after
        The programmed setting, and the best one of the refinement.
    kept
        True if `after` has a smaller total variation distance than `before`, and was kept.
    tvd
        Total variation distance at each center of the refinement, in the order of reading.
    """

    before: MeasuredErrors
    after: MeasuredErrors
    kept: bool
    tvd: tuple[float, ...]


@dataclass(frozen=True)
class ProgramResult:
    """Result of `program`.

    Parameters
    ----------
    stage, target
        Name of the stage, and name of the matrix or of the file with phases.
    programmed
        The nominal heater phases, and what the calibration predicts.
    nominal
        Nominal heater phases at the end [rad], shape (channels,): those of the refinement if it was kept.
    measured
        Measured errors of the programmed setting; None if the stage gets its light through other stages.
    refined
        Result of the refinement; None if there was none.
    heater_power_w
        Nominal electrical power of the heaters of the stage at the end [W].
    settings
        Settings that were read.
    """

    stage: str
    target: str
    programmed: ProgrammedMatrix
    nominal: Phases
    measured: MeasuredErrors | None
    refined: RefinedErrors | None
    heater_power_w: float
    settings: int


def program(
    device: str,
    calibration: Calibration,
    options: ProgramOptions,
    *,
    chip: VirtualChip | None = None,
    report: Callable[[str], None] = lambda _: None,
    hold: Callable[[ProgramResult], None] = lambda _: None,
    stop: Stop | None = None,
    keys: Path | None = None,
) -> ProgramResult:
    """Program a matrix or phases on a device and measure the errors; then make the device safe.

    Parameters
    ----------
    device
        Device string.
    calibration
        Calibration of the device.
    options
        What is programmed, and how it is measured.
    chip
        Ports, stages and seed of a virtual chip; those that are None are as in the calibration.
    report
        Receives warnings and progress, one sentence at a time.
    hold
        Called with the result while the device holds the programmed drive. The device is made safe when it returns.
    stop
        Stops the measurements when requested.
    keys
        Folder of the CURVE keys for a device server.

    Raises
    ------
    ConfigError
        Target, calibration and device do not fit together; nothing was applied to the device.
    DeviceError, SessionStopped
        As `ReconnectingDevice`; the device was made safe.
    """
    address = check_device(device, keys)
    found = calibration.stage(options.stage)
    wanted = _wanted(found, options)
    chip, lease_key, stop = described_chip(address, calibration.device, chip), secrets.token_hex(16), stop or Stop()

    def opener() -> OpenDevice:
        return open_device(address, write=True, chip=chip, label="photonloop program", lease_key=lease_key, keys=keys, stop=stop)

    link = ReconnectingDevice(opener, stop=stop, on_lost=report, on_restored=report, on_waiting=report)
    with closing(link):
        if other := check_same_device(calibration, link.description, allow_other=options.other_device):
            report(f"warning: the calibration is of another device: {other}")
        result = _programmed(_DescribedDevice(link), found, wanted, options, report)
        link.apply(stage_drive(link.description, found, result.nominal))
        hold(result)
    return result


def usable_bounds(found: StageCalibration, bounds: Bounds) -> Bounds:
    """Return `bounds` in which channels that cannot be driven stay at their lower bounds."""
    held, high = list(exclusions(found.troubles).channels), bounds.high.copy()
    high[held] = bounds.low[held]
    return replace(bounds, high=high)


def stage_drive(description: DeviceDescription, found: StageCalibration, nominal: Phases) -> Drive:
    """Return the drive [V] of the whole device: one stage at nominal heater phases, all others at the lowest drive."""
    stage = description.stages[description.stage_index(found.stage.name)]
    drive = np.full(description.channels, description.drive.min_v)
    drive[stage.first_channel : stage.first_channel + stage.channels] = to_drive(nominal, description.drive)
    return drive


@dataclass(frozen=True)
class _Wanted:
    """The target from requested amplitudes to outputs, the phases of the mesh if they are given, and a name.

    Given phases leave the inputs as they are, with their phases and couplings.
    """

    matrix: Complex
    phases: Phases | None
    name: str


def _wanted(found: StageCalibration, options: ProgramOptions) -> _Wanted:
    if (options.matrix is None) == (options.phases is None):
        raise ConfigError("give either a matrix or a file with phases")
    if options.matrix is not None:
        return _Wanted(target_matrix(options.matrix, found.stage), None, options.matrix)
    assert options.phases is not None
    phases = read_phases(options.phases, found.stage)
    matrix = mesh_matrix(found.stage, phases) @ entering_matrix(found, found.twin)
    return _Wanted(matrix, phases, str(options.phases))


def _programmed(
    device: _DescribedDevice, found: StageCalibration, wanted: _Wanted, options: ProgramOptions, report: Callable[[str], None]
) -> ProgramResult:
    reader = SettingReader(device, found.stage.name, exclusions=exclusions(found.troubles))
    rng = np.random.default_rng(options.seed)
    description, bounds = reader.description, usable_bounds(found, reader.bounds)
    if wanted.phases is None:
        programmed = program_matrix(found, wanted.matrix, bounds, rng)
    else:
        programmed = program_phases(found, wanted.phases, wanted.matrix, bounds)
    nominal, measured, better = programmed.nominal, None, None
    device.link.apply(stage_drive(description, found, nominal))
    if description.stage_index(found.stage.name) > 0:
        report(
            f"stage {found.stage.name} gets its light through other stages, so its inputs cannot be lit one by one: "
            "its errors are not measured"
        )
    else:
        measured = measured_errors(reader, found, nominal, wanted.matrix, options.repeats)
        if options.refine:
            nominal, better = _refined(reader, found, programmed, bounds, options, rng)
    return ProgramResult(
        stage=found.stage.name,
        target=wanted.name,
        programmed=programmed,
        nominal=nominal,
        measured=measured,
        refined=better,
        heater_power_w=float(nominal.sum()) * description.drive.pi_power_w / np.pi,
        settings=reader.settings,
    )


def _refined(
    reader: SettingReader,
    found: StageCalibration,
    programmed: ProgrammedMatrix,
    bounds: Bounds,
    options: ProgramOptions,
    rng: np.random.Generator,
) -> tuple[Phases, RefinedErrors]:
    """Return the better setting of the programmed and the refined one, and the errors of both."""
    target = programmed.target
    better = refined(reader, found, programmed.nominal, target, bounds, options.refine, rng)
    before, after = (
        measured_errors(reader, found, nominal, target, options.repeats, better.twin)
        for nominal in (programmed.nominal, better.nominal)
    )
    kept = after.tvd < before.tvd
    return better.nominal if kept else programmed.nominal, RefinedErrors(before, after, kept, better.tvd)


@dataclass(frozen=True)
class _DescribedDevice:
    """A `ReconnectingDevice` for a `SettingReader`."""

    link: ReconnectingDevice

    def describe(self) -> DeviceDescription:
        return self.link.description

    def load_inputs(self, name: str, inputs: Inputs) -> None:
        self.link.load_inputs(name, inputs)

    def evaluate(self, drives: Drive, inputs: Inputs | LoadedRows, stage: str) -> Readings:
        assert isinstance(inputs, LoadedRows)
        return self.link.evaluate(drives, inputs, stage)
