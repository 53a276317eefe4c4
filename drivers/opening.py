"""From a station to a bench under arms: claim, open, identify, wire, arm, safe; closed again where any of it fails."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import ExitStack, suppress
from functools import partial
from pathlib import Path

from drivers.bench import Bench
from drivers.claim import claim
from drivers.clock import Clock
from drivers.instrument import Identity, Instrument
from drivers.line import Line
from drivers.registry import open_instrument, read_settings
from drivers.station import InstrumentTable, LimitsTable, Station, load_reference
from drivers.transport.opening import Link
from drivers.wiring import wire
from protocols.errors import DeviceError
from protocols.validation import ConfigError

Opener = Callable[[InstrumentTable], Instrument]
"""Opens one instrument as its table in the station file says; raises `DeviceError` or `ConfigError`."""


def open_lab(reference: str) -> Bench:
    """Return the bench of `station.toml?max_v=5`: what follows `lab:` in a device string. Raises as `open_bench` does."""
    path, station, session = load_reference(reference)
    return open_bench(station, partial(open_table, path.parent), session=session)


def open_table(folder: Path, table: InstrumentTable) -> Instrument:
    """Return the instrument of a table in a station file that lies in `folder`.

    Raises
    ------
    ConfigError
        There is no such driver, or a setting does not fit it.
    DeviceError
        What the instrument says, or that it says nothing.
    """
    link = Link(table.address, name=table.name, library=table.library, timeout_s=table.timeout_s)
    try:
        return open_instrument(table.driver, link, table.settings, folder)
    except ConfigError as error:
        raise ConfigError(f"instrument {table.name}: {error}") from None


def check_table(folder: Path, table: InstrumentTable) -> None:
    """Raise `ConfigError` where there is no such driver, or a setting does not fit it; touches no instrument."""
    try:
        read_settings(table.driver, table.settings, folder)
    except ConfigError as error:
        raise ConfigError(f"instrument {table.name}: {error}") from None


def open_bench(
    station: Station,
    opener: Opener,
    *,
    session: LimitsTable | None = None,
    clock: Clock | None = None,
    locks: Path | None = None,
) -> Bench:
    """Return the bench of `station`, armed with all limits and standing at the safe drive.

    Parameters
    ----------
    station
        What is where.
    opener
        Opens its instruments (`open_table`).
    session
        Limits of this session, which tighten those of station and hardware.
    clock
        Time for the bench; a test brings its own.
    locks
        Folder of the claims on instruments; one for the whole machine by default.

    Raises
    ------
    ConfigError
        Station and instruments do not fit one another.
    DeviceError
        "lease" where another program on this machine has one of the instruments; whatever an instrument says.
    """
    claimed = claim([table.address for table in station.instruments], locks)
    with ExitStack() as undo:
        undo.callback(claimed.release)
        lines: dict[str, Line] = {}
        for table in station.instruments:
            lines[table.name] = open_line(table, opener)
            undo.callback(let_go, lines[table.name])
        wiring = wire(station, {name: line.driver for name, line in lines.items()}, session, _told(lines))
        bench = Bench(wiring, lines, clock, on_close=claimed.release)
        bench.arm()
        undo.pop_all()
    return bench


def open_line(table: InstrumentTable, opener: Opener) -> Line:
    """Return the way to one instrument, which has said that it is the one that `table` names.

    Raises
    ------
    ConfigError, DeviceError
        As `opener`; "device" for another serial number.
    """
    line = Line(table.name, opener(table))
    try:
        identity: Identity = line.do("identify", lambda driver: driver.identify())
        if table.serial and identity.serial != table.serial:
            raise DeviceError(
                "device", f"{table.name}: {identity} answers at {table.address}, but the station names serial {table.serial}"
            )
    except BaseException:
        let_go(line)
        raise
    line.identity = identity
    return line


def let_go(line: Line) -> None:
    """Close an instrument as it stands, whatever it says."""
    with suppress(DeviceError):
        line.do("close", lambda driver: driver.close())


def _told(lines: Mapping[str, Line]) -> dict[str, str]:
    return {name: str(line.identity) for name, line in lines.items()}
