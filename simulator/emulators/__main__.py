"""`python -m photonloop.simulator.emulators`: a virtual bench in a process of its own.

Once it is ready, it prints one JSON line on standard output with the address of every instrument, the address of the
control port and the path of the station file. It ends on SIGTERM, on Ctrl-C, or when its parent process has ended.
"""

from __future__ import annotations

import argparse
import asyncio
import math
import os
import sys
import tempfile
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from photonloop.protocols.config import ConfigError
from photonloop.protocols.errors import DeviceError
from photonloop.protocols.process import add_parent_options, announce, parent_check, refuse
from photonloop.protocols.stop_request import handle_stop_signals
from photonloop.simulator.emulators.bench_choices import LASERS, READOUTS, SOURCES, BenchChoices, check_choices
from photonloop.simulator.parameters import ChipParameters, load_chip, preset_names

PARENT_EVERY_S = 0.25


def main(arguments: list[str] | None = None) -> int:
    """Run a bench until a signal or the end of its parent; return the exit code: 0 done, 1 failed, 2 wrong usage."""
    args = _parser().parse_args(arguments)
    keep_running = parent_check(args)
    handle_stop_signals(lambda _number: sys.exit(0))  # until the event loop takes over
    try:
        choices = BenchChoices(
            args.heaters, args.modulators, args.detectors, args.laser, args.laser_command_set, inputs=args.inputs
        )
        check_choices(choices)
        parameters = load_chip(args.chip, ports=args.ports, stages=args.stages, seed=args.seed)
        with tempfile.TemporaryDirectory(prefix="photonloop-bench-") as temporary:
            return asyncio.run(_run(parameters, choices, args, keep_running, args.out or Path(temporary)))
    except ConfigError as error:
        return refuse(str(error), 2)
    except DeviceError as error:
        return refuse(error.detail, 1)
    except OSError as error:
        return refuse(f"{error.filename or 'bench'}: {error.strerror or error}", 1)


async def _run(
    parameters: ChipParameters, choices: BenchChoices, args: argparse.Namespace, keep_running: Callable[[], bool], folder: Path
) -> int:
    from photonloop.simulator.emulators.running import BenchServers  # noqa: PLC0415 - a wrong argument is refused before the compiler is loaded
    from photonloop.simulator.emulators.virtual_bench import build  # noqa: PLC0415

    bench = build(parameters, choices, speed=args.speed, stamped=args.stamped)
    servers = BenchServers(bench)
    stopped = asyncio.Event()
    loop = asyncio.get_running_loop()
    try:
        handle_stop_signals(lambda _number: None if loop.is_closed() else loop.call_soon_threadsafe(stopped.set))
        addresses = await servers.start(parameters, folder, args.speed)
        announce(
            {
                "station": str(addresses.station),
                "control": addresses.control,
                "instruments": addresses.instruments,
                "pid": os.getpid(),
                "chip": parameters.name,
                "ports": parameters.ports,
                "stages": parameters.stages,
                "seed": parameters.seed,
            }
        )
        while not stopped.is_set() and keep_running():
            with suppress(TimeoutError):
                await asyncio.wait_for(stopped.wait(), PARENT_EVERY_S)
    finally:
        await servers.close()
        bench.laboratory.close()
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        "python -m photonloop.simulator.emulators",
        description="Virtual instruments in front of a virtual chip, on this machine only.",
    )
    add = parser.add_argument
    add("--chip", default="soi", metavar="PRESET|FILE", help=f"preset ({', '.join(preset_names())}) or chip file (.toml)")
    add("--ports", type=int, default=8, help="modes of every mesh [%(default)s]")
    add("--stages", type=int, default=1, help="number of meshes in series [%(default)s]")
    add("--seed", type=int, help="seed of all random values of the chip")
    add("--heaters", metavar="NAME", help=f"source of the heaters: {', '.join(SOURCES)}")
    add("--modulators", metavar="NAME", help=f"source of the input modulators: {', '.join(SOURCES)}")
    add("--detectors", metavar="NAME", help=f"readout of the detectors: {', '.join(READOUTS)}")
    add("--laser", metavar="NAME", help=f"laser in use: {', '.join(LASERS)}")
    add(
        "--inputs",
        choices=("modulators", "switch"),
        default="modulators",
        help="in front of the input ports: one modulator each, or an optical switch that lights one [%(default)s]",
    )
    add(
        "--laser-command-set",
        choices=("legacy", "scpi"),
        default="legacy",
        help="command set of the TSL-570 at power-up [%(default)s]",
    )
    add("--speed", type=_factor, default=0.0, metavar="F", help="factor on response times: 1 as in the lab, 0 none [%(default)s]")
    add("--stamped", action="store_true", help="detectors show the number of the measurement instead of light")
    add("--out", type=Path, metavar="DIR", help="folder for station.toml and the serial lines (default: a temporary one)")
    add_parent_options(parser)
    return parser


def _factor(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not 0.0 <= value <= 1000.0:
        raise argparse.ArgumentTypeError(f"speed is {text!r}, expected a number from 0 to 1000")
    return value


if __name__ == "__main__":
    sys.exit(main())
