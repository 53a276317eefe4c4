"""What instruments described by a table of commands share: the common keys, how to open them, how to send settings."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from photonloop.drivers.helpers import scpi
from photonloop.drivers.helpers.command_templates import check_template
from photonloop.drivers.transports.dialect import Dialect
from photonloop.drivers.transports.interfaces import Transport


class CommandTable(BaseModel):
    """The keys that every table has. Commands are templates of `command_templates`; empty ones are not used."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    error: str = ""
    """Query of the oldest error: SYST:ERR?, answered `0,"No error"` or `+0,"No error"` if there is none."""
    id_query: str = "*IDN?"
    """Query that changes nothing and whose answer never changes."""
    id_pattern: str = r"[^,]+,[^,]+,.+"
    """Regular expression that the whole answer to `id_query` matches."""
    on_open: tuple[str, ...] = ()
    """Commands sent after opening and after a restart, before limits."""
    joins: bool = True
    """The instrument takes commands joined by ;: and answers joined queries on one line, separated by semicolons."""
    termination: Annotated[str, Field(min_length=1, max_length=2)] = "\n"
    """End of every line, in both directions."""
    timeout_s: Annotated[float, Field(gt=0, le=60)] = 2.0
    """Time allowed for one answer."""
    baud: Annotated[int, Field(ge=50, le=4_000_000)] = 115200
    """Baud rate, of serial ports only."""

    @model_validator(mode="after")
    def _common_commands_are_plain(self) -> Self:
        for command in (self.error, self.id_query, *self.on_open):
            check_template(command, set())
        return self

    @property
    def dialect(self) -> Dialect:
        """Line ends, timeout and identification for the transport."""
        return Dialect(
            write_termination=self.termination,
            read_termination=self.termination,
            timeout_s=self.timeout_s,
            id_query=self.id_query,
            id_pattern=self.id_pattern,
            baud=self.baud,
        )


def forget_errors(transport: Transport, table: CommandTable) -> None:
    """Empty the instrument's error queue, if it has one, of errors from before it was opened."""
    if table.error:
        scpi.read_errors(transport, table.error)


def send_settings(transport: Transport, table: CommandTable, commands: Sequence[str]) -> None:
    """Send settings, then query errors: in one message if the instrument joins commands, else one by one.

    Raises
    ------
    DeviceError
        "device" if the instrument reports an error.
    """
    if not commands:
        return
    if table.joins and table.error:
        scpi.set_and_check(transport, commands, table.error)
        return
    for command in [scpi.joined(commands)] if table.joins and len(commands) > 1 else commands:
        transport.write(command)
    if table.error:
        scpi.raise_errors(transport, table.error)


def check_instrument(transport: Transport, table: CommandTable) -> None:
    """Raise the errors in the instrument's queue; without an error query, make sure that the instrument answers."""
    if table.error:
        scpi.raise_errors(transport, table.error)
    else:
        transport.identity()
