"""Training on a bench of virtual instruments whose server process is killed during the session."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

pytestmark = pytest.mark.slow

SMALL = """
name = "small"
seed = 3
device = "sim:soi"
[data]
source = "iris"
train_limit = 20
test_limit = 20
[encoding]
reference = 1.0
[network]
ports = 6
[estimator]
probe_step_rad = 0.05
directions = 2
[optimizer]
rate = 0.1
[training]
epochs = 24
batch = 10
evaluate_every = 24
"""


def losses(run: Path) -> list[float]:
    events = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    return [event["loss"] for event in events if event["event"] == "epoch"]


def test_training_on_a_bench_matches_the_simulator_although_its_server_is_killed(tmp_path: Path) -> None:
    (tmp_path / "small.toml").write_text(SMALL)
    photonloop = [sys.executable, "-m", "photonloop"]
    train = [*photonloop, "train", "small.toml", "--json"]
    bench = subprocess.Popen(
        [*photonloop, "virtual-bench", "--ports", "6", "--seed", "3", "--out", str(tmp_path), "--json"],
        stdout=subprocess.PIPE,
        text=True,
        cwd=tmp_path,
    )
    try:
        assert bench.stdout is not None
        assert json.loads(bench.stdout.readline())["station"] == str(tmp_path / "station.toml")
        ended = subprocess.run([*train, "--runs", "sim"], cwd=tmp_path, capture_output=True, text=True, timeout=100, check=False)
        assert ended.returncode == 0, ended.stderr
        lab = [*train, "--runs", "lab", "--device", "lab:station.toml?max_v=9"]
        running = subprocess.Popen(lab, cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        metrics = tmp_path / "lab" / "small" / "metrics.jsonl"
        until_s = time.monotonic() + 60
        while not metrics.exists() or metrics.read_bytes().count(b'"epoch"') < 4:
            assert running.poll() is None, running.communicate()
            assert time.monotonic() < until_s
            time.sleep(0.05)
        (server,) = psutil.Process(running.pid).children()[0].children()
        server.kill()
        answer, messages = running.communicate(timeout=110)
        assert running.returncode == 0, messages
        assert "device lost" in messages
        assert "device back" in messages
        assert json.loads(answer)["device"] == f"lab:{tmp_path}/station.toml?max_v=9"
    finally:
        bench.terminate()
        bench.communicate(timeout=20)
    sim, real = losses(tmp_path / "sim" / "small"), losses(tmp_path / "lab" / "small")
    assert len(sim) == len(real) == 24
    assert real[-1] < 0.7 * real[0]
    assert abs(real[-1] - sim[-1]) < 0.1 * (sim[0] - sim[-1])
