"""`photonloop calibrate` on the real path: a simulator process over ZeroMQ, from the command to the file."""

from __future__ import annotations

import json
import re
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from photonloop.controller.calibration.calibration_file import load_calibration
from photonloop.controller.calibration.twin_parameters import pack
from photonloop.controller.cli.main import main

CHIP = ["sim:ideal", "--ports", "3", "--stages", "1", "--chip-seed", "5"]


def command(folder: Path, *options: str) -> list[str]:
    return [sys.executable, "-m", "photonloop", "calibrate", *CHIP, "-o", str(folder / "c.json"), "--json", *options]


def calibrated(folder: Path, *options: str) -> dict[str, Any]:
    ended = subprocess.run(command(folder, *options), capture_output=True, text=True, timeout=110, check=False)
    assert ended.returncode == 0, ended.stderr
    return {**json.loads(ended.stdout), "messages": ended.stderr}


def started(folder: Path, answers: int, *options: str) -> subprocess.Popen[str]:
    """Start a calibration and return it when some answers are recorded."""
    running = subprocess.Popen(command(folder, *options), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    until_s = time.monotonic() + 90
    while not (folder / "c.json.parts" / f"{answers - 1:06d}.npz").exists():
        assert running.poll() is None, running.communicate()
        assert time.monotonic() < until_s
        time.sleep(0.002)
    return running


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_a_calibration_that_is_killed_and_one_that_is_stopped_end_as_an_unbroken_one(tmp_path: Path) -> None:
    """Readings of `ideal` depend on settings alone, so the files have the same values bit for bit."""
    folders = [tmp_path / name for name in ("unbroken", "broken")]
    for folder in folders:
        folder.mkdir()
    answer = calibrated(folders[0])
    (stage,) = answer["stages"]
    assert (stage["name"], stage["method"], stage["troubles"]) == ("mesh0", "columns", [])
    assert stage["tvd_heldout"] < 1e-3
    assert answer["settings"] == stage["settings"]
    assert sorted(path.name for path in folders[0].iterdir()) == ["c.html", "c.json"]

    killed = started(folders[1], 3)
    killed.send_signal(signal.SIGKILL)
    killed.communicate()
    assert not (folders[1] / "c.json").exists()
    again = subprocess.run(command(folders[1]), capture_output=True, text=True, timeout=60, check=False)
    assert again.returncode == 1
    assert "continue it with photonloop calibrate sim:ideal -o" in again.stderr
    stopped = started(folders[1], 6, "--resume")
    stopped.send_signal(signal.SIGINT)
    _, messages = stopped.communicate(timeout=60)
    assert stopped.returncode == 1
    (sentence,) = [line for line in messages.splitlines() if line.startswith("photonloop calibrate:")]
    assert "stopped on request after" in sentence and sentence.endswith("--resume")
    assert not (folders[1] / "c.json").exists()

    assert "resuming" in calibrated(folders[1], "--resume")["messages"]
    vectors = [pack(load_calibration(folder / "c.json").stage().parameters) for folder in folders]
    np.testing.assert_array_equal(vectors[1], vectors[0])


def test_a_dry_run_prices_a_calibration_without_driving(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["calibrate", *CHIP, "--dry-run", "--json"]) == 0
    answer = json.loads(capsys.readouterr().out)
    assert answer["dry_run"] is True
    assert answer["settings"] == sum(step["settings"] for step in answer["stages"][0]["steps"])
    assert answer["stages"][0]["method"] == "columns"
    assert 0 < answer["device_s"] < 10
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        (["sim", "-o", "{}/none/c.json"], "the folder .*none does not exist"),
        (["sim", "-o", "{}"], "is a folder: give the path of a file"),
        (["sim", "-o", "{}/c.json", "--resume"], "there is nothing to resume"),
        (["tcp://127.0.0.1:1", "-o", "{}/c.json", "--chip-seed", "1"], "--chip-seed applies to virtual chips"),
        ([*CHIP, "-o", "{}/c.json", "--stage", "mesh1"], "stage 'mesh1' does not exist; did you mean 'mesh0'"),
    ],
)
def test_bad_input_is_refused_with_one_sentence(
    options: list[str], sentence: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["calibrate", *(option.format(tmp_path) for option in options)]) == 1
    (line,) = capsys.readouterr().err.strip().splitlines()
    assert line.startswith("photonloop calibrate: ")
    assert re.search(sentence, line), line
    assert list(tmp_path.iterdir()) == []


def test_without_an_output_the_usage_is_wrong() -> None:
    assert main(["calibrate", "sim"]) == 2
