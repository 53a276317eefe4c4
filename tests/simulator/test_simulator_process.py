"""The process `python -m photonloop.simulator`: start, service and end."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import psutil
import pytest

from photonloop.protocols.client.device_client import connect
from photonloop.protocols.device import LoadedRows
from photonloop.simulator.engine.chip import Chip
from photonloop.simulator.parameters import load_chip

pytestmark = pytest.mark.slow


@contextmanager
def simulator(*arguments: str) -> Iterator[tuple[subprocess.Popen[str], dict[str, object]]]:
    process = subprocess.Popen(
        [sys.executable, "-m", "photonloop.simulator", *arguments], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    try:
        yield process, json.loads(process.stdout.readline())
    finally:
        process.kill()
        process.communicate()


def test_the_process_announces_its_address_serves_and_ends_on_sigterm() -> None:
    with simulator("--chip", "ideal", "--ports", "8", "--stages", "3", "--seed", "4") as (process, announced):
        assert set(announced) == {"address", "pid", "chip", "ports", "stages", "seed", "epoch"}
        assert announced["pid"] == process.pid
        assert (announced["chip"], announced["ports"], announced["stages"], announced["seed"]) == ("ideal", 8, 3, 4)
        local = Chip(load_chip("ideal", ports=8, stages=3, seed=4))
        rng = np.random.default_rng(0)
        held, drives, inputs = rng.uniform(0, 5, 192), rng.uniform(0, 6, (3, 64)), rng.random((20, 8))
        readings = []
        with connect(str(announced["address"])) as client:
            client.acquire()
            for device in (client, local):
                assert device.describe() == local.describe()
                device.apply(held)
                device.load_inputs("all", inputs)
                readings.append(device.evaluate(drives, LoadedRows("all", np.arange(20)), "mesh1"))
        np.testing.assert_array_equal(readings[0].values, readings[1].values)
        process.send_signal(signal.SIGTERM)
        out, err = process.communicate(timeout=10)
        assert (process.returncode, out, err) == (0, "", "")


def test_the_process_ends_on_sigint() -> None:
    with simulator("--ports", "4") as (process, _):
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=10)
        assert (process.returncode, out, err) == (0, "", "")


@pytest.mark.parametrize("detach", [False, True])
def test_the_process_ends_with_its_parent_unless_detached(detach: bool) -> None:
    """A killed parent cannot stop its child, so the child checks for its parent."""
    parent = textwrap.dedent(
        """
        import subprocess, sys, time
        command = [sys.executable, "-m", "photonloop.simulator", "--ports", "4", *sys.argv[1:]]
        child = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        print(child.stdout.readline(), end="", flush=True)
        time.sleep(60)
        """
    )
    command = [sys.executable, "-c", parent, *(["--detach"] if detach else [])]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    child = psutil.Process(json.loads(process.stdout.readline())["pid"])
    process.kill()
    process.communicate()
    try:
        child.wait(1.5 if detach else 10)
        ended = True
    except psutil.TimeoutExpired:
        ended = False
    if not ended:
        os.kill(child.pid, signal.SIGTERM)
        child.wait(10)
    assert ended != detach


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--chip", "soy"], "chip 'soy' is not a preset: there are harsh, ideal, lab, soi, tin, undercut; did you mean 'soi'?"),
        (["--chip", "no/chip.toml"], "chip file no/chip.toml does not exist"),
        (["--ports", "1"], "chip soi: ports is 1, but should be greater than or equal to 2"),
        (["--ports", "4", "--bind", "tcp://0.0.0.0:*"], "can be reached from other machines"),
        (["--ports", "4", "--bind", "here"], "address is 'here'"),
        (["--ports", "four"], "invalid int value: 'four'"),
        (["--threads", "0"], "threads is '0', expected a whole number from 1 to 256"),
    ],
)
def test_invalid_arguments_are_refused_with_a_message(arguments: list[str], words: str) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "photonloop.simulator", *arguments], capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 2
    assert words in done.stderr
    assert "Traceback" not in done.stderr
    assert done.stdout == ""


def test_an_address_in_use_is_reported() -> None:
    with simulator("--ports", "4") as (_, announced):
        done = subprocess.run(
            [sys.executable, "-m", "photonloop.simulator", "--ports", "4", "--bind", str(announced["address"])],
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
    assert done.returncode == 1
    assert done.stderr.startswith("cannot serve at tcp://127.0.0.1:")


def test_an_ipc_address_and_a_chip_file(tmp_path: Path) -> None:
    path = tmp_path / "mine.toml"
    path.write_text('preset = "soi"\nports = 4\nstages = 1\n')
    with simulator("--chip", str(path), "--bind", f"ipc://{tmp_path}/chip") as (_, announced):
        assert announced["chip"] == "mine"
        with connect(str(announced["address"])) as client:
            assert client.describe().channels == 16


def test_memory_stays_bounded() -> None:
    with simulator() as (process, announced), connect(str(announced["address"])) as client:
        client.acquire()
        client.load_inputs("all", np.random.default_rng(0).random((1500, 64)))
        for _ in range(20):
            client.evaluate(np.full((16, 4096), 3.0), LoadedRows("all", np.arange(1500)), "mesh1")
        resident = psutil.Process(process.pid).memory_info().rss
    assert resident < 400e6


def is_running(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def test_the_process_ends_if_its_parent_died_during_start() -> None:
    parent = textwrap.dedent(
        """
        import os, subprocess, sys
        command = [sys.executable, "-m", "photonloop.simulator", "--chip", "ideal", "--ports", "4", "--parent", str(os.getpid())]
        child = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        print(child.pid)
        """
    )
    ended = subprocess.run([sys.executable, "-c", parent], capture_output=True, text=True, check=True, timeout=30)
    orphan = int(ended.stdout)
    until_s = time.monotonic() + 60
    while is_running(orphan):
        assert time.monotonic() < until_s, "the simulator outlived its parent"
        time.sleep(0.05)
