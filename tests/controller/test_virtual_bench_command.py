"""The output of `photonloop virtual-bench`. tests/simulator/emulators/test_processes.py tests that it runs and ends."""

from __future__ import annotations

import argparse
from pathlib import Path

import pytest

from photonloop.controller.cli import virtual_bench_command


@pytest.mark.parametrize("inside", [True, False])
def test_it_prints_addresses_and_commands_to_try(
    inside: bool, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    here = tmp_path / "here"
    here.mkdir()
    monkeypatch.chdir(here)
    station = (here if inside else tmp_path) / "b" / "station.toml"
    announced = {
        "chip": "soi",
        "ports": 8,
        "station": str(station),
        "control": "127.0.0.1:4",
        "instruments": {"qontrol": "ASRL/dev/x::INSTR", "labjack-t7": "TCPIP::127.0.0.1::5::SOCKET"},
    }
    virtual_bench_command._print_announcement(argparse.Namespace(json=False, inputs="modulators"), announced)
    printed = capsys.readouterr().out
    assert "  qontrol     ASRL/dev/x::INSTR\n  labjack-t7  TCPIP::127.0.0.1::5::SOCKET\n  control     127.0.0.1:4" in printed
    seen = "b/station.toml" if inside else str(station)
    assert f"  photonloop check lab:{seen}\n" in printed
