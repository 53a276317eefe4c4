"""QDevil QDAC-II: 24 voltage channels of ±10 V, SCPI over a socket or USB serial.

Channel 0 is the front panel's 1. All channels of a call are set in one message together with the question for errors. The
instrument has no voltage or current limits of its own but its range (high ±10 V, low ±2 V) and the slew, which `arm` writes.
Lists are played by the instrument's own clock, all channels started by internal trigger 1.

Every setting is read back together with the set-points of all other channels, and `check` reads them too: an instrument that was
restarted, or set by other hands, is noticed at the next word.

Sources: the driver in QCoDeS contrib drivers (github.com/QCoDeS/Qcodes_contrib_drivers, QDAC2.py).
Not checked against a real unit: joined queries being answered on one line, separated by semicolons; the length of a message that
the instrument takes (24 channels need 900 characters, a list is sent 256 steps at a time); the span of the low range; the time at
which a list starts after its trigger.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Annotated, Literal, NoReturn

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field

from drivers import scpi
from drivers.channels import check_channels, check_volts, send_all, slowed, tightened, until_taken
from drivers.instrument import ChannelLimits, Identity
from drivers.registry import Driver
from drivers.transport.contract import Transport
from drivers.transport.opening import through_text
from drivers.transport.text import Dialect
from protocols.errors import DeviceError

DIALECT = Dialect(timeout_s=1.0, baud=921600)
"""How the instrument is spoken to."""

_ERRORS = "syst:err:all?"
_RANGE_V = {"high": 10.0, "low": 2.0}
_SLEW_V_PER_S = (0.01, 2e7)
_AGREES_V = 1e-3
_STEPS_A_MESSAGE = 256
_TRIGGER = 1


class Qdac2Settings(BaseModel):
    """Settings of a station file."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    channels: Annotated[int, Field(ge=1, le=24)] = 24
    range: Literal["high", "low"] = "high"
    """±10 V or ±2 V."""


def open_qdac2(transport: Transport, settings: Qdac2Settings) -> Qdac2:
    """Return the instrument behind `transport`, every channel in fixed mode and in the range of the settings.

    Raises
    ------
    DeviceError
        "transport" where it does not answer, "device" where it complains.
    """
    scpi.forget_complaints(transport, _ERRORS)
    count = settings.channels
    ranges = transport.ask(scpi.joined(f"sour{n}:rang?" for n in range(1, count + 1)), lambda lines: _words(lines, count))
    commands = [f"sour{n}:volt:mode fix" for n in range(1, count + 1)]
    # A range is written only where it differs: switching it under load is a step of the output.
    commands += [
        f"sour{n}:rang {settings.range}" for n, now in enumerate(ranges, 1) if not now.lower().startswith(settings.range)
    ]
    scpi.set_and_check(transport, commands, _ERRORS)
    held = transport.ask(scpi.joined(_set_points(range(count))), lambda lines: scpi.numbers(lines[0], count, ";"))
    return Qdac2(transport, _RANGE_V[settings.range], held)


class Qdac2:
    """A `DriveSource` that `ReadsVolts` (as set), `ReadsAmps` and `PlaysLists`. Made by `open_qdac2`."""

    def __init__(self, transport: Transport, range_v: float, held: NDArray[np.float64]) -> None:
        self._transport = transport
        self._hardware = ChannelLimits(-range_v, range_v, range_v=2 * range_v, slew_v_per_s=_SLEW_V_PER_S[1])
        self._limits = [self._hardware] * len(held)
        self._armed: dict[int, ChannelLimits] = {}
        self._held = held
        self._playing: set[int] = set()
        transport.when_reopened(lambda: self._start_anew("was lost and has been found again"))

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

    def arm(self, limits: Mapping[int, ChannelLimits]) -> None:
        """Write the slew of the named channels, well above the bench's ramps (`slowed`); voltages are held by this driver."""
        check_channels(self._transport.name, tuple(limits), self.channels)
        wanted = {
            c: slowed(tightened(self._transport.name, c, self._hardware, limit), limit.slew_v_per_s, _SLEW_V_PER_S[0])
            for c, limit in limits.items()
        }
        self._write_slews(wanted)
        self._armed.update(wanted)
        for channel, limit in wanted.items():
            self._limits[channel] = limit

    def set_volts(self, volts: Mapping[int, float]) -> None:
        """Set the named channels in one message; a channel that plays a list stops playing."""
        check_volts(self._transport.name, volts, self._limits)
        if volts:
            self._set(volts)

    def read_volts(self, channels: Sequence[int]) -> NDArray[np.float64]:
        """Return the set-points [V] as the instrument holds them, shape (channels,), in one exchange."""
        check_channels(self._transport.name, channels, self.channels)
        return self._transport.ask(scpi.joined(_set_points(channels)), lambda lines: scpi.numbers(lines[0], len(channels), ";"))

    def read_amps(self, channels: Sequence[int]) -> NDArray[np.float64]:
        """Return measured currents [A], shape (channels,), in one exchange."""
        check_channels(self._transport.name, channels, self.channels)
        numbers = ",".join(str(channel + 1) for channel in channels)
        return self._transport.ask(f"read? (@{numbers})", lambda lines: scpi.numbers(lines[0], len(channels)))

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
        text = self._transport.ask(
            scpi.joined([f"tint {_TRIGGER}", _ERRORS]), lambda lines: scpi.complaint(lines[0]), changes=True, repeats=0
        )
        if text:
            raise DeviceError("device", f"{self._transport.name} did not start its lists: {text}", outcome="unknown")
        self._held[list(channels)] = volts[-1]

    def check(self) -> None:
        """Empty the queue of errors and compare every set-point with what was set last."""
        scpi.raise_complaints(self._transport, _ERRORS)
        if still := [channel for channel in range(self.channels) if channel not in self._playing]:
            self._compare(still, self.read_volts(still))

    def safe(self) -> None:
        """Set every channel to 0 V in one message, in one again, one by one, at last unheard."""
        zeros = dict.fromkeys(range(self.channels), 0.0)
        self._playing.update(zeros)  # whatever a channel was doing, it is told to stop

        def all_at_once() -> None:
            self._set(zeros)

        def one_by_one() -> None:
            send_all([{channel: 0.0} for channel in zeros], self._set)

        unheard = [scpi.joined([*_stopped(channel), f"sour{channel + 1}:volt 0"]) for channel in zeros]
        until_taken(self._transport, [all_at_once, all_at_once, one_by_one], unheard, "0 V")

    def close(self) -> None:
        """Let go of the instrument; the outputs stay as they are."""
        self._transport.close()

    def _set(self, volts: Mapping[int, float]) -> None:
        listed = sorted(self._playing & set(volts))
        commands = [word for channel in listed for word in _stopped(channel)]
        commands += [f"sour{channel + 1}:volt {scpi.decimal(value)}" for channel, value in volts.items()]
        expected = self._held.copy()
        expected[list(volts)] = list(volts.values())
        still = [channel for channel in range(self.channels) if channel in volts or channel not in self._playing]
        commands += _set_points(still)

        def understand(lines: list[str]) -> tuple[NDArray[np.float64], str]:
            *points, error = lines[0].split(";", len(still))
            return np.array([scpi.number(point) for point in points]), scpi.complaint(error)

        points, text = self._transport.ask(scpi.joined([*commands, _ERRORS]), understand, changes=True)
        self._playing.difference_update(listed)
        self._held = expected
        if text:
            self._held[still] = points
            raise DeviceError("device", f"{self._transport.name} complained when voltages were set: {text}", outcome="unknown")
        self._compare(still, points)

    def _compare(self, channels: Sequence[int], points: NDArray[np.float64]) -> None:
        """Raise where a channel is not set to what it was set to."""
        away = np.abs(points - self._held[list(channels)]) > _AGREES_V
        if away.any():
            index = int(np.argmax(away))
            channel = channels[index]
            self._start_anew(
                f"holds channel {channel} at {points[index]:.6g} V where it was set to {self._held[channel]:.6g} V, "
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
            text = self._transport.ask(
                scpi.joined([f"sour{number}:list:volt:app {','.join(more)}", _ERRORS]),
                lambda lines: scpi.complaint(lines[0]),
                changes=True,
                repeats=0,
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
        self._write_slews(self._armed)
        self._held = self.read_volts(range(self.channels))
        raise DeviceError(
            "device",
            f"{self._transport.name} {why}: its limits have been written again, every channel must be set again",
            retryable=True,
            outcome="unknown",
            channel=channel,
        )


def _stopped(channel: int) -> list[str]:
    """Return what ends a list: the channel is in fixed mode then."""
    return [f"sour{channel + 1}:dc:abor", f"sour{channel + 1}:volt:mode fix"]


def _set_points(channels: Iterable[int]) -> list[str]:
    return [f"sour{channel + 1}:volt?" for channel in channels]


def _words(lines: list[str], count: int) -> list[str]:
    words = [word.strip() for word in lines[0].split(";")]
    if len(words) != count:
        raise ValueError(f"{len(words)} values where {count} are due")
    return words


DRIVER = Driver(
    "source", Qdac2Settings, through_text(open_qdac2, DIALECT), "QDevil QDAC-II, 24 channels of ±10 V, socket or USB serial"
)
"""What the registry finds."""
