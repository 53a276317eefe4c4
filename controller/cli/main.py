"""Entry point of `photonloop`: the options of every subcommand, and one sentence for every error.

No large package is imported here, so that `photonloop --help` starts fast. Each subcommand imports its own.
"""

from __future__ import annotations

import argparse
import logging
import sys
from importlib import import_module
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING

from photonloop.controller.cli.printing import print_message
from photonloop.protocols.output_streams import discard_output

if TYPE_CHECKING:
    Subcommands = argparse._SubParsersAction[argparse.ArgumentParser]

DEVICE_HELP = "sim, sim:PRESET, sim:chip.toml, tcp://HOST:PORT, ipc://PATH or lab:station.toml"

_MODULES = {
    "describe": "describe_command",
    "check": "check_command",
    "serve": "serve_command",
    "calibrate": "calibrate_command",
    "program": "program_command",
    "train": "train_command",
    "evaluate": "evaluate_command",
    "report": "report_command",
    "virtual-bench": "virtual_bench_command",
    "keys": "keys_command",
}
"""Module of each subcommand; its `run` is imported when the subcommand is called."""


def main(argv: list[str] | None = None) -> int:
    """Run `photonloop` with `argv` and return its exit code: 0 success, 1 failure with one sentence, 2 wrong usage."""
    args = _parser().parse_args(argv)
    logging.basicConfig(stream=sys.stderr, format="%(name)s: %(message)s", level=logging.WARNING)
    try:
        command = import_module(f"photonloop.controller.cli.{_MODULES[args.command]}")
        return int(command.run(args))
    except ValueError as error:  # ConfigError and DataError are ValueErrors
        sentence = str(error)
    except KeyboardInterrupt:
        sentence = "interrupted"
    except BrokenPipeError:  # the reader of standard output has closed it
        discard_output(sys.stdout)
        return 0
    except OSError as error:
        sentence = f"{error.filename or 'file'}: {error.strerror or error}"
    except Exception as error:
        # Imported only here, because they import packages that --help does not need.
        from photonloop.controller.stopping import SessionStopped  # noqa: PLC0415
        from photonloop.protocols.errors import DeviceError  # noqa: PLC0415

        if isinstance(error, DeviceError):
            sentence = error.detail
        elif isinstance(error, SessionStopped):
            sentence = str(error)
        else:
            raise
    print_message(f"photonloop {args.command}: {sentence}")
    return 1


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="photonloop", description="Train photonic neural networks on the chip itself, by forward evaluations only."
    )
    parser.add_argument("--version", action="version", version=f"photonloop {version('photonloop')}")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for add in (_add_describe, _add_check, _add_serve, _add_calibrate, _add_train, _add_evaluate, _add_report):
        add(commands)
    for add in (_add_program, _add_virtual_bench, _add_keys):
        add(commands)
    return parser


def _add_describe(commands: Subcommands) -> None:
    describe = commands.add_parser("describe", help="print the stages, limits and health of a device")
    describe.add_argument("device", help=DEVICE_HELP)
    describe.add_argument("--clear-fault", metavar="NAME", help="clear the latched fault NAME, after you have found its cause")
    describe.add_argument("--physics", action="store_true", help="sim: print every parameter of the chip with unit and source")
    _add_chip_options(describe)
    _add_json(describe)
    _add_client_keys(describe)


def _add_check(commands: Subcommands) -> None:
    check = commands.add_parser("check", help="check the instruments and the wiring of a station; nothing is driven")
    check.add_argument("device", help="lab:station.toml")
    check.add_argument("--dry-run", action="store_true", help="open no instrument: read the station file and print the wiring")
    _add_json(check)


def _add_serve(commands: Subcommands) -> None:
    serve = commands.add_parser("serve", help="serve a device over the network")
    serve.add_argument("device", help=DEVICE_HELP)
    serve.add_argument(
        "--bind", default="tcp://127.0.0.1:5555", metavar="ADDR", help="tcp://HOST:PORT or ipc://PATH [%(default)s]"
    )
    serve.add_argument(
        "--server-keys", type=Path, metavar="DIR", help="folder of this server's keys; required if other machines can reach it"
    )
    serve.add_argument("--realtime", action="store_true", help="sim: operations take as long as in a lab")
    _add_chip_options(serve)
    _add_json(serve)
    _add_client_keys(serve)


def _add_calibrate(commands: Subcommands) -> None:
    calibrate = commands.add_parser("calibrate", help="calibrate a device: from volts to phases and matrices")
    calibrate.add_argument("device", help=DEVICE_HELP)
    calibrate.add_argument("-o", "--output", type=Path, metavar="FILE", help="file to be written, such as calibration.json")
    calibrate.add_argument(
        "--method", choices=("auto", "columns", "diagonal"), help="how a mesh is calibrated [auto: by the description]"
    )
    calibrate.add_argument("--stage", metavar="NAME", help="calibrate this stage only")
    calibrate.add_argument("--seed", type=int, metavar="S", help="seed of the random settings [0]")
    calibrate.add_argument("--dry-run", action="store_true", help="print settings, readings and device time; nothing is driven")
    calibrate.add_argument("--resume", action="store_true", help="continue a calibration that was stopped or killed")
    calibrate.add_argument("--keep-readings", action="store_true", help="keep the recorded readings, in FILE.parts")
    again = calibrate.add_mutually_exclusive_group()
    again.add_argument("--check", type=Path, metavar="FILE", help="read some settings again: is this calibration still right?")
    again.add_argument("--refresh", type=Path, metavar="FILE", help="fit what drifts again, and write the result to -o FILE")
    calibrate.add_argument("--other-device", action="store_true", help="with --check, --refresh: accept another device's file")
    _add_chip_options(calibrate, seed="--chip-seed")
    _add_json(calibrate)
    _add_client_keys(calibrate)


def _add_program(commands: Subcommands) -> None:
    program = commands.add_parser("program", help="program a matrix on a calibrated device, and measure its errors")
    program.add_argument("device", help=DEVICE_HELP)
    program.add_argument("--calibration", type=Path, required=True, metavar="FILE", help="calibration of the device")
    target = program.add_mutually_exclusive_group(required=True)
    target.add_argument("--matrix", metavar="TARGET", help="haar:SEED, dft, identity, permutation:2,0,1,…, FILE.npy or FILE.csv")
    target.add_argument("--phases", type=Path, metavar="FILE", help=".npy or .csv file with the phases of all channels [rad]")
    program.add_argument("--stage", metavar="NAME", help="stage to be programmed [the first one of the calibration]")
    program.add_argument("--refine", type=_count, default=0, metavar="K", help="read K settings around it to improve it")
    program.add_argument("--repeats", type=_count, metavar="R", help="readings that are averaged [16]")
    program.add_argument("--hold", action="store_true", help="hold the drive until Ctrl-C; then the device is made safe")
    program.add_argument("--other-device", action="store_true", help="use a calibration of another device")
    program.add_argument("--seed", type=int, metavar="S", help="seed of the settings of --refine [0]")
    _add_chip_options(program, seed="--chip-seed")
    _add_json(program)
    _add_client_keys(program)


def _count(text: str) -> int:
    """Return a number of at least 1."""
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} must be an integer of at least 1")
    return int(text)


def _add_train(commands: Subcommands) -> None:
    train = commands.add_parser("train", help="run an in-situ training session, or resume one")
    train.add_argument("experiment", nargs="?", type=Path, metavar="EXPERIMENT.toml", help="experiment file of a new run")
    train.add_argument("--device", metavar="DEVICE", help=DEVICE_HELP)
    train.add_argument("--resume", type=Path, metavar="RUN", help="resume the run in folder RUN")
    train.add_argument(
        "--set", action="append", default=[], metavar="KEY=VALUE", help="change a value of the file, as in training.epochs=5"
    )
    train.add_argument("--runs", type=Path, default=Path("runs"), metavar="DIR", help="parent of new run folders [%(default)s]")
    _add_json(train)
    _add_client_keys(train)


def _add_evaluate(commands: Subcommands) -> None:
    evaluate = commands.add_parser("evaluate", help="measure the test accuracy of a run on a device")
    evaluate.add_argument("run", type=Path, metavar="RUN", help="run folder")
    evaluate.add_argument("--device", metavar="DEVICE", help=DEVICE_HELP)
    _add_json(evaluate)
    _add_client_keys(evaluate)


def _add_report(commands: Subcommands) -> None:
    report = commands.add_parser("report", help="write the report of a run again")
    report.add_argument("run", type=Path, metavar="RUN", help="run folder")
    _add_json(report)


def _add_virtual_bench(commands: Subcommands) -> None:
    bench = commands.add_parser(
        "virtual-bench", help="run virtual instruments in front of a virtual chip, and write their station file"
    )
    bench.add_argument("--chip", default="soi", metavar="CHIP", help="preset or chip file [%(default)s]")
    bench.add_argument("--ports", type=int, default=8, metavar="N", help="ports of the chip [%(default)s]")
    bench.add_argument("--stages", type=int, default=1, metavar="K", help="meshes of the chip [%(default)s]")
    bench.add_argument("--seed", type=int, metavar="S", help="seed of the chip's fabrication errors and noise")
    bench.add_argument("--heaters", metavar="NAME", help="source of the heaters: qontrol, qdac2, scpi-source")
    bench.add_argument("--modulators", metavar="NAME", help="source of the input modulators: qdac2, qontrol, scpi-source")
    bench.add_argument("--detectors", metavar="NAME", help="readout: labjack-t7, keysight-daq970a, scpi-readout")
    bench.add_argument("--laser", metavar="NAME", help="laser: santec-tsl570, scpi-laser")
    bench.add_argument(
        "--inputs", choices=("modulators", "switch"), help="a modulator per input port, or an optical switch [modulators]"
    )
    bench.add_argument("--speed", type=float, metavar="F", help="factor on response times: 1 as in a lab, 0 without delays [0]")
    bench.add_argument("--out", type=Path, metavar="DIR", help="folder for station.toml and the serial line [a temporary folder]")
    _add_json(bench)


def _add_keys(commands: Subcommands) -> None:
    keys = commands.add_parser("keys", help="create keys for a server that other machines can reach")
    keys.add_argument("folder", type=Path, metavar="DIR", help="folder of the server's keys")
    keys.add_argument(
        "--client", action="append", default=[], metavar="NAME", help="create the keys of client NAME; repeat it for more"
    )
    _add_json(keys)


def _add_json(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--json", action="store_true", help="print one JSON object on standard output, and nothing else")


def _add_client_keys(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--keys", type=Path, metavar="DIR", help="tcp://, ipc://: folder of keys with which to connect to the device server"
    )


def _add_chip_options(parser: argparse.ArgumentParser, seed: str = "--seed") -> None:
    parser.add_argument("--ports", type=int, metavar="N", help="sim: ports of the chip")
    parser.add_argument("--stages", type=int, metavar="K", help="sim: meshes of the chip")
    parser.add_argument(seed, type=int, metavar="S", help="sim: seed of the chip's fabrication errors and noise")


if __name__ == "__main__":
    sys.exit(main())
