"""QDevil QDAC-II: 24 voltage channels of ±10 V, SCPI over a socket or USB serial.

Channel 0 is channel 1 of the front panel. All channels of a call are set in one message, together with the error query.
The instrument's only limits are its range (high ±10 V, low ±2 V) and its slew rate, which `set_limits` writes.

Every setting is read back together with the setpoints of all other channels, and `check` reads them too. So the next
call detects that the instrument was restarted or set by someone else. With `lists = true` the class is `Qdac2WithLists`
of `qdac2_lists`.

Sources: the driver in QCoDeS contrib drivers (github.com/QCoDeS/Qcodes_contrib_drivers, QDAC2.py).
Not checked against a real unit: that joined queries are answered on one line, separated by semicolons; the length of a
message that the instrument takes (24 channels need 600 characters); the span of the low range.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

from photonloop.drivers.helpers import scpi
from photonloop.drivers.registry import Driver
from photonloop.drivers.sources.qdac2_commands import channel_list, fixed_mode_commands, split_answers
from photonloop.drivers.sources.qdac2_lists import Qdac2WithLists
from photonloop.drivers.sources.qdac2_source import ERROR_QUERY, Qdac2
from photonloop.drivers.transports.connection_settings import through_text
from photonloop.drivers.transports.dialect import Dialect
from photonloop.drivers.transports.interfaces import Transport

DIALECT = Dialect(timeout_s=1.0, baud=921600)
"""Timeout and baud rate of the instrument."""

_RANGE_V = {"high": 10.0, "low": 2.0}


class Qdac2Settings(BaseModel):
    """Settings in a station file."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    channels: Annotated[int, Field(ge=1, le=24)] = 24
    range: Literal["high", "low"] = "high"
    """±10 V or ±2 V."""
    lists: bool = False
    """Load the settings of an evaluation as a list and step through it by triggers (docs/decisions/0009)."""


def open_qdac2(transport: Transport, settings: Qdac2Settings) -> Qdac2:
    """Return the instrument behind `transport`, with every channel in fixed mode and in the range of the settings.

    Raises
    ------
    DeviceError
        "transport" if it does not answer, "device" if it reports an error.
    """
    scpi.read_errors(transport, ERROR_QUERY)  # discards errors from before it was opened
    count = settings.channels
    query = scpi.joined(f"sour{n}:rang?" for n in range(1, count + 1))
    ranges = transport.query(query, lambda lines: split_answers(lines, count))
    commands = fixed_mode_commands(range(count))
    # A range is written only if it differs: switching it under load makes the output jump.
    commands += [
        f"sour{n}:rang {settings.range}" for n, now in enumerate(ranges, 1) if not now.lower().startswith(settings.range)
    ]
    scpi.set_and_check(transport, commands, ERROR_QUERY)
    held = transport.query(f"sour:volt? {channel_list(range(count))}", lambda lines: scpi.numbers(lines[0], count))
    source_class = Qdac2WithLists if settings.lists else Qdac2
    return source_class(transport, _RANGE_V[settings.range], held)


DRIVER = Driver(
    "source", Qdac2Settings, through_text(open_qdac2, DIALECT), "QDevil QDAC-II, 24 channels of ±10 V, socket or USB serial"
)
"""Entry of the driver registry."""
