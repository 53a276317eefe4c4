"""`python -m photonloop.simulator`: serve a virtual chip from a process of its own, with the same server as any device.

When it is ready, it prints one line of JSON on standard output. It makes the chip safe and ends on SIGTERM, on Ctrl-C,
or when its parent process has ended.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable
from pathlib import Path

from photonloop.protocols.config import ConfigError
from photonloop.protocols.errors import DeviceError
from photonloop.protocols.output_streams import discard_output
from photonloop.protocols.process import add_parent_options, announce, parent_check, refuse
from photonloop.protocols.server.device_server import DeviceServer, ServerOptions
from photonloop.protocols.stop_request import handle_stop_signals
from photonloop.simulator.parameters import ChipParameters, load_chip, preset_names

INLINE_S = 0.01
"""Evaluations shorter than this are carried out in the socket loop; `safe` has to be answered within 50 ms."""


def main(arguments: list[str] | None = None) -> int:
    """Serve a chip until a signal or the end of its parent; return the exit code: 0 done, 1 failed, 2 wrong usage."""
    args = _parser().parse_args(arguments)
    keep_running = parent_check(args)
    handle_stop_signals(lambda _number: sys.exit(0))  # until the server takes over: no heater is hot yet
    try:
        parameters = load_chip(args.chip, ports=args.ports, stages=args.stages, seed=args.seed)
        if args.physics:
            return _print_physics(parameters, args)
        return _serve(parameters, args, keep_running)
    except ConfigError as error:
        return refuse(str(error), 2)
    except DeviceError as error:
        return refuse(error.detail, 2 if error.code == "bad_request" else 1)


def _serve(parameters: ChipParameters, args: argparse.Namespace, keep_running: Callable[[], bool]) -> int:
    from photonloop.simulator.engine.chip import Chip  # noqa: PLC0415 - a wrong argument is refused before the compiler is loaded

    chip = Chip(parameters, threads=args.threads, beside=args.beside, realtime=args.realtime)
    try:
        options = ServerOptions(
            keys=args.server_keys,
            inline_s=0.0 if args.realtime else INLINE_S,
            on_tick=keep_running,
        )
        server = DeviceServer(chip, args.bind, options=options)
        handle_stop_signals(lambda _number: server.stop())
        announce(
            {
                "address": server.bind(),
                "pid": os.getpid(),
                "chip": parameters.name,
                "ports": parameters.ports,
                "stages": parameters.stages,
                "seed": parameters.seed,
                "epoch": server.epoch,
            }
        )
        server.run()
    finally:
        chip.close()
    return 0


def _print_physics(parameters: ChipParameters, args: argparse.Namespace) -> int:
    from photonloop.simulator import physics_table as table  # noqa: PLC0415 - not needed to serve a chip
    from photonloop.simulator.engine.feasibility import feasibility  # noqa: PLC0415 - as above

    rows, feasibility = table.physics_table(args.chip, parameters), feasibility(parameters)
    text = f"{table.as_text(rows)}\n\n{table.feasibility_text(feasibility)}"
    try:
        print(table.as_json(rows, parameters, feasibility) if args.json else text, flush=True)
    except BrokenPipeError:  # such as `| head`
        discard_output(sys.stdout)
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        "python -m photonloop.simulator", description="A virtual photonic chip behind a device server."
    )
    add = parser.add_argument
    add("--chip", default="soi", metavar="PRESET|FILE", help=f"preset ({', '.join(preset_names())}) or chip file (.toml)")
    add("--ports", type=int, help="modes of every mesh")
    add("--stages", type=int, help="number of meshes in series")
    add("--seed", type=int, help="seed of all random values of the chip")
    add("--bind", default="tcp://127.0.0.1:*", metavar="ADDRESS", help="tcp://HOST:PORT or ipc://PATH (%(default)s)")
    add("--server-keys", type=Path, metavar="FOLDER", help="CURVE keys; required for an address that other machines can reach")
    add("--threads", type=_threads, help="threads that share an evaluation (default: one per processor, at most 4)")
    add(
        "--beside",
        type=_threads,
        default=0,
        help="number of these threads that take no part in short evaluations, to leave processors to a client here",
    )
    add("--realtime", action="store_true", help="operations take the time they would take in a lab")
    add_parent_options(parser)
    add("--physics", action="store_true", help="print every parameter of the chip with unit and source, and end")
    add("--json", action="store_true", help="with --physics: one JSON object")
    return parser


def _threads(text: str) -> int:
    if not text.isdecimal() or not 1 <= int(text) <= 256:
        raise argparse.ArgumentTypeError(f"threads is {text!r}, expected a whole number from 1 to 256")
    return int(text)


if __name__ == "__main__":
    sys.exit(main())
