"""Test of heaters by what their sources measure: open wires, and outputs that do not follow their setpoints."""

from __future__ import annotations

from typing import NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from photonloop.controller.learning.variables import stage_bounds, to_drive
from photonloop.protocols.device import DeviceDescription, Drive, Readback, StageDescription

TEST_RAD = (1.0, 2.0)
"""Nominal heater phases of the two drives."""

LEAST_CURRENT = 0.2
"""Share of the nominal current below which a heater is open."""

LEAST_FOLLOWING = 0.5
"""Share of the change of the setpoint below which an output is stuck."""


class MeasuringDevice(Protocol):
    """The part of `PhotonicDevice` that the test uses."""

    def describe(self) -> DeviceDescription:
        """As in `PhotonicDevice`."""
        ...

    def apply(self, drive: Drive) -> None:
        """As in `PhotonicDevice`."""
        ...

    def readback(self) -> Readback:
        """As in `PhotonicDevice`."""
        ...


class ReadbackTest(NamedTuple):
    """Channels within the stage: heaters without current, outputs that do not follow, and all that were measured."""

    open: NDArray[np.int64]
    stuck: NDArray[np.int64]
    measured: NDArray[np.int64]


def tested_by_readback(device: MeasuringDevice, stage: StageDescription) -> ReadbackTest:
    """Apply two drives to a stage and compare what the sources measure with the setpoints.

    The other stages are at their lowest drive meanwhile, and so is the whole device afterwards. No light is needed.

    Parameters
    ----------
    device
        The device; if it does not read back, nothing is found.
    stage
        The stage to be tested.
    """
    description = device.describe()
    nothing = np.empty(0, np.int64)
    if not description.reads_back:
        return ReadbackTest(nothing, nothing, nothing)
    here = slice(stage.first_channel, stage.first_channel + stage.channels)
    share = min(1.0, 0.9 * stage_bounds(description, stage, 0.0).total / (max(TEST_RAD) * stage.channels))
    rest = np.full(description.channels, description.drive.min_v)
    setpoints, volts, amperes = [], [], []
    for phase_rad in TEST_RAD:
        drive = rest.copy()
        drive[here] = to_drive(np.full(stage.channels, share * phase_rad), description.drive)
        device.apply(drive)
        measured = device.readback()
        for values, found in ((setpoints, drive), (volts, measured.volts), (amperes, measured.amperes)):
            values.append(found[here])
    device.apply(rest)
    follows = volts[1] - volts[0] > LEAST_FOLLOWING * (setpoints[1] - setpoints[0])
    flows = amperes[1] > LEAST_CURRENT * volts[1] / description.drive.resistance_ohm
    stuck = np.isfinite(volts[1]) & ~follows
    opened = np.isfinite(amperes[1]) & ~flows & ~stuck
    return ReadbackTest(*(np.flatnonzero(part) for part in (opened, stuck, np.isfinite(amperes[1]) & np.isfinite(volts[1]))))
