"""Open, identify and close one instrument of a station."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress

from photonloop.drivers.bench.instrument_handle import InstrumentHandle
from photonloop.drivers.instrument import Identity, Instrument
from photonloop.drivers.station.schema import InstrumentTable
from photonloop.protocols.errors import DeviceError

Opener = Callable[[InstrumentTable], Instrument]
"""Opens the instrument of a table in the station file; raises `DeviceError` or `ConfigError`."""


def open_handle(table: InstrumentTable, opener: Opener) -> InstrumentHandle:
    """Open one instrument and check that it is the unit that `table` names.

    Raises
    ------
    ConfigError, DeviceError
        As `opener`; "device" if the serial number is another one.
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
    """Raise `DeviceError` "device" if `identity` is not the unit that `table` names."""
    if table.serial and identity.serial != table.serial:
        raise DeviceError(
            "device",
            f"{table.name}: {identity} answers at {table.address}, but the station file requires serial {table.serial}",
        )


def close_instrument(handle: InstrumentHandle) -> None:
    """Close an instrument without changing its outputs; errors are ignored."""
    with suppress(DeviceError):
        handle.query("close", lambda instrument: instrument.close())
