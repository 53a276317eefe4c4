"""Calibration with one lit input at a time, of virtual chips that nothing is known about but their description."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import pytest
from support.chips import chip_of
from support.twins import true_parameters

from photonloop.controller.calibration.column_scans import HeaterCurve
from photonloop.controller.calibration.diagonal import DiagonalOptions, calibrate_diagonal
from photonloop.controller.calibration.fringes import fit_cosines, fit_scaled
from photonloop.controller.calibration.light_paths import LightPath, path_rounds
from photonloop.controller.calibration.random_settings import RandomSettingsOptions, fit_random_settings
from photonloop.controller.calibration.ratio_sweeps import measurable_phis
from photonloop.controller.calibration.setting_reader import SettingReader
from photonloop.controller.calibration.twin_layout import TwinLayout, twin_layout
from photonloop.controller.calibration.twin_misfit import ReadingNoise
from photonloop.controller.calibration.twin_parameters import TwinParameters, TwinPrior, nominal_prior
from photonloop.simulator.engine.chip import Chip

UNKNOWN_PHASES: dict[str, dict[str, Any]] = {"heater": {"offset_span_rad": 6.283}}


def mesh(topology: str, ports: int) -> TwinLayout:
    description = chip_of("ideal", {"mesh": {"topology": topology}}, ports=ports, stages=1).describe()
    return twin_layout(description, description.stages[0])


def ways(layout: TwinLayout, locked: dict[int, float], path: LightPath) -> tuple[int, frozenset[int]]:
    """How many ways lead from the lit input to the output of a path, and the unknown interferometers on them."""
    count = [int(port == path.lit) for port in range(layout.ports)]
    on_way: list[frozenset[int]] = [frozenset()] * layout.ports
    for k, t in enumerate(layout.top):
        pair = slice(t, t + 2)
        if k not in locked:
            total, joined = count[t] + count[t + 1], on_way[t] | on_way[t + 1] | {k}
            count[pair] = [total, total]
            if total:
                on_way[pair] = [joined, joined]
        elif locked[k] == 0.0:
            count[pair], on_way[pair] = count[pair][::-1], on_way[pair][::-1]
    return count[path.output], on_way[path.output]


@pytest.mark.parametrize("topology", ["clements", "reck"])
@pytest.mark.parametrize("ports", [2, 3, 4, 7, 8, 16])
def test_each_light_path_is_the_only_one_and_all_interferometers_are_on_one(topology: str, ports: int) -> None:
    """Counted independently, through meshes whose earlier interferometers are in bar or cross."""
    layout, locked = mesh(topology, ports), {}
    for round_ in path_rounds(layout, topology):
        for path in round_.paths:
            assert ways(layout, locked, path) == (1, frozenset(path.interferometers))
        for k in (k for path in round_.paths for k in path.interferometers):
            assert k not in locked
            locked[k] = round_.locked_rad
    assert len(locked) == layout.interferometers


def test_fringes_are_fitted_exactly() -> None:
    curve, x = HeaterCurve(0.012, 0.04), np.linspace(0.2, 7.0, 9)[np.newaxis].repeat(2, axis=0)
    kappa, offset, sign = np.array([0.97, 1.03]), np.array([0.4, -2.1]), np.array([1.0, -1.0])
    y = sign[:, np.newaxis] * curve.phase(kappa[:, np.newaxis] * x)
    values = 0.5 + 0.45 * np.cos(offset[:, np.newaxis] + y)
    known = fit_cosines(y, values)
    np.testing.assert_allclose(known.offset_rad, offset, atol=1e-9)
    np.testing.assert_allclose(known.visibility, 0.9, atol=1e-9)
    found = fit_scaled(x, np.zeros_like(x), sign, values, curve)
    np.testing.assert_allclose(found.kappa, kappa, atol=1e-2)  # the prior pulls a little
    values[0, 3] = np.nan
    np.testing.assert_allclose(fit_cosines(y, values).offset_rad, offset, atol=1e-9)


def reader_of(chip: Chip) -> tuple[SettingReader, ReadingNoise, TwinPrior]:
    """A reader, the noise of readings, and a prior with measured dark levels."""
    description = chip.describe()
    reader = SettingReader(chip, description.stages[0].name)
    layout = twin_layout(description, reader.stage)
    chip.set_light(False)
    dark = reader.read(np.zeros((1, layout.channels)), np.zeros((32, layout.ports))).readings[0]
    chip.set_light(True)
    noise = ReadingNoise(max(float(dark.std()), 1e-7 * description.readout.full_scale[0]))
    return reader, noise, nominal_prior(layout, 1.0, dark.mean(axis=0))


def errors(layout: TwinLayout, found: TwinParameters, true: TwinParameters) -> tuple[np.ndarray, np.ndarray]:
    """Errors of all θ, and of the differences of φ that can be measured [rad]."""
    change = found.offset_rad - true.offset_rad
    pairs = measurable_phis(layout)
    phi = np.array([change[layout.phi[pair.number]] - (change[pair.minus] if pair.minus >= 0 else 0.0) for pair in pairs])
    return np.abs(np.angle(np.exp(1j * change[layout.theta]))), np.abs(np.angle(np.exp(1j * phi)))


@pytest.mark.parametrize("topology", ["clements", "reck"])
def test_sweeps_of_an_ideal_chip_are_exact(topology: str) -> None:
    chip = chip_of("ideal", {**UNKNOWN_PHASES, "mesh": {"topology": topology}}, ports=5, stages=1, seed=1)
    reader, noise, nominal = reader_of(chip)
    mean = dataclasses.replace(nominal.mean, curvature=0.0, self_heating=0.0, crosstalk_share=0.0)
    options = DiagonalOptions(fit=None)
    found = calibrate_diagonal(reader, noise, np.random.default_rng(1), options, TwinPrior(mean, nominal.sigma))
    theta, phi = errors(found.twin.layout, found.twin.parameters, true_parameters(chip, found.twin.layout))
    assert theta.max() < 1e-3
    assert phi.max() < 1e-3
    assert found.not_found == found.low_visibility == ()


def test_a_realistic_chip_with_a_switch_is_described_by_its_twin() -> None:
    """All imperfections of `soi`, but one lit input at a time. The best published distance is 3 %."""
    chip = chip_of("soi", {"modulator": {"kind": "switch"}}, quiet=False, ports=4, stages=1, seed=0)
    reader, noise, prior = reader_of(chip)
    rng = np.random.default_rng(1)
    steps: list[tuple[int, int]] = []
    found = calibrate_diagonal(reader, noise, rng, None, prior, lambda done, total: steps.append((done, total)))
    assert steps[-1][0] == steps[-1][1]
    theta, phi = errors(found.twin.layout, found.twin.parameters, true_parameters(chip, found.twin.layout))
    assert theta.max() < 0.15
    assert phi.max() < 0.15
    assert found.not_found == found.low_visibility == ()
    assert found.settings <= 120
    random = RandomSettingsOptions(inputs_at_once="one", settings=32, descent_steps=100)
    fitted = fit_random_settings(reader, found.twin, found.prior, noise, rng, random)
    assert fitted.held_out.tvd.mean() < 0.005


@pytest.mark.parametrize(
    ("topology", "ports", "match"), [("svd", 4, "rectangular"), ("clements", 18, "at most 16"), ("reck", 18, "at most 16")]
)
def test_meshes_that_this_calibration_cannot_read_are_refused(topology: str, ports: int, match: str) -> None:
    chip = chip_of("ideal", {"mesh": {"topology": topology}}, ports=ports, stages=1)
    reader = SettingReader(chip, chip.describe().stages[0].name)
    with pytest.raises(ValueError, match=match):
        calibrate_diagonal(reader, ReadingNoise(1e-9), np.random.default_rng(1))
    assert reader.settings == 0
