"""Requests that every device accepts or refuses, for tests of the device contract."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from photonloop.protocols.device import DeviceDescription, PhotonicDevice, StageDescription
from photonloop.protocols.errors import DeviceError


def drives_for(device: PhotonicDevice, settings: int, stage: int = 0, fraction: float = 0.3) -> np.ndarray:
    """Drives within all limits: up to `fraction` of the highest drive that all channels may have at once."""
    description = device.describe()
    return np.random.default_rng(settings).uniform(0.0, fraction * fair_v(description), (settings, mesh(device, stage).channels))


def fair_v(description: DeviceDescription) -> float:
    """The highest drive [V] that all channels may have at once."""
    limits = description.limits
    ohm = description.drive.resistance_ohm
    bounds = [description.drive.max_v, float(np.min(limits.voltage_v))]
    for limit, volts in ((limits.current_a, lambda a: a * ohm), (limits.power_w, lambda w: (w * ohm) ** 0.5)):
        if np.min(limit) > 0:
            bounds.append(float(volts(np.min(limit))))
    if limits.total_power_w > 0:
        bounds.append((limits.total_power_w / description.channels * ohm) ** 0.5)
    return min(bounds)


def mesh(device: PhotonicDevice, stage: int = 0) -> StageDescription:
    return device.describe().stages[stage]


def light(device: PhotonicDevice, samples: int) -> np.ndarray:
    """Random inputs that the device accepts: one lit input per sample if it lights one at a time."""
    ports = device.describe().input_ports
    amplitudes = np.random.default_rng(samples).random((samples, ports)).astype(np.float32)
    if device.describe().inputs_at_once == "one":
        amplitudes *= np.arange(samples)[:, np.newaxis] % ports == np.arange(ports)
    return amplitudes


def full_light(device: PhotonicDevice) -> np.ndarray:
    """One sample with as much light as the device accepts."""
    ports = device.describe().input_ports
    ones = np.ones((1, ports), np.float32)
    if device.describe().inputs_at_once == "one":
        ones[:, 1:] = 0.0
    return ones


def held_drive(device: PhotonicDevice, fraction: float = 0.3) -> np.ndarray:
    description = device.describe()
    return np.full(description.channels, fraction * fair_v(description))


def refused(call: Callable[[], object], code: str) -> DeviceError:
    with pytest.raises(DeviceError) as caught:
        call()
    assert caught.value.code == code, caught.value.detail
    assert caught.value.outcome == "not_applied"
    assert caught.value.detail
    return caught.value
