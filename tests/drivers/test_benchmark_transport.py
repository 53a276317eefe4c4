"""The benchmark of transports runs, and shows the cost of Nagle's algorithm and of single commands."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

SCRIPT = Path(__file__).parents[2] / "scripts" / "benchmarks" / "transport_costs.py"


def test_nagle_and_single_commands_cost_time():
    done = subprocess.run(
        [sys.executable, SCRIPT, "--json", "--rounds", "5"], capture_output=True, text=True, timeout=60, check=True
    )
    results = json.loads(done.stdout)
    assert results["nagle_ratio"] > 3
    assert results["single_ratio"] > 3
    assert results["serial_block_ms"] > 0
    assert results["serial_readline_ms"] > 0
