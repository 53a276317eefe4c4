"""Survey of a station, for `photonloop check`: identities, channels, limits and problems, without driving anything.

Every instrument is identified, checked for errors and read once. No limit is written, no output is changed, the light
is not switched. If one instrument fails, the others are surveyed all the same.
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
from photonloop.drivers.instrument import ChannelLimits, DriveSource, Instrument, Laser, OpticalSwitch, Readout, ReadsVolts
from photonloop.drivers.station.schema import Channel, InstrumentTable, LimitsTable, Station
from photonloop.protocols.config import ConfigError
from photonloop.protocols.device import DeviceDescription
from photonloop.protocols.errors import DeviceError


@dataclass(frozen=True)
class SurveyRow:
    """The survey of one instrument.

    Parameters
    ----------
    name, driver, address
        As in the station file.
    used_for
        Uses and their channels: ("heaters of mesh1", (0, 1, 2)) and so on.
    identity
        Its identity; empty if it was not asked or did not answer.
    channels
        Number of channels; 0 for a laser, or if unknown.
    allows
        Limits of its hardware, as text.
    reads
        The reading or readback, as text.
    problem
        One sentence on the first problem; empty if there is none.
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
    """The survey of all instruments of a station, and of the bench that they form.

    Parameters
    ----------
    rows
        One per instrument, in the order of the file.
    description
        The device that the bench would be, within the limits of hardware, station file and device string; None if
        instruments are missing or were not asked.
    misfit
        Why the instruments, although all answer, do not form a bench; empty if they do, or were not asked.
    """

    rows: tuple[SurveyRow, ...]
    description: DeviceDescription | None = None
    misfit: str = ""

    @property
    def problems(self) -> tuple[str, ...]:
        """One sentence per problem."""
        return (*(row.problem for row in self.rows if row.problem), *((self.misfit,) if self.misfit else ()))


def planned(station: Station, checker: Callable[[InstrumentTable], int]) -> Survey:
    """Return the survey of a station file alone, without opening any instrument.

    `checker` checks the table of an instrument and returns its number of channels, 0 if unknown (`check_table`).
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


def survey(station: Station, opener: Opener, limits: LimitsTable | None = None, locks: Path | None = None) -> Survey:
    """Open, identify, read and close every instrument of `station`, without changing any output.

    Parameters
    ----------
    station
        The station file.
    opener
        Opens its instruments.
    limits
        Limits in the device string.
    locks
        Folder of the locks that claim instruments; by default one for the whole machine.

    Raises
    ------
    DeviceError
        "lease" if another program on this machine uses one of the instruments.
    """
    with ExitStack() as undo:
        undo.callback(claim([table.address for table in station.instruments], locks).release)
        rows: list[SurveyRow] = []
        instruments: dict[str, Instrument] = {}
        for table in station.instruments:
            row = _row(station, table)
            try:
                handle = open_handle(table, opener)
                undo.callback(close_instrument, handle)
                rows.append(_surveyed(row, handle))
                instruments[table.name] = handle.instrument
            except (DeviceError, ConfigError) as error:
                rows.append(replace(row, problem=str(error)))
        if any(row.problem for row in rows):
            return Survey(tuple(rows))
        try:
            identities = {row.name: row.identity for row in rows}
            return Survey(tuple(rows), wire(station, instruments, limits, identities).description)
        except ConfigError as error:
            return Survey(tuple(rows), misfit=str(error))


def _row(station: Station, table: InstrumentTable) -> SurveyRow:
    return SurveyRow(table.name, table.driver, table.address, tuple(_uses(station)[table.name].items()))


def _uses(station: Station) -> Mapping[str, dict[str, tuple[int, ...]]]:
    """Return the uses of each instrument with their channels."""
    uses: dict[str, dict[str, tuple[int, ...]]] = {table.name: {} for table in station.instruments}

    def add(use: str, channels: tuple[Channel, ...]) -> None:
        for channel in channels:
            known = uses[channel.instrument]
            known[use] = (*known.get(use, ()), channel.number)

    for stage in station.stages:
        add(f"heaters of {stage.name}", tuple(channel for heater in station.heaters(stage) for channel in heater))
        add(f"detectors of {stage.name}", station.detectors(stage))
    add("inputs", station.input_channels())
    for monitor in station.monitors:
        add(f"monitor {monitor.name}", (Channel(monitor.instrument, monitor.channel),))
    if station.laser is not None:
        uses[station.laser.instrument]["laser"] = ()
    return uses


def _surveyed(row: SurveyRow, handle: InstrumentHandle) -> SurveyRow:
    """Return `row` completed with properties and readings of the instrument; a failure becomes its problem."""
    row = replace(row, identity=str(handle.identity))
    instrument = handle.instrument
    try:
        if isinstance(instrument, DriveSource | Readout | OpticalSwitch):
            row = replace(row, channels=instrument.channels)
            if beyond := _beyond(row):
                return replace(row, problem=beyond)
        row = replace(row, allows=_allows(instrument, row))
        row = replace(row, reads=_reads(handle, row))
        handle.query("check", lambda _: instrument.check())
    except DeviceError as error:
        return replace(row, problem=error.detail)
    return row


def _beyond(row: SurveyRow) -> str:
    """Return a sentence on the first used channel that does not exist; empty if none is known to be missing."""
    numbers = [number for _, numbers in row.used_for for number in numbers if number >= row.channels > 0]
    return f"{row.name}: channel {numbers[0]} does not exist, its channels are 0 to {row.channels - 1}" if numbers else ""


def _numbers(row: SurveyRow) -> list[int]:
    """Return the used channels, or the first channel if none is used."""
    return [number for _, numbers in row.used_for for number in numbers] or [0]


def _allows(instrument: Instrument, row: SurveyRow) -> str:
    if isinstance(instrument, DriveSource):
        texts = {_limits_text(instrument.limits(number)) for number in _numbers(row)}
        return texts.pop() if len(texts) == 1 else f"{len(texts)} kinds of channels"
    if isinstance(instrument, Readout):
        full_scale, unit = instrument.full_scale, instrument.unit
        return f"full scale {full_scale:g} {unit}" if full_scale > 0 else f"unit {unit}"
    return ""


def _limits_text(limits: ChannelLimits) -> str:
    parts = [f"{limits.min_v:g} to {limits.max_v:g} V"]
    parts += [f"{limits.max_a * 1e3:g} mA"] if limits.max_a else []
    parts += [f"{limits.max_w * 1e3:g} mW"] if limits.max_w else []
    parts += [f"{limits.bits} bit"] if limits.bits else []
    return ", ".join(parts)


def _reads(handle: InstrumentHandle, row: SurveyRow) -> str:
    instrument = handle.instrument
    numbers = _numbers(row)
    if isinstance(instrument, Readout):
        return _range(handle.query("read", lambda _: instrument.read(numbers)), instrument.unit)
    if isinstance(instrument, ReadsVolts):
        return _range(handle.query("read_volts", lambda _: instrument.read_volts(numbers)), "V")
    if isinstance(instrument, Laser):
        state = "on" if handle.query("is_on", lambda _: instrument.is_on()) else "off"
        power_w = handle.query("power_w", lambda _: instrument.power_w())
        wavelength_nm = handle.query("wavelength_nm", lambda _: instrument.wavelength_nm())
        return f"{state}, {power_w * 1e3:.4g} mW, {wavelength_nm:.6g} nm"
    if isinstance(instrument, OpticalSwitch):
        selected = handle.query("selected", lambda _: instrument.selected())
        return "dark" if selected is None else f"channel {selected} is lit"
    return "no readback of voltages"


def _range(values: np.ndarray, unit: str) -> str:
    low, high = float(np.min(values)), float(np.max(values))
    return f"{low:.4g} {unit}" if low == high else f"{low:.4g} to {high:.4g} {unit}"
