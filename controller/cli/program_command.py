"""`photonloop program`: program a matrix on a calibrated device, and measure what was reached."""

from __future__ import annotations

import argparse
import math
import time
from typing import Any

from photonloop.controller.calibration.calibration_file import load_calibration
from photonloop.controller.calibration.program import ProgrammedMatrix
from photonloop.controller.calibration.program_device import REPEATS, ProgramOptions, ProgramResult, program
from photonloop.controller.calibration.program_errors import Predicted
from photonloop.controller.calibration.program_measurement import MeasuredErrors
from photonloop.controller.cli.console import stop_on_signals
from photonloop.controller.cli.device_options import check_chip_options, chip_size
from photonloop.controller.cli.printing import print_json, print_lines, print_message
from photonloop.controller.device.address import parse_device_string
from photonloop.controller.stopping import SessionStopped, Stop

_HOLD_SLICE_S = 3600.0


def run(args: argparse.Namespace) -> int:
    """Program a device and print the expected and the measured errors."""
    check_chip_options(args, parse_device_string(args.device))
    options = ProgramOptions(
        matrix=args.matrix,
        phases=args.phases,
        stage=args.stage,
        refine=args.refine,
        repeats=args.repeats or REPEATS,
        seed=args.seed or 0,
        other_device=args.other_device,
    )
    calibration, began_s = load_calibration(args.calibration), time.monotonic()
    with stop_on_signals() as stop:

        def finish(result: ProgramResult) -> None:
            _print(args, result, time.monotonic() - began_s)
            if args.hold:
                _hold(args.device, stop)

        program(
            args.device,
            calibration,
            options,
            chip=chip_size(args),
            report=print_message,
            hold=finish,
            stop=stop,
            keys=args.keys,
        )
    return 0


def _hold(device: str, stop: Stop) -> None:
    """Wait until the user stops the command."""
    print_message(f"{device} holds the drive and the light until Ctrl-C; then it is made safe")
    try:
        while True:
            stop.pause(_HOLD_SLICE_S)
    except SessionStopped:
        return


def _print(args: argparse.Namespace, result: ProgramResult, wall_s: float) -> None:
    if args.json:
        print_json(_answer(args.device, result, wall_s))
    else:
        print_lines(*_lines(result), f"{args.device}: {result.settings} settings in {wall_s:.1f} s")


def _answer(device: str, result: ProgramResult, wall_s: float) -> dict[str, Any]:
    programmed, refined = result.programmed, result.refined
    expected = programmed.expected
    return {
        "device": device,
        "stage": result.stage,
        "target": result.target,
        "expected": {
            "tvd": expected.tvd.value,
            "tvd_sigma": _finite(expected.tvd.sigma),
            "power_rms": expected.power_rms.value,
            "power_rms_sigma": _finite(expected.power_rms.sigma),
            "largest": expected.power_largest.value,
            "fidelity": expected.fidelity.value,
            "fidelity_sigma": _finite(expected.fidelity.sigma),
            "input_phases": programmed.input_phases,
        },
        "measured": _errors_answer(result.measured),
        "refined": None
        if refined is None
        else {
            **(_errors_answer(refined.after) or {}),
            "tvd_before": refined.before.tvd,
            "kept": refined.kept,
            "tvd_path": list(refined.tvd),
        },
        "heater_power_w": result.heater_power_w,
        "limited_channels": list(programmed.limited),
        "settings": result.settings,
        "wall_s": round(wall_s, 3),
    }


def _errors_answer(errors: MeasuredErrors | None) -> dict[str, Any] | None:
    if errors is None:
        return None
    return {
        "tvd": errors.tvd,
        "tvd_noise": _finite(errors.tvd_noise),
        "power_rms": errors.power_rms,
        "largest": errors.power_largest,
        "repeats": errors.repeats,
        "detectors_left_out": list(errors.detectors_left_out),
    }


def _lines(result: ProgramResult) -> list[str]:
    programmed, refined = result.programmed, result.refined
    expected = programmed.expected
    lines = [
        f"{result.stage}: {result.target}, {result.heater_power_w:.3g} W of heater power",
        f"expected   TVD {_percent(expected.tvd)}, power errors {_percent(expected.power_rms)} rms, "
        f"{_percent(expected.power_largest)} at most",
    ]
    if result.measured is not None:
        lines.append("measured   " + _errors_text(result.measured))
    if refined is not None:
        lines.append("refined    " + _errors_text(refined.after))
        lines.append(_refinement_text(refined.kept, refined.before.tvd, refined.after.tvd))
    lines.append(f"fidelity   {_fidelity_text(programmed)}")
    if programmed.limited:
        channels = ", ".join(map(str, programmed.limited))
        lines.append(f"warning: the limits of the device do not allow the best phases of channels {channels} of the stage")
    if result.measured is not None and result.measured.detectors_left_out:
        detectors = ", ".join(map(str, result.measured.detectors_left_out))
        lines.append(f"warning: detectors {detectors} are saturated or flagged, so their readings are left out")
    return lines


def _errors_text(errors: MeasuredErrors) -> str:
    noise = "" if math.isnan(errors.tvd_noise) else f" (noise alone: {100 * errors.tvd_noise:.2g} %)"
    return (
        f"TVD {100 * errors.tvd:.3g} %{noise}, power errors {100 * errors.power_rms:.3g} % rms, "
        f"{100 * errors.power_largest:.3g} % at most, mean of {errors.repeats} readings"
    )


def _refinement_text(kept: bool, before: float, after: float) -> str:
    if kept:
        return f"           the refinement lowers the TVD from {100 * before:.3g} % to {100 * after:.3g} %, each read afresh"
    return (
        f"           the refinement does not lower the TVD ({100 * before:.3g} % before, {100 * after:.3g} % after): "
        "the programmed setting is kept"
    )


def _fidelity_text(programmed: ProgrammedMatrix) -> str:
    fidelity, known = programmed.expected.fidelity, programmed.input_phases == "fixed"
    error = "" if math.isnan(fidelity.sigma) else f" ± {fidelity.sigma:.1g}"
    inputs = "known phases of the inputs" if known else "any phases of the inputs"
    return (
        f"{fidelity.value:.5f}{error} of the model, for {inputs} and any amplitudes and phases of the outputs: "
        "power detectors do not measure it"
    )


def _percent(predicted: Predicted) -> str:
    error = "" if math.isnan(predicted.sigma) else f" ± {100 * predicted.sigma:.1g}"
    return f"{100 * predicted.value:.3g}{error} %"


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None
