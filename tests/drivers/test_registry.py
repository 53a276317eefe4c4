"""Drivers by name: those of photonloop and those of other packages."""

from __future__ import annotations

import tomllib
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path

import pytest
from support.misbehaving_peer import tcp_peer

from photonloop.drivers.instrument import Laser, Readout
from photonloop.drivers.registry import GROUP, driver_names, find_driver, open_instrument, validate_settings
from photonloop.drivers.transports.connection_settings import ConnectionSettings
from photonloop.protocols.config import ConfigError
from photonloop.protocols.errors import DeviceError

FOREIGN = """
from dataclasses import dataclass

from pydantic import BaseModel

from photonloop.drivers.registry import Driver


class Settings(BaseModel):
    gain: float = 1.0


@dataclass
class Box:
    address: str
    gain: float
    closed: bool = False

    def close(self):
        self.closed = True


DRIVER = Driver("readout", Settings, lambda link, settings: Box(link.address, settings.gain), "A box")
NO_DRIVER = 3
"""


@pytest.fixture
def foreign(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Install another package with drivers."""
    (tmp_path / "box_of_others.py").write_text(FOREIGN)
    info = tmp_path / "box_of_others-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: box-of-others\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(
        f"[{GROUP}]\nbox = box_of_others:DRIVER\nnumber = box_of_others:NO_DRIVER\nmissing = no_such_module:DRIVER\n"
        "qontrol = box_of_others:DRIVER\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    return tmp_path


def test_all_registered_drivers_can_be_loaded():
    project = tomllib.loads((Path(__file__).parents[2] / "pyproject.toml").read_text())
    points = project["project"]["entry-points"][GROUP]
    assert set(points) <= set(driver_names())
    for name, value in points.items():
        driver = EntryPoint(name, value, GROUP).load()
        assert driver == find_driver(name)
        assert driver.summary


def test_an_unknown_driver_is_reported_with_the_nearest_name():
    with pytest.raises(ConfigError, match="there is no driver 'qontroll'; did you mean 'qontrol'?"):
        find_driver("qontroll")


def test_drivers_of_other_packages_are_found(foreign: Path):
    assert "box" in driver_names()
    assert find_driver("box").summary == "A box"
    with pytest.raises(ConfigError, match="settings of driver box: gain is 'much', but should be a valid number"):
        validate_settings("box", {"gain": "much"})


def test_a_faulty_driver_package_is_reported_in_one_sentence(foreign: Path):
    with pytest.raises(ConfigError, match="driver 'number' of box-of-others is of type int, not photonloop"):
        find_driver("number")
    with pytest.raises(ConfigError, match="driver 'missing' of box-of-others cannot be loaded: ModuleNotFoundError"):
        find_driver("missing")
    with pytest.raises(ConfigError, match="driver 'qontrol' is offered twice, by box-of-others .* and photonloop"):
        find_driver("qontrol")


def test_the_kind_of_an_opened_instrument_is_checked(foreign: Path):
    with pytest.raises(DeviceError, match="driver 'box' opened a Box, not a Readout"):
        open_instrument("box", ConnectionSettings("anywhere"), {"gain": 2.0})


def test_no_driver_is_installed(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("photonloop.drivers.registry.entry_points", lambda **_: entry_points(group="photonloop.nothing"))
    with pytest.raises(ConfigError, match="no driver is installed"):
        find_driver("qontrol")


def test_open_an_instrument_over_a_socket(tmp_path: Path):
    """With settings that name a command table in the folder of the station file."""
    answers = {
        b"*IDN?": b"ACME,M1,7,1.0\n",
        b":MEAS:VOLT? (@1,2)": b"0.5,0.25\n",
        b"SYST:ERR?": b'+0,"No error"\n',
    }
    (tmp_path / "readout.toml").write_text('channels = 2\nunit = "V"\nread = "MEAS:VOLT? (@{channels})"\nerror = "SYST:ERR?"\n')
    with tcp_peer(answers.get) as peer:
        readout = open_instrument(
            "scpi-readout", ConnectionSettings(peer.address, name="daq"), {"table": "readout.toml"}, tmp_path
        )
        assert isinstance(readout, Readout)
        assert readout.read([0, 1]).tolist() == [0.5, 0.25]
        assert readout.identify().model == "M1"
        readout.close()
        readout.close()


def test_a_failed_opening_closes_the_connection():
    answers = {b"*IDN?": b"SANTEC,TSL-570,1,1\n", b":SYST:ERR?": b"0\n", b":SYST:COMM:COD?": b"7\n", b":POW:UNIT?": b"0\n"}
    with tcp_peer(lambda line: (answers.get(line) or b"").replace(b"\n", b"\r") or None, b"\r") as peer:
        with pytest.raises(DeviceError, match="answered '7' to ':SYST:COMM:COD[?]', which is invalid"):
            open_instrument("santec-tsl570", ConnectionSettings(peer.address, name="laser"), {})
        answers[b":SYST:COMM:COD?"] = b"1\n"
        laser = open_instrument("santec-tsl570", ConnectionSettings(peer.address, name="laser"), {})
        assert isinstance(laser, Laser)
        laser.close()
