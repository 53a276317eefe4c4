"""Variables: conversion to volts, reflection and limits."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from photonloop.controller.learning.variables import (
    Bounds,
    lsb_rad,
    phases_of_drive,
    project,
    reflect,
    stage_bounds,
    start_variables,
    to_drive,
)
from photonloop.protocols.device import (
    DeviceDescription,
    DriveDescription,
    LimitsDescription,
    ReadoutDescription,
    StageDescription,
)
from photonloop.protocols.limits import check_held_drive


def description(total_power_w: float = 0.0, power_w: float = 0.0, bits: int = 16) -> DeviceDescription:
    stage = {"topology": "clements", "ports": 2, "channels": 4, "groups": {"theta": (0, 2), "phi": (2, 4)}, "tap_ports": 2}
    return DeviceDescription(
        name="bench of two",
        kind="bench",
        input_ports=2,
        phases_settable=False,
        stages=(
            StageDescription(name="a", first_channel=0, **stage),  # pyright: ignore[reportArgumentType]
            StageDescription(name="b", first_channel=4, **stage),  # pyright: ignore[reportArgumentType]
        ),
        drive=DriveDescription(
            min_v=0.0, max_v=10.0, bits=bits, range_v=12.0, settle_s=1e-5, resistance_ohm=800.0, pi_power_w=0.025
        ),
        readout=ReadoutDescription(full_scale=(1e-3, 1e-3), sample_s=1e-6),
        limits=LimitsDescription(
            voltage_v=9.0,
            power_w=power_w,
            total_power_w=total_power_w,
            max_batch=10,
            max_settings=10,
            max_readings=1000,
            max_loaded_bytes=1000,
        ),
        clock="real",
    )


def test_a_phase_of_pi_takes_the_power_p_pi() -> None:
    drive = description().drive
    assert to_drive(np.array([np.pi]), drive)[0] == pytest.approx((0.025 * 800) ** 0.5)


@given(st.floats(0.0, 20.0))
def test_volts_and_nominal_phases_are_inverse(phase: float) -> None:
    drive = description().drive
    assert phases_of_drive(to_drive(np.array([phase]), drive), drive)[0] == pytest.approx(phase, rel=1e-12)


def test_lsb_rad_is_the_finite_difference_at_v_pi() -> None:
    drive = description().drive
    v_pi = to_drive(np.array([np.pi]), drive)
    moved = phases_of_drive(v_pi + drive.lsb_v, drive)[0] - np.pi
    assert lsb_rad(drive) == pytest.approx(moved, rel=1e-4)
    assert lsb_rad(description(bits=0).drive) == 0.0


@given(st.floats(-1e3, 1e3))
def test_reflect_mirrors_at_both_bounds(phase: float) -> None:
    bounds = Bounds(low=np.array([0.5]), high=np.array([2.0]), total=np.inf)
    reflected = reflect(np.array([phase]), bounds)[0]
    assert 0.5 <= reflected <= 2.0 + 1e-9
    for bound in (0.5, 2.0):
        assert reflect(np.array([2 * bound - phase]), bounds)[0] == pytest.approx(reflected, abs=1e-9)


@given(st.integers(0, 2**32 - 1), st.floats(0.0, 0.3), st.sampled_from([0.0, 0.2]), st.sampled_from([0.0, 0.04]))
def test_projected_variables_and_their_probes_pass_the_limits(seed: int, step: float, total_w: float, power_w: float) -> None:
    device = description(total_w, power_w)
    rng = np.random.default_rng(seed)
    all_bounds = [stage_bounds(device, stage, step) for stage in device.stages]
    wild = [project(50 * rng.standard_normal(4), bounds) for bounds in all_bounds]
    start = [start_variables(bounds, rng) for bounds in all_bounds]
    for variables in (wild, start):
        check_held_drive(device, np.concatenate([to_drive(v, device.drive) for v in variables]))
        # Signs that cancel in the total power, as they do on average. The margin of the bounds is for other cases.
        probed = [v + step * np.array([1.0, -1.0, 1.0, -1.0]) for v in variables]
        check_held_drive(device, np.concatenate([to_drive(v, device.drive) for v in probed]))


def test_probes_that_leave_no_range_are_refused() -> None:
    with pytest.raises(ValueError, match="leave no range"):
        stage_bounds(description(), description().stages[0], 40.0)
