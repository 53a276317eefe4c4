"""The processes `python -m photonloop.simulator.emulators` and `photonloop virtual-bench`: output, exit, errors."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import psutil
import pytest

pytestmark = pytest.mark.slow


def start(module: str, *arguments: str, cwd: Path) -> tuple[subprocess.Popen[str], dict[str, object]]:
    process = subprocess.Popen(
        [sys.executable, "-m", module, *arguments], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=cwd
    )
    assert process.stdout is not None
    return process, json.loads(process.stdout.readline())


def test_the_process_prints_its_addresses_writes_a_station_and_ends_on_sigterm(tmp_path: Path) -> None:
    process, announced = start(
        "photonloop.simulator.emulators", "--chip", "ideal", "--ports", "2", "--out", str(tmp_path / "b"), cwd=tmp_path
    )
    assert set(announced) == {"station", "control", "instruments", "pid", "chip", "ports", "stages", "seed"}
    assert announced["pid"] == process.pid
    station = Path(str(announced["station"]))
    assert station == tmp_path / "b" / "station.toml"
    assert station.exists()
    assert (tmp_path / "b" / "qontrol").is_symlink()
    process.send_signal(signal.SIGTERM)
    out, err = process.communicate(timeout=10)
    assert (process.returncode, out, err) == (0, "", "")
    assert not (tmp_path / "b" / "qontrol").is_symlink()


def test_the_command_runs_the_process_and_ends_it(tmp_path: Path) -> None:
    process, announced = start("photonloop", "virtual-bench", "--json", "--chip", "ideal", "--ports", "2", cwd=tmp_path)
    child = psutil.Process(int(str(announced["pid"])))
    assert child.is_running()
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=10)
    assert (process.returncode, out, err) == (0, "", "")
    assert not psutil.pid_exists(child.pid)
    assert not Path(str(announced["station"])).parent.exists()  # a temporary folder of its own


def test_the_process_ends_with_its_parent(tmp_path: Path) -> None:
    parent = textwrap.dedent(
        """
        import subprocess, sys, time
        command = [sys.executable, "-m", "photonloop.simulator.emulators", "--chip", "ideal", "--ports", "2"]
        child = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        print(child.stdout.readline(), end="", flush=True)
        time.sleep(60)
        """
    )
    process = subprocess.Popen([sys.executable, "-c", parent], stdout=subprocess.PIPE, text=True, cwd=tmp_path)
    assert process.stdout is not None
    orphan = int(json.loads(process.stdout.readline())["pid"])
    process.kill()
    process.communicate()
    until_s = time.monotonic() + 20
    while psutil.pid_exists(orphan) and psutil.Process(orphan).status() != psutil.STATUS_ZOMBIE:
        assert time.monotonic() < until_s, "the bench outlived its parent"
        time.sleep(0.05)


@pytest.mark.parametrize(
    ("module", "arguments", "code", "words"),
    [
        ("photonloop.simulator.emulators", ["--chip", "soy"], 2, "chip 'soy' is not a preset"),
        ("photonloop.simulator.emulators", ["--speed", "-1"], 2, "speed is '-1', expected a number from 0 to 1000"),
        (
            "photonloop",
            ["virtual-bench", "--chip", "ideal", "--detectors", "labjack"],
            1,
            "did you mean 'labjack-t7'?",
        ),
    ],
)
def test_wrong_arguments_are_refused_with_one_sentence(module: str, arguments: list[str], code: int, words: str) -> None:
    ended = subprocess.run(
        [sys.executable, "-m", module, *arguments], capture_output=True, text=True, timeout=60, check=False, env=os.environ
    )
    assert ended.returncode == code, ended.stderr
    assert words in ended.stderr.strip().splitlines()[-1]
    assert "Traceback" not in ended.stderr
    assert ended.stdout == ""
