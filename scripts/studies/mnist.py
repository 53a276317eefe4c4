"""Measure the test accuracy on MNIST that is reached in a given time, pooled to 8 × 8, with one layer.

    python scripts/studies/mnist.py [--json] [--path mnist.npz] [--minutes 10] [--device sim:soi] [--seed 0]

`photonloop train` runs `examples/mnist.toml`. A short trial session measures the speed of this machine, which sets the
number of epochs. Prints the row of the table in docs/results.md.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path

from photonloop.protocols.process import module_command

EXPERIMENT = Path(__file__).parents[2] / "examples" / "mnist.toml"


def train(args: argparse.Namespace, runs: str, epochs: int) -> dict[str, float]:
    """Return the answer of `photonloop train --json` for `epochs` epochs."""
    command = module_command("photonloop", "train", str(EXPERIMENT), "--json", "--runs", runs)
    options = [f"seed={args.seed}", f"training.epochs={epochs}", f"training.evaluate_every={max(1, epochs // 20)}"]
    options += [f"data.path={args.path}"] if args.path else []
    command += ["--device", args.device, *(word for option in options for word in ("--set", option))]
    return json.loads(subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True).stdout)


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.add_argument("--path", help="data file (default: $PHOTONLOOP_DATA/mnist.npz, or a download)")
    parser.add_argument("--minutes", type=float, default=10.0, help="time of the session")
    parser.add_argument("--device", default="sim:soi", help="device string")
    parser.add_argument("--seed", type=int, default=0, help="seed of experiment and chip")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as runs:
        trial_epochs = 20
        trial = train(args, runs, trial_epochs)
        epochs = max(1, int(trial_epochs * 60 * args.minutes / trial["wall_s"]))
        result = {**train(args, runs, epochs), "epochs": epochs, "minutes": args.minutes}
    if args.json:
        print(json.dumps(result))
        return 0
    print("| device | seed | epochs | test accuracy | evaluations | seconds |\n|---|---|---|---|---|---|")
    figures = f"{result['test_accuracy']:.4f} | {result['evaluations']:,} | {result['wall_s']:.0f}"
    print(f"| `{args.device}` | {args.seed} | {epochs} | {figures} |")
    return 0


if __name__ == "__main__":
    sys.exit(main())
