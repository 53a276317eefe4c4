"""The `photonloop` command in processes of its own: results, errors in one sentence, killed and stopped sessions."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import psutil
import pytest

from photonloop.protocols.client.device_client import connect

pytestmark = pytest.mark.slow

SMALL = """
name = "small"
seed = 3
device = "sim:soi"
[data]
source = "iris"
[network]
ports = 8
layers = 2
[optimizer]
rate = 0.03
[training]
epochs = 25
batch = 60
evaluate_every = 5
"""


def photonloop(*args: object, cwd: Path, timeout_s: float = 110.0) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "photonloop", *map(str, args)]
    return subprocess.run(command, cwd=cwd, capture_output=True, text=True, timeout=timeout_s, check=False)


def start(*args: object, cwd: Path, env: dict[str, str] | None = None) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "photonloop", *map(str, args)]
    return subprocess.Popen(command, cwd=cwd, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=env)


def one_sentence(ended: subprocess.CompletedProcess[str], *parts: str) -> None:
    """Assert that the command failed with one line on standard error, which has `parts`, and printed nothing else."""
    assert ended.returncode in {1, 2}, ended.stderr
    assert not ended.stdout
    (line,) = ended.stderr.splitlines()
    command = ended.args[3]
    assert line.startswith(f"photonloop {command}: "), line
    for part in parts:
        assert part in line, line
    # No part of a Python traceback.
    assert not re.search(r"Traceback|Error\b|Exception|<class|\\n", line), line
    assert len(line) < 400, line


@pytest.fixture
def experiment(tmp_path: Path) -> Path:
    path = tmp_path / "small.toml"
    path.write_text(SMALL, encoding="utf-8")
    return path


@pytest.fixture
def served(tmp_path: Path) -> Iterator[str]:
    """Address of a served `ideal` chip."""
    server = start(
        "serve", "sim:ideal", "--ports", 8, "--stages", 2, "--seed", 3, "--bind", "tcp://127.0.0.1:*", "--json", cwd=tmp_path
    )
    assert server.stdout is not None
    yield json.loads(server.stdout.readline())["address"]
    server.terminate()
    assert server.wait(10) == 0


def free_address() -> str:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return f"tcp://127.0.0.1:{probe.getsockname()[1]}"


def test_train_then_evaluate_then_report(experiment: Path, tmp_path: Path) -> None:
    ended = photonloop("train", experiment, "--json", cwd=tmp_path)
    assert ended.returncode == 0, ended.stderr
    answer = json.loads(ended.stdout)  # standard output has one JSON object and nothing else
    assert {"run", "device", "test_accuracy", "layers", "evaluations", "wall_s"} <= answer.keys()
    assert [layer["name"] for layer in answer["layers"]] == ["layer 1", "layer 2"]
    run = tmp_path / answer["run"]
    for name in ("experiment.toml", "device.json", "metrics.jsonl", "checkpoint.npz", "log.txt", "report.html"):
        assert (run / name).stat().st_size > 0
    again = photonloop("evaluate", run, "--json", cwd=tmp_path)
    assert again.returncode == 0, again.stderr
    assert json.loads(again.stdout)["test_accuracy"] == pytest.approx(answer["test_accuracy"], abs=0.07)
    (run / "report.html").unlink()
    assert photonloop("report", run, cwd=tmp_path).returncode == 0
    assert (run / "report.html").exists()


def test_describe_prints_stages_and_limits(tmp_path: Path) -> None:
    ended = photonloop("describe", "sim:soi", "--ports", 6, "--stages", 3, "--json", cwd=tmp_path)
    assert ended.returncode == 0, ended.stderr
    description = json.loads(ended.stdout)["description"]
    assert [stage["ports"] for stage in description["stages"]] == [6, 6, 6]
    assert description["limits"]["max_batch"] >= 128
    table = photonloop("describe", "sim:ideal", "--ports", 4, cwd=tmp_path)
    assert table.returncode == 0
    assert "limit per channel" in table.stdout


@pytest.mark.parametrize("victims", ["controller", "simulator", "both"])
def test_a_killed_and_resumed_run_is_bit_for_bit_an_unbroken_run(experiment: Path, tmp_path: Path, victims: str) -> None:
    options = ("--device", "sim:ideal", "--set", "training.epochs=200", "--set", "training.checkpoint_s=0.1")
    ended = photonloop("train", experiment, *options, "--runs", "whole", cwd=tmp_path)
    assert ended.returncode == 0, ended.stderr
    running = start("train", experiment, *options, "--runs", "broken", cwd=tmp_path)
    metrics = tmp_path / "broken" / "small" / "metrics.jsonl"
    # The result must not depend on the moment, so each run of this test takes a random one; a failure reports it.
    moment = int(np.random.default_rng().integers(1, 300))
    wait_for(lambda: metrics.exists() and metrics.read_bytes().count(b'"epoch"') >= 2 * moment, running)
    controller = psutil.Process(running.pid)
    simulators = controller.children()
    assert simulators
    if victims in {"simulator", "both"}:
        simulators[0].kill()
    if victims in {"controller", "both"}:
        controller.kill()
        running.wait()
        _, alive = psutil.wait_procs(simulators, timeout=10)
        assert not alive, "the simulator outlived its parent"
        assert not json.loads(str(arrays(tmp_path / "broken" / "small")["meta"]))["finished"], "killed only after its end"
        resumed = photonloop("train", "--resume", "broken/small", cwd=tmp_path)
        assert resumed.returncode == 0, resumed.stderr
    else:
        _, printed = running.communicate(timeout=60)
        assert running.returncode == 0, printed
        assert "device lost" in printed
        assert "device back" in printed
    for name, data in arrays(tmp_path / "whole" / "small").items():
        np.testing.assert_array_equal(data, arrays(tmp_path / "broken" / "small")[name], err_msg=f"killed at epoch {moment}")


def arrays(run: Path) -> dict[str, np.ndarray]:
    with np.load(run / "checkpoint.npz") as archive:
        return {name: archive[name] for name in archive.files}


def wait_for(condition, process: subprocess.Popen[str], timeout_s: float = 60.0) -> None:
    end = time.monotonic() + timeout_s
    while not condition():
        assert process.poll() is None, process.communicate()[1]
        assert time.monotonic() < end
        time.sleep(0.005)


def test_ctrl_c_leaves_a_resumable_run(experiment: Path, tmp_path: Path) -> None:
    running = start("train", experiment, "--set", "training.epochs=100000", cwd=tmp_path)
    journal = tmp_path / "runs" / "small" / "journal.bin"
    wait_for(lambda: journal.exists() and journal.stat().st_size > 0, running)
    running.send_signal(signal.SIGINT)
    _, printed = running.communicate(timeout=20)
    assert running.returncode == 1
    assert "--resume" in printed
    assert "Traceback" not in printed
    assert (tmp_path / "runs" / "small" / "checkpoint.npz").exists()


def test_training_on_a_served_chip_equals_training_on_an_embedded_one(experiment: Path, tmp_path: Path, served: str) -> None:
    for runs, device in (("own", "sim:ideal"), ("served", served)):
        ended = photonloop("train", experiment, "--device", device, "--runs", runs, cwd=tmp_path)
        assert ended.returncode == 0, ended.stderr
    own, there = arrays(tmp_path / "own" / "small"), arrays(tmp_path / "served" / "small")
    for name in own:
        np.testing.assert_array_equal(own[name], there[name])


def test_a_second_controller_is_refused_and_the_holder_named(experiment: Path, tmp_path: Path, served: str) -> None:
    first = start("train", experiment, "--device", served, "--set", "training.epochs=100000", cwd=tmp_path)
    journal = tmp_path / "runs" / "small" / "journal.bin"
    wait_for(lambda: journal.exists() and journal.stat().st_size > 0, first)
    one_sentence(photonloop("train", experiment, "--device", served, cwd=tmp_path), "leased to 'small'")
    described = photonloop("describe", served, "--json", cwd=tmp_path)  # needs no lease
    assert json.loads(described.stdout)["status"]["leased_to"] == "small"
    first.send_signal(signal.SIGINT)
    first.communicate(timeout=20)


def test_a_killed_run_on_a_server_resumes_and_clears_its_own_fault(experiment: Path, tmp_path: Path, served: str) -> None:
    running = start("train", experiment, "--device", served, "--set", "training.epochs=400", cwd=tmp_path)
    journal = tmp_path / "runs" / "small" / "journal.bin"
    wait_for(lambda: journal.exists() and journal.stat().st_size > 0, running)
    running.kill()
    running.wait()
    end = time.monotonic() + 20
    while not (faults := json.loads(photonloop("describe", served, "--json", cwd=tmp_path).stdout)["status"]["faults"]):
        assert time.monotonic() < end
    assert faults[0]["name"] == "lease_lost"
    other = photonloop("train", experiment, "--device", served, "--runs", "other", cwd=tmp_path)
    one_sentence(other, "lease_lost", "--clear-fault")
    resumed = photonloop("train", "--resume", "runs/small", cwd=tmp_path)
    assert resumed.returncode == 0, resumed.stderr


def test_wrong_input_is_refused_in_one_sentence(experiment: Path, tmp_path: Path) -> None:
    one_sentence(photonloop("train", experiment, "--device", "sim:sio", cwd=tmp_path), "sio")
    one_sentence(photonloop("describe", "sim:sio", cwd=tmp_path), "sio")
    one_sentence(photonloop("train", experiment, "--set", "training.epoch=3", cwd=tmp_path), "did you mean 'epochs'")
    one_sentence(photonloop("train", experiment, "--device", "simm", cwd=tmp_path), "'simm'", "tcp://HOST:PORT")
    one_sentence(photonloop("train", cwd=tmp_path), "EXPERIMENT.toml")
    one_sentence(photonloop("evaluate", "nowhere", cwd=tmp_path), "nowhere", "not a run folder")
    address = free_address()
    one_sentence(photonloop("train", experiment, "--device", address, cwd=tmp_path), address)
    one_sentence(photonloop("serve", "sim:ideal", "--bind", "tcp://0.0.0.0:5999", cwd=tmp_path), "0.0.0.0", "keys")
    assert not (tmp_path / "runs").exists(), "a refused command left a run folder"


def test_too_many_features_and_unknown_labels_are_refused(experiment: Path, tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    labels = np.arange(20) % 2
    good = {"x_train": rng.random((20, 9)), "y_train": labels, "x_test": rng.random((20, 9)), "y_test": labels}
    np.savez(tmp_path / "wide.npz", **good)
    np.savez(tmp_path / "strange.npz", **{**good, "y_test": labels + 1})
    one_sentence(photonloop("train", experiment, "--set", "data.source=wide.npz", cwd=tmp_path), "9 features", "8 input ports")
    one_sentence(
        photonloop("train", experiment, "--set", "data.source=strange.npz", cwd=tmp_path), "missing from the training set"
    )


def test_a_corrupt_checkpoint_is_reported_and_not_changed(experiment: Path, tmp_path: Path) -> None:
    ended = photonloop("train", experiment, "--set", "training.epochs=2", cwd=tmp_path)
    assert ended.returncode == 0, ended.stderr
    checkpoint = tmp_path / "runs" / "small" / "checkpoint.npz"
    content = checkpoint.read_bytes()[:-200]
    checkpoint.write_bytes(content)
    one_sentence(photonloop("train", "--resume", "runs/small", cwd=tmp_path), "checkpoint.npz", "damaged")
    assert checkpoint.read_bytes() == content


def test_keys_need_an_empty_folder(tmp_path: Path) -> None:
    (tmp_path / "mine").touch()
    before = tmp_path.stat().st_mode
    one_sentence(photonloop("keys", ".", cwd=tmp_path), "not empty", "give a new or an empty folder")
    assert tmp_path.stat().st_mode == before
    assert [path.name for path in tmp_path.iterdir()] == ["mine"]


def test_only_clients_with_keys_can_connect(experiment: Path, tmp_path: Path) -> None:
    assert photonloop("keys", "keys", "--client", "anna", cwd=tmp_path).returncode == 0
    bind = ("--bind", "tcp://127.0.0.1:*", "--server-keys", "keys", "--json")
    server = start("serve", "sim:ideal", "--ports", 8, "--stages", 2, *bind, cwd=tmp_path)
    assert server.stdout is not None
    address = json.loads(server.stdout.readline())["address"]
    try:
        inside = photonloop("describe", address, "--keys", "keys/for-anna", "--json", cwd=tmp_path)
        assert inside.returncode == 0, inside.stderr
        one_sentence(photonloop("describe", address, cwd=tmp_path), address)
        # Changes to the folder count while the server runs.
        assert photonloop("keys", "keys", "--client", "bob", cwd=tmp_path).returncode == 0
        inside = photonloop("describe", address, "--keys", "keys/for-bob", "--json", cwd=tmp_path)
        assert inside.returncode == 0, inside.stderr
        (tmp_path / "keys" / "clients" / "anna.key").unlink()
        one_sentence(photonloop("describe", address, "--keys", "keys/for-anna", cwd=tmp_path), address, "keys/for-anna")
    finally:
        server.terminate()
        server.wait(10)


def test_a_relay_serves_the_device_of_another_server_and_ends_with_it(experiment: Path, tmp_path: Path) -> None:
    behind = start("serve", "sim:ideal", "--ports", 8, "--stages", 2, "--bind", "tcp://127.0.0.1:*", "--json", cwd=tmp_path)
    assert behind.stdout is not None
    relay = start("serve", json.loads(behind.stdout.readline())["address"], "--bind", "tcp://127.0.0.1:*", "--json", cwd=tmp_path)
    assert relay.stdout is not None
    address = json.loads(relay.stdout.readline())["address"]
    trained = photonloop("train", experiment, "--device", address, cwd=tmp_path)
    assert trained.returncode == 0, trained.stderr
    behind.terminate()
    _, printed = relay.communicate(timeout=30)
    assert relay.returncode == 1
    assert "the lease of the device behind this server is lost" in printed
    behind.communicate(timeout=10)


def test_a_relay_answers_while_the_device_behind_it_hangs(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "photonloop.simulator", "--chip", "ideal", "--ports", "4"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as chip:
        assert chip.stdout is not None
        behind = json.loads(chip.stdout.readline())["address"]
        relay = start("serve", behind, "--bind", "tcp://127.0.0.1:*", "--json", cwd=tmp_path)
        assert relay.stdout is not None
        address = json.loads(relay.stdout.readline())["address"]
        try:
            with connect(address) as first, connect(address) as second:
                assert first.status().safe
                chip.send_signal(signal.SIGSTOP)
                waiting = threading.Thread(target=first.status)
                waiting.start()
                with connect(address):  # the relay still greets new clients and describes the device
                    assert not second.status().safe
                waiting.join()
                chip.send_signal(signal.SIGCONT)
                second.safe()
        finally:
            relay.terminate()
            assert relay.wait(20) == 0, "the relay gave up the device behind it"
            chip.send_signal(signal.SIGCONT)
            chip.terminate()


def test_help_names_every_command(tmp_path: Path) -> None:
    ended = photonloop("--help", cwd=tmp_path)
    assert ended.returncode == 0
    for command in ("describe", "serve", "train", "evaluate", "report"):
        assert command in ended.stdout


def test_help_imports_no_large_package(tmp_path: Path) -> None:
    lines = (
        "import sys, photonloop.controller.cli.main as command",
        "try: command.main(['--help'])",
        "except SystemExit: print(*sys.modules, file=sys.stderr)",
    )
    python = [sys.executable, "-c", "\n".join(lines)]
    ended = subprocess.run(python, capture_output=True, text=True, cwd=tmp_path, check=True)
    assert not {"numpy", "zmq", "pydantic", "rich", "sklearn", "matplotlib", "numba"} & set(ended.stderr.split())


def test_a_run_with_changed_data_or_without_its_checkpoint_is_refused(experiment: Path, tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    labels = np.arange(40) % 2
    data = {"x_train": rng.random((40, 4)), "y_train": labels, "x_test": rng.random((40, 4)), "y_test": labels}
    np.savez(tmp_path / "mine.npz", **data)
    options = ("--set", "data.source=mine.npz", "--set", "training.epochs=2")
    assert photonloop("train", experiment, *options, cwd=tmp_path).returncode == 0
    np.savez(tmp_path / "mine.npz", **{**data, "y_train": labels[::-1]})
    for command in (("train", "--resume"), ("evaluate",)):
        one_sentence(photonloop(*command, "runs/small", cwd=tmp_path), "has changed since the run began")
    np.savez(tmp_path / "mine.npz", **data)
    (tmp_path / "runs" / "small" / "checkpoint.npz").unlink()
    one_sentence(photonloop("train", "--resume", "runs/small", cwd=tmp_path), "has lost its checkpoint.npz")


def test_a_session_whose_device_another_client_made_safe_stops_until_the_fault_is_cleared(
    experiment: Path, tmp_path: Path, served: str
) -> None:
    running = start("train", experiment, "--device", served, "--set", "training.epochs=100000", cwd=tmp_path)
    journal = tmp_path / "runs" / "small" / "journal.bin"
    wait_for(lambda: journal.exists() and journal.stat().st_size > 0, running)
    with connect(served) as other:
        other.safe()
        assert other.status().heater_power_w == 0
    _, printed = running.communicate(timeout=30)
    assert running.returncode == 1
    assert "made_safe" in printed
    assert "Traceback" not in printed
    one_sentence(photonloop("train", "--resume", "runs/small", cwd=tmp_path), "made_safe", f"describe {served} --clear-fault")
    assert photonloop("describe", served, "--clear-fault", "made_safe", cwd=tmp_path).returncode == 0
    resumed = start("train", "--resume", "runs/small", cwd=tmp_path)
    before = journal.stat().st_size
    wait_for(lambda: journal.stat().st_size != before, resumed)
    resumed.send_signal(signal.SIGINT)
    assert "--resume" in resumed.communicate(timeout=20)[1]


def slow(folder: Path, module: str) -> dict[str, str]:
    """Return an environment in which the import of `module` creates the file `here` and then takes ten minutes.

    It works by PYTHONPATH, because modules in the working folder are not imported.
    """
    shadow = folder / "shadow"
    shadow.mkdir(exist_ok=True)
    (shadow / "sitecustomize.py").write_text(
        f"""
import sys

class Slow:
    def find_spec(self, name, path=None, target=None):
        if name == {module!r}:
            import pathlib, time
            pathlib.Path("here").touch()
            time.sleep(600)

sys.meta_path.insert(0, Slow())
""",
        encoding="utf-8",
    )
    paths = [str(shadow), *filter(None, [os.environ.get("PYTHONPATH")])]
    return os.environ | {"PYTHONPATH": os.pathsep.join(paths)}


def stops(running: subprocess.Popen[str], number: signal.Signals) -> str:
    """Send a signal, and return the last line that the command prints before it ends.

    The operations that are stopped take minutes, so the timeout shows one that was not stopped.
    """
    running.send_signal(number)
    _, printed = running.communicate(timeout=60)
    assert running.returncode == 1, printed
    assert "Traceback" not in printed
    return printed.splitlines()[-1]


def test_stopped_while_data_is_read_or_a_simulator_starts(experiment: Path, tmp_path: Path) -> None:
    running = start("train", experiment, cwd=tmp_path, env=slow(tmp_path, "sklearn.datasets"))
    wait_for((tmp_path / "here").exists, running)
    assert stops(running, signal.SIGINT) == "photonloop train: stopped on request while the data was read"
    (tmp_path / "here").unlink()
    running = start("train", experiment, cwd=tmp_path, env=slow(tmp_path, "photonloop.simulator.parameters"))
    wait_for((tmp_path / "here").exists, running)
    children = psutil.Process(running.pid).children()
    assert stops(running, signal.SIGTERM) == "photonloop train: stopped on request while the device was starting"
    assert not any(child.is_running() for child in children)
    assert not (tmp_path / "runs").exists(), "no run had begun"


@pytest.fixture
def served_slowly(tmp_path: Path) -> Iterator[str]:
    """Address of a chip in real time that takes 50 ms per sample."""
    (tmp_path / "slow.toml").write_text('preset = "ideal"\nports = 8\nstages = 2\n[clock]\nsample_s = 0.05\n')
    server = start("serve", "sim:slow.toml", "--realtime", "--bind", "tcp://127.0.0.1:*", "--json", cwd=tmp_path)
    assert server.stdout is not None
    yield json.loads(server.stdout.readline())["address"]
    server.terminate()
    assert server.wait(10) == 0


def test_stopped_while_the_step_is_measured(experiment: Path, tmp_path: Path, served_slowly: str) -> None:
    journal = tmp_path / "runs" / "small" / "journal.bin"

    def is_busy() -> bool:
        with connect(served_slowly) as client:
            status = client.status()
            return status.busy and bool(status.leased_to) and journal.exists()

    options = ("--device", served_slowly, "--set", "training.epochs=2")
    running = start("train", experiment, *options, cwd=tmp_path)  # 144 settings of 3 s each to measure the step
    wait_for(is_busy, running)
    assert stops(running, signal.SIGINT) == "photonloop train: stopped on request"
    with connect(served_slowly) as client:
        assert client.status().safe
        assert not client.status().faults
    assert not journal.read_bytes()


def test_a_session_continues_when_its_pipe_or_terminal_is_closed(experiment: Path, tmp_path: Path) -> None:
    """A closed pipe behind both streams, as in `2>&1 | head -1`, and a closed terminal."""
    reading, writing = os.pipe()
    terminal, terminal_end = os.openpty()
    command = [
        sys.executable,
        "-m",
        "photonloop",
        "train",
        str(experiment),
        "--set",
        "training.epochs=100",
        "--runs",
    ]
    piped = subprocess.Popen([*command, "piped"], cwd=tmp_path, stdout=writing, stderr=writing)
    live = subprocess.Popen([*command, "live"], cwd=tmp_path, stdout=terminal_end, stderr=terminal_end)
    os.close(writing)
    os.close(terminal_end)
    for source, process in ((reading, piped), (terminal, live)):
        assert os.read(source, 4)
        os.close(source)
        assert process.poll() is None
    for name, process in (("piped", piped), ("live", live)):
        assert process.wait(60) == 0, name
        folder = tmp_path / name / "small"
        assert "result" in (folder / "metrics.jsonl").read_text(encoding="utf-8")
        assert (folder / "report.html").exists()
        assert "Traceback" not in (folder / "log.txt").read_text(encoding="utf-8")


def test_a_resumed_copy_of_a_run_takes_the_device_over_once(experiment: Path, tmp_path: Path, served: str) -> None:
    first = start("train", experiment, "--device", served, "--set", "training.epochs=100000", cwd=tmp_path)
    journal = tmp_path / "runs" / "small" / "journal.bin"
    wait_for(lambda: journal.exists() and journal.stat().st_size > 0, first)
    shutil.copytree(tmp_path / "runs" / "small", tmp_path / "runs" / "copy")
    copied = (tmp_path / "runs" / "copy" / "journal.bin").stat().st_size
    second = start("train", "--resume", "runs/copy", cwd=tmp_path)
    _, printed = first.communicate(timeout=60)
    assert first.returncode == 1
    assert printed.splitlines()[-1] == (
        "photonloop train: another session ('small') has taken over the device: this session stops after its last update"
    )
    assert "photonloop train --resume runs/small" in printed
    assert printed.count("device lost") == 1
    wait_for(lambda: (tmp_path / "runs" / "copy" / "journal.bin").stat().st_size != copied, second)
    # The sentence names the update if the session stopped between two updates, and not at any other point.
    assert stops(second, signal.SIGINT).startswith("photonloop train: stopped on request")
