"""`photonloop describe`: what it prints about devices of all kinds."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from typing import Any

import pytest

from photonloop.controller.cli import describe_command
from photonloop.controller.cli.main import main
from photonloop.controller.device.open_device import OpenDevice
from photonloop.protocols.device import STEADY_S, DeviceDescription, DeviceStatus
from photonloop.simulator.engine.chip import Chip
from photonloop.simulator.parameters import load_chip

Print = Callable[..., dict[str, str]]


class Described(Chip):
    """A chip with another description."""

    def __init__(self, changes: dict[str, Any], drives: bool = False) -> None:
        super().__init__(load_chip("soi", ports=4, stages=2), threads=1)
        whole = super().describe().model_dump()
        for name, value in changes.items():
            part, _, field = name.rpartition(".")
            (whole[part] if part else whole)[field] = value
        self._described = DeviceDescription.model_validate(whole)
        self._drives = drives

    def describe(self) -> DeviceDescription:
        return self._described

    def status(self) -> DeviceStatus:
        status = super().status()
        return status.model_copy(update={"safe": False, "light": True}) if self._drives else status


@pytest.fixture
def shown(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Print:
    def show(changes: dict[str, Any] | None = None, **options: Any) -> dict[str, str]:
        monkeypatch.setattr(
            describe_command, "open_device", lambda *_, **__: OpenDevice(Described({} if changes is None else changes, **options))
        )
        monkeypatch.setenv("COLUMNS", "300")
        assert main(["describe", "tcp://lab:5555"]) == 0
        rows = [[cell.strip() for cell in line.split("│")[1:-1]] for line in capsys.readouterr().out.splitlines() if "│" in line]
        return {row[0]: row[1] for row in rows if len(row) == 2}

    return show


def test_the_abilities_of_a_virtual_chip(shown: Print) -> None:
    rows = shown()
    assert rows["inputs"] == "4 ports, amplitude only, all at once"
    assert rows["light"] == "switched by set_light, and off in the safe state"
    assert rows["read-back"] == "measures voltages or currents of the sources"
    assert rows["heater positions"] == "known"
    assert rows["detector bandwidth"] == "100 kHz"
    assert re.fullmatch(r"[\d.]+ nA, [\d.]+ nA", rows["noise without light"])
    assert rows["heater time constant"] == "2.2 µs"
    assert rows["speed"] == "758 evaluations of 128 samples per second"
    assert rows["state"] == "safe, 0 W, light off"
    assert shown(drives=True)["state"] == "driven, 0 W, light on"


def test_what_is_not_known_or_not_possible(shown: Print) -> None:
    unknown = {
        "inputs_at_once": "one",
        "light_switch": False,
        "reads_back": False,
        "phases_steady_s": None,
        "drive.noise_v": None,
        "drive.time_constant_s": None,
        "readout.noise": None,
        "readout.bandwidth_hz": None,
    }
    rows = shown(unknown)
    assert rows["inputs"] == "4 ports, amplitude only, one at a time: enough to calibrate, not to train"
    assert rows["light"] == "cannot be switched"
    assert rows["read-back"] == "none"
    assert rows["input phases"] == "not known whether they drift"
    for name in ("drive noise", "heater time constant", "noise without light", "detector bandwidth"):
        assert rows[name] == "not known"


@pytest.mark.parametrize(("steady_s", "text"), [(STEADY_S, "do not drift"), (0.02, "drift by 0.1 rad in 20 ms")])
def test_the_drift_of_input_phases(shown: Print, steady_s: float, text: str) -> None:
    assert shown({"phases_steady_s": steady_s})["input phases"] == text


def test_unknown_heater_positions(shown: Print) -> None:
    stages = [stage.model_dump() for stage in Described({}).describe().stages]
    assumption = ": a model can only assume crosstalk between neighbours"
    stages[1]["geometry"] = None
    assert shown({"stages": stages})["heater positions"] == "not known for mesh1" + assumption
    stages[0]["geometry"] = None
    assert shown({"stages": stages})["heater positions"] == "not known" + assumption


def test_a_slow_device_shows_the_hours_of_1000_evaluations(shown: Print) -> None:
    rows = shown({"drive.settle_s": 0.2, "readout.sample_s": 0.1})
    assert rows["speed"] == "0.0769 evaluations of 128 samples per second, 3.61 hours per 1000"
    assert rows["new drive"] == "200 ms to settle"
    assert shown({"drive.settle_s": 0.0, "readout.sample_s": 0.0})["speed"] == "not limited by the device"


def test_json_has_the_description(shown: Print, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    device = Described({})
    monkeypatch.setattr(describe_command, "open_device", lambda *_, **__: OpenDevice(device))
    assert main(["describe", "tcp://lab:5555", "--json"]) == 0
    answer = json.loads(capsys.readouterr().out)
    assert DeviceDescription.model_validate_json(json.dumps(answer["description"])) == device.describe()
    assert answer["description"]["stages"][0]["geometry"]["mode_y_m"] == pytest.approx([0.0, 5e-5, 1e-4, 1.5e-4])
    assert answer["status"]["light"] is False
