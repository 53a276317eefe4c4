"""`photonloop train`: an in-situ training session."""

from __future__ import annotations

import argparse
import sys
from dataclasses import asdict
from pathlib import Path

from controller.cli.console import print_json, stop_on_signals, watching
from controller.experiment import load_experiment
from controller.report import write_report
from controller.session import SessionStopped
from controller.training import Result, resume, train
from protocols.validation import ConfigError


def run(args: argparse.Namespace) -> int:
    """Train, write the report, and say what was reached."""
    if (args.experiment is None) == (args.resume is None):
        print("photonloop train: give either EXPERIMENT.toml or --resume RUN", file=sys.stderr)
        return 2
    if args.resume is not None and args.set:
        raise ConfigError("--set changes a new session; a resumed one goes on as it began")
    with stop_on_signals() as stopped, watching() as listener:
        try:
            if args.resume is not None:
                result = resume(args.resume, listener=listener, device=args.device, stopped=stopped, keys=args.keys)
            else:
                experiment = load_experiment(args.experiment, args.set, args.device)
                result = train(experiment, runs=args.runs, listener=listener, stopped=stopped, keys=args.keys)
        except SessionStopped as stop:
            print(f"photonloop train: {stop}", file=sys.stderr)
            return 1
    if args.json:
        print_json(asdict(result))
    else:
        print(accuracies(result))
        print(f"{result.evaluations} evaluations in all, {result.wall_s:.1f} s in this session, device {result.device}")
    try:
        report = write_report(Path(result.run))
    except (ConfigError, OSError) as error:
        print(f"photonloop train: the run is finished, but its report could not be written: {error}", file=sys.stderr)
    else:
        if not args.json:
            print(f"report: {report}")
    return 0


def accuracies(result: Result) -> str:
    """Return the accuracies of `result`, a line each."""
    lines = [f"{layer['name']}: test accuracy {layer['test_accuracy']:.4f}" for layer in result.layers]
    return "\n".join([*lines, f"vote: test accuracy {result.test_accuracy:.4f}"])
