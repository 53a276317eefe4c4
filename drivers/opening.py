"""From a station to a bench under arms: claim, open, identify, wire, arm, safe; closed again where any of it fails."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import ExitStack, suppress
from pathlib import Path

from drivers.bench import Bench
from drivers.claim import claim
from drivers.clock import Clock
from drivers.instrument import Identity, Instrument
from drivers.line import Line
from drivers.station import InstrumentTable, LimitsTable, Station
from drivers.wiring import wire
from protocols.errors import DeviceError

Opener = Callable[[InstrumentTable], Instrument]
"""Opens one instrument as its table in the station file says; raises `DeviceError` or `ConfigError`."""


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
        Opens its instruments (`drivers.registry.open_instrument`, say).
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
    with ExitStack() as undo:
        claimed = claim([instrument.address for instrument in station.instruments], locks)
        undo.callback(claimed.release)
        lines: dict[str, Line] = {}
        for table in station.instruments:
            line = Line(table.name, opener(table))
            undo.callback(_let_go, line)
            line.identity = identified(line, table)
            lines[table.name] = line
        wiring = wire(station, {name: line.driver for name, line in lines.items()}, session, _told(lines))
        bench = Bench(wiring, lines, clock, on_close=claimed.release)
        bench.arm()
        undo.pop_all()
    return bench


def identified(line: Line, table: InstrumentTable) -> Identity:
    """Return who answers on `line`, which must be the one that `table` names.

    Raises
    ------
    DeviceError
        "device" for another serial number, or whatever the instrument says.
    """
    identity: Identity = line.do("identify", lambda driver: driver.identify())
    if table.serial and identity.serial != table.serial:
        raise DeviceError(
            "device", f"{table.name}: {identity} answers at {table.address}, but the station names serial {table.serial}"
        )
    return identity


def _let_go(line: Line) -> None:
    with suppress(DeviceError):
        line.do("close", lambda driver: driver.close())


def _told(lines: Mapping[str, Line]) -> dict[str, str]:
    return {name: str(line.identity) for name, line in lines.items()}
