"""0 V without a bench: what answers is made safe, each instrument by itself, whatever the others do.

    heaters, modulators, laser ── a thread each ──▶ open ─▶ who is it? ─▶ 0 V (ramped), off ─▶ let go

A bench wants all its instruments, in order, before it drives any. Who comes after a server that died wants the opposite: the
heaters that can be reached are brought down at once, and a readout that is away is no reason to wait. Readouts are not opened.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterable
from pathlib import Path

import numpy as np

from photonloop.drivers.bench.bench_clock import BenchClock, WallClock
from photonloop.drivers.bench.claim import claim
from photonloop.drivers.bench.instrument_handle import InstrumentError, InstrumentHandle
from photonloop.drivers.bench.instrument_opening import Opener, check_serial, close_instrument
from photonloop.drivers.bench.output_channels import Output, make_outputs_safe
from photonloop.drivers.instrument import DriveSource, Laser
from photonloop.drivers.station.schema import Channel, InstrumentTable, LimitsTable, Station
from photonloop.protocols.config import ConfigError
from photonloop.protocols.errors import DeviceError

log = logging.getLogger(__name__)

ATTEMPTS = 3
"""How often an instrument is opened before it is given up: one that was just lost may need a second word."""


def make_safe(
    station: Station,
    opener: Opener,
    *,
    limits: LimitsTable | None = None,
    clock: BenchClock | None = None,
    locks: Path | None = None,
) -> list[str]:
    """Bring every source of `station` that answers to 0 V, and put the light out; return a sentence for each that did not follow.

    Parameters are those of `photonloop.drivers.bench.bench_opening.open_bench`. Raises nothing: an instrument that another
    program on this machine has, or that does not fit the station, is one of the sentences.
    """
    limits, clock = limits or LimitsTable(), clock or WallClock()
    told: dict[str, str] = {}

    def run(table: InstrumentTable) -> None:
        try:
            _make_safe(station, table, opener, limits, clock, locks)
        except (DeviceError, ConfigError) as error:
            told[table.name] = str(error)
        except Exception as error:
            log.exception("making %s safe", table.name)
            told[table.name] = f"{table.name}: {type(error).__name__}: {error}"

    driven = [table for table in station.instruments if table.name in _driven(station)]
    # A thread each, so that a dead address or a driver that hangs keeps nobody else hot, and all ramp side by side.
    threads = [threading.Thread(target=run, args=(table,), name=f"safe {table.name}", daemon=True) for table in driven]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return [told[table.name] for table in driven if table.name in told]


def make_sources_safe(
    station: Station, handles: Iterable[InstrumentHandle], limits: LimitsTable, clock: BenchClock
) -> list[InstrumentError]:
    """Bring the sources among `handles`, opened and known, to 0 V; return an error for each that would not go."""
    outputs = [
        output for handle in handles if isinstance(handle.instrument, DriveSource) for output in _outputs(station, handle, limits)
    ]
    return make_outputs_safe(outputs, clock)


def _make_safe(
    station: Station, table: InstrumentTable, opener: Opener, limits: LimitsTable, clock: BenchClock, locks: Path | None
) -> None:
    """Open one instrument and make it safe.

    Raises
    ------
    ConfigError, DeviceError
        What kept it from that, at the last attempt.
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
        # It stands at the address of the station and says nothing else of itself: 0 V harms nobody.
        log.warning("%s", error.detail)
    else:
        check_serial(table, identity)
    instrument = handle.instrument
    if isinstance(instrument, DriveSource):
        for error in make_sources_safe(station, [handle], limits, clock):
            raise error
    elif isinstance(instrument, Laser):
        handle.mutate("off", lambda laser: laser.off())
    else:
        raise DeviceError("bad_request", f"{table.name} is neither a source nor a laser, so it cannot be made safe")


def _driven(station: Station) -> set[str]:
    """Return the names of the instruments that drive something."""
    channels = [*_heaters(station), *station.modulators()]
    return {channel.instrument for channel in channels} | ({station.laser.instrument} if station.laser is not None else set())


def _heaters(station: Station) -> list[Channel]:
    return [channel for stage in station.stages for channel in station.heaters(stage)]


def _outputs(station: Station, handle: InstrumentHandle, limits: LimitsTable) -> list[Output]:
    """Return what a bench would drive of a source: its heaters within the slew that is stated, its modulators."""
    stated = [stated_limits.slew_v_per_s for stated_limits in (station.limits, limits) if stated_limits.slew_v_per_s]
    found = (_output(handle, _heaters(station), stated), _output(handle, station.modulators(), []))
    return [output for output in found if output is not None]


def _output(handle: InstrumentHandle, channels: Iterable[Channel], slews_v_per_s: list[float]) -> Output | None:
    source = handle.instrument
    # A channel that is not there is for whoever opens the bench to tell: the others are brought down.
    numbers = [channel.number for channel in channels if channel.instrument == handle.name and channel.number < source.channels]
    if not numbers:
        return None
    limits = [source.limits(number) for number in numbers]
    slews_v_per_s = [*slews_v_per_s, *(limit.slew_v_per_s for limit in limits if limit.slew_v_per_s > 0)]
    low_v, high_v = np.array([limit.min_v for limit in limits]), np.array([limit.max_v for limit in limits])
    members = np.arange(len(numbers), dtype=np.int64)
    return Output(handle, numbers, members, low_v, high_v, min(slews_v_per_s, default=0.0))
