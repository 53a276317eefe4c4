"""Calibration column by column, of virtual chips that nothing is known about but their description."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from support.chips import chip_of
from support.twins import random_inputs, true_parameters

from photonloop.controller.calibration.column_growth import GrowthOptions
from photonloop.controller.calibration.column_scans import HeaterCurve, scan_curve, scan_thetas
from photonloop.controller.calibration.columns import ColumnCalibration, ColumnOptions, calibrate_columns
from photonloop.controller.calibration.scan_reader import ScanReader
from photonloop.controller.calibration.setting_reader import SettingReader
from photonloop.controller.calibration.twin import predict
from photonloop.controller.calibration.twin_layout import TwinLayout, twin_layout
from photonloop.controller.calibration.twin_misfit import ReadingNoise
from photonloop.controller.calibration.twin_parameters import KINDS, TwinPrior, filled, nominal_prior
from photonloop.controller.learning.variables import to_drive
from photonloop.simulator.engine.chip import Chip
from photonloop.simulator.truth import reference

UNKNOWN_PHASES: dict[str, dict[str, Any]] = {"heater": {"offset_span_rad": 6.283}}
NO_CROSSTALK: dict[str, dict[str, Any]] = {"crosstalk": {"fraction": 0.0}}


def layout_and_reader(chip: Chip, inputs: np.ndarray) -> tuple[TwinLayout, ScanReader]:
    description = chip.describe()
    stage = description.stages[0]
    return twin_layout(description, stage), ScanReader(SettingReader(chip, stage.name), inputs.astype(np.float32))


def offset_errors(found: np.ndarray, true: np.ndarray) -> np.ndarray:
    return np.abs(np.angle(np.exp(1j * (found - true))))


def distance(chip: Chip, found: ColumnCalibration) -> float:
    """Mean total variation distance of the outputs for single lit inputs at random settings, against the true chip."""
    ports, rng = found.twin.layout.ports, np.random.default_rng(99)
    phases = rng.uniform(0.3, 6.5, (6, found.twin.layout.channels))
    modelled = predict(found.twin, phases, np.eye(ports))
    drives = to_drive(phases, chip.describe().drive)
    measured = np.array([reference.settled_currents_a(chip, 0, drive, np.eye(ports)) for drive in drives])
    shares = [readings / readings.sum(axis=2, keepdims=True) for readings in (modelled, measured)]
    return float(0.5 * np.abs(shares[0] - shares[1]).sum(axis=2).mean())


def ideal_prior(layout: TwinLayout) -> TwinPrior:
    """For a chip of which only the phases at 0 V are unknown."""
    nominal = nominal_prior(layout, 1.0)
    mean = filled(layout, kappa=1.0, crosstalk_exponent=1.0, level=1.0, input_gain=1.0, detector_gain=1.0)
    fixed = dict.fromkeys(KINDS, 0.0) | {"offset_rad": nominal.sigma.offset_rad, "level": 0.5}
    return TwinPrior(mean, filled(layout, **fixed))


@pytest.mark.parametrize("ports", [3, 8])
def test_thetas_of_an_ideal_chip_are_exact(ports: int) -> None:
    """Readings are single precision, hence 1e-6 rad and not less. 10 settings per column."""
    chip, rng = chip_of("ideal", UNKNOWN_PHASES, ports=ports, stages=1, seed=ports), np.random.default_rng(1)
    layout, read = layout_and_reader(chip, random_inputs(128, ports, rng))
    found = scan_thetas(layout, read, HeaterCurve(0.0, 0.0), read.inputs, rng)
    true = true_parameters(chip, layout).offset_rad[layout.theta]
    assert offset_errors(found.offset_rad, true).max() < 3e-6
    assert len(read.phases) == 10 * ports


def test_the_curve_of_the_heaters_is_found() -> None:
    """P_π has a spread of 2 % and readings have no noise: every interferometer has its own κ in the fit."""
    chip, rng = chip_of("soi", NO_CROSSTALK, ports=8, stages=1), np.random.default_rng(1)
    own = chip.parameters.heater
    layout, read = layout_and_reader(chip, random_inputs(64, 8, rng))
    found = scan_curve(layout, read, HeaterCurve(0.0, own.self_heating), rng)
    assert found.curvature == pytest.approx(own.curvature, abs=3e-3)
    x = np.linspace(0, 8, 50)
    np.testing.assert_allclose(found.nominal(found.phase(x)), x, atol=1e-12)


def test_an_ideal_chip_is_known_exactly_in_the_end() -> None:
    chip = chip_of("ideal", UNKNOWN_PHASES, ports=8, stages=1, seed=1)
    description = chip.describe()
    layout, full_scale = twin_layout(description, description.stages[0]), description.readout.full_scale[0]
    options = ColumnOptions(random_settings=24, fit_steps=300)
    noise = ReadingNoise(dark=1e-7 * full_scale, relative=1e-6)
    found = calibrate_columns(SettingReader(chip, "mesh0"), noise, np.random.default_rng(1), options, ideal_prior(layout))
    true = true_parameters(chip, layout).offset_rad[layout.theta]
    assert offset_errors(found.fit.parameters.offset_rad[layout.theta], true).max() < 1e-6
    assert found.fit.held_out_misfit.max() < 1e-5
    assert found.settings <= 16 * 8 + 24 + 8
    assert distance(chip, found) < 1e-6


@pytest.mark.slow
@pytest.mark.parametrize("seed", [2])
def test_a_realistic_chip_is_described_by_its_twin(seed: int) -> None:
    """All imperfections of `soi` but crosstalk: noise, converters and drift. The best published distance is 3 %."""
    chip = chip_of("soi", NO_CROSSTALK, quiet=False, ports=8, stages=1, seed=seed)
    full_scale = chip.describe().readout.full_scale[0]
    options = ColumnOptions(random_settings=60, fit_steps=800)
    noise = ReadingNoise(dark=full_scale / 2**16, relative=1e-3)
    found = calibrate_columns(SettingReader(chip, "mesh0"), noise, np.random.default_rng(seed), options)
    assert np.median(found.fit.held_out_misfit) < 0.03
    assert distance(chip, found) < 0.03


def test_devices_that_this_calibration_cannot_read_are_refused() -> None:
    noise, rng = ReadingNoise(dark=1e-9), np.random.default_rng(1)
    bank = chip_of("ideal", {"mesh": {"topology": "weight_bank"}}, ports=4, stages=1)
    with pytest.raises(ValueError, match="stage bank is weight_bank, but this calibration needs one of clements, reck, svd"):
        calibrate_columns(SettingReader(bank, "bank"), noise, rng)
    weak = chip_of("ideal", {"limits": {"power_w": 0.03}}, ports=4, stages=1)
    with pytest.raises(ValueError, match="raise them"):
        calibrate_columns(SettingReader(weak, "mesh0"), noise, rng)


def test_saturated_readings_are_left_out() -> None:
    chip = chip_of("ideal", {"adc": {"bits": 12, "headroom": 0.2}}, quiet=False, ports=4, stages=1)
    layout, read = layout_and_reader(chip, np.ones((4, 4)))
    readings = read(np.full((2, layout.channels), 1.0), 0, layout.theta)
    kept = read.observations(slice(0, 2)).readings
    assert np.isnan(kept).any() and np.isfinite(readings).all()


def test_idle_heaters_take_less_if_the_total_power_is_limited() -> None:
    """The scan of an ideal chip stays exact with half the power that random phases take."""
    chip = chip_of("ideal", UNKNOWN_PHASES | {"limits": {"mean_power_w": 0.02}}, ports=4, stages=1, seed=2)
    layout, read = layout_and_reader(chip, random_inputs(128, 4, np.random.default_rng(1)))
    found = scan_thetas(layout, read, HeaterCurve(0.0, 0.0), read.inputs, np.random.default_rng(3))
    true = true_parameters(chip, layout).offset_rad[layout.theta]
    assert offset_errors(found.offset_rad, true).max() < 1e-5
    assert read.phases.sum(axis=1).max() <= read.bounds.total * (1 + 1e-12)


def test_light_that_saturates_detectors_is_lowered() -> None:
    """Detectors with a range of a tenth of the usual one saturate in many settings at first."""
    chip = chip_of("soi", NO_CROSSTALK | {"adc": {"headroom": 0.7}}, quiet=False, ports=4, stages=1, seed=1)
    noise = ReadingNoise(dark=chip.describe().readout.full_scale[0] / 2**16, relative=1e-3)
    options = ColumnOptions(growth=GrowthOptions(steps=5), random_settings=4, held_out=2, fit_steps=2)
    reader = SettingReader(chip, "mesh0")
    calibrate_columns(reader, noise, np.random.default_rng(1), options)
    assert reader.done[-2].inputs.max() < 0.8 * reader.done[0].inputs.max()
