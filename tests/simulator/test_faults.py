"""Faults of a chip, and their effect on readings and status."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from support.chips import chip_of

from photonloop.protocols.config import ConfigError
from photonloop.protocols.device import LoadedRows
from photonloop.simulator.engine.chip import Chip
from photonloop.simulator.parameters import load_chip
from photonloop.simulator.truth import reference
from photonloop.simulator.truth.chip_truth import stage_matrix, true_phases


def faulty_chip(*faults: dict[str, Any], **whole: Any) -> Chip:
    return chip_of(
        "soi",
        {
            "drift": {"sigma_rad": 0.0},
            "temperature": {"sigma_k": 0.0, "heating_k_per_w": 0.0},
            "heater": {"ground_ohm": 0.0, "resistance_sigma": 0.0},
        },
        ports=6,
        faults=faults,
        **whole,
    )


def readings(chip: Chip, volts: NDArray, stage: int = 0) -> NDArray:
    return chip.evaluate(volts[np.newaxis], np.ones((4, 6)), f"mesh{stage}").values[0]


VOLTS = np.random.default_rng(0).uniform(1, 6, 36)


def test_a_dead_heater_has_no_power_and_no_crosstalk() -> None:
    chip, whole = faulty_chip({"kind": "dead_heater", "channel": 7}), faulty_chip()
    other = VOLTS.copy()
    other[7] = 0.0
    np.testing.assert_array_equal(readings(chip, VOLTS), readings(chip, other))
    np.testing.assert_allclose(readings(chip, VOLTS), readings(whole, other), rtol=5e-6)
    assert np.abs(readings(whole, VOLTS) - readings(whole, other)).max() > 1e-3 * readings(whole, VOLTS).max()


def test_a_stuck_channel_keeps_its_voltage() -> None:
    chip, whole = faulty_chip({"kind": "stuck_channel", "channel": 36 + 3, "volts": 5.0}), faulty_chip()
    stuck = VOLTS.copy()
    stuck[3] = 5.0
    np.testing.assert_allclose(readings(chip, VOLTS, 1), readings(whole, stuck, 1), rtol=1e-2)
    np.testing.assert_array_equal(readings(chip, VOLTS, 0), readings(whole, VOLTS, 0))
    assert chip.status().heater_power_w == 0, "only the supply current shows the stuck source"
    own, truth = whole.parameters.heater, whole.stages[1].truth
    warm = 1 + own.self_heating * reference.power_w(whole, 1, stuck)[3] / truth.pi_power_w[3]
    expected_a = 5.0 / (truth.resistance_ohm[3] * warm)
    assert chip.status().health["supply_current_a"] == pytest.approx(expected_a, rel=1e-3)


def test_a_dead_heater_lowers_the_supply_current() -> None:
    drive = np.full(72, 4.0)
    shown = []
    for chip in (faulty_chip(), faulty_chip({"kind": "dead_heater", "channel": 7})):
        chip.apply(drive)
        shown.append(chip.status())
    currents = [status.health["supply_current_a"] for status in shown]
    assert isinstance(currents[0], float) and isinstance(currents[1], float)
    assert currents[0] - currents[1] == pytest.approx(4.0 / 770, rel=0.1)
    assert shown[0].heater_power_w == shown[1].heater_power_w
    assert shown[0].faults == shown[1].faults == ()


def test_an_open_detector_reads_zero() -> None:
    chip, whole = faulty_chip({"kind": "open_detector", "stage": 0, "port": 2}), faulty_chip()
    values, expected = readings(chip, VOLTS), readings(whole, VOLTS)
    assert not values[:, 2].any()
    np.testing.assert_array_equal(np.delete(values, 2, axis=1), np.delete(expected, 2, axis=1))
    np.testing.assert_array_equal(readings(chip, VOLTS, 1), readings(whole, VOLTS, 1))


def test_a_broken_coupler_no_longer_couples() -> None:
    fault = {"kind": "broken_coupler", "stage": 0, "column": 2, "top": 2, "coupler": 2}
    chip, whole = faulty_chip(fault), faulty_chip()
    assert np.abs(readings(chip, VOLTS) - readings(whole, VOLTS)).max() > 1e-2 * readings(whole, VOLTS).max()
    exact = reference.settled_currents_a(chip, 0, VOLTS, np.ones((4, 6)))
    np.testing.assert_allclose(readings(chip, VOLTS), exact, rtol=1e-4)
    assert not np.allclose(stage_matrix(chip, 0), stage_matrix(whole, 0))
    # Both couplers at angle 0: no light changes its mode.
    both = faulty_chip(fault, {**fault, "coupler": 1})
    alone = both.stages_at(both.ambient().moment(0.0))[0].truth.coupler_error_rad
    k = int(np.flatnonzero((both.stages[0].mesh.column == 2) & (both.stages[0].mesh.top == 2))[0])
    np.testing.assert_allclose(alone[k], -np.pi / 4)


def test_the_laser_goes_off_at_the_time_of_its_fault() -> None:
    chip = faulty_chip({"kind": "laser_off", "at_s": 1e-3})
    per_setting_s = 40e-6 + 4 * 10e-6
    lit = chip.evaluate(np.repeat(VOLTS[np.newaxis], 30, axis=0), np.ones((4, 6)), "mesh1")
    dark_a = np.float32(1e-9)
    off = lit.time_s >= 1e-3
    np.testing.assert_allclose(lit.values[off], dark_a, rtol=1e-6)
    assert (lit.values[~off].max(axis=(1, 2)) > 10 * dark_a).all()
    assert 10 <= np.count_nonzero(off) == 30 - np.ceil((1e-3 - 40e-6) / per_setting_s)
    assert chip.status().health["laser_power_w"] == 0.0


def test_a_fault_at_a_later_time_invalidates_cached_results() -> None:
    """From its time on, a fault affects readings at the held drive and of loaded inputs, also cached ones."""
    fault = {"kind": "stuck_channel", "channel": 4, "volts": 0.0, "at_s": 2e-3}
    chip, gone = faulty_chip(fault), faulty_chip({**fault, "at_s": 0.0})
    whole = faulty_chip()
    for each in (chip, gone, whole):
        each.apply(np.concatenate((VOLTS, VOLTS)))
    first = readings(chip, VOLTS, 1)
    np.testing.assert_allclose(first, readings(whole, VOLTS, 1), rtol=1e-6)
    last = [readings(chip, VOLTS, 1) for _ in range(40)][-1]
    np.testing.assert_allclose(last, readings(gone, VOLTS, 1), rtol=1e-4)
    assert np.abs(last - first).max() > 1e-2 * first.max()


def test_the_description_contains_no_faults() -> None:
    fault = {"kind": "dead_heater", "channel": 7}
    assert faulty_chip(fault).describe() == faulty_chip().describe()
    assert true_phases(faulty_chip(fault), 0, VOLTS).theta[7] != true_phases(faulty_chip(), 0, VOLTS).theta[7]


EXACT = {
    "dac": {"bits": 0, "inl_lsb": 0.0, "noise_v": 0.0, "slow_noise_v": 0.0, "gain_drift_sigma": 0.0},
    "heater": {"self_heating": 0.0, "ground_ohm": 0.0, "resistance_sigma": 0.0},
    "laser": {"drift_sigma": 0.0, "jitter_pm": 0.0},
    "modulator": {
        "extinction_db": 0.0,
        "amplitude_sigma": 0.0,
        "crosstalk": 0.0,
        "phase_drift_rad": 0.0,
        "coupling_drift_sigma": 0.0,
        "path_sigma_m": 0.0,
    },
    "photodiode": {"dark_a": 0.0, "saturation_a": 0.0},
    "adc": {"bits": 0, "offset_drift_lsb": 0.0, "gain_drift_sigma": 0.0},
    "drift": {"sigma_rad": 0.0},
    "temperature": {"sigma_k": 0.0, "heating_k_per_w": 0.0},
}
"""Voltages, inputs and readings without errors and drift, so that exchanged wires and decays have closed forms."""


def exact_chip(*faults: dict[str, Any], **whole: Any) -> Chip:
    return chip_of("soi", EXACT, ports=6, faults=faults, **whole)


def test_swapped_heaters_are_driven_by_one_another() -> None:
    """Exchanging two entries of the drive undoes the fault. Three channels can be rotated by two exchanges."""
    faults = [
        {"kind": "swapped_heaters", "channel": 5, "other": 20},
        {"kind": "swapped_heaters", "channel": 20, "other": 31},
    ]
    whole, one, two = exact_chip(), exact_chip(faults[0]), exact_chip(*faults)
    entered = VOLTS.copy()
    entered[[5, 20]] = VOLTS[[20, 5]]
    np.testing.assert_allclose(readings(one, entered), readings(whole, VOLTS), rtol=1e-6)
    entered[[5, 20, 31]] = VOLTS[[31, 5, 20]]
    np.testing.assert_allclose(readings(two, entered), readings(whole, VOLTS), rtol=1e-6)
    assert np.abs(readings(one, VOLTS) - readings(whole, VOLTS)).max() > 1e-2 * readings(whole, VOLTS).max()
    np.testing.assert_array_equal(readings(one, VOLTS, 1), readings(whole, VOLTS, 1))
    twice = exact_chip(faults[0], {**faults[0], "channel": 20, "other": 5})
    np.testing.assert_array_equal(readings(twice, VOLTS), readings(whole, VOLTS))


def test_a_source_keeps_its_errors_if_its_wire_is_exchanged() -> None:
    """Steps, nonlinearity and a stuck voltage move with the source; the heater keeps its resistance and its place."""
    swap = {"kind": "swapped_heaters", "channel": 5, "other": 20}
    stuck = {"kind": "stuck_channel", "channel": 5, "volts": 3.0}
    dead = {"kind": "dead_heater", "channel": 20}
    whole, swapped = faulty_chip(), faulty_chip(swap)
    truth, rho = whole.stages[0].truth, whole.parameters.heater.self_heating

    def source_v(power_w: NDArray) -> NDArray:
        return np.sqrt(power_w * 770 * (1 + rho * power_w / truth.pi_power_w))

    expected = source_v(reference.power_w(whole, 0, VOLTS))
    expected[[5, 20]] = expected[[20, 5]]
    np.testing.assert_allclose(source_v(reference.power_w(swapped, 0, VOLTS)), expected, rtol=1e-12)
    assert source_v(reference.power_w(faulty_chip(swap, stuck), 0, VOLTS))[20] == pytest.approx(3.0)
    assert source_v(reference.power_w(faulty_chip(stuck, swap), 0, VOLTS))[20] == pytest.approx(3.0)
    assert reference.power_w(faulty_chip(swap, stuck, dead), 0, VOLTS)[20] == 0.0
    for faults in ([swap], [swap, stuck], [swap, stuck, dead]):
        chip = faulty_chip(*faults)
        exact = reference.settled_currents_a(chip, 0, VOLTS, np.ones((4, 6)))
        np.testing.assert_allclose(readings(chip, VOLTS), exact, atol=2e-5 * exact.max())


def test_heaters_in_different_chunks_can_be_exchanged() -> None:
    parts = {"crosstalk": {"fraction": 0.0}}
    fault = {"kind": "swapped_heaters", "channel": 5, "other": 2200}
    chip, whole = chip_of("soi", parts, ports=50, stages=1, faults=(fault,)), chip_of("soi", parts, ports=50, stages=1)
    volts, inputs = np.random.default_rng(0).uniform(1, 6, 2500), np.ones((2, 50))
    exact = reference.settled_currents_a(chip, 0, volts, inputs)
    values = chip.evaluate(volts[np.newaxis], inputs, "mesh0").values[0]
    np.testing.assert_allclose(values, exact, atol=2e-5 * exact.max())
    assert np.abs(values - whole.evaluate(volts[np.newaxis], inputs, "mesh0").values[0]).max() > 1e-3 * values.max()


def test_swapped_inputs_arrive_at_one_another_s_port() -> None:
    fault = {"kind": "swapped_inputs", "port": 1, "other": 4}
    chip, whole = exact_chip(fault), exact_chip()
    inputs = np.random.default_rng(0).random((7, 6))
    entered = inputs.copy()
    entered[:, [1, 4]] = inputs[:, [4, 1]]
    # The static phases belong to the modulators, so light takes them to the other port.
    phase_rad = whole.input_truth().phase_rad
    phase_rad[[1, 4]] = phase_rad[[4, 1]]
    for each, amplitudes in ((chip, inputs), (whole, entered)):
        each.load_inputs("a", amplitudes)
    for stage in ("mesh0", "mesh1"):
        rows = LoadedRows("a", np.arange(7))
        at_swapped, at_entered = (each.evaluate(VOLTS[np.newaxis], rows, stage).values for each in (chip, whole))
        np.testing.assert_allclose(at_swapped, at_entered, rtol=1e-5, atol=1e-6 * at_entered.max())


def test_inputs_are_exchanged_behind_their_modulators_also_if_they_were_loaded_before() -> None:
    fault = {"kind": "swapped_inputs", "port": 0, "other": 5, "at_s": 2e-3}
    chip, whole = (chip_of("soi", {}, ports=6, faults=faults) for faults in ((fault,), ()))
    inputs = np.random.default_rng(0).random((4, 6))
    chip.load_inputs("a", inputs)
    before, after = chip.ambient().moment(1e-3), chip.ambient().moment(3e-3)
    order = [5, 1, 2, 3, 4, 0]
    np.testing.assert_allclose(reference.entering(chip, inputs, before), reference.entering(whole, inputs, before), rtol=1e-12)
    factors = chip.ambient().input_factors([after], chip.input_truth().path_m)
    assert factors is not None
    expected = (reference.entering(whole, inputs, after) / factors)[:, order] * factors
    np.testing.assert_allclose(reference.entering(chip, inputs, after), expected, rtol=1e-12)
    for stage in (0, 1):
        chip.let_pass(3e-3)
        seen = chip.evaluate(VOLTS[np.newaxis], LoadedRows("a", np.arange(4)), f"mesh{stage}")
        exact = reference.settled_currents_a(chip, stage, VOLTS, inputs, chip.ambient().moment(seen.time_s[0]))
        np.testing.assert_allclose(seen.values[0], exact, atol=2e-5 * exact.max())


def test_a_dying_heater_loses_power_and_current_from_its_time_on() -> None:
    """Its conductance decays as e^{-(t - at_s)/tau_s}: at a fixed voltage, so do power and current."""
    chip, whole = exact_chip({"kind": "dying_heater", "channel": 7, "tau_s": 5.0, "at_s": 2.0}), exact_chip()
    drive = np.concatenate((VOLTS, VOLTS))
    for each in (chip, whole):
        each.apply(drive)
    for wait_s, elapsed_s in ((1.0, 0.0), (4.0, 3.0), (20.0, 23.0)):
        for each in (chip, whole):
            each.let_pass(wait_s)
        share = np.exp(-elapsed_s / 5.0)
        weaker = VOLTS.copy()
        weaker[7] *= np.sqrt(share)
        np.testing.assert_allclose(readings(chip, VOLTS), readings(whole, weaker), rtol=2e-3, atol=1e-9)
        currents = [each.status().health["supply_current_a"] for each in (chip, whole)]
        assert isinstance(currents[0], float) and isinstance(currents[1], float)
        assert currents[1] - currents[0] == pytest.approx(VOLTS[7] / 770 * (1 - share), rel=1e-2, abs=1e-9)
        assert chip.status().heater_power_w == whole.status().heater_power_w


def test_a_dying_heater_affects_cached_fields_and_heaters_that_are_not_settled() -> None:
    """A held stage whose heaters respond with a lag gets its new power at the start of an evaluation."""
    fault = {"kind": "dying_heater", "channel": 7, "tau_s": 5.0}
    for parts in ({}, {"heater": {"rise_s": 3e-6, "fall_s": 4e-6}}):
        chip = chip_of("soi", parts, ports=6, faults=(fault,))
        chip.apply(np.concatenate((VOLTS, VOLTS)))
        inputs = np.random.default_rng(0).random((4, 6))
        chip.load_inputs("a", inputs)
        for wait_s in (0.0, 2.0, 5.0):
            chip.let_pass(wait_s)
            chip.evaluate(VOLTS[np.newaxis], LoadedRows("a", np.arange(4)), "mesh1")
            seen = chip.evaluate(VOLTS[np.newaxis], LoadedRows("a", np.arange(4)), "mesh1")
            exact = reference.settled_currents_a(chip, 1, VOLTS, inputs, chip.ambient().moment(seen.time_s[0]))
            np.testing.assert_allclose(seen.values[0], exact, atol=1e-4 * exact.max())


def test_a_drifting_detector_loses_its_responsivity() -> None:
    faults = [
        {"kind": "drifting_detector", "stage": 1, "port": 2, "tau_s": 3.0, "at_s": 1.0},
        {"kind": "drifting_detector", "stage": 1, "port": 2, "tau_s": 6.0, "at_s": 4.0},
    ]
    chip, whole = exact_chip(*faults), exact_chip()
    for wait_s, exponent in ((0.5, 0.0), (2.5, 2.0 / 3), (4.0, 6.0 / 3 + 3.0 / 6)):
        chip.let_pass(wait_s)
        expected = readings(whole, VOLTS, 1)
        expected[:, 2] *= np.exp(-exponent)
        np.testing.assert_allclose(readings(chip, VOLTS, 1), expected, rtol=2e-3)
        np.testing.assert_allclose(readings(chip, VOLTS, 0), readings(whole, VOLTS, 0), rtol=1e-6)


def test_gradual_faults_begin_their_grid_at_their_own_time() -> None:
    """Nothing is computed again before the fault, nor on a chip without one."""
    fault = {"kind": "dying_heater", "channel": 7, "tau_s": 5.0, "at_s": 100.0}
    ambient = exact_chip(fault).ambient()
    assert ambient.grids.ageing == pytest.approx(5.0 / 2**14)
    assert ambient.moment(0.0) == ambient.moment(99.0)
    assert ambient.moment(105.0).ageing == pytest.approx(2**14, abs=1)
    assert exact_chip().ambient().moment(1e6) == exact_chip().ambient().moment(0.0)


def test_faults_in_a_weight_bank() -> None:
    faults = (
        {"kind": "swapped_inputs", "port": 0, "other": 2},
        {"kind": "swapped_heaters", "channel": 1, "other": 5},
        {"kind": "dying_heater", "channel": 3, "tau_s": 1.0},
        {"kind": "drifting_detector", "stage": 0, "port": 1, "tau_s": 2.0},
    )
    chip = chip_of("soi", {"mesh": {"topology": "weight_bank"}}, ports=4, stages=1, faults=faults)
    volts, inputs = np.random.default_rng(0).uniform(0, 4, 16), np.random.default_rng(1).random((5, 4))
    for wait_s in (0.0, 0.7):
        chip.let_pass(wait_s)
        seen = chip.evaluate(volts[np.newaxis], inputs, chip.stages[0].description.name)
        exact = reference.settled_currents_a(chip, 0, volts, inputs, chip.ambient().moment(seen.time_s[0]))
        np.testing.assert_allclose(seen.values[0], exact, atol=2e-5 * np.abs(exact).max())


@pytest.mark.parametrize(
    ("fault", "words"),
    [
        ('kind = "swapped_heaters"\nchannel = 3', "swapped_heaters needs other"),
        ('kind = "swapped_heaters"\nchannel = 3\nother = 3', "exchanges 3 with itself: other must be another number"),
        ('kind = "swapped_heaters"\nchannel = 3\nother = 72', "other is 72, but the chip has channels 0 to 71"),
        (
            'kind = "swapped_heaters"\nchannel = 3\nother = 40',
            "channel 3 belongs to stage 0 and channel 40 to stage 1; exchange channels of the same stage",
        ),
        ('kind = "swapped_inputs"\nport = 6\nother = 0', "port is 6, but the chip has inputs 0 to 5"),
        ('kind = "swapped_inputs"\nport = 0\nother = 6', "other is 6, but the chip has inputs 0 to 5"),
        ('kind = "swapped_inputs"\nport = 0\nother = 1\ntau_s = 1.0', "swapped_inputs does not take tau_s"),
        ('kind = "dying_heater"\nchannel = 0', "dying_heater needs tau_s"),
        ('kind = "dying_heater"\nchannel = 0\ntau_s = 0.0', "tau_s"),
        ('kind = "drifting_detector"\nstage = 0\nport = 6\ntau_s = 1.0', "port is 6, but stage 0 has detectors 0 to 5"),
        ('kind = "dead_heater"\nchannel = 72', r"faults.0 \(dead_heater\): channel is 72, but the chip has channels 0 to 71"),
        (
            'kind = "open_detector"\nstage = 2\nport = 0',
            "stage is 2, but the chip has stages 0 to 1",
        ),
        ('kind = "open_detector"\nstage = 1\nport = 6', r"port is 6, but stage 1 has detectors 0 to 5"),
        (
            'kind = "broken_coupler"\nstage = 0\ncolumn = 1\ntop = 2',
            "stage 0, a clements mesh of 6 ports, has no interferometer in column 1 on modes 2 and 3",
        ),
    ],
)
def test_faults_of_missing_parts_are_refused(tmp_path: Path, fault: str, words: str) -> None:
    path = tmp_path / "broken.toml"
    path.write_text(f'preset = "soi"\nports = 6\n[[faults]]\n{fault}\n')
    with pytest.raises(ConfigError, match=words):
        Chip(load_chip(path))
