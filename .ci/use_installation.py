"""Use an installed photonloop from an empty folder: drivers found, a small session, a virtual bench described.

usage: python .ci/use_installation.py PHOTONLOOP    with the interpreter of the installation
"""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
from importlib.metadata import entry_points
from pathlib import Path

EXPERIMENT = """
name = "small"

[data]
source = "iris"

[training]
epochs = 2
"""


def main() -> None:
    """Check one installation; raises at the first thing that is wrong."""
    command = sys.argv[1]
    drivers = entry_points(group="photonloop.drivers")
    assert len(drivers) >= 10, drivers
    for point in drivers:
        point.load()
    for name in ("controller", "drivers", "protocols", "simulator"):
        assert importlib.util.find_spec(name) is None, f"{name} was installed at the top of site-packages"
    Path("experiment.toml").write_text(EXPERIMENT, encoding="utf-8")
    result = json.loads(_output([command, "train", "experiment.toml", "--device", "sim:ideal", "--json"]))
    assert 0.0 <= result["test_accuracy"] <= 1.0, result
    assert (Path(result["run"]) / "report.html").is_file(), result
    with subprocess.Popen(
        [command, "virtual-bench", "--chip", "ideal", "--ports", "4", "--json"], stdout=subprocess.PIPE, text=True
    ) as bench:
        assert bench.stdout is not None
        station = json.loads(bench.stdout.readline())["station"]
        described = json.loads(_output([command, "describe", f"lab:{station}", "--json"]))
        bench.terminate()
    description = described["description"]
    assert description["kind"] == "bench", described
    print(f"drivers {len(drivers)}, test accuracy {result['test_accuracy']:.3f}, bench {description['name']}")


def _output(command: list[str]) -> str:
    return subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True, timeout=300).stdout


if __name__ == "__main__":
    main()
