"""Make a bench safe although instruments do not answer, report errors or hang: over sockets, and in files."""

from __future__ import annotations

import signal
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from support import filed_instruments as filed
from support.fake_device import wait_until
from support.fake_instruments import FakeClock, FakeLab, FakeSource, Faulty, bench_of, silence, tables
from test_bench_process import HOT, drive, served

from photonloop.drivers.bench.bench_opening import open_bench, open_lab, open_table
from photonloop.drivers.bench.make_safe import make_safe
from photonloop.drivers.registry import open_instrument
from photonloop.drivers.station.loading import load_station
from photonloop.drivers.station.schema import Station
from photonloop.drivers.transports.connection_settings import ConnectionSettings
from photonloop.protocols.errors import DeviceError
from photonloop.simulator.emulators.bench_choices import BenchChoices
from photonloop.simulator.emulators.laboratory import LaserLight
from photonloop.simulator.emulators.running import RunningBench, running
from photonloop.simulator.parameters import load_chip

pytestmark = pytest.mark.slow

NOBODY = "TCPIP::127.0.0.1::9::SOCKET"
CHOICES = BenchChoices("scpi-source", "qdac2", "labjack-t7", "santec-tsl570")


@contextmanager
def hot_bench(tmp_path: Path) -> Iterator[tuple[RunningBench, Path]]:
    """Yield a virtual bench after its server was killed: heaters at 5 V, a modulator at 2 V, light on."""
    with running(load_chip("ideal", ports=4, stages=1, seed=1), CHOICES) as virtual:
        station = tomllib.loads(virtual.addresses.station.read_text())
        settings = {table["name"]: table.get("settings", {}) for table in station["instruments"]}
        for name, volts in (("scpi-source", dict.fromkeys(range(16), 5.0)), ("qdac2", {1: 2.0})):
            source: Any = open_instrument(name, ConnectionSettings(virtual.addresses.instruments[name], name), settings[name])
            source.set_volts(volts)
            source.close()
        virtual.call(lambda: virtual.bench.laboratory.set_light(LaserLight(0.02, 1550.0, is_on=True)))
        laser: Any = open_instrument(
            "santec-tsl570", ConnectionSettings(virtual.addresses.instruments["santec-tsl570"], "laser"), {}
        )
        laser.on()
        laser.close()
        assert virtual.state()["heater_v"] == [5.0] * 16
        assert virtual.state()["laser"]["is_on"]
        path = tmp_path / "station.toml"
        path.write_text(virtual.addresses.station.read_text())
        yield virtual, path


def disconnect(virtual: RunningBench, station: Path, name: str) -> None:
    """Replace the address of an instrument by one without a server."""
    station.write_text(station.read_text().replace(virtual.addresses.instruments[name], NOBODY))


def command(station: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "photonloop.drivers", str(station), "--make-safe"],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def safe_but_for(state: dict[str, Any], name: str = "") -> bool:
    zero = (not any(state["heater_v"]), not any(state["modulator_v"]), not state["laser"]["is_on"])
    return zero == tuple(name != other for other in ("scpi-source", "qdac2", "santec-tsl570"))


@pytest.mark.parametrize("name", ["", "labjack-t7", "qdac2", "scpi-source", "santec-tsl570"])
def test_reachable_instruments_are_made_safe_and_others_reported(name: str, tmp_path: Path) -> None:
    with hot_bench(tmp_path) as (virtual, station):
        if name:
            disconnect(virtual, station, name)
        done = command(station)
        assert safe_but_for(virtual.state(), name)
        needed = name not in {"", "labjack-t7"}  # readouts are not opened
        assert done.returncode == int(needed)
        assert done.stderr.startswith(f"not safe: {name}: " if needed else "")
        assert len(done.stderr.splitlines()) == int(needed)


def test_a_source_that_reports_errors_is_tried_again(tmp_path: Path) -> None:
    with hot_bench(tmp_path) as (virtual, station):
        virtual.inject("scpi-source", "error", count=3)
        virtual.inject("qdac2", "garbage", count=2)
        assert command(station).returncode == 0
        assert safe_but_for(virtual.state())


def test_another_unit_is_not_driven(tmp_path: Path) -> None:
    with hot_bench(tmp_path) as (virtual, station):
        text = station.read_text().replace('driver = "scpi-source"', 'driver = "scpi-source"\nserial = "other"')
        station.write_text(text)
        done = command(station)
        assert done.returncode == 1
        assert "but the station file requires serial other" in done.stderr
        assert safe_but_for(virtual.state(), "scpi-source")


@pytest.mark.parametrize("name", ["labjack-t7", "qdac2"])
def test_a_bench_that_cannot_be_opened_leaves_its_sources_at_0_v(name: str, tmp_path: Path) -> None:
    with hot_bench(tmp_path) as (virtual, station):
        disconnect(virtual, station, name)
        with pytest.raises(DeviceError, match=name):
            open_lab(str(station))
        assert not any(virtual.state()["heater_v"])


@pytest.mark.parametrize("name", ["labjack-t7", "santec-tsl570", "qdac2"])
def test_sources_go_to_0_v_if_an_instrument_reports_an_error_at_opening(name: str, tmp_path: Path) -> None:
    with hot_bench(tmp_path) as (virtual, station):
        read = load_station(station)
        opened: list[str] = []

        def opener(table: Any) -> Any:
            instrument = open_table(station.parent, table)
            opened.append(table.name)
            if table.name == name:
                complain(instrument)
            return instrument

        def complain(instrument: Any) -> None:
            def check() -> None:
                raise DeviceError("device", f"{name} keeps reporting an error", outcome="unknown")

            instrument.check = check

        with pytest.raises(DeviceError, match="keeps reporting an error"):
            open_bench(read, opener, locks=tmp_path)
        assert len(opened) == 4
        assert not any(virtual.state()["heater_v"])
        assert not any(virtual.state()["modulator_v"])


def test_make_safe_keeps_the_slew_limit(tmp_path: Path) -> None:
    with hot_bench(tmp_path) as (virtual, station):
        station.write_text(station.read_text().replace("[limits]", "[limits]\nslew_v_per_s = 20.0"))
        seen: list[tuple[float, float]] = []
        clock = FakeClock()
        laboratory = virtual.bench.laboratory
        opener = partial(open_table, station.parent)

        def recorded(table: Any) -> Any:
            instrument: Any = opener(table)
            if table.name == "scpi-source":
                inner = instrument.set_volts

                def set_volts(volts: dict[int, float]) -> None:
                    inner(volts)
                    seen.append((clock.now_s(), float(laboratory.heater_v[0])))

                instrument.set_volts = set_volts
            return instrument

        assert make_safe(load_station(station), recorded, clock=clock, locks=tmp_path) == []
        assert safe_but_for(virtual.state())
        time_s, volts = np.array([(0.0, 5.0), *seen]).T
        assert (-np.diff(volts) <= 20.0 * np.maximum(np.diff(time_s), 0.002) + 1e-3).all()
        assert len(seen) > 5


def test_an_instrument_that_hangs_does_not_delay_the_others(tmp_path: Path) -> None:
    lab = FakeLab(clock := FakeClock())
    lab.heaters.volts[:] = 5.0
    lab.laser.lit = True
    lab.heaters.written_limits = dict.fromkeys(range(16), lab.heaters.hardware)
    reached: list[bool] = []

    def hang(method: str) -> None:
        if method == "identify":
            wait_until(lambda: not lab.heaters.volts.any() and not lab.laser.lit, 10)
            reached.append(True)

    lab.modulators.before = hang
    assert make_safe(Station.model_validate(tables()), lab.opener, clock=clock, locks=tmp_path) == []
    assert reached


def test_all_sources_go_to_0_v_before_a_failure_is_raised(tmp_path: Path) -> None:
    lab = FakeLab(clock := FakeClock())
    lab.extra = {"more": FakeSource("more", clock)}

    def change(stated: dict[str, Any]) -> None:
        stated["instruments"].append({"name": "more", "driver": "fake", "address": "more"})
        stated["stages"][1]["heaters"]["instrument"] = "more"

    lab.heaters.faults.append(Faulty("set_limits", silence()))
    lab.extra["more"].volts[:] = 4.0  # pyright: ignore[reportAttributeAccessIssue]
    lab.daq.faults.append(Faulty("check", silence("device")))
    with pytest.raises(DeviceError, match="heaters: no answer"):
        bench_of(lab, clock, tmp_path, change)
    assert not lab.extra["more"].volts.any()  # pyright: ignore[reportAttributeAccessIssue]
    assert not lab.heaters.volts.any()


def test_heaters_are_made_safe_after_a_killed_server_although_a_readout_is_missing(tmp_path: Path) -> None:
    with served(tmp_path) as bench:
        drive(bench.address, tmp_path)
        filed.station(tmp_path, daq="{ dead = true }")
        np.testing.assert_array_equal(filed.volts(tmp_path), HOT)
        bench.server().kill()
        wait_until(bench.is_safe, 10)
        bench.process.send_signal(signal.SIGTERM)
        assert bench.process.wait(40) == 1


GIVEN_UP = """
import sys
from pathlib import Path
from photonloop.drivers.service import supervisor

log = sys.argv[1]
supervisor.StopRequest.wait = lambda self, duration_s: None
server = "import os; print('{\\"address\\": \\"tcp://x\\"}', flush=True); os.kill(os.getpid(), 9)"
safe = f"import sys; f = open({log!r}, 'a+'); f.write('m'); f.seek(0); sys.exit(len(f.read()) < 8)"
commands = supervisor.Commands(lambda bind: [sys.executable, "-Sc", server], [sys.executable, "-Sc", safe])
sys.exit(supervisor.supervise(commands, "tcp://y", supervisor.StopRequest(), lambda: True))
"""


def test_supervisor_goes_on_until_the_bench_is_safe(tmp_path: Path) -> None:
    log = tmp_path / "log"
    ended = subprocess.run([sys.executable, "-c", GIVEN_UP, str(log)], capture_output=True, text=True, timeout=60, check=False)
    assert ended.returncode == 1
    assert log.read_text() == "m" * 8  # after five servers, until the command succeeds
    assert "not all of the bench could be made safe: trying again" in ended.stderr
