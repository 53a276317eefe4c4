"""The evaluation of a bench: read every sample at every setting.

for each setting:       write changed heaters (ramped)
    for each sample:    write changed inputs ─▶ settle ─▶ read detectors
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from photonloop.drivers.bench.bench_clock import BenchClock
from photonloop.drivers.bench.bench_outputs import BenchOutputs
from photonloop.drivers.bench.instrument_handle import InstrumentHandle
from photonloop.drivers.bench.laser_light import LaserControl
from photonloop.drivers.bench.monitors import MonitorReader
from photonloop.drivers.bench.output_channels import Allowed
from photonloop.drivers.bench.taps import photocurrents, read_sample
from photonloop.drivers.bench.wiring import Wiring
from photonloop.protocols.device import FLAG_SATURATED, Drive, Readings


class Evaluator:
    """Sets outputs, waits for them to settle and reads detectors.

    It checks no limits and holds no drive: the caller checks the request before and restores the held drive afterwards.

    Parameters
    ----------
    wiring
        The detectors of each stage, and settle times.
    handles
        The instruments, by their names in the station file.
    outputs, light
        What is set.
    monitor
        Read before a setting whenever it is due.
    clock
        The time of the readings.
    """

    def __init__(
        self,
        wiring: Wiring,
        handles: Mapping[str, InstrumentHandle],
        outputs: BenchOutputs,
        light: LaserControl,
        monitor: MonitorReader,
        clock: BenchClock,
    ) -> None:
        self._wiring = wiring
        self._handles = handles
        self._outputs = outputs
        self._light = light
        self._monitor = monitor
        self._clock = clock
        self.evaluations = 0
        """Settings that were read."""

    def read_settings(
        self, stage_index: int, settings: Drive, inputs: NDArray[np.float64], held: Drive, allowed: Allowed
    ) -> Readings | None:
        """Return the readings of all settings, or None if `allowed` returned False on the way.

        Parameters
        ----------
        stage_index
            The stage whose heaters are set and whose tap is read.
        settings
            Drives of this stage [V], shape (settings, channels of the stage).
        inputs
            Settings of the inputs, one row per sample (`input_settings`).
        held
            The drive of all other stages [V], shape (channels,).
        allowed
            Called before every sample and during every wait.

        Raises
        ------
        InstrumentError, TrippedError
            An instrument failed, or a measured value is beyond its bound.
        """
        stage = self._wiring.description.stages[stage_index]
        taps = self._wiring.taps[stage_index]
        values = np.empty((len(settings), len(inputs), stage.tap_ports), np.float32)
        raw = np.empty(values.shape[1:])
        time_s = np.empty(len(settings))
        flags = np.zeros((len(settings), stage.tap_ports), np.uint32)
        if not (self._light.stays_off or self._light.switch_on(self._clock, allowed)):
            return None
        drives = np.tile(held, (len(settings), 1))
        drives[:, stage.first_channel : stage.first_channel + stage.channels] = settings
        self._outputs.announce_drives(drives)
        for setting, drive in enumerate(drives):
            if self._monitor.is_due:
                self._monitor.read()
            if not self._outputs.set_heaters(drive, allowed):
                return None
            for sample, row in enumerate(inputs):
                if not (self._outputs.set_inputs(row, allowed) and self._outputs.wait_until_settled(allowed)):
                    return None
                if sample == 0:
                    time_s[setting] = self._clock.now_s()
                read_sample(taps, self._handles, raw[sample])
            flags[setting, photocurrents(taps, self._handles, raw, values[setting])] |= FLAG_SATURATED
            self.evaluations += 1
        return Readings(values, time_s, flags)
