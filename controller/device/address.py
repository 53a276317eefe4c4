"""Device strings, which name a device in commands, experiment files and Python functions.

sim                    a virtual chip of preset `soi`, in a simulator process that starts and ends with the command
sim:PRESET             a virtual chip of another preset
sim:chip.toml          a virtual chip of a chip file
tcp://HOST:PORT        a device server
ipc://PATH             a device server on this machine
lab:station.toml       the instruments of a station, in a process on this machine that starts and ends with the command
lab:station.toml?max_v=5&total_w=0.2
                       the same with limits of this session, which tighten those of the station
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from photonloop.protocols.config import ConfigError

Kind = Literal["sim", "lab", "server"]

KIND_NAMES: dict[Kind, str] = {
    "sim": "virtual chips (sim…)",
    "lab": "stations (lab:…)",
    "server": "device servers (tcp://…, ipc://…)",
}

DEFAULT_PRESET = "soi"


@dataclass(frozen=True)
class DeviceAddress:
    """A parsed device string.

    Parameters
    ----------
    text
        The device string; `str(address)` returns it.
    kind
        "sim" for a virtual chip, "lab" for the instruments of a station, "server" for a device server.
    chip
        Only for "sim": the name of a preset, or the path of a chip file.
    station
        Only for "lab": the path of the station file.
    limits
        Only for "lab": the limits of this session, as in "max_v=5&total_w=0.2"; empty if there are none.
    server
        Only for "server": `tcp://HOST:PORT` or `ipc://PATH`.
    """

    text: str
    kind: Kind
    chip: str = ""
    station: str = ""
    limits: str = ""
    server: str = ""

    def __str__(self) -> str:
        return self.text

    @property
    def is_chip_file(self) -> bool:
        """Whether the device is a virtual chip of a chip file, which fixes its ports, stages and seed."""
        return self.chip.endswith(".toml") or "/" in self.chip  # as the simulator distinguishes files from presets

    @property
    def station_reference(self) -> str:
        """The station file and the limits of this session, as `load_reference` takes them."""
        return f"{self.station}?{self.limits}" if self.limits else self.station


def parse_device_string(text: str) -> DeviceAddress:
    """Return the address that the device string `text` stands for. No file is read.

    Raises
    ------
    ConfigError
        The string is of no known kind; the sentence lists the kinds.

    Examples
    --------
    >>> parse_device_string("lab:station.toml?max_v=5").limits
    'max_v=5'
    """
    if text.startswith(("tcp://", "ipc://")):
        return DeviceAddress(text, "server", server=text)
    kind, colon, rest = text.partition(":")
    if kind == "sim":
        return DeviceAddress(text, "sim", chip=rest or DEFAULT_PRESET)
    if kind == "lab" and colon:
        station, _, limits = rest.partition("?")
        return DeviceAddress(text, "lab", station=station, limits=limits)
    raise ConfigError(
        f"device {text!r} is of no known kind: give sim, sim:PRESET, sim:chip.toml, tcp://HOST:PORT, ipc://PATH or "
        "lab:station.toml"
    )


def with_absolute_path(address: DeviceAddress) -> DeviceAddress:
    """Return `address` with the absolute path of its chip file, station file or socket."""
    if address.is_chip_file:
        return parse_device_string(f"sim:{_absolute(address.chip)}")
    if address.kind == "lab":
        limits = f"?{address.limits}" if address.limits else ""
        return parse_device_string(f"lab:{_absolute(address.station)}{limits}")
    # The socket ipc://@NAME is in the abstract namespace of Linux and has no path.
    if address.server.startswith("ipc://") and not address.server.startswith("ipc://@"):
        return parse_device_string(f"ipc://{_absolute(address.server.removeprefix('ipc://'))}")
    return address


def check_option_applies(option: str, kind: Kind, address: DeviceAddress) -> None:
    """Refuse an option that has no meaning for the device.

    Parameters
    ----------
    option
        The option, as in "--ports".
    kind
        The kind of device that it applies to.
    address
        The device.

    Raises
    ------
    ConfigError
        The device is of another kind.
    """
    if address.kind != kind:
        raise ConfigError(f"{option} applies to {KIND_NAMES[kind]} only, but the device is {address}: leave the option out")


def _absolute(path: str) -> Path:
    return Path(path).expanduser().resolve()
