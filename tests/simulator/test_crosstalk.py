"""Thermal crosstalk: the law, its signs, both arms against a chain of segments, the coarse grid, kernels."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from support.chips import chip_of

from photonloop.simulator import kernels
from photonloop.simulator.engine.chip import Chip
from photonloop.simulator.engine.heat_map import heat_map, heat_scratch
from photonloop.simulator.parameters import CrosstalkParameters
from photonloop.simulator.physics import crosstalk
from photonloop.simulator.physics.heater import arm_pi_power_w, phase_rad, unheated_rad_per_w
from photonloop.simulator.physics.mesh import Mesh, clements, reck, svd, transfer_matrix
from photonloop.simulator.physics.running_phase import effective_phases, effective_phases_transposed
from photonloop.simulator.physics.weight_bank import WeightBank
from photonloop.simulator.truth import reference
from photonloop.simulator.truth.chip_truth import stage_matrix

BOTH = pytest.mark.parametrize("build", [clements, reck])
ALL = pytest.mark.parametrize("build", [clements, reck, svd])
Build = Callable[[int], Mesh]


def law(segments: crosstalk.Segments, own: CrosstalkParameters) -> NDArray[np.float64]:
    """Share of every heater's power that every segment receives, from the distances of all, (segments, channels)."""
    places = [(x, y) for x in range(segments.size[0]) for y in range(segments.size[1])]
    at = np.array([*places, *segments.others.tolist()], np.float64)[:, np.newaxis] - segments.heaters
    distance = np.hypot(at[..., 0] * segments.half_column_m, at[..., 1] * segments.mode_m)
    inside = (distance > 0) & (distance <= own.reach_m * (1 + 1e-9))
    return np.where(inside, own.fraction * (own.at_m / np.where(inside, distance, 1.0)) ** own.exponent, 0.0)


def shares(segments: crosstalk.Segments, own: CrosstalkParameters) -> NDArray[np.float64]:
    """The same from `received_w`, with unit powers of single heaters."""
    found = crosstalk.crosstalk_of(segments, own)
    return np.stack([crosstalk.received_w(found, unit) for unit in np.eye(len(segments.heaters))], axis=1)


@ALL
@settings(max_examples=15, deadline=None)
@given(n=st.integers(2, 8), reach=st.floats(0, 6e-4), exponent=st.floats(0, 2), fraction=st.floats(1e-4, 0.1))
def test_near_shares_follow_the_law(build: Build, n: int, reach: float, exponent: float, fraction: float) -> None:
    own = CrosstalkParameters(fraction=fraction, reach_m=reach, exponent=exponent)
    segments = crosstalk.mesh_segments(build(n), own)
    np.testing.assert_allclose(shares(segments, own), law(segments, own), rtol=1e-9)


@ALL
def test_all_heaters_and_other_arms_have_different_positions(build: Build) -> None:
    segments = crosstalk.mesh_segments(build(9), CrosstalkParameters())
    assert np.unique(segments.heaters, axis=0).shape == segments.heaters.shape
    places = crosstalk.positions(segments)
    assert np.unique(places, axis=0).shape == places.shape == (segments.count, 2)
    np.testing.assert_array_equal(places[segments.own], segments.heaters)


def interferometer(mesh: Mesh, column: int, top: int) -> int:
    return int(np.flatnonzero((mesh.column == column) & (mesh.top == top))[0])


def test_signs_of_the_neighbours_in_the_same_half_column() -> None:
    """At 0.5 % at 100 µm: the heater below warms the lower arm more, -0.5 %; the one above the upper arm, +0.17 %."""
    own, mesh = CrosstalkParameters(fraction=0.005), clements(12)
    segments = crosstalk.mesh_segments(mesh, own)
    share = float(crosstalk.share_at(own.mode_pitch_m, own))
    assert share == pytest.approx(0.01)
    heat, middle = crosstalk.crosstalk_of(segments, own), interferometer(mesh, 6, 4)
    found = {}
    for name, top in (("own", 4), ("below", 6), ("above", 2)):
        power_w = np.zeros(mesh.channels)
        power_w[interferometer(mesh, 6, top)] = 0.023
        received_w = crosstalk.received_w(heat, power_w)
        heated = np.pi * (power_w + received_w[segments.own]) / (0.023 * (1 - share))
        others = unheated_rad_per_w(0.023, share) * received_w
        found[name] = effective_phases(mesh, heated, others)[middle]
    assert found["own"] == pytest.approx(np.pi)
    # Distances below: 100 µm to the upper arm, 50 µm to the lower. Above: 100 µm and 150 µm.
    assert found["below"] / found["own"] == pytest.approx(-0.005 / (1 - share), rel=1e-9)
    assert found["above"] / found["own"] == pytest.approx(0.005 / 3 / (1 - share), rel=1e-9)


@pytest.mark.parametrize("eta", [0.0, 0.012])
@pytest.mark.parametrize("topology", ["clements", "svd"])
def test_a_single_heater_at_its_pi_power_turns_the_phase_difference_by_pi(eta: float, topology: str) -> None:
    parts = {"crosstalk": {"fraction": 0.02}, "heater": {"pi_power_sigma": 0.05, "curvature": eta}}
    chip = chip_of("ideal", {**parts, "mesh": {"topology": topology}}, ports=4, stages=1)
    here = chip.stages[0]
    cold = reference.phases_rad(chip, 0, np.zeros(here.layout.channels))
    # The effective φ of later columns also have what the heater adds to running phases.
    for channel in (*range(here.mesh.interferometers), here.mesh.interferometers):
        power_w = np.zeros(here.layout.channels)
        power_w[channel] = here.truth.pi_power_w[channel]
        assert reference.phases_rad(chip, 0, power_w)[channel] - cold[channel] == pytest.approx(np.pi, abs=1e-12)


def test_the_own_arm_of_a_nominal_heater_has_the_power_of_the_formula() -> None:
    share = np.array([0.0, 0.01, 0.3])
    found = arm_pi_power_w(np.full(3, 0.02), share, unheated_rad_per_w(0.02, 0.3))
    assert found[2] == pytest.approx(0.02 * (1 - 0.3))
    assert found[0] == 0.02
    assert phase_rad(found, found, np.zeros(3), 0.1) == pytest.approx(np.pi)


def chain(mesh: Mesh, heated: NDArray, others: NDArray, error: NDArray, loss_db: NDArray) -> NDArray[np.complex128]:
    """Matrix of a mesh, segment by segment: diagonal phases of all arms, then couplers on 2 × 2 blocks.

    An attenuator has a mode of its own for its other arm, in darkness before it and dumped behind it.
    """
    n, k = mesh.ports, mesh.interferometers
    lattice, lone = others[: (mesh.column.max() * 2 + 3) * n].reshape(-1, n), list(others[(mesh.column.max() * 2 + 3) * n :])
    whole = np.eye(n, dtype=complex)
    for c in range(mesh.column.max() + 1):
        here = np.flatnonzero(mesh.column == c)
        for half in (0, 1):
            phase = lattice[2 * c + half].copy()
            index = mesh.theta if half else k + mesh.phi
            phase[mesh.top[here]] = heated[index[here]]
            if half == 0 or not mesh.attenuates[here].any():
                whole = np.exp(1j * phase)[:, np.newaxis] * whole
            for i in here:
                angle, kept = np.pi / 4 + error[i, half], 10 ** (-loss_db[i] / 40)
                block = kept * np.array([[np.cos(angle), 1j * np.sin(angle)], [1j * np.sin(angle), np.cos(angle)]])
                rows = slice(mesh.top[i], mesh.top[i] + 2)
                if not mesh.attenuates[i]:
                    whole[rows] = block @ whole[rows]
                elif half == 1:
                    first = np.pi / 4 + error[i, 0]
                    split = kept * np.array([np.cos(first), 1j * np.sin(first)])
                    arms = split * np.exp(1j * np.array([phase[mesh.top[i]], lone.pop(0)]))
                    whole[mesh.top[i]] *= (block @ arms)[0]
    return np.exp(1j * heated[2 * k :])[:, np.newaxis] * whole


@ALL
@pytest.mark.parametrize("n", [2, 3, 6, 9])
def test_effective_phases_are_an_identity(build: Build, n: int) -> None:
    """The mesh at effective phases is the chain of all segments, with any phases in all arms and bare waveguides."""
    mesh, rng = build(n), np.random.default_rng(n)
    segments = crosstalk.mesh_segments(mesh, CrosstalkParameters())
    heated, others = rng.uniform(-9, 9, mesh.channels), rng.uniform(-9, 9, segments.count)
    others[segments.own[2 * mesh.interferometers :]] = 0.0
    error, loss_db = rng.normal(0, 0.1, (mesh.interferometers, 2)), rng.uniform(0, 1, mesh.interferometers)
    theta, phi, gamma = np.split(effective_phases(mesh, heated, others), (mesh.interferometers, 2 * mesh.interferometers))
    found = transfer_matrix(mesh, theta, phi, gamma, error, loss_db)
    np.testing.assert_allclose(found, chain(mesh, heated, others, error, loss_db), atol=1e-13)


@ALL
def test_transposes_are_transposes(build: Build) -> None:
    """⟨y, A x⟩ = ⟨Aᵀ y, x⟩ of crosstalk with a long reach and of the effective phases."""
    own, mesh, rng = CrosstalkParameters(fraction=0.02, reach_m=1.0), build(7), np.random.default_rng(3)
    heat = crosstalk.crosstalk_of(crosstalk.mesh_segments(mesh, own), own)
    assert heat.far is not None
    power, by_segment = rng.random(mesh.channels), rng.standard_normal(heat.segments.count)
    forth, back = crosstalk.received_w(heat, power), crosstalk.received_transposed(heat, by_segment)
    assert by_segment @ forth == pytest.approx(back @ power, rel=1e-12)
    others, by_effective = rng.standard_normal(heat.segments.count), rng.standard_normal(mesh.channels)
    forth = effective_phases(mesh, np.zeros(mesh.channels), others)
    back = effective_phases_transposed(mesh, by_effective, heat.segments.count)
    assert by_effective @ forth == pytest.approx(back @ others, rel=1e-12)


@pytest.mark.parametrize(("exponent", "reach_m"), [(1.0, 3e-3), (2.0, 1e-3), (1.0, 0.1)])
def test_the_coarse_grid_agrees_with_the_law(exponent: float, reach_m: float) -> None:
    """Random powers on 32 modes: the error of θ is below 7 % of what crosstalk adds to it, that of φ below 8 %."""
    own, mesh = CrosstalkParameters(fraction=0.005, reach_m=reach_m, exponent=exponent), clements(32)
    segments, rng = crosstalk.mesh_segments(mesh, own), np.random.default_rng(0)
    power = rng.uniform(0, 2, mesh.channels)
    found = crosstalk.received_w(crosstalk.crosstalk_of(segments, own), power)
    exact = law(segments, own) @ power
    both = [effective_phases(mesh, received[segments.own], received) for received in (found, exact)]
    count = mesh.interferometers
    parts = np.split(np.array(both), (count, 2 * count), axis=1)
    for part, bound in zip(parts, (0.07, 0.08), strict=False):
        assert np.std(part[0] - part[1]) < bound * np.sqrt(np.mean(part[1] ** 2))


@ALL
@settings(max_examples=15, deadline=None)
@given(n=st.integers(2, 20), reach=st.floats(5e-5, 3e-3), seed=st.integers(0, 100))
def test_kernels_agree_with_the_reference(build: Build, n: int, reach: float, seed: int) -> None:
    own, mesh = CrosstalkParameters(fraction=0.01, reach_m=reach), build(n)
    segments, unheated = crosstalk.mesh_segments(mesh, own), 130.0
    power_w = np.random.default_rng(seed).uniform(0, 0.05, mesh.channels)
    expected = crosstalk.received_w(crosstalk.crosstalk_of(segments, own), power_w)
    received, pushed = warmed(heat_map(segments, mesh, own, unheated), power_w)
    np.testing.assert_allclose(received, expected[segments.own], atol=3e-7 * expected.max())
    added = effective_phases(mesh, np.zeros(mesh.channels), unheated * expected) / np.pi
    np.testing.assert_allclose(np.sin(np.pi * (pushed - added)), 0.0, atol=1e-5)


def warmed(heat: kernels.HeatMap, power_w: NDArray) -> tuple[NDArray, NDArray]:
    """Received powers and pushed phases from the kernel."""
    received, pushed = np.zeros((2, 1, power_w.size), np.float32)
    scratch, control = heat_scratch(heat, power_w.size), kernels.new_control(1)
    kernels.find_heat(0, control, 1, heat, scratch, power_w[np.newaxis], received, pushed)
    return received[0], pushed[0]


@pytest.mark.parametrize("reach_m", [1e-4, 3e-3])
def test_rings_receive_heat_by_distance(reach_m: float) -> None:
    bank, own = WeightBank(9, 21), CrosstalkParameters(fraction=0.01, reach_m=reach_m)
    segments, power_w = crosstalk.bank_segments(bank, own), np.random.default_rng(0).random(bank.channels)
    expected = crosstalk.received_w(crosstalk.crosstalk_of(segments, own), power_w)[segments.own]
    np.testing.assert_allclose(warmed(heat_map(segments, None, own, 0.0), power_w)[0], expected, rtol=1e-5)
    alone = np.zeros(bank.channels)
    alone[4 * 9 + 4] = 1.0
    near = crosstalk.received_w(crosstalk.crosstalk_of(segments, own), alone)[segments.own].reshape(21, 9)
    error = 1e-9 if reach_m < 1e-3 else 0.0015
    assert near[4, 3] == pytest.approx(0.01, abs=error)  # 100 µm along the row
    assert near[3, 4] == pytest.approx(0.02, abs=error)  # 50 µm to the next row


@BOTH
def test_no_crosstalk_beyond_reach_or_at_fraction_zero(build: Build) -> None:
    mesh = build(6)
    for own in (CrosstalkParameters(), CrosstalkParameters(fraction=0.1, reach_m=4e-5)):
        segments = crosstalk.mesh_segments(mesh, own)
        assert heat_map(segments, mesh, own, 1.0).rows.shape == (0, 5)
        assert not crosstalk.received_w(crosstalk.crosstalk_of(segments, own), np.arange(36.0)).any()


def test_rows_of_a_large_mesh_share_their_lists() -> None:
    own, mesh = CrosstalkParameters(fraction=0.005, reach_m=3e-3), clements(128)
    heat = heat_map(crosstalk.mesh_segments(mesh, own), mesh, own, 1.0)
    assert heat.rows.shape[0] == 2 * 257
    assert np.unique(heat.rows[:, 2]).size < 40


@pytest.mark.parametrize("topology", ["clements", "reck", "svd"])
def test_the_second_stage_is_coherent_with_the_first(topology: str) -> None:
    """Without nonlinearity, readings behind two stages follow the product of the chains of all segments."""
    parts = {"nonlinearity": {"kind": "none"}, "crosstalk": {"fraction": 0.05, "reach_m": 2e-3}, "mesh": {"topology": topology}}
    chip = chip_of("ideal", parts, ports=5, stages=2)
    drive = np.random.default_rng(1).uniform(0, 6, chip.describe().channels)
    chip.apply(drive)
    inputs = np.random.default_rng(2).random((7, 5))
    whole = brute_force(chip, 1, drive) @ brute_force(chip, 0, drive)
    np.testing.assert_allclose(stage_matrix(chip, 1) @ stage_matrix(chip, 0), whole, atol=1e-12)
    expected = 0.01 / 5 * np.abs(inputs @ whole.T) ** 2
    readings = chip.evaluate(drive[np.newaxis, chip.stages[1].channels], inputs, "mesh1").values[0]
    np.testing.assert_allclose(readings, expected, atol=1e-5 * expected.max())


def brute_force(chip: Chip, stage: int, drive: NDArray) -> NDArray[np.complex128]:
    """Matrix of a stage from powers and positions, by the chain of all segments."""
    here, own = chip.stages[stage], chip.parameters.heater
    power_w = drive[here.channels] ** 2 / own.resistance_ohm
    received_w = crosstalk.received_w(crosstalk.crosstalk_of(here.segments, chip.parameters.crosstalk), power_w)
    heated = np.pi * (power_w + received_w[here.segments.own]) / here.truth.arm_pi_power_w
    share = float(crosstalk.share_at(chip.parameters.crosstalk.mode_pitch_m, chip.parameters.crosstalk))
    others = np.pi / (own.pi_power_w * (1 - share)) * received_w
    none = np.zeros(here.mesh.interferometers)
    return chain(here.mesh, heated, others, np.zeros((none.size, 2)), none)
