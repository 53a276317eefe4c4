"""`python -m photonloop.drivers`: the bench is made safe whichever process dies."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
from support import filed_instruments as filed
from support.fake_device import wait_until

from photonloop.protocols.client.device_client import connect

pytestmark = pytest.mark.slow

HOT = np.full(16, 2.0)


@dataclass(frozen=True)
class Served:
    process: subprocess.Popen[str]
    announcement: dict[str, Any]
    folder: Path

    @property
    def address(self) -> str:
        return str(self.announcement["address"])

    def server(self) -> psutil.Process:
        """The process that holds the instruments."""
        return psutil.Process(self.process.pid).children()[0]

    def is_safe(self) -> bool:
        return not filed.volts(self.folder).any() and not filed.lit(self.folder)


@contextmanager
def served(folder: Path, *options: str, **settings: str) -> Iterator[Served]:
    environment = filed.install(folder)
    process = subprocess.Popen(
        [sys.executable, "-m", "photonloop.drivers", str(filed.station(folder, **settings)), *options],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=environment,
    )
    assert process.stdout is not None
    try:
        line = process.stdout.readline()
        yield Served(process, json.loads(line or "{}"), folder)
    finally:
        if process.poll() is None:
            process.terminate()
        process.communicate(timeout=30)


def drive(address: str, folder: Path) -> None:
    client = connect(address)
    client.acquire(60.0)
    client.apply(HOT)
    client.evaluate(np.full((1, 16), 3.0), np.ones((1, 4)), "mesh1")
    np.testing.assert_array_equal(filed.volts(folder), HOT)
    assert filed.lit(folder)
    # The lease is not released, as if the controller had died.
    client._lease.stop_renewing()
    client._disconnect()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_serves_and_ends_safe_on_a_signal(number: signal.Signals, tmp_path: Path) -> None:
    with served(tmp_path) as bench:
        assert set(bench.announcement) == {"address", "pid", "station", "epoch", "supervisor"}
        assert bench.announcement["supervisor"] == bench.process.pid
        assert bench.announcement["station"] == "filed"
        drive(bench.address, tmp_path)
        server = bench.server()
        bench.process.send_signal(number)
        assert bench.process.wait(20) == 0
        assert bench.is_safe()
        assert not server.is_running()
        assert bench.process.stderr is not None
        assert bench.process.stderr.read() == ""


def test_bench_of_a_killed_server_is_made_safe_and_served_again_at_the_same_address(tmp_path: Path) -> None:
    with served(tmp_path) as bench:
        drive(bench.address, tmp_path)
        bench.server().kill()
        wait_until(bench.is_safe, 60)

        def serves_again() -> bool:
            try:
                with connect(bench.address) as client:
                    return client.status().safe
            except Exception:  # noqa: BLE001 - not served yet
                return False

        wait_until(serves_again, 60)
        drive(bench.address, tmp_path)
    assert bench.is_safe()


@pytest.mark.parametrize("options", [[], ["--unsupervised"]])
def test_output_of_drivers_is_not_taken_for_the_announcement(options: list[str], tmp_path: Path) -> None:
    with served(tmp_path, *options, daq="{ loud = true }") as bench:
        assert bench.announcement["station"] == "filed"
        drive(bench.address, tmp_path)
        bench.process.terminate()
        assert bench.process.wait(20) == 0
        assert bench.is_safe()
        assert bench.process.stdout is not None
        assert bench.process.stderr is not None
        assert bench.process.stdout.read() == ""
        assert sorted(bench.process.stderr.read().splitlines()) == ["libusb: no permission", '{"level": "warning"}']


def test_server_makes_safe_and_ends_if_the_supervisor_is_killed(tmp_path: Path) -> None:
    with served(tmp_path) as bench:
        drive(bench.address, tmp_path)
        server = bench.server()
        bench.process.kill()
        server.wait(20)
        assert bench.is_safe()


def test_all_processes_end_safe_if_the_parent_is_killed(tmp_path: Path) -> None:
    parent = textwrap.dedent(
        """
        import subprocess, sys, time
        child = subprocess.Popen([sys.executable, "-m", "photonloop.drivers", sys.argv[1]], stdout=subprocess.PIPE, text=True)
        print(child.pid, child.stdout.readline(), flush=True)
        time.sleep(60)
        """
    )
    command = [sys.executable, "-c", parent, str(filed.station(tmp_path))]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=filed.install(tmp_path))
    assert process.stdout is not None
    pid, line = process.stdout.readline().split(" ", 1)
    supervisor = psutil.Process(int(pid))
    drive(json.loads(line)["address"], tmp_path)
    server = supervisor.children()[0]
    process.kill()
    process.communicate()
    for one in (server, supervisor):
        one.wait(20)
    assert not filed.volts(tmp_path).any()
    assert not filed.lit(tmp_path)


SUPERVISOR = """
import sys
from pathlib import Path
from photonloop.drivers.service import supervisor

ending, log = sys.argv[1], sys.argv[2]
supervisor.SILENCE_S = 0.5
supervisor.StopRequest.wait = lambda self, duration_s: None
server = f"print('{{\\"address\\": \\"tcp://x\\"}}', flush=True); open({log!r}, 'a').write('s'); " + ending
safe = f"open({log!r}, 'a').write('m')"
commands = supervisor.Commands(lambda bind: [sys.executable, "-Sc", server], [sys.executable, "-Sc", safe])
most = int(sys.argv[3])
alive = lambda: not Path(log).exists() or Path(log).read_text().count("m") < most
sys.exit(supervisor.supervise(commands, "tcp://y", supervisor.StopRequest(), alive))
"""
"""The supervisor, with servers that die or hang."""


def test_a_server_that_dies_repeatedly_is_not_started_again(tmp_path: Path) -> None:
    log = tmp_path / "log"
    command = [sys.executable, "-c", SUPERVISOR, "import os; os.kill(os.getpid(), 9)", str(log), "100"]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert ended.returncode == 1
    assert log.read_text() == "sm" * 5
    assert ended.stdout.count("address") == 1
    assert "was killed by signal 9: making the bench safe" in ended.stderr
    assert "died 5 times within 600 s: it is not started again" in ended.stderr


def test_lines_without_an_address_are_ignored(tmp_path: Path) -> None:
    log = tmp_path / "log"
    loud = SUPERVISOR.replace('server = f"', """server = f"print('no json'); print(3); print([]); print('{{}}'); """)
    command = [sys.executable, "-c", loud, "import os; os.kill(os.getpid(), 9)", str(log), "1"]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert ended.returncode == 1
    assert [json.loads(line)["address"] for line in ended.stdout.splitlines()] == ["tcp://x"]
    assert log.read_text() == "sm"


def test_a_server_that_hangs_is_killed(tmp_path: Path) -> None:
    log = tmp_path / "log"
    command = [sys.executable, "-c", SUPERVISOR, "import time; time.sleep(60)", str(log), "1"]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert ended.returncode == 1
    assert log.read_text() == "sm"
    assert "no heartbeat from the server of the bench for 0.5 s: it is killed" in ended.stderr


@pytest.mark.parametrize(
    ("options", "settings", "code", "words"),
    [
        ([], {"daq": "{ dead = true }"}, 1, "does not answer"),
        ([], {"daq": "{ deaf = true }"}, 2, "unknown key 'deaf'; did you mean 'dead'?"),
        (["--bind", "tcp://0.0.0.0:*"], {}, 2, "can be reached from other machines"),
    ],
)
def test_a_server_that_cannot_start_prints_one_sentence(
    options: list[str], settings: dict[str, str], code: int, words: str, tmp_path: Path
) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "photonloop.drivers", str(filed.station(tmp_path, **settings)), *options],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        env=filed.install(tmp_path),
    )
    assert done.returncode == code
    assert words in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1
    assert done.stdout == ""
    assert os.listdir(tmp_path / "photonloop-instruments")  # noqa: PTH208 - instruments were claimed
