"""Calibration of weight banks, of virtual chips of which nothing but the description is known."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from support.chips import chip_of
from support.twins import STEADY

from photonloop.controller.calibration.calibrated_device import Calibration, RingCalibration
from photonloop.controller.calibration.calibration_file import load_calibration, save_calibration
from photonloop.controller.calibration.calibration_options import CalibrationOptions
from photonloop.controller.calibration.method_choice import planned
from photonloop.controller.calibration.ring_calibration import RingOptions, calibrate_rings
from photonloop.controller.calibration.ring_fields import RowShares, row_shares
from photonloop.controller.calibration.ring_layout import RingLayout, first_rows, ring_layout
from photonloop.controller.calibration.ring_readings import RingModel, predict_readings, readings_and_jacobian
from photonloop.controller.calibration.ring_values import (
    filled_rings,
    ring_prior,
    ring_slices,
    ring_values,
    ring_vector,
)
from photonloop.controller.calibration.ring_weights import program_weights
from photonloop.controller.calibration.setting_reader import SettingReader
from photonloop.controller.calibration.twin_misfit import ReadingNoise
from photonloop.controller.learning.variables import to_drive
from photonloop.protocols.config import ConfigError
from photonloop.protocols.device import Drive, Inputs, LoadedRows, Readings
from photonloop.simulator.engine.chip import Chip
from photonloop.simulator.engine.rings import ring_of
from photonloop.simulator.truth import reference

ROWS, WAVELENGTHS = 2, 3


def bank(preset: str, parts: dict[str, dict[str, Any]] | None = None, *, quiet: bool = True, seed: int = 1) -> Chip:
    mesh = {"mesh": {"topology": "weight_bank", "outputs": ROWS}}
    return chip_of(preset, {**(parts or {}), **mesh}, quiet=quiet, ports=WAVELENGTHS, stages=1, seed=seed)


def layout_of_bank(chip: Chip) -> RingLayout:
    description = chip.describe()
    return ring_layout(description, description.stages[0])


def random_model(layout: RingLayout, seed: int = 0) -> RingModel:
    """A model with values near the prior's mean."""
    rng, prior = np.random.default_rng(seed), ring_prior(layout, 1e-4)
    vector = ring_vector(prior.mean)
    vector += 0.3 * ring_vector(prior.sigma) * rng.standard_normal(vector.size)
    return RingModel(layout, ring_values(layout, vector), np.zeros((layout.channels, layout.channels)))


def true_model(chip: Chip) -> RingModel:
    """The model with the true values of a virtual chip without crosstalk."""
    layout, own, stage, ring = layout_of_bank(chip), chip.parameters, chip.stages[0], ring_of(chip.parameters)
    wavelength_rad = 2 * np.pi / WAVELENGTHS * np.arange(float(WAVELENGTHS))
    values = filled_rings(
        layout,
        offset_rad=stage.truth.offset_rad - np.tile(wavelength_rad, ROWS),
        kappa=own.heater.pi_power_w / stage.truth.pi_power_w,
        curvature=own.heater.curvature,
        ground_ratio=own.heater.ground_ohm / own.heater.resistance_ohm,
        coupler_share=1 - ring.coupler_field**2,
        round_trip_db=-20 * np.log10(ring.round_trip_field),
        wavelength_rad=wavelength_rad,
        bus_rad=stage.truth.bus_rad.reshape(ROWS, WAVELENGTHS)[:, :-1],
        bus_ratio=ring.bus_ratio,
        level=stage.levels.ampere * chip.input_truth().amplitude ** 2,
        input_leak=10 ** (-own.modulator.extinction_db / 20),
        row_gain=stage.truth.responsivity,
        compression=layout.full_scale / own.photodiode.saturation_a,
    )
    return RingModel(layout, values, np.zeros((layout.channels, layout.channels)))


def true_weights(chip: Chip, phases: np.ndarray) -> np.ndarray:
    drives = to_drive(np.atleast_2d(phases), chip.describe().drive)
    rings = [reference.phases_rad(chip, 0, reference.power_w(chip, 0, drive)) for drive in drives]
    return np.array([reference.ring_shares(chip, 0, phase_rad).weights for phase_rad in rings])


def rms(values: np.ndarray) -> float:
    return float(np.sqrt(np.mean(values**2)))


def solved(phase_rad: np.ndarray, bus_rad: np.ndarray, share: float, loss_db: float) -> tuple[float, float]:
    """Shares of one wavelength in one row, from the linear equations of all amplitudes in all rings and waveguides.

    Each ring has four amplitudes: behind its first coupler, behind its second one, on the row and on the drop bus.
    """
    count, r, k, a = phase_rad.size, np.sqrt(1 - share), np.sqrt(share), 10 ** (-loss_db / 20)
    index = {name: np.arange(count) + number * count for number, name in enumerate(("up", "down", "row", "drop"))}
    matrix, source = np.eye(4 * count, dtype=complex), np.zeros(4 * count, complex)
    for m in range(count):
        half = np.sqrt(a) * np.exp(0.5j * phase_rad[m])
        u, d, f, g = (index[name][m] for name in ("up", "down", "row", "drop"))
        # Into the ring: from the row, and from the drop bus on the right. Out of it: to the row and to the drop bus.
        matrix[u, d], matrix[f, d] = -r * half, -1j * k * half
        matrix[d, u], matrix[g, u] = -r * half, -1j * k * half
        if m == 0:
            source[u], source[f] = 1j * k, r
        else:
            way = np.exp(0.5j * bus_rad[m - 1])
            matrix[u, index["row"][m - 1]], matrix[f, index["row"][m - 1]] = -1j * k * way, -r * way
        if m < count - 1:
            way = np.exp(0.5j * bus_rad[m])
            matrix[d, index["drop"][m + 1]], matrix[g, index["drop"][m + 1]] = -1j * k * way, -r * way
    found = np.linalg.solve(matrix, source)
    return float(abs(found[index["drop"][0]])) ** 2, float(abs(found[index["row"][-1]])) ** 2


def shares_of(phase_rad: np.ndarray, bus_rad: np.ndarray, share: float, loss_db: float) -> RowShares:
    return row_shares(phase_rad[np.newaxis], bus_rad[np.newaxis], share, loss_db)


@pytest.mark.parametrize("rings", [1, 2, 5])
def test_rows_of_rings_solve_the_equations_of_all_amplitudes(rings: int) -> None:
    rng = np.random.default_rng(rings)
    for loss_db in (0.0, 0.3):
        phase_rad, bus_rad = rng.uniform(-0.5, 0.5, rings), rng.uniform(0, 2 * np.pi, rings)
        found = shares_of(phase_rad, bus_rad, 0.1, loss_db)
        expected = solved(phase_rad, bus_rad, 0.1, loss_db)
        np.testing.assert_allclose((found.dropped[0], found.passed[0]), expected, atol=1e-12)
        if loss_db == 0:
            assert found.dropped[0] + found.passed[0] == pytest.approx(1, abs=1e-12)


def test_a_single_ring_is_a_lorentzian() -> None:
    """Bogaerts 2012, table 1: full width at half maximum and maximum of the drop port."""
    phase_rad, share = np.linspace(-1, 1, 2001), 0.1
    found = row_shares(phase_rad[:, np.newaxis, np.newaxis], np.zeros((2001, 1, 1)), share, 0.0)
    b = 1 - share
    finesse = np.pi * np.sqrt(b) / (1 - b)
    np.testing.assert_allclose(found.dropped[:, 0], 1 / (1 + (2 * finesse / np.pi * np.sin(phase_rad / 2)) ** 2), atol=1e-12)


def test_derivatives_of_the_readings() -> None:
    chip = bank("soi")
    layout, rng = layout_of_bank(chip), np.random.default_rng(3)
    model, phases, inputs = random_model(layout), rng.uniform(0.3, 6, (2, layout.channels)), rng.random((4, WAVELENGTHS))
    readings, jacobian = readings_and_jacobian(model, phases, inputs)
    np.testing.assert_allclose(readings, predict_readings(model, phases, inputs), rtol=1e-12)
    vector, spread = ring_vector(model.values), ring_vector(ring_prior(layout, 1e-4).sigma)
    for kind, part in ring_slices(layout).items():
        for i in range(part.start, part.stop):
            step = np.zeros(vector.size)
            step[i] = 1e-5 * max(spread[i], 1e-3)
            ahead, back = (
                predict_readings(dataclasses.replace(model, values=ring_values(layout, vector + way * step)), phases, inputs)
                for way in (1, -1)
            )
            slope = (ahead - back) / (2 * step[i])
            np.testing.assert_allclose(jacobian[..., i], slope, atol=1e-6 * np.abs(slope).max() + 1e-12, err_msg=kind)


def test_the_model_describes_a_virtual_chip_exactly() -> None:
    """All effects of a bank in `soi` but thermal crosstalk, which the simulator computes on a coarse grid."""
    parts = {**STEADY, "heater": {"resistance_sigma": 0.0, "ground_ohm": 0.05}}
    chip, rng = bank("soi", parts), np.random.default_rng(1)
    model, inputs = true_model(chip), rng.random((5, WAVELENGTHS))
    phases = rng.uniform(0.3, 6, (4, model.layout.channels))
    currents = [reference.settled_currents_a(chip, 0, drive, inputs) for drive in to_drive(phases, chip.describe().drive)]
    np.testing.assert_allclose(predict_readings(model, phases, inputs), currents, atol=1e-9 * model.layout.full_scale)


@pytest.fixture(scope="module")
def calibrated() -> tuple[Chip, SettingReader, RingCalibration]:
    """A bank with all imperfections of `soi`: noise, converters, drift, crosstalk, interference of rings."""
    chip = bank("soi", quiet=False, seed=2)
    reader = SettingReader(chip, "bank")
    steps: list[tuple[int, int]] = []
    noise = ReadingNoise(reader.full_scale / 2**16, 1e-4)
    found = calibrate_rings(reader, noise, np.random.default_rng(1), progress=lambda *step: steps.append(step))
    assert steps == [(k, 6) for k in range(1, 7)]
    assert found.settings == reader.settings == 2 * WAVELENGTHS * 56 + 40 + 2 * ROWS * WAVELENGTHS + 20
    return chip, reader, found


def test_weights_at_random_settings_are_known(calibrated: tuple[Chip, SettingReader, RingCalibration]) -> None:
    chip, _, found = calibrated
    phases = np.random.default_rng(7).uniform(0.2, 4, (20, chip.stages[0].description.channels))
    assert rms(found.weights(phases) - true_weights(chip, phases)) < 0.005
    assert np.median(found.held_out.misfit) < 0.003
    assert np.isnan(found.held_out.tvd).all()


def test_weights_that_were_programmed_are_right(calibrated: tuple[Chip, SettingReader, RingCalibration]) -> None:
    """Published banks are set within 0.01 to 0.02 (Tait 2018: 7 bits with feedback)."""
    chip, reader, found = calibrated
    rng = np.random.default_rng(8)
    for _ in range(3):
        wanted = rng.uniform(-0.7, 0.7, (ROWS, WAVELENGTHS))
        phases = program_weights(found, wanted, reader.bounds)
        assert phases.shape == (ROWS * WAVELENGTHS,)
        assert np.all(phases >= reader.bounds.low) and np.all(phases <= reader.bounds.high)
        np.testing.assert_allclose(found.weights(phases[np.newaxis])[0], wanted, atol=1e-6)
        assert rms(true_weights(chip, phases)[0] - wanted) < 0.01


def test_weights_out_of_reach_are_approached(calibrated: tuple[Chip, SettingReader, RingCalibration]) -> None:
    _, reader, found = calibrated
    phases = program_weights(found, np.full((ROWS, WAVELENGTHS), -1.0), reader.bounds)
    assert found.weights(phases[np.newaxis]).max() < -0.8
    with pytest.raises(ValueError, match=r"shape \(3, 3\)"):
        program_weights(found, np.zeros((3, 3)), reader.bounds)
    with pytest.raises(ValueError, match=r"scale them to \[-1, 1\]"):
        program_weights(found, np.full((ROWS, WAVELENGTHS), 2.0), reader.bounds)


def test_a_bank_has_its_place_in_a_calibration(calibrated: tuple[Chip, SettingReader, RingCalibration]) -> None:
    chip, _, found = calibrated
    calibration = Calibration(chip.describe(), "2026-01-01T00:00:00Z", 0.0, {}, (), banks=(found,))
    assert calibration.bank() is calibration.bank("bank") is found
    with pytest.raises(ValueError, match="'bank7' is not in the calibration"):
        calibration.bank("bank7")
    with pytest.raises(ValueError, match="not in the calibration"):
        calibration.stage("bank")


def test_a_bank_is_the_same_after_it_was_written_and_read(
    calibrated: tuple[Chip, SettingReader, RingCalibration], tmp_path: Path
) -> None:
    chip, _, found = calibrated
    path = tmp_path / "calibration.json"
    save_calibration(path, Calibration(chip.describe(), "2026-01-01T00:00:00Z", 0.0, {}, (), banks=(found,)))
    again = load_calibration(path).bank()
    phases = np.full((1, ROWS * WAVELENGTHS), 2.0)
    np.testing.assert_array_equal(again.weights(phases), found.weights(phases))
    np.testing.assert_array_equal(ring_vector(again.sigma), ring_vector(found.sigma))
    assert (again.settings, again.method, again.noise) == (found.settings, "rings", found.noise)


def test_all_banks_of_a_device_are_calibrated() -> None:
    """Banks are in parallel, so each of them gets light of its own."""
    description = chip_of("soi", {"mesh": {"topology": "weight_bank"}}, ports=3, stages=2).describe()
    plans, skipped = planned(description, CalibrationOptions())
    assert [(plan.stage.name, plan.method) for plan in plans] == [("bank0", "rings"), ("bank1", "rings")]
    assert plans[0].settings > 2 * 3 * 56 and not skipped
    assert [plan.stage.name for plan in planned(description, CalibrationOptions(stage="bank1"))[0]] == ["bank1"]
    with pytest.raises(ConfigError, match="method columns cannot be used for stage bank0, a weight bank"):
        planned(description, CalibrationOptions(method="columns"))


def test_the_first_rows_are_a_bank_of_their_own() -> None:
    layout = layout_of_bank(bank("soi"))
    alone = first_rows(layout, 1)
    assert (alone.rows, alone.channels, alone.heaters.near_ln.size) == (1, WAVELENGTHS, WAVELENGTHS * (WAVELENGTHS - 1))


def test_meshes_are_refused() -> None:
    description = chip_of("ideal", {}, ports=4, stages=1).describe()
    with pytest.raises(ValueError, match="mesh0 is clements"):
        ring_layout(description, description.stages[0])


class LowestReadings:
    """A bank all of whose readings are the lowest code."""

    def __init__(self, chip: Chip) -> None:
        self._chip = chip
        self.describe, self.load_inputs = chip.describe, chip.load_inputs

    def evaluate(self, drives: Drive, inputs: Inputs | LoadedRows, stage: str) -> Readings:
        read = self._chip.evaluate(drives, inputs, stage)
        return dataclasses.replace(read, values=np.full_like(read.values, -self.describe().readout.full_scale[0]))


def test_readings_of_balanced_detectors_saturate_in_both_directions() -> None:
    reader = SettingReader(LowestReadings(bank("soi", quiet=False)), "bank")
    read = reader.read(np.zeros((1, ROWS * WAVELENGTHS)), np.ones((1, WAVELENGTHS)))
    assert np.isnan(read.readings).all()


def test_options_choose_the_number_of_settings() -> None:
    chip = bank("soi", quiet=False)
    reader = SettingReader(chip, "bank")
    options = RingOptions(points=48, random_settings=12, held_out=3, rounds=0)
    found = calibrate_rings(reader, ReadingNoise(reader.full_scale / 2**16), np.random.default_rng(1), options)
    assert found.settings == 2 * WAVELENGTHS * 48 + 15
    assert found.held_out.residual.shape == (3,)
    assert not found.influence_rad.any()
