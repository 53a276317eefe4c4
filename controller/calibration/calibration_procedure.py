"""The steps of a calibration on an open device: dark readings, scans and fit of each stage.

The same readings and the same seed give the same calibration, so that a calibration can be continued from recorded
readings.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from photonloop.controller.calibration.calibrated_device import Calibration, HeldOut, StageCalibration
from photonloop.controller.calibration.calibration_options import CalibrationOptions
from photonloop.controller.calibration.calibration_progress import ProgressCounter
from photonloop.controller.calibration.columns import calibrate_columns
from photonloop.controller.calibration.method_choice import MethodPlan, planned
from photonloop.controller.calibration.noise_readings import MeasuredNoise, measure_noise
from photonloop.controller.calibration.reading_record import utc_now
from photonloop.controller.calibration.recorded_device import RecordedDevice
from photonloop.controller.learning.rng import Purpose, rng_stream

Report = Callable[[str], None]
"""Receives one sentence."""


def calibrate_stages(
    device: RecordedDevice, options: CalibrationOptions, counter: ProgressCounter, report: Report
) -> Calibration:
    """Calibrate the stages of a device.

    Parameters
    ----------
    device
        The device.
    options
        Method, stages and seed.
    counter
        Is told the steps.
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
    stages = tuple(_calibrate_stage(device, plan, options, counter, report) for plan in plans)
    status = device.status()
    return Calibration(
        device=description,
        made=utc_now(),
        clock_s=status.clock_s,
        conditions=dict(status.health),
        stages=stages,
        options=options,
    )


def _calibrate_stage(
    device: RecordedDevice, plan: MethodPlan, options: CalibrationOptions, counter: ProgressCounter, report: Report
) -> StageCalibration:
    stage = plan.stage
    report(f"{stage.name}: method {plan.method}, because {plan.reason}; about {plan.settings} settings")
    counter.step(f"{stage.name}: dark readings")
    number = device.describe().stage_index(stage.name)
    measured = measure_noise(device, stage, rng_stream(options.seed, Purpose.CALIBRATION, number, 0))
    report(_noise_sentence(measured, stage.name, device.describe().readout.unit))
    counter.step(f"{stage.name}: scans and fit")
    rng = rng_stream(options.seed, Purpose.CALIBRATION, number, 1)
    found = calibrate_columns(device, stage.name, measured.noise, rng)
    return StageCalibration(
        stage=stage,
        method=plan.method,
        layout=found.twin.layout,
        parameters=found.fit.parameters,
        sigma=found.fit.sigma,
        draws=np.empty((0, 0)),
        noise=measured.noise,
        held_out=HeldOut(found.fit.held_out_residual, found.fit.held_out_misfit, found.fit.held_out_misfit),
        settings=found.settings + measured.settings,
        steady_inputs=True,
    )


def _noise_sentence(measured: MeasuredNoise, stage: str, unit: str) -> str:
    source = "with the light off" if measured.light_off else "with all inputs at 0, so light that modulators let through counts"
    level = f"{measured.level.min():.3g} to {measured.level.max():.3g} {unit}"
    return (
        f"{stage}: dark readings {level} ({source}), noise {measured.noise.dark:.3g} {unit} without light and "
        f"{100 * measured.noise.relative:.2g} % of bright readings"
    )
