"""Check and refresh of calibrations, against the truth of virtual chips that drift."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from support.calibrated_chips import calibrated, soi_chip, true_fidelity

from photonloop.controller.calibration.calibrated_device import Calibration
from photonloop.controller.calibration.check import check_calibration
from photonloop.controller.calibration.refresh import refresh_stage
from photonloop.controller.calibration.setting_reader import SettingReader

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


def test_too_few_settings_for_a_refresh_are_refused() -> None:
    chip, rng = soi_chip(4, seed=1), np.random.default_rng(1)
    found = dataclasses.replace(calibrated(chip, rng, settings=20), settings=30)
    with pytest.raises(ValueError, match="calibrate again"):
        refresh_stage(SettingReader(chip, "mesh0"), found, rng)
