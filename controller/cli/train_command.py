"""`photonloop train`: run an in-situ training session."""

from __future__ import annotations

import argparse
from dataclasses import asdict
from pathlib import Path

from photonloop.controller.cli.console import show_progress, stop_on_signals
from photonloop.controller.cli.printing import print_json, print_lines, print_message
from photonloop.controller.experiment import load_experiment
from photonloop.controller.report import write_report
from photonloop.controller.stopping import SessionStopped, Stop
from photonloop.controller.training import Result, resume, train
from photonloop.protocols.config import ConfigError


def run(args: argparse.Namespace) -> int:
    """Train, print the accuracies and write the report."""
    if (args.experiment is None) == (args.resume is None):
        print_message("photonloop train: give either EXPERIMENT.toml or --resume RUN")
        return 2
    if args.resume is not None and args.set:
        raise ConfigError("--set applies to new runs only: a resumed run keeps its experiment, so leave --set out")
    with stop_on_signals() as stop:
        with show_progress() as listener:
            if args.resume is not None:
                result = resume(args.resume, listener=listener, device=args.device, stop=stop, keys=args.keys)
            else:
                experiment = load_experiment(args.experiment, args.set, args.device)
                result = train(experiment, runs=args.runs, listener=listener, stop=stop, keys=args.keys)
        if args.json:
            print_json(asdict(result))
        else:
            ended = f"{result.evaluations} evaluations in total, {result.wall_s:.1f} s in this session, device {result.device}"
            print_lines(*accuracies(result), ended)
        _report(Path(result.run), stop, quiet=args.json)
    return 0


def _report(run: Path, stop: Stop, *, quiet: bool) -> None:
    """Write the report of a finished run; print a message if it cannot be written."""
    try:
        with stop.at_once("while the report was written"):
            report = write_report(run)
    except (ConfigError, OSError, SessionStopped) as error:
        print_message(
            f"photonloop train: the run is finished, but its report could not be written ({error}): try photonloop report {run}"
        )
    else:
        if not quiet:
            print_lines(f"report: {report}")


def accuracies(result: Result) -> list[str]:
    """Return the accuracies of `result`, one per line."""
    lines = [f"{layer['name']}: test accuracy {layer['test_accuracy']:.4f}" for layer in result.layers]
    return [*lines, f"vote: test accuracy {result.test_accuracy:.4f}"]
