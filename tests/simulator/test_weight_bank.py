"""Weight banks: rings against the exact add-drop formula, readings against the weighted sum, noise."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy.optimize import brentq
from support.bank_gradients import checked_gradient

from photonloop.protocols.config import ConfigError
from photonloop.protocols.device import FLAG_SATURATED
from photonloop.simulator.engine.chip import Chip
from photonloop.simulator.parameters import ChipParameters, load_chip
from photonloop.simulator.physics.chip_faults import FaultParameters
from photonloop.simulator.physics.crosstalk import crosstalk_of
from photonloop.simulator.physics.weight_bank import Ring, phases_of, transmission_slopes, transmissions
from photonloop.simulator.truth.reference import settled_currents_a

INPUTS, OUTPUTS = 5, 3


def bank(folder: Path, text: str = "", preset: str = "ideal") -> ChipParameters:
    path = folder / "bank.toml"
    head = f'preset = "{preset}"\nports = {INPUTS}\nstages = 1\nmesh.topology = "weight_bank"\nmesh.outputs = {OUTPUTS}\n'
    path.write_text(head + text)
    return load_chip(path)


def volts_for(chip: Chip, phase_rad: NDArray[np.float64]) -> NDArray[np.float64]:
    """Voltages that set ideal rings to these phases."""
    heater = chip.parameters.heater
    return np.sqrt(phase_rad / np.pi * heater.pi_power_w * heater.resistance_ohm).ravel()


def root(function: Callable[[float], float], low: float, high: float) -> float:
    return float(brentq(function, low, high, xtol=1e-15))  # pyright: ignore[reportArgumentType]


def exact_ring(phase_rad: float, r: float, a: float) -> tuple[float, float, float]:
    """Power at the drop port, at the through port and absorbed, from the fields in a ring with two couplers.

    Unknown fields: behind the first coupler, before the second, behind the second, before the first. The couplers have
    field transmission r, each half of the ring √a · e^{iφ/2}.
    """
    half, cross = np.sqrt(a) * np.exp(0.5j * phase_rad), 1j * np.sqrt(1 - r**2)
    equations = np.array([[1, 0, 0, -r], [-half, 1, 0, 0], [0, -r, 1, 0], [0, 0, -half, 1]])
    behind, before_drop, later, back = np.linalg.solve(equations, np.array([cross, 0, 0, 0]))
    absorbed = abs(behind) ** 2 - abs(before_drop) ** 2 + abs(later) ** 2 - abs(back) ** 2
    return abs(cross * before_drop) ** 2, abs(r + cross * back) ** 2, absorbed


@settings(max_examples=100, deadline=None)
@given(phase=st.floats(-20, 20), finesse=st.floats(2, 1000), loss_db=st.floats(0, 6))
def test_rings_agree_with_the_fields_in_an_add_drop_ring(phase: float, finesse: float, loss_db: float) -> None:
    b = root(lambda b: np.pi * np.sqrt(b) / (1 - b) - finesse, 1e-9, 1 - 1e-9)
    dropped = 10 ** (-loss_db / 10)
    # In resonance √drop = (1 - r²)√a/(1 - b), with r²a = b.
    r = root(lambda r: (1 - r**2) * np.sqrt(b) / r / (1 - b) - np.sqrt(dropped), np.sqrt(b) * (1 - 1e-12), 1.0)
    drop, through, absorbed = exact_ring(phase, r, min(b / r**2, 1.0))
    found = transmissions(np.array(phase), Ring(finesse, loss_db))
    assert found.drop_port == pytest.approx(drop, abs=1e-7)
    assert found.through_port == pytest.approx(through, abs=1e-7)
    assert found.drop_port + found.through_port + absorbed == pytest.approx(1.0, abs=1e-7)
    assert -1 <= found.weights <= 1


def test_resonance_has_the_width_of_its_finesse() -> None:
    ring = Ring(50.0)
    half = np.array([0.0, np.pi / 50, -np.pi / 50, 2 * np.pi, np.pi])
    np.testing.assert_allclose(transmissions(half, ring).weights[:4], [1, 0, 0, 1], atol=1e-3)
    assert transmissions(half, ring).weights[4] == pytest.approx(-1, abs=2.1 / ring.steepness**2)


@settings(max_examples=50, deadline=None)
@given(weight=st.floats(-0.98, 0.6), finesse=st.floats(20, 1000), loss_db=st.floats(0, 1))
def test_phases_of_is_the_inverse_of_transmissions(weight: float, finesse: float, loss_db: float) -> None:
    ring = Ring(finesse, loss_db)
    assert transmissions(phases_of(np.array([weight]), ring), ring).weights[0] == pytest.approx(weight, abs=1e-9)


def test_weights_out_of_range_are_refused() -> None:
    with pytest.raises(ValueError, match=r"weight 1\.1 is out of the range of these rings"):
        phases_of(np.array([0.0, 1.1]), Ring(50.0))


@settings(max_examples=30, deadline=None)
@given(phase=st.floats(-7, 7), finesse=st.floats(5, 100), loss_db=st.floats(0, 6))
def test_slopes_are_the_derivatives_of_the_transmissions(phase: float, finesse: float, loss_db: float) -> None:
    ring, step = Ring(finesse, loss_db), 1e-6
    plus, minus = (transmissions(np.array(phase + sign * step), ring) for sign in (1, -1))
    found = transmission_slopes(np.array(phase), ring)
    assert found.drop_port == pytest.approx((plus.drop_port - minus.drop_port) / (2 * step), abs=1e-5 * finesse)
    assert found.through_port == pytest.approx((plus.through_port - minus.through_port) / (2 * step), abs=1e-5 * finesse)


def test_an_ideal_bank_multiplies_powers_by_weights(tmp_path: Path) -> None:
    chip = Chip(bank(tmp_path, "ring.finesse = 40.0\n"), threads=1)
    stage, rng = chip.describe().stages[0], np.random.default_rng(0)
    assert (stage.topology, stage.ports, stage.tap_ports, stage.channels) == ("weight_bank", INPUTS, OUTPUTS, INPUTS * OUTPUTS)
    assert stage.groups == {"ring": (0, INPUTS * OUTPUTS)} and chip.describe().readout.signed
    weights = rng.uniform(-0.95, 0.95, (4, OUTPUTS, INPUTS))
    inputs = rng.uniform(0, 1, (37, INPUTS)).astype(np.float32)
    drives = np.stack([volts_for(chip, phases_of(w, Ring(40.0))) for w in weights])
    readings = chip.evaluate(drives, inputs, stage.name).values
    full_a = chip.parameters.laser.total_power_w / INPUTS / OUTPUTS
    expected = np.einsum("snm,bm->sbn", weights, inputs.astype(float) ** 2) * full_a
    assert readings.shape == (4, 37, OUTPUTS) and readings.min() < 0 < readings.max()
    np.testing.assert_allclose(readings, expected, atol=3e-6 * full_a)
    # The phases of the inputs do not matter, because wavelengths do not interfere.
    turned = inputs * np.exp(2j * np.pi * rng.random(inputs.shape)).astype(np.complex64)
    np.testing.assert_allclose(chip.evaluate(drives, turned, stage.name).values, readings, atol=1e-6 * full_a)


IMPERFECT = """
seed = 5
photodiode.bandwidth_hz = 0.0
adc.bits = 0
adc.headroom = 0.0
dac.bits = 0
dac.inl_lsb = 0.0
heater.offset_span_rad = 0.5
heater.self_heating = 0.05
crosstalk.fraction = 0.02
drift.sigma_rad = 0.02
temperature.sigma_k = 0.3
photodiode.responsivity_sigma = 0.05
photodiode.saturation_a = 1.0e-3
modulator.crosstalk = 0.01

[ring]
finesse = 30.0
cold_rad = 1.0
drop_loss_db = 0.5
row_loss_db = 2.0
spectral_crosstalk = false
"""


@pytest.mark.parametrize("threads", [1, 2])
def test_an_imperfect_bank_agrees_with_the_reference(tmp_path: Path, threads: int) -> None:
    chip = Chip(bank(tmp_path, IMPERFECT, "soi"), threads=threads)
    stage, rng = chip.describe().stages[0], np.random.default_rng(1)
    drives, inputs = rng.uniform(0, 5, (3, stage.channels)), rng.uniform(0, 1, (40, INPUTS)).astype(np.float32)
    readings = chip.evaluate(drives, inputs, stage.name).values
    scale = np.abs(readings).max()
    for drive, found in zip(drives, readings, strict=True):
        # In early samples the heaters still settle, by less than 0.1 %.
        np.testing.assert_allclose(found[-1:], settled_currents_a(chip, 0, drive, inputs[-1:]), atol=2e-5 * scale)
        np.testing.assert_allclose(found, settled_currents_a(chip, 0, drive, inputs), atol=2e-2 * scale)


def test_rings_have_thermal_crosstalk_and_follow_the_temperature(tmp_path: Path) -> None:
    chip = Chip(bank(tmp_path, IMPERFECT, "soi"), threads=1)
    segments, own = chip.stages[0].segments, chip.parameters.crosstalk
    pairs = crosstalk_of(segments, own.model_copy(update={"reach_m": 1.5e-4})).near
    neighbours = {int(source) for to, source in zip(pairs.to, pairs.source, strict=True) if to == INPUTS + 1}
    assert {INPUTS, INPUTS + 2, 1, 2 * INPUTS + 1} <= neighbours  # along the row, and in neighbouring rows
    # A ring's phase is not a difference between two paths: each ring follows the temperature with its whole length.
    assert np.mean(chip.stages[0].truth.imbalance) == pytest.approx(1.0, abs=0.2)


def test_gradient_agrees_with_central_differences(tmp_path: Path) -> None:
    found = checked_gradient(Chip(bank(tmp_path, IMPERFECT, "soi"), threads=1), seed=2)
    assert found.theta.size == found.phi.size == found.gamma.size == 0 and found.ring.size == INPUTS * OUTPUTS


def test_both_diodes_of_a_pair_contribute_noise(tmp_path: Path) -> None:
    """σ² = 4kTB/R + 2qB(I₊ + I₋ + 2 I_dark), also if the mean reading is zero."""
    diodes = "bandwidth_hz = 1.0e9\ntemperature_k = 300.0\nload_ohm = 1.0e3\ndark_a = 1.0e-4\n"
    chip = Chip(bank(tmp_path, f"[photodiode]\n{diodes}"), threads=1)
    drive = volts_for(chip, phases_of(np.zeros((OUTPUTS, INPUTS)), Ring(30.0)))
    samples = 4000
    readings = chip.evaluate(drive[np.newaxis], np.ones((samples, INPUTS), np.float32), "bank").values[0].astype(float)
    light_a = chip.parameters.laser.total_power_w / OUTPUTS
    variance = 4 * 1.380649e-23 * 300 * 1e9 / 1e3 + 2 * 1.602176634e-19 * 1e9 * (light_a + 2e-4)
    np.testing.assert_allclose(readings.mean(axis=0), 0, atol=5 * np.sqrt(variance / samples) + 1e-6 * light_a)
    np.testing.assert_allclose(readings.var(axis=0), variance, rtol=5 * np.sqrt(2 / samples))
    assert abs(np.corrcoef(readings.T)[0, 1]) < 5 / np.sqrt(samples)


def test_converter_has_signed_codes_and_saturates(tmp_path: Path) -> None:
    parameters = bank(tmp_path, "adc.bits = 8\nadc.headroom = 1.0\n")
    chip = Chip(parameters, threads=1)
    step_a = 2 * chip.describe().readout.full_scale[0] / 255
    rng = np.random.default_rng(3)
    readings = chip.evaluate(rng.uniform(0, 1, (1, 15)), rng.uniform(0, 0.9, (50, INPUTS)).astype(np.float32), "bank")
    codes = readings.values / step_a
    np.testing.assert_allclose(codes, np.rint(codes), atol=1e-3)
    assert not readings.flags.any()
    # All rings in resonance, all inputs lit: all light in the drop diodes, full scale. Off resonance: minus full scale.
    dark = volts_for(chip, np.full((OUTPUTS, INPUTS), np.pi))
    full = chip.evaluate(np.stack((np.zeros(15), dark)), np.ones((1, INPUTS), np.float32), "bank")
    assert (full.flags[0] == FLAG_SATURATED).any()
    assert np.all(full.values[0] > 0.98 * full.values[0].max()) and np.all(full.values[1] < -0.98 * full.values[0].max())


def test_an_open_detector_reads_zero(tmp_path: Path) -> None:
    parameters = bank(tmp_path)
    fault = FaultParameters(kind="open_detector", stage=0, port=1)
    chip = Chip(parameters.model_copy(update={"faults": (fault,)}), threads=1)
    readings = chip.evaluate(np.zeros((1, 15)), np.ones((2, INPUTS), np.float32), "bank").values[0]
    assert np.all(readings[:, 1] == 0) and np.all(readings[:, [0, 2]] > 0)


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("mesh.outputs = 4", "outputs is 4, but only topology 'weight_bank' has it: a clements mesh has one output per port"),
        ('stages = 1\nmesh.topology = "weight_bank"\nring.finesse = 1.0', "ring.finesse"),
    ],
)
def test_invalid_weight_banks_are_refused(tmp_path: Path, text: str, sentence: str) -> None:
    path = tmp_path / "chip.toml"
    path.write_text(f'preset = "soi"\n{text}\n')
    with pytest.raises(ConfigError, match=sentence) as refusal:
        load_chip(path)
    assert "\n" not in str(refusal.value)


def test_broken_couplers_are_refused_for_weight_banks(tmp_path: Path) -> None:
    fault = FaultParameters(kind="broken_coupler", stage=0, column=0, top=0)
    with pytest.raises(ConfigError, match="has no interferometer"):
        Chip(bank(tmp_path).model_copy(update={"faults": (fault,)}), threads=1)
