"""A readout that speaks SCPI, described by a table of commands instead of code.

    [instruments.settings]
    channels = 8
    unit = "V"
    full_scale = 10.0
    read = "MEAS:VOLT? (@{channels})"

Not checked against a real unit, since the table describes the unit. The author of the table must make sure that `read`
takes a new measurement each time and does not return an earlier one.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Literal, Self

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, model_validator

from photonloop.drivers.helpers import command_templates, scpi
from photonloop.drivers.helpers.channel_checks import check_channels
from photonloop.drivers.helpers.command_table import CommandTable, check_instrument, forget_errors
from photonloop.drivers.instrument import Identity
from photonloop.drivers.registry import Driver
from photonloop.drivers.transports.connection_settings import through_text
from photonloop.drivers.transports.interfaces import Transport


class ScpiReadoutSettings(CommandTable):
    """The table: the keys below and those of `CommandTable`."""

    channels: Annotated[int, Field(ge=1, le=1024)]
    first: Annotated[int, Field(ge=0)] = 1
    """The instrument's number for channel 0."""
    unit: Literal["A", "V", "W"]
    full_scale: Annotated[float, Field(ge=0, allow_inf_nan=False)] = 0.0
    """Reading at which a channel saturates; 0: unknown."""
    read: str
    """Measures {channels}, answered with commas, or {channel}."""
    sample_s: Annotated[float, Field(ge=0, le=60)] = 0.0
    """Time of one reading of all channels."""

    @model_validator(mode="after")
    def _is_consistent(self) -> Self:
        command_templates.check_template(
            self.read, {"channel", "channels"}, {"channel", "channels"} if self.channels > 1 else None
        )
        return self


def open_scpi_readout(transport: Transport, settings: ScpiReadoutSettings) -> ScpiReadout:
    """Return the readout behind `transport` that `settings` describes, after sending its `on_open` commands.

    Raises
    ------
    DeviceError
        "transport" if it does not answer, "device" if it reports an error.
    """
    forget_errors(transport, settings)
    readout = ScpiReadout(transport, settings)
    readout.configure()
    return readout


class ScpiReadout:
    """A `Readout`. Made by `open_scpi_readout`."""

    def __init__(self, transport: Transport, settings: ScpiReadoutSettings) -> None:
        self._transport = transport
        self._table = settings
        transport.on_reconnect(self.configure)

    @property
    def channels(self) -> int:
        """Number of channels, from the table."""
        return self._table.channels

    @property
    def unit(self) -> str:
        """Unit of readings, from the table."""
        return self._table.unit

    @property
    def full_scale(self) -> float:
        """Reading at which a channel saturates [unit], from the table."""
        return self._table.full_scale

    @property
    def sample_s(self) -> float:
        """Time of one reading of all channels [s], from the table."""
        return self._table.sample_s

    def identify(self) -> Identity:
        """Query the identity."""
        return scpi.identity(self._transport.identity())

    def configure(self) -> None:
        """Send the `on_open` commands."""
        for command in self._table.on_open:
            self._transport.write(command)
        if self._table.on_open and self._table.error:
            scpi.raise_errors(self._transport, self._table.error)

    def read(self, channels: Sequence[int]) -> NDArray[np.float64]:
        """Measure now [unit], shape (channels,)."""
        check_channels(self._transport.name, channels, self.channels)
        if not channels:
            return np.zeros(0)
        numbers = [channel + self._table.first for channel in channels]
        return command_templates.query_numbers(
            self._transport, self._table.read, numbers, joins=self._table.joins, wait_s=self._table.sample_s
        )

    def check(self) -> None:
        """Raise the errors in the queue; without an error query, make sure that the instrument answers."""
        check_instrument(self._transport, self._table)

    def close(self) -> None:
        """Close the transport."""
        self._transport.close()


DRIVER = Driver(
    "readout",
    ScpiReadoutSettings,
    through_text(open_scpi_readout, lambda settings: settings.dialect),
    "Any SCPI readout, described by a table",
)
"""Entry of the driver registry."""
