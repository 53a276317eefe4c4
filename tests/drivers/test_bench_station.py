"""Station files: every mistake is reported in one sentence before any instrument is opened."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from support.fake_instruments import FakeLab, bench_of, tables

from photonloop.drivers.bench.bench_clock import WallClock
from photonloop.drivers.bench.claim import claim
from photonloop.drivers.station.encoding_curve import MachZehnderCurve, TableCurve, drive_for_amplitudes, range_v
from photonloop.drivers.station.loading import load_reference, load_station
from photonloop.drivers.station.schema import Channel, Station
from photonloop.drivers.transports.instrument_address import same_place
from photonloop.protocols.config import ConfigError
from photonloop.protocols.errors import DeviceError

DRAFT = """
name = "bench"
settle_s = 0.001
[limits]
max_v = 10
max_a = 0.02
max_w = 0.06
total_w = 0.3
slew_v_per_s = 200
[heater]
resistance_ohm = 770
pi_power_w = 0.023
[[instruments]]
name = "heaters"
driver = "qontrol"
address = "ASRL/dev/pts/5::INSTR"
[instruments.settings]
modules = 1
[[instruments]]
name = "modulators"
driver = "qdac2"
address = "TCPIP::127.0.0.1::5025::SOCKET"
[[instruments]]
name = "daq"
driver = "labjack-t7"
address = "TCPIP::127.0.0.1::502::SOCKET"
[[instruments]]
name = "laser"
driver = "santec-tsl570"
address = "TCPIP::127.0.0.1::5000::SOCKET"
[[stages]]
name = "mesh0"
topology = "clements"
ports = 2
nonlinearity = "none"
layout = [[0, 0, 0, 1]]
[stages.heaters]
instrument = "heaters"
channels = [0, 1, 2, 3]
groups = { theta = [0, 1], phi = [1, 2], gamma = [2, 4] }
[stages.detectors]
instrument = "daq"
channels = [0, 1]
ampere_per_unit = 1e-4
full_scale_a = 1e-3
[inputs]
instrument = "modulators"
channels = [0, 1]
curve = { kind = "mach-zehnder", v_pi = 5.0 }
settle_s = 1e-5
[laser]
instrument = "laser"
power_w = 0.01
wavelength_nm = 1550
"""


def test_a_station_file_is_read(tmp_path: Path) -> None:
    path = tmp_path / "station.toml"
    path.write_text(DRAFT)
    station = load_station(path)
    assert station.instruments[0].settings == {"modules": 1}
    assert station.heaters(station.stages[0])[3] == (Channel("heaters", 3),)
    assert station.modulators() == (Channel("modulators", 0), Channel("modulators", 1))
    path.write_text(DRAFT.replace("channels = [0, 1]\nampere", 'channels = ["daq:1", 0]\nampere'))
    station = load_station(path)
    assert [str(channel) for channel in station.detectors(station.stages[0])] == ["daq:1", "daq:0"]


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("TCPIP::127.0.0.1::5025::SOCKET", "tcpip0::localhost::5025::socket"),
        ("ASRL/dev/ttyUSB0::INSTR", "/dev/ttyUSB0"),
        ("TCPIP::10.0.0.1::INSTR", "TCPIP0::10.0.0.1::inst0::INSTR"),
        ("USB::0x1313::0x8078::P0001", "USB0::4883::32888::P0001::0::INSTR"),
        ("GPIB0::5", "GPIB::5::INSTR"),
    ],
)
def test_two_spellings_of_one_address_are_the_same_instrument(one: str, other: str, tmp_path: Path) -> None:
    assert same_place(one) == same_place(other)
    with pytest.raises(DeviceError, match="is in use by process"):
        claim([one, other], tmp_path)
    held = claim([one], tmp_path)
    with pytest.raises(DeviceError, match="is in use by process"):
        claim([other], tmp_path)
    held.release()


def test_different_addresses_are_different_instruments() -> None:
    addresses = ["TCPIP::h::5025::SOCKET", "TCPIP::h::5026::SOCKET", "TCPIP1::h::5025::SOCKET", "TCPIP::h::INSTR", "/dev/ttyUSB0"]
    addresses += ["/dev/ttyUSB1", "GPIB0::5::INSTR", "GPIB1::5::INSTR", "GPIB0::6::INSTR", "ASRL1::INSTR", "ASRL10::INSTR"]
    assert len({same_place(address) for address in addresses}) == len(addresses)


def test_a_symbolic_link_to_a_serial_port_is_the_same_instrument(tmp_path: Path) -> None:
    (tmp_path / "by-id").symlink_to(tmp_path / "ttyUSB0")
    assert same_place(str(tmp_path / "by-id")) == same_place(f"ASRL{tmp_path}/ttyUSB0::INSTR")


Change = Callable[[dict[str, Any]], object]

MISTAKES: list[tuple[Change, str]] = [
    (lambda t: t["instruments"].append(dict(t["instruments"][0])), "instrument 'heaters' is listed twice"),
    (
        lambda t: t["instruments"].append({**t["instruments"][0], "name": "again", "address": " FAKE::Heaters::INSTR"}),
        "instruments 'heaters' and 'again' are both at FAKE::Heaters::INSTR: list one, with all its channels",
    ),
    (lambda t: t["stages"][1].update(name="mesh0"), "stage 'mesh0' is listed twice"),
    (
        lambda t: t["stages"][1]["heaters"].update(channels=list(range(7, 15))),
        "channel 7 of heaters is mapped twice: to heater 7 of stage mesh0 and to heater 0 of stage mesh1",
    ),
    (
        lambda t: t["stages"][0]["detectors"].update(channels=[0, 1, 2, 2]),
        "channel 2 of daq is mapped twice: to detector 2 of stage mesh0 and to detector 3 of stage mesh0",
    ),
    (
        lambda t: t["inputs"].update(instrument="heaters"),
        "channel 0 of heaters is mapped twice: to heater 0 of stage mesh0 and to input 0",
    ),
    (
        lambda t: t["stages"][0].update(topology="clements") or t["stages"][0]["detectors"].update(channels=[0, 1, 2]),
        "detectors of stage mesh0: 3 channels, so 1 of its 4 ports lack a detector",
    ),
    (lambda t: t["stages"][0].update(ports=3), "detectors of stage mesh0: 4 channels, but the stage has 3 ports"),
    (
        lambda t: t["stages"][0]["heaters"].update(instrument="heater"),
        "heaters of stage mesh0: instrument 'heater' is not listed under [[instruments]]; did you mean 'heaters'?",
    ),
    (
        lambda t: t["inputs"].pop("instrument"),
        'inputs: a channel is a plain number, but no instrument is named: set instrument, or write "instrument:number"',
    ),
    (
        lambda t: t["stages"][0]["heaters"].update(groups={"theta": [0, 4], "phi": [3, 8]}),
        "groups of stage mesh0 must cover each of its 8 heaters once, but heater 3 is in 2 groups",
    ),
    (
        lambda t: t["stages"][0]["heaters"].update(groups={"theta": [0, 4], "phi": [4, 9]}),
        "groups of stage mesh0 must cover each of its 8 heaters once, but they exceed heater 7",
    ),
    (
        lambda t: t["stages"][0].update(layout=[[0, 3, 0, 1]]),
        "layout of stage mesh0: [0, 3, 0, 1] is not [column, top mode, heater of θ, heater of φ] of this stage",
    ),
    (
        lambda t: t["stages"][0]["heaters"].update(max_v=[5, 5]),
        "heaters of stage mesh0: max_v is a list of 2, expected one number or one for each of 8 channels",
    ),
    (lambda t: t["stages"][0]["heaters"].update(max_v=9.5), "heaters of stage mesh0: max_v 9.5 is above limits.max_v 9"),
    (lambda t: t["limits"].update(total_w=0.04), "limits.total_w 0.04 W is less than max_w 0.05 W of one heater"),
    (lambda t: t["laser"].update(max_power_w=0.005), "laser.max_power_w 0.005 W is below power_w 0.01 W"),
    (
        lambda t: t.update(monitors=[{"name": "warm", "instrument": "daq", "channel": 8}]),
        "monitor warm has neither min nor max, so it has no bound: set one of them",
    ),
    (
        lambda t: t.update(monitors=[{"name": "warm", "instrument": "daq", "channel": 3, "max": 1}]),
        "channel 3 of daq is mapped twice: to detector 3 of stage mesh0 and to monitor warm",
    ),
    (
        lambda t: t["inputs"].update(curve=[t["inputs"]["curve"]] * 3),
        "inputs: curve is a list of 3, expected one curve for all or one for each of 4 ports",
    ),
    (
        lambda t: t["inputs"].update(curve={"kind": "table", "amplitudes": [0, 0.5, 0.4, 1], "volts": [0, 1, 2, 3]}),
        "amplitudes must rise throughout, but 0.5 is followed by 0.4",
    ),
    (
        lambda t: t["inputs"].update(curve={"kind": "table", "amplitudes": [0, 0.5, 1], "volts": [3, 1, 2]}),
        "volts must rise or fall throughout, but 1 is followed by 2",
    ),
    (
        lambda t: t["inputs"].update(curve={"kind": "table", "amplitudes": [0.1, 1], "volts": [0, 1]}),
        "amplitudes run from 0.1 to 1, but must run from 0 to 1",
    ),
    (lambda t: t["inputs"].update(channels=[0, "one", 2]), "inputs.channels is [0, 'one', 2], but holds 'one'"),
    (lambda t: t["inputs"].update(channels=[0, -1]), "inputs.channels is [0, -1], but holds -1"),
    (lambda t: t["inputs"].update(chanels=[0]), "unknown key 'inputs.chanels'; did you mean 'channels'?"),
    (lambda t: t.pop("heater"), "key 'heater' is missing"),
    (lambda t: t["heater"].update(resistance_ohm=0), "heater.resistance_ohm is 0, but should be greater than 0"),
    (lambda t: t.update(settle_s=-1), "settle_s is -1, but should be greater than or equal to 0"),
    (lambda t: t["limits"].update(max_v=float("inf")), "limits.max_v is inf, but should be a finite number"),
]


def as_toml(value: Any) -> str:
    """Return `value` as inline TOML, which differs from JSON only in its tables."""
    if isinstance(value, dict):
        return "{" + ", ".join(f"{key} = {as_toml(one)}" for key, one in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(as_toml(one) for one in value) + "]"
    return "inf" if value == float("inf") else json.dumps(value)


@pytest.mark.parametrize(("change", "sentence"), MISTAKES, ids=[sentence[:40] for _, sentence in MISTAKES])
def test_a_mistake_is_reported_in_one_sentence(change: Change, sentence: str, tmp_path: Path) -> None:
    stated = tables()
    path = tmp_path / "station.toml"
    path.write_text("\n".join(f"{key} = {as_toml(value)}" for key, value in stated.items()))
    load_station(path)
    change(stated)
    path.write_text("\n".join(f"{key} = {as_toml(value)}" for key, value in stated.items()))
    with pytest.raises(ConfigError) as caught:
        load_station(path)
    assert sentence in str(caught.value)
    assert str(caught.value).startswith(f"station {path}: ")
    assert "\n" not in str(caught.value)


def test_limits_in_the_device_string(tmp_path: Path) -> None:
    path = tmp_path / "station.toml"
    path.write_text(DRAFT)
    found, station, session = load_reference(f"{path}?max_v=5&total_w=0.1")
    assert (found, station.name, session.max_v, session.total_w, session.max_a) == (path, "bench", 5.0, 0.1, None)
    for reference, sentence in (
        (f"{path}?max_v", "limit 'max_v' is not of the form max_v=5"),
        (f"{path}?volts=5", "unknown key 'volts'"),
        (f"{path}?max_v=-1", "max_v is -1.0, but should be greater than 0"),
        ("", "names no station file"),
        (str(tmp_path / "none.toml"), "does not exist"),
    ):
        with pytest.raises(ConfigError, match=sentence.replace("(", r"\(")):
            load_reference(reference)


# ---- station and instruments together --------------------------------------------------------------------------------


def test_the_tightest_limit_of_hardware_station_and_device_string_applies(tmp_path: Path) -> None:
    def change(stated: dict[str, Any]) -> None:
        stated["stages"][0]["heaters"]["max_v"] = [7.0, *[9.0] * 7]
        stated["limits"].update(slew_v_per_s=50.0, max_a=0.03)  # the hardware allows 0.024 A

    lab = FakeLab(clock := WallClock())
    with bench_of(lab, clock, tmp_path, change, max_v=8.0, total_w=0.2) as bench:
        limits, drive = bench.describe().limits, bench.describe().drive
        assert limits.voltage_v == (7.0, *[8.0] * 15)
        assert limits.current_a == (0.024,) * 16
        assert limits.power_w == (0.05,) * 16
        assert (limits.total_power_w, limits.slew_v_per_s) == (0.2, 50.0)
        assert (drive.min_v, drive.max_v, drive.bits) == (0.0, 8.0, 16)
        assert drive.lsb_v == pytest.approx(12 / 65535)
        written_limits = lab.heaters.written_limits
        assert (written_limits[0].max_v, written_limits[1].max_v, written_limits[1].max_a, written_limits[1].max_w) == (
            7.0,
            8.0,
            0.024,
            0.05,
        )
        assert lab.modulators.written_limits[0].min_v == -10.0
        assert bench.describe().serials["heaters"] == "Fake ReadableSource serial SN-heaters"


MISFITS: list[tuple[Change, str]] = [
    (
        lambda t: t["stages"][1]["heaters"].update(channels=list(range(9, 17))),
        "heater 7 of stage mesh1: channel 16 of heaters does not exist, its channels are 0 to 15",
    ),
    (
        lambda t: t["stages"][1]["detectors"].update(channels=[4, 5, 6, 8]),
        "detector 3 of stage mesh1: channel 8 of daq does not exist, its channels are 0 to 7",
    ),
    (
        lambda t: t["stages"][0]["detectors"].pop("ampere_per_unit"),
        "detectors of stage mesh0: daq reads in V, so ampere_per_unit is needed",
    ),
    (lambda t: t["inputs"].update(max_v=4), "the curve of port 0 runs from 0 to 5 V, but channel modulators:0 allows -10 to 4 V"),
    (lambda t: t["laser"].update(instrument="daq"), "laser: daq is a readout, expected a laser"),
    (
        lambda t: t["inputs"].update(channels=["daq:5", "daq:6", "daq:7", "modulators:0"]),
        "input 0: daq is a readout, expected a drive source",
    ),
    (
        lambda t: t["stages"][0]["detectors"].update(channels=[f"heaters:{k}" for k in range(4)]),
        "detectors and monitors: heaters is a drive source, expected a readout",
    ),
]


@pytest.mark.parametrize(("change", "sentence"), MISFITS, ids=[sentence[:40] for _, sentence in MISFITS])
def test_a_station_that_does_not_match_its_instruments_is_refused_and_all_are_closed(
    change: Change, sentence: str, tmp_path: Path
) -> None:
    lab = FakeLab(clock := WallClock())
    with pytest.raises(ConfigError) as caught:
        bench_of(lab, clock, tmp_path, change)
    assert sentence in str(caught.value)
    opened = [one for one in lab.instruments().values() if "identify" in one.calls]
    assert opened
    assert all(one.closed for one in opened)
    assert not any("set_volts" in one.calls for one in opened)
    with bench_of(FakeLab(clock), clock, tmp_path):
        pass  # all claims are released


# ---- encoding curves -------------------------------------------------------------------------------------------------


def test_a_mach_zehnder_curve_inverts_the_modulator() -> None:
    curve = MachZehnderCurve(kind="mach-zehnder", v_pi=4.2, dark_v=0.3)
    amplitudes = np.linspace(0, 1, 101)
    drives = drive_for_amplitudes(curve, amplitudes)
    np.testing.assert_allclose(np.abs(np.sin(np.pi * (drives - 0.3) / (2 * 4.2))), amplitudes, atol=1e-12)
    assert range_v(curve) == pytest.approx((0.3, 4.5))
    assert np.isfinite(drive_for_amplitudes(curve, np.array([1.0 + 1e-7]))).all()


@pytest.mark.parametrize("points", [[0.0, 2.0, 3.0], [3.0, 2.0, 0.0]])
def test_a_table_is_interpolated(points: list[float]) -> None:
    curve = TableCurve(kind="table", amplitudes=(0.0, 0.5, 1.0), volts=tuple(points))
    np.testing.assert_allclose(
        drive_for_amplitudes(curve, np.array([0.0, 0.25, 0.5, 1.0])), np.interp([0, 0.25, 0.5, 1], [0, 0.5, 1], points)
    )
    assert range_v(curve) == (0.0, 3.0)


def test_every_port_may_have_its_own_curve(tmp_path: Path) -> None:
    stated = tables()
    stated["inputs"]["curve"] = [{"kind": "mach-zehnder", "v_pi": v} for v in (2.0, 3.0, 4.0)] + [
        {"kind": "table", "amplitudes": [0, 1], "volts": [5, 1]}
    ]
    lab = FakeLab(clock := WallClock())
    with bench_of(lab, clock, tmp_path, lambda t: t.update(stated)) as bench:
        bench.evaluate(np.zeros((1, 8)), np.array([[1.0, 1.0, 1.0, 0.5]]), "mesh0")
        written = lab.modulators.written[-1][1]
    assert Station.model_validate(stated).inputs.curve[3].kind == "table"
    assert [written[port] for port in range(4)] == pytest.approx([2.0, 3.0, 4.0, 3.0])
