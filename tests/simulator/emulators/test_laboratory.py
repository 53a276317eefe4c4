"""The laboratory compared with the chip alone, and the wiring of a virtual bench."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from photonloop.protocols.config import ConfigError
from photonloop.simulator.emulators.bench_choices import BenchChoices
from photonloop.simulator.emulators.laboratory import AMPLIFIER_V, STAMPS, Laboratory, LaserLight, stamped_sequence
from photonloop.simulator.emulators.virtual_bench import assign_channels, build
from photonloop.simulator.emulators.virtual_labjack import VirtualLabJackT7
from photonloop.simulator.engine.chip import Chip
from photonloop.simulator.parameters import load_chip

IDEAL = load_chip("ideal", ports=4, stages=2, seed=5)


def driven(laboratory: Laboratory, rng: np.random.Generator) -> Laboratory:
    """Apply random voltages to all heaters and modulators, and switch the light on."""
    for channel in range(laboratory.heater_v.size):
        laboratory.heater(channel).hold(float(rng.uniform(0, 5)))
    for port in range(laboratory.modulator_v.size):
        laboratory.modulator(port).hold(float(rng.uniform(0, 4)))
    laboratory.set_light(LaserLight(laboratory.laser_max_w, 1550.0, True))
    return laboratory


def test_detectors_show_the_readings_of_the_chip() -> None:
    laboratory = driven(Laboratory(IDEAL), np.random.default_rng(1))
    chip = Chip(IDEAL)
    chip.apply(laboratory.heater_v)
    amplitudes = np.sin(np.pi * laboratory.modulator_v / (2 * laboratory.v_pi))
    for index, stage in enumerate(chip.describe().stages):
        held = laboratory.heater_v[stage.first_channel : stage.first_channel + stage.channels]
        expected = chip.evaluate(held[np.newaxis], amplitudes[np.newaxis], stage.name).values[0, 0]
        np.testing.assert_allclose(laboratory.measure(index), expected, rtol=1e-4, atol=1e-9)


def test_light_depends_on_laser_modulators_and_couplers() -> None:
    laboratory = driven(Laboratory(IDEAL), np.random.default_rng(2))
    full_a = laboratory.measure(0)
    assert full_a.max() > 1e-4
    laboratory.set_light(replace(laboratory.light, power_w=laboratory.laser_max_w / 2))
    np.testing.assert_allclose(laboratory.measure(0), full_a / 2, rtol=1e-5)
    laboratory.set_light(LaserLight(laboratory.laser_max_w, 1580.0, True))  # half the passband of the couplers away
    np.testing.assert_allclose(laboratory.measure(0), full_a / 2, rtol=1e-5)
    laboratory.set_light(LaserLight(laboratory.laser_max_w, 1550.0, False))
    assert (laboratory.measure(0) == 0.0).all()
    laboratory.set_light(LaserLight(laboratory.laser_max_w, 1550.0, True))
    for port in range(4):
        laboratory.modulator(port).hold(0.0)
    assert (laboratory.measure(0) == 0.0).all()
    laboratory.modulator(2).hold(laboratory.v_pi)
    assert laboratory.amplitudes() == pytest.approx([0, 0, 1, 0])
    assert laboratory.measure(0).sum() == pytest.approx(
        IDEAL.laser.total_power_w / 4 * IDEAL.photodiode.responsivity_a_per_w, rel=1e-4
    )


def test_amplifiers_scale_the_full_scale_to_their_own() -> None:
    laboratory = driven(Laboratory(load_chip("soi", ports=4, stages=1)), np.random.default_rng(3))
    volts = laboratory.detector_v(range(4))
    np.testing.assert_allclose(volts, laboratory.log[-1].current_a * AMPLIFIER_V / laboratory.full_scale_a[0])
    assert len(laboratory.log) == 1


def test_every_measurement_has_its_own_noise_and_is_logged_with_its_voltages() -> None:
    laboratory = driven(Laboratory(load_chip("soi", ports=4, stages=1)), np.random.default_rng(4))
    first, second = laboratory.measure(0), laboratory.measure(0)
    assert (first != second).any()
    np.testing.assert_allclose(first, second, atol=1e-3 * laboratory.full_scale_a[0])
    before = laboratory.heater_v.copy()
    laboratory.heater(7).hold(1.0)
    laboratory.measure(0)
    assert [entry.sequence for entry in laboratory.log] == [1, 2, 3]
    np.testing.assert_array_equal(laboratory.log[1].heater_v, before)
    assert laboratory.log[2].heater_v[7] == 1.0


def test_heating_does_not_depend_on_the_sign_and_peaks_are_recorded() -> None:
    laboratory = driven(Laboratory(IDEAL), np.random.default_rng(5))
    plain = laboratory.measure(0)
    for channel, volts in enumerate(laboratory.heater_v.copy()):
        laboratory.heater(channel).hold(-float(volts))
    np.testing.assert_array_equal(laboratory.measure(0), plain)
    laboratory.heater(3).hold(11.9)  # the chip of a bench has no limits
    laboratory.measure(0)
    laboratory.heater(3).hold(0.0)
    assert laboratory.peak_v[3] == 11.9
    assert laboratory.peak_power_w > 11.9**2 / IDEAL.heater.resistance_ohm


def test_the_chips_clock_advances_by_the_time_that_instruments_take() -> None:
    laboratory = Laboratory(IDEAL)
    laboratory.measure(0)
    before_s = laboratory.chip.status().clock_s
    laboratory.let_pass(2.5)
    laboratory.measure(0)
    assert laboratory.chip.status().clock_s == pytest.approx(before_s + 2.5, abs=1e-3)


def test_a_sixteen_bit_converter_resolves_stamps() -> None:
    laboratory = Laboratory(load_chip("soi", ports=4, stages=1), stamped=True)
    device = VirtualLabJackT7(laboratory.detector_v)
    for _ in range(STAMPS + 10):
        volts = np.frombuffer(device.handle(bytes([0, 1, 0, 0, 0, 6, 1, 3, 0, 0, 0, 8])).data[9:], ">f4")
        amps = volts / AMPLIFIER_V * laboratory.full_scale_a[0]
        assert {stamped_sequence(float(a), laboratory.full_scale_a[0]) for a in amps} == {laboratory.measurements % STAMPS}


# ---- wiring ----------------------------------------------------------------------------------------------------------


def test_default_instruments_are_large_enough_for_the_chip() -> None:
    wiring = assign_channels(16, 4, 4, BenchChoices())
    assert (wiring.heaters, wiring.modulators, wiring.detectors, wiring.laser) == (
        "qontrol",
        "qdac2",
        "labjack-t7",
        "santec-tsl570",
    )
    large = assign_channels(4096, 64, 64, BenchChoices())
    assert (large.modulators, large.detectors) == ("scpi-source", "scpi-readout")
    assert assign_channels(64, 8, 16, BenchChoices()).detectors == "keysight-daq970a"


def test_one_source_may_drive_both() -> None:
    wiring = assign_channels(16, 4, 4, BenchChoices(heaters="qdac2", modulators="qdac2"))
    assert wiring.heater_channels == tuple(range(16))
    assert wiring.modulator_channels == (16, 17, 18, 19)


@pytest.mark.parametrize(
    ("choices", "words"),
    [
        (BenchChoices(heaters="qdac"), "heaters: there is no 'qdac' on the bench; did you mean 'qdac2'?"),
        (BenchChoices(heaters="qdac2"), "heaters and modulators need 72 channels, more than qdac2 has (24)"),
        (BenchChoices(heaters="qdac2", modulators="qontrol"), "heaters need 64 channels, more than qdac2 has (24)"),
        (BenchChoices(detectors="labjack-t7"), "detectors need 16 inputs, more than labjack-t7 has (14)"),
        (BenchChoices(laser="pm100d"), "laser: there is no 'pm100d' on the bench"),
    ],
)
def test_instruments_that_do_not_fit_are_refused(choices: BenchChoices, words: str) -> None:
    with pytest.raises(ConfigError) as refused:
        assign_channels(64, 8, 16, choices)
    assert words in str(refused.value)


def test_every_choice_is_wired_to_the_chip() -> None:
    """Set one heater, one modulator and the laser with the chosen instruments, and read with every readout."""
    parameters = load_chip("ideal", ports=4, stages=1)
    commands = {
        "qontrol": lambda c, v: f"v{c}={v}".encode(),
        "qdac2": lambda c, v: f"sour{c + 1}:volt {v}".encode(),
        "scpi-source": lambda c, v: f"VOLT {v},(@{c + 1})".encode(),
    }
    laser_commands = {"santec-tsl570": b":POW 13.01;:POW:STAT 1", "scpi-laser": b"POW 0.02;:OUTP 1"}
    for heaters, modulators, laser in (
        ("qontrol", "qdac2", "santec-tsl570"),
        ("qdac2", "scpi-source", "scpi-laser"),
        ("scpi-source", "qontrol", "santec-tsl570"),
        ("qdac2", "qdac2", "scpi-laser"),
    ):
        bench = build(parameters, BenchChoices(heaters=heaters, modulators=modulators, laser=laser))
        wiring, units, laboratory = bench.wiring, bench.units, bench.laboratory
        units[heaters].emulator.handle(commands[heaters](wiring.heater_channels[5], 2.0))
        units[modulators].emulator.handle(commands[modulators](wiring.modulator_channels[2], 4.0))
        units[laser].emulator.handle(laser_commands[laser])
        other = next(name for name in laser_commands if name != laser)
        units[other].emulator.handle(b":POW:STAT 0;:OUTP 0")  # connected to nothing
        assert laboratory.heater_v[5] == pytest.approx(2.0, abs=1e-4)
        assert laboratory.modulator_v == pytest.approx([0, 0, 4, 0], abs=1e-4)
        assert laboratory.light.is_on
        units["keysight-daq970a"].emulator.handle(b"CONF:VOLT:DC 10,(@101:104)")
        seen = [
            np.frombuffer(units["labjack-t7"].emulator.handle(bytes([0, 1, 0, 0, 0, 6, 1, 3, 0, 0, 0, 8])).data[9:], ">f4"),
            np.array(units["keysight-daq970a"].emulator.handle(b"READ?").data.split(b","), float),
            np.array(units["scpi-readout"].emulator.handle(b"MEAS:VOLT? (@1:4)").data.split(b","), float),
        ]
        expected = laboratory.measure(0) * AMPLIFIER_V / laboratory.full_scale_a[0]
        assert expected.max() > 0.1
        for volts in seen:
            np.testing.assert_allclose(volts, expected, atol=5e-4)
        assert float(units["pm100d"].emulator.handle(b"SENS:CORR:WAV 1550;:READ?").data) == pytest.approx(2e-4, rel=5e-3)
        laboratory.close()
