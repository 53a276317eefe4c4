"""`photonloop evaluate`: measure the test accuracy of a run again, on its device or on another one."""

from __future__ import annotations

import argparse
from dataclasses import asdict

from photonloop.controller.cli.console import show_progress, stop_on_signals
from photonloop.controller.cli.printing import print_json, print_lines
from photonloop.controller.cli.train_command import accuracies
from photonloop.controller.training import evaluate


def run(args: argparse.Namespace) -> int:
    """Measure and print the accuracies."""
    with stop_on_signals() as stop, show_progress() as listener:
        result = evaluate(args.run, listener=listener, device=args.device, stop=stop, keys=args.keys)
    if args.json:
        print_json(asdict(result))
    else:
        print_lines(*accuracies(result), f"measured on {result.device} in {result.wall_s:.1f} s")
    return 0
