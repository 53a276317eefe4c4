"""A multichannel voltage source that speaks SCPI, described by a table of commands instead of code.

    [instruments.settings]                          or   [instruments.settings]
    channels = 16                                        table = "my-source.toml"
    max_v = 10.0
    set = "VOLT {volts},(@{channel})"
    query_volts = "VOLT? (@{channels})"

A key that the table leaves out is not used. Without `error` the driver cannot know whether a setting was accepted.
Without `query_volts` it cannot detect that the instrument was restarted. Give both if the instrument supports them.

Not checked against a real unit, since the table describes the unit. Try a new table with `photonloop check` and a
resistor first.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated, NoReturn, Self

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, model_validator

from photonloop.drivers.helpers import command_templates, scpi
from photonloop.drivers.helpers.channel_checks import (
    check_channels,
    check_volts,
    send_all,
    slowed,
    tightened,
    try_until_confirmed,
)
from photonloop.drivers.helpers.command_table import CommandTable, check_instrument, forget_errors, send_settings
from photonloop.drivers.instrument import ChannelLimits, Identity
from photonloop.drivers.registry import Driver
from photonloop.drivers.transports.connection_settings import through_text
from photonloop.drivers.transports.interfaces import Transport
from photonloop.protocols.errors import DeviceError

_RELATIVE_TOLERANCE = 1e-3
"""Relative to the voltage range. A setpoint that reads back further away was not set by this driver. The tolerance is
never below one step of the converter."""

_Finite = Annotated[float, Field(allow_inf_nan=False)]
_NotNegative = Annotated[float, Field(ge=0, allow_inf_nan=False)]


class ScpiSourceSettings(CommandTable):
    """The table: the keys below and those of `CommandTable`."""

    channels: Annotated[int, Field(ge=1, le=1024)]
    first: Annotated[int, Field(ge=0)] = 1
    """The instrument's number for channel 0."""
    min_v: _Finite = 0.0
    max_v: _Finite
    max_a: _NotNegative = 0.0
    bits: Annotated[int, Field(ge=0, le=32)] = 0
    slew_v_per_s: _NotNegative = 0.0
    """How fast the instrument itself moves its outputs; 0: at once, or unknown."""
    set: str
    """Sets {volts} of {channel}."""
    query_volts: str = ""
    """Queries the setpoints of {channels}, or of {channel}."""
    measure_volts: str = ""
    """Queries the measured voltages of {channels}, or of {channel}; needs `query_volts` as well."""
    query_amps: str = ""
    """Queries the measured currents of {channels}, or of {channel}."""
    limit_volts: str = ""
    """Limits {channel} to {volts} in the instrument."""
    limit_amps: str = ""
    """Limits {channel} to {amps} in the instrument."""
    limit_slew: str = ""
    """Limits the slew rate of {channel} to {slew} [V/s] in the instrument (see `channel_checks.slowed`)."""

    @model_validator(mode="after")
    def _is_consistent(self) -> Self:
        if not self.min_v < self.max_v:
            raise ValueError(f"max_v {self.max_v:g} V is not above min_v {self.min_v:g} V")
        command_templates.check_template(self.set, {"channel", "volts"}, {"volts"})
        if self.channels > 1:
            command_templates.check_template(self.set, {"channel", "volts"}, {"channel"})
        needed = {"channel", "channels"} if self.channels > 1 else None
        if self.measure_volts and not self.query_volts:
            raise ValueError("measure_volts needs query_volts: the driver compares setpoints, not measured voltages")
        for query in filter(None, (self.query_volts, self.measure_volts, self.query_amps)):
            command_templates.check_template(query, {"channel", "channels"}, needed)
        for placeholder, template in (("volts", self.limit_volts), ("amps", self.limit_amps), ("slew", self.limit_slew)):
            if template:
                command_templates.check_template(template, {"channel", placeholder}, {placeholder})
        return self


def open_scpi_source(transport: Transport, settings: ScpiSourceSettings) -> ScpiSource:
    """Return the source behind `transport` that `settings` describes, after sending its `on_open` commands.

    Its class has the capabilities that the table has commands for: `ReadsVolts` with `query_volts`, `MeasuresVolts`
    with `measure_volts`, `ReadsAmps` with `query_amps`.

    Raises
    ------
    DeviceError
        "transport" if it does not answer, "device" if it reports an error.
    """
    forget_errors(transport, settings)
    capabilities = bool(settings.query_volts), bool(settings.measure_volts), bool(settings.query_amps)
    source = _SOURCE_CLASSES[capabilities](transport, settings)
    source.initialize()
    return source


class ScpiSource:
    """A `DriveSource` that reads back neither voltages nor currents. Made by `open_scpi_source`."""

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
        lsb = 1 / (2**settings.bits - 1) if settings.bits else 0.0
        self._tolerance_v = max(_RELATIVE_TOLERANCE, lsb) * (settings.max_v - settings.min_v)
        transport.on_reconnect(lambda: self._restore_and_raise("was lost and reconnected"))

    @property
    def channels(self) -> int:
        """Number of channels, from the table."""
        return self._table.channels

    def initialize(self) -> None:
        """Send the `on_open` commands and read the setpoints of all channels."""
        send_settings(self._transport, self._table, self._table.on_open)
        if self._table.query_volts:
            self._held = self._read_setpoints()

    def identify(self) -> Identity:
        """Query the identity."""
        return scpi.identity(self._transport.identity())

    def limits(self, channel: int) -> ChannelLimits:
        """Return the limits of `channel`."""
        check_channels(self._transport.name, [channel], self.channels)
        return self._limits[channel]

    def set_limits(self, limits: Mapping[int, ChannelLimits]) -> None:
        """Write the limits that the table has commands for; this driver checks voltages as well."""
        check_channels(self._transport.name, tuple(limits), self.channels)
        tight = {c: tightened(self._transport.name, c, self._hardware, limit) for c, limit in limits.items()}
        if self._table.limit_slew:
            tight = {c: slowed(limit, limits[c].slew_v_per_s) for c, limit in tight.items()}
        self._write_limits(tight)
        self._written_limits.update(tight)
        for channel, limit in tight.items():
            self._limits[channel] = limit

    def set_volts(self, volts: Mapping[int, float]) -> None:
        """Set the named channels, in one message if the instrument joins commands."""
        check_volts(self._transport.name, volts, self._limits)
        if volts:
            self._set(volts)

    def check(self) -> None:
        """Raise the errors in the queue, and compare every setpoint with the held drive, as far as the table allows."""
        if self._table.error or not self._table.query_volts:
            check_instrument(self._transport, self._table)
        if self._table.query_volts:
            self._compare(self._read_setpoints())

    def safe(self) -> None:
        """Set every channel to 0 V, or to the voltage nearest to it.

        Tries all channels at once, the same again, one by one, and at last without waiting for replies.
        """
        zero_v = min(max(0.0, self._table.min_v), self._table.max_v)
        zeros = dict.fromkeys(range(self.channels), zero_v)

        def all_at_once() -> None:
            self._set(zeros)

        def one_by_one() -> None:
            send_all([{channel: zero_v} for channel in zeros], self._set)

        last_resort = command_templates.set_commands(self._table.set, self._numbers(list(zeros)), list(zeros.values()), "volts")
        try_until_confirmed(self._transport, [all_at_once, all_at_once, one_by_one], last_resort, "0 V")

    def close(self) -> None:
        """Close the transport; the outputs stay as they are."""
        self._transport.close()

    def _set(self, volts: Mapping[int, float]) -> None:
        table = self._table
        expected = self._held.copy()
        expected[list(volts)] = list(volts.values())
        commands = command_templates.set_commands(table.set, self._numbers(list(volts)), list(volts.values()), "volts")
        if not (table.joins and table.error and table.query_volts):
            send_settings(self._transport, table, commands)
            self._held = expected
            if table.query_volts:
                self._compare(self._read_setpoints())
            return
        # Settings, setpoints of all channels and errors: all in one message.
        queries = command_templates.query_commands(table.query_volts, self._numbers(range(self.channels)))
        parts = command_templates.answer_count(table.query_volts, self.channels)

        def parse(lines: list[str]) -> tuple[NDArray[np.float64], str]:
            *setpoints, error = lines[0].split(";", parts)
            joined = ";".join(setpoints)
            return command_templates.parse_numbers(table.query_volts, joined, self.channels), scpi.parse_error(error)

        setpoints, error = self._transport.query(scpi.joined([*commands, *queries, table.error]), parse, mutates=True)
        if error:
            self._held = setpoints
            errors = "; ".join([error, *scpi.read_errors(self._transport, table.error)])
            raise DeviceError(
                "device", f"{self._transport.name} reported an error when voltages were set: {errors}", outcome="unknown"
            )
        self._held = expected
        self._compare(setpoints)

    def _read_setpoints(self) -> NDArray[np.float64]:
        """Return the setpoints of all channels [V], shape (channels,)."""
        return self._read(self._table.query_volts, range(self.channels))

    def _read(self, template: str, channels: Sequence[int]) -> NDArray[np.float64]:
        check_channels(self._transport.name, channels, self.channels)
        return command_templates.query_numbers(self._transport, template, self._numbers(channels), joins=self._table.joins)

    def _compare(self, setpoints: NDArray[np.float64]) -> None:
        """Raise if a channel's setpoint is not the one that was set last."""
        differs = np.abs(setpoints - self._held) > self._tolerance_v
        if differs.any():
            channel = int(np.argmax(differs))
            self._restore_and_raise(
                f"holds channel {channel} at {setpoints[channel]:.6g} V although it was set to {self._held[channel]:.6g} V, "
                "so it was restarted or set by someone else",
                channel,
            )

    def _write_limits(self, limits: Mapping[int, ChannelLimits]) -> None:
        table, numbers = self._table, self._numbers(list(limits))
        commands: list[str] = []
        for template, placeholder, values in (
            (table.limit_volts, "volts", [limit.max_v for limit in limits.values()]),
            (table.limit_amps, "amps", [limit.max_a for limit in limits.values()]),
            (table.limit_slew, "slew", [limit.slew_v_per_s for limit in limits.values()]),
        ):
            limited = [(number, value) for number, value in zip(numbers, values, strict=True) if value > 0]
            if template and limited:
                commands += command_templates.set_commands(
                    template, [n for n, _ in limited], [v for _, v in limited], placeholder
                )
        send_settings(self._transport, table, commands)

    def _restore_and_raise(self, reason: str, channel: int | None = None) -> NoReturn:
        """Write the limits again after a restart, adopt the instrument's setpoints, and raise."""
        send_settings(self._transport, self._table, self._table.on_open)
        self._write_limits(self._written_limits)
        self._held = self._read_setpoints() if self._table.query_volts else np.zeros(self.channels)
        raise DeviceError(
            "device",
            f"{self._transport.name} {reason}: its limits have been written again, every channel must be set again",
            retryable=True,
            outcome="unknown",
            channel=channel,
        )

    def _numbers(self, channels: Sequence[int]) -> list[int]:
        return [channel + self._table.first for channel in channels]


class ScpiSourceWithVolts(ScpiSource):
    """A `ScpiSource` that `ReadsVolts`: its setpoints."""

    def read_volts(self, channels: Sequence[int]) -> NDArray[np.float64]:
        """Return the setpoints [V], shape (channels,)."""
        return self._read(self._table.query_volts, channels)


class ScpiSourceWithAmps(ScpiSource):
    """A `ScpiSource` that `ReadsAmps`."""

    def read_amps(self, channels: Sequence[int]) -> NDArray[np.float64]:
        """Return the measured currents [A], shape (channels,)."""
        return self._read(self._table.query_amps, channels)


class ScpiSourceWithVoltsAndAmps(ScpiSourceWithVolts, ScpiSourceWithAmps):
    """A `ScpiSource` that `ReadsVolts` (its setpoints) and `ReadsAmps`."""


class ScpiSourceThatMeasuresVolts(ScpiSourceWithVolts):
    """A `ScpiSource` that `ReadsVolts` (its setpoints) and `MeasuresVolts`."""

    def measure_volts(self, channels: Sequence[int]) -> NDArray[np.float64]:
        """Return the measured voltages [V], shape (channels,)."""
        return self._read(self._table.measure_volts, channels)


class ScpiSourceThatMeasures(ScpiSourceThatMeasuresVolts, ScpiSourceWithAmps):
    """A `ScpiSource` that `ReadsVolts` (its setpoints), `MeasuresVolts` and `ReadsAmps`."""


_SOURCE_CLASSES: dict[tuple[bool, bool, bool], type[ScpiSource]] = {
    (False, False, False): ScpiSource,
    (True, False, False): ScpiSourceWithVolts,
    (False, False, True): ScpiSourceWithAmps,
    (True, False, True): ScpiSourceWithVoltsAndAmps,
    (True, True, False): ScpiSourceThatMeasuresVolts,
    (True, True, True): ScpiSourceThatMeasures,
}
"""Classes by (reads setpoints, measures voltages, measures currents)."""

DRIVER = Driver(
    "source",
    ScpiSourceSettings,
    through_text(open_scpi_source, lambda settings: settings.dialect),
    "Any SCPI voltage source, described by a table",
)
"""Entry of the driver registry."""
