"""`photonloop calibrate`: calibrate a device, or print what that takes."""

from __future__ import annotations

import argparse
import time
from dataclasses import asdict
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table

from photonloop.controller.calibration.calibrate import calibrate
from photonloop.controller.calibration.calibrated_device import Calibration, RingCalibration, StageCalibration
from photonloop.controller.calibration.calibration_options import CalibrationOptions
from photonloop.controller.calibration.method_choice import planned
from photonloop.controller.cli.calibration_check import run_check, run_refresh
from photonloop.controller.cli.calibration_console import show_calibration
from photonloop.controller.cli.console import stop_on_signals
from photonloop.controller.cli.device_options import check_chip_options, chip_size
from photonloop.controller.cli.printing import print_json, print_lines, print_message
from photonloop.controller.device.address import parse_device_string
from photonloop.controller.device.open_device import open_device

DEFECTS_EXIT_CODE = 5
"""Exit code of a calibration that left defects out."""


def run(args: argparse.Namespace) -> int:
    """Calibrate a device and print how well its twin predicts settings that were not fitted; 5 if it has defects."""
    check_chip_options(args, parse_device_string(args.device))
    if args.check is not None:
        return run_check(args)
    if args.refresh is not None:
        return run_refresh(args)
    given = {name: getattr(args, name) for name in ("method", "stage", "seed") if getattr(args, name) is not None}
    options = CalibrationOptions(**given) if given else None
    if args.dry_run:
        return _dry_run(args, options or CalibrationOptions())
    if args.output is None:
        print_message("photonloop calibrate: give the file to be written, -o calibration.json")
        return 2
    began_s = time.monotonic()
    with stop_on_signals() as stop, show_calibration() as listener:
        calibration = calibrate(
            args.device,
            args.output,
            options,
            chip=chip_size(args),
            resume=args.resume,
            keep_readings=args.keep_readings,
            listener=listener,
            stop=stop,
            keys=args.keys,
        )
    wall_s = time.monotonic() - began_s
    if args.json:
        print_json(_answer(args, calibration, wall_s))
    else:
        print_lines(
            *(_line(found) for found in (*calibration.stages, *calibration.banks)),
            f"{args.output}: {wall_s:.1f} s, device {args.device}",
        )
    return DEFECTS_EXIT_CODE if calibration.troubles else 0


def _dry_run(args: argparse.Namespace, options: CalibrationOptions) -> int:
    """Print the price of a calibration; the device is described, and neither lit nor driven."""
    opened = open_device(args.device, write=False, chip=chip_size(args), label="photonloop calibrate", keys=args.keys)
    try:
        plans, skipped = planned(opened.device.describe(), options)
    finally:
        opened.close()
    if args.json:
        stages = [
            {
                "name": plan.stage.name,
                "method": plan.method,
                "reason": plan.reason,
                "steps": [asdict(step) for step in plan.steps],
                "settings": plan.settings,
                "readings": plan.readings,
                "device_s": plan.device_s,
            }
            for plan in plans
        ]
        totals = {name: sum(stage[name] for stage in stages) for name in ("settings", "readings", "device_s")}
        print_json({"device": args.device, "dry_run": True, "stages": stages, "not_calibrated": skipped, **totals})
        return 0
    table = Table("stage", "step", "settings", "samples", "readings", "device time")
    for plan in plans:
        for step in plan.steps:
            cells = (step.step, str(step.settings), str(step.samples), f"{step.readings:,}", _duration(step.device_s))
            table.add_row(plan.stage.name, *cells)
        table.add_row(plan.stage.name, "all", str(plan.settings), "", f"{plan.readings:,}", _duration(plan.device_s))
    console = Console(highlight=False)
    with console.capture() as drawn:
        console.print(table)
    print_lines(*(f"{plan.stage.name}: method {plan.method}, because {plan.reason}" for plan in plans), drawn.get().rstrip())
    print_lines(*skipped)
    return 0


def _duration(seconds: float) -> str:
    if seconds < 120:
        return f"{seconds:.3g} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"


def _answer(args: argparse.Namespace, calibration: Calibration, wall_s: float) -> dict[str, Any]:
    return {
        "device": args.device,
        "calibration": str(args.output),
        "stages": [_stage_answer(found) for found in (*calibration.stages, *calibration.banks)],
        "settings": sum(found.settings for found in (*calibration.stages, *calibration.banks)),
        "device_s": calibration.clock_s,
        "wall_s": wall_s,
    }


def _stage_answer(found: StageCalibration | RingCalibration) -> dict[str, Any]:
    return {
        "name": found.stage.name,
        "method": found.method,
        "settings": found.settings,
        "held_out_residual": _median(found.held_out.residual),
        "held_out_misfit": _median(found.held_out.misfit),
        "tvd_heldout": _median(found.held_out.tvd),
        "troubles": [vars(trouble) for trouble in found.troubles],
    }


def _line(found: StageCalibration | RingCalibration) -> str:
    tested = f"distance of the output distributions {100 * _median(found.held_out.tvd):.2g} %"
    if isinstance(found, RingCalibration):
        tested = f"error of the readings {100 * _median(found.held_out.misfit):.2g} % of their rms"
    return (
        f"{found.stage.name}: method {found.method}, {found.settings} settings, on settings that were not fitted: "
        f"residual {_median(found.held_out.residual):.3g} of the noise, {tested}"
    )


def _median(values: np.ndarray) -> float:
    return float(np.median(values)) if values.size else float("nan")
