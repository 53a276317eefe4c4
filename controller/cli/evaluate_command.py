"""`photonloop evaluate`: the test accuracy of a run, measured again, on the same device or another."""

from __future__ import annotations

import argparse
from dataclasses import asdict

from photonloop.controller.cli.console import stop_on_signals, watching
from photonloop.controller.cli.printing import print_json, show
from photonloop.controller.cli.train_command import accuracies
from photonloop.controller.training import evaluate


def run(args: argparse.Namespace) -> int:
    """Measure and print."""
    with stop_on_signals() as stop, watching() as listener:
        result = evaluate(args.run, listener=listener, device=args.device, stop=stop, keys=args.keys)
    if args.json:
        print_json(asdict(result))
    else:
        show(*accuracies(result), f"measured on {result.device} in {result.wall_s:.1f} s")
    return 0
