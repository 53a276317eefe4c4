"""Price of a calibration: settings, readings and device time, from the description of the device alone."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from photonloop.controller.calibration.calibrated_device import Method
from photonloop.controller.calibration.column_scans import CURVE_POINTS, POINTS
from photonloop.controller.calibration.columns import ColumnOptions
from photonloop.controller.calibration.noise_readings import DARK_SAMPLES, DARK_SETTINGS, LIT_SAMPLES, REPEATS
from photonloop.controller.calibration.random_settings import RandomSettingsOptions
from photonloop.controller.calibration.ring_calibration import RingOptions
from photonloop.controller.learning.variables import to_drive
from photonloop.protocols.device import DeviceDescription, StageDescription

SWEPT_SETTINGS, SEARCH_SETTINGS, SWEPT_SAMPLES = 34, 4, 6
"""Method diagonal: typical settings per column and per interferometer, and samples per port. The search is adaptive."""


@dataclass(frozen=True)
class StepPrice:
    """Price of one step of a calibration.

    Parameters
    ----------
    step
        The step, such as "scans of θ".
    settings, samples
        Settings, and samples of each.
    readings
        Readings of all detectors.
    device_s
        Time on the device's clock [s].
    """

    step: str
    settings: int
    samples: int
    readings: int
    device_s: float


def step_prices(description: DeviceDescription, stage: StageDescription, method: Method) -> tuple[StepPrice, ...]:
    """Return the price of each step by which a stage is calibrated.

    Notes
    -----
    The time of a setting is that of the largest ramp within the slew limit, the time to settle, and the time to read
    all samples. The time to switch the light is not included, because it is not described.
    """
    one = description.inputs_at_once == "one"
    counts = [
        ("dark readings", DARK_SETTINGS, DARK_SAMPLES),
        ("repeated readings", REPEATS, stage.ports if one else LIT_SAMPLES),
        *_method_counts(stage, method),
    ]
    return tuple(
        StepPrice(step, settings, samples, settings * samples * stage.tap_ports, settings * setting_s(description, samples))
        for step, settings, samples in counts
    )


def setting_s(description: DeviceDescription, samples: int) -> float:
    """Return the time to ramp to, to settle and to read one setting [s]."""
    slew = description.limits.slew_v_per_s
    ramp_s = float(to_drive(np.array(2 * np.pi), description.drive)) / slew if slew > 0 else 0.0
    return ramp_s + description.drive.settle_s + samples * description.readout.sample_s


def _method_counts(stage: StageDescription, method: Method) -> list[tuple[str, int, int]]:
    """Return the steps of a method, with settings and samples."""
    if method == "rings":
        rings = RingOptions()
        return [
            ("sweeps of rings", 2 * stage.ports * rings.points, stage.ports + 1),
            ("random settings", rings.fitted(stage.channels) + rings.held_out, stage.ports + 1 + rings.all_lit),
        ]
    columns = max(row[0] for row in stage.layout) + 1
    if method == "diagonal":
        random = RandomSettingsOptions()
        scans = SWEPT_SETTINGS * columns + SEARCH_SETTINGS * len(stage.layout)
        return [
            ("search and sweeps (estimate)", scans, SWEPT_SAMPLES * stage.ports + 8),
            ("random settings", random.settings + random.held_out, stage.ports),
        ]
    options = ColumnOptions()
    return [
        ("heater curve", CURVE_POINTS, options.samples),
        ("scans of θ", POINTS * columns, options.samples),
        ("scans of φ", options.growth.settings * columns, options.samples),
        ("random settings", options.random_settings_for(stage.ports) + options.held_out, options.samples),
    ]
