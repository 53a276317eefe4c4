"""The output channels of a source: their known voltages, and the only code of a bench that changes them.

`OutputChannels` keeps the voltages of its channels, so that only changed channels are written. It moves them in steps
that keep the slew limit (`photonloop.drivers.bench.slew`).

Once a setting has failed, the voltages of all channels of the source are unknown until they are read back or confirmed.
Making safe writes 0 V to every channel that is not known to be at 0 V.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from photonloop.drivers.bench import slew
from photonloop.drivers.bench.bench_clock import BenchClock
from photonloop.drivers.bench.instrument_handle import InstrumentError, InstrumentHandle
from photonloop.drivers.bench.wiring import Bank
from photonloop.drivers.instrument import DriveSource, ReadsVolts, StepsThroughList

Volts = NDArray[np.float64]

Allowed = Callable[[], bool]
"""Returns whether to continue. Called before every write and in every wait; nothing is written after a False."""

FEWEST_STEPS = 6
"""Shortest list that is loaded into a source. A list costs two messages more: one to load it and one to end it."""


class OutputChannels:
    """Channels of one source that change together, with their known voltages.

    Parameters
    ----------
    handle
        The source.
    channels
        Its channels, as its driver counts them.
    members
        The numbers of the heaters or of the input ports on these channels, in the same order.
    low_v, high_v
        Limits of each channel [V], shape (channels,).
    slew_v_per_s
        Fastest change [V/s]; 0: no limit.
    """

    def __init__(
        self,
        handle: InstrumentHandle[DriveSource],
        channels: Sequence[int],
        members: NDArray[np.int64],
        low_v: Volts,
        high_v: Volts,
        slew_v_per_s: float,
    ) -> None:
        self.handle = handle
        self.channels = np.asarray(channels, np.int64)
        self.members = members
        self.low_v, self.high_v = low_v, high_v
        self._span_v = np.maximum(np.abs(low_v), np.abs(high_v))
        self.slew_v_per_s = slew_v_per_s
        self.volts: Volts = np.full(len(members), np.nan)
        """Voltage of each channel; NaN if unknown."""
        self._written = np.zeros(len(members), bool)
        """Whether `volts` is a setpoint that was written. A readback may be measured, and differ slightly."""
        self._seen_invalidations = handle.invalidations
        """`InstrumentHandle.invalidations` when `volts` was last correct. If it has changed, no channel is known."""
        self.arrives_at_s = -np.inf
        """When the outputs reach the last setpoint: after the write, if the source slews by itself."""
        self._written_at_s = -np.inf
        """When the last write returned; a ramp counts from here."""
        self._own_slew_v_per_s: Volts | None = None
        """How fast the source itself moves each channel; 0: at once. None: not asked yet."""
        self.writes = 0
        self._announced: Volts = np.empty((0, len(members)))
        """Announced targets, for a source that steps through a list."""
        self._steps_done = self._steps_loaded = self._first_loaded = 0
        """Numbers of announced targets: written so far, loaded so far, and the first one of the list in the source."""
        self._in_list = np.zeros(len(members), bool)
        """Channels whose voltage comes from a list in the source, not from a setpoint."""

    def is_at(self, target: Volts) -> bool:
        """Return whether `target`, shape (channels,) [V], is the known setpoint of every channel."""
        return self._is_valid and bool(((self.volts == target) & self._written).all())

    @property
    def is_known(self) -> bool:
        """Whether the voltage of every channel is known.

        False after a failed setting or a restart of the source, until every channel is read back or set again.
        """
        return self._is_valid and not np.isnan(self.volts).any()

    @property
    def is_at_zero(self) -> bool:
        """Whether 0 V is the known setpoint of every channel."""
        return self.is_at(np.zeros(len(self.members)))

    @property
    def _is_valid(self) -> bool:
        return self._seen_invalidations == self.handle.invalidations

    def mark_unknown(self) -> None:
        """Mark every channel as unknown.

        Needed after a failed setting, and if the source was restarted, reconfigured or used by another program.
        """
        self._seen_invalidations = self.handle.invalidations
        self._own_slew_v_per_s = None
        self.volts[:] = np.nan
        self._written[:] = False
        self.clear_announced_targets()
        self._in_list[:] = False

    def announce_targets(self, targets: Volts) -> None:
        """Announce the next targets, shape (targets, channels) [V], so that a source that can loads them as a list.

        Nothing is sent yet. Ignored if there are fewer than `FEWEST_STEPS`, or if the slew limit requires ramps between
        them.
        """
        self.clear_announced_targets()
        apart = np.abs(np.diff(targets, axis=0)).max(axis=1, initial=0.0)
        rows = targets[np.concatenate([[True], apart > 0])]
        ramped = self.slew_v_per_s > 0 and apart.max(initial=0.0) > self.slew_v_per_s * slew.SHORTEST_STEP_S
        if isinstance(self.handle.instrument, StepsThroughList) and len(rows) >= FEWEST_STEPS and not ramped:
            self._announced = rows

    def clear_announced_targets(self) -> None:
        """Discard the announced targets. Any further write ends the list in the source."""
        self._announced = self._announced[:0]
        self._steps_done = self._steps_loaded = self._first_loaded = 0
        self._written &= ~self._in_list

    def read_back(self, clock: BenchClock) -> bool:
        """Read unknown voltages back, if the source can; return whether all channels are known then."""
        if self.is_known:
            return True
        self.mark_unknown()
        instrument = self.handle.instrument
        if isinstance(instrument, ReadsVolts):
            readback = self.handle.query("read_volts", lambda _: instrument.read_volts(self.channels.tolist()))
            # A channel beyond its limits (set under wider ones, or measured as -1 mV) is brought inside by its first
            # step.
            self.volts = np.clip(np.array(readback, np.float64), self.low_v, self.high_v)
            self._written[:] = False
            self._note_write(clock, np.zeros(len(self.volts)))
        return self.is_known

    def write(self, target: Volts, clock: BenchClock, allowed: Allowed) -> bool:
        """Write the channels that differ from `target`, without a ramp; return False if `allowed` returned False.

        Nothing is written if the voltages have become unknown since `target` was chosen: read them back first. If it
        raises, all channels of the source are unknown (`InstrumentHandle.mutate`).
        """
        if not self.is_known:
            return allowed()
        changed = np.flatnonzero((self.volts != target) | ~self._written)
        if not changed.size:
            return allowed()
        numbers = self.channels[changed].tolist()
        values = dict(zip(numbers, target[changed].tolist(), strict=True))
        distance_v = np.where(np.isnan(self.volts), self._span_v, np.abs(target - self.volts))
        try:
            with self.handle.lock:
                if not allowed():
                    return False
                if not self._go_to_announced(target):
                    self.handle.mutate("set_volts", lambda instrument: instrument.set_volts(values))
                    if self._in_list[changed].any():  # that ended the list in the source
                        self._in_list[:] = False
                self.volts[changed] = target[changed]
                self._written[changed] = True
        except BaseException:  # including an interrupt after the call and before its result was stored
            self.mark_unknown()
            raise
        finally:
            self._note_write(clock, distance_v)
        self.writes += 1
        return True

    def _go_to_announced(self, target: Volts) -> bool:
        """Go to the next announced target with the source's list; return False if `target` is not that one."""
        instrument = self.handle.instrument
        if not isinstance(instrument, StepsThroughList) or self._steps_done == len(self._announced):
            return False
        if (self._announced[self._steps_done] != target).any():
            if self._steps_loaded:  # before the first one, ramps may write other targets
                self._announced = self._announced[:0]
                self._steps_done = 0
            return False
        if self._steps_done == self._steps_loaded:
            if not self._steps_loaded:
                self._in_list = (self._announced != self.volts).any(axis=0) | ~self._written
            numbers, rows = self.channels[self._in_list].tolist(), self._announced[self._steps_done :, self._in_list]
            count = self.handle.mutate("load_steps", lambda _: instrument.load_steps(numbers, rows))
            if not count:
                self._in_list[:] = False
                self.clear_announced_targets()
                return False
            self._first_loaded, self._steps_loaded = self._steps_done, self._steps_done + count
        step = self._steps_done - self._first_loaded
        self.handle.mutate("go_to_step", lambda _: instrument.go_to_step(step))
        self._steps_done += 1
        return True

    def make_safe(self, clock: BenchClock) -> None:
        """Bring the whole source to 0 V at once with the driver's `safe`: for channels whose voltage is unknown."""
        self.mark_unknown()
        with self.handle.lock:  # a failure in another thread comes before or after all of this
            try:
                self.handle.mutate("safe", lambda instrument: instrument.safe())
            finally:
                self._note_write(clock, self._span_v)
            self._seen_invalidations = self.handle.invalidations
            self.volts[:] = 0.0
            self._written[:] = True

    def ramp_s(self, clock: BenchClock, *, ramping: bool) -> float:
        """Return the time that counts towards the next step of a ramp [s]; see `slew.credit_s`."""
        return slew.credit_s(clock.now_s() - self._written_at_s, ramping=ramping)

    def _note_write(self, clock: BenchClock, distance_v: Volts) -> None:
        """Store when a write over `distance_v` returned, and when a source that slews reaches its setpoint."""
        self._written_at_s = now_s = clock.now_s()
        if self._own_slew_v_per_s is None:
            self._own_slew_v_per_s = np.array([self.handle.instrument.limits(k).slew_v_per_s for k in self.channels.tolist()])
        own = self._own_slew_v_per_s
        # Added to the travel still left: if steps come faster than the source moves, it arrives later.
        travel_s = float(np.max(np.divide(distance_v, own, out=np.zeros(len(own)), where=own > 0), initial=0.0))
        self.arrives_at_s = max(now_s, self.arrives_at_s) + travel_s


def outputs_of(
    banks: Sequence[Bank], handles: Mapping[str, InstrumentHandle], slew_v_per_s: float | None = None
) -> list[OutputChannels]:
    """Return the output channels of every bank.

    `slew_v_per_s` applies to all of them; None: the limit of each source.
    """
    outputs: list[OutputChannels] = []
    for bank in banks:
        limits = [bank.limits[channel] for channel in bank.channels]
        own = min((limit.slew_v_per_s for limit in limits if limit.slew_v_per_s > 0), default=0.0)
        outputs.append(
            OutputChannels(
                handles[bank.instrument],
                bank.channels,
                bank.members,
                np.array([limit.min_v for limit in limits]),
                np.array([limit.max_v for limit in limits]),
                own if slew_v_per_s is None else slew_v_per_s,
            )
        )
    return outputs


def move(outputs: Sequence[OutputChannels], targets: Sequence[Volts], clock: BenchClock, allowed: Allowed = lambda: True) -> bool:
    """Move all outputs to their targets at the same time, each within its slew limit.

    Outputs whose voltages are unknown, or become unknown on the way, are read back. Those that cannot be read back are
    brought to 0 V at once, since a ramp needs a known start. Returns False if `allowed` returned False on the way.

    Raises
    ------
    InstrumentError
        The first source that failed; the others keep the voltages that they had by then.
    """
    moving = [(output, target) for output, target in zip(outputs, targets, strict=True) if not output.is_at(target)]
    ramping: set[OutputChannels] = set()
    while moving:
        if not _find_voltages([output for output, _ in moving], clock, allowed):
            return False
        waits_s: list[float] = []
        for output, target in moving:
            elapsed_s = output.ramp_s(clock, ramping=output in ramping)
            wait_s = slew.wait_s(output.volts, target, output.slew_v_per_s, elapsed_s)
            if wait_s > 0:
                waits_s.append(wait_s)
            elif not output.write(slew.next_step(output.volts, target, output.slew_v_per_s, elapsed_s), clock, allowed):
                return False
            else:
                ramping.add(output)
        moving = [(output, target) for output, target in moving if not output.is_at(target)]
        if moving and len(waits_s) == len(moving):
            # Until the first of them may move, and slightly longer, so that rounding never causes another empty wait.
            clock.wait_until(clock.now_s() + min(waits_s) * (1 + 1e-9) + 1e-9, lambda: not allowed())
            if not allowed():
                return False
    return allowed()


def _find_voltages(outputs: Sequence[OutputChannels], clock: BenchClock, allowed: Allowed) -> bool:
    """Read back the outputs whose voltages are unknown; return False if `allowed` returned False on the way."""
    for output in outputs:
        if not allowed():
            return False
        if not output.read_back(clock):
            output.make_safe(clock)
    return True


def make_outputs_safe(outputs: Sequence[OutputChannels], clock: BenchClock) -> list[InstrumentError]:
    """Bring all outputs to 0 V whatever fails; return one error per source that could not be brought there.

    They are ramped at the same time. If one fails on the way, its driver's `safe` brings it to 0 V at once, and the
    others go on. Sources that failed before come last, so that they delay no other.
    """
    errors: list[InstrumentError] = []
    for output in outputs:
        output.clear_announced_targets()
    left = list(outputs)
    while left:
        group = [output for output in left if not output.handle.suspect] or left
        try:
            move(group, [np.zeros(len(output.members)) for output in group], clock)
            left = [output for output in left if output not in group]
        except InstrumentError as error:
            failed = [output for output in group if output.handle.name == error.instrument]
            left = [output for output in left if output not in failed]
            for output in failed:
                try:
                    output.make_safe(clock)
                except InstrumentError as last:
                    errors.append(last)
    return errors
