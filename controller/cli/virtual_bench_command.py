"""`photonloop virtual-bench`: virtual instruments in front of a virtual chip, for trying the hardware path without hardware.

The instruments live in a process of their own, which ends with this command.
"""

from __future__ import annotations

import argparse
import os
from pathlib import Path
from typing import Any

from photonloop.controller.cli.console import stop_on_signals
from photonloop.controller.cli.printing import print_json, show
from photonloop.controller.device.processes import DeviceProcess, StartRefusedError, launch
from photonloop.controller.stopping import Stop
from photonloop.protocols.config import ConfigError
from photonloop.protocols.errors import DeviceError
from photonloop.protocols.process import module_command

OPTIONS = ("chip", "ports", "stages", "seed", "heaters", "modulators", "detectors", "laser", "speed", "out")


def run(args: argparse.Namespace) -> int:
    """Run a bench until Ctrl-C or SIGTERM."""
    with stop_on_signals() as stop:
        bench, announced = start_bench(args, stop)
        try:
            _tell(args, announced)
            while not stop.asked and not bench.ends_within(0.25):
                pass
        finally:
            bench.end()
    if not stop.asked:
        raise DeviceError("transport", f"the bench ended by itself: {bench.last_words() or 'it said nothing'}")
    return 0


def start_bench(args: argparse.Namespace, stop: Stop) -> tuple[DeviceProcess, dict[str, Any]]:
    """Start the instruments and return their process with what it announced (`photonloop.simulator.emulators.__main__`).

    Raises
    ------
    ConfigError
        The bench cannot be built like this; its own sentence.
    DeviceError
        "transport" where it ends or stays silent instead of announcing itself.
    SessionStopped
        `stop` was asked for meanwhile; the process is ended.
    """
    command = module_command("photonloop.simulator.emulators", "--parent", str(os.getpid()))
    for name in OPTIONS:
        if (value := getattr(args, name)) is not None:
            command += [f"--{name}", str(value)]
    try:
        return launch(command, "control", stop)
    except StartRefusedError as refused:
        if refused.words and refused.code in {1, 2}:
            raise ConfigError(refused.words) from None
        raise DeviceError("transport", f"the bench did not start: {refused.words or 'it said nothing'}") from None


def _tell(args: argparse.Namespace, announced: dict[str, Any]) -> None:
    if args.json:
        print_json(announced)
        return
    station = _as_seen_from_here(Path(announced["station"]))
    instruments: dict[str, str] = announced["instruments"]
    width = max(map(len, instruments))
    show(
        f"virtual bench of chip {announced['chip']}, {announced['ports']} ports, until Ctrl-C",
        "",
        *(f"  {name:<{width}}  {address}" for name, address in instruments.items()),
        f"  {'control':<{width}}  {announced['control']}  (faults, state and log, one JSON object a line)",
        "",
        f"station file: {station}, so try",
        f"  photonloop check lab:{station}",
        f"  photonloop describe lab:{station}",
        f"  photonloop train examples/iris.toml --device lab:{station}",
    )


def _as_seen_from_here(path: Path) -> Path:
    here = Path.cwd()
    return path.relative_to(here) if path.is_relative_to(here) else path
