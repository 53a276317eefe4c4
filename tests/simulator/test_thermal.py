"""Thermal response of heaters: the low-pass, and readings before the heaters have settled."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from support.chips import chip_of

from photonloop.protocols.device import FLAG_UNSETTLED, LoadedRows
from photonloop.simulator.engine.chip import Chip
from photonloop.simulator.parameters import HeaterParameters, load_chip
from photonloop.simulator.physics.thermal import ThermalState, always_settled, power_at, with_target
from photonloop.simulator.truth import reference

SLOW: dict[str, dict[str, Any]] = {"heater": {"rise_s": 2e-5, "fall_s": 5e-5}, "clock": {"settle_s": 1e-5, "sample_s": 1e-5}}


@settings(max_examples=50, deadline=None)
@given(start_w=st.floats(0, 0.06), target_w=st.floats(0, 0.06), rise_s=st.floats(1e-7, 1e-3), fall_s=st.floats(1e-7, 1e-3))
def test_a_step_response_has_its_time_constant(start_w: float, target_w: float, rise_s: float, fall_s: float) -> None:
    heater = HeaterParameters(rise_s=rise_s, fall_s=fall_s)
    heat = ThermalState(1.0, np.array([start_w]), np.array([target_w]))
    tau_s = rise_s if target_w > start_w else fall_s
    gone = power_at(heat, 1.0 + tau_s, heater)[0] - start_w
    assert gone == pytest.approx((1 - np.exp(-1)) * (target_w - start_w), rel=1e-6, abs=1e-12)
    # The result does not depend on intermediate evaluations.
    halfway = with_target(heat, 1.0 + 0.3 * tau_s, heat.target_w, heater)
    assert power_at(halfway, 1.0 + tau_s, heater)[0] == pytest.approx(power_at(heat, 1.0 + tau_s, heater)[0], rel=1e-6, abs=1e-12)


def test_the_response_agrees_with_its_differential_equation() -> None:
    """Explicit Euler integration over three drives, up and down."""
    heater = HeaterParameters(rise_s=2.2e-6, fall_s=2e-6)
    targets = np.array([[0.02, 0.0, 0.05], [0.01, 0.03, 0.0], [0.04, 0.03, 0.01]])
    step_s, steps = 1e-10, 30000
    power = np.zeros(3)
    heat = ThermalState(0.0, np.zeros(3), np.zeros(3))
    for n, target in enumerate(targets):
        heat = with_target(heat, n * step_s * steps, target, heater)
        for _ in range(steps):
            power += step_s * (target - power) / np.where(target > power, heater.rise_s, heater.fall_s)
        np.testing.assert_allclose(power_at(heat, (n + 1) * step_s * steps, heater), power, rtol=2e-4, atol=1e-8)


def expected_readings(chip: Chip, held: NDArray, drives: NDArray, inputs: NDArray, stage: int) -> NDArray[np.float64]:
    """Readings of every sample at its own time: a cold chip, `held` applied, then the settings one after the other."""
    p = chip.parameters
    settle_s, sample_s = p.clock.settle_s, p.clock.sample_s
    heats = []
    for k, here in enumerate(chip.stages):
        dark_w = np.zeros(here.description.channels)
        heats.append(ThermalState(0.0, dark_w, reference.power_w(chip, k, held[here.channels])))
    at_s = settle_s  # duration of apply
    found = np.empty((len(drives), len(inputs), p.ports))
    for s, volts in enumerate(drives):
        heats[stage] = with_target(heats[stage], at_s, reference.power_w(chip, stage, volts), p.heater)
        at_s += settle_s
        for b, sample in enumerate(inputs):
            powers_w = [power_at(heat, at_s, p.heater) for heat in heats[: stage + 1]]
            found[s, b] = reference.currents_a(chip, powers_w, sample[np.newaxis])[0]
            at_s += sample_s
    return found


@pytest.mark.parametrize("stage", [0, 1])
def test_each_sample_has_the_phases_of_its_own_time(stage: int) -> None:
    parts = {**SLOW, "crosstalk": {"fraction": 0.02}}
    chip = chip_of("ideal", parts, ports=5)
    rng = np.random.default_rng(4)
    held, inputs = rng.uniform(0, 6, chip.describe().channels), rng.random((60, 5))
    drives = rng.uniform(0, 6, (3, 25))
    chip.load_inputs("a", inputs)
    chip.apply(held)
    readings = chip.evaluate(drives, LoadedRows("a", np.arange(60)), f"mesh{stage}")
    exact = expected_readings(chip, held, drives, inputs, stage)
    np.testing.assert_allclose(readings.values, exact, atol=2e-5 * exact.max())
    assert (readings.flags == FLAG_UNSETTLED).all()
    settled = np.stack([reference.settled_currents_a(chip, stage, volts, inputs) for volts in drives])
    off = np.abs(readings.values - settled).max(axis=(0, 2)) / settled.max()
    assert off[0] > 0.05
    if stage == 0:  # after 16 fall times and a settle time the rest is negligible, but in the last samples it may be 1e-5
        assert off[-1] < 1e-4


def test_the_return_to_the_held_drive_affects_the_next_reading() -> None:
    """After an evaluation of the first mesh, its heaters return to the held drive while the second mesh is read."""
    chip = chip_of("ideal", SLOW, ports=5)
    rng = np.random.default_rng(1)
    held, inputs = rng.uniform(0, 6, 50), rng.random((1, 5))
    chip.apply(held)
    later = held[np.newaxis, 25:]
    settled = [chip.evaluate(later, inputs, "mesh1") for _ in range(40)][-1]
    assert not settled.flags.any()
    chip.evaluate(rng.uniform(0, 6, (1, 25)), inputs, "mesh0")
    disturbed = chip.evaluate(later, inputs, "mesh1")
    assert (disturbed.flags == FLAG_UNSETTLED).all()
    assert np.abs(disturbed.values - settled.values).max() > 0.01 * settled.values.max()
    again = [chip.evaluate(later, inputs, "mesh1") for _ in range(40)][-1]
    np.testing.assert_allclose(again.values, settled.values, rtol=1e-5)


def test_settled_readings_are_not_flagged() -> None:
    for preset in ("ideal", "soi"):
        assert always_settled(load_chip(preset))
    assert not always_settled(load_chip("harsh"))
    chip = chip_of("harsh", {}, quiet=False, ports=5)
    held = np.random.default_rng(0).uniform(0, 6, 50)
    chip.apply(held)
    assert not chip.evaluate(held[np.newaxis, 25:], np.ones((3, 5)), "mesh1").flags.any()


def test_safe_lets_heaters_cool_with_their_time_constant() -> None:
    chip = chip_of("ideal", SLOW, ports=5, stages=1)
    held, inputs, dark = np.random.default_rng(0).uniform(4, 6, 25), np.ones((1, 5)), np.zeros((1, 25))
    cold = chip.evaluate(dark, inputs, "mesh0").values
    chip.apply(held)
    for _ in range(20):
        chip.evaluate(held[np.newaxis], inputs, "mesh0")
    chip.safe()
    warm = chip.evaluate(dark, inputs, "mesh0")
    assert (warm.flags == FLAG_UNSETTLED).all()
    assert np.abs(warm.values - cold).max() > 0.05 * cold.max()
    again = [chip.evaluate(dark, inputs, "mesh0") for _ in range(60)][-1]
    np.testing.assert_allclose(again.values, cold, atol=1e-5 * cold.max())


def test_early_readings_are_the_same_for_any_number_of_threads() -> None:
    found = []
    for threads in (1, 3):
        chip = chip_of("soi", SLOW, quiet=False, ports=12, threads=threads)
        rng = np.random.default_rng(0)
        chip.load_inputs("a", rng.random((50, 12)))
        chip.apply(rng.uniform(0, 6, chip.describe().channels))
        drives = rng.uniform(0, 6, (4, chip.stages[1].description.channels))
        found.append([chip.evaluate(drives, LoadedRows("a", np.arange(50)), f"mesh{k}").values for k in (0, 1, 0)])
    np.testing.assert_array_equal(found[0], found[1])
