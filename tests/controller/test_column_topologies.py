"""Calibration column by column of meshes that are not rectangular: triangular ones, and two meshes with attenuators."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from support.chips import chip_of
from support.twins import random_inputs, true_parameters

from photonloop.controller.calibration.column_growth import GrowthOptions
from photonloop.controller.calibration.column_scans import HeaterCurve, scan_thetas
from photonloop.controller.calibration.columns import ColumnOptions, calibrate_columns
from photonloop.controller.calibration.scan_reader import ScanReader
from photonloop.controller.calibration.setting_reader import SettingReader
from photonloop.controller.calibration.twin_layout import twin_layout
from photonloop.controller.calibration.twin_misfit import ReadingNoise
from photonloop.simulator.engine.chip import Chip

UNKNOWN_PHASES: dict[str, dict[str, Any]] = {"heater": {"offset_span_rad": 6.283}, "limits": {"mean_power_w": 0.05}}


def mesh(preset: str, topology: str, ports: int, seed: int = 1, *, quiet: bool = True) -> Chip:
    parts = UNKNOWN_PHASES if preset == "ideal" else {}
    return chip_of(preset, {**parts, "mesh": {"topology": topology}}, quiet=quiet, ports=ports, stages=1, seed=seed)


def offset_errors(found: np.ndarray, true: np.ndarray) -> np.ndarray:
    return np.abs(np.angle(np.exp(1j * (found - true))))


@pytest.mark.parametrize("ports", [3, 4, 7])
@pytest.mark.parametrize("topology", ["reck", "svd"])
def test_thetas_of_an_ideal_chip_are_exact(topology: str, ports: int) -> None:
    """Light stays on its mode in columns that are in bar, whatever their arrangement."""
    chip, rng = mesh("ideal", topology, ports, seed=ports), np.random.default_rng(1)
    description = chip.describe()
    layout = twin_layout(description, description.stages[0])
    read = ScanReader(SettingReader(chip, "mesh0"), random_inputs(64, ports, rng).astype(np.float32))
    found = scan_thetas(layout, read, HeaterCurve(0.0, 0.0), read.inputs, rng)
    true = true_parameters(chip, layout).offset_rad[layout.theta]
    assert offset_errors(found.offset_rad, true).max() < 1e-5
    assert len(read.phases) == 10 * (int(layout.column.max()) + 1)


@pytest.mark.slow
def test_a_realistic_triangular_mesh_is_described_by_its_twin() -> None:
    """All imperfections of `soi`. The best published distance, on a rectangular mesh, is 3 %."""
    chip = mesh("soi", "reck", 4, seed=2, quiet=False)
    reader = SettingReader(chip, "mesh0")
    options = ColumnOptions(samples=64, growth=GrowthOptions(steps=60), fit_steps=400)
    noise = ReadingNoise(dark=reader.full_scale / 2**16, relative=1e-3)
    found = calibrate_columns(reader, noise, np.random.default_rng(2), options)
    assert np.median(found.fitted.held_out.tvd) < 0.02
