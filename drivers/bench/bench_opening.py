"""Open, identify and configure a station's instruments, and bring them to their safe state.

If any step fails, the sources that answer are brought to 0 V, the light is switched off, and all instruments are closed
again.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from contextlib import ExitStack
from functools import partial
from pathlib import Path

from photonloop.drivers.bench.bench_clock import BenchClock, WallClock
from photonloop.drivers.bench.bench_device import Bench
from photonloop.drivers.bench.claim import claim
from photonloop.drivers.bench.instrument_handle import InstrumentHandle
from photonloop.drivers.bench.instrument_opening import Opener, close_instrument, open_handle
from photonloop.drivers.bench.make_safe import make_instruments_safe
from photonloop.drivers.bench.wiring import wire
from photonloop.drivers.instrument import Instrument
from photonloop.drivers.registry import find_driver, open_instrument, stated_channels, validate_settings
from photonloop.drivers.station.loading import load_reference
from photonloop.drivers.station.schema import InstrumentTable, LimitsTable, Station
from photonloop.drivers.transports.connection_settings import ConnectionSettings, TransportOpener
from photonloop.drivers.transports.instrument_address import check_address
from photonloop.protocols.config import ConfigError
from photonloop.protocols.errors import DeviceError

log = logging.getLogger(__name__)


def open_lab(reference: str) -> Bench:
    """Open the bench of `station.toml?max_v=5`, the part of a device string after `lab:`; see `open_bench`."""
    path, station, limits = load_reference(reference)
    return open_bench(station, partial(open_table, path.parent), limits=limits)


def open_table(folder: Path, table: InstrumentTable) -> Instrument:
    """Open the instrument of a table in a station file that is in `folder`.

    Raises
    ------
    ConfigError
        The driver does not exist, or a setting is not valid for it.
    DeviceError
        The instrument does not answer, or reports an error.
    """
    link = ConnectionSettings(table.address, name=table.name, library=table.library, timeout_s=table.timeout_s)
    try:
        return open_instrument(table.driver, link, table.settings, folder)
    except ConfigError as error:
        raise ConfigError(f"instrument {table.name}: {error}") from None


def check_table(folder: Path, table: InstrumentTable) -> int:
    """Check driver, settings and address of an instrument; return its number of channels, 0 if the settings do not give
    it.

    No connection is opened.

    Raises
    ------
    ConfigError
        The driver does not exist, or a setting or the address is not valid for it.
    """
    try:
        settings = validate_settings(table.driver, table.settings, folder)
        opener = find_driver(table.driver).open
        if isinstance(opener, TransportOpener):  # drivers of other packages may have other kinds of addresses
            check_address(table.address, library=table.library, socket=opener.needs_socket)
        return stated_channels(settings)
    except ConfigError as error:
        raise ConfigError(f"instrument {table.name}: {error}") from None


def open_bench(
    station: Station,
    opener: Opener,
    *,
    limits: LimitsTable | None = None,
    clock: BenchClock | None = None,
    locks: Path | None = None,
) -> Bench:
    """Open the bench of `station`, with all limits written, all sources at 0 V and the light off.

    Parameters
    ----------
    station
        The station file.
    opener
        Opens its instruments (`open_table`).
    limits
        Limits in the device string, which tighten those of the station file and the hardware.
    clock
        Time of the bench; the wall clock by default.
    locks
        Folder of the locks that claim instruments; by default one for the whole machine.

    Raises
    ------
    ConfigError
        Station file and instruments do not match.
    DeviceError
        "lease" if another program on this machine uses one of the instruments. The first error of an instrument, after
        the sources that answer were brought to 0 V.
    """
    claimed = claim([table.address for table in station.instruments], locks)
    with ExitStack() as undo:
        undo.callback(claimed.release)
        handles: dict[str, InstrumentHandle] = {}
        failed: list[DeviceError] = []
        for table in station.instruments:
            try:
                handles[table.name] = open_handle(table, opener)
            except DeviceError as error:
                failed.append(error)
            else:
                undo.callback(close_instrument, handles[table.name])
        if failed:
            # A bench needs all of them. But heaters may be hot, and no other process will make them safe.
            for error in make_instruments_safe(station, list(handles.values()), limits or LimitsTable(), clock or WallClock()):
                log.warning("%s", error.detail)
            raise failed[0]
        wiring = wire(station, {name: handle.instrument for name, handle in handles.items()}, limits, _identities(handles))
        bench = Bench(wiring, handles, clock, on_close=claimed.release)
        bench.prepare()
        undo.pop_all()
    return bench


def _identities(handles: Mapping[str, InstrumentHandle]) -> dict[str, str]:
    return {name: str(handle.identity) for name, handle in handles.items()}
