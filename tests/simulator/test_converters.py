"""Noise, offset and drift of the ADCs, and the noise floor of a stage."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from support.chips import chip_of

from photonloop.simulator.engine.chip import Chip
from photonloop.simulator.engine.levels import dark_noise_a
from photonloop.simulator.parameters import load_chip

LASER_OFF = [{"kind": "laser_off"}]


def dark_readings(chip: Chip, settings: int, samples: int, stage: int = 0) -> NDArray[np.float64]:
    here = chip.stages[stage].description
    drives = np.zeros((settings, here.channels))
    return chip.evaluate(drives, np.zeros((samples, here.ports)), here.name).values.astype(float)


@pytest.mark.parametrize("has_memory", [False, True])
def test_noise_before_quantisation_dithers_the_converter(has_memory: bool) -> None:
    """Variance noise² + 1/12 LSB², and an unbiased mean although the dark current is a fraction of an LSB."""
    bits = 12
    parts = {
        "adc": {"bits": bits, "headroom": 8.0, "noise_lsb": 1.3, "offset_lsb": 20.0},
        "photodiode": {"dark_a": 1e-6, "has_memory": has_memory, "bandwidth_hz": 1.0},
    }
    if has_memory:
        parts["photodiode"]["bandwidth_hz"] = 5e4
    chip = chip_of("ideal", parts, ports=4, stages=1, faults=LASER_OFF)
    code_a = chip.stages[0].levels.code_a
    codes = dark_readings(chip, 1000, 40).reshape(-1, 4) / code_a
    np.testing.assert_allclose(codes, np.round(codes), atol=1e-3)
    count = codes.size
    assert np.var(codes) == pytest.approx(1.3**2 + 1 / 12, rel=5 * np.sqrt(2 / count))
    assert 0.05 < 1e-6 / code_a % 1 < 0.95
    assert np.mean(codes) == pytest.approx(20.0 + 1e-6 / code_a, abs=5 * 1.33 / np.sqrt(count))
    assert np.abs(np.corrcoef(codes.T) - np.eye(4)).max() < 5 / np.sqrt(len(codes))


def test_without_noise_a_converter_hides_the_dark_current() -> None:
    parts = {"adc": {"bits": 12, "headroom": 8.0}, "photodiode": {"dark_a": 1e-7}}
    chip = chip_of("ideal", parts, ports=4, stages=1, faults=LASER_OFF)
    assert 0.5 * chip.stages[0].levels.code_a > 1e-7
    assert not dark_readings(chip, 3, 5).any()


def test_no_reading_of_soi_is_without_variance() -> None:
    """64 ports, 128 typical images, both stages: every detector of every sample varies between settings."""
    chip = Chip(load_chip("soi"), threads=2)
    images = np.clip(np.random.default_rng(0).gamma(0.66, 0.46, (128, 64)), 0, 1)
    drive = np.random.default_rng(5).uniform(0, 6, chip.describe().channels)
    chip.apply(drive)
    for here in chip.stages:
        readings = chip.evaluate(np.repeat(drive[np.newaxis, here.channels], 40, axis=0), images, here.description.name)
        assert np.mean(np.ptp(readings.values, axis=0) == 0) == 0.0
        assert (readings.values > 0).all()


@pytest.mark.parametrize("preset", ["soi", "harsh"])
@pytest.mark.parametrize(("topology", "stage"), [("clements", 0), ("clements", 1), ("weight_bank", 0)])
def test_the_nominal_dark_noise_is_that_of_dark_readings(preset: str, topology: str, stage: int) -> None:
    parts = {"mesh": {"topology": topology}, "ring": {"crowded": True}}
    stages = 1 if topology == "weight_bank" else 2
    chip = chip_of(preset, parts, quiet=False, ports=24, stages=stages, faults=LASER_OFF)
    values = dark_readings(chip, 500, 30, stage)
    variance = values[:, -1].var(axis=0, ddof=1).mean()
    expected = dark_noise_a(chip.parameters, chip.stages[stage].levels)
    assert np.sqrt(variance) == pytest.approx(expected, rel=5 / np.sqrt(2 * 500 * 24) + 5e-3)


def test_an_open_detector_reads_offset_and_noise() -> None:
    parts = {"photodiode": {"dark_a": 1e-6}, "adc": {"bits": 16, "headroom": 8.0, "noise_lsb": 2.0, "offset_lsb": 50.0}}
    fault = {"kind": "open_detector", "stage": 0, "port": 2}
    chip = chip_of("ideal", parts, ports=4, stages=1, faults=[fault])
    code_a = chip.stages[0].levels.code_a
    codes = chip.evaluate(np.full((100, 16), 2.0), np.ones((50, 4)), "mesh0").values[:, :, 2].astype(float) / code_a
    assert np.mean(codes) == pytest.approx(50.0, abs=5 * 2.1 / np.sqrt(codes.size))
    assert np.std(codes) == pytest.approx(np.sqrt(4 + 1 / 12), rel=5 / np.sqrt(2 * codes.size))


def test_offsets_of_detectors_have_the_given_spread() -> None:
    parts = {"adc": {"bits": 16, "offset_lsb": 100.0, "offset_sigma_lsb": 5.0}}
    zero = chip_of("ideal", parts, quiet=False, ports=400, stages=1, threads=2).stages[0].truth.zero_lsb
    assert np.mean(zero) == pytest.approx(100.0, abs=5 * 5.0 / 20)
    assert np.std(zero) == pytest.approx(5.0, rel=5 / np.sqrt(800))


def test_drift_of_converters_has_the_given_statistics() -> None:
    adc: dict[str, Any] = {"bits": 16, "offset_drift_lsb": 2.0, "offset_drift_tau_s": 1.0}
    adc |= {"gain_drift_sigma": 1e-3, "gain_drift_tau_s": 4.0}
    chip = chip_of("ideal", {"adc": adc}, quiet=False, ports=400, stages=1, threads=2)
    ambient = chip.ambient()
    start, later = (ambient.converter_changes(0, ambient.moment(time_s)) for time_s in (50.0, 51.0))
    assert start is not None and later is not None
    for sigma, tau_s, before, after in ((2.0, 1.0, start.added, later.added), (1e-3, 4.0, start.gain - 1, later.gain - 1)):
        assert np.std(before) == pytest.approx(sigma, rel=5 / np.sqrt(800))
        assert np.corrcoef(before, after)[0, 1] == pytest.approx(np.exp(-1.0 / tau_s), abs=5 / 20)


def allan_deviation(series: NDArray[np.float64], length: int) -> float:
    """Allan deviation over averages of `length` points, pooled over the columns of `series` (points, columns)."""
    blocks = series[: len(series) // length * length].reshape(-1, length, series.shape[1]).mean(axis=1)
    return float(np.sqrt(0.5 * np.mean(np.diff(blocks, axis=0) ** 2)))


def series_of(adc: dict[str, Any]) -> NDArray[np.float64]:
    """Dark readings [LSB] of 64 detectors, 4000 points 20 µs apart."""
    parts = {"adc": {"bits": 24, "offset_lsb": 1e4, **adc}, "limits": {"max_settings": 4000}}
    chip = chip_of("ideal", parts, quiet=False, ports=64, stages=1, faults=LASER_OFF)
    return dark_readings(chip, 4000, 1)[:, 0] / chip.stages[0].levels.code_a


def test_white_noise_has_an_allan_deviation_of_slope_minus_one_half() -> None:
    series = series_of({"noise_lsb": 5.0})
    for length in (1, 4, 16, 64):
        pairs = 64 * (4000 // length)
        assert allan_deviation(series, length) == pytest.approx(np.sqrt((25 + 1 / 12) / length), rel=5 / np.sqrt(pairs))


def test_drift_has_the_allan_deviation_of_an_ornstein_uhlenbeck_process() -> None:
    """Slope one half far below the correlation time; the value is that of the autocovariance σ² e^{-|t|/τ}."""
    tau_s, spacing_s, sigma = 0.04, 2e-5, 300.0
    series = series_of({"offset_drift_lsb": sigma, "offset_drift_tau_s": tau_s})
    found = []
    lengths = (64, 128, 256)  # a grid step is 31 points
    for length in lengths:
        times = np.arange(2 * length) * spacing_s
        covariance = sigma**2 * np.exp(-np.abs(times[:, np.newaxis] - times) / tau_s)
        weight = np.repeat([-1.0, 1.0], length) / length
        found.append(allan_deviation(series, length))
        pairs = 64 * (4000 // length)
        assert found[-1] == pytest.approx(np.sqrt(0.5 * weight @ covariance @ weight), rel=5 / np.sqrt(pairs) + 0.03)
    slope = np.polyfit(np.log(lengths), np.log(found), 1)[0]
    assert 0.35 < slope < 0.55


def test_converters_without_steps_have_no_noise_and_no_offset() -> None:
    """Values in LSB have no effect if bits is 0."""
    adc = {"bits": 0, "noise_lsb": 3.0, "offset_lsb": 40.0, "offset_sigma_lsb": 3.0, "offset_drift_lsb": 2.0}
    chip, plain = (chip_of("ideal", parts, quiet=False, ports=4, stages=1) for parts in ({"adc": adc}, {}))
    values = [each.evaluate(np.full((2, 16), 3.0), np.ones((3, 4)), "mesh0").values for each in (chip, plain)]
    np.testing.assert_array_equal(values[0], values[1])


@pytest.mark.parametrize("has_memory", [False, True])
@pytest.mark.parametrize("topology", ["clements", "weight_bank"])
def test_saturation_is_flagged_for_each_detector(monkeypatch: pytest.MonkeyPatch, topology: str, has_memory: bool) -> None:
    """Inside the engine, exactly the detectors of a setting that have a reading at full scale are flagged."""
    parts = {
        "mesh": {"topology": topology},
        "adc": {"bits": 10, "headroom": 1.5, "offset_lsb": 5.0},
        "photodiode": {"bandwidth_hz": 2e4, "has_memory": has_memory, "temperature_k": 300.0},
    }
    if topology == "weight_bank":  # offsets beyond full scale, because the light of a row cannot exceed it
        parts["adc"] |= {"offset_sigma_lsb": 600.0}
    chip = chip_of("ideal", parts, quiet=False, ports=6, stages=1, threads=2)
    drives = np.random.default_rng(1).uniform(0, 6, (30, 36))
    inputs = np.random.default_rng(0).random((37, 6))
    seen: list[NDArray[np.uint32]] = []

    def convert(*arguments: Any) -> None:
        original(*arguments)
        seen.append(arguments[3].copy())

    engine = chip._pipeline
    original = engine.convert
    monkeypatch.setattr(engine, "convert", convert)
    readings = chip.evaluate(drives, inputs, chip.stages[0].description.name)
    own = chip.stages[0].levels
    at_limit = (np.abs(readings.values) > own.full_scale_a - 0.6 * own.code_a).any(axis=1)
    (flags,) = seen
    assert flags.shape == (30, 6)
    assert 0 < np.count_nonzero(flags) < flags.size
    # A reading within an LSB of full scale may have the code of full scale, but does not saturate.
    assert not (flags & ~at_limit.astype(np.uint32)).any()
    assert np.count_nonzero(at_limit != (flags == 1)) <= 0.05 * flags.size
    np.testing.assert_array_equal(readings.flags, flags)
