"""What a run folder keeps of files and sockets: their names from the root, so that a run goes on from any folder."""

from __future__ import annotations

from pathlib import Path

import pytest

from photonloop.controller.data.datasets import DataSpec
from photonloop.controller.device.compatibility import pinned, with_absolute_paths


@pytest.mark.parametrize(
    ("device", "kept"),
    [
        ("sim:soi", "sim:soi"),
        ("sim:chip.toml", "sim:{here}/chip.toml"),
        ("ipc://chip.sock", "ipc://{here}/chip.sock"),
        ("ipc:///run/chip.sock", "ipc:///run/chip.sock"),
        ("ipc://@abstract", "ipc://@abstract"),
        ("tcp://127.0.0.1:5555", "tcp://127.0.0.1:5555"),
    ],
)
def test_devices(device: str, kept: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert pinned(device) == kept.format(here=tmp_path)


def test_mnist_stays_the_file_that_was_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "mnist.npz").touch()
    monkeypatch.setenv("PHOTONLOOP_DATA", str(tmp_path))
    kept = with_absolute_paths(DataSpec(source="mnist"))
    assert kept.path == str(tmp_path / "mnist.npz")
    monkeypatch.delenv("PHOTONLOOP_DATA")
    assert with_absolute_paths(kept).path == kept.path
    assert with_absolute_paths(DataSpec(source="mnist")).path is None
    assert with_absolute_paths(DataSpec(source="iris")).path is None
