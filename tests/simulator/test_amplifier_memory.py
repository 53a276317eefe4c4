"""Memory of the detectors' amplifiers between samples."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.signal import lfilter
from support.chips import chip_of

from photonloop.protocols.config import ConfigError
from photonloop.protocols.device import FLAG_SATURATED
from photonloop.simulator.engine.chip import Chip
from photonloop.simulator.parameters import PhotodiodeParameters, load_chip
from photonloop.simulator.physics import photodiode
from photonloop.simulator.truth.chip_truth import gradient

SAMPLE_S = 1e-5
KEPT = np.exp(-4 * 5e4 * SAMPLE_S)  # 13.5 %


def parts_of(has_memory: bool, **others: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """Light is bright, so that shot noise, the only noise, is below 1e-5 of the readings."""
    changes: dict[str, dict[str, Any]] = {
        "photodiode": {"bandwidth_hz": 5e4, "has_memory": has_memory, "temperature_k": 0.0},
        "laser": {"total_power_w": 1.0},
        "clock": {"sample_s": SAMPLE_S},
    }
    for name, fields in others.items():
        changes[name] = {**changes.get(name, {}), **fields}
    return changes


def drives_of(chip: Chip) -> NDArray[np.float64]:
    return np.random.default_rng(5).uniform(0, 6, (3, chip.stages[0].description.channels))


def filtered(readings: NDArray, kept: float = KEPT) -> NDArray[np.float64]:
    """scipy's filter along the samples of each setting, settled at the first sample."""
    found = [lfilter([1 - kept], [1, -kept], x, axis=0, zi=kept * x[:1])[0] for x in readings.astype(float)]
    return np.stack(found)


def test_the_share_kept_is_that_of_a_filter_with_the_noise_bandwidth() -> None:
    """Noise bandwidth of a one-pole filter: the integral of its power response, π/2 times its corner frequency."""
    diode = PhotodiodeParameters(bandwidth_hz=5e4, has_memory=True)
    tau_s = -SAMPLE_S / np.log(photodiode.kept_share(diode, SAMPLE_S))
    frequency = np.linspace(0, 1e9, 2_000_001)
    response = 1 / (1 + (2 * np.pi * frequency * tau_s) ** 2)
    assert np.trapezoid(response, frequency) == pytest.approx(5e4, rel=1e-3)
    assert photodiode.kept_share(PhotodiodeParameters(bandwidth_hz=5e4), SAMPLE_S) == 0.0
    assert photodiode.kept_share(PhotodiodeParameters(has_memory=True), SAMPLE_S) == 0.0


LAG = {"rise_s": 2e-5, "fall_s": 5e-5}
VARIANTS: dict[str, dict[str, Any]] = {
    "mesh": {},
    "lag": {"heater": LAG},
    "bank": {"mesh": {"topology": "weight_bank", "outputs": 3}, "ring": {"cold_rad": 0.5}},
    "bank with lag": {"mesh": {"topology": "weight_bank", "outputs": 3}, "ring": {"cold_rad": 0.5}, "heater": LAG},
}


@pytest.mark.parametrize("name", VARIANTS)
@pytest.mark.parametrize("samples", [1, 2, 16, 45])
def test_signals_pass_a_one_pole_filter(name: str, samples: int) -> None:
    inputs = np.random.default_rng(2).integers(0, 2, (samples, 7)).astype(float)
    found = []
    for has_memory in (False, True):
        chip = chip_of("ideal", parts_of(has_memory, **VARIANTS[name]), ports=7, stages=1)
        found.append(chip.evaluate(drives_of(chip), inputs, chip.stages[0].description.name).values)
    expected = filtered(found[0])
    np.testing.assert_allclose(found[1], expected, atol=2e-5 * np.abs(expected).max())
    if samples > 1:
        assert np.abs(found[1] - found[0]).max() > 0.05 * np.abs(expected).max()


def test_a_large_mesh_has_memory_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("photonloop.simulator.engine.stage_computation.SHARED_CHANNELS", 1)
    inputs = np.random.default_rng(2).random((40, 6))
    found = []
    for has_memory in (False, True):
        chip = chip_of("ideal", parts_of(has_memory), ports=6, stages=1)
        found.append(chip.evaluate(drives_of(chip), inputs, "mesh0").values)
    np.testing.assert_allclose(found[1], filtered(found[0]), atol=2e-5 * found[0].max())


@pytest.mark.parametrize("topology", ["clements", "weight_bank"])
def test_noise_keeps_its_variance_and_is_correlated(topology: str) -> None:
    """Thermal noise: the variance of the formula at every sample, also the first, and autocorrelation e^{-4BT·lag}."""
    changes = {
        "photodiode": {"bandwidth_hz": 2e4, "has_memory": True, "temperature_k": 300.0, "load_ohm": 50.0},
        "limits": {"max_settings": 8192},
        "mesh": {"topology": topology},
    }
    chip = chip_of("ideal", changes, ports=4, stages=1)
    drives = np.zeros((6000, chip.describe().channels))
    values = chip.evaluate(drives, np.zeros((20, 4)), chip.stages[0].description.name).values.astype(float)
    flat = values.transpose(0, 2, 1).reshape(-1, 20)
    count = len(flat)
    variance = 4 * 1.380649e-23 * 300 * 2e4 / 50
    np.testing.assert_allclose(flat.var(axis=0), variance, rtol=5 * np.sqrt(2 / count))
    np.testing.assert_allclose(flat.mean(axis=0), 0.0, atol=5 * np.sqrt(variance / count))
    kept = np.exp(-4 * 2e4 * SAMPLE_S)
    for lag in (1, 2, 5, 17):
        correlation = np.mean(flat[:, lag:] * flat[:, :-lag], axis=0) / variance
        np.testing.assert_allclose(correlation, kept**lag, atol=5 * np.sqrt(2 / count))
    assert np.abs(np.corrcoef(values[:, 7].T) - np.eye(values.shape[2])).max() < 5 / np.sqrt(len(values))


def test_laser_noise_keeps_its_variance() -> None:
    changes = {
        "photodiode": {"bandwidth_hz": 5e4, "has_memory": True},
        "laser": {"rin_db_per_hz": -100.0},
        "limits": {"max_settings": 8192},
    }
    chip = chip_of("ideal", changes, ports=2, stages=1)
    values = chip.evaluate(np.full((8000, 4), 2.0), np.ones((6, 2)), "mesh0").values.astype(float)
    relative = values[..., 0] / values[..., 0].mean() - 1
    np.testing.assert_allclose(relative.var(axis=0), 1e-10 * 5e4, rtol=6 * np.sqrt(2 / 8000))
    correlation = np.mean(relative[:, 1:] * relative[:, :-1], axis=0) / (1e-10 * 5e4)
    np.testing.assert_allclose(correlation, KEPT, atol=6 * np.sqrt(2 / 8000))


@pytest.mark.parametrize("topology", ["clements", "weight_bank"])
def test_memory_of_almost_zero_changes_no_bit(topology: str) -> None:
    """A bandwidth far above the sample rate: the second pass gives the readings and flags of the single pass."""
    found = []
    for has_memory in (False, True):
        changes = {
            "photodiode": {"bandwidth_hz": 2e6, "has_memory": has_memory, "temperature_k": 300.0, "dark_a": 1e-7},
            "mesh": {"topology": topology},
            "adc": {"bits": 12, "headroom": 1.5, "offset_lsb": 30.0, "offset_sigma_lsb": 3.0, "gain_drift_sigma": 1e-3},
        }
        chip = chip_of("ideal", changes, quiet=False, ports=6, stages=1)
        assert (chip.stages[0].readout.kept > 0) == has_memory
        drives = np.random.default_rng(1).uniform(0, 6, (20, 36))
        found.append(chip.evaluate(drives, np.random.default_rng(0).random((37, 6)), chip.stages[0].description.name))
    np.testing.assert_array_equal(found[0].values, found[1].values)
    np.testing.assert_array_equal(found[0].flags, found[1].flags)
    if topology == "clements":
        assert {0, FLAG_SATURATED} == set(found[0].flags.ravel().tolist())


def test_the_gradient_includes_the_memory() -> None:
    parts = parts_of(True, heater={"offset_span_rad": 6.0}, dac={"slow_noise_v": 0.01})
    chip = chip_of("ideal", parts, ports=5, stages=1)
    rng = np.random.default_rng(3)
    inputs, weights, drive = rng.random((9, 5)), rng.normal(size=(9, 5)), rng.uniform(2, 5, 25)

    def loss_and_slope(readings: NDArray[np.float64]) -> tuple[float, NDArray[np.float64]]:
        return float(np.sum(weights * readings**2)), 2 * weights * readings

    found = gradient(chip, 0, drive, inputs, loss_and_slope)
    direction = rng.normal(size=25)
    losses = [gradient(chip, 0, drive + step * direction, inputs, loss_and_slope).loss for step in (1e-5, -1e-5)]
    assert float(found.drive_v @ direction) == pytest.approx((losses[0] - losses[1]) / 2e-5, rel=1e-6)
    plain = gradient(chip_of("ideal", {**parts, "photodiode": {}}, ports=5, stages=1), 0, drive, inputs, loss_and_slope)
    assert np.linalg.norm(plain.drive_v - found.drive_v) > 0.01 * np.linalg.norm(found.drive_v)


@pytest.mark.parametrize("preset", ["soi", "harsh"])
@pytest.mark.parametrize("topology", ["clements", "weight_bank"])
def test_readings_do_not_depend_on_the_number_of_threads(preset: str, topology: str) -> None:
    found = []
    for threads in (1, 2, 4):
        parts = {"mesh": {"topology": topology}, "ring": {"crowded": True}}
        chip = chip_of(preset, parts, quiet=False, ports=40, stages=1, threads=threads)
        rng = np.random.default_rng(0)
        drives = rng.uniform(0, 6, (12, chip.describe().channels))
        readings = [chip.evaluate(drives, rng.random((70, 40)), chip.stages[0].description.name) for _ in range(2)]
        found.append(([r.values for r in readings], [r.flags for r in readings]))
        chip.close()
    for other in found[1:]:
        np.testing.assert_array_equal(found[0][0], other[0])
        np.testing.assert_array_equal(found[0][1], other[1])


def test_memory_without_a_sample_time_is_refused(tmp_path: Any) -> None:
    path = tmp_path / "chip.toml"
    path.write_text("[photodiode]\nhas_memory = true\n[clock]\nsample_s = 0\n")
    with pytest.raises(ConfigError, match=r"has_memory is true, but clock.sample_s is 0"):
        load_chip(path)
