"""Device strings: what they are parsed into, and the absolute paths with which a run folder keeps them."""

from __future__ import annotations

from pathlib import Path

import pytest

from photonloop.controller.device.address import (
    DeviceAddress,
    check_option_applies,
    parse_device_string,
    with_absolute_path,
)
from photonloop.controller.device.open_device import check_device
from photonloop.protocols.config import ConfigError


@pytest.mark.parametrize(
    ("text", "kind", "fields"),
    [
        ("sim", "sim", {"chip": "soi"}),
        ("sim:ideal", "sim", {"chip": "ideal"}),
        ("sim:chips/a.toml", "sim", {"chip": "chips/a.toml"}),
        ("sim:./chip", "sim", {"chip": "./chip"}),
        ("lab:station.toml", "lab", {"station": "station.toml"}),
        ("lab:a/station.toml?max_v=5&total_w=0.2", "lab", {"station": "a/station.toml", "limits": "max_v=5&total_w=0.2"}),
        ("tcp://127.0.0.1:5555", "server", {"server": "tcp://127.0.0.1:5555"}),
        ("ipc://chip.sock", "server", {"server": "ipc://chip.sock"}),
    ],
)
def test_device_strings_are_parsed_into_kind_and_options(text: str, kind: str, fields: dict[str, str]) -> None:
    address = parse_device_string(text)
    assert address == DeviceAddress(text, kind, **fields)  # pyright: ignore[reportArgumentType]
    assert str(address) == text
    assert address.is_chip_file == (text in {"sim:chips/a.toml", "sim:./chip"})


@pytest.mark.parametrize("text", ["", "simm", "simulator:soi", "lab", "http://127.0.0.1:80", "TCP://127.0.0.1:1", "station.toml"])
def test_strings_of_no_known_kind_are_refused(text: str) -> None:
    with pytest.raises(ConfigError, match="is of no known kind: give sim, sim:PRESET, .* or lab:station.toml"):
        parse_device_string(text)


def test_the_station_reference_keeps_the_limits_of_the_session() -> None:
    assert parse_device_string("lab:s.toml?max_v=5").station_reference == "s.toml?max_v=5"
    assert parse_device_string("lab:s.toml").station_reference == "s.toml"


@pytest.mark.parametrize(
    ("device", "kept"),
    [
        ("sim", "sim"),
        ("sim:soi", "sim:soi"),
        ("sim:chip.toml", "sim:{here}/chip.toml"),
        ("sim:./chip", "sim:{here}/chip"),
        ("lab:station.toml", "lab:{here}/station.toml"),
        ("lab:station.toml?max_v=3", "lab:{here}/station.toml?max_v=3"),
        ("ipc://chip.sock", "ipc://{here}/chip.sock"),
        ("ipc:///run/chip.sock", "ipc:///run/chip.sock"),
        ("ipc://@abstract", "ipc://@abstract"),
        ("tcp://127.0.0.1:5555", "tcp://127.0.0.1:5555"),
    ],
)
def test_paths_become_absolute(device: str, kept: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    address = with_absolute_path(parse_device_string(device))
    assert str(address) == kept.format(here=tmp_path)
    assert address == parse_device_string(str(address))


def test_an_option_for_another_kind_of_device_is_refused_by_name() -> None:
    check_option_applies("--ports", "sim", parse_device_string("sim:soi"))
    sentence = r"^--ports applies to virtual chips \(sim…\) only, but the device is tcp://lab:5555: leave the option out$"
    with pytest.raises(ConfigError, match=sentence):
        check_option_applies("--ports", "sim", parse_device_string("tcp://lab:5555"))


@pytest.mark.parametrize("device", ["sim", "sim:chip.toml", "lab:station.toml"])
def test_keys_are_for_device_servers_only(device: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=rf"^--keys applies to device servers \(.*\) only, but the device is {device}: "):
        check_device(device, tmp_path)
    assert check_device("tcp://lab:5555", tmp_path).kind == "server"
