"""`python -m photonloop.drivers`: serve a bench of instruments on this machine, under a supervisor.

Once clients can connect, it prints one JSON line with the address on standard output. On SIGTERM, on Ctrl-C and when
its parent process ends, it makes the bench safe and ends.
"""

from __future__ import annotations

import argparse
import logging
import os
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path

from photonloop.drivers.service.supervisor import Commands, server_command, supervise
from photonloop.protocols.config import ConfigError
from photonloop.protocols.errors import DeviceError
from photonloop.protocols.process import add_parent_options, parent_check, refuse, take_standard_output
from photonloop.protocols.stop_request import StopRequest, handle_stop_signals


def main(arguments: list[str] | None = None) -> int:
    """Serve a bench until a signal, or make it safe; return the exit code.

    Exit codes: 0, done; 1, an instrument does not answer or is in use, the address is in use, or not everything could
    be made safe; 2, wrong usage or an invalid station file; 3, an instrument reports an error.
    """
    args = _parser().parse_args(arguments)
    logging.basicConfig(stream=sys.stderr, format="%(name)s: %(message)s", level=logging.WARNING)
    keep_running, stop = parent_check(args), StopRequest()
    handle_stop_signals(lambda _number: stop.ask())
    try:
        if args.make_safe:
            return _make_safe(args.station)
        return (_serve if args.unsupervised else _supervise)(args, stop, keep_running)
    except ConfigError as error:
        return refuse(str(error), 2)
    except DeviceError as error:
        return refuse(error.detail, {"bad_request": 2, "transport": 1, "lease": 1, "deadline": 1}.get(error.code, 3))


def _supervise(args: argparse.Namespace, stop: StopRequest, keep_running: Callable[[], bool]) -> int:
    keys = ["--server-keys", str(args.server_keys)] if args.server_keys is not None else []
    me = str(os.getpid())
    commands = Commands(
        serve=lambda bind: server_command(args.station, "--unsupervised", "--heartbeat", "--bind", bind, "--parent", me, *keys),
        make_safe=server_command(args.station, "--make-safe"),
    )
    return supervise(commands, args.bind, stop, keep_running)


def _serve(args: argparse.Namespace, stop: StopRequest, keep_running: Callable[[], bool]) -> int:
    from photonloop.drivers.bench.bench_opening import open_lab  # noqa: PLC0415 - the supervisor does not import instrument libraries
    from photonloop.drivers.service.bench_server import serve  # noqa: PLC0415

    output = take_standard_output()

    def alive() -> bool:
        if args.heartbeat:
            try:
                print(file=output, flush=True)
            except BrokenPipeError:
                return False
        return keep_running()

    with open_lab(args.station) as bench:
        serve(bench, args.bind, args.server_keys, stop, alive, output)
    return 0


def _make_safe(reference: str) -> int:
    from photonloop.drivers.bench.bench_opening import open_table  # noqa: PLC0415
    from photonloop.drivers.bench.make_safe import make_safe  # noqa: PLC0415
    from photonloop.drivers.station.loading import load_reference  # noqa: PLC0415

    path, station, limits = load_reference(reference)
    problems = make_safe(station, partial(open_table, path.parent), limits=limits)
    for problem in problems:
        print(f"not safe: {problem}", file=sys.stderr)
    return 1 if problems else 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser("python -m photonloop.drivers", description="Serve a bench of instruments on this machine.")
    add = parser.add_argument
    add(
        "station",
        metavar="STATION.toml[?max_v=5]",
        help="station file, with optional limits that tighten those in it: station.toml?max_v=5",
    )
    add("--bind", default="tcp://127.0.0.1:*", metavar="ADDRESS", help="tcp://HOST:PORT or ipc://PATH (%(default)s)")
    add("--server-keys", type=Path, metavar="FOLDER", help="CURVE keys; required for an address that other machines can reach")
    add_parent_options(parser)
    add("--unsupervised", action="store_true", help="serve in this process; if it is killed, the bench is not made safe")
    add("--heartbeat", action="store_true", help="print an empty line several times per second, for the supervisor")
    add("--make-safe", action="store_true", help="bring every source that answers to 0 V, switch the light off, and end")
    return parser


if __name__ == "__main__":
    sys.exit(main())
