"""The benchmark of the forward runs, and the compiled kernels are faster than NumPy."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow

SCRIPT = Path(__file__).parents[2] / "scripts" / "benchmarks/forward.py"


def test_the_forward_benchmark_is_faster_than_numpy() -> None:
    """The ratio is 10 to 30 on an idle machine; the bound allows for other load.

    The script also compares the fields of both, and fails if they differ.
    """
    command = [sys.executable, str(SCRIPT), "--json", "--only", "forward", "--ports", "64", "--rounds", "5"]
    ran = subprocess.run(command, capture_output=True, text=True, check=False, cwd=SCRIPT.parents[2])
    assert ran.returncode == 0, ran.stderr
    (line,) = json.loads(ran.stdout)["results"]
    assert line["ports"] == 64
    assert line["ratio"] > 2.5
