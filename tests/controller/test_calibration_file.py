"""`calibration.json`: what is written is read again, and files that cannot be used are refused with one sentence."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from support.chips import chip_of
from support.twins import drawn

from photonloop.controller.calibration.calibrated_device import Calibration, HeldOut, StageCalibration, Trouble
from photonloop.controller.calibration.calibration_file import check_same_device, load_calibration, save_calibration
from photonloop.controller.calibration.calibration_options import CalibrationOptions
from photonloop.controller.calibration.twin_layout import twin_layout
from photonloop.controller.calibration.twin_misfit import ReadingNoise
from photonloop.controller.calibration.twin_parameters import KINDS, nominal_prior, pack
from photonloop.controller.learning.variables import to_drive
from photonloop.protocols.config import ConfigError
from photonloop.protocols.device import DeviceDescription

Change = Callable[[dict[str, Any]], object]


def some_calibration(draws: int = 3) -> Calibration:
    """A calibration of a chip with parameters from the prior."""
    description, rng = chip_of("soi", {}, ports=4, stages=2, seed=1).describe(), np.random.default_rng(1)
    stage = description.stages[0]
    layout = twin_layout(description, stage)
    prior = nominal_prior(layout, 1e-3)
    parameters = drawn(layout, prior, rng)
    found = StageCalibration(
        stage=stage,
        method="columns",
        layout=layout,
        parameters=parameters,
        sigma=prior.sigma,
        draws=(1e-3 * rng.standard_normal((draws, pack(parameters).size))).astype(np.float32).astype(np.float64),
        noise=ReadingNoise(1e-8, 2e-3),
        held_out=HeldOut(np.array([1.0, np.nan]), np.array([0.01, 0.02]), np.array([0.1, 0.2])),
        settings=12,
        steady_inputs=True,
        troubles=(Trouble("dead heater", stage.name, (3,), (), "channel 3 changes no reading: it is left out"),),
    )
    return Calibration(description, "2026-11-25T16:00:00+00:00", 1.5, {"laser": "on"}, (found,), CalibrationOptions(seed=4))


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "calibration.json"
    save_calibration(path, some_calibration())
    return path


def changed(file: Path, change: Change) -> Path:
    tables = json.loads(file.read_text())
    change(tables)
    file.write_text(json.dumps(tables))
    return file


@pytest.mark.parametrize("draws", [0, 3])
def test_a_calibration_is_read_as_it_was_written(tmp_path: Path, draws: int) -> None:
    before = some_calibration(draws)
    save_calibration(tmp_path / "c.json", before)
    json.loads((tmp_path / "c.json").read_text(), parse_constant=lambda name: pytest.fail(f"{name} is not JSON"))
    now = load_calibration(tmp_path / "c.json")
    assert (now.device, now.made, now.clock_s, now.conditions, now.options) == (
        before.device,
        before.made,
        before.clock_s,
        before.conditions,
        before.options,
    )
    was, found = before.stages[0], now.stage("mesh0")
    assert (found.stage, found.method, found.noise, found.settings, found.steady_inputs, found.troubles) == (
        was.stage,
        was.method,
        was.noise,
        was.settings,
        was.steady_inputs,
        was.troubles,
    )
    for kind in KINDS:
        np.testing.assert_array_equal(getattr(found.parameters, kind), getattr(was.parameters, kind))
        np.testing.assert_array_equal(getattr(found.sigma, kind), getattr(was.sigma, kind))
    np.testing.assert_array_equal(found.draws, was.draws)
    for name in ("residual", "misfit", "tvd"):
        np.testing.assert_array_equal(getattr(found.held_out, name), getattr(was.held_out, name))
    drive_v = to_drive(np.full((2, 16), 2.0), now.device.drive)
    np.testing.assert_array_equal(now.phases_of_volts(drive_v), was.phases(before.nominal(drive_v)))
    matrix, sigma = now.matrix_of_volts(drive_v)
    assert matrix.shape == sigma.shape == (2, 4, 4)
    assert np.isfinite(sigma).all() == (draws > 0)


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (lambda t: t.update(calibration_format=99), "has format 99, but this version of photonloop reads format 1"),
        (lambda t: t.pop("calibration_format"), "is no calibration: it has no key 'calibration_format'"),
        (lambda t: t.pop("clock_s"), "key 'clock_s' is missing"),
        (lambda t: t.update(clock=1), "unknown key 'clock'; did you mean 'clock_s'?"),
        (lambda t: t["stages"][0].update(method="guess"), "stages.0.method is 'guess', but"),
        (lambda t: t["stages"][0].update(name="mesh7"), "stage mesh7 is not a stage of its device"),
        (lambda t: t["stages"][0]["parameters"]["kappa"].pop(), r"parameters.kappa has shape \(15,\), but the stage has \(16,\)"),
        (lambda t: t["stages"][0]["sigma"]["coupler_error_rad"][0].pop(), "coupler_error_rad has lists of different lengths"),
        (lambda t: t["stages"][0]["sigma"].pop("kappa"), "sigma lacks kappa"),
        (lambda t: t["stages"][0]["held_out"]["tvd"].pop(), "held_out has lists of different lengths"),
        (lambda t: t["stages"][0]["draws"].update(shape=[9, 3]), r"draws has \d+ numbers for shape \(9, 3\)"),
        (lambda t: t["stages"][0]["draws"].update(base64="!"), "draws is not base64"),
        (lambda t: t["device"]["stages"][0].update(topology="weight_bank"), "needs a mesh"),
    ],
)
def test_a_file_that_cannot_be_used_is_refused(file: Path, change: Change, sentence: str) -> None:
    with pytest.raises(ConfigError, match=sentence) as caught:
        load_calibration(changed(file, change))
    assert str(file) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_missing_and_damaged_files(file: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="none.json does not exist: photonloop calibrate DEVICE -o "):
        load_calibration(tmp_path / "none.json")
    file.write_bytes(file.read_bytes()[:-200])
    with pytest.raises(ConfigError, match="is not JSON .*: it is damaged") as caught:
        load_calibration(file)
    assert "\n" not in str(caught.value)
    file.write_text("[1]")
    with pytest.raises(ConfigError, match="is no calibration"):
        load_calibration(file)
    with pytest.raises(ConfigError, match="cannot be read"):
        load_calibration(tmp_path)


def described(**changes: Any) -> DeviceDescription:
    whole = some_calibration().device.model_dump()
    for name, value in changes.items():
        part, _, field = name.rpartition("__")
        (whole[part] if part else whole)[field] = value
    return DeviceDescription.model_validate(whole)


def test_another_device_is_refused_unless_allowed() -> None:
    calibration = some_calibration()
    for same in (described(), described(limits__total_power_w=0.3, drive__settle_s=1.0, clock="real", light_switch=False)):
        assert check_same_device(calibration, same) is None
    other = described(serials={"chip": "soi", "seed": "2"})
    with pytest.raises(ConfigError, match="another device: serials.seed is 2 and was .*add --other-device"):
        check_same_device(calibration, other)
    found = check_same_device(calibration, other, allow_other=True)
    assert found is not None and found.startswith("serials.seed is 2")
    with pytest.raises(ConfigError, match="cannot be used with this device: input_ports is 5 and was 4"):
        check_same_device(calibration, described(input_ports=5), allow_other=True)


def test_an_older_file_stays_if_the_new_one_cannot_be_written(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = file.read_bytes()
    monkeypatch.setattr("os.fsync", lambda _: (_ for _ in ()).throw(OSError(28, "No space left on device")))
    with pytest.raises(OSError, match="No space"):
        save_calibration(file, dataclasses.replace(some_calibration(), clock_s=9.0))
    assert file.read_bytes() == before
