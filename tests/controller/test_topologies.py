"""Sessions on an SVD mesh and a weight bank, by the command: simulator process, run folder and report."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow

EXAMPLES = Path(__file__).parents[2] / "examples"
SVD = 'preset = "soi"\nports = 8\nstages = 1\nseed = 0\nmesh.topology = "svd"\n'


def photonloop(*args: object, cwd: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "photonloop", *map(str, args)]
    return subprocess.run(command, cwd=cwd, capture_output=True, text=True, timeout=110, check=False)


@pytest.mark.parametrize(("topology", "epochs", "least"), [("svd", 600, 0.85), ("weight_bank", 1200, 0.75)])
def test_iris_is_trained_on_other_topologies(topology: str, epochs: int, least: float, tmp_path: Path) -> None:
    chip = EXAMPLES / "chips" / "weight_bank.toml"
    if topology == "svd":
        chip = tmp_path / "svd.toml"
        chip.write_text(SVD)
    sets = [f"training.epochs={epochs}", f"training.evaluate_every={epochs}", "estimator.directions=4", "optimizer.rate=0.02"]
    options = [part for each in sets for part in ("--set", each)]
    ended = photonloop("train", EXAMPLES / "iris.toml", "--device", f"sim:{chip}", *options, "--json", cwd=tmp_path)
    assert ended.returncode == 0, ended.stderr
    answer = json.loads(ended.stdout)
    # Chance level is one third.
    assert answer["test_accuracy"] >= least
    run = tmp_path / answer["run"]
    (stage,) = json.loads((run / "device.json").read_text())["stages"]
    assert stage["topology"] == topology
    page = (run / "report.html").read_text(encoding="utf-8")
    assert ("attenuators" if topology == "svd" else "rings (one row per output") in page
