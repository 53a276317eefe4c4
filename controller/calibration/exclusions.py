"""Exclusions of a calibration: parts that are defective, and the true wiring if wires or fibres are exchanged."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from photonloop.protocols.device import DeviceDescription, StageDescription

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Exclusions:
    """Defects of a stage that readings are corrected for.

    Parameters
    ----------
    channels
        Channels within the stage that stay at 0 V: dead heaters and stuck sources.
    taps
        Detectors whose readings are not used.
    swapped_channels, swapped_ports
        Pairs of channels whose wires are exchanged, and of inputs whose fibres are.
    """

    channels: tuple[int, ...] = ()
    taps: tuple[int, ...] = ()
    swapped_channels: tuple[tuple[int, int], ...] = ()
    swapped_ports: tuple[tuple[int, int], ...] = ()

    def phases(self, phases: Array) -> Array:
        """Return nominal heater phases, (settings, channels), with the channels that stay at 0 V."""
        if not self.channels:
            return phases
        held = phases.copy()
        held[:, list(self.channels)] = 0.0
        return held

    def inputs(self, inputs: NDArray[np.floating]) -> NDArray[np.floating]:
        """Return what to request so that `inputs`, (samples, ports), enter the mesh."""
        return inputs[:, _order(inputs.shape[1], self.swapped_ports)]

    def readings(self, readings: Array) -> Array:
        """Return readings, shape (settings, samples, taps), with NaN for detectors that are not used."""
        if not self.taps:
            return readings
        found = readings.copy()
        found[:, :, list(self.taps)] = np.nan
        return found

    def stage(self, stage: StageDescription) -> StageDescription:
        """Return the description of the stage with the channels that its heaters are really connected to."""
        if not self.swapped_channels:
            return stage
        order = _order(stage.channels, self.swapped_channels).tolist()
        layout = tuple((column, top, order[theta], order[phi]) for column, top, theta, phi in stage.layout)
        return stage.model_copy(update={"layout": layout})

    def device(self, description: DeviceDescription, stage: str) -> DeviceDescription:
        """Return the description of the device with that of one stage corrected."""
        stages = tuple(self.stage(each) if each.name == stage else each for each in description.stages)
        return description.model_copy(update={"stages": stages})


def _order(count: int, pairs: tuple[tuple[int, int], ...]) -> NDArray[np.int64]:
    order = np.arange(count)
    for one, other in pairs:
        order[[one, other]] = order[[other, one]]
    return order
