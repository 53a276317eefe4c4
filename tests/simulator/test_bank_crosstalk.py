"""Spectral crosstalk of weight banks: laws of a row of rings, readings against the reference, gradients, limits."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from support.bank_gradients import checked_gradient

from photonloop.protocols.config import ConfigError
from photonloop.simulator import kernels
from photonloop.simulator.engine.chip import Chip
from photonloop.simulator.engine.rings import kernel_rings
from photonloop.simulator.parameters import ChipParameters, load_chip
from photonloop.simulator.physics.ring_rows import row_slopes, row_transmissions
from photonloop.simulator.physics.weight_bank import Ring, phases_of, transmissions
from photonloop.simulator.truth.reference import settled_currents_a

INPUTS, OUTPUTS = 5, 3

IMPERFECT = """
seed = 5
photodiode.bandwidth_hz = 0.0
adc.bits = 0
adc.headroom = 0.0
dac.bits = 0
dac.inl_lsb = 0.0
dac.noise_v = 0.0
photodiode.has_memory = false
heater.offset_span_rad = 0.5
crosstalk.fraction = 0.02
temperature.sigma_k = 0.3
photodiode.saturation_a = 1.0e-3
laser.jitter_pm = 300.0

[ring]
finesse = 30.0
cold_rad = 1.0
drop_loss_db = 0.5
row_loss_db = 2.0
spectral_crosstalk = true
"""


def bank(folder: Path, text: str, preset: str = "soi", ports: int = INPUTS, outputs: int = OUTPUTS) -> ChipParameters:
    path = folder / "bank.toml"
    head = f'preset = "{preset}"\nports = {ports}\nstages = 1\nmesh.topology = "weight_bank"\nmesh.outputs = {outputs}\n'
    path.write_text(head + text)
    return load_chip(path)


@settings(max_examples=50, deadline=None)
@given(finesse=st.floats(2, 300), loss_db=st.floats(0, 6), inputs=st.integers(1, 9), seed=st.integers(0, 2**32 - 1))
def test_light_passes_the_rings_one_after_the_other(finesse: float, loss_db: float, inputs: int, seed: int) -> None:
    """Against the path of each wavelength, ring by ring; drop, through and absorbed power add up to the input power."""
    rng = np.random.default_rng(seed)
    ring = Ring(finesse, loss_db, spectral_crosstalk=True)
    phases, shifts = rng.uniform(-np.pi, np.pi, inputs), rng.normal(0, 0.3, inputs)
    found = row_transmissions(phases[np.newaxis], ring, shifts)
    for k in range(inputs):
        light, detected, absorbed = 1.0, 0.0, 0.0
        for m in range(inputs):
            single = transmissions(np.array(phases[m] + 2 * np.pi * (k - m) / inputs + shifts[k]), ring)
            detected += light * single.drop_port
            absorbed += light * (1 - single.drop_port - single.through_port)
            light *= single.through_port
        assert found.drop_port[0, k] == pytest.approx(detected, abs=1e-12)
        assert found.through_port[0, k] == pytest.approx(light, abs=1e-12)
        assert absorbed >= -1e-12
        assert found.drop_port[0, k] + found.through_port[0, k] + absorbed == pytest.approx(1.0, abs=1e-12)


def test_a_lossless_row_loses_no_light() -> None:
    found = row_transmissions(np.random.default_rng(0).uniform(-3, 3, (4, 12)), Ring(20.0, spectral_crosstalk=True))
    np.testing.assert_allclose(found.drop_port + found.through_port, 1.0, atol=1e-12)


def test_a_ring_in_resonance_with_a_neighbours_wavelength_drops_it() -> None:
    """Ring 1 of 4, cold by one channel spacing, drops wavelength 2, the next higher frequency, and leaves its own."""
    ring = Ring(1000.0, spectral_crosstalk=True)
    phases = np.full(4, np.pi / 4)  # between two channels: rings 0, 2 and 3 drop nothing
    phases[1] = -2 * np.pi / 4
    np.testing.assert_allclose(row_transmissions(phases[np.newaxis], ring).weights, [[-1, -1, 1, -1]], atol=1e-4)


def test_wavelengths_far_apart_see_independent_rings() -> None:
    """The error by other rings falls as 1/F²: it is a tail of a Lorentzian."""
    weights = np.random.default_rng(1).uniform(-0.9, 0.9, (300, 4))
    errors = []
    for finesse in (200.0, 2000.0):
        single = Ring(finesse)
        phases = phases_of(weights, single)
        np.testing.assert_allclose(row_transmissions(phases, single).weights, weights, atol=1e-9)
        found = row_transmissions(phases, Ring(finesse, spectral_crosstalk=True)).weights
        errors.append(np.sqrt(np.mean((found - weights) ** 2)))
    assert errors[0] < 1e-3
    assert errors[0] / errors[1] == pytest.approx(100.0, rel=0.1)


@pytest.mark.parametrize(("inputs", "error"), [(3, 0.0083), (5, 0.0253), (8, 0.0697), (16, 0.3823)])
def test_error_of_weights_at_finesse_30(inputs: int, error: float) -> None:
    """Random weights in [-0.9, 0.9] against independent rings: the range of the published sketch, see the study."""
    weights = np.random.default_rng(2).uniform(-0.9, 0.9, (2000, inputs))
    found = row_transmissions(phases_of(weights, Ring(30.0)), Ring(30.0, spectral_crosstalk=True)).weights
    assert np.sqrt(np.mean((found - weights) ** 2)) == pytest.approx(error, rel=0.05)


def fields_in_a_row(phases: NDArray, bus: NDArray, ring: Ring, wavelength: int) -> tuple[float, float]:
    """Power at the drop and through detectors of one row, from one linear system for all fields in it.

    Ring m has eight fields: into and out of its first coupler on the row (0, 1) and in the ring (2, 3), and the same at
    its second coupler, on the drop bus (4 to 7).
    """
    r, a, inputs = ring.coupler_field, ring.round_trip_field, phases.size
    cross, equations, source = 1j * np.sqrt(1 - r**2), np.eye(8 * inputs, dtype=complex), np.zeros(8 * inputs, complex)
    for m in range(inputs):
        half = np.sqrt(a) * np.exp(0.5j * (phases[m] + 2 * np.pi * (wavelength - m) / inputs))
        into, out, ring_into, ring_out, bus_into, bus_out, later_into, later_out = range(8 * m, 8 * m + 8)
        for guide, guide_out, inner, inner_out in (
            (into, out, ring_into, ring_out),
            (bus_into, bus_out, later_into, later_out),
        ):
            equations[guide_out, [guide, inner]] -= r, cross
            equations[inner_out, [guide, inner]] -= cross, r
        equations[later_into, ring_out] -= half
        equations[ring_into, later_out] -= half
        if m > 0:
            equations[into, into - 8 + 1] -= np.exp(0.3j)
        if m < inputs - 1:
            gap = bus[m] + ring.bus_ratio * 2 * np.pi * wavelength / inputs
            equations[bus_into, bus_into + 8 + 1] -= np.exp(1j * (gap - 0.3))
    source[0] = 1.0
    found = np.linalg.solve(equations, source)
    return abs(found[5]) ** 2, abs(found[8 * (inputs - 1) + 1]) ** 2


@settings(max_examples=50, deadline=None)
@given(finesse=st.floats(3, 100), loss_db=st.floats(0, 4), inputs=st.integers(1, 6), seed=st.integers(0, 2**32 - 1))
def test_interference_agrees_with_all_fields_of_a_row(finesse: float, loss_db: float, inputs: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    ring = Ring(finesse, loss_db, spectral_crosstalk=True, bus_ratio=1.7)
    phases, bus = rng.uniform(-np.pi, np.pi, inputs), rng.uniform(0, 2 * np.pi, inputs)
    found = row_transmissions(phases[np.newaxis], ring, None, bus[np.newaxis])
    for k in range(inputs):
        drop, through = fields_in_a_row(phases, bus, ring, k)
        assert found.drop_port[0, k] == pytest.approx(drop, abs=1e-7)
        assert found.through_port[0, k] == pytest.approx(through, abs=1e-7)
        assert drop + through <= 1 + 1e-9
        if loss_db == 0:
            assert drop + through == pytest.approx(1.0, abs=1e-7)


def test_the_mean_over_bus_phases_is_the_sum_of_powers() -> None:
    """Two rings are two mirrors: on average over their distance, drop = d₀ + t₀² d₁/(1 - d₀ d₁)."""
    ring, phases = Ring(12.0, 0.6, spectral_crosstalk=True), np.array([0.4, -0.9])
    bus = np.stack((np.arange(4096) / 4096 * 2 * np.pi, np.zeros(4096)), axis=1)
    found = row_transmissions(np.tile(phases, (4096, 1)), ring, None, bus)
    for k in range(2):
        drop, through = transmissions(np.array([phases[m] + np.pi * (k - m) for m in range(2)]), ring)
        mean = drop[0] + through[0] ** 2 * drop[1] / (1 - drop[0] * drop[1])
        assert np.mean(found.drop_port[:, k]) == pytest.approx(mean, rel=1e-9)
        assert np.mean(found.through_port[:, k]) == pytest.approx(through[0] * through[1] / (1 - drop[0] * drop[1]), rel=1e-9)
        assert np.ptp(found.drop_port[:, k]) > 0.01


@pytest.mark.parametrize(("spectral_crosstalk", "interference"), [(False, False), (True, False), (True, True)])
def test_slopes_of_a_row_are_the_derivatives_of_its_transmissions(spectral_crosstalk: bool, interference: bool) -> None:
    rng, ring, step = np.random.default_rng(3), Ring(12.0, 1.0, spectral_crosstalk, 2.0), 1e-6
    phases, shifts = rng.uniform(-np.pi, np.pi, (3, 6)), rng.normal(0, 0.2, 6)
    bus = rng.uniform(0, 2 * np.pi, (3, 6)) if interference else None
    found = row_slopes(phases, ring, shifts, bus)
    for m in range(6):
        moved = step * (np.arange(6) == m)
        plus, minus = (row_transmissions(phases + sign * moved, ring, shifts, bus) for sign in (1, -1))
        for slope, high, low in zip(found, plus, minus, strict=True):
            np.testing.assert_allclose(slope[..., m], (high - low) / (2 * step), atol=1e-7)


@pytest.mark.parametrize("interference", [False, True])
@pytest.mark.parametrize(("inputs", "rows"), [(7, 5), (48, 50)])
def test_kernel_agrees_with_the_physics(inputs: int, rows: int, interference: bool) -> None:
    """Also if a chunk of channels ends within a row, as with 48 · 50 channels."""
    rng, ring = np.random.default_rng(4), Ring(25.0, 0.7, spectral_crosstalk=True, bus_ratio=1.5)
    phases = rng.uniform(-2 * np.pi, 2 * np.pi, (2, rows, inputs))
    phases[0, 0] = 0.0  # in resonance
    bus = rng.uniform(0, 2 * np.pi, (rows, inputs)) if interference else None
    half = 0.5 * phases.reshape(2, -1)
    phasor = np.stack((np.cos(half), np.sin(half)), axis=1).astype(np.float32)
    out = np.zeros((2, rows * inputs, 8), np.float32)
    items = 2 * -(-rows * inputs // kernels.CHUNK)
    rings = kernel_rings(ring, inputs, np.empty(0) if bus is None else bus.ravel())
    kernels.find_ring_shares(0, kernels.new_control(1), items, phasor, rings, out)
    for setting in range(2):
        expected = row_transmissions(phases[setting], ring, None, bus)
        np.testing.assert_allclose(out[setting, :, 0].reshape(rows, inputs), expected.drop_port, atol=2e-5)
        np.testing.assert_allclose(out[setting, :, 1].reshape(rows, inputs), expected.through_port, atol=2e-5)


@pytest.mark.parametrize("interference", ["false", "true"])
@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("early", [False, True])
def test_readings_agree_with_the_reference(tmp_path: Path, threads: int, early: bool, interference: str) -> None:
    """With thermal lag, also those of the first samples, which come from other kernels."""
    lag = "" if early else "heater.rise_s = 0.0\nheater.fall_s = 0.0\n"
    chip = Chip(bank(tmp_path, f"{lag}{IMPERFECT}bus_interference = {interference}\n"), threads=threads)
    rng = np.random.default_rng(5)
    drives, inputs = rng.uniform(0, 5, (3, INPUTS * OUTPUTS)), rng.uniform(0, 1, (40, INPUTS)).astype(np.float32)
    chip.let_pass(7200.0)
    readings = chip.evaluate(drives, inputs, "bank")
    scale = np.abs(readings.values).max()
    for drive, found, time_s in zip(drives, readings.values, readings.time_s.tolist(), strict=True):
        expected = settled_currents_a(chip, 0, drive, inputs, chip.ambient().moment(time_s))
        np.testing.assert_allclose(found[-1:], expected[-1:], atol=5e-5 * scale)
        np.testing.assert_allclose(found, expected, atol=(2e-2 if early else 5e-5) * scale)


@pytest.mark.parametrize("interference", ["false", "true"])
def test_gradient_agrees_with_central_differences(tmp_path: Path, interference: str) -> None:
    checked_gradient(Chip(bank(tmp_path, f"{IMPERFECT}bus_interference = {interference}\n"), threads=1), seed=6)


def test_the_phases_between_rings_are_drawn_only_if_they_matter(tmp_path: Path) -> None:
    """Without interference nothing is drawn, and every other value of the chip stays the same."""
    without, having = (
        Chip(bank(tmp_path, f"{IMPERFECT}bus_interference = {each}\n"), threads=1).stages[0].truth for each in ("false", "true")
    )
    assert without.bus_rad.size == 0 and having.bus_rad.shape == (INPUTS * OUTPUTS,)
    assert np.ptp(having.bus_rad) > np.pi
    np.testing.assert_array_equal(without.offset_rad, having.offset_rad)


def test_crowded_banks_are_refused_unless_asked_for(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"ports is 7, .*finesse 30 separate only 6 wavelengths \(finesse / 5\)") as refusal:
        bank(tmp_path, "[ring]\nfinesse = 30.0\nspectral_crosstalk = true\n", "ideal", ports=7)
    assert "\n" not in str(refusal.value) and "ring.crowded" in str(refusal.value)
    for allowed in ("crowded = true", "finesse = 35.0", "spectral_crosstalk = false"):
        chosen = {"finesse": "finesse = 30.0", "spectral_crosstalk": "spectral_crosstalk = true"}
        chosen[allowed.split()[0]] = allowed
        assert bank(tmp_path, "[ring]\n" + "\n".join(chosen.values()), "ideal", ports=7).ports == 7


def test_a_mesh_has_no_wavelengths_to_separate() -> None:
    assert load_chip("soi", ports=64).mesh.topology == "clements"
