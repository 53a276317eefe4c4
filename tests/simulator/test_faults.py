"""Faults of a chip, and their effect on readings and status."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from support.chips import chip_of

from photonloop.protocols.config import ConfigError
from photonloop.simulator.engine.chip import Chip
from photonloop.simulator.parameters import load_chip
from photonloop.simulator.truth import reference
from photonloop.simulator.truth.chip_truth import stage_matrix, true_phases


def faulty_chip(*faults: dict[str, Any], **whole: Any) -> Chip:
    return chip_of("soi", {"drift": {"sigma_rad": 0.0}, "temperature": {"sigma_k": 0.0}}, ports=6, faults=faults, **whole)


def readings(chip: Chip, volts: NDArray, stage: int = 0) -> NDArray:
    return chip.evaluate(volts[np.newaxis], np.ones((4, 6)), f"mesh{stage}").values[0]


VOLTS = np.random.default_rng(0).uniform(1, 6, 36)


def test_a_dead_heater_has_no_power_and_no_crosstalk() -> None:
    chip, whole = faulty_chip({"kind": "dead_heater", "channel": 7}), faulty_chip()
    other = VOLTS.copy()
    other[7] = 0.0
    np.testing.assert_array_equal(readings(chip, VOLTS), readings(chip, other))
    np.testing.assert_allclose(readings(chip, VOLTS), readings(whole, other), rtol=1e-6)
    assert np.abs(readings(whole, VOLTS) - readings(whole, other)).max() > 1e-3 * readings(whole, VOLTS).max()


def test_a_stuck_channel_keeps_its_voltage() -> None:
    chip, whole = faulty_chip({"kind": "stuck_channel", "channel": 36 + 3, "volts": 5.0}), faulty_chip()
    stuck = VOLTS.copy()
    stuck[3] = 5.0
    np.testing.assert_allclose(readings(chip, VOLTS, 1), readings(whole, stuck, 1), rtol=1e-2)
    np.testing.assert_array_equal(readings(chip, VOLTS, 0), readings(whole, VOLTS, 0))
    assert chip.status().heater_power_w == 0, "only the supply current shows the stuck source"
    expected_a = 5.0 / (770 * (1 + 0.073 * reference.power_w(whole, 1, stuck)[3] / whole.stages[1].truth.pi_power_w[3]))
    assert chip.status().health["supply_current_a"] == pytest.approx(expected_a, rel=1e-3)


def test_a_dead_heater_lowers_the_supply_current() -> None:
    drive = np.full(72, 4.0)
    shown = []
    for chip in (faulty_chip(), faulty_chip({"kind": "dead_heater", "channel": 7})):
        chip.apply(drive)
        shown.append(chip.status())
    currents = [status.health["supply_current_a"] for status in shown]
    assert isinstance(currents[0], float) and isinstance(currents[1], float)
    assert currents[0] - currents[1] == pytest.approx(4.0 / 820, rel=0.05)
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


@pytest.mark.parametrize(
    ("fault", "words"),
    [
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
