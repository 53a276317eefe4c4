"""Entry point of `photonloop`: the options of every subcommand, and one plain sentence for whatever goes wrong.

Nothing heavy is imported here: `photonloop --help` answers at once, and each subcommand brings its own.
"""

from __future__ import annotations

import argparse
import logging
import os
import sys
from importlib import import_module
from importlib.metadata import version
from pathlib import Path

from photonloop.controller.cli.printing import tell

DEVICE_HELP = "sim, sim:PRESET, sim:chip.toml, tcp://HOST:PORT, ipc://PATH or lab:station.toml"

_MODULES = {
    "describe": "describe_command",
    "check": "check_command",
    "serve": "serve_command",
    "train": "train_command",
    "evaluate": "evaluate_command",
    "report": "report_command",
    "virtual-bench": "virtual_bench_command",
    "keys": "keys_command",
}
"""Where the `run` of each command is; imported only when it is asked for, so that --help answers at once."""


def main(argv: list[str] | None = None) -> int:
    """Run `photonloop` with `argv` and return its exit code: 0 done, 1 failed with one sentence, 2 wrong usage."""
    args = _parser().parse_args(argv)
    logging.basicConfig(stream=sys.stderr, format="%(name)s: %(message)s", level=logging.WARNING)
    try:
        command = import_module(f"photonloop.controller.cli.{_MODULES[args.command]}")
        return int(command.run(args))
    except ValueError as error:  # ConfigError and DataError say one sentence; so does a plain one, if less well
        sentence = str(error)
    except KeyboardInterrupt:
        sentence = "interrupted"
    except BrokenPipeError:  # whoever read standard output has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except OSError as error:
        sentence = f"{error.filename or 'file'}: {error.strerror or error}"
    except Exception as error:
        # Both bring more than --help should wait for.
        from photonloop.controller.stopping import SessionStopped  # noqa: PLC0415
        from photonloop.protocols.errors import DeviceError  # noqa: PLC0415

        if isinstance(error, DeviceError):
            sentence = error.detail
        elif isinstance(error, SessionStopped):
            sentence = str(error)
        else:
            raise
    tell(f"photonloop {args.command}: {sentence}")
    return 1


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="photonloop", description="Train photonic neural networks on the chip itself, by forward evaluations only."
    )
    parser.add_argument("--version", action="version", version=f"photonloop {version('photonloop')}")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")

    describe = commands.add_parser("describe", help="what a device is: stages, limits, health")
    describe.add_argument("device", help=DEVICE_HELP)
    describe.add_argument("--clear-fault", metavar="NAME", help="clear the latched fault NAME, after you looked into it")
    describe.add_argument("--physics", action="store_true", help="sim: every parameter of the chip with unit and source")
    _add_chip(describe)
    _add_common(describe)

    check = commands.add_parser("check", help="whether the instruments of a bench are there and wired; drives nothing")
    check.add_argument("device", help="lab:station.toml")
    check.add_argument("--dry-run", action="store_true", help="touch no instrument: read the station file and show the wiring")
    _add_common(check, device=False)

    serve = commands.add_parser("serve", help="put a device on the network")
    serve.add_argument("device", help=DEVICE_HELP)
    serve.add_argument(
        "--bind", default="tcp://127.0.0.1:5555", metavar="ADDR", help="tcp://HOST:PORT or ipc://PATH [%(default)s]"
    )
    serve.add_argument("--device-keys", type=Path, metavar="DIR", help="keys for DEVICE, where that is a server with keys")
    serve.add_argument("--realtime", action="store_true", help="sim: take as long as the lab would")
    _add_chip(serve)
    _add_common(serve)

    train = commands.add_parser("train", help="run an in-situ training session, or go on with one")
    train.add_argument("experiment", nargs="?", type=Path, metavar="EXPERIMENT.toml")
    train.add_argument("--device", metavar="DEVICE", help=DEVICE_HELP)
    train.add_argument("--resume", type=Path, metavar="RUN", help="go on with the run in this folder")
    train.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="as in --set training.epochs=5")
    train.add_argument("--runs", type=Path, default=Path("runs"), metavar="DIR", help="where run folders go [%(default)s]")
    _add_common(train)

    evaluate = commands.add_parser("evaluate", help="measure the test accuracy of a run on a device")
    evaluate.add_argument("run", type=Path, metavar="RUN")
    evaluate.add_argument("--device", metavar="DEVICE", help=DEVICE_HELP)
    _add_common(evaluate)

    report = commands.add_parser("report", help="write the report of a run anew")
    report.add_argument("run", type=Path, metavar="RUN")
    _add_common(report, device=False)

    bench = commands.add_parser("virtual-bench", help="run virtual instruments in front of a virtual chip, with a station file")
    bench.add_argument("--chip", default="soi", metavar="CHIP", help="preset or chip file [%(default)s]")
    bench.add_argument("--ports", type=int, default=8, metavar="N", help="ports of the chip [%(default)s]")
    bench.add_argument("--stages", type=int, default=1, metavar="K", help="meshes of the chip [%(default)s]")
    bench.add_argument("--seed", type=int, metavar="S", help="which chip of its kind")
    bench.add_argument("--heaters", metavar="NAME", help="what drives the heaters: qontrol, qdac2, scpi-source")
    bench.add_argument("--modulators", metavar="NAME", help="what drives the input modulators: qdac2, qontrol, scpi-source")
    bench.add_argument("--detectors", metavar="NAME", help="what reads: labjack-t7, keysight-daq970a, scpi-readout")
    bench.add_argument("--laser", metavar="NAME", help="what shines: santec-tsl570, scpi-laser")
    bench.add_argument("--speed", type=float, metavar="F", help="factor on response times: 1 as in the lab, 0 none [0]")
    bench.add_argument("--out", type=Path, metavar="DIR", help="where station.toml and the serial line go (a temporary folder)")
    _add_common(bench, device=False)

    keys = commands.add_parser("keys", help="make keys for a server that is reached from other machines")
    keys.add_argument("folder", type=Path, metavar="DIR")
    keys.add_argument("--client", action="append", default=[], metavar="NAME", help="a client to make keys for; again for more")
    _add_common(keys, device=False)
    return parser


def _add_common(parser: argparse.ArgumentParser, *, device: bool = True) -> None:
    parser.add_argument("--json", action="store_true", help="one JSON object on standard output and nothing else there")
    if device:
        parser.add_argument("--keys", type=Path, metavar="DIR", help="folder of keys, for servers on other machines")


def _add_chip(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--ports", type=int, metavar="N", help="sim: ports of the chip")
    parser.add_argument("--stages", type=int, metavar="K", help="sim: meshes of the chip")
    parser.add_argument("--seed", type=int, metavar="S", help="sim: which chip of its kind")


if __name__ == "__main__":
    sys.exit(main())
