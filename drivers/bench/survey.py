"""What `photonloop check` finds out: who answers, what is wired to what, what is missing; and nothing is driven.

Every instrument is asked who it is, whether it complains, and for one harmless reading. No limit is written, no output is
changed, no light is switched. One that fails does not keep the others from being asked.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from photonloop.drivers.bench.claim import claim
from photonloop.drivers.bench.instrument_handle import InstrumentHandle
from photonloop.drivers.bench.instrument_opening import Opener, close_instrument, open_handle
from photonloop.drivers.bench.wiring import wire
from photonloop.drivers.instrument import ChannelLimits, DriveSource, Instrument, Laser, Readout, ReadsVolts
from photonloop.drivers.station.schema import Channel, InstrumentTable, LimitsTable, Station
from photonloop.protocols.config import ConfigError
from photonloop.protocols.device import DeviceDescription
from photonloop.protocols.errors import DeviceError


@dataclass(frozen=True)
class SurveyRow:
    """One instrument.

    Parameters
    ----------
    name, driver, address
        As in the station file.
    used_for
        What its channels are: ("heaters of mesh1", (0, 1, 2)) and so on.
    identity
        Who answers; empty where nobody was asked or answered.
    channels
        How many it has; 0 for a laser, or where neither an instrument nor its settings said so.
    allows
        What its hardware allows, in words.
    reads
        What it was seen to read, in words.
    problem
        What is wrong with it, one sentence; empty: nothing.
    """

    name: str
    driver: str
    address: str
    used_for: tuple[tuple[str, tuple[int, ...]], ...]
    identity: str = ""
    channels: int = 0
    allows: str = ""
    reads: str = ""
    problem: str = ""


@dataclass(frozen=True)
class Survey:
    """All instruments of a station, and whether they make a bench.

    Parameters
    ----------
    rows
        One an instrument, in the order of the file.
    description
        What the bench would be, with the limits of hardware, station and session together; None where instruments are missing or
        were not asked.
    misfit
        Why the instruments, though all there, make no bench; empty: they do, or were not asked.
    """

    rows: tuple[SurveyRow, ...]
    description: DeviceDescription | None = None
    misfit: str = ""

    @property
    def problems(self) -> tuple[str, ...]:
        """One sentence for everything that is wrong."""
        return (*(row.problem for row in self.rows if row.problem), *((self.misfit,) if self.misfit else ()))


def planned(station: Station, checker: Callable[[InstrumentTable], int]) -> Survey:
    """Return the survey that touches no instrument: what would be wired to what.

    `checker` refuses tables, and returns how many channels one states, 0 where that is not known (`check_table`).
    """
    rows: list[SurveyRow] = []
    for table in station.instruments:
        row = _row(station, table)
        try:
            row = replace(row, channels=checker(table))
            row = replace(row, problem=_beyond(row))
        except ConfigError as error:
            row = replace(row, problem=str(error))
        rows.append(row)
    return Survey(tuple(rows))


def survey(station: Station, opener: Opener, string_limits: LimitsTable | None = None, locks: Path | None = None) -> Survey:
    """Ask every instrument of `station` and let go of it as it stands.

    Raises
    ------
    DeviceError
        "lease" where another program on this machine has one of the instruments.
    """
    with ExitStack() as undo:
        undo.callback(claim([table.address for table in station.instruments], locks).release)
        rows: list[SurveyRow] = []
        drivers: dict[str, Instrument] = {}
        for table in station.instruments:
            row = _row(station, table)
            try:
                handle = open_handle(table, opener)
                undo.callback(close_instrument, handle)
                rows.append(_asked(row, handle))
                drivers[table.name] = handle.instrument
            except (DeviceError, ConfigError) as error:
                rows.append(replace(row, problem=str(error)))
        if any(row.problem for row in rows):
            return Survey(tuple(rows))
        try:
            told = {row.name: row.identity for row in rows}
            return Survey(tuple(rows), wire(station, drivers, string_limits, told).description)
        except ConfigError as error:
            return Survey(tuple(rows), misfit=str(error))


def _row(station: Station, table: InstrumentTable) -> SurveyRow:
    return SurveyRow(table.name, table.driver, table.address, tuple(_uses(station)[table.name].items()))


def _uses(station: Station) -> Mapping[str, dict[str, tuple[int, ...]]]:
    """Return, by instrument, what its channels are used for."""
    uses: dict[str, dict[str, tuple[int, ...]]] = {table.name: {} for table in station.instruments}

    def note(what: str, channels: tuple[Channel, ...]) -> None:
        for channel in channels:
            known = uses[channel.instrument]
            known[what] = (*known.get(what, ()), channel.number)

    for stage in station.stages:
        note(f"heaters of {stage.name}", station.heaters(stage))
        note(f"detectors of {stage.name}", station.detectors(stage))
    note("inputs", station.modulators())
    for monitor in station.monitors:
        note(f"monitor {monitor.name}", (Channel(monitor.instrument, monitor.channel),))
    if station.laser is not None:
        uses[station.laser.instrument]["laser"] = ()
    return uses


def _asked(row: SurveyRow, handle: InstrumentHandle) -> SurveyRow:
    """Return `row` with what the instrument on `handle` says; a failure on the way is its problem."""
    row = replace(row, identity=str(handle.identity))
    driver = handle.instrument
    try:
        if isinstance(driver, DriveSource | Readout):
            row = replace(row, channels=driver.channels)
            if beyond := _beyond(row):
                return replace(row, problem=beyond)
        row = replace(row, allows=_allows(driver, row))
        row = replace(row, reads=_reads(handle, row))
        handle.query("check", lambda one: one.check())
    except DeviceError as error:
        return replace(row, problem=error.detail)
    return row


def _beyond(row: SurveyRow) -> str:
    """Return the sentence on the first channel that is used and not there; empty where all are, or nobody knows."""
    numbers = [number for _, numbers in row.used_for for number in numbers if number >= row.channels > 0]
    return f"{row.name}: channel {numbers[0]} is not there, its channels are 0 to {row.channels - 1}" if numbers else ""


def _numbers(row: SurveyRow) -> list[int]:
    """Return the channels that are used, or the first one where none is."""
    return [number for _, numbers in row.used_for for number in numbers] or [0]


def _allows(driver: Instrument, row: SurveyRow) -> str:
    if isinstance(driver, DriveSource):
        told = {_in_words(driver.limits(number)) for number in _numbers(row)}
        return told.pop() if len(told) == 1 else f"{len(told)} kinds of channels"
    if isinstance(driver, Readout):
        return f"full scale {driver.full_scale:g} {driver.unit}" if driver.full_scale > 0 else f"unit {driver.unit}"
    return ""


def _in_words(limits: ChannelLimits) -> str:
    parts = [f"{limits.min_v:g} to {limits.max_v:g} V"]
    parts += [f"{limits.max_a * 1e3:g} mA"] if limits.max_a else []
    parts += [f"{limits.max_w * 1e3:g} mW"] if limits.max_w else []
    parts += [f"{limits.bits} bit"] if limits.bits else []
    return ", ".join(parts)


def _reads(handle: InstrumentHandle, row: SurveyRow) -> str:
    driver = handle.instrument
    numbers = _numbers(row)
    if isinstance(driver, Readout):
        return _range(handle.query("read", lambda _: driver.read(numbers)), driver.unit)
    if isinstance(driver, ReadsVolts):
        return _range(handle.query("read_volts", lambda _: driver.read_volts(numbers)), "V")
    if isinstance(driver, Laser):
        state = "on" if handle.query("is_on", lambda _: driver.is_on()) else "off"
        power_w = handle.query("power_w", lambda _: driver.power_w())
        wavelength_nm = handle.query("wavelength_nm", lambda _: driver.wavelength_nm())
        return f"{state}, {power_w * 1e3:.4g} mW, {wavelength_nm:.6g} nm"
    return "cannot tell its voltages"


def _range(values: np.ndarray, unit: str) -> str:
    low, high = float(np.min(values)), float(np.max(values))
    return f"{low:.4g} {unit}" if low == high else f"{low:.4g} to {high:.4g} {unit}"
