"""Measure the test accuracy on digits: `examples/digits.toml` with the `photonloop train` command, for several seeds.

    python scripts/studies/digits.py [--json] [--seeds 0 1 2] [--device sim:soi]

Prints the rows of the table in docs/results.md.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path

from photonloop.protocols.process import module_command

EXPERIMENT = Path(__file__).parents[2] / "examples" / "digits.toml"


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2], help="seeds of experiment and chip")
    parser.add_argument("--device", default="sim:soi", help="device string")
    args = parser.parse_args()
    results = []
    with tempfile.TemporaryDirectory() as runs:
        for seed in args.seeds:
            command = module_command("photonloop", "train", str(EXPERIMENT), "--json", "--runs", runs)
            command += ["--device", args.device, "--set", f"seed={seed}"]
            ended = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
            results.append({"seed": seed, **json.loads(ended.stdout)})
    if args.json:
        print(json.dumps({"device": args.device, "results": results}))
        return 0
    print("| device | seed | layer 1 | layer 2 | vote | evaluations | seconds |\n|---|---|---|---|---|---|---|")
    for result in results:
        layers = " | ".join(f"{layer['test_accuracy']:.3f}" for layer in result["layers"])
        figures = f"{result['test_accuracy']:.3f} | {result['evaluations']:,} | {result['wall_s']:.0f}"
        print(f"| `{args.device}` | {result['seed']} | {layers} | {figures} |")
    return 0


if __name__ == "__main__":
    sys.exit(main())
