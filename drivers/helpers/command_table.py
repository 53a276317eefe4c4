"""What instruments described by a table have in common, whatever they are: the end of the table, how it is spoken, errors."""

from __future__ import annotations

from typing import Protocol

from photonloop.drivers.helpers import scpi
from photonloop.drivers.transports.text import Dialect
from photonloop.drivers.transports.transport import Transport


class Table(Protocol):
    """The keys that every table has; their meaning is beside them in each driver's settings."""

    @property
    def error(self) -> str: ...  # noqa: D102
    @property
    def identity(self) -> str: ...  # noqa: D102
    @property
    def identity_pattern(self) -> str: ...  # noqa: D102
    @property
    def terminator(self) -> str: ...  # noqa: D102
    @property
    def timeout_s(self) -> float: ...  # noqa: D102
    @property
    def baud(self) -> int: ...  # noqa: D102


def dialect_of(table: Table) -> Dialect:
    """Return how the instrument is spoken to."""
    return Dialect(
        write_termination=table.terminator,
        read_termination=table.terminator,
        timeout_s=table.timeout_s,
        id_query=table.identity,
        id_pattern=table.identity_pattern,
        baud=table.baud,
    )


def look(transport: Transport, table: Table) -> None:
    """Empty the queue of errors, or ask for a sign of life where the table has no word for errors."""
    if table.error:
        scpi.raise_complaints(transport, table.error)
    else:
        transport.identity()
