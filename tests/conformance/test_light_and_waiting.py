"""Light, waiting and read-back in the device contract, tested on every kind of device through the contract only."""

from __future__ import annotations

import threading
from collections.abc import Callable

import numpy as np
import pytest
from support.device_requests import drives_for, full_light, held_drive, light, mesh, refused

from photonloop.protocols.client.device_client import DeviceClient
from photonloop.protocols.device import MAX_WAIT_S, LoadedRows, PhotonicDevice
from photonloop.protocols.errors import DeviceError

Open = Callable[[], PhotonicDevice]

HOUR_S = 3600.0


def read(device: PhotonicDevice) -> np.ndarray:
    """Readings of one sample with all the light that the device accepts, shape (tap ports,)."""
    return device.evaluate(drives_for(device, 1), full_light(device), mesh(device).name).values[0, 0].astype(np.float64)


def lit_and_dark(device: PhotonicDevice) -> tuple[np.ndarray, np.ndarray]:
    lit = read(device)
    device.set_light(False)
    return lit, read(device)


# ---- waiting ------------------------------------------------------------------------------------------------------


def test_a_wait_advances_the_clock_and_holds_the_drive(device: PhotonicDevice) -> None:
    device.apply(held_drive(device))
    before = device.status()
    seconds = HOUR_S if device.describe().clock == "virtual" else 0.01
    device.wait(seconds)
    device.wait(0)
    after = device.status()
    assert after.clock_s - before.clock_s >= seconds * (1 - 1e-9)
    assert (after.heater_power_w, after.light, after.busy) == (before.heater_power_w, before.light, False)


@pytest.mark.parametrize("seconds", [-1.0, float("nan"), float("inf"), MAX_WAIT_S * 1.001, "1", None, True])
def test_an_invalid_wait_is_refused(device: PhotonicDevice, seconds: float) -> None:
    before_s = device.status().clock_s
    refused(lambda: device.wait(seconds), "bad_request")
    if device.describe().clock == "virtual":
        assert device.status().clock_s == before_s


@pytest.mark.parametrize("stop", ["cancel", "safe"])
def test_a_stopped_wait_is_complete_or_refused(device: PhotonicDevice, stop: str) -> None:
    """A device in real time ends the wait early. On a virtual clock it may have ended before."""
    device.apply(held_drive(device))
    outcomes: list[DeviceError | None] = []

    def wait() -> None:
        try:
            device.wait(HOUR_S)
            outcomes.append(None)
        except DeviceError as error:
            outcomes.append(error)

    thread = threading.Thread(target=wait)
    thread.start()
    while thread.is_alive():
        getattr(device, stop)()
        thread.join(0.005)
    getattr(device, stop)()  # the wait may have ended before the first stop
    (outcome,) = outcomes
    if outcome is not None:
        assert (outcome.code, outcome.outcome) == ("interlock", "not_applied"), outcome.detail
    else:
        assert device.describe().clock == "virtual"
    assert device.status().safe is (stop == "safe")
    device.apply(held_drive(device))
    device.wait(0)
    read(device)


# ---- light ----------------------------------------------------------------------------------------------------------


def test_the_light_is_part_of_the_safe_state(device: PhotonicDevice) -> None:
    device.safe()
    can_switch = device.describe().light_switch
    assert (device.status().safe, device.status().light) == (True, False if can_switch else None)
    device.apply(0 * held_drive(device))
    assert device.status().safe  # the light stays off until an evaluation
    read(device)
    assert (device.status().safe, device.status().light) == (not can_switch, True if can_switch else None)
    device.safe()
    assert (device.status().safe, device.status().light) == (True, False if can_switch else None)


def test_an_evaluation_switches_the_light_on_again(device: PhotonicDevice) -> None:
    device.apply(held_drive(device))
    first = read(device)
    device.safe()
    device.apply(held_drive(device))
    np.testing.assert_allclose(read(device), first, atol=0.05 * np.abs(first).max())


def test_after_it_was_switched_off_the_light_stays_off(device: PhotonicDevice) -> None:
    if not device.describe().light_switch:
        pytest.skip("the light cannot be switched")
    device.apply(held_drive(device))
    lit, dark = lit_and_dark(device)
    assert np.abs(dark).max() < 0.05 * np.abs(lit).max()
    device.apply(held_drive(device))
    assert np.abs(read(device)).max() < 0.05 * np.abs(lit).max()
    assert device.status().light is False
    device.set_light(False)
    device.set_light(True)
    device.set_light(True)
    assert device.status().light is True
    np.testing.assert_allclose(read(device), lit, atol=0.05 * np.abs(lit).max())


def test_safe_ends_the_dark_state(device: PhotonicDevice) -> None:
    if not device.describe().light_switch:
        pytest.skip("the light cannot be switched")
    device.apply(held_drive(device))
    lit, _ = lit_and_dark(device)
    device.safe()
    assert device.status().light is False
    device.apply(held_drive(device))
    np.testing.assert_allclose(read(device), lit, atol=0.05 * np.abs(lit).max())


def test_dark_readings_of_loaded_inputs_leave_no_trace(device: PhotonicDevice) -> None:
    """Stages behind the first one: a device may keep fields of loaded inputs, which must not be those without light."""
    if not device.describe().light_switch:
        pytest.skip("the light cannot be switched")
    device.load_inputs("train", full_light(device))
    rows = LoadedRows("train", np.array([0]))
    device.apply(held_drive(device))
    index = len(device.describe().stages) - 1
    drives, stage = drives_for(device, 1, index), device.describe().stages[index].name

    device.set_light(False)
    dark = device.evaluate(drives, rows, stage).values
    device.set_light(True)
    lit = device.evaluate(drives, rows, stage).values
    np.testing.assert_allclose(lit, device.evaluate(drives, full_light(device), stage).values, atol=0.05 * np.abs(lit).max())
    assert np.abs(dark).max() < 0.05 * np.abs(lit).max()


def test_a_light_without_a_switch_is_not_switched(device: PhotonicDevice) -> None:
    if device.describe().light_switch:
        pytest.skip("the light can be switched")
    for on in (False, True):
        refused(lambda on=on: device.set_light(on), "bad_request")
    assert device.status().light is None


def test_after_its_own_safe_a_writer_must_apply_before_it_switches_the_light_on(device: PhotonicDevice) -> None:
    if not isinstance(device, DeviceClient) or not device.describe().light_switch:
        pytest.skip("applies to servers of a device with a light switch only")
    device.apply(held_drive(device))
    device.safe()
    assert "apply a drive first" in refused(lambda: device.set_light(True), "interlock").detail
    assert device.status().safe
    device.set_light(False)
    device.apply(held_drive(device))
    device.set_light(True)
    assert device.status().light is True


# ---- inputs and read-back -----------------------------------------------------------------------------------------


def test_a_device_that_lights_one_input_refuses_two(device: PhotonicDevice) -> None:
    ports = device.describe().input_ports
    inputs = np.eye(ports, dtype=np.float32)[[0, 1, 1]]
    inputs[2, 0] = 0.5
    if device.describe().inputs_at_once == "many":
        device.evaluate(drives_for(device, 1), inputs, mesh(device).name)
        return
    for call in (
        lambda: device.evaluate(drives_for(device, 1), inputs, mesh(device).name),
        lambda: device.load_inputs("train", inputs),
    ):
        assert "row 2 of inputs lights 2 inputs" in refused(call, "bad_request").detail
    device.evaluate(drives_for(device, 1), 0 * inputs, mesh(device).name)


def test_readback_measures_what_the_sources_can(device: PhotonicDevice) -> None:
    description, held = device.describe(), held_drive(device)
    device.apply(held)
    measured = device.readback()
    assert measured.volts.shape == measured.amperes.shape == (description.channels,)
    assert measured.volts.dtype == measured.amperes.dtype == np.float64
    known = ~np.isnan(measured.volts), ~np.isnan(measured.amperes)
    assert (known[0].any() or known[1].any()) == description.reads_back
    np.testing.assert_allclose(measured.volts[known[0]], held[known[0]], rtol=0.05)
    expected_a = held / description.drive.resistance_ohm
    np.testing.assert_allclose(measured.amperes[known[1]], expected_a[known[1]], rtol=0.25, atol=1e-4)
    assert device.status().heater_power_w > 0


def test_a_closed_device_refuses_them_all(open_device: Open) -> None:
    device = open_device()
    device.close()
    calls: list[Callable[[], object]] = [lambda: device.wait(0), device.readback]
    if device.describe().light_switch:
        calls.append(lambda: device.set_light(True))
    for call in calls:
        with pytest.raises(DeviceError):
            call()
    again = open_device()
    assert again.status().safe
    again.apply(held_drive(again))
    again.evaluate(drives_for(again, 1), light(again, 1), mesh(again).name)
    again.close()
