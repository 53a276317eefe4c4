"""Load a station file, and the station and limits that a device string `lab:station.toml?max_v=5` names."""

from __future__ import annotations

from pathlib import Path

from photonloop.drivers.station.checks import problems
from photonloop.drivers.station.schema import LimitsTable, Station
from photonloop.protocols.config import ConfigError, read_toml, validate


def load_station(path: Path) -> Station:
    """Return the station in the file at `path`.

    Raises
    ------
    ConfigError
        One sentence on the first thing that does not fit.
    """
    where = f"station {path}"
    station = validate(Station, read_toml(path, "station file"), where)
    problem = next(problems(station), None)
    if problem is not None:
        raise ConfigError(f"{where}: {problem}")
    return station


def load_reference(reference: str) -> tuple[Path, Station, LimitsTable]:
    """Return path, station and session limits of `station.toml?max_v=5&total_w=0.2`: what follows `lab:` in a device string.

    What stands behind the question mark are limits of this session, which tighten those of the file and of the instruments,
    and can never loosen them.

    Raises
    ------
    ConfigError
        As `load_station`, and for a limit that is not one.
    """
    text, _, query_line = reference.partition("?")
    limits: dict[str, float] = {}
    for part in query_line.split("&") if query_line else []:
        key, _, value = part.partition("=")
        try:
            limits[key] = float(value)
        except ValueError:
            raise ConfigError(f"lab:{reference}: limit {part!r} is not of the form max_v=5") from None
    if not text:
        raise ConfigError(f"device 'lab:{reference}' names no station file, as in lab:station.toml")
    path = Path(text).expanduser()
    return path, load_station(path), validate(LimitsTable, limits, f"lab:{reference}")
