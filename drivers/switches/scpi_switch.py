"""An optical 1×N switch with plain or SCPI commands, described by a table of commands instead of code.

    [instruments.settings]                        EXFO, for instance:   select = "ROUT1:CHAN {channel}"
    channels = 8                                                        query = "ROUT1:CHAN?"
    select = "ROUT:CLOS (@{channel})"             Thorlabs OSW:         select = "S {channel}"
    query = "ROUT:CLOS?"                                                query = "S?"
    dark = 0                                                            termination = "\\r\\n"
    error = "SYST:ERR?"

Every selection is read back with `query`, so a lost command is detected. `check` queries it too: a restart, or a switch
that was turned by hand, is an error. The settle time of the switch is `settle_s` of the table [inputs].

Not checked against a real unit, since the table describes the unit.
"""

from __future__ import annotations

import re
from typing import Annotated, NoReturn, Self

from pydantic import Field, model_validator

from photonloop.drivers.helpers import command_templates, scpi
from photonloop.drivers.helpers.channel_checks import check_channels
from photonloop.drivers.helpers.command_table import CommandTable, check_instrument, forget_errors, send_settings
from photonloop.drivers.instrument import Identity
from photonloop.drivers.registry import Driver
from photonloop.drivers.transports.connection_settings import through_text
from photonloop.drivers.transports.interfaces import Transport
from photonloop.protocols.errors import DeviceError

_POSITION = re.compile(r"\(?@?\s*\+?(\d+)\s*\)?")
"""Answer to `query`: 3, +3 or (@3)."""


class ScpiSwitchSettings(CommandTable):
    """The table: the keys below and those of `CommandTable`."""

    channels: Annotated[int, Field(ge=1, le=1024)]
    first: Annotated[int, Field(ge=0)] = 1
    """The instrument's number for channel 0."""
    select: str
    """Directs the light to {channel}."""
    query: str
    """Queries the selected channel, answered with its number: 3 or (@3)."""
    dark: Annotated[int, Field(ge=0)] | None = None
    """The instrument's number for the position without light; absent if there is none."""

    @model_validator(mode="after")
    def _is_consistent(self) -> Self:
        command_templates.check_template(self.select, {"channel"}, {"channel"})
        command_templates.check_template(self.query, set())
        if self.dark is not None and self.first <= self.dark < self.first + self.channels:
            raise ValueError(f"dark is {self.dark}, which is the number of channel {self.dark - self.first}")
        return self


def open_scpi_switch(transport: Transport, settings: ScpiSwitchSettings) -> ScpiSwitch:
    """Return the switch behind `transport` that `settings` describes, after sending its `on_open` commands.

    Raises
    ------
    DeviceError
        "transport" if it does not answer, "device" if it reports an error.
    """
    forget_errors(transport, settings)
    switch = ScpiSwitch(transport, settings)
    switch.configure()
    return switch


class ScpiSwitch:
    """An `OpticalSwitch`. Made by `open_scpi_switch`."""

    def __init__(self, transport: Transport, settings: ScpiSwitchSettings) -> None:
        self._transport = transport
        self._table = settings
        self._position: int | None = None
        """The instrument's number of the position that was selected last; None if none was."""
        transport.on_reconnect(self._configure_and_raise)

    @property
    def channels(self) -> int:
        """Number of channels, from the table."""
        return self._table.channels

    @property
    def has_dark(self) -> bool:
        """Whether the table has a dark position."""
        return self._table.dark is not None

    def identify(self) -> Identity:
        """Query the identity."""
        return scpi.identity(self._transport.identity())

    def configure(self) -> None:
        """Send the `on_open` commands."""
        send_settings(self._transport, self._table, self._table.on_open)

    def select(self, channel: int | None) -> None:
        """Direct the light to `channel`, or block it, and confirm the position."""
        position = self._position_of(channel)
        self._position = None
        for last in (False, True):  # repeated once, since a command without an answer may be lost
            send_settings(self._transport, self._table, [self._table.select.format(channel=position)])
            found = self._query_position()
            if found == position:
                break
            if last:
                raise DeviceError(
                    "device",
                    f"{self._transport.name} was switched to position {position}, but reports position {found}",
                    outcome="unknown",
                )
        self._position = position

    def selected(self) -> int | None:
        """Return the channel that the instrument reports."""
        position = self._query_position()
        if position == self._table.dark:
            return None
        channel = position - self._table.first
        if not 0 <= channel < self.channels:
            raise DeviceError("device", f"{self._transport.name} reports position {position}, which its table does not have")
        return channel

    def check(self) -> None:
        """Raise the errors in the queue, and compare the position with the one that was selected last."""
        if self._table.error:
            check_instrument(self._transport, self._table)
        position = self._query_position()
        if self._position is not None and position != self._position:
            selected, self._position = self._position, None
            raise DeviceError(
                "device",
                f"{self._transport.name} is at position {position} although position {selected} was selected, so it was "
                "restarted or set by someone else",
                retryable=True,
                outcome="unknown",
            )

    def close(self) -> None:
        """Close the transport; the position stays as it is."""
        self._transport.close()

    def _position_of(self, channel: int | None) -> int:
        """Return the instrument's number of `channel`, or of the dark position."""
        if channel is not None:
            check_channels(self._transport.name, [channel], self.channels)
            return channel + self._table.first
        if self._table.dark is None:
            raise DeviceError("bad_request", f"{self._transport.name} has no dark position: its table lacks the key dark")
        return self._table.dark

    def _query_position(self) -> int:
        return self._transport.query(self._table.query, _parse_position)

    def _configure_and_raise(self) -> NoReturn:
        self._position = None
        self.configure()
        raise DeviceError(
            "device",
            f"{self._transport.name} was lost and reconnected: its channel must be selected again",
            retryable=True,
            outcome="unknown",
        )


def _parse_position(lines: list[str]) -> int:
    match = _POSITION.fullmatch(lines[0].strip())
    if match is None:
        raise ValueError(f"{lines[0]!r} is not the number of a position")
    return int(match[1])


DRIVER = Driver(
    "switch",
    ScpiSwitchSettings,
    through_text(open_scpi_switch, lambda settings: settings.dialect),
    "Any optical 1×N switch with text commands, described by a table",
)
"""Entry of the driver registry."""
