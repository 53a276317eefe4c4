"""The device contract (`protocols/device.py`), tested on every kind of device through the contract only."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from support.device_requests import drives_for, fair_v, full_light, held_drive, light, mesh, refused

from photonloop.protocols.client.device_client import DeviceClient, connect
from photonloop.protocols.device import DeviceDescription, DeviceStatus, LoadedRows, PhotonicDevice, Readings
from photonloop.protocols.errors import DeviceError
from photonloop.protocols.limits import heater_power_w

Open = Callable[[], PhotonicDevice]


def mean(readings: Readings) -> np.ndarray:
    return readings.values.astype(np.float64)


# ---- description and status ------------------------------------------------------------------------------------------


def test_the_device_satisfies_the_interface(device: PhotonicDevice) -> None:
    assert isinstance(device, PhotonicDevice)


def test_the_description_is_consistent(device: PhotonicDevice) -> None:
    description = device.describe()
    assert device.describe() == description
    assert DeviceDescription.model_validate_json(description.model_dump_json()) == description
    next_channel = 0
    for stage in description.stages:
        assert stage.first_channel == next_channel
        next_channel += stage.channels
        covered = sorted(channel for start, stop in stage.groups.values() for channel in range(start, stop))
        assert covered == list(range(stage.channels))
        for column, top, theta, phi in stage.layout:
            assert column >= 0
            alone = theta in range(*stage.groups.get("attenuator_theta", (0, 0)))
            assert 0 <= top < stage.ports - (0 if alone else 1)
            assert {theta, phi} <= set(range(stage.channels))
    assert len({stage.name for stage in description.stages}) == len(description.stages)
    assert len(description.readout.full_scale) == len(description.stages)
    assert description.drive.min_v < description.drive.max_v


def test_the_status_reflects_the_held_drive(device: PhotonicDevice) -> None:
    device.safe()
    status = device.status()
    assert isinstance(status, DeviceStatus)
    assert status.safe
    assert not status.busy
    drive = held_drive(device)
    device.apply(drive)
    status = device.status()
    assert not status.safe
    assert status.heater_power_w == pytest.approx(heater_power_w(device.describe(), drive))


# ---- apply --------------------------------------------------------------------------------------------------------


def test_a_repeated_apply_changes_nothing(device: PhotonicDevice) -> None:
    drive = held_drive(device)
    device.apply(drive)
    power_w = device.status().heater_power_w
    device.apply(drive)
    assert device.status().heater_power_w == power_w


def test_an_invalid_drive_is_refused_as_a_whole(device: PhotonicDevice) -> None:
    description = device.describe()
    good = held_drive(device)
    device.apply(good)
    power_w = device.status().heater_power_w
    last = description.channels - 1
    for value, code in (
        (np.nan, "bad_request"),
        (np.inf, "bad_request"),
        (-np.inf, "bad_request"),
        (description.drive.max_v * 1.01, "limit"),
        (description.drive.min_v - 0.01, "limit"),
    ):
        bad = np.zeros_like(good)
        bad[last] = value
        error = refused(lambda bad=bad: device.apply(bad), code)
        assert error.channel == last
        assert device.status().heater_power_w == power_w
    for shape in ((), (0,), (last,), (last + 2,), (1, last + 1)):
        refused(lambda shape=shape: device.apply(np.zeros(shape)), "bad_request")
    refused(lambda: device.apply("volts"), "bad_request")  # pyright: ignore[reportArgumentType]
    assert device.status().heater_power_w == power_w


def test_total_heater_power_is_limited(device: PhotonicDevice) -> None:
    description = device.describe()
    if not description.limits.total_power_w:
        pytest.skip("no limit of total power")
    if float(np.min(description.limits.voltage_v)) <= 1.02 * fair_v(description):
        pytest.skip("the limits per channel are tighter")
    refused(lambda: device.apply(np.full(description.channels, 1.01 * fair_v(description))), "limit")
    # The settings of one stage count together with the held drive of the others.
    device.apply(np.full(description.channels, 0.99 * fair_v(description)))
    if len(description.stages) > 1:
        drives = np.full((1, mesh(device).channels), 1.02 * fair_v(description))
        refused(lambda: device.evaluate(drives, light(device, 1), mesh(device).name), "limit")


# ---- evaluate -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("settings", "samples"), [(1, 1), (2, 128), (7, 3)])
def test_the_shape_of_readings(device: PhotonicDevice, settings: int, samples: int) -> None:
    for index, stage in enumerate(device.describe().stages):
        readings = device.evaluate(drives_for(device, settings, index), light(device, samples), stage.name)
        assert readings.values.shape == (settings, samples, stage.tap_ports)
        assert readings.values.dtype == np.float32
        assert np.isfinite(readings.values).all()
        assert readings.time_s.shape == (settings,)
        assert readings.flags.shape == (settings, stage.tap_ports)
        assert readings.time_s.dtype == np.float64
        assert readings.flags.dtype == np.uint32


def test_the_clock_advances_with_every_setting(device: PhotonicDevice) -> None:
    stage = mesh(device).name
    before_s = device.status().clock_s
    first = device.evaluate(drives_for(device, 5), light(device, 3), stage).time_s
    second = device.evaluate(drives_for(device, 5), light(device, 3), stage).time_s
    assert (np.diff([before_s, *first, *second]) > 0).all()
    assert device.status().clock_s >= second[-1]
    settle_s = device.describe().drive.settle_s
    assert (np.diff(first) >= settle_s * (1 - 1e-9)).all()


def test_evaluations_are_counted_in_settings(device: PhotonicDevice) -> None:
    before = device.status().evaluations
    device.evaluate(drives_for(device, 5), light(device, 3), mesh(device).name)
    assert device.status().evaluations == before + 5


def test_an_evaluation_restores_the_held_drive(device: PhotonicDevice) -> None:
    device.apply(held_drive(device))
    power_w = device.status().heater_power_w
    device.evaluate(drives_for(device, 3, fraction=0.1), light(device, 3), mesh(device).name)
    assert device.status().heater_power_w == power_w


def test_more_light_gives_more_current(device: PhotonicDevice) -> None:
    samples = np.vstack([0 * full_light(device), full_light(device)])
    values = mean(device.evaluate(np.zeros((1, mesh(device).channels)) + drives_for(device, 1), samples, mesh(device).name))
    # Balanced pairs may have negative readings.
    assert np.abs(values[0, 1]).sum() > np.abs(values[0, 0]).sum()


def test_readings_belong_to_the_caller(device: PhotonicDevice) -> None:
    stage = mesh(device).name
    first = device.evaluate(drives_for(device, 4), light(device, 8), stage)
    copies = first.values.copy(), first.time_s.copy(), first.flags.copy()
    device.evaluate(drives_for(device, 4) * 0.5, light(device, 8) * np.float32(0.1), stage)
    for now, then in zip((first.values, first.time_s, first.flags), copies, strict=True):
        np.testing.assert_array_equal(now, then)


def test_an_evaluation_with_one_invalid_setting_is_refused_as_a_whole(device: PhotonicDevice) -> None:
    description = device.describe()
    stage = description.stages[-1]
    device.apply(held_drive(device))
    before = device.status()
    for value, code in (
        (np.nan, "bad_request"),
        (np.inf, "bad_request"),
        (description.drive.max_v * 1.01, "limit"),
        (description.drive.min_v - 0.01, "limit"),
    ):
        drives = drives_for(device, 5, len(description.stages) - 1)
        drives[3, 1] = value
        error = refused(lambda drives=drives: device.evaluate(drives, light(device, 3), stage.name), code)
        assert error.channel == stage.first_channel + 1
        assert "setting 3" in error.detail
    after = device.status()
    assert (after.evaluations, after.heater_power_w) == (before.evaluations, before.heater_power_w)


def test_invalid_evaluations_are_refused(device: PhotonicDevice) -> None:
    description = device.describe()
    stage, good, samples = mesh(device), drives_for(device, 2), light(device, 3)
    before = device.status().evaluations
    refused(lambda: device.evaluate(good, samples, "no such mesh"), "bad_request")
    refused(lambda: device.evaluate(good, samples, ""), "bad_request")
    shapes: list[Any] = [good[0], good[:, :-1], good[:0], good[np.newaxis], good > 0]
    for drives in shapes:
        refused(lambda drives=drives: device.evaluate(drives, samples, stage.name), "bad_request")
    bad_value = samples.copy()
    for value in (np.nan, np.inf, 1.01, -0.01):
        bad_value[1, 1] = value
        refused(lambda: device.evaluate(good, bad_value, stage.name), "bad_request")
    for inputs in (samples[0], samples[:, :-1], samples[:0], samples[np.newaxis], np.array([["a"] * samples.shape[1]])):
        refused(lambda inputs=inputs: device.evaluate(good, inputs, stage.name), "bad_request")
    if description.phases_settable:
        device.evaluate(good, samples.astype(np.complex64) * 1j, stage.name)
    else:
        refused(lambda: device.evaluate(good, samples.astype(np.complex64), stage.name), "bad_request")
    assert device.status().evaluations == before + 2 * description.phases_settable


def test_evaluations_that_are_too_large_are_refused(device: PhotonicDevice) -> None:
    limits, stage = device.describe().limits, mesh(device)
    one = np.zeros((1, stage.channels))
    refused(lambda: device.evaluate(one, np.zeros((limits.max_batch + 1, light(device, 1).shape[1])), stage.name), "limit")
    many = np.zeros((limits.max_settings + 1, stage.channels))
    refused(lambda: device.evaluate(many, light(device, 1), stage.name), "limit")
    settings = limits.max_readings // (limits.max_batch * stage.tap_ports) + 1
    if settings <= limits.max_settings:
        names = LoadedRows("one", np.zeros(limits.max_batch, np.int64))
        device.load_inputs("one", light(device, 1))
        refused(lambda: device.evaluate(np.zeros((settings, stage.channels)), names, stage.name), "limit")


# ---- loaded inputs ---------------------------------------------------------------------------------------------------


def test_loaded_rows_give_the_same_readings_as_the_inputs(device: PhotonicDevice) -> None:
    samples = light(device, 300)
    device.load_inputs("train", samples)
    for index, stage in enumerate(device.describe().stages):
        drives = drives_for(device, 2, index)
        rows = np.array([299, 0, 0, 17, 5])
        direct = mean(device.evaluate(drives, samples[rows], stage.name))
        loaded = mean(device.evaluate(drives, LoadedRows("train", rows), stage.name))
        noise = 0.05 * np.abs(direct).max()
        np.testing.assert_allclose(loaded, direct, atol=noise)
        assert np.ptp(direct) > noise  # otherwise the comparison would be meaningless


def test_loaded_inputs_are_copies_and_can_be_replaced(device: PhotonicDevice) -> None:
    stage, drives, rows = mesh(device), drives_for(device, 1), LoadedRows("x", np.array([0]))
    mine = full_light(device)
    bright = mean(device.evaluate(drives, mine, stage.name))
    noise = 0.05 * np.abs(bright).max()
    device.load_inputs("x", mine)
    mine[:] = 0.0
    np.testing.assert_allclose(mean(device.evaluate(drives, rows, stage.name)), bright, atol=noise)
    device.load_inputs("x", mine)
    dark = mean(device.evaluate(drives, rows, stage.name))
    assert np.abs(bright).sum() - np.abs(dark).sum() > noise


def test_invalid_rows_are_refused(device: PhotonicDevice) -> None:
    stage, drives = mesh(device).name, drives_for(device, 1)
    device.load_inputs("x", light(device, 4))
    for rows in (
        LoadedRows("never loaded", np.array([0])),
        LoadedRows("x", np.array([4])),
        LoadedRows("x", np.array([-1])),
        LoadedRows("x", np.array([], np.int64)),
        LoadedRows("x", np.array([[0]])),
        LoadedRows("x", np.array([0.0])),  # pyright: ignore[reportArgumentType]
    ):
        refused(lambda rows=rows: device.evaluate(drives, rows, stage), "bad_request")


def test_invalid_inputs_are_not_loaded(device: PhotonicDevice) -> None:
    limits, ports = device.describe().limits, device.describe().input_ports
    refused(lambda: device.load_inputs("bad", np.full((2, ports), 1.5)), "bad_request")
    refused(lambda: device.load_inputs("bad", np.zeros((2, ports + 1))), "bad_request")
    refused(lambda: device.load_inputs("bad", np.zeros((0, ports))), "bad_request")
    if limits.max_loaded_bytes < 2**26:
        too_many = limits.max_loaded_bytes // (4 * ports) + 1
        refused(lambda: device.load_inputs("bad", np.zeros((too_many, ports), np.float32)), "limit")
    rows = LoadedRows("bad", np.array([0]))
    refused(lambda: device.evaluate(drives_for(device, 1), rows, mesh(device).name), "bad_request")


# ---- stopping -----------------------------------------------------------------------------------------------------


def test_safe_may_be_repeated(device: PhotonicDevice) -> None:
    device.apply(held_drive(device))
    for _ in range(2):
        device.safe()
        assert device.status().safe
    device.apply(held_drive(device))
    assert not device.status().safe


def test_cancel_without_an_evaluation_has_no_effect(device: PhotonicDevice) -> None:
    device.cancel()
    stage = mesh(device).name
    assert device.evaluate(drives_for(device, 2), light(device, 3), stage).values.shape[0] == 2
    device.apply(held_drive(device))
    device.cancel()
    assert not device.status().safe


@pytest.mark.parametrize("stop", ["cancel", "safe"])
def test_a_stopped_evaluation_is_complete_or_refused(device: PhotonicDevice, stop: str) -> None:
    """For any timing, the evaluation is complete or refused, and the device can be used afterwards."""
    limits, stage = device.describe().limits, mesh(device)
    samples = light(device, min(limits.max_batch, 256))
    settings = min(limits.max_settings, limits.max_readings // (len(samples) * stage.tap_ports))
    drives = drives_for(device, min(settings, 4096 // (8 * stage.channels)))  # fits in the smallest max_message_bytes of KINDS
    device.apply(held_drive(device))
    power_w = device.status().heater_power_w
    begun = threading.Event()
    errors: list[DeviceError] = []

    def interrupt() -> None:
        begun.wait()
        for _ in range(20):
            try:
                getattr(device, stop)()
            except DeviceError as error:
                errors.append(error)

    thread = threading.Thread(target=interrupt)
    thread.start()
    begun.set()
    for _ in range(5):
        try:
            readings = device.evaluate(drives, samples, stage.name)
            assert readings.values.shape == (len(drives), len(samples), stage.tap_ports)
        except DeviceError as error:
            assert (error.code, error.outcome) == ("interlock", "not_applied"), error.detail
    thread.join()
    assert errors == []
    assert device.status().heater_power_w == (0.0 if stop == "safe" else power_w)
    getattr(device, stop)()  # the last evaluation may have switched the light on after the last stop
    assert device.status().safe is (stop == "safe")
    device.apply(held_drive(device))
    device.evaluate(drives[:1], samples, stage.name)


def test_after_its_own_safe_a_writer_must_apply_first(device: PhotonicDevice) -> None:
    if not isinstance(device, DeviceClient):
        pytest.skip("applies to servers only")
    drives, samples, stage = drives_for(device, 1), light(device, 1), mesh(device).name
    device.apply(held_drive(device))
    device.safe()
    assert device.status().faults == ()
    error = refused(lambda: device.evaluate(drives, samples, stage), "interlock")
    assert error.detail == "the device was made safe: apply a drive first"
    device.apply(held_drive(device))
    device.evaluate(drives, samples, stage)


def test_after_a_safe_by_another_client_the_writer_must_clear_the_fault(device: PhotonicDevice) -> None:
    if not isinstance(device, DeviceClient):
        pytest.skip("applies to servers only")
    drives, samples, stage = drives_for(device, 1), light(device, 1), mesh(device).name
    device.apply(held_drive(device))
    for _ in range(2):  # so that the server can predict the duration and evaluate inline
        device.evaluate(drives, samples, stage)
    before = device.status().evaluations
    with connect(device.address, label="other") as other:
        other.safe()
        assert other.status().safe
    assert [fault.name for fault in device.status().faults] == ["made_safe"]
    for call in (lambda: device.evaluate(drives, samples, stage), lambda: device.apply(held_drive(device))):
        assert "made_safe" in refused(call, "interlock").detail
    device.clear_fault("made_safe")
    device.apply(held_drive(device))
    device.evaluate(drives, samples, stage)
    assert device.status().evaluations == before + 1
    device.release()
    with connect(device.address) as other:
        other.safe()
    device.acquire()
    assert device.status().faults == ()


def test_the_status_can_be_read_from_another_thread(device: PhotonicDevice) -> None:
    seen: list[DeviceStatus] = []
    done = threading.Event()

    def watch() -> None:
        while not done.is_set():
            seen.append(device.status())

    thread = threading.Thread(target=watch)
    thread.start()
    before = device.status().evaluations
    for _ in range(20):
        device.evaluate(drives_for(device, 4), light(device, 16), mesh(device).name)
    done.set()
    thread.join()
    counts = [status.evaluations for status in seen]
    assert counts == sorted(counts)
    assert device.status().evaluations == before + 80


# ---- faults and the end ----------------------------------------------------------------------------------------------


def test_a_fault_that_is_not_latched_cannot_be_cleared(device: PhotonicDevice) -> None:
    refused(lambda: device.clear_fault("no such fault"), "bad_request")


def test_a_closed_device_may_be_closed_again_and_refuses_requests(open_device: Open) -> None:
    device = open_device()
    drives, samples, stage = drives_for(device, 1), light(device, 1), mesh(device).name
    device.apply(held_drive(device))
    device.close()
    device.close()
    with pytest.raises(DeviceError):
        device.evaluate(drives, samples, stage)
    again = open_device()
    assert again.status().safe
    again.close()
