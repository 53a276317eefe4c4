"""The benchmark of the sweep runs, and what it measures is far from a plain loop."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

SCRIPT = Path(__file__).parents[2] / "scripts" / "benchmarks/forward.py"


def test_a_forward_is_several_times_faster_than_numpy() -> None:
    """Ten to thirty times where nothing else runs; a quarter of the least is left to whatever does run beside the tests.

    The script itself compares the fields of both, and ends where they differ.
    """
    command = [sys.executable, str(SCRIPT), "--json", "--only", "forward", "--ports", "64", "--rounds", "5"]
    ran = subprocess.run(command, capture_output=True, text=True, check=False, cwd=SCRIPT.parents[2])
    assert ran.returncode == 0, ran.stderr
    (line,) = json.loads(ran.stdout)["results"]
    assert line["ports"] == 64
    assert line["ratio"] > 2.5
