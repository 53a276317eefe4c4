"""A readout that speaks SCPI, described by a small table.

    [instruments.settings]
    channels = 8
    unit = "V"
    full_scale = 10.0
    read = "MEAS:VOLT? (@{channels})"

Not checked against a real unit: by its nature. Whether `read` measures anew each time, rather than returning what was measured
before, is for whoever writes the table to make sure.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Literal, Self

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, model_validator

from photonloop.drivers.helpers import command_templates, scpi
from photonloop.drivers.helpers.channel_checks import check_channels
from photonloop.drivers.helpers.command_table import dialect_of, look
from photonloop.drivers.instrument import Identity
from photonloop.drivers.registry import Driver
from photonloop.drivers.transports.connection_settings import through_text
from photonloop.drivers.transports.text import Dialect
from photonloop.drivers.transports.transport import Transport


class ScpiReadoutSettings(BaseModel):
    """The table. Commands are templates of `photonloop.drivers.helpers.command_templates`; empty ones are not used."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    channels: Annotated[int, Field(ge=1, le=1024)]
    first: Annotated[int, Field(ge=0)] = 1
    """What the instrument calls channel 0."""
    unit: Literal["A", "V", "W"]
    full_scale: Annotated[float, Field(ge=0, allow_inf_nan=False)] = 0.0
    """Reading at which a channel saturates; 0: unknown."""
    read: str
    """Measures {channels}, answered with commas, or {channel}."""
    sample_s: Annotated[float, Field(ge=0, le=60)] = 0.0
    """Time of one reading of all channels."""
    error: str = ""
    identity: str = "*IDN?"
    identity_pattern: str = r"[^,]+,[^,]+,.+"
    on_open: tuple[str, ...] = ()
    """Commands sent after opening and after a restart."""
    joins: bool = True
    """The instrument takes commands joined by ;: and answers joined questions on one line with semicolons between."""
    terminator: Annotated[str, Field(min_length=1, max_length=2)] = "\n"
    timeout_s: Annotated[float, Field(gt=0, le=60)] = 2.0
    baud: Annotated[int, Field(ge=50, le=4_000_000)] = 115200

    @model_validator(mode="after")
    def _fits(self) -> Self:
        command_templates.checked(self.read, {"channel", "channels"}, {"channel", "channels"} if self.channels > 1 else None)
        for plain in (self.error, self.identity, *self.on_open):
            command_templates.checked(plain, set())
        return self

    @property
    def dialect(self) -> Dialect:
        """How the instrument is spoken to."""
        return dialect_of(self)


def open_scpi_readout(transport: Transport, settings: ScpiReadoutSettings) -> ScpiReadout:
    """Return the readout behind `transport` that `settings` describes, its `on_open` commands sent.

    Raises
    ------
    DeviceError
        "transport" where it does not answer, "device" where it complains.
    """
    if settings.error:
        scpi.forget_complaints(transport, settings.error)
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
        """As the table says."""
        return self._table.channels

    @property
    def unit(self) -> str:
        """As the table says."""
        return self._table.unit

    @property
    def full_scale(self) -> float:
        """As the table says [unit]."""
        return self._table.full_scale

    @property
    def sample_s(self) -> float:
        """As the table says [s]."""
        return self._table.sample_s

    def identify(self) -> Identity:
        """Ask who is there."""
        return scpi.identity(self._transport.identity())

    def configure(self) -> None:
        """Send what the table wants sent first."""
        for command in self._table.on_open:
            self._transport.write(command)
        if self._table.on_open and self._table.error:
            scpi.raise_complaints(self._transport, self._table.error)

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
        """Empty the queue of errors, or ask for a sign of life where the table has no word for errors."""
        look(self._transport, self._table)

    def close(self) -> None:
        """Let go of the instrument."""
        self._transport.close()


DRIVER = Driver(
    "readout",
    ScpiReadoutSettings,
    through_text(open_scpi_readout, lambda settings: settings.dialect),
    "Any SCPI readout, described by a table",
)
"""What the registry finds."""
