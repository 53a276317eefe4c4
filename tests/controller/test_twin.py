"""The twin: its readings against the simulator and against dense matrices, its derivatives against differences."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import numpy as np
import pytest
from numpy.typing import NDArray
from support.chips import chip_of
from support.twins import COLUMN_M, MODE_M, STEADY, drawn, layout_of, random_inputs, true_parameters

from photonloop.controller.calibration.twin import Twin, adjoint_pass, forward_pass, predict, transfer_matrices
from photonloop.controller.calibration.twin_jacobian import readings_jacobian
from photonloop.controller.calibration.twin_layout import REFERENCE_M, TwinLayout, twin_layout
from photonloop.controller.calibration.twin_parameters import (
    TwinParameters,
    filled,
    nominal_prior,
    pack,
    parameter_names,
    slices,
    unpack,
)
from photonloop.controller.learning.variables import to_drive
from photonloop.simulator.truth import reference

ALL = pytest.mark.parametrize("topology", ["clements", "reck", "svd"])


def random_twin(layout: TwinLayout, seed: int = 1) -> Twin:
    """Every effect is present and strong, so that no term of a derivative is lost in rounding errors."""
    own = drawn(layout, nominal_prior(layout, 1e-4, 1e-7), np.random.default_rng(seed))
    own = dataclasses.replace(
        own,
        curvature=0.02,
        self_heating=0.07,
        crosstalk_share=0.02,
        ground_ratio=2e-3,
        input_leak=0.05,
        input_coupling=0.03,
        compression=0.3,
        detector_memory=0.2,
    )
    return Twin(layout, own)


@ALL
@pytest.mark.parametrize("preset", ["ideal", "soi"])
def test_readings_agree_with_the_simulator(topology: str, preset: str) -> None:
    """The simulator's reference currents, in double precision, for the true parameters of the chip."""
    chip = chip_of(preset, {**STEADY, "mesh": {"topology": topology}}, ports=6, stages=1, seed=4)
    description, rng = chip.describe(), np.random.default_rng(2)
    layout = twin_layout(description, description.stages[0])
    phases, inputs = rng.uniform(0, 2 * np.pi, (3, layout.channels)), random_inputs(9, 6, rng)
    found = predict(Twin(layout, true_parameters(chip, layout)), phases, inputs)
    for setting, drive in enumerate(to_drive(phases, description.drive)):
        expected = reference.remembered_a(chip, reference.settled_currents_a(chip, 0, drive, inputs))
        np.testing.assert_allclose(found[setting], expected, rtol=1e-9, atol=1e-12 * expected.max())


def received(heat: dict[tuple[int, int], float], half: int, mode: int, own: TwinParameters, reach_m: float) -> float:
    """Power that a segment receives from all heaters but its own, one by one."""
    total = 0.0
    for (x, y), power in heat.items():
        distance_m = np.hypot((x - half) * COLUMN_M / 2, (y - mode) * MODE_M)
        if 0 < distance_m <= reach_m * 1.000001:
            total += own.crosstalk_share * (REFERENCE_M / distance_m) ** own.crosstalk_exponent * power
    return total


def by_dense_matrices(twin: Twin, x: NDArray[np.float64], heated_arm: str, reach_m: float) -> NDArray[np.complex128]:
    """The transfer matrix as a product over half columns, with a phase on every segment of every mode."""
    layout, own = twin.layout, twin.parameters
    lower, columns = heated_arm == "lower", int(layout.column.max()) + 1
    p = own.kappa * x / np.pi
    p = 2 * p / (1 + np.sqrt(1 + 4 * own.self_heating * p))
    heater_at, heat = {}, {}
    for channel_of, late in ((layout.phi, 0), (layout.theta, 1)):
        for k, channel in enumerate(channel_of):
            heater_at[2 * int(layout.column[k]) + late, int(layout.top[k]) + lower] = int(channel)
    for mode, channel in enumerate(layout.gamma):
        heater_at[2 * columns, mode] = int(channel)
    for place, channel in heater_at.items():
        heat[place] = p[channel] / own.kappa[channel]
    share = own.crosstalk_share * (REFERENCE_M / MODE_M) ** own.crosstalk_exponent
    rate, eta = np.pi / (1 - share), own.curvature

    def phase(half: int, mode: int) -> float:
        other = received(heat, half, mode, own, reach_m)
        if (half, mode) not in heater_at:
            return rate * other
        channel = heater_at[half, mode]
        partner = share if half < 2 * columns else 0.0
        # At P_π the own arm turns by π more than the other arm does.
        ahead = np.pi + rate * partner / own.kappa[channel]
        powers = np.roots([eta, 1.0, -(1 + eta) * ahead / np.pi])
        per_power = float(powers[np.argmin(np.abs(powers - 1))].real) * own.kappa[channel]
        arm = (heat[half, mode] + other) * per_power
        return own.offset_rad[channel] + np.pi * arm * (1 + eta * arm) / (1 + eta)

    survives = 10 ** (-own.shifter_db / 20)
    whole = np.eye(layout.ports, dtype=np.complex128)
    for half in range(2 * columns + 1):
        field = np.exp(1j * np.array([phase(half, mode) for mode in range(layout.ports)]))
        field *= np.array([survives if (half, mode) in heater_at else 1.0 for mode in range(layout.ports)])
        whole = field[:, np.newaxis] * whole
        if half == 2 * columns:
            break
        couplers = np.eye(layout.ports, dtype=np.complex128)
        for k in np.flatnonzero(layout.column == half // 2):
            angle, t = np.pi / 4 + own.coupler_error_rad[k, half % 2], layout.top[k]
            loss = 10 ** (-own.loss_db[k] / 20) if half % 2 else 1.0
            couplers[t : t + 2, t : t + 2] = loss * np.array(
                [[np.cos(angle), 1j * np.sin(angle)], [1j * np.sin(angle), np.cos(angle)]]
            )
        whole = couplers @ whole
    return whole


@pytest.mark.parametrize("topology", ["clements", "reck"])
@pytest.mark.parametrize("heated_arm", ["upper", "lower"])
def test_crosstalk_acts_on_every_segment(topology: str, heated_arm: str) -> None:
    layout = layout_of(topology, 4, heated_arm)
    twin = random_twin(layout)
    own = dataclasses.replace(twin.parameters, ground_ratio=0.0, heat_response=0.0 * twin.parameters.heat_response)
    twin = Twin(layout, own)
    x = np.random.default_rng(3).uniform(0.1, 7, layout.channels)
    expected = by_dense_matrices(twin, x, heated_arm, 1.6e-4)
    found = transfer_matrices(twin, x[np.newaxis])[0]
    np.testing.assert_allclose(found, expected, atol=1e-12)


def test_pi_power_is_that_of_the_difference_between_both_arms() -> None:
    """One interferometer: at P_π of its θ, cross becomes bar, although heat reaches its lower arm."""
    layout = layout_of("clements", 2)
    own = filled(
        layout,
        kappa=1.04,
        curvature=0.02,
        crosstalk_share=0.05,
        crosstalk_exponent=1.0,
        level=1.0,
        input_gain=1.0,
        detector_gain=1.0,
    )
    phases = np.zeros((2, layout.channels))
    phases[1, layout.theta[0]] = np.pi / 1.04
    cross, bar = predict(Twin(layout, own), phases, np.array([[1.0, 0.0]]))[:, 0]
    np.testing.assert_allclose(cross, [0, 1], atol=1e-9)
    np.testing.assert_allclose(bar, [1, 0], atol=1e-9)


def test_heaters_of_a_half_column_share_a_ground() -> None:
    """Two cold heaters in one conductor: V - R_g·I solves Kirchhoff's equations."""
    layout = layout_of("clements", 4, None)
    ratio = 0.01
    own = filled(layout, kappa=1.0, level=1.0, input_gain=1.0, detector_gain=1.0, ground_ratio=ratio)
    v = np.zeros(layout.channels)
    first, second = layout.theta[layout.column == 0]
    v[first], v[second] = 0.8, 1.1
    currents = np.linalg.solve(np.eye(2) + ratio, v[[first, second]])  # V = I + ratio · ΣI, with R = 1
    alone = np.zeros(layout.channels)
    alone[[first, second]] = np.pi * currents**2
    inputs = np.eye(4)
    found = predict(Twin(layout, own), np.pi * v[np.newaxis] ** 2, inputs)
    expected = predict(Twin(layout, dataclasses.replace(own, ground_ratio=0.0)), alone[np.newaxis], inputs)
    np.testing.assert_allclose(found, expected, atol=1e-8)


def test_without_loss_all_light_reaches_the_detectors() -> None:
    layout = layout_of("reck", 5)
    twin = random_twin(layout)
    own = dataclasses.replace(twin.parameters, loss_db=np.zeros(layout.interferometers), shifter_db=0.0)
    x = np.random.default_rng(3).uniform(0.1, 7, (2, layout.channels))
    matrices = transfer_matrices(Twin(layout, own), x)
    np.testing.assert_allclose(matrices.conj().transpose(0, 2, 1) @ matrices, np.broadcast_to(np.eye(5), (2, 5, 5)), atol=1e-12)


def fourth_order(function: Callable[[NDArray], float], at: NDArray[np.float64], step: NDArray[np.float64]) -> NDArray[np.float64]:
    """Central differences with an error of the fourth order."""
    found = np.zeros(at.size)
    for k in range(at.size):
        for offset, weight in ((-2, 1), (-1, -8), (1, 8), (2, -1)):
            moved = at.copy()
            moved.flat[k] += offset * step.flat[k]
            found[k] += weight * function(moved) / (12 * step.flat[k])
    return found.reshape(at.shape)


@ALL
@pytest.mark.parametrize(("heated_arm", "samples"), [("upper", 3), ("lower", 7), (None, 7)])
def test_the_adjoint_agrees_with_differences(topology: str, heated_arm: str | None, samples: int) -> None:
    """All parameters and all heater phases; with fewer and with more samples than ports, and complex inputs."""
    layout, rng = layout_of(topology, 4, heated_arm), np.random.default_rng(5)
    twin = random_twin(layout)
    phases = rng.uniform(0.1, 7, (2, layout.channels))
    inputs = rng.uniform(0, 1, (samples, 4)) * np.exp(1j * rng.uniform(0, 6, (samples, 4)))
    at = forward_pass(twin, phases, inputs)
    slopes = rng.standard_normal(at.readings.shape)
    found = adjoint_pass(twin, at, slopes)

    def loss(vector: NDArray[np.float64], x: NDArray[np.float64]) -> float:
        return float(np.sum(slopes * predict(Twin(layout, unpack(layout, vector)), x, inputs)))

    vector = pack(twin.parameters)
    expected = fourth_order(lambda moved: loss(moved, phases), vector, 1e-4 * np.maximum(np.abs(vector), 1e-3))
    for kind, part in slices(layout).items():
        size = np.abs(expected[part]).max()
        if kind != "crosstalk_exponent" or heated_arm is not None:  # all neighbours are at the same distance
            np.testing.assert_allclose(pack(found.parameters)[part], expected[part], atol=1e-6 * size, err_msg=kind)
    expected = fourth_order(lambda moved: loss(vector, moved), phases, np.full(phases.shape, 1e-3))
    np.testing.assert_allclose(found.phases, expected, atol=1e-8 * np.abs(expected).max())


@ALL
def test_jacobian_and_adjoint_are_transposed(topology: str) -> None:
    """⟨slopes, J·change⟩ = ⟨Jᵀ·slopes, change⟩, with the Jacobian and the adjoint from different code."""
    layout, rng = layout_of(topology, 5), np.random.default_rng(5)
    twin = random_twin(layout)
    phases, inputs = rng.uniform(0.1, 7, (3, layout.channels)), random_inputs(8, 5, rng)
    at = forward_pass(twin, phases, inputs)
    slopes = rng.standard_normal(at.readings.shape)
    backward = pack(adjoint_pass(twin, at, slopes).parameters)
    forward = np.zeros(backward.size)
    for setting in range(3):
        here = readings_jacobian(twin, phases[setting], inputs)
        readings, jacobian = here.readings, here.dense(twin)
        np.testing.assert_allclose(readings, at.readings[setting], rtol=1e-12)
        forward += slopes[setting].ravel() @ jacobian
    for part in slices(layout).values():
        np.testing.assert_allclose(forward[part], backward[part], atol=1e-12 * np.abs(backward[part]).max())


def test_inputs_may_differ_between_settings() -> None:
    layout, rng = layout_of("clements", 4), np.random.default_rng(6)
    twin = random_twin(layout)
    phases, inputs = rng.uniform(0.1, 7, (2, layout.channels)), np.stack([random_inputs(6, 4, rng) for _ in range(2)])
    at = forward_pass(twin, phases, inputs)
    slopes = rng.standard_normal(at.readings.shape)
    whole, each = pack(adjoint_pass(twin, at, slopes).parameters), 0.0
    for setting in range(2):
        here = slice(setting, setting + 1)
        one = forward_pass(twin, phases[here], inputs[setting])
        np.testing.assert_allclose(one.readings[0], at.readings[setting], rtol=1e-12)
        each = each + pack(adjoint_pass(twin, one, slopes[here]).parameters)
    np.testing.assert_allclose(whole, each, rtol=1e-9, atol=1e-12 * np.abs(whole).max())


def test_the_gradient_at_0_v_is_finite() -> None:
    layout = layout_of("clements", 4)
    twin = Twin(layout, dataclasses.replace(random_twin(layout).parameters, ground_ratio=0.0))
    at = forward_pass(twin, np.zeros((1, layout.channels)), np.eye(4))
    found = adjoint_pass(twin, at, np.ones(at.readings.shape) * np.arange(4))
    assert np.isfinite(found.phases).all() and np.isfinite(pack(found.parameters)).all()


def test_parameters_as_a_flat_vector() -> None:
    layout = layout_of("svd", 3)
    vector = np.arange(float(slices(layout)["detector_memory"].stop))
    np.testing.assert_array_equal(pack(unpack(layout, vector)), vector)
    names = parameter_names(layout)
    assert len(names) == vector.size and len(set(names)) == vector.size
    assert names[slices(layout)["coupler_error_rad"].start + 3] == "coupler_error_rad[1, 1]"
    with pytest.raises(ValueError, match="parameters"):
        unpack(layout, vector[1:])
    with pytest.raises(ValueError, match="no parameters of a twin"):
        filled(layout, offset=1.0)


def test_a_stage_without_layout_has_no_twin() -> None:
    chip = chip_of("ideal", {"mesh": {"topology": "weight_bank"}}, ports=4, stages=1)
    with pytest.raises(ValueError, match="no layout of interferometers"):
        twin_layout(chip.describe(), chip.describe().stages[0])
