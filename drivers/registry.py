"""Find drivers by name, among those of photonloop and of all other installed packages.

A driver is a `Driver` object that an installed package names in the entry point group `photonloop.drivers`:

    [project.entry-points."photonloop.drivers"]
    my-source = "my_package.my_source:DRIVER"

This name is the value of `driver` in station files. A driver is imported only when it is used.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel

from photonloop.drivers.helpers.command_templates import with_table
from photonloop.drivers.instrument import DriveSource, Instrument, Laser, OpticalSwitch, Readout
from photonloop.drivers.transports.connection_settings import ConnectionSettings
from photonloop.protocols.config import ConfigError, suggestion, validate
from photonloop.protocols.errors import DeviceError

GROUP = "photonloop.drivers"

Kind = Literal["source", "readout", "laser", "switch"]

_PROTOCOLS: dict[Kind, type] = {"source": DriveSource, "readout": Readout, "laser": Laser, "switch": OpticalSwitch}


@dataclass(frozen=True)
class Driver:
    """A driver: what it opens, its settings, and the function that opens it.

    Parameters
    ----------
    kind
        What `open` returns: "source" a `DriveSource`, "readout" a `Readout`, "laser" a `Laser`, "switch" an
        `OpticalSwitch`.
    settings
        Model of the table [instruments.settings]; a model without fields if there is nothing to set. If the settings
        determine the number of channels, the model has a field or property `channels`, which is checked before anything
        is opened.
    open
        Called with the connection settings and an instance of `settings`; returns the open instrument.
    summary
        One line for the documentation.
    """

    kind: Kind
    settings: type[BaseModel]
    open: Callable[[ConnectionSettings, Any], Instrument]
    summary: str


def driver_names() -> tuple[str, ...]:
    """Return the names of all installed drivers, sorted."""
    return tuple(sorted({point.name for point in entry_points(group=GROUP)}))


def find_driver(name: str) -> Driver:
    """Return the driver `name`.

    Raises
    ------
    ConfigError
        It is not installed (the message gives the nearest name), two packages offer it, or it cannot be imported.
    """
    points = {(point.value, _package(point)): point for point in entry_points(group=GROUP, name=name)}
    if not points:
        known = list(driver_names())
        if not known:
            raise ConfigError("no driver is installed: install photonloop again, for example with pip install -e .")
        raise ConfigError(f"there is no driver {name!r}{suggestion(name, known)}")
    if len(points) > 1:
        claims = " and ".join(sorted(f"{package} ({value})" for value, package in points))
        raise ConfigError(f"driver {name!r} is offered twice, by {claims}: uninstall one of them")
    point = next(iter(points.values()))
    try:
        found = point.load()
    except Exception as error:  # noqa: BLE001 - a package of others may fail in any way when it is imported
        raise ConfigError(f"driver {name!r} of {_package(point)} cannot be loaded: {type(error).__name__}: {error}") from None
    if not isinstance(found, Driver):
        raise ConfigError(
            f"driver {name!r} of {_package(point)} is of type {type(found).__name__}, not photonloop.drivers.registry.Driver"
        )
    return found


def validate_settings(name: str, settings: Mapping[str, Any], folder: Path = Path()) -> BaseModel:
    """Validate the table [instruments.settings] of a station file in `folder` as settings of driver `name`.

    No instrument is opened.

    Raises
    ------
    ConfigError
        The driver does not exist, or a setting is not valid.
    """
    driver = find_driver(name)
    return validate(driver.settings, with_table(dict(settings), folder), f"settings of driver {name}")


def stated_channels(settings: BaseModel) -> int:
    """Return the number of channels that the settings give, or 0 if they do not."""
    count = getattr(settings, "channels", 0)
    return count if isinstance(count, int) else 0


def open_instrument(
    name: str, link: ConnectionSettings, settings: Mapping[str, Any] | BaseModel, folder: Path = Path()
) -> Instrument:
    """Open an instrument with the driver `name`.

    Parameters
    ----------
    name
        Name of the driver.
    link
        Address, library and timeout of the connection.
    settings
        The result of `validate_settings`, or the table that it takes.
    folder
        Folder of the files that settings name: the folder of the station file.

    Raises
    ------
    ConfigError
        See `find_driver` and `validate_settings`.
    DeviceError
        The instrument does not answer, or reports an error.
    """
    driver = find_driver(name)
    if not isinstance(settings, BaseModel):
        settings = validate_settings(name, settings, folder)
    instrument = driver.open(link, settings)
    if not isinstance(instrument, _PROTOCOLS[driver.kind]):
        instrument.close()
        raise DeviceError(
            "device", f"driver {name!r} opened a {type(instrument).__name__}, not a {_PROTOCOLS[driver.kind].__name__}"
        )
    return instrument


def _package(point: EntryPoint) -> str:
    return point.dist.name if point.dist is not None else "an unknown package"
