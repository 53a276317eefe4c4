"""`photonloop check`, `describe` and `serve` with a station whose instruments are files (`filed_instruments`)."""

from __future__ import annotations

import json
import subprocess
import sys
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from support import filed_instruments as filed

from photonloop.controller.device.address import parse_device_string, with_absolute_path
from photonloop.controller.device.open_device import check_device, open_device
from photonloop.drivers.bench.bench_opening import check_table
from photonloop.drivers.bench.survey import planned
from photonloop.drivers.station.loading import load_station
from photonloop.protocols.client.device_client import connect
from photonloop.protocols.config import ConfigError
from photonloop.protocols.errors import DeviceError

pytestmark = pytest.mark.slow

ENVIRONMENT: dict[Path, dict[str, str]] = {}


def photonloop(folder: Path, *args: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "photonloop", *map(str, args)]
    if folder not in ENVIRONMENT:
        ENVIRONMENT[folder] = {**filed.install(folder), "COLUMNS": "200"}
    return subprocess.run(command, capture_output=True, text=True, timeout=100, check=False, env=ENVIRONMENT[folder])


def test_check_identifies_instruments_and_drives_nothing(tmp_path: Path) -> None:
    station = filed.station(tmp_path)
    filed.FiledSource("heaters", tmp_path / "heaters").set_volts({3: 2.5})  # left from earlier use
    table = photonloop(tmp_path, "check", f"lab:{station}?max_v=5")
    assert table.returncode == 0, table.stderr
    for words in (
        "Filed heaters serial 7",
        "heaters of mesh1: 0…15",
        "16 channels",
        "0 to 10 V",
        "0 to 2.5 V",
        "5 V, no limit in mA",
    ):
        assert words in table.stdout
    answer = json.loads(photonloop(tmp_path, "check", f"lab:{station}", "--json").stdout)
    assert answer["ok"]
    assert [row["name"] for row in answer["instruments"]] == ["heaters", "modulators", "daq", "laser"]
    assert answer["instruments"][1]["used_for"] == {"inputs": [0, 1, 2, 3]}
    assert answer["description"]["limits"]["voltage_v"] == [6.0] * 16
    assert filed.volts(tmp_path)[3] == 2.5


def test_an_instrument_that_does_not_answer_is_reported_and_others_are_queried(tmp_path: Path) -> None:
    station = filed.station(tmp_path, daq="{ dead = true }")
    done = photonloop(tmp_path, "check", f"lab:{station}", "--json")
    assert done.returncode == 1
    assert done.stderr.strip() == f"photonloop check: daq ({tmp_path / 'daq'}) does not answer"
    answer = json.loads(done.stdout)
    assert not answer["ok"]
    assert [bool(row["identity"]) for row in answer["instruments"]] == [True, True, False, True]
    assert answer["description"] is None


def test_a_dry_run_opens_no_instrument(tmp_path: Path) -> None:
    station = filed.station(tmp_path, daq="{ dead = true }")
    table = photonloop(tmp_path, "check", f"lab:{station}", "--dry-run")
    assert table.returncode == 0, table.stderr
    assert "detectors of mesh1: 0…3" in table.stdout
    assert "max_v 6" in table.stdout
    assert sorted(path.name for path in tmp_path.iterdir()) == ["photonloop_filed-1.0.dist-info", "station.toml"]
    station.write_text(station.read_text().replace("filed-laser", "filed-lazer"))
    done = photonloop(tmp_path, "check", f"lab:{station}", "--dry-run")
    assert done.returncode == 1
    assert "instrument laser: there is no driver 'filed-lazer'; did you mean 'filed-laser'?" in done.stderr


VIRTUAL = """
name = "bench"
settle_s = 0.001
[heater]
resistance_ohm = 770
pi_power_w = 0.023
[[instruments]]
name = "heaters"
driver = "scpi-source"
address = "TCPIP::127.0.0.1::5025::SOCKET"
settings = { table = "virtual-source", channels = 16 }
[[instruments]]
name = "modulators"
driver = "qontrol"
address = "/dev/ttyUSB0"
settings = { modules = 1 }
[[instruments]]
name = "daq"
driver = "labjack-t7"
address = "TCPIP::127.0.0.1::502::SOCKET"
[[stages]]
name = "mesh0"
ports = 2
[stages.heaters]
instrument = "heaters"
channels = [0, 15]
[stages.detectors]
instrument = "daq"
channels = [0, 13]
ampere_per_unit = 1e-4
[inputs]
instrument = "modulators"
channels = [0, 7]
curve = { kind = "mach-zehnder", v_pi = 5.0 }
"""


@pytest.mark.parametrize(
    ("old", "new", "sentence"),
    [
        ("", "", ""),
        ("[0, 15]", "[0, 99]", "heaters: channel 99 does not exist, its channels are 0 to 15"),
        ("[0, 13]", "[0, 14]", "daq: channel 14 does not exist, its channels are 0 to 13"),
        ("[0, 7]", "[0, 8]", "modulators: channel 8 does not exist, its channels are 0 to 7"),
        (
            "TCPIP::127.0.0.1::5025::SOCKET",
            "TCPIP:127.0.0.1:5025",
            "instrument heaters: address is 'TCPIP:127.0.0.1:5025', expected TCPIP::HOST::PORT::SOCKET, ASRL/dev/ttyUSB0::INSTR",
        ),
        ("5025::SOCKET", "scpi::SOCKET", "expected TCPIP::HOST::PORT::SOCKET"),
        ("::5025::SOCKET", "::5025", ""),  # valid VISA: the LAN device "5025"
        ("502::SOCKET", "INSTR", "instrument daq: address is 'TCPIP::127.0.0.1::INSTR', expected TCPIP::HOST::PORT::SOCKET"),
    ],
)
def test_a_dry_run_refuses_impossible_channels_and_addresses(old: str, new: str, sentence: str, tmp_path: Path) -> None:
    path = tmp_path / "station.toml"
    path.write_text(VIRTUAL.replace(old, new) if old else VIRTUAL)
    found = planned(load_station(path), partial(check_table, tmp_path))
    assert len(found.problems) == (1 if sentence else 0)
    assert sentence in "".join(found.problems)


def test_missing_channels_are_reported(tmp_path: Path) -> None:
    station = filed.station(tmp_path)
    station.write_text(station.read_text().replace("channels = [0, 1, 2, 3]\n[inputs]", "channels = [0, 1, 2, 16]\n[inputs]"))
    done = photonloop(tmp_path, "check", f"lab:{station}")
    assert done.returncode == 1
    assert done.stderr.strip() == "photonloop check: daq: channel 16 does not exist, its channels are 0 to 15"


def test_a_bench_in_use_is_not_disturbed(tmp_path: Path) -> None:
    station = filed.station(tmp_path)
    environment = filed.install(tmp_path)
    ENVIRONMENT[tmp_path] = environment
    command = [
        sys.executable,
        "-m",
        "photonloop",
        "serve",
        f"lab:{station}",
        "--bind",
        "tcp://127.0.0.1:*",
        "--json",
    ]
    serving = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment)
    assert serving.stdout is not None
    address = json.loads(serving.stdout.readline())["address"]
    with connect(address) as client:
        client.acquire()
        assert client.describe().kind == "bench"
        client.apply(np.full(16, 1.5))
        for command in ("check", "describe"):
            done = photonloop(tmp_path, command, f"lab:{station}")
            assert done.returncode == 1
            assert "is in use by process" in done.stderr
        np.testing.assert_array_equal(filed.volts(tmp_path), np.full(16, 1.5))
    done = photonloop(tmp_path, "describe", address, "--json")
    assert json.loads(done.stdout)["status"]["safe"]
    serving.terminate()
    assert serving.wait(30) == 0
    serving.communicate()
    done = photonloop(tmp_path, "describe", f"lab:{station}", "--json")
    assert json.loads(done.stdout)["description"]["name"] == "filed"


def test_only_a_station_has_instruments_to_check(tmp_path: Path) -> None:
    done = photonloop(tmp_path, "check", "sim:soi")
    assert done.returncode == 1
    assert "only a station, lab:station.toml, has instruments to check" in done.stderr


def test_device_strings_of_stations(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    station = filed.station(tmp_path)
    check_device(f"lab:{station}?max_v=3")
    monkeypatch.chdir(tmp_path)
    assert str(with_absolute_path(parse_device_string("lab:station.toml?max_v=3"))) == f"lab:{tmp_path}/station.toml?max_v=3"
    station.write_text("name = 3")
    with pytest.raises(ConfigError, match="station .* name is 3"):
        check_device(f"lab:{station}")


def test_an_instrument_that_does_not_answer_is_a_transport_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A running session then waits for its bench, and a new one ends with the error."""
    for key, value in filed.install(tmp_path).items():
        monkeypatch.setenv(key, value)
    with pytest.raises(DeviceError, match="does not answer") as caught:
        open_device(f"lab:{filed.station(tmp_path, heaters='{ dead = true }')}", write=True)
    assert caught.value.code == "transport"


def test_first_light(tmp_path: Path) -> None:
    """The script of the documentation, with instruments that are files."""
    filed.station(tmp_path)
    script = Path(__file__).parent.parent.parent / "docs" / "first_light.py"
    done = subprocess.run(
        [sys.executable, str(script)],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        cwd=tmp_path,
        env=filed.install(tmp_path),
    )
    assert done.returncode == 0, done.stderr
    assert "[16000." in done.stdout.replace("[ ", "[")  # V_pi squared at the lit port, in thousandths
    assert not filed.volts(tmp_path).any()
