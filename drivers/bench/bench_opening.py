"""From a station to a bench under arms: claim, open, identify, wire, arm, safe.

Where any of it fails, all is closed again; before that the sources that answer are brought to 0 V.
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
from photonloop.drivers.bench.make_safe import make_sources_safe
from photonloop.drivers.bench.wiring import wire
from photonloop.drivers.instrument import Instrument
from photonloop.drivers.registry import find_driver, open_instrument, stated_channels, validate_settings
from photonloop.drivers.station.schema import InstrumentTable, LimitsTable, Station, load_reference
from photonloop.drivers.transports.connection_settings import ConnectionSettings, Through
from photonloop.drivers.transports.instrument_address import check_address
from photonloop.protocols.config import ConfigError
from photonloop.protocols.errors import DeviceError

log = logging.getLogger(__name__)


def open_lab(reference: str) -> Bench:
    """Return the bench of `station.toml?max_v=5`: what follows `lab:` in a device string. Raises as `open_bench` does."""
    path, station, string_limits = load_reference(reference)
    return open_bench(station, partial(open_table, path.parent), limits=string_limits)


def open_table(folder: Path, table: InstrumentTable) -> Instrument:
    """Return the instrument of a table in a station file that lies in `folder`.

    Raises
    ------
    ConfigError
        There is no such driver, or a setting does not fit it.
    DeviceError
        What the instrument says, or that it says nothing.
    """
    link = ConnectionSettings(table.address, name=table.name, library=table.library, timeout_s=table.timeout_s)
    try:
        return open_instrument(table.driver, link, table.settings, folder)
    except ConfigError as error:
        raise ConfigError(f"instrument {table.name}: {error}") from None


def check_table(folder: Path, table: InstrumentTable) -> int:
    """Return how many channels the settings of an instrument state, 0 where they do not; touches no instrument.

    Raises
    ------
    ConfigError
        There is no such driver, or a setting or the address does not fit it.
    """
    try:
        settings = validate_settings(table.driver, table.settings, folder)
        drives_between = find_driver(table.driver).open
        if isinstance(drives_between, Through):  # drivers of others may have addresses of their own
            check_address(table.address, library=table.library, socket=drives_between.needs_socket)
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
    """Return the bench of `station`, armed with all limits and standing at the safe drive.

    Parameters
    ----------
    station
        What is where.
    opener
        Opens its instruments (`open_table`).
    limits
        Limits in the device string, which tighten those of the station file and the hardware.
    clock
        Time for the bench; a test brings its own.
    locks
        Folder of the claims on instruments; one for the whole machine by default.

    Raises
    ------
    ConfigError
        Station and instruments do not fit one another.
    DeviceError
        "lease" where another program on this machine has one of the instruments; whatever an instrument says, after the
        sources that answer were brought to 0 V.
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
            # There is no bench without all of them, but heaters may be hot, and nobody else will see to them.
            for error in make_sources_safe(station, handles.values(), limits or LimitsTable(), clock or WallClock()):
                log.warning("%s", error.detail)
            raise failed[0]
        wiring = wire(station, {name: handle.instrument for name, handle in handles.items()}, limits, _told(handles))
        bench = Bench(wiring, handles, clock, on_close=claimed.release)
        bench.prepare()
        undo.pop_all()
    return bench


def _told(handles: Mapping[str, InstrumentHandle]) -> dict[str, str]:
    return {name: str(handle.identity) for name, handle in handles.items()}
