"""Files in the folder where the user works cannot take the place of this package or of what it needs."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow

PHOTONLOOP = Path(sys.executable).with_name("photonloop")
HOSTILE = "raise SystemExit('a file of the working folder was imported: ' + __file__)\n"

EXPERIMENT = """
name = "small"

[data]
source = "iris"

[training]
epochs = 1

[network]
layers = 1
"""


@pytest.fixture
def hostile(tmp_path: Path) -> Path:
    """A working folder with modules of every name that could be mistaken."""
    for name in ("simulator", "controller", "numpy", "photonloop", "json", "random"):
        (tmp_path / f"{name}.py").write_text(HOSTILE)
    for name in ("drivers", "protocols"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "__init__.py").write_text(HOSTILE)
        (tmp_path / name / "__main__.py").write_text(HOSTILE)
    return tmp_path


def photonloop(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([str(PHOTONLOOP), *arguments], cwd=folder, capture_output=True, text=True, timeout=110, check=False)


def test_describe_starts_the_simulator_of_the_package(hostile: Path) -> None:
    done = photonloop(hostile, "describe", "sim:ideal", "--ports", "4", "--json")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["description"]["kind"] == "simulator"


def test_train_starts_the_simulator_of_the_package(hostile: Path) -> None:
    (hostile / "experiment.toml").write_text(EXPERIMENT)
    done = photonloop(hostile, "train", "experiment.toml", "--device", "sim:ideal", "--json")
    assert done.returncode == 0, done.stderr
    assert 0 <= json.loads(done.stdout)["test_accuracy"] <= 1


def test_a_bench_and_its_supervisor_start_from_the_package(hostile: Path) -> None:
    with subprocess.Popen(
        [str(PHOTONLOOP), "virtual-bench", "--chip", "ideal", "--ports", "2", "--json"],
        cwd=hostile,
        stdout=subprocess.PIPE,
        text=True,
    ) as bench:
        assert bench.stdout is not None
        station = json.loads(bench.stdout.readline())["station"]
        done = photonloop(hostile, "describe", f"lab:{station}", "--json")
        bench.terminate()
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["description"]["kind"] == "bench"


def test_a_session_imports_no_folder_by_its_bare_name(tmp_path: Path) -> None:
    (tmp_path / "experiment.toml").write_text(EXPERIMENT)
    script = """
import sys
from photonloop.controller.cli.main import main
code = main(["train", "experiment.toml", "--device", "sim:ideal", "--json"])
bare = {"controller", "drivers", "protocols", "simulator"} & set(sys.modules)
assert not bare, bare
peeked = [name for name in sys.modules if name.startswith("photonloop.simulator")]
assert not peeked, peeked
sys.exit(code)
"""
    done = subprocess.run([sys.executable, "-c", script], cwd=tmp_path, capture_output=True, text=True, timeout=110, check=False)
    assert done.returncode == 0, done.stderr
