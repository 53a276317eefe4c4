"""Which drivers there are, by name: those that come along and those of other packages, found in one way.

A driver is a `Driver` object that some installed package names in the entry point group `photonloop.drivers`:

    [project.entry-points."photonloop.drivers"]
    my-source = "my_package.my_source:DRIVER"

The name is what station files say under `driver`. Nothing of a driver is imported before it is asked for.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel

from photonloop.drivers.helpers.command_templates import with_table
from photonloop.drivers.instrument import DriveSource, Instrument, Laser, Readout
from photonloop.drivers.transports.connection_settings import ConnectionSettings
from photonloop.protocols.config import ConfigError, suggestion, validate
from photonloop.protocols.errors import DeviceError

GROUP = "photonloop.drivers"

Kind = Literal["source", "readout", "laser"]

_PROTOCOLS: dict[Kind, type] = {"source": DriveSource, "readout": Readout, "laser": Laser}


@dataclass(frozen=True)
class Driver:
    """What a package offers under one name.

    Parameters
    ----------
    kind
        What `open` returns: a `DriveSource`, a `Readout` or a `Laser` of `photonloop.drivers.instrument`.
    settings
        Model of the table [instruments.settings]; one without fields where there is nothing to set. Settings that tell
        how many channels there are have it as `channels`, a field or a property: it is compared before anything is opened.
    open
        Opens the instrument at a link; called with an instance of `settings`.
    summary
        One line for `photonloop check` and the documentation.
    """

    kind: Kind
    settings: type[BaseModel]
    open: Callable[[ConnectionSettings, Any], Instrument]
    summary: str


def driver_names() -> tuple[str, ...]:
    """Return the names of all drivers that are installed, sorted."""
    return tuple(sorted({point.name for point in entry_points(group=GROUP)}))


def find_driver(name: str) -> Driver:
    """Return the driver called `name`.

    Raises
    ------
    ConfigError
        There is none (with the nearest name), two packages claim the name, or it cannot be imported.
    """
    points = {(point.value, _package(point)): point for point in entry_points(group=GROUP, name=name)}
    if not points:
        known = list(driver_names())
        if not known:
            raise ConfigError("no driver is installed: photonloop itself must be installed anew, as with pip install -e .")
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
            f"driver {name!r} of {_package(point)} is no photonloop.drivers.registry.Driver but {type(found).__name__}"
        )
    return found


def validate_settings(name: str, settings: Mapping[str, Any], folder: Path = Path()) -> BaseModel:
    """Return the table [instruments.settings] of a station file in `folder` as the settings of driver `name`.

    Raises
    ------
    ConfigError
        There is no such driver, or a setting does not fit. Touches no instrument.
    """
    driver = find_driver(name)
    return validate(driver.settings, with_table(dict(settings), folder), f"settings of driver {name}")


def stated_channels(settings: BaseModel) -> int:
    """Return how many channels an instrument has by its settings; 0: they do not say."""
    count = getattr(settings, "channels", 0)
    return count if isinstance(count, int) else 0


def open_instrument(
    name: str, link: ConnectionSettings, settings: Mapping[str, Any] | BaseModel, folder: Path = Path()
) -> Instrument:
    """Return the instrument at `link`, opened by the driver called `name`.

    Parameters
    ----------
    name
        Of the driver.
    link
        Where the instrument is.
    settings
        What `validate_settings` returned, or the table it would be given.
    folder
        Where the files that settings name are looked for: beside the station file.

    Raises
    ------
    ConfigError
        See `find_driver` and `validate_settings`.
    DeviceError
        What the instrument says, or that it says nothing.
    """
    driver = find_driver(name)
    if not isinstance(settings, BaseModel):
        settings = validate_settings(name, settings, folder)
    instrument = driver.open(link, settings)
    if not isinstance(instrument, _PROTOCOLS[driver.kind]):
        instrument.close()
        raise DeviceError("device", f"driver {name!r} opened something that is no {_PROTOCOLS[driver.kind].__name__}")
    return instrument


def _package(point: EntryPoint) -> str:
    return point.dist.name if point.dist is not None else "an unknown package"
