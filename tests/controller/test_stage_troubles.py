"""Defects of virtual chips are named, and none are invented; matrices from powers against their closed form."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from scipy.stats import unitary_group
from support.calibrated_chips import soi_chip

from photonloop.controller.calibration.calibrated_device import Trouble
from photonloop.controller.calibration.matrix_retrieval import power_law, retrieved_matrices
from photonloop.controller.calibration.mode_relations import mode_relations
from photonloop.controller.calibration.setting_reader import SettingReader
from photonloop.controller.calibration.stage_troubles import find_troubles
from photonloop.controller.calibration.twin_layout import twin_layout
from photonloop.controller.decompose.fidelity import fidelity

MEMORY: dict[str, dict[str, Any]] = {"photodiode": {"has_memory": True}}

FAULTS: dict[str, tuple[dict[str, Any], tuple[int, ...], tuple[int, ...]]] = {
    "dead heater": ({"kind": "dead_heater", "channel": 2}, (2,), ()),
    "stuck channel": ({"kind": "stuck_channel", "channel": 8, "volts": 3.0}, (8,), ()),
    "open detector": ({"kind": "open_detector", "stage": 0, "port": 2}, (), (2,)),
    "broken coupler": ({"kind": "broken_coupler", "stage": 0, "column": 1, "top": 1, "coupler": 2}, (2, 8), (1, 2)),
    "swapped heaters": ({"kind": "swapped_heaters", "channel": 0, "other": 6}, (0, 6), ()),
    "swapped inputs": ({"kind": "swapped_inputs", "port": 1, "other": 3}, (), (1, 3)),
}
"""Fault of the chip file, and the channels and ports that are to be named."""


def troubles_of(
    seed: int, faults: list[dict[str, Any]], ports: int = 4, readback: bool = True, **parts: Any
) -> tuple[Trouble, ...]:
    chip = soi_chip(ports, seed, MEMORY | parts, faults=faults)
    description = chip.describe()
    layout = twin_layout(description, description.stages[0])
    reader = SettingReader(chip, description.stages[0].name)
    return find_troubles(reader, layout, np.random.default_rng(seed), chip if readback else None)


@pytest.mark.parametrize("kind", FAULTS)
def test_a_fault_is_named(kind: str) -> None:
    fault, channels, ports = FAULTS[kind]
    [found] = troubles_of(1, [fault])
    assert (found.kind, found.channels, found.ports, found.stage) == (kind, channels, ports, "mesh0")
    assert found.detail


def test_six_faults_of_one_chip_are_named() -> None:
    faults = [
        {"kind": "dead_heater", "channel": 10},
        {"kind": "stuck_channel", "channel": 11, "volts": 3.0},
        {"kind": "swapped_heaters", "channel": 1, "other": 13},
        {"kind": "swapped_inputs", "port": 1, "other": 3},
        {"kind": "open_detector", "stage": 0, "port": 2},
        {"kind": "broken_coupler", "stage": 0, "column": 1, "top": 1, "coupler": 1},
    ]
    found = {(each.kind, each.channels, each.ports) for each in troubles_of(0, faults, ports=8)}
    assert found == {
        ("dead heater", (10,), ()),
        ("stuck channel", (11,), ()),
        ("swapped heaters", (1, 13), ()),
        ("swapped inputs", (), (1, 3)),
        ("open detector", (), (2,)),
        ("broken coupler", (4, 32), (1, 2)),
    }


def test_nothing_is_invented_on_sound_chips() -> None:
    assert [troubles_of(seed, []) for seed in range(5)] == [()] * 5
    assert troubles_of(0, [], ports=5) == ()


def test_without_readback_a_heater_that_changes_nothing_is_dead() -> None:
    [found] = troubles_of(1, [{"kind": "stuck_channel", "channel": 8, "volts": 3.0}], readback=False)
    assert (found.kind, found.channels) == ("dead heater", (8,))


def test_no_light_is_no_defect_of_heaters() -> None:
    [found] = troubles_of(1, [{"kind": "laser_off"}])
    assert found.kind == "no signal"


def test_detectors_at_full_scale_are_named() -> None:
    """The range of the converters is a tenth of the usual one: most inputs with much light exceed it."""
    found = troubles_of(1, [], adc={"headroom": 0.5})
    assert {each.kind for each in found} == {"saturated detector"}


def test_matrices_follow_from_powers() -> None:
    """Exact powers give the matrix up to phases of the outputs and conjugation, also with leak and saturation."""
    rng = np.random.default_rng(1)
    matrices = np.array([unitary_group.rvs(5, random_state=seed) for seed in range(8)])
    requested = rng.random((80, 5)) * (rng.random((80, 5)) < 0.5)
    amplitudes = np.sqrt(0.05**2 + (1 - 0.05**2) * requested**2)
    powers = (np.abs(matrices @ amplitudes.T) ** 2).swapaxes(1, 2)
    readings = powers / (1 + 0.3 * powers)
    law = power_law(readings, requested, full_scale=8.0)
    assert law.leak == pytest.approx(0.05, abs=1e-3) and law.compression == pytest.approx(0.3, abs=1e-3)
    for found, true in zip(retrieved_matrices(powers, amplitudes), matrices, strict=True):
        assert max(fidelity(true, found, "free"), fidelity(true, found.conj(), "free")) == pytest.approx(1, abs=1e-9)
    with pytest.raises(ValueError, match="read at least 16"):
        retrieved_matrices(powers[:, :15], amplitudes[:15])


def test_overlaps_of_modes_follow_from_the_layout() -> None:
    description = soi_chip(4, 0).describe()
    layout = twin_layout(description, description.stages[0])
    relations = mode_relations(layout)
    first, last = layout.theta[0], layout.theta[-1]
    assert relations.exact[first, layout.phi[0]] and relations.expected[first, layout.phi[0]] == pytest.approx(0.5)
    assert relations.exact[layout.phi[0], layout.phi[1]] and relations.expected[layout.phi[0], layout.phi[1]] < 1e-12
    assert relations.expected[layout.phi[0], layout.channels + layout.top[0]] == pytest.approx(1)
    assert not relations.exact[first, last]
    broken = mode_relations(layout, (0, 0))
    assert broken.expected[first, layout.phi[0]] == pytest.approx(1)
