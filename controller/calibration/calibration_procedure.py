"""The steps of a calibration on an open device: dark readings, scans and fit of each stage.

The same readings and the same seed give the same calibration, so that a calibration can be continued from recorded
readings.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

from photonloop.controller.calibration.calibrated_device import Calibration, RingCalibration
from photonloop.controller.calibration.calibration_options import CalibrationOptions
from photonloop.controller.calibration.calibration_progress import ProgressCounter
from photonloop.controller.calibration.evidence import CalibrationEvidence
from photonloop.controller.calibration.method_choice import MethodPlan, planned
from photonloop.controller.calibration.noise_readings import MeasuredNoise, measure_noise
from photonloop.controller.calibration.reading_record import utc_now
from photonloop.controller.calibration.recorded_device import RecordedDevice
from photonloop.controller.calibration.ring_calibration import calibrate_rings
from photonloop.controller.calibration.setting_reader import SettingReader
from photonloop.controller.calibration.sound_calibration import calibrate_sound_parts
from photonloop.controller.calibration.stage_methods import MeasuredStage, calibrate_mesh
from photonloop.controller.learning.rng import Purpose, rng_stream

Report = Callable[[str], None]
"""Receives one sentence."""


@dataclass(frozen=True)
class CalibratedStages:
    """A calibration, and what its stages were fitted to and tested with, for the report."""

    calibration: Calibration
    evidence: tuple[CalibrationEvidence, ...]


def calibrate_stages(
    device: RecordedDevice, options: CalibrationOptions, counter: ProgressCounter, report: Report
) -> CalibratedStages:
    """Calibrate the stages of a device.

    Parameters
    ----------
    device
        The device.
    options
        Method, stages and seed.
    counter
        Receives the steps.
    report
        Receives what is done and found, one sentence at a time.

    Raises
    ------
    ConfigError
        A stage cannot be calibrated. Nothing was applied to the device.
    DeviceError, SessionStopped
        As the methods of the device.
    """
    description = device.describe()
    plans, skipped = planned(description, options)
    for sentence in skipped:
        report(f"warning: {sentence}")
    found = [_calibrate_stage(device, plan, options, counter, report) for plan in plans]
    stages = [each for each in found if isinstance(each, MeasuredStage)]
    status = device.status()
    calibration = Calibration(
        device=description,
        made=utc_now(),
        clock_s=status.clock_s,
        conditions=dict(status.health),
        stages=tuple(stage.calibration for stage in stages),
        options=options,
        banks=tuple(each for each in found if isinstance(each, RingCalibration)),
    )
    return CalibratedStages(calibration, tuple(stage.evidence for stage in stages))


def _calibrate_stage(
    device: RecordedDevice, plan: MethodPlan, options: CalibrationOptions, counter: ProgressCounter, report: Report
) -> MeasuredStage | RingCalibration:
    stage, number = plan.stage, device.describe().stage_index(plan.stage.name)
    report(f"{stage.name}: method {plan.method}, because {plan.reason}; about {plan.settings} settings")
    counter.step(f"{stage.name}: dark readings")
    measured = measure_noise(device, stage, rng_stream(options.seed, Purpose.CALIBRATION, number, 0))
    report(_noise_sentence(measured, stage.name, device.describe().readout.unit))
    rng = rng_stream(options.seed, Purpose.CALIBRATION, number, 1)
    if plan.method == "rings":
        counter.step(f"{stage.name}: sweeps of rings")
        bank = calibrate_rings(
            SettingReader(device, stage.name),
            measured.noise,
            rng,
            progress=lambda done, total: counter.step(f"{stage.name}: {done} of {total} steps"),
        )
        return replace(bank, settings=bank.settings + measured.settings)

    def calibrate(reader: SettingReader) -> MeasuredStage:
        return calibrate_mesh(reader, plan.method, measured, rng, lambda step: counter.step(f"{stage.name}: {step}"))

    search = rng_stream(options.seed, Purpose.CALIBRATION, number, 2)
    found = calibrate_sound_parts(device, stage.name, calibrate, search, report)
    for trouble in found.calibration.troubles:
        report(f"warning: {stage.name}: {trouble.kind}: {trouble.detail}")
    return found


def _noise_sentence(measured: MeasuredNoise, stage: str, unit: str) -> str:
    source = "with the light off" if measured.light_off else "with all inputs at 0, so light that modulators let through counts"
    level = f"{measured.level.min():.3g} to {measured.level.max():.3g} {unit}"
    return (
        f"{stage}: dark readings {level} ({source}), noise {measured.noise.dark:.3g} {unit} without light and "
        f"{100 * measured.noise.relative:.2g} % of bright readings"
    )
