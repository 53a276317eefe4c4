"""Make the instruments of a station safe without a bench, each independently of the others.

    heaters, modulators, laser ── one thread each ──▶ open ─▶ identify ─▶ 0 V (ramped) or off ─▶ close

A bench needs all its instruments before it drives any. After a server has died, this is not wanted: every heater that
can be reached is brought to 0 V at once, and an instrument that does not answer delays no other. Readouts are not
opened.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Collection, Iterable
from pathlib import Path

import numpy as np

from photonloop.drivers.bench.bench_clock import BenchClock, WallClock
from photonloop.drivers.bench.claim import claim
from photonloop.drivers.bench.instrument_handle import InstrumentError, InstrumentHandle
from photonloop.drivers.bench.instrument_opening import Opener, check_serial, close_instrument
from photonloop.drivers.bench.output_channels import OutputChannels, make_outputs_safe
from photonloop.drivers.instrument import DriveSource, Laser
from photonloop.drivers.station.schema import Channel, InstrumentTable, LimitsTable, Station
from photonloop.protocols.config import ConfigError
from photonloop.protocols.errors import DeviceError

log = logging.getLogger(__name__)

ATTEMPTS = 3
"""Attempts to open an instrument and make it safe; the first one often fails after a lost connection."""


def make_safe(
    station: Station,
    opener: Opener,
    *,
    limits: LimitsTable | None = None,
    clock: BenchClock | None = None,
    locks: Path | None = None,
) -> list[str]:
    """Bring every source of `station` that answers to 0 V and switch the light off.

    Parameters are those of `photonloop.drivers.bench.bench_opening.open_bench`.

    Returns
    -------
    list of str
        One sentence per instrument that could not be made safe, also if another program on this machine uses it or it
        does not match the station file. Nothing is raised.
    """
    limits, clock = limits or LimitsTable(), clock or WallClock()
    problems: dict[str, str] = {}

    def run(table: InstrumentTable) -> None:
        try:
            _make_safe(station, table, opener, limits, clock, locks)
        except (DeviceError, ConfigError) as error:
            problems[table.name] = str(error)
        except Exception as error:
            log.exception("making %s safe", table.name)
            problems[table.name] = f"{table.name}: {type(error).__name__}: {error}"

    driven = [table for table in station.instruments if table.name in _driven(station)]
    # One thread each: a driver that hangs delays no other instrument, and all ramps run at the same time.
    threads = [threading.Thread(target=run, args=(table,), name=f"safe {table.name}", daemon=True) for table in driven]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return [problems[table.name] for table in driven if table.name in problems]


def make_instruments_safe(
    station: Station, handles: Collection[InstrumentHandle], limits: LimitsTable, clock: BenchClock
) -> list[InstrumentError]:
    """Bring sources among `handles`, opened and identified, to 0 V, and switch lasers off.

    Returns one error per instrument that failed.
    """
    sources = [handle for handle in handles if isinstance(handle.instrument, DriveSource)]
    errors = make_outputs_safe([output for handle in sources for output in _outputs(station, handle, limits)], clock)
    for handle in handles:
        if isinstance(handle.instrument, Laser):
            try:
                handle.mutate("off", lambda laser: laser.off())
            except InstrumentError as error:
                errors.append(error)
    return errors


def _make_safe(
    station: Station, table: InstrumentTable, opener: Opener, limits: LimitsTable, clock: BenchClock, locks: Path | None
) -> None:
    """Open one instrument and make it safe.

    Raises
    ------
    ConfigError, DeviceError
        The error of the last attempt.
    """
    claimed = claim([table.address], locks)
    try:
        for attempt in range(1, ATTEMPTS + 1):
            try:
                handle = InstrumentHandle(table.name, opener(table))
                try:
                    _make_instrument_safe(station, table, handle, limits, clock)
                finally:
                    close_instrument(handle)
            except DeviceError:
                if attempt == ATTEMPTS:
                    raise
            else:
                return
    finally:
        claimed.release()


def _make_instrument_safe(
    station: Station, table: InstrumentTable, handle: InstrumentHandle, limits: LimitsTable, clock: BenchClock
) -> None:
    try:
        identity = handle.query("identify", lambda instrument: instrument.identify())
    except InstrumentError as error:
        # An instrument at this address that does not report its identity may still take commands, and 0 V does no harm.
        log.warning("%s", error.detail)
    else:
        check_serial(table, identity)
    if isinstance(handle.instrument, DriveSource | Laser):
        for error in make_instruments_safe(station, [handle], limits, clock):
            raise error
    else:
        raise DeviceError("bad_request", f"{table.name} is neither a source nor a laser and cannot be made safe")


def _driven(station: Station) -> set[str]:
    """Return the names of all sources and lasers."""
    channels = [*station.heater_channels(), *station.modulators()]
    return {channel.instrument for channel in channels} | ({station.laser.instrument} if station.laser is not None else set())


def _outputs(station: Station, handle: InstrumentHandle, limits: LimitsTable) -> list[OutputChannels]:
    """Return the channels of a source that the station uses: heaters within the slew limits, and modulators."""
    slews_v_per_s = [table.slew_v_per_s for table in (station.limits, limits) if table.slew_v_per_s]
    found = (_output(handle, station.heater_channels(), slews_v_per_s), _output(handle, station.modulators(), []))
    return [output for output in found if output is not None]


def _output(handle: InstrumentHandle, channels: Iterable[Channel], slews_v_per_s: list[float]) -> OutputChannels | None:
    source = handle.instrument
    # Channels that do not exist are reported when the bench is opened. Here the others are brought to 0 V.
    numbers = [channel.number for channel in channels if channel.instrument == handle.name and channel.number < source.channels]
    if not numbers:
        return None
    limits = [source.limits(number) for number in numbers]
    slews_v_per_s = [*slews_v_per_s, *(limit.slew_v_per_s for limit in limits if limit.slew_v_per_s > 0)]
    low_v, high_v = np.array([limit.min_v for limit in limits]), np.array([limit.max_v for limit in limits])
    members = np.arange(len(numbers), dtype=np.int64)
    return OutputChannels(handle, numbers, members, low_v, high_v, min(slews_v_per_s, default=0.0))
