"""All outputs of a bench: its heaters, and its input modulators or optical switch, each kind with a lock of its own.

A thread that moves heaters holds `heaters_lock`, a thread that moves modulators holds `modulators_lock`. Neither is
held while voltages settle or detectors are read, so a readout or a modulator that hangs cannot block making the heaters
safe.
"""

from __future__ import annotations

import threading
from collections.abc import Collection, Mapping

import numpy as np
from numpy.typing import NDArray

from photonloop.drivers.bench import power_limit
from photonloop.drivers.bench.bench_clock import BenchClock
from photonloop.drivers.bench.input_switch import SwitchControl
from photonloop.drivers.bench.instrument_handle import InstrumentError, InstrumentHandle
from photonloop.drivers.bench.output_channels import Allowed, make_outputs_safe, move, outputs_of
from photonloop.drivers.bench.wiring import Wiring
from photonloop.protocols.device import Drive


class BenchOutputs:
    """Heaters, input modulators and optical switch. Heaters are set within slew and total power.

    Parameters
    ----------
    wiring
        The channels of each source, and their limits.
    handles
        The instruments, by their names in the station file.
    clock
        The time of ramps and of settling.
    """

    def __init__(self, wiring: Wiring, handles: Mapping[str, InstrumentHandle], clock: BenchClock) -> None:
        self._wiring = wiring
        self._clock = clock
        self.heaters = outputs_of(wiring.heaters, handles, wiring.description.limits.slew_v_per_s)
        self.modulators = outputs_of(wiring.inputs, handles)
        self.switch = SwitchControl(handles[wiring.switch]) if wiring.switch else None
        self.heaters_lock = threading.RLock()
        self.modulators_lock = threading.RLock()
        self.settling_s = 0.0
        """Time spent in `wait_until_settled`."""

    def announce_drives(self, drives: Drive) -> None:
        """Announce the next drives, shape (drives, channels) [V], for sources that can load a list. Nothing is sent."""
        with self.heaters_lock:
            for output in self.heaters:
                output.announce_targets(drives[:, output.members])

    def clear_announced_drives(self) -> None:
        """Discard the drives that were announced."""
        with self.heaters_lock:
            for output in self.heaters:
                output.clear_announced_targets()

    def set_heaters(self, drive: Drive, allowed: Allowed) -> bool:
        """Ramp all heaters to `drive`, shape (channels,) [V]; return False if `allowed` returned False."""
        with self.heaters_lock:
            return all(
                move(self.heaters, [step[output.members] for output in self.heaters], self._clock, allowed)
                for step in power_limit.drives_between(self._wiring.description, self.heaters, drive)
            )

    def set_inputs(self, setting: NDArray[np.float64], allowed: Allowed) -> bool:
        """Set modulators or switch to one row of `input_settings`; return False if `allowed` returned False."""
        if self.switch is not None:
            return self.switch.select(int(setting[0]), self._clock, allowed)
        with self.modulators_lock:
            return move(self.modulators, [setting[output.members] for output in self.modulators], self._clock, allowed)

    def wait_until_settled(self, allowed: Allowed) -> bool:
        """Wait until heaters and inputs have settled; return False if `allowed` returned False."""
        station = self._wiring.station
        inputs = [*self.modulators, *([self.switch] if self.switch is not None else [])]
        settled_at_s = max(
            max(output.arrives_at_s for output in self.heaters) + station.settle_s,
            max((one.arrives_at_s for one in inputs), default=-np.inf) + station.inputs.settle_s,
        )
        now_s = self._clock.now_s()
        if settled_at_s <= now_s:
            return allowed()
        self.settling_s += settled_at_s - now_s
        return self._clock.wait_until(settled_at_s, lambda: not allowed())

    def make_heaters_safe(self, except_for: Collection[str] = ()) -> list[InstrumentError]:
        """Ramp the heaters to 0 V, except those on instruments in `except_for`; return one error per failed source."""
        with self.heaters_lock:
            return make_outputs_safe([output for output in self.heaters if output.handle.name not in except_for], self._clock)

    def make_modulators_safe(self, except_for: Collection[str] = ()) -> list[InstrumentError]:
        """Set the modulators to 0 V; otherwise like `make_heaters_safe`."""
        with self.modulators_lock:
            return make_outputs_safe([output for output in self.modulators if output.handle.name not in except_for], self._clock)

    def mark_unknown(self, handle: InstrumentHandle) -> None:
        """Mark the voltages of all channels of one source as unknown."""
        for output in (*self.heaters, *self.modulators):
            if output.handle is handle:
                output.mark_unknown()

    @property
    def input_writes(self) -> int:
        """How often modulators or switch were set."""
        return sum(output.writes for output in self.modulators) + (self.switch.writes if self.switch is not None else 0)

    @property
    def are_at_zero(self) -> bool:
        """Whether every heater and every modulator is known to be at 0 V."""
        return all(output.is_at_zero for output in (*self.heaters, *self.modulators))
