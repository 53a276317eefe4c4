"""One instrument of a station: opened, asked who it is, let go of."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress

from photonloop.drivers.bench.instrument_handle import InstrumentHandle
from photonloop.drivers.instrument import Identity, Instrument
from photonloop.drivers.station.schema import InstrumentTable
from photonloop.protocols.errors import DeviceError

Opener = Callable[[InstrumentTable], Instrument]
"""Opens one instrument as its table in the station file says; raises `DeviceError` or `ConfigError`."""


def open_handle(table: InstrumentTable, opener: Opener) -> InstrumentHandle:
    """Return the way to one instrument, which has said that it is the one that `table` names.

    Raises
    ------
    ConfigError, DeviceError
        As `opener`; "device" for another serial number.
    """
    handle = InstrumentHandle(table.name, opener(table))
    try:
        identity: Identity = handle.query("identify", lambda instrument: instrument.identify())
        check_serial(table, identity)
    except BaseException:
        close_instrument(handle)
        raise
    handle.identity = identity
    return handle


def check_serial(table: InstrumentTable, identity: Identity) -> None:
    """Raise `DeviceError` "device" where another unit answers than the one that `table` names."""
    if table.serial and identity.serial != table.serial:
        raise DeviceError(
            "device", f"{table.name}: {identity} answers at {table.address}, but the station names serial {table.serial}"
        )


def close_instrument(handle: InstrumentHandle) -> None:
    """Close an instrument as it stands, whatever it says."""
    with suppress(DeviceError):
        handle.query("close", lambda instrument: instrument.close())
