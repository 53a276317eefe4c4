"""Instruments whose outputs are stored in files, so that they outlive the process that drives them, as real ones do.

`install` registers them as drivers of another package.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from pydantic import BaseModel, ConfigDict

from photonloop.drivers.instrument import ChannelLimits, Identity
from photonloop.drivers.registry import Driver
from photonloop.drivers.transports.connection_settings import ConnectionSettings
from photonloop.protocols.errors import DeviceError

CHANNELS = 16


class Settings(BaseModel):
    model_config = ConfigDict(extra="forbid")
    dead: bool = False
    loud: bool = False
    """Whether the driver prints to standard output, as a library may."""


class FiledInstrument:
    """An instrument whose values are stored in a JSON file."""

    def __init__(self, name: str, path: Path) -> None:
        self.name, self.path = name, path
        if not path.exists():
            self.keep({})

    def values(self) -> dict[str, float]:
        return json.loads(self.path.read_text())

    def keep(self, values: Mapping[str, float]) -> None:
        aside = self.path.with_suffix(f".{os.getpid()}")
        aside.write_text(json.dumps(dict(values)))
        aside.replace(self.path)

    def identify(self) -> Identity:
        return Identity("Filed", self.name, "7")

    def check(self) -> None:
        pass

    def close(self) -> None:
        pass


class FiledSource(FiledInstrument):
    channels = CHANNELS

    def limits(self, channel: int) -> ChannelLimits:
        return ChannelLimits(0.0, 10.0)

    def set_limits(self, limits: Mapping[int, ChannelLimits]) -> None:
        pass

    def set_volts(self, volts: Mapping[int, float]) -> None:
        self.keep(self.values() | {str(channel): value for channel, value in volts.items()})

    def read_volts(self, channels: Sequence[int]) -> np.ndarray:
        values = self.values()
        return np.array([values.get(str(channel), 0.0) for channel in channels])

    def safe(self) -> None:
        self.keep({})


class FiledReadout(FiledInstrument):
    """Reads the squared voltages in the file of the modulators."""

    channels = CHANNELS
    unit = "A"
    full_scale = 1000.0
    sample_s = 0.0

    def read(self, channels: Sequence[int]) -> np.ndarray:
        volts = FiledSource("modulators", self.path.with_name("modulators")).read_volts(channels)
        return volts**2


class FiledLaser(FiledInstrument):
    def on(self) -> None:
        self.keep({"on": 1.0})

    def off(self) -> None:
        self.keep({"on": 0.0})

    def is_on(self) -> bool:
        return self.values().get("on") == 1.0

    def set_power_w(self, power_w: float) -> None:
        pass

    def power_w(self) -> float:
        return 0.01

    def set_wavelength_nm(self, wavelength_nm: float) -> None:
        pass

    def wavelength_nm(self) -> float:
        return 1550.0


def _opened(kind: type[FiledInstrument]) -> Any:
    def opener(link: ConnectionSettings, settings: Settings) -> FiledInstrument:
        if settings.dead:
            raise DeviceError("transport", f"{link.label} does not answer")
        if settings.loud:
            print('{"level": "warning"}')
            os.write(1, b"libusb: no permission\n")
        return kind(link.name, Path(link.address))

    return opener


SOURCE = Driver("source", Settings, _opened(FiledSource), "a source in a file")
READOUT = Driver("readout", Settings, _opened(FiledReadout), "a readout in a file")
LASER = Driver("laser", Settings, _opened(FiledLaser), "a laser in a file")


def install(folder: Path) -> dict[str, str]:
    """Register the drivers `filed-…`; return the environment in which processes find them."""
    package = folder / "photonloop_filed-1.0.dist-info"
    package.mkdir()
    (package / "METADATA").write_text("Metadata-Version: 2.1\nName: photonloop-filed\nVersion: 1.0\n")
    points = [f"filed-{kind.lower()} = filed_instruments:{kind}" for kind in ("SOURCE", "READOUT", "LASER")]
    (package / "entry_points.txt").write_text("[photonloop.drivers]\n" + "\n".join(points) + "\n")
    paths = [str(folder), str(Path(__file__).parent), *filter(None, [os.environ.get("PYTHONPATH")])]
    return {**os.environ, "PYTHONPATH": os.pathsep.join(paths), "TMPDIR": str(folder)}


def station(folder: Path, **settings: object) -> Path:
    """Write a station file of four ports and sixteen heaters, with all instruments in files of `folder`."""
    instruments = [("heaters", "source"), ("modulators", "source"), ("daq", "readout"), ("laser", "laser")]
    lines = [
        'name = "filed"',
        "settle_s = 0.0",
        "[heater]",
        "resistance_ohm = 1000",
        "pi_power_w = 0.02",
        "[limits]",
        "max_v = 6",
    ]
    for name, kind in instruments:
        lines += ["[[instruments]]", f'name = "{name}"', f'driver = "filed-{kind}"', f'address = "{folder / name}"']
        if name in settings:
            lines += [f"settings = {settings[name]}"]
    lines += ["[[stages]]", 'name = "mesh1"', "ports = 4"]
    lines += ["[stages.heaters]", 'instrument = "heaters"', f"channels = {list(range(CHANNELS))}"]
    lines += ["[stages.detectors]", 'instrument = "daq"', "channels = [0, 1, 2, 3]"]
    lines += ["[inputs]", 'instrument = "modulators"', "channels = [0, 1, 2, 3]", 'curve = { kind = "mach-zehnder", v_pi = 4.0 }']
    lines += ["[laser]", 'instrument = "laser"', "power_w = 0.01"]
    path = folder / "station.toml"
    path.write_text("\n".join(lines) + "\n")
    return path


def volts(folder: Path) -> np.ndarray:
    """Return the voltages of the heaters [V], shape (channels,)."""
    return FiledSource("heaters", folder / "heaters").read_volts(range(CHANNELS))


def lit(folder: Path) -> bool:
    """Return whether the laser is on."""
    return FiledLaser("laser", folder / "laser").is_on()
