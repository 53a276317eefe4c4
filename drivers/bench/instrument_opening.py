"""One instrument of a station: opened, asked who it is, let go of."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress

from photonloop.drivers.bench.instrument_handle import Line
from photonloop.drivers.instrument import Identity, Instrument
from photonloop.drivers.station.schema import InstrumentTable
from photonloop.protocols.errors import DeviceError

Opener = Callable[[InstrumentTable], Instrument]
"""Opens one instrument as its table in the station file says; raises `DeviceError` or `ConfigError`."""


def open_line(table: InstrumentTable, opener: Opener) -> Line:
    """Return the way to one instrument, which has said that it is the one that `table` names.

    Raises
    ------
    ConfigError, DeviceError
        As `opener`; "device" for another serial number.
    """
    line = Line(table.name, opener(table))
    try:
        identity: Identity = line.ask("identify", lambda driver: driver.identify())
        check_serial(table, identity)
    except BaseException:
        let_go(line)
        raise
    line.identity = identity
    return line


def check_serial(table: InstrumentTable, identity: Identity) -> None:
    """Raise `DeviceError` "device" where another unit answers than the one that `table` names."""
    if table.serial and identity.serial != table.serial:
        raise DeviceError(
            "device", f"{table.name}: {identity} answers at {table.address}, but the station names serial {table.serial}"
        )


def let_go(line: Line) -> None:
    """Close an instrument as it stands, whatever it says."""
    with suppress(DeviceError):
        line.ask("close", lambda driver: driver.close())
