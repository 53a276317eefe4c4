"""What a bench believes its sources put out, and the only place that changes it.

An `Output` is some channels of one source. It remembers their voltages so that only changed channels are written, and moves
in steps that keep the slew limit (`photonloop.drivers.bench.slew`).
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

FEWEST_STEPS = 6
"""Settings below which a list is more trouble than it saves: it is a message of its own, and one to end it."""


class Output:
    """Channels of one source that change together.

    Parameters
    ----------
    line
        The source.
    channels
        Its channels, as its driver counts them.
    members
        What they are to the bench (numbers of heaters, or of input ports), in the same order.
    low_v, high_v
        Their limits [V], one a channel.
    slew_v_per_s
        Fastest change; 0: none.
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
        """Where each channel stands; NaN where nobody knows."""
        self._written = np.zeros(len(members), bool)
        """Whether that is what was written; what a source tells of itself may be measured, and off by a little."""
        self._doubts = handle.doubts
        """`InstrumentHandle.doubts` when `volts` was last known to be right; another value now means that no channel is known."""
        self.written_s = -np.inf
        """When the outputs have arrived at what was written last: a source that slews by itself gets there after the write."""
        self._stepped_s = -np.inf
        """When the last write was over; what a ramp counts from."""
        self._own_slew_v_per_s: Volts | None = None
        """How fast the source itself moves each channel; 0: at once. None: to be asked of the driver."""
        self.writes = 0
        self._coming: Volts = np.empty((0, len(members)))
        """Targets that were announced, of which the first `_passed` are behind, in a source that steps through them."""
        self._passed = self._loaded = self._first = 0
        self._listed = np.zeros(len(members), bool)
        """Which channels stand where a list of the source put them, not where they were set."""

    def is_at(self, target: Volts) -> bool:
        """Return whether every channel was written to stand at `target`."""
        return self._trusted and bool(((self.volts == target) & self._written).all())

    @property
    def is_known(self) -> bool:
        """Whether the voltage of every channel is known: no setting failed and the source was not restarted since."""
        return self._trusted and not np.isnan(self.volts).any()

    @property
    def is_at_zero(self) -> bool:
        """Whether every channel was written to stand at 0 V."""
        return self.is_at(np.zeros(len(self.members)))

    @property
    def _trusted(self) -> bool:
        return self._doubts == self.handle.doubts

    def forget(self) -> None:
        """Take every channel for unknown: a setting failed, the source was restarted or armed anew, or somebody else had it."""
        self._doubts = self.handle.doubts
        self._own_slew_v_per_s = None
        self.volts[:] = np.nan
        self._written[:] = False
        self.expect_nothing()
        self._listed[:] = False

    def expect(self, targets: Volts) -> None:
        """Announce the targets to come, shape (targets, channels), so that a source that can has them before they are due.

        Nothing is sent yet. Targets that need ramps on the way from one to the next are not worth it, nor are a few.
        """
        self.expect_nothing()
        apart = np.abs(np.diff(targets, axis=0)).max(axis=1, initial=0.0)
        rows = targets[np.concatenate([[True], apart > 0])]
        ramped = self.slew_v_per_s > 0 and apart.max(initial=0.0) > self.slew_v_per_s * slew.SHORTEST_STEP_S
        if isinstance(self.handle.instrument, StepsThroughList) and len(rows) >= FEWEST_STEPS and not ramped:
            self._coming = rows

    def expect_nothing(self) -> None:
        """Forget what was announced; the next write ends the list in the source, whatever it writes."""
        self._coming = self._coming[:0]
        self._passed = self._loaded = self._first = 0
        self._written &= ~self._listed

    def read_back(self, clock: BenchClock) -> bool:
        """Ask the source where its channels stand, if that is unknown and it can tell; return whether all are known then."""
        if self.is_known:
            return True
        self.forget()
        instrument = self.handle.instrument
        if isinstance(instrument, ReadsVolts):
            told = self.handle.query("read_volts", lambda _: instrument.read_volts(self.channels.tolist()))
            # Found beyond its limits (set under wider ones, or a measured -1 mV), a channel comes inside with its first step.
            self.volts = np.clip(np.array(told, np.float64), self.low_v, self.high_v)
            self._written[:] = False
            self._moved(clock, np.zeros(len(self.volts)))
        return self.is_known

    def write(self, target: Volts, clock: BenchClock, allowed: Callable[[], bool]) -> bool:
        """Write the channels that differ from `target`, at once; return False where `allowed` said no.

        If it does not return, all channels of the source are unknown (`InstrumentHandle.mutate`).
        """
        if not self._trusted:
            self.forget()
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
                if not self._stepped(target):
                    self.handle.mutate("set_volts", lambda instrument: instrument.set_volts(values))
                    if self._listed[changed].any():  # which ends the list in the source
                        self._listed[:] = False
                self.volts[changed] = target[changed]
                self._written[changed] = True
        except BaseException:  # an interrupt between the call and the note of it included
            self.forget()
            raise
        finally:
            self._moved(clock, distance_v)
        self.writes += 1
        return True

    def _stepped(self, target: Volts) -> bool:
        """Take the next announced target by the source's list; return False where `target` is another, or none was announced."""
        instrument = self.handle.instrument
        if not isinstance(instrument, StepsThroughList) or self._passed == len(self._coming):
            return False
        if (self._coming[self._passed] != target).any():
            if self._loaded:  # on the way to the first one there may be ramps
                self._coming = self._coming[:0]
                self._passed = 0
            return False
        if self._passed == self._loaded:
            if not self._loaded:
                self._listed = (self._coming != self.volts).any(axis=0) | ~self._written
            numbers, rows = self.channels[self._listed].tolist(), self._coming[self._passed :, self._listed]
            count = self.handle.mutate("load_steps", lambda _: instrument.load_steps(numbers, rows))
            if not count:
                self._listed[:] = False
                self.expect_nothing()
                return False
            self._first, self._loaded = self._passed, self._passed + count
        step = self._passed - self._first
        self.handle.mutate("go_to_step", lambda _: instrument.go_to_step(step))
        self._passed += 1
        return True

    def make_safe(self, clock: BenchClock) -> None:
        """Bring the whole source to 0 V by its own means, at once: for channels that stand nobody knows where."""
        self.forget()
        try:
            self.handle.mutate("safe", lambda instrument: instrument.safe())
        finally:
            self._moved(clock, self._span_v)
        self._doubts = self.handle.doubts
        self.volts[:] = 0.0
        self._written[:] = True

    def ramp_s(self, clock: BenchClock, *, ramping: bool) -> float:
        """Return the time that counts for the next step; see `slew.credit_s`."""
        return slew.credit_s(clock.now_s() - self._stepped_s, ramping=ramping)

    def _moved(self, clock: BenchClock, distance_v: Volts) -> None:
        """Note a write that is over, and when a source that has so far to slew will have arrived."""
        self._stepped_s = now_s = clock.now_s()
        if self._own_slew_v_per_s is None:
            self._own_slew_v_per_s = np.array([self.handle.instrument.limits(k).slew_v_per_s for k in self.channels.tolist()])
        own = self._own_slew_v_per_s
        # Behind what it still had to do: steps that come faster than it moves are made up for at the end.
        travel_s = float(np.max(np.divide(distance_v, own, out=np.zeros(len(own)), where=own > 0), initial=0.0))
        self.written_s = max(now_s, self.written_s) + travel_s


def outputs_of(banks: Sequence[Bank], handles: Mapping[str, InstrumentHandle], slew_v_per_s: float | None = None) -> list[Output]:
    """Return an output for every bank; `slew_v_per_s` is that of all of them, None: what each source itself allows."""
    outputs: list[Output] = []
    for bank in banks:
        limits = [bank.limits[channel] for channel in bank.channels]
        own = min((limit.slew_v_per_s for limit in limits if limit.slew_v_per_s > 0), default=0.0)
        outputs.append(
            Output(
                handles[bank.instrument],
                bank.channels,
                bank.members,
                np.array([limit.min_v for limit in limits]),
                np.array([limit.max_v for limit in limits]),
                own if slew_v_per_s is None else slew_v_per_s,
            )
        )
    return outputs


def move(
    outputs: Sequence[Output], targets: Sequence[Volts], clock: BenchClock, allowed: Callable[[], bool] = lambda: True
) -> bool:
    """Move all outputs to their targets, side by side, each within its slew limit; return False where `allowed` said no.

    `allowed` is asked before every write and during every wait, so nothing is written after it has said no. Outputs whose
    voltages are unknown are asked first, and dropped to 0 V where they cannot tell.

    Raises
    ------
    InstrumentError
        The first source that failed; the others stand where they were by then.
    """
    moving = [(output, target) for output, target in zip(outputs, targets, strict=True) if not output.is_at(target)]
    for output, _ in moving:
        if not allowed():
            return False
        if not output.read_back(clock):
            output.make_safe(clock)
    ramping: set[Output] = set()
    while moving:
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
            # The next of them, and a hair, so that rounding never makes it wait for nothing again.
            clock.wait_until(clock.now_s() + min(waits_s) * (1 + 1e-9) + 1e-9, lambda: not allowed())
            if not allowed():
                return False
    return allowed()


def make_outputs_safe(outputs: Sequence[Output], clock: BenchClock) -> list[InstrumentError]:
    """Bring all outputs to 0 V whatever happens; return an error for every source that would not.

    They are ramped side by side. One that fails on the way is told to drop to 0 V by its own means, and the others go on; sources
    that failed before come last, so that nobody waits for them.
    """
    errors: list[InstrumentError] = []
    for output in outputs:
        output.expect_nothing()
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
