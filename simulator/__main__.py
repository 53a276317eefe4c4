"""`python -m photonloop.simulator`: a virtual chip in a process of its own, behind the same server as any device.

Once it is ready it says so in one JSON line on standard output; it ends, safe, on SIGTERM, on Ctrl-C, or with its parent.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import sys
from pathlib import Path

from photonloop.protocols.config import ConfigError
from photonloop.protocols.errors import DeviceError
from photonloop.protocols.server.device_server import DeviceServer, ServerOptions
from photonloop.simulator.parameters import ChipParameters, load_chip, preset_names

INLINE_S = 0.01
"""Evaluations shorter than this are carried out in the socket loop; `safe` has to be answered within 50 ms."""


def main(arguments: list[str] | None = None) -> int:
    """Serve a chip until told to stop; return the exit code: 0 done, 1 failed, 2 wrong usage."""
    args = _parser().parse_args(arguments)
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: sys.exit(0))  # until the server takes over: nothing is hot yet
    try:
        parameters = load_chip(args.chip, ports=args.ports, stages=args.stages, seed=args.seed)
        if args.physics:
            return _print_physics(parameters, args)
        return _serve(parameters, args, os.getppid() if args.parent is None else args.parent)
    except ConfigError as error:
        return _refuse(str(error), 2)
    except DeviceError as error:
        return _refuse(error.detail, 2 if error.code == "bad_request" else 1)


def _serve(parameters: ChipParameters, args: argparse.Namespace, parent: int) -> int:
    from photonloop.simulator.engine.chip import Chip  # noqa: PLC0415 - a wrong argument is refused before the compiler is loaded

    chip = Chip(parameters, threads=args.threads, beside=args.beside, realtime=args.realtime)
    try:
        options = ServerOptions(
            keys=args.keys,
            inline_s=0.0 if args.realtime else INLINE_S,
            on_tick=lambda: args.detach or os.getppid() == parent,
        )
        server = DeviceServer(chip, args.bind, options=options)
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, lambda *_: server.stop())
        announcement = {
            "address": server.bind(),
            "pid": os.getpid(),
            "chip": parameters.name,
            "ports": parameters.ports,
            "stages": parameters.stages,
            "seed": parameters.seed,
            "epoch": server.epoch,
        }
        try:
            print(json.dumps(announcement), flush=True)
        except BrokenPipeError:
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            return _refuse("nobody reads the address on standard output", 1)
        server.run()
    finally:
        chip.close()
    return 0


def _print_physics(parameters: ChipParameters, args: argparse.Namespace) -> int:
    from photonloop.simulator.physics_table import as_json, as_text, physics_table  # noqa: PLC0415 - of no use to a chip that is served

    rows = physics_table(args.chip, parameters)
    try:
        print(as_json(rows, parameters) if args.json else as_text(rows), flush=True)
    except BrokenPipeError:  # whoever reads has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        "python -m photonloop.simulator", description="A virtual photonic chip behind a device server."
    )
    add = parser.add_argument
    add("--chip", default="soi", metavar="PRESET|FILE", help=f"preset ({', '.join(preset_names())}) or chip file (.toml)")
    add("--ports", type=int, help="modes of every mesh")
    add("--stages", type=int, help="meshes one behind the other")
    add("--seed", type=int, help="everything random follows from it")
    add("--bind", default="tcp://127.0.0.1:*", metavar="ADDRESS", help="tcp://HOST:PORT or ipc://PATH (%(default)s)")
    add("--keys", type=Path, metavar="FOLDER", help="CURVE keys; needed beyond this machine")
    add("--threads", type=_threads, help="threads that share an evaluation (one a processor, four at most)")
    add("--beside", type=_threads, default=0, help="of these, how many leave short evaluations to whoever asks on this machine")
    add("--realtime", action="store_true", help="operations take the time they would take in a lab")
    add("--parent", type=int, metavar="PID", help="end with this process, which starts this one (the parent process)")
    add("--physics", action="store_true", help="print every parameter of the chip with unit and source, and end")
    add("--json", action="store_true", help="with --physics: one JSON object")
    add("--detach", action="store_true", help="go on when the parent process ends")
    return parser


def _threads(text: str) -> int:
    if not text.isdecimal() or not 1 <= int(text) <= 256:
        raise argparse.ArgumentTypeError(f"threads is {text!r}, expected a whole number from 1 to 256")
    return int(text)


def _refuse(sentence: str, code: int) -> int:
    print(sentence, file=sys.stderr)
    return code


if __name__ == "__main__":
    sys.exit(main())
