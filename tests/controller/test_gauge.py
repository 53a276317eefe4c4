"""What readings cannot show: parameters of a twin that can be exchanged for others without any effect."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from numpy.typing import NDArray
from support.twins import drawn, layout_of

from photonloop.controller.calibration.mesh_fields import LN_PER_DB
from photonloop.controller.calibration.twin import Twin, predict
from photonloop.controller.calibration.twin_parameters import nominal_prior

PORTS = 4


@pytest.fixture(scope="module")
def twin() -> Twin:
    """A random mesh with crosstalk. Its inputs neither leak nor couple, so that single inputs can be lit."""
    layout, rng = layout_of("clements", PORTS), np.random.default_rng(5)
    own = drawn(layout, nominal_prior(layout, 1e-3, 1e-9), rng)
    return Twin(layout, dataclasses.replace(own, input_leak=0.0, input_coupling=0.0))


@pytest.fixture(scope="module")
def settings(twin: Twin) -> NDArray[np.float64]:
    return np.random.default_rng(6).uniform(0.2, 6.5, (5, twin.layout.channels))


def changed(twin: Twin, **values: NDArray[np.float64]) -> Twin:
    return Twin(twin.layout, dataclasses.replace(twin.parameters, **values))


def test_phases_of_inputs_are_offsets_of_phi(twin: Twin, settings: NDArray[np.float64]) -> None:
    """N - 1 differences of input phases move through the mesh into φ, also for inputs that are lit together."""
    layout, inputs = twin.layout, np.random.default_rng(7).uniform(0, 1, (6, PORTS))
    offset_rad, running = twin.parameters.offset_rad.copy(), twin.parameters.input_phase_rad.copy()
    for top, phi in zip(layout.top, layout.phi, strict=True):
        offset_rad[phi] += running[top] - running[top + 1]
        running[top] = running[top + 1]
    other = changed(twin, offset_rad=offset_rad, input_phase_rad=np.zeros(PORTS))
    assert np.allclose(predict(other, settings, inputs), predict(twin, settings, inputs), rtol=1e-9, atol=1e-15)


def test_single_inputs_show_no_phase_of_an_input_and_no_phi_of_column_0(twin: Twin, settings: NDArray[np.float64]) -> None:
    layout, rng, single = twin.layout, np.random.default_rng(8), np.eye(PORTS)
    first = layout.phi[layout.column == 0]
    offset_rad = twin.parameters.offset_rad.copy()
    offset_rad[first] += rng.uniform(0, 6, first.size)
    other = changed(twin, offset_rad=offset_rad, input_phase_rad=rng.uniform(0, 6, PORTS))
    assert np.allclose(predict(other, settings, single), predict(twin, settings, single), rtol=1e-9, atol=1e-15)
    assert not np.allclose(
        predict(other, settings, single + np.roll(single, 1)), predict(twin, settings, single + np.roll(single, 1))
    )


def test_output_phases_are_not_read(twin: Twin, settings: NDArray[np.float64]) -> None:
    """γ acts on single outputs, so its offsets and κ have no effect; the heat of its heaters does."""
    gamma, rng = twin.layout.gamma, np.random.default_rng(9)
    offset_rad = twin.parameters.offset_rad.copy()
    offset_rad[gamma] = rng.uniform(0, 6, gamma.size)
    inputs = rng.uniform(0, 1, (6, PORTS))
    other = changed(twin, offset_rad=offset_rad)
    assert np.allclose(predict(other, settings, inputs), predict(twin, settings, inputs), rtol=1e-9, atol=1e-15)


def test_exchanged_fibres_of_one_interferometer_are_absorbed(twin: Twin, settings: NDArray[np.float64]) -> None:
    """With one lit input at a time: θ + π, and the opposite angle error of the first coupler."""
    layout, own = twin.layout, twin.parameters
    k = int(np.flatnonzero((layout.column == 0) & (layout.top == 2))[0])
    offset_rad, errors, gain = own.offset_rad.copy(), own.coupler_error_rad.copy(), own.input_gain.copy()
    offset_rad[layout.theta[k]] += np.pi
    errors[k, 0] *= -1
    passed = np.exp(LN_PER_DB * own.shifter_db)  # field behind the shifter of φ, which is in the way of one input only
    gain[2], gain[3] = own.input_gain[3] / passed, own.input_gain[2] * passed
    other = changed(twin, offset_rad=offset_rad, coupler_error_rad=errors, input_gain=gain)
    exchanged = predict(twin, settings, np.eye(PORTS)[[0, 1, 3, 2]])
    assert np.allclose(predict(other, settings, np.eye(PORTS)), exchanged, rtol=1e-9, atol=1e-15)


def test_exchanged_detectors_of_one_interferometer_are_absorbed(twin: Twin, settings: NDArray[np.float64]) -> None:
    """θ + π, and the opposite angle error of the second coupler, for any inputs."""
    layout, own, inputs = twin.layout, twin.parameters, np.random.default_rng(10).uniform(0, 1, (6, PORTS))
    k = int(np.flatnonzero((layout.column == layout.column.max()) & (layout.top == 1))[0])
    offset_rad, errors = own.offset_rad.copy(), own.coupler_error_rad.copy()
    offset_rad[layout.theta[k]] += np.pi
    errors[k, 1] *= -1
    order = np.array([0, 2, 1, 3])
    other = changed(
        twin,
        offset_rad=offset_rad,
        coupler_error_rad=errors,
        detector_gain=own.detector_gain[order],
        detector_dark=own.detector_dark[order],
    )
    assert np.allclose(predict(other, settings, inputs), predict(twin, settings, inputs)[:, :, order], rtol=1e-9, atol=1e-15)
