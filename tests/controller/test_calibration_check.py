"""Check and refresh of calibrations, against the truth of virtual chips that drift."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from support.calibrated_chips import calibrated, soi_chip, true_fidelity

from photonloop.controller.calibration.calibrated_device import Calibration, StageCalibration
from photonloop.controller.calibration.calibration_file import save_calibration
from photonloop.controller.calibration.check import check_calibration
from photonloop.controller.calibration.fault_hypotheses import explain_misfit
from photonloop.controller.calibration.refresh import refresh_stage
from photonloop.controller.calibration.setting_reader import SettingReader
from photonloop.controller.cli import calibration_check
from photonloop.controller.cli.main import main
from photonloop.controller.learning.variables import start_variables
from photonloop.simulator.engine.chip import Chip

DAY_S = 86_400.0


def test_a_calibration_is_fresh_then_drifted_and_fresh_again_after_a_refresh() -> None:
    """A day of the drift of `soi`: 0.02 rad per heater."""
    chip, rng = soi_chip(4, seed=0), np.random.default_rng(0)
    found = dataclasses.replace(calibrated(chip, rng), settings=120)
    whole = Calibration(chip.describe(), "", 0.0, {}, (found,))
    fresh, fresh_fidelity = check_calibration(chip, whole, rng), true_fidelity(chip, found)
    chip.wait(DAY_S)
    drifted, drifted_fidelity = check_calibration(chip, whole, rng), true_fidelity(chip, found)
    assert (fresh.verdict, drifted.verdict) == ("fresh", "drifted")
    check = drifted.stages[0]
    assert check.now.misfit > 2 * check.explained.misfit and 0.005 < check.drift_rad < 0.05
    assert check.moved and abs(check.moved[0].significance) >= abs(check.moved[-1].significance) > 5
    reader = SettingReader(chip, found.stage.name)
    renewed = refresh_stage(reader, found, rng)
    assert reader.settings <= 12
    gap = fresh_fidelity - drifted_fidelity
    assert true_fidelity(chip, renewed) - drifted_fidelity > 0.8 * gap > 0
    again = check_calibration(chip, dataclasses.replace(whole, stages=(renewed,)), rng)
    assert again.verdict == "fresh"


def test_a_fault_after_the_calibration_is_broken_not_drifted() -> None:
    chip, rng = soi_chip(4, seed=1, faults=[{"kind": "dead_heater", "channel": 2, "at_s": 3000.0}]), np.random.default_rng(1)
    whole = Calibration(chip.describe(), "", 0.0, {}, (calibrated(chip, rng),))
    assert check_calibration(chip, whole, rng).verdict == "fresh"
    chip.wait(DAY_S)
    assert check_calibration(chip, whole, rng).verdict == "broken"


@pytest.mark.parametrize(
    ("fault", "named"),
    [
        ({"kind": "dead_heater", "channel": 2}, ("dead heater", (2,), ())),
        ({"kind": "stuck_channel", "channel": 3, "volts": 3.0}, ("stuck channel", (3,), ())),
        ({"kind": "swapped_heaters", "channel": 1, "other": 8}, ("swapped heaters", (1, 8), ())),
        ({"kind": "swapped_inputs", "port": 1, "other": 3}, ("swapped inputs", (), (1, 3))),
        ({"kind": "open_detector", "stage": 0, "port": 2}, ("open detector", (), (2,))),
        ({"kind": "broken_coupler", "stage": 0, "column": 1, "top": 1}, ("broken coupler", (2, 8), (1, 2))),
    ],
)
def test_a_defect_is_named_with_one_lit_input_at_a_time(sound: StageCalibration, fault: dict[str, Any], named: Any) -> None:
    chip, rng = soi_chip(4, seed=3, faults=[fault]), np.random.default_rng(5)
    reader = SettingReader(chip, "mesh0")
    phases = np.array([start_variables(reader.bounds, rng) for _ in range(16)])
    data = reader.read(phases, np.eye(4)).observations()
    [found] = explain_misfit(sound, data, 2 * float(np.median(sound.held_out.misfit)))
    assert (found.kind, found.channels, found.ports) == named


@pytest.fixture(scope="module")
def sound() -> StageCalibration:
    return calibrated(soi_chip(4, seed=3), np.random.default_rng(0))


def test_too_few_settings_for_a_refresh_are_refused() -> None:
    chip, rng = soi_chip(4, seed=1), np.random.default_rng(1)
    found = dataclasses.replace(calibrated(chip, rng, settings=20), settings=30)
    with pytest.raises(ValueError, match="calibrate again"):
        refresh_stage(SettingReader(chip, "mesh0"), found, rng)


def test_the_command_checks_and_refreshes_a_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A heater that dies a day after the calibration: first drifted, then broken, with the heater named."""
    faults = [{"kind": "dead_heater", "channel": 2, "at_s": 1.5 * DAY_S}]
    chip, rng = soi_chip(4, seed=1, faults=faults), np.random.default_rng(1)
    found = dataclasses.replace(calibrated(chip, rng), settings=120)
    old, new = tmp_path / "old.json", tmp_path / "new.json"
    save_calibration(old, Calibration(chip.describe(), "2026-01-01T00:00:00Z", 0.0, {}, (found,)))
    monkeypatch.setattr(calibration_check, "open_device", lambda *_, **__: _Kept(chip))
    check = ["calibrate", "sim:soi", "--check"]
    assert main([*check, str(old)]) == 0
    assert "old.json: fresh" in capsys.readouterr().out
    chip.wait(DAY_S)
    assert main([*check, str(old), "--json"]) == 3
    answer = json.loads(capsys.readouterr().out)
    assert answer["verdict"] == "drifted" and answer["stages"][0]["moved"][0]["change_rad"] != 0
    assert main(["calibrate", "sim:soi", "--refresh", str(old)]) == 2
    assert main(["calibrate", "sim:soi", "--refresh", str(old), "-o", str(new)]) == 0
    assert "new.json: 12 settings" in capsys.readouterr().out
    assert main([*check, str(new)]) == 0
    chip.wait(DAY_S)
    assert main([*check, str(new)]) == 4
    assert "dead heater, channel 2" in capsys.readouterr().out


class _Kept:
    """An opened device that stays open, so that its time goes on."""

    def __init__(self, device: Chip) -> None:
        self.device = device

    def close(self) -> None:
        self.device.apply(np.zeros(self.device.describe().channels))
