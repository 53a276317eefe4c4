"""`photonloop evaluate`: the test accuracy of a run, measured again, on the same device or another."""

from __future__ import annotations

import argparse
from dataclasses import asdict

from controller.cli.console import print_json, stop_on_signals
from controller.cli.train import accuracies
from controller.training import evaluate


def run(args: argparse.Namespace) -> int:
    """Measure and print."""
    with stop_on_signals() as stopped:
        result = evaluate(args.run, device=args.device, stopped=stopped, keys=args.keys)
    if args.json:
        print_json(asdict(result))
    else:
        print(accuracies(result))
        print(f"measured on {result.device} in {result.wall_s:.1f} s")
    return 0
