"""Dark readings and repeated readings: the dark level of each detector, and the noise of the readings.

Noise is estimated from differences of successive readings, so that drift does not count.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from photonloop.controller.calibration.recorded_device import RecordedDevice
from photonloop.controller.calibration.twin_misfit import ReadingNoise
from photonloop.controller.learning.variables import stage_bounds, start_variables, to_drive
from photonloop.protocols.device import DeviceDescription, Inputs, PhotonicDevice, StageDescription

Array = NDArray[np.float64]

DARK_SETTINGS, DARK_SAMPLES = 4, 16
"""Settings and samples of the dark readings, all at the lowest drive."""

REPEATS, LIT_SAMPLES = 8, 16
"""How often one setting is read, and with how many inputs."""

LEAST_DARK, LEAST_RELATIVE = 1e-7, 1e-6
"""Smallest noise, relative to full scale and to the reading: readings are in single precision."""

LEAST_EQUAL = 0.05
"""Share of equal repeated readings from which they are taken to be rounded."""

BRIGHT = 30.0
"""Readings of at least this many times the dark noise show the relative noise."""


@dataclass(frozen=True)
class MeasuredNoise:
    """Dark level and noise of the detectors of a stage.

    Parameters
    ----------
    level
        Mean dark reading of each detector [unit of the readings], shape (taps,).
    sigma
        Standard deviation of a dark reading of each detector, shape (taps,).
    noise
        Noise of the readings of all detectors together.
    light_off
        True if the light was off; False if it cannot be switched, so that all inputs were at amplitude 0.
    settings
        Settings read.
    """

    level: Array
    sigma: Array
    noise: ReadingNoise
    light_off: bool
    settings: int


def measure_noise(device: PhotonicDevice | RecordedDevice, stage: StageDescription, rng: np.random.Generator) -> MeasuredNoise:
    """Return dark level and noise of the detectors of a stage.

    If the light can be switched, it is off for the dark readings and on afterwards. Otherwise all inputs are at
    amplitude 0, and light that the modulators let through counts as dark level.

    Notes
    -----
    The noise without light is at least that of rounding, 1/√12 of a step. If the resolution of the readings is not
    described, equal repeated readings show that they are rounded, and the smallest difference is the step.
    """
    description = device.describe()
    switched, ports = description.light_switch, description.input_ports
    # A switch without a dark position accepts only samples in which one input is lit.
    one = switched and description.inputs_at_once == "one"
    unlit = np.tile(np.eye(1, ports, dtype=np.float32) * one, (DARK_SAMPLES, 1))
    if switched:
        device.set_light(False)
    lowest = np.full((DARK_SETTINGS, stage.channels), description.drive.min_v)
    values = device.evaluate(lowest, unlit, stage.name).values
    if switched:
        device.set_light(True)
    dark = values.astype(np.float64).reshape(-1, stage.tap_ports)
    settings = np.tile(start_variables(stage_bounds(description, stage, 0.0), rng), (REPEATS, 1))
    lit = device.evaluate(to_drive(settings, description.drive), _inputs(description, rng), stage.name).values.astype(np.float64)
    level, sigma = dark.mean(axis=0), np.maximum(_successive(dark), max(_least_dark(description, stage), _rounding(lit)))
    noise = _noise(lit - level, float(np.sqrt(np.mean(sigma**2))))
    return MeasuredNoise(level, sigma, noise, switched, DARK_SETTINGS + REPEATS)


def _successive(readings: Array) -> Array:
    """Return the standard deviation of readings along the first axis, from differences of successive ones."""
    return np.sqrt(np.mean(np.diff(readings, axis=0) ** 2, axis=0) / 2)


def _least_dark(description: DeviceDescription, stage: StageDescription) -> float:
    """Return the smallest noise of a dark reading by the description."""
    number, readout = description.stage_index(stage.name), description.readout
    full_scale, bits = readout.full_scale[number], readout.bits
    rounding = full_scale * (1 + readout.signed) / (2**bits - 1) / np.sqrt(12.0) if bits else 0.0
    return max(LEAST_DARK * full_scale, rounding, readout.noise[number] if readout.noise else 0.0)


def _rounding(repeated: Array) -> float:
    """Return the noise of rounding if repeated readings, (repeats, samples, taps), show it; else 0."""
    apart = np.abs(np.diff(repeated, axis=0))
    is_rounded = np.mean(apart == 0) > LEAST_EQUAL and np.any(apart > 0)
    return float(apart[apart > 0].min() / np.sqrt(12.0)) if is_rounded else 0.0


def _inputs(description: DeviceDescription, rng: np.random.Generator) -> Inputs:
    ports = description.input_ports
    if description.inputs_at_once == "one":
        return np.eye(ports, dtype=np.float32)
    return rng.random((LIT_SAMPLES, ports)).astype(np.float32)


def _noise(lit: Array, dark: float) -> ReadingNoise:
    """Return the noise from readings of one setting that was read several times, (repeats, samples, taps)."""
    mean, deviation = lit.mean(axis=0), _successive(lit)
    bright = np.abs(mean) > BRIGHT * dark
    if not bright.any():
        return ReadingNoise(dark)
    # Least squares of the variance on the square of the reading. A single excess may be negative by chance.
    square = mean[bright] ** 2
    excess = float(np.sum((deviation[bright] ** 2 - dark**2) * square) / np.sum(square**2))
    return ReadingNoise(dark, max(LEAST_RELATIVE, float(np.sqrt(max(excess, 0.0)))))
