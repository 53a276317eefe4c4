"""`photonloop bench`: virtual instruments in front of a virtual chip, for trying the hardware path without hardware.

The instruments live in a process of their own, which ends with this command.
"""

from __future__ import annotations

import argparse
import json
import os
import select
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from controller.devices import START_TIMEOUT_S, DeviceProcess
from protocols.errors import DeviceError
from protocols.validation import ConfigError

OPTIONS = ("chip", "ports", "stages", "seed", "heaters", "modulators", "detectors", "laser", "speed")


def run(args: argparse.Namespace) -> int:
    """Run a bench until Ctrl-C or SIGTERM."""
    try:
        with _ends_on_sigterm():
            bench, announced = start_bench(args)
            try:
                _tell(args, announced)
                while not bench.ends_within(0.25):
                    pass
            finally:
                bench.end()
    except KeyboardInterrupt:
        return 0
    raise DeviceError("transport", f"the bench ended by itself: {bench.last_words() or 'it said nothing'}")


def start_bench(args: argparse.Namespace) -> tuple[DeviceProcess, dict[str, Any]]:
    """Start the instruments and return their process with what it announced (`simulator.instruments.__main__`).

    Raises
    ------
    ConfigError
        The bench cannot be built like this; its own sentence.
    DeviceError
        "transport" where it ends or stays silent instead of announcing itself.
    """
    command = [sys.executable, "-m", "simulator.instruments", "--parent", str(os.getpid())]
    for name in OPTIONS:
        if (value := getattr(args, name)) is not None:
            command += [f"--{name}", str(value)]
    if args.out is not None:
        command += ["--out", str(args.out)]
    said = tempfile.TemporaryFile("w+", encoding="utf-8")  # noqa: SIM115 - lives as long as the process
    # A session of its own, so that Ctrl-C reaches only this command, which then ends the instruments in order.
    process = subprocess.Popen(
        command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=said, text=True, start_new_session=True
    )
    bench = DeviceProcess(process, said)
    try:
        assert process.stdout is not None
        ready, _, _ = select.select([process.stdout], [], [], START_TIMEOUT_S)
        announced = json.loads(process.stdout.readline() if ready else "")
        return replace(bench, address=str(announced["control"])), announced
    except (json.JSONDecodeError, KeyError, TypeError):
        refused = bench.ends_within(2.0) and process.returncode in {1, 2}
        bench.end()
        words = bench.last_words()
        if refused and words:
            raise ConfigError(words) from None
        raise DeviceError("transport", f"the bench did not start: {words or 'it said nothing'}") from None
    except BaseException:
        bench.end()
        raise


def _tell(args: argparse.Namespace, announced: dict[str, Any]) -> None:
    if args.json:
        print(json.dumps(announced), flush=True)
        return
    station = _as_seen_from_here(Path(announced["station"]))
    instruments: dict[str, str] = announced["instruments"]
    width = max(map(len, instruments))
    lines = [
        f"virtual bench of chip {announced['chip']}, {announced['ports']} ports, until Ctrl-C",
        "",
        *(f"  {name:<{width}}  {address}" for name, address in instruments.items()),
        f"  {'control':<{width}}  {announced['control']}  (faults, state and log, one JSON object a line)",
        "",
        f"station file: {station}, so try",
        f"  photonloop check lab:{station}",
        f"  photonloop describe lab:{station}",
        f"  photonloop train examples/iris.toml --device lab:{station}",
    ]
    print("\n".join(lines), flush=True)


def _as_seen_from_here(path: Path) -> Path:
    here = Path.cwd()
    return path.relative_to(here) if path.is_relative_to(here) else path


@contextmanager
def _ends_on_sigterm() -> Iterator[None]:
    """Turn SIGTERM into what Ctrl-C does: the instruments are ended in order, and that is no failure."""

    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    previous = signal.signal(signal.SIGTERM, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, previous)
