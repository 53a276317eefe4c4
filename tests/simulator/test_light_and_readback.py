"""Light, waits, read-back and the description's nominal values of the virtual chip."""

from __future__ import annotations

import threading
import time

import numpy as np
import pytest
from support.chips import chip_of, parameters_of

from photonloop.protocols.device import STEADY_S, LoadedRows
from photonloop.protocols.errors import DeviceError
from photonloop.simulator.engine.chip import Chip
from photonloop.simulator.parameters import load_chip
from photonloop.simulator.physics.mesh import TOPOLOGIES

ONES = np.ones((3, 4), np.float32)


def drives_of(chip: Chip, settings: int = 2) -> np.ndarray:
    return np.random.default_rng(0).uniform(0, 4, (settings, chip.stages[0].description.channels))


# ---- light ----------------------------------------------------------------------------------------------------------


def test_without_light_only_dark_current_and_converter_steps_are_read() -> None:
    exact = dict.fromkeys(("noise_lsb", "offset_lsb", "offset_sigma_lsb", "offset_drift_lsb", "gain_drift_sigma"), 0.0)
    parts = {"photodiode": {"bandwidth_hz": 0.0, "has_memory": False}, "adc": exact}
    chip = chip_of("soi", parts, quiet=False, ports=4, stages=2)
    chip.set_light(False)
    for index, stage in enumerate(chip.stages):
        values = chip.evaluate(drives_of(chip), ONES, stage.description.name).values
        step_a = stage.levels.code_a
        np.testing.assert_allclose(values, round(1e-9 / step_a) * step_a, atol=1e-3 * step_a)
        assert chip.describe().readout.full_scale[index] > 1e4 * values.max()


@pytest.mark.parametrize("topology", ["clements", "weight_bank"])
def test_dark_readings_have_the_noise_of_the_description(topology: str) -> None:
    """4000 readings: the relative error of a standard deviation is 1.1 %."""
    analog = {"mesh": {"topology": topology}, "adc": {"bits": 0, "headroom": 0.0}, "photodiode": {"dark_a": 1e-6}}
    chip = chip_of("soi", analog, quiet=False, ports=4, stages=1)
    chip.set_light(False)
    noise = chip.describe().readout.noise
    assert noise is not None
    stage = chip.describe().stages[0].name
    values = chip.evaluate(np.zeros((1, 16)), np.ones((1000, 4)), stage).values[0].astype(np.float64)
    assert values.std() == pytest.approx(noise[0], rel=0.06)


@pytest.mark.parametrize(("topology", "range_per_scale"), [("clements", 1), ("weight_bank", 2)])
def test_the_noise_of_the_description_includes_the_converter(topology: str, range_per_scale: int) -> None:
    wiring = {"mesh": {"topology": topology}}
    with_steps = chip_of("soi", wiring, quiet=False, ports=4, stages=1).describe().readout
    without = chip_of("soi", {**wiring, "adc": {"bits": 0}}, quiet=False, ports=4, stages=1).describe().readout
    assert with_steps.noise is not None
    assert without.noise is not None
    lsb_a = range_per_scale * with_steps.full_scale[0] / (2**16 - 1)
    assert with_steps.noise[0] ** 2 - without.noise[0] ** 2 == pytest.approx(lsb_a**2 / 12, rel=1e-9)


def test_switching_the_light_changes_no_noise_and_no_clock() -> None:
    """Readings depend on the seed and on the number of the evaluation, and not on how often the light was switched."""
    plain, switched = (chip_of("soi", {}, quiet=False, ports=4, stages=2) for _ in range(2))
    for chip in (plain, switched):
        chip.load_inputs("a", ONES)
        chip.evaluate(drives_of(chip), LoadedRows("a", np.arange(3)), "mesh1")
    switched.set_light(False)
    switched.set_light(True)
    switched.safe()
    again = [chip.evaluate(drives_of(chip), LoadedRows("a", np.arange(3)), "mesh1") for chip in (plain, switched)]
    np.testing.assert_array_equal(again[0].values, again[1].values)
    np.testing.assert_array_equal(again[0].time_s, again[1].time_s)


def test_dark_evaluations_are_numbered_like_others() -> None:
    plain, dark = (chip_of("soi", {}, quiet=False, ports=4, stages=1) for _ in range(2))
    plain.evaluate(drives_of(plain), ONES, "mesh0")
    dark.set_light(False)
    dark.evaluate(drives_of(dark), ONES, "mesh0")
    dark.set_light(True)
    readings = [chip.evaluate(drives_of(chip), ONES, "mesh0").values for chip in (plain, dark)]
    np.testing.assert_array_equal(readings[0], readings[1])


def test_the_warm_up_is_part_of_the_next_evaluation() -> None:
    cold, warm = chip_of("ideal", {"laser": {"warm_up_s": 2.0}}, ports=4, stages=1), chip_of("ideal", {}, ports=4, stages=1)
    first, reference = (chip.evaluate(drives_of(chip), ONES, "mesh0") for chip in (cold, warm))
    np.testing.assert_allclose(first.time_s, reference.time_s + 2.0, rtol=1e-12)
    np.testing.assert_array_equal(first.values, reference.values)
    assert cold.status().clock_s == pytest.approx(warm.status().clock_s + 2.0)
    assert cold.status().health["light_warm_up_s"] == 2.0
    before_s = cold.status().clock_s
    cold.evaluate(drives_of(cold), ONES, "mesh0")
    assert cold.status().clock_s - before_s < 0.1
    cold.safe()
    before_s = cold.status().clock_s
    cold.set_light(True)
    assert cold.status().clock_s == pytest.approx(before_s + 2.0)
    cold.evaluate(drives_of(cold), ONES, "mesh0")
    assert cold.status().clock_s < before_s + 2.1
    assert cold.status().health["light_warm_up_s"] == 4.0


def test_a_chip_that_cannot_switch_its_light_is_always_lit() -> None:
    chip = chip_of("ideal", {"laser": {"switch": False, "warm_up_s": 5.0}}, ports=4, stages=1)
    assert not chip.describe().light_switch
    chip.evaluate(drives_of(chip), ONES, "mesh0")
    assert (chip.status().safe, chip.status().light) == (True, None)
    assert chip.status().health["laser_power_w"] == chip.parameters.laser.total_power_w
    assert chip.status().clock_s < 1.0


def test_the_power_monitor_shows_no_power_without_light() -> None:
    chip = chip_of("ideal", {}, ports=4, stages=1)
    assert chip.status().health["laser_power_w"] == 0.0
    chip.set_light(True)
    assert chip.status().health["laser_power_w"] == chip.parameters.laser.total_power_w


# ---- waits ----------------------------------------------------------------------------------------------------------


def test_slow_processes_follow_a_wait() -> None:
    """A wait of an hour and evaluations of an hour in total lead to the same drift and to the same monitors."""
    waited, measured = (chip_of("soi", {"clock": {"sample_s": 10.0}}, ports=4, stages=1) for _ in range(2))
    start_k = waited.status().health["chip_temperature_k"]
    measured.evaluate(drives_of(measured, 36), np.ones((10, 4)), "mesh0")
    waited.wait(measured.status().clock_s)
    assert waited.status().clock_s == pytest.approx(3600.0, rel=1e-3)
    assert waited.status().health["chip_temperature_k"] == measured.status().health["chip_temperature_k"] != start_k
    readings = [chip.evaluate(drives_of(chip), ONES, "mesh0") for chip in (waited, measured)]
    np.testing.assert_array_equal(readings[0].values, readings[1].values)


def test_a_fault_during_a_wait_is_found_after_it() -> None:
    fault = {"kind": "dead_heater", "channel": 1, "at_s": 100.0}
    chip = Chip(parameters_of("soi", {}, ports=4, stages=1, faults=[fault]), threads=1)
    chip.apply(np.full(16, 4.0))
    assert chip.readback().amperes[1] > 3e-3
    chip.wait(200.0)
    assert abs(chip.readback().amperes[1]) < 1e-4


@pytest.mark.parametrize("what", ["wait", "warm-up"])
@pytest.mark.parametrize("stop", ["cancel", "safe"])
def test_a_chip_in_real_time_waits_until_it_is_stopped(what: str, stop: str) -> None:
    parameters = load_chip("ideal", ports=4, stages=1)
    laser = parameters.laser.model_copy(update={"warm_up_s": 3600.0})
    chip = Chip(parameters.model_copy(update={"laser": laser}), threads=1, realtime=True)
    errors: list[DeviceError] = []

    def wait() -> None:
        try:
            chip.wait(3600.0) if what == "wait" else chip.set_light(True)
        except DeviceError as error:
            errors.append(error)

    thread = threading.Thread(target=wait)
    thread.start()
    while not chip.status().busy:
        time.sleep(0.001)
    chip.cancel() if stop == "cancel" else chip.safe()
    thread.join(10)
    assert not thread.is_alive()
    assert [(error.code, error.outcome) for error in errors] == [("interlock", "not_applied")]
    assert not chip.status().busy
    assert chip.status().light is (what == "warm-up" and stop == "cancel")


# ---- read-back ------------------------------------------------------------------------------------------------------


def test_readback_without_sources_that_measure_is_nan() -> None:
    chip = chip_of("ideal", {}, ports=4, stages=1)
    assert not chip.describe().reads_back
    measured = chip.readback()
    assert np.isnan(measured.volts).all()
    assert np.isnan(measured.amperes).all()


def test_readback_of_an_ideal_source_obeys_ohm() -> None:
    chip = chip_of("ideal", {"dac": {"reads_back": True}}, ports=4, stages=2)
    drive = np.linspace(0, 5, 32)
    chip.apply(drive)
    measured = chip.readback()
    np.testing.assert_array_equal(measured.volts, drive)
    np.testing.assert_allclose(measured.amperes, drive / 770.0, rtol=1e-12)


def test_readback_shows_self_heating_and_the_converter() -> None:
    """The current solves V = I R₀ (1 + ρ V I / P_π) for each channel."""
    heater = {"self_heating": 0.073, "ground_ohm": 0.0, "resistance_sigma": 0.0}
    chip = chip_of("soi", {"dac": {"readback_noise_a": 0.0}, "heater": heater}, ports=4, stages=1)
    drive = np.linspace(0.5, 6, 16)
    chip.apply(drive)
    measured = chip.readback()
    assert 0 < np.abs(measured.volts - drive).max() < 6 * 12 / 65535
    pi_w = chip.stages[0].truth.pi_power_w
    resistance = 770.0 * (1 + 0.073 * measured.volts * measured.amperes / pi_w)
    np.testing.assert_allclose(measured.volts, measured.amperes * resistance, rtol=1e-9)
    assert np.sum(measured.amperes) == pytest.approx(chip.status().health["supply_current_a"], rel=1e-4)


def test_readback_shows_broken_heaters_and_stuck_sources() -> None:
    faults = [
        {"kind": "dead_heater", "channel": 18},
        {"kind": "stuck_channel", "channel": 3, "volts": 5.0},
        {"kind": "stuck_channel", "channel": 4, "volts": 0.0},
    ]
    parameters = parameters_of("soi", {"dac": {"readback_noise_a": 0.0}}, ports=4, stages=2, faults=faults)
    chip = Chip(parameters, threads=1)
    chip.apply(np.full(32, 2.0))
    measured = chip.readback()
    assert measured.volts[18] == pytest.approx(2.0, rel=1e-3)
    assert measured.amperes[18] == 0.0
    assert measured.volts[3] == 5.0
    assert measured.amperes[3] == pytest.approx(5.0 / 770, rel=0.12)
    assert measured.volts[4] == 0.0
    assert measured.amperes[4] == pytest.approx(0.0, abs=1e-5), "its ground is lifted by the other heaters"
    others = np.delete(np.arange(32), [3, 4, 18])
    np.testing.assert_allclose(measured.volts[others], 2.0, rtol=1e-3)
    np.testing.assert_allclose(measured.amperes[others], 2.0 / 770, rtol=0.12)


def test_the_noise_of_readback_has_its_width_and_changes_no_reading() -> None:
    plain, measured = (chip_of("soi", {"dac": {"readback_noise_a": 1e-5}}, quiet=False, ports=8, stages=2) for _ in range(2))
    drive = np.full(128, 3.0)
    shown = []
    for chip in (plain, measured):
        chip.apply(drive)
    for _ in range(50):
        shown.append(measured.readback().amperes)
    deviations = np.std(np.array(shown), axis=0)
    assert np.sqrt(np.mean(deviations**2)) == pytest.approx(1e-5, rel=0.05)
    readings = [chip.evaluate(np.zeros((2, 64)), np.ones((3, 8)), "mesh0").values for chip in (plain, measured)]
    np.testing.assert_array_equal(readings[0], readings[1])


# ---- the description ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("topology", ["clements", "reck", "svd"])
def test_heaters_are_where_the_crosstalk_is_computed(topology: str) -> None:
    """Two heaters at the distance at_m in the geometry receive exactly `fraction` of each other's power."""
    pitches = {"column_pitch_m": 3e-4, "mode_pitch_m": 4e-5, "fraction": 0.01, "at_m": 1e-4, "exponent": 2.0, "reach_m": 4e-4}
    chip = chip_of("ideal", {"mesh": {"topology": topology}, "crosstalk": pitches}, ports=5, stages=1)
    stage = chip.describe().stages[0]
    geometry, mesh = stage.geometry, TOPOLOGIES[topology](5)
    assert geometry is not None
    assert len(geometry.mode_y_m) == 5
    assert len(geometry.phi_x_m) == len(geometry.theta_x_m) == mesh.column.max() + 1
    assert (geometry.gamma_x_m is None) == (mesh.gammas == 0)
    x, y = np.empty(stage.channels), np.empty(stage.channels)
    for column, top, theta, phi in stage.layout:
        x[theta], x[phi] = geometry.theta_x_m[column], geometry.phi_x_m[column]
        y[[theta, phi]] = geometry.mode_y_m[top]
    if geometry.gamma_x_m is not None:
        first, last = stage.groups["gamma"]
        x[first:last], y[first:last] = geometry.gamma_x_m, geometry.mode_y_m
    # The chip's own positions, relative to its first heater of φ.
    heaters = chip.stages[0].segments.heaters
    own = np.stack((x - geometry.phi_x_m[0], y - geometry.mode_y_m[0]), axis=1)
    np.testing.assert_allclose(heaters * np.array([1.5e-4, 4e-5]) if heaters.dtype.kind == "i" else heaters, own, atol=1e-12)


def test_the_geometry_of_a_weight_bank() -> None:
    mesh = {"mesh": {"topology": "weight_bank", "outputs": 3}}
    chip = chip_of("soi", mesh, ports=4, stages=1)
    geometry = chip.describe().stages[0].geometry
    assert geometry is not None
    np.testing.assert_allclose(geometry.ring_x_m, np.arange(4) * 1e-4)
    np.testing.assert_allclose(geometry.mode_y_m, np.arange(3) * 5e-5)
    assert (geometry.phi_x_m, geometry.theta_x_m, geometry.gamma_x_m) == ((), (), None)


def test_nominal_values_in_the_description() -> None:
    description = chip_of("soi", {"heater": {"rise_s": 1e-6, "fall_s": 3e-6}}, quiet=False, ports=4, stages=2).describe()
    assert (description.inputs_at_once, description.phases_steady_s) == ("many", STEADY_S)
    fibres = chip_of("soi", {"modulator": {"phase_drift_rad": 3.0, "phase_drift_tau_s": 1080.0}}, ports=4, stages=1)
    steady_s = fibres.describe().phases_steady_s
    assert steady_s == pytest.approx(0.3, rel=0.01), "0.1 rad between two inputs that each walk 1 rad a minute"
    assert (description.drive.noise_v, description.drive.time_constant_s) == (1e-5, 3e-6)
    assert (description.light_switch, description.reads_back) == (True, True)
    assert description.readout.bandwidth_hz == 1e5
    ideal = chip_of("ideal", {}, ports=4, stages=2).describe()
    assert (ideal.readout.noise, ideal.readout.bandwidth_hz) == ((0.0, 0.0), None)
    assert (ideal.phases_steady_s, ideal.drive.noise_v) == (STEADY_S, 0.0)


def test_a_chip_with_an_input_switch_lights_one_input() -> None:
    chip, all_lit = (chip_of("ideal", {"modulator": {"kind": kind}}, ports=4, stages=1) for kind in ("switch", "array"))
    assert chip.describe().inputs_at_once == "one"
    with pytest.raises(DeviceError, match="row 1 of inputs lights 4 inputs, but this device lights one at a time"):
        chip.evaluate(drives_of(chip), np.vstack([np.eye(4)[:1], np.ones((2, 4))]), "mesh0")
    readings = [each.evaluate(drives_of(each), np.eye(4), "mesh0").values for each in (chip, all_lit)]
    np.testing.assert_array_equal(readings[0], readings[1])
