"""Calibrations of stages with defects: the defects are named, left out, and the rest is calibrated."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from support.calibrated_chips import calibrated_by, soi_chip

from photonloop.controller.calibration.calibrated_device import Calibration
from photonloop.controller.calibration.calibration_file import load_calibration, save_calibration
from photonloop.controller.calibration.evidence import CalibrationEvidence
from photonloop.controller.calibration.setting_reader import SettingReader
from photonloop.controller.calibration.sound_calibration import calibrate_sound_parts
from photonloop.controller.calibration.stage_methods import MeasuredStage
from photonloop.simulator.engine.chip import Chip


def from_near_the_truth(chip: Chip, rng: np.random.Generator) -> Callable[[SettingReader], MeasuredStage]:
    """A method that needs no scans."""

    def calibrate(reader: SettingReader) -> MeasuredStage:
        found, nothing = calibrated_by(reader, chip, rng), np.empty(0)
        return MeasuredStage(found, CalibrationEvidence(found.stage.name, nothing, nothing, nothing, np.empty(0, np.bool_)))

    return calibrate


@pytest.mark.parametrize(
    ("fault", "kinds"),
    [
        ({"kind": "open_detector", "stage": 0, "port": 2}, ["open detector"]),
        ({"kind": "swapped_heaters", "channel": 1, "other": 8}, ["swapped heaters"]),
    ],
)
def test_the_rest_is_calibrated(fault: dict[str, Any], kinds: list[str], tmp_path: Any) -> None:
    chip, rng = soi_chip(4, seed=1, faults=[fault]), np.random.default_rng(1)
    messages: list[str] = []
    found = calibrate_sound_parts(chip, "mesh0", from_near_the_truth(chip, rng), rng, messages.append).calibration
    assert [trouble.kind for trouble in found.troubles] == kinds
    assert np.median(found.held_out.misfit) < 0.01
    whole = Calibration(chip.describe(), "", 0.0, {}, (found,))
    save_calibration(tmp_path / "found.json", whole)
    again = load_calibration(tmp_path / "found.json").stages[0]
    np.testing.assert_allclose(again.twin.layout.own, found.layout.own)
    assert again.troubles == found.troubles
