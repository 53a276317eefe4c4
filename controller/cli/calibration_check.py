"""`photonloop calibrate --check` and `--refresh`: whether a calibration still holds, and its repair."""

from __future__ import annotations

import argparse
from collections.abc import Generator
from contextlib import closing, contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

from photonloop.controller.calibration.calibrated_device import Calibration
from photonloop.controller.calibration.calibration_file import check_same_device, load_calibration, save_calibration
from photonloop.controller.calibration.check import CalibrationCheck, check_calibration
from photonloop.controller.calibration.refresh import refresh_calibration
from photonloop.controller.calibration.stage_check import StageCheck
from photonloop.controller.cli.console import stop_on_signals
from photonloop.controller.cli.device_options import chip_size
from photonloop.controller.cli.printing import print_json, print_lines, print_message
from photonloop.controller.device.open_device import open_device
from photonloop.controller.learning.rng import Purpose, rng_stream
from photonloop.protocols.device import PhotonicDevice

EXIT_CODES = {"fresh": 0, "drifted": 3, "broken": 4}
"""Exit codes of `--check`, so that scripts can decide what to do."""

MOST_SHOWN = 8
"""Channels that are printed; `--json` has all."""


def run_check(args: argparse.Namespace) -> int:
    """Check a calibration and print the verdict."""
    calibration = load_calibration(args.check)
    with _opened(args, calibration) as device:
        found = check_calibration(device, calibration, rng_stream(args.seed or 0, Purpose.CALIBRATION_CHECK))
        device_s = device.status().clock_s
    if args.json:
        print_json(_answer(args, found, device_s))
    else:
        print_lines(*(line for stage in found.stages for line in _lines(stage)), f"{args.check}: {found.verdict}")
    return EXIT_CODES[found.verdict]


def run_refresh(args: argparse.Namespace) -> int:
    """Refresh a calibration and write the new one."""
    if args.output is None:
        print_message("photonloop calibrate: give the file to be written, -o new.json")
        return 2
    calibration = load_calibration(args.refresh)
    with _opened(args, calibration) as device:
        before = device.status().evaluations
        found = refresh_calibration(device, calibration, rng_stream(args.seed or 0, Purpose.CALIBRATION_CHECK, 1))
        settings = device.status().evaluations - before
    save_calibration(args.output, found)
    misfits = {stage.stage.name: float(stage.held_out.misfit.mean()) for stage in found.stages}
    if args.json:
        print_json({"device": args.device, "calibration": str(args.output), "settings": settings, "misfit": misfits})
    else:
        shown = "; ".join(f"{name}: misfit {misfit:.2g} on settings that were not fitted" for name, misfit in misfits.items())
        print_lines(f"{args.output}: {settings} settings; {shown}")
    return 0


@contextmanager
def _opened(args: argparse.Namespace, calibration: Calibration) -> Generator[PhotonicDevice]:
    """Open the device, refuse another one than was calibrated, and make it safe in the end."""
    with stop_on_signals() as stop:
        opened = open_device(
            args.device, write=True, chip=chip_size(args), label="photonloop calibrate", keys=args.keys, stop=stop
        )
        with closing(opened), stop.at_once(""):
            other = check_same_device(calibration, opened.device.describe(), allow_other=args.other_device)
            if other is not None:
                print_message(f"warning: the calibration is of another device: {other}")
            yield opened.device


def _lines(found: StageCheck) -> list[str]:
    lines = [
        f"{found.stage}: {found.verdict}; misfit {found.then.misfit:.2g} at the calibration, {found.now.misfit:.2g} now, "
        f"{found.explained.misfit:.2g} with new offsets; distance of the output distributions {100 * found.then.tvd:.2g} % and "
        f"{100 * found.now.tvd:.2g} %; {found.settings} settings"
    ]
    if found.verdict == "drifted":
        shown = ", ".join(f"{each.channel} ({each.change_rad:+.3f} rad)" for each in found.moved[:MOST_SHOWN])
        more = f" and {len(found.moved) - MOST_SHOWN} more" if len(found.moved) > MOST_SHOWN else ""
        lines.append(f"{found.stage}: {found.drift_rad:.3f} rad on average; channels that moved: {shown}{more}")
    lines += [f"{found.stage}: {each.kind}{_where(each.channels, each.ports)}: {each.detail}" for each in found.troubles]
    return lines


def _where(channels: tuple[int, ...], ports: tuple[int, ...]) -> str:
    parts = [f"{name} {', '.join(map(str, numbers))}" for name, numbers in (("channel", channels), ("port", ports)) if numbers]
    return f", {' and '.join(parts)}" if parts else ""


def _answer(args: argparse.Namespace, found: CalibrationCheck, device_s: float) -> dict[str, Any]:
    return {
        "device": args.device,
        "calibration": str(Path(args.check)),
        "verdict": found.verdict,
        "settings": found.settings,
        "device_s": device_s,
        "stages": [asdict(stage) for stage in found.stages],
    }
