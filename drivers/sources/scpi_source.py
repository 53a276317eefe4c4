"""A multichannel voltage source that speaks SCPI, described by a small table: no code for a plain instrument.

    [instruments.settings]                          or   [instruments.settings]
    channels = 16                                        table = "my-source.toml"
    max_v = 10.0
    set = "VOLT {volts},(@{channel})"
    query_volts = "VOLT? (@{channels})"

Everything the table leaves out is not used: without `error` the driver cannot tell whether a setting was taken, without
`query_volts` it cannot tell that the instrument was restarted behind its back. Both are worth having.

Not checked against a real unit: by its nature. Try a new table at the bench with `photonloop check` and a resistor first.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated, NoReturn, Self

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, model_validator

from photonloop.drivers.helpers import command_templates, scpi
from photonloop.drivers.helpers.channel_checks import (
    check_channels,
    check_volts,
    send_all,
    slowed,
    tightened,
    try_until_confirmed,
)
from photonloop.drivers.helpers.command_table import dialect_of
from photonloop.drivers.instrument import ChannelLimits, Identity
from photonloop.drivers.registry import Driver
from photonloop.drivers.transports.connection_settings import through_text
from photonloop.drivers.transports.text import Dialect
from photonloop.drivers.transports.transport import Transport
from photonloop.protocols.errors import DeviceError

_AGREES = 1e-3
"""Relative to the span: a set-point read back further away than this was not set by this driver. A step of the converter is
allowed in any case."""

_Finite = Annotated[float, Field(allow_inf_nan=False)]
_NotNegative = Annotated[float, Field(ge=0, allow_inf_nan=False)]


class ScpiSourceSettings(BaseModel):
    """The table. Commands are templates of `photonloop.drivers.helpers.command_templates`; empty ones are not used."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    channels: Annotated[int, Field(ge=1, le=1024)]
    first: Annotated[int, Field(ge=0)] = 1
    """What the instrument calls channel 0."""
    min_v: _Finite = 0.0
    max_v: _Finite
    max_a: _NotNegative = 0.0
    bits: Annotated[int, Field(ge=0, le=32)] = 0
    slew_v_per_s: _NotNegative = 0.0
    """How fast the instrument itself moves its outputs; 0: at once, or nobody knows."""
    set: str
    """Sets {volts} of {channel}."""
    query_volts: str = ""
    """Asks for the set-points of {channels}, or of {channel}."""
    query_amps: str = ""
    """Asks for the measured currents of {channels}, or of {channel}."""
    limit_volts: str = ""
    """Limits {channel} to {volts} in the instrument."""
    limit_amps: str = ""
    """Limits {channel} to {amps} in the instrument."""
    limit_slew: str = ""
    """Slows {channel} to {slew} [V/s] in the instrument; sent a value well above the ramps of the bench (`channels.slowed`)."""
    error: str = ""
    """Takes the oldest error: SYST:ERR?, answered `0,"No error"` or `+0,"No error"` where there is none."""
    identity: str = "*IDN?"
    identity_pattern: str = r"[^,]+,[^,]+,.+"
    """What the whole answer to `identity` looks like."""
    on_open: tuple[str, ...] = ()
    """Commands sent after opening and after a restart, before limits."""
    joins: bool = True
    """The instrument takes commands joined by ;: and answers joined questions on one line with semicolons between."""
    terminator: Annotated[str, Field(min_length=1, max_length=2)] = "\n"
    timeout_s: Annotated[float, Field(gt=0, le=60)] = 2.0
    baud: Annotated[int, Field(ge=50, le=4_000_000)] = 115200

    @model_validator(mode="after")
    def _fits(self) -> Self:
        if not self.min_v < self.max_v:
            raise ValueError(f"max_v {self.max_v:g} V is not above min_v {self.min_v:g} V")
        command_templates.checked(self.set, {"channel", "volts"}, {"volts"})
        if self.channels > 1:
            command_templates.checked(self.set, {"channel", "volts"}, {"channel"})
        for query_line in filter(None, (self.query_volts, self.query_amps)):
            command_templates.checked(query_line, {"channel", "channels"}, {"channel", "channels"} if self.channels > 1 else None)
        for place, template in (("volts", self.limit_volts), ("amps", self.limit_amps), ("slew", self.limit_slew)):
            if template:
                command_templates.checked(template, {"channel", place}, {place})
        for plain in (self.error, self.identity, *self.on_open):
            command_templates.checked(plain, set())
        return self

    @property
    def dialect(self) -> Dialect:
        """How the instrument is spoken to."""
        return dialect_of(self)


def open_scpi_source(transport: Transport, settings: ScpiSourceSettings) -> ScpiSource:
    """Return the source behind `transport` that `settings` describes, its `on_open` commands sent.

    Raises
    ------
    DeviceError
        "transport" where it does not answer, "device" where it complains.
    """
    if settings.error:
        scpi.forget_complaints(transport, settings.error)
    source = ScpiSource(transport, settings)
    source.begin()
    return source


class ScpiSource:
    """A `DriveSource` that `ReadsVolts` (as set) and `ReadsAmps` where the table says how. Made by `open_scpi_source`."""

    def __init__(self, transport: Transport, settings: ScpiSourceSettings) -> None:
        self._transport = transport
        self._table = settings
        self._hardware = ChannelLimits(
            settings.min_v,
            settings.max_v,
            max_a=settings.max_a,
            bits=settings.bits,
            range_v=settings.max_v - settings.min_v,
            slew_v_per_s=settings.slew_v_per_s,
        )
        self._limits = [self._hardware] * settings.channels
        self._written_limits: dict[int, ChannelLimits] = {}
        self._held = np.zeros(settings.channels)
        step = 1 / (2**settings.bits - 1) if settings.bits else 0.0
        self._tolerance_v = max(_AGREES, step) * (settings.max_v - settings.min_v)
        transport.on_reconnect(lambda: self._start_anew("was lost and has been found again"))
        # A capability is told by having its method (`isinstance(source, ReadsAmps)`): none without a word for it in the table.
        if settings.query_volts:
            self.read_volts = self._read_volts
        if settings.query_amps:
            self.read_amps = self._read_amps

    @property
    def channels(self) -> int:
        """As the table says."""
        return self._table.channels

    def begin(self) -> None:
        """Send what the table wants sent first, and learn where the channels stand."""
        self._send(self._table.on_open)
        if self._table.query_volts:
            self._held = self._read_volts(range(self.channels))

    def identify(self) -> Identity:
        """Ask who is there."""
        return scpi.identity(self._transport.identity())

    def limits(self, channel: int) -> ChannelLimits:
        """Return the limits of `channel`."""
        check_channels(self._transport.name, [channel], self.channels)
        return self._limits[channel]

    def set_limits(self, limits: Mapping[int, ChannelLimits]) -> None:
        """Write the limits that the table has commands for; voltages are held by this driver as well."""
        check_channels(self._transport.name, tuple(limits), self.channels)
        wanted = {c: tightened(self._transport.name, c, self._hardware, limit) for c, limit in limits.items()}
        if self._table.limit_slew:
            wanted = {c: slowed(limit, limits[c].slew_v_per_s) for c, limit in wanted.items()}
        self._write_limits(wanted)
        self._written_limits.update(wanted)
        for channel, limit in wanted.items():
            self._limits[channel] = limit

    def set_volts(self, volts: Mapping[int, float]) -> None:
        """Set the named channels in one message, where the instrument joins commands."""
        check_volts(self._transport.name, volts, self._limits)
        if volts:
            self._set(volts)

    def check(self) -> None:
        """Take the errors, and compare every set-point with what was set last, as far as the table allows."""
        if self._table.error:
            scpi.raise_complaints(self._transport, self._table.error)
        if self._table.query_volts:
            self._compare(self._read_volts(range(self.channels)))
        elif not self._table.error:
            self._transport.identity()

    def safe(self) -> None:
        """Set every channel to 0 V, or to the nearest voltage it has, at once, at once again, one by one, at last unheard."""
        zero_v = min(max(0.0, self._table.min_v), self._table.max_v)
        zeros = dict.fromkeys(range(self.channels), zero_v)

        def all_at_once() -> None:
            self._set(zeros)

        def one_by_one() -> None:
            send_all([{channel: zero_v} for channel in zeros], self._set)

        last_resort = command_templates.commands(self._table.set, self._numbers(list(zeros)), list(zeros.values()), "volts")
        try_until_confirmed(self._transport, [all_at_once, all_at_once, one_by_one], last_resort, "0 V")

    def close(self) -> None:
        """Let go of the instrument; the outputs stay as they are."""
        self._transport.close()

    def _set(self, volts: Mapping[int, float]) -> None:
        table = self._table
        expected = self._held.copy()
        expected[list(volts)] = list(volts.values())
        commands = command_templates.commands(table.set, self._numbers(list(volts)), list(volts.values()), "volts")
        if not (table.joins and table.error and table.query_volts):
            self._send(commands)
            self._held = expected
            if table.query_volts:
                self._compare(self._read_volts(range(self.channels)))
            return
        # Setting, set-points of all channels, errors: all in one message.
        asked = command_templates.queries(table.query_volts, self._numbers(range(self.channels)))
        parts = command_templates.answers(table.query_volts, self.channels)

        def parse(lines: list[str]) -> tuple[NDArray[np.float64], str]:
            *points, error = lines[0].split(";", parts)
            return command_templates.numbers_in(table.query_volts, ";".join(points), self.channels), scpi.complaint(error)

        points, text = self._transport.query(scpi.joined([*commands, *asked, table.error]), parse, mutates=True)
        if text:
            self._held = points
            texts = [text, *scpi.forget_complaints(self._transport, table.error)]
            raise DeviceError(
                "device", f"{self._transport.name} complained when voltages were set: {'; '.join(texts)}", outcome="unknown"
            )
        self._held = expected
        self._compare(points)

    def _send(self, commands: Sequence[str]) -> None:
        """Send settings and ask for errors: in one message where the instrument joins commands, else one by one."""
        table = self._table
        if not commands:
            return
        if table.joins and table.error:
            scpi.set_and_check(self._transport, commands, table.error)
            return
        for command in [scpi.joined(commands)] if table.joins else commands:
            self._transport.write(command)
        if table.error:
            scpi.raise_complaints(self._transport, table.error)

    def _read_volts(self, channels: Sequence[int]) -> NDArray[np.float64]:
        """Return the set-points [V], shape (channels,)."""
        return self._read(self._table.query_volts, channels)

    def _read_amps(self, channels: Sequence[int]) -> NDArray[np.float64]:
        """Return measured currents [A], shape (channels,)."""
        return self._read(self._table.query_amps, channels)

    def _read(self, template: str, channels: Sequence[int]) -> NDArray[np.float64]:
        check_channels(self._transport.name, channels, self.channels)
        return command_templates.query_numbers(self._transport, template, self._numbers(channels), joins=self._table.joins)

    def _compare(self, points: NDArray[np.float64]) -> None:
        """Raise where a channel is not set to what it was set to."""
        away = np.abs(points - self._held) > self._tolerance_v
        if away.any():
            channel = int(np.argmax(away))
            self._start_anew(
                f"holds channel {channel} at {points[channel]:.6g} V where it was set to {self._held[channel]:.6g} V, "
                "so it was restarted or set by other hands",
                channel,
            )

    def _write_limits(self, limits: Mapping[int, ChannelLimits]) -> None:
        table, numbers = self._table, self._numbers(list(limits))
        commands: list[str] = []
        for template, place, field in (
            (table.limit_volts, "volts", "max_v"),
            (table.limit_amps, "amps", "max_a"),
            (table.limit_slew, "slew", "slew_v_per_s"),
        ):
            values = [getattr(limit, field) for limit in limits.values()]
            some = [(number, value) for number, value in zip(numbers, values, strict=True) if value > 0]
            if template and some:
                commands += command_templates.commands(template, [n for n, _ in some], [v for _, v in some], place)
        self._send(commands)

    def _start_anew(self, why: str, channel: int | None = None) -> NoReturn:
        self._send(self._table.on_open)
        self._write_limits(self._written_limits)
        self._held = self._read_volts(range(self.channels)) if self._table.query_volts else np.zeros(self.channels)
        raise DeviceError(
            "device",
            f"{self._transport.name} {why}: its limits have been written again, every channel must be set again",
            retryable=True,
            outcome="unknown",
            channel=channel,
        )

    def _numbers(self, channels: Sequence[int]) -> list[int]:
        return [channel + self._table.first for channel in channels]


DRIVER = Driver(
    "source",
    ScpiSourceSettings,
    through_text(open_scpi_source, lambda settings: settings.dialect),
    "Any SCPI voltage source, described by a table",
)
"""What the registry finds."""
