"""The benchmark of transports runs and reports all of its times."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow

SCRIPT = Path(__file__).parents[2] / "scripts" / "benchmarks" / "transport_costs.py"


def test_the_benchmark_reports_times_and_ratios() -> None:
    ended = subprocess.run(
        [sys.executable, SCRIPT, "--json", "--rounds", "5"], capture_output=True, text=True, timeout=60, check=True
    )
    results = json.loads(ended.stdout)
    assert set(results) == {
        "nodelay_ms",
        "nagle_ms",
        "nagle_ratio",
        "joined_ms",
        "single_ms",
        "single_ratio",
        "serial_block_ms",
        "serial_readline_ms",
        "readline_ratio",
    }
    assert min(results.values()) > 0
