"""`photonloop virtual-bench`: run virtual instruments in front of a virtual chip.

They replace the hardware of a station for tests. The instruments run in a process of their own, which ends with this
command.
"""

from __future__ import annotations

import argparse
import os
from pathlib import Path
from typing import Any

from photonloop.controller.cli.console import stop_on_signals
from photonloop.controller.cli.printing import print_json, print_lines
from photonloop.controller.device.processes import DeviceProcess, ProcessStartError, launch
from photonloop.controller.stopping import Stop
from photonloop.protocols.config import ConfigError
from photonloop.protocols.errors import DeviceError
from photonloop.protocols.process import module_command

OPTIONS = ("chip", "ports", "stages", "seed", "heaters", "modulators", "detectors", "laser", "inputs", "speed", "out")


def run(args: argparse.Namespace) -> int:
    """Run a virtual bench until Ctrl-C or SIGTERM."""
    with stop_on_signals() as stop:
        bench, announced = start_bench(args, stop)
        try:
            _print_announcement(args, announced)
            while not stop.asked and not bench.ends_within(0.25):
                pass
        finally:
            bench.end()
    if not stop.asked:
        reason = bench.last_error_line() or "it printed no error message"
        raise DeviceError("transport", f"the virtual bench ended by itself: {reason}")
    return 0


def start_bench(args: argparse.Namespace, stop: Stop) -> tuple[DeviceProcess, dict[str, Any]]:
    """Start the virtual instruments; return their process and its announcement (see `photonloop.simulator.emulators`).

    Raises
    ------
    ConfigError
        The options are invalid. The message is that of the process.
    DeviceError
        "transport" if the process ends or does not announce itself in time.
    SessionStopped
        `stop` was requested meanwhile. The process is ended.
    """
    command = module_command("photonloop.simulator.emulators", "--parent", str(os.getpid()))
    for name in OPTIONS:
        if (value := getattr(args, name)) is not None:
            command += [f"--{name}", str(value)]
    try:
        return launch(command, "control", stop)
    except ProcessStartError as error:
        if error.error_line and error.exit_code in {1, 2}:
            raise ConfigError(error.error_line) from None
        reason = error.error_line or "it printed no error message"
        raise DeviceError("transport", f"the virtual bench did not start: {reason}") from None


_IRIS_PORTS = 5
"""Ports that `examples/iris.toml` needs: four features and the reference."""


def _print_announcement(args: argparse.Namespace, announced: dict[str, Any]) -> None:
    if args.json:
        print_json(announced)
        return
    station = _relative_to_working_folder(Path(announced["station"]))
    instruments: dict[str, str] = announced["instruments"]
    width = max(map(len, instruments))
    can_train = announced["ports"] >= _IRIS_PORTS and args.inputs != "switch"
    print_lines(
        f"virtual bench of chip {announced['chip']}, {announced['ports']} ports, until Ctrl-C",
        "",
        *(f"  {name:<{width}}  {address}" for name, address in instruments.items()),
        f"  {'control':<{width}}  {announced['control']}  (faults, state and log, one JSON object per line)",
        "",
        f"station file: {station}; try",
        f"  photonloop check lab:{station}",
        f"  photonloop describe lab:{station}",
        *([f"  photonloop train examples/iris.toml --device lab:{station}"] if can_train else []),
    )


def _relative_to_working_folder(path: Path) -> Path:
    folder = Path.cwd()
    return path.relative_to(folder) if path.is_relative_to(folder) else path
