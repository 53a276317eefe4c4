"""QDevil QDAC-II: 24 voltage channels of ±10 V, SCPI over a socket or USB serial.

Channel 0 is the front panel's 1. All channels of a call are set in one message together with the question for errors. The
instrument has no voltage or current limits of its own but its range (high ±10 V, low ±2 V) and the slew, which `set_limits` writes.
Lists are played by the instrument's own clock, all channels started by internal trigger 1 (`play`), or step by step, all channels
together at every internal trigger 2 (`load_steps`, `go_to_step`).

Every setting is read back together with the set-points of all other channels, and `check` reads them too: an instrument that was
restarted, or set by other hands, is noticed at the next word. Every step of a list is read back as well (VOLT:LAST? is what an
output stands at, VOLT? what fixed mode would hold): a trigger is not absolute, so a channel counts as stepped once it says so.
Where the answer is lost, the step is set as voltages, which ends the list; where the answer is another voltage, lists are not
used again until the instrument is opened anew.

Sources: the driver in QCoDeS contrib drivers (github.com/QCoDeS/Qcodes_contrib_drivers, QDAC2.py).
Not checked against a real unit: joined queries being answered on one line, separated by semicolons; the length of a message that
the instrument takes (24 channels need 600 characters, a list is sent 256 steps or 3000 characters at a time); the span of the low
range; the time at which a list starts after its trigger; that a list that is loaded leaves the outputs alone until a trigger, and
VOLT:LAST? follows a step within some round trips; where that is not so, the driver says so in the log and does without.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Literal, NoReturn

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field

from photonloop.drivers.helpers import scpi
from photonloop.drivers.helpers.channel_checks import (
    check_channels,
    check_volts,
    send_all,
    slowed,
    tightened,
    try_until_confirmed,
)
from photonloop.drivers.instrument import ChannelLimits, Identity
from photonloop.drivers.registry import Driver
from photonloop.drivers.sources.qdac2_commands import at, stopped, words, zero
from photonloop.drivers.transports.connection_settings import through_text
from photonloop.drivers.transports.text import Dialect
from photonloop.drivers.transports.transport import Transport
from photonloop.protocols.errors import DeviceError

log = logging.getLogger(__name__)

DIALECT = Dialect(timeout_s=1.0, baud=921600)
"""How the instrument is spoken to."""

_ERRORS = "syst:err:all?"
_RANGE_V = {"high": 10.0, "low": 2.0}
_SLEW_V_PER_S = (0.01, 2e7)
_AGREES_V = 1e-3
_STEP_AGREES_V = 2e-5
"""Of a step of a list: neighbouring steps are often nearer to each other than `_AGREES_V`."""
_STEPS_A_MESSAGE = 256
_CHARACTERS_A_LIST = 3000
_TRIGGER = 1
_STEP_TRIGGER = 2
PATIENCE = 200
"""Round trips until a step must have been taken, and the instrument's own slew be over."""
_DWELL_S = 1e-5
"""Of a step: it is over long before the next trigger."""


class Qdac2Settings(BaseModel):
    """Settings of a station file."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    channels: Annotated[int, Field(ge=1, le=24)] = 24
    range: Literal["high", "low"] = "high"
    """±10 V or ±2 V."""
    lists: bool = False
    """The settings of an evaluation are loaded as a list and stepped through by triggers (docs/decisions/0009)."""


@dataclass
class _Steps:
    """A list as it was loaded. Its channels stand at step `at`, -1 before the first, until it is `ended`."""

    channels: list[int]
    volts: NDArray[np.float64]
    before: NDArray[np.float64]
    at: int = -1
    ended: bool = False


def open_qdac2(transport: Transport, settings: Qdac2Settings) -> Qdac2:
    """Return the instrument behind `transport`, every channel in fixed mode and in the range of the settings.

    Raises
    ------
    DeviceError
        "transport" where it does not answer, "device" where it complains.
    """
    scpi.forget_complaints(transport, _ERRORS)
    count = settings.channels
    ranges = transport.query(scpi.joined(f"sour{n}:rang?" for n in range(1, count + 1)), lambda lines: words(lines, count))
    commands = stopped(range(count))
    # A range is written only where it differs: switching it under load is a step of the output.
    commands += [
        f"sour{n}:rang {settings.range}" for n, now in enumerate(ranges, 1) if not now.lower().startswith(settings.range)
    ]
    scpi.set_and_check(transport, commands, _ERRORS)
    held = transport.query(f"sour:volt? {at(range(count))}", lambda lines: scpi.numbers(lines[0], count))
    return Qdac2(transport, _RANGE_V[settings.range], held, lists=settings.lists)


class Qdac2:
    """A `DriveSource` that `ReadsVolts` (as set), `ReadsAmps`, `PlaysLists` and, where it is told to, `StepsThroughList`.

    Made by `open_qdac2`.
    """

    def __init__(self, transport: Transport, range_v: float, held: NDArray[np.float64], *, lists: bool = False) -> None:
        self._transport = transport
        self._hardware = ChannelLimits(-range_v, range_v, range_v=2 * range_v, slew_v_per_s=_SLEW_V_PER_S[1])
        self._limits = [self._hardware] * len(held)
        self._written_limits: dict[int, ChannelLimits] = {}
        self._held = held
        self._playing: set[int] = set()
        self._steps: _Steps | None = None
        self._trusted = True
        if lists:  # a capability is told by having its methods
            self.load_steps = self._load_steps
            self.go_to_step = self._go_to_step
        transport.on_reconnect(lambda: self._start_anew("was lost and has been found again"))

    @property
    def channels(self) -> int:
        """Channels in use."""
        return len(self._limits)

    def identify(self) -> Identity:
        """Ask *IDN?."""
        return scpi.identity(self._transport.identity())

    def limits(self, channel: int) -> ChannelLimits:
        """Return the limits of `channel`."""
        check_channels(self._transport.name, [channel], self.channels)
        return self._limits[channel]

    def set_limits(self, limits: Mapping[int, ChannelLimits]) -> None:
        """Write the slew of the named channels, well above the bench's ramps (`slowed`); voltages are held by this driver."""
        check_channels(self._transport.name, tuple(limits), self.channels)
        wanted = {
            c: slowed(tightened(self._transport.name, c, self._hardware, limit), limit.slew_v_per_s, _SLEW_V_PER_S[0])
            for c, limit in limits.items()
        }
        self._write_slews(wanted)
        self._written_limits.update(wanted)
        for channel, limit in wanted.items():
            self._limits[channel] = limit

    def set_volts(self, volts: Mapping[int, float]) -> None:
        """Set the named channels in one message; a channel that plays a list stops playing.

        A list that is stepped through ends as a whole with the first of its channels: the others stay where they are.
        """
        check_volts(self._transport.name, volts, self._limits)
        if volts:
            self._set(volts)

    def read_volts(self, channels: Sequence[int]) -> NDArray[np.float64]:
        """Return the set-points [V] as the instrument holds them, where lists stand, shape (channels,), in one exchange."""
        check_channels(self._transport.name, channels, self.channels)
        last = "" if set(channels).isdisjoint(self._listed()) else ":last"
        return self._transport.query(f"sour:volt{last}? {at(channels)}", lambda lines: scpi.numbers(lines[0], len(channels)))

    def read_amps(self, channels: Sequence[int]) -> NDArray[np.float64]:
        """Return measured currents [A], shape (channels,), in one exchange."""
        check_channels(self._transport.name, channels, self.channels)
        numbers = ",".join(str(channel + 1) for channel in channels)
        return self._transport.query(f"read? (@{numbers})", lambda lines: scpi.numbers(lines[0], len(channels)))

    def play(self, channels: Sequence[int], volts: NDArray[np.float64], dwell_s: float) -> None:
        """Load `volts`, shape (steps, channels), and start all channels together; returns at once.

        The trigger is never sent twice: where its answer is lost, "transport" with outcome "unknown" is raised.
        """
        if volts.ndim != 2 or volts.shape[1] != len(channels) or volts.shape[0] == 0:
            raise DeviceError(
                "bad_request", f"volts has shape {volts.shape}, wanted (steps, {len(channels)}) with a step or more"
            )
        if not 1e-6 <= dwell_s <= 3600:
            raise DeviceError(
                "bad_request", f"{self._transport.name}: dwell_s is {dwell_s:g} s, it must lie within 1e-6 and 3600 s"
            )
        for step in volts:
            check_volts(self._transport.name, dict(zip(channels, step.tolist(), strict=True)), self._limits)
        for column, channel in enumerate(channels):
            self._load(channel + 1, volts[:, column], dwell_s)
        self._playing.update(channels)
        text = self._transport.query(
            scpi.joined([f"tint {_TRIGGER}", _ERRORS]), lambda lines: scpi.complaint(lines[0]), mutates=True, retries=0
        )
        if text:
            raise DeviceError("device", f"{self._transport.name} did not start its lists: {text}", outcome="unknown")
        self._held[list(channels)] = volts[-1]

    def check(self) -> None:
        """Empty the queue of errors and compare every set-point with what was set last, and where a list stands with its step."""
        scpi.raise_complaints(self._transport, _ERRORS)
        if still := self._still():
            self._compare(still, self.read_volts(still))
        if listed := self._listed():
            self._compare(listed, self.read_volts(listed), self._standing(listed))

    def safe(self) -> None:
        """Set every channel to 0 V in one message, in one again, one by one, at last unheard."""
        zeros = dict.fromkeys(range(self.channels), 0.0)
        self._playing.update(zeros)  # whatever a channel was doing, it is told to stop
        self._steps = None

        def all_at_once() -> None:
            self._set(zeros)

        def one_by_one() -> None:
            send_all([{channel: 0.0} for channel in zeros], self._set)

        last_resort = [scpi.joined(zero(channel)) for channel in zeros]
        try_until_confirmed(self._transport, [all_at_once, all_at_once, one_by_one], last_resort, "0 V")

    def close(self) -> None:
        """Let go of the instrument; the outputs stay as they are."""
        self._transport.close()

    def _load_steps(self, channels: Sequence[int], volts: NDArray[np.float64]) -> int:
        """Load a list; see `StepsThroughList`. One message, that is repeated where it must be: it sets everything anew."""
        if volts.ndim != 2 or volts.shape[1] != len(channels) or not volts.size:
            raise DeviceError("bad_request", f"volts has shape {volts.shape}, wanted (steps, {len(channels)}), both 1 or more")
        for step in volts:
            check_volts(self._transport.name, dict(zip(channels, step.tolist(), strict=True)), self._limits)
        if not self._trusted or self._playing & set(channels):
            return 0
        if (listed := self._listed()) and listed != list(channels):
            self._set(dict(zip(listed, self._standing(listed).tolist(), strict=True)))
        standing = self._standing(channels)
        slews = any(self._limits[channel].slew_v_per_s < _SLEW_V_PER_S[1] for channel in channels)
        if slews and not self._arrives(channels, standing, self._outputs(channels)):
            return 0  # still on its way to what was set last: a list would stop it there
        count = min(len(volts), max(1, _CHARACTERS_A_LIST // (12 * len(channels))))
        where = at(channels)
        commands = [f"sour:dc:trig:sour hold,{where}", f"sour:volt:mode list,{where}"]
        for channel, column in zip(channels, volts[:count].T.tolist(), strict=True):
            commands.append(f"sour{channel + 1}:list:volt {','.join(map(scpi.decimal, column))}")
        commands += [
            f"sour:list:tmod step,{where}",
            f"sour:list:dwel {scpi.decimal(_DWELL_S)},{where}",
            f"sour:list:coun 1,{where}",
        ]
        commands += [f"sour:dc:trig:sour int{_STEP_TRIGGER},{where}", f"sour:dc:init:cont on,{where}"]
        self._steps = _Steps(list(channels), volts[:count].copy(), standing)
        if self._stepped(commands, standing, retries=None):
            return count
        self._set(dict(zip(channels, standing.tolist(), strict=True)))
        return 0

    def _go_to_step(self, step: int) -> None:
        """Bring all channels of the list to `step`; see `StepsThroughList`. A trigger is never sent twice."""
        steps = self._steps
        if steps is None or not 0 <= step < len(steps.volts):
            raise DeviceError("bad_request", f"{self._transport.name} has no list with a step {step}")
        target = steps.volts[step]
        volts = dict(zip(steps.channels, target.tolist(), strict=True))
        if steps.ended or step != steps.at + 1:
            self._set(volts)
            return
        try:
            arrived = self._stepped([f"tint {_STEP_TRIGGER}"], target, retries=0)
        except DeviceError as error:
            if error.code != "transport":
                raise
            arrived = False
        if arrived:
            steps.at = step
        else:
            self._set(volts)  # absolute, so that it does not matter whether the trigger arrived

    def _stepped(self, commands: Sequence[str], wanted: NDArray[np.float64], retries: int | None) -> bool:
        """Send commands of the list; return whether its channels stand at `wanted` then. Where not, lists are over for good.

        Raises
        ------
        DeviceError
            "device": a complaint, or the instrument was restarted or set by other hands.
        """
        assert self._steps is not None
        channels = self._steps.channels

        def parse(lines: list[str]) -> tuple[NDArray[np.float64], str]:
            points, _, error = lines[0].partition(";")
            return scpi.numbers(points, len(channels)), scpi.complaint(error)

        message = scpi.joined([*commands, f"sour:volt:last? {at(channels)}", _ERRORS])
        now, text = self._transport.query(message, parse, mutates=True, retries=retries)
        if text:
            told = (
                f"{self._transport.name} complained of a list: {text}; it does without them where its settings say lists = false"
            )
            raise DeviceError("device", told, outcome="unknown")
        if self._arrives(channels, wanted, now):
            return True
        now = self._outputs(channels)
        self._compare(
            channels, self._transport.query(f"sour:volt? {at(channels)}", lambda lines: scpi.numbers(lines[0], len(now)))
        )
        self._trusted = False
        worst = int(np.argmax(np.abs(now - wanted)))
        log.warning(
            "%s: a list left channel %d at %.6g V where it should stand at %.6g V: from now on every setting is written out",
            *(self._transport.name, channels[worst], now[worst], wanted[worst]),
        )
        return False

    def _arrives(self, channels: Sequence[int], wanted: NDArray[np.float64], now: NDArray[np.float64]) -> bool:
        """Return whether outputs that stand at `now` come to `wanted`: the instrument's own slew may take them a while."""
        for _ in range(PATIENCE):
            if np.abs(now - wanted).max() <= _STEP_AGREES_V:
                return True
            now = self._outputs(channels)
        return False

    def _outputs(self, channels: Sequence[int]) -> NDArray[np.float64]:
        """Return where outputs stand, whatever mode they are in [V], shape (channels,)."""
        return self._transport.query(f"sour:volt:last? {at(channels)}", lambda lines: scpi.numbers(lines[0], len(channels)))

    def _still(self) -> list[int]:
        """Return the channels that fixed mode holds."""
        return [channel for channel in range(self.channels) if channel not in {*self._playing, *self._listed()}]

    def _listed(self) -> list[int]:
        """Return the channels of the list that is stepped through."""
        return [] if self._steps is None or self._steps.ended else self._steps.channels

    def _standing(self, channels: Sequence[int]) -> NDArray[np.float64]:
        """Return where channels stand as far as this driver knows [V], shape (channels,)."""
        standing = self._held.copy()
        if (steps := self._steps) is not None and not steps.ended:
            standing[steps.channels] = steps.volts[steps.at] if steps.at >= 0 else steps.before
        return standing[list(channels)]

    def _set(self, volts: Mapping[int, float]) -> None:
        listed = self._listed()
        if set(volts).isdisjoint(listed):
            listed = []
        volts = dict(zip(listed, self._standing(listed).tolist(), strict=True)) | dict(volts)
        moving = sorted({*listed, *self._playing} & set(volts))
        commands = stopped(moving) if moving else []
        commands += [f"sour{channel + 1}:volt {scpi.decimal(value)}" for channel, value in volts.items()]
        expected = self._held.copy()
        expected[list(volts)] = list(volts.values())
        still = sorted({*self._still(), *volts})

        def parse(lines: list[str]) -> tuple[NDArray[np.float64], str]:
            points, _, error = lines[0].partition(";")
            return scpi.numbers(points, len(still)), scpi.complaint(error)

        commands += [f"sour:volt? {at(still)}", _ERRORS]
        points, text = self._transport.query(scpi.joined(commands), parse, mutates=True)
        self._playing.difference_update(volts)
        if listed and self._steps is not None:
            self._steps.ended = True
        self._held = expected
        if text:
            self._held[still] = points
            raise DeviceError("device", f"{self._transport.name} complained when voltages were set: {text}", outcome="unknown")
        self._compare(still, points)

    def _compare(self, channels: Sequence[int], points: NDArray[np.float64], wanted: NDArray[np.float64] | None = None) -> None:
        """Raise where a channel is not set to what it was set to, or does not stand where it is `wanted`."""
        wanted = self._held[list(channels)] if wanted is None else wanted
        away = np.abs(points - wanted) > _AGREES_V
        if away.any():
            index = int(np.argmax(away))
            channel = channels[index]
            self._start_anew(
                f"holds channel {channel} at {points[index]:.6g} V where it was set to {wanted[index]:.6g} V, "
                "so it was restarted or set by other hands",
                channel,
            )

    def _load(self, number: int, volts: NDArray[np.float64], dwell_s: float) -> None:
        texts = [scpi.decimal(value) for value in volts.tolist()]
        first, rest = texts[:_STEPS_A_MESSAGE], texts[_STEPS_A_MESSAGE:]
        commands = [
            f"sour{number}:dc:trig:sour hold",
            f"sour{number}:volt:mode list",
            f"sour{number}:list:volt {','.join(first)}",
            f"sour{number}:list:tmod auto",
            f"sour{number}:list:dwel {scpi.decimal(dwell_s)}",
            f"sour{number}:list:coun 1",
        ]
        scpi.set_and_check(self._transport, commands, _ERRORS)
        while rest:
            more, rest = rest[:_STEPS_A_MESSAGE], rest[_STEPS_A_MESSAGE:]
            # Appending twice would play steps twice, so this one is not repeated.
            text = self._transport.query(
                scpi.joined([f"sour{number}:list:volt:app {','.join(more)}", _ERRORS]),
                lambda lines: scpi.complaint(lines[0]),
                mutates=True,
                retries=0,
            )
            if text:
                raise DeviceError("device", f"{self._transport.name} did not take a list: {text}", outcome="unknown")
        ready = [f"sour{number}:dc:trig:sour int{_TRIGGER}", f"sour{number}:dc:init"]
        scpi.set_and_check(self._transport, ready, _ERRORS)

    def _write_slews(self, limits: Mapping[int, ChannelLimits]) -> None:
        commands = [f"sour{c + 1}:volt:slew {scpi.decimal(limit.slew_v_per_s)}" for c, limit in limits.items()]
        if commands:
            scpi.set_and_check(self._transport, commands, _ERRORS)

    def _start_anew(self, why: str, channel: int | None = None) -> NoReturn:
        self._write_slews(self._written_limits)
        self._playing.update(self._listed())  # perhaps still in list mode, so that setting them says otherwise first
        self._steps = None
        self._held = self.read_volts(range(self.channels))
        raise DeviceError(
            "device",
            f"{self._transport.name} {why}: its limits have been written again, every channel must be set again",
            retryable=True,
            outcome="unknown",
            channel=channel,
        )


DRIVER = Driver(
    "source", Qdac2Settings, through_text(open_qdac2, DIALECT), "QDevil QDAC-II, 24 channels of ±10 V, socket or USB serial"
)
"""What the registry finds."""
