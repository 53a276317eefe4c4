"""`photonloop calibrate`: calibrate a device, or print what that takes."""

from __future__ import annotations

import argparse
import time
from typing import Any

import numpy as np

from photonloop.controller.calibration.calibrate import calibrate
from photonloop.controller.calibration.calibrated_device import Calibration, StageCalibration
from photonloop.controller.calibration.calibration_options import CalibrationOptions
from photonloop.controller.cli.calibration_console import show_calibration
from photonloop.controller.cli.console import stop_on_signals
from photonloop.controller.cli.device_options import check_chip_options, chip_size
from photonloop.controller.cli.printing import print_json, print_lines, print_message
from photonloop.controller.device.address import parse_device_string


def run(args: argparse.Namespace) -> int:
    """Calibrate a device and print how well its twin predicts settings that were not fitted."""
    check_chip_options(args, parse_device_string(args.device))
    given = {name: getattr(args, name) for name in ("method", "stage", "seed") if getattr(args, name) is not None}
    options = CalibrationOptions(**given) if given else None
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
        print_lines(*(_line(found) for found in calibration.stages), f"{args.output}: {wall_s:.1f} s, device {args.device}")
    return 0


def _answer(args: argparse.Namespace, calibration: Calibration, wall_s: float) -> dict[str, Any]:
    return {
        "device": args.device,
        "calibration": str(args.output),
        "stages": [_stage_answer(found) for found in calibration.stages],
        "settings": sum(found.settings for found in calibration.stages),
        "device_s": calibration.clock_s,
        "wall_s": wall_s,
    }


def _stage_answer(found: StageCalibration) -> dict[str, Any]:
    return {
        "name": found.stage.name,
        "method": found.method,
        "settings": found.settings,
        "held_out_residual": _median(found.held_out.residual),
        "held_out_misfit": _median(found.held_out.misfit),
        "tvd_heldout": _median(found.held_out.tvd),
        "troubles": [vars(trouble) for trouble in found.troubles],
    }


def _line(found: StageCalibration) -> str:
    return (
        f"{found.stage.name}: method {found.method}, {found.settings} settings, on settings that were not fitted: "
        f"residual {_median(found.held_out.residual):.3g} of the noise, distance of the output distributions "
        f"{100 * _median(found.held_out.tvd):.2g} %"
    )


def _median(values: np.ndarray) -> float:
    return float(np.median(values)) if values.size else float("nan")
