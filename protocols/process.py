"""Processes of photonloop: how to start one, how it announces itself, and how it notices that its parent ended."""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Callable, Mapping
from typing import TextIO

from photonloop.protocols.errors import DeviceError
from photonloop.protocols.output_streams import discard_output


def module_command(module: str, *arguments: str) -> list[str]:
    """Return the command line that runs `python -m module` with this interpreter.

    The child does not look for modules in the current folder (Python's `-P`), so a file such as `numpy.py` or
    `photonloop.py` in the folder where the user works cannot take the place of an installed package.

    Parameters
    ----------
    module
        Full name of the module, such as "photonloop.simulator".
    arguments
        Its arguments.

    Examples
    --------
    >>> module_command("photonloop.simulator", "--ports", "4")[1:]
    ['-P', '-m', 'photonloop.simulator', '--ports', '4']
    """
    return [sys.executable, "-P", "-m", module, *arguments]


def add_parent_options(parser: argparse.ArgumentParser) -> None:
    """Add the options `--parent` and `--detach`, which `parent_check` reads."""
    parser.add_argument("--parent", type=int, metavar="PID", help="end when this process, the parent, has ended")
    parser.add_argument("--detach", action="store_true", help="keep running when the parent process ends")


def parent_check(args: argparse.Namespace) -> Callable[[], bool]:
    """Return a function that returns whether this process should keep running: its parent runs, or `--detach` was
    given.

    Call this early: a parent that ended before is not noticed, unless its process id was passed as `--parent`.
    """
    parent = os.getppid() if args.parent is None else args.parent
    detached = bool(args.detach)
    return lambda: detached or os.getppid() == parent


def announce(message: Mapping[str, object], output: TextIO | None = None) -> None:
    """Print one line of JSON, by which a process reports that it is ready and how to reach it.

    Parameters
    ----------
    message
        The content, such as {"address": "tcp://127.0.0.1:5555"}.
    output
        Where to print it; standard output by default.

    Raises
    ------
    DeviceError
        "transport" if the reading end of a pipe is closed.
    """
    stream = sys.stdout if output is None else output
    try:
        print(json.dumps(message), file=stream, flush=True)
    except BrokenPipeError:
        discard_output(stream)
        raise DeviceError("transport", "the address could not be printed: standard output is closed") from None


def take_standard_output() -> TextIO:
    """Return standard output for the announcements of this process, and redirect what anything else prints to standard
    error.

    Third-party drivers, and the libraries below them, may print anything. It must not be taken for an announcement.
    """
    sys.stdout.flush()
    own = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    return own


def refuse(sentence: str, code: int) -> int:
    """Print one sentence on standard error and return the exit code `code`."""
    print(sentence, file=sys.stderr)
    return code
