"""Load a station file, and the station and limits that a device string `lab:station.toml?max_v=5` names."""

from __future__ import annotations

from pathlib import Path

from photonloop.drivers.station.checks import problems
from photonloop.drivers.station.schema import LimitsTable, Station
from photonloop.protocols.config import ConfigError, read_toml, validate


def load_station(path: Path) -> Station:
    """Load and check the station file at `path`.

    Raises
    ------
    ConfigError
        One sentence on the first problem.
    """
    source = f"station {path}"
    station = validate(Station, read_toml(path, "station file"), source)
    problem = next(problems(station), None)
    if problem is not None:
        raise ConfigError(f"{source}: {problem}")
    return station


def load_reference(reference: str) -> tuple[Path, Station, LimitsTable]:
    """Load the station and the limits of `station.toml?max_v=5&total_w=0.2`, the part of a device string after `lab:`.

    The limits after the question mark tighten those of the station file and of the instruments. They cannot loosen
    them.

    Returns
    -------
    path, station, limits
        The station file, its content, and the limits in the device string.

    Raises
    ------
    ConfigError
        As `load_station`, or a limit is unknown or invalid.
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
        raise ConfigError(f"device 'lab:{reference}' names no station file: write lab:station.toml")
    path = Path(text).expanduser()
    return path, load_station(path), validate(LimitsTable, limits, f"lab:{reference}")
