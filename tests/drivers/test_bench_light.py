"""The light of a bench, waits and readbacks, on instruments in memory and on a virtual bench."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from support.fake_device import wait_until
from support.fake_instruments import FakeClock, FakeLab, FakeReadout, FakeSource, Faulty, bench_of, silence

from photonloop.drivers.bench.bench_clock import WallClock
from photonloop.drivers.bench.bench_device import Bench
from photonloop.drivers.bench.bench_opening import open_lab
from photonloop.protocols.client.device_client import connect
from photonloop.protocols.device import MAX_WAIT_S
from photonloop.protocols.errors import DeviceError
from photonloop.protocols.server.device_server import DeviceServer
from photonloop.simulator.emulators.bench_choices import BenchChoices
from photonloop.simulator.emulators.running import running
from photonloop.simulator.parameters import load_chip

WARM_S = 30.0


def warming(stated: dict[str, Any]) -> None:
    stated["laser"]["warm_s"] = WARM_S


def kept_on(stated: dict[str, Any]) -> None:
    stated["laser"]["keep_on"] = True


def opened(
    tmp_path: Path, change: Callable[[dict[str, Any]], object] = lambda t: None, source: type[FakeSource] | None = None
) -> tuple[Bench, FakeLab, FakeClock]:
    clock = FakeClock()
    lab = FakeLab(clock, source) if source is not None else FakeLab(clock)
    return bench_of(lab, clock, tmp_path, change), lab, clock


def read(bench: Bench) -> np.ndarray:
    return bench.evaluate(np.zeros((1, 8)), np.ones((1, 4)), "mesh0").values


def refused(call: Callable[[], object], code: str, words: str) -> DeviceError:
    with pytest.raises(DeviceError, match=words) as caught:
        call()
    assert caught.value.code == code
    return caught.value


# ---- light -----------------------------------------------------------------------------------------------------------


def test_light_that_is_on_when_a_bench_is_opened_is_switched_off(tmp_path: Path) -> None:
    lab = FakeLab(clock := FakeClock())
    lab.laser.lit = True  # left by a program that was killed
    bench = bench_of(lab, clock, tmp_path)
    assert not lab.laser.lit
    assert (bench.describe().light_switch, bench.status().light, bench.status().safe) == (True, False, True)


def test_a_bench_cannot_be_opened_if_its_light_cannot_be_switched_off(tmp_path: Path) -> None:
    lab = FakeLab(clock := FakeClock())
    lab.laser.faults.append(Faulty("off", silence()))
    with pytest.raises(DeviceError, match="laser: no answer"):
        bench_of(lab, clock, tmp_path)
    assert not lab.heaters.volts.any()


def test_the_safe_state_has_no_light(tmp_path: Path) -> None:
    bench, lab, clock = opened(tmp_path, warming)
    read(bench)
    assert (bench.status().light, bench.status().safe) == (True, False)
    assert clock.now_s() == pytest.approx(WARM_S, abs=0.1)
    bench.safe()
    assert not lab.laser.lit
    assert (bench.status().light, bench.status().safe) == (False, True)
    assert read(bench).any()  # switched on again, and warmed up again
    assert lab.laser.lit
    assert clock.now_s() == pytest.approx(2 * WARM_S, abs=0.1)


def test_the_warm_up_is_logged(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    bench, _, _ = opened(tmp_path, warming)
    with caplog.at_level(logging.INFO):
        bench.set_light(True)
    assert "laser: the light is on, readings begin after 30 s of warm-up" in caplog.messages


def test_light_that_was_switched_off_stays_off(tmp_path: Path) -> None:
    bench, lab, clock = opened(tmp_path, warming)
    assert read(bench).any()
    bench.set_light(False)
    assert (lab.laser.lit, bench.status().light) == (False, False)
    bench.apply(np.ones(16))
    assert not read(bench).any()
    bench.cancel()
    clock.time_s += 2.0
    bench.watch()  # the laser is not expected to be on
    assert bench.status().faults == ()
    assert not read(bench).any()
    began_s = clock.now_s()
    bench.set_light(True)
    assert clock.now_s() == began_s + WARM_S
    bench.set_light(True)
    assert clock.now_s() == began_s + WARM_S
    assert read(bench).any()
    bench.set_light(False)
    bench.safe()
    assert read(bench).any()


@pytest.mark.parametrize("stop", ["cancel", "safe"])
def test_a_stop_ends_the_warm_up(stop: str, tmp_path: Path) -> None:
    bench, lab, clock = opened(tmp_path, warming)
    clock.on_wait = getattr(bench, stop)
    refused(lambda: bench.set_light(True), "interlock", "the wait for the light to warm up was stopped")
    assert lab.laser.lit is (stop == "cancel")
    assert bench.status().safe is (stop == "safe")
    assert not bench.status().busy


def test_safe_with_a_laser_that_does_not_confirm_that_it_is_off(tmp_path: Path) -> None:
    bench, lab, clock = opened(tmp_path)
    bench.apply(np.full(16, 2.0))
    read(bench)
    lab.laser.faults.append(Faulty("off", silence()))
    refused(bench.safe, "device", "the bench could not be made safe: laser: no answer")
    assert not lab.heaters.volts.any()
    status = bench.status()
    assert (status.safe, status.light) == (False, True)
    assert [fault.name for fault in status.faults] == ["laser_failed"]
    refused(lambda: bench.set_light(True), "interlock", "fault laser_failed is latched")
    lab.laser.faults.clear()
    clock.time_s += 2.0
    bench.watch()
    assert not lab.laser.lit
    assert (bench.status().safe, bench.status().light) == (True, False)


def test_a_latched_fault_does_not_keep_the_light_on(tmp_path: Path) -> None:
    bench, lab, _ = opened(tmp_path)
    lab.daq.faults.append(Faulty("read", silence(), times=1))
    refused(lambda: read(bench), "transport", "the bench was made safe")
    bench.set_light(False)
    bench.clear_fault("daq_failed")
    assert not read(bench).any()


def test_a_laser_that_is_kept_on_is_not_part_of_the_safe_state(tmp_path: Path) -> None:
    bench, lab, _ = opened(tmp_path, kept_on)
    assert (bench.describe().light_switch, bench.status().light) == (False, None)
    for on in (False, True):
        refused(lambda on=on: bench.set_light(on), "bad_request", "cannot be switched|cannot switch its light")
    read(bench)
    bench.safe()
    assert lab.laser.lit
    assert bench.status().safe
    lab.daq.faults.append(Faulty("read", silence(), times=1))
    refused(lambda: read(bench), "transport", "the bench was made safe")
    assert not lab.laser.lit
    assert bench.status().safe


def test_a_bench_without_a_laser_has_no_light_switch(tmp_path: Path) -> None:
    bench, _, _ = opened(tmp_path, lambda stated: stated.pop("laser"))
    assert (bench.describe().light_switch, bench.status().light, bench.status().safe) == (False, None, True)
    refused(lambda: bench.set_light(True), "bad_request", "light_switch")


def test_the_light_may_be_switched_off_while_the_laser_is_checked(tmp_path: Path) -> None:
    """The watching thread checks the laser. It is no fault if another thread has just switched the light off."""
    bench, lab, clock = opened(tmp_path)
    read(bench)
    lab.laser.before = lambda method: bench.set_light(False) if method == "check" else None
    clock.time_s += 2.0
    bench.watch()
    assert not lab.laser.lit
    assert bench.status().faults == ()


@pytest.mark.parametrize("end", ["release", "safe", "lost lease"])
def test_a_served_bench_switches_its_light_off(end: str, tmp_path: Path) -> None:
    lab = FakeLab(clock := WallClock())
    with bench_of(lab, clock, tmp_path) as bench, served(bench) as address:
        client = connect(address)
        client.acquire(ttl_s=0.1 if end == "lost lease" else 60.0)
        client.apply(np.ones(16))
        client.evaluate(np.zeros((1, 8)), np.ones((1, 4)), "mesh0")
        assert lab.laser.lit
        if end == "lost lease":
            client._lease.stop_renewing()
            client._disconnect()
        else:
            getattr(client, end)()
        wait_until(lambda: bench.status().safe)
        assert not lab.laser.lit
        assert not lab.heaters.volts.any()
        assert bench.status().light is False
        client.close()


@contextmanager
def served(bench: Bench) -> Iterator[str]:
    server = DeviceServer(bench, "tcp://127.0.0.1:*")
    address = server.bind()
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    try:
        yield address
    finally:
        server.stop()
        thread.join(10)


def test_a_bench_that_cannot_be_opened_leaves_the_light_off(tmp_path: Path) -> None:
    lab = FakeLab(clock := FakeClock())
    lab.laser.lit = True
    lab.daq.faults.append(Faulty("identify", silence()))
    with pytest.raises(DeviceError, match="daq: no answer"):
        bench_of(lab, clock, tmp_path)
    assert not lab.laser.lit


# ---- waits -----------------------------------------------------------------------------------------------------------


def with_meter(stated: dict[str, Any]) -> None:
    stated["instruments"].append({"name": "meter", "driver": "fake", "address": "meter"})
    stated["monitors"] = [{"name": "temperature", "instrument": "meter", "channel": 0, "max": 60.0}]


def test_a_wait_holds_the_drive_and_reads_what_is_monitored(tmp_path: Path) -> None:
    clock = FakeClock()
    lab = FakeLab(clock)
    lab.extra = {"meter": FakeReadout("meter", clock, channels=1, light=lambda: np.array([40.0]))}
    bench = bench_of(lab, clock, tmp_path, with_meter)
    bench.apply(np.full(16, 2.0))
    began_s = clock.now_s()
    bench.wait(3600)
    assert clock.now_s() == began_s + 3600.0
    assert lab.heaters.volts.tolist() == [2.0] * 16
    assert lab.extra["meter"].calls.count("read") == 3600  # every watch_s, which is 1 s
    assert not bench.status().busy


def test_a_value_beyond_its_bound_ends_a_wait(tmp_path: Path) -> None:
    clock = FakeClock()
    lab = FakeLab(clock)
    lab.extra = {"meter": FakeReadout("meter", clock, channels=1, light=lambda: np.array([50.0 + clock.time_s]))}
    bench = bench_of(lab, clock, tmp_path, with_meter)
    bench.apply(np.full(16, 2.0))
    refused(lambda: bench.wait(100), "interlock", "temperature: .* is above its max 60 ; the bench was made safe")
    assert clock.now_s() < 20
    assert bench.status().safe
    refused(lambda: bench.wait(1), "interlock", "fault temperature is latched")


@pytest.mark.parametrize("stop", ["cancel", "safe"])
def test_a_stop_ends_a_wait(stop: str, tmp_path: Path) -> None:
    bench, _, clock = opened(tmp_path)
    bench.apply(np.full(16, 2.0))

    def stop_later() -> None:
        if clock.time_s > 5.0:
            clock.on_wait = lambda: None
            getattr(bench, stop)()

    clock.on_wait = stop_later
    error = refused(lambda: bench.wait(MAX_WAIT_S), "interlock", "the wait was stopped before its end")
    assert error.outcome == "not_applied"
    assert clock.now_s() < 10
    assert bench.status().safe is (stop == "safe")
    bench.wait(0)


@pytest.mark.parametrize("seconds", [-1, MAX_WAIT_S * 1.01, float("nan"), float("inf"), "long", True, None])
def test_a_wait_has_bounds(seconds: Any, tmp_path: Path) -> None:
    bench, _, _ = opened(tmp_path)
    refused(lambda: bench.wait(seconds), "bad_request", "seconds is")


# ---- readback --------------------------------------------------------------------------------------------------------


def test_currents_are_measured_and_setpoints_are_not_called_measured(tmp_path: Path) -> None:
    bench, lab, _ = opened(tmp_path)
    assert bench.describe().reads_back
    drive = np.linspace(0.0, 3.0, 16)
    bench.apply(drive)
    measured = bench.readback()
    np.testing.assert_allclose(measured.amperes, drive / lab.heaters.ohm)
    assert np.isnan(measured.volts).all()


def test_a_source_without_readback_measures_nothing(tmp_path: Path) -> None:
    bench, _, _ = opened(tmp_path, source=FakeSource)
    assert not bench.describe().reads_back
    measured = bench.readback()
    assert np.isnan(measured.volts).all()
    assert np.isnan(measured.amperes).all()


def test_a_readback_waits_until_the_drive_has_settled(tmp_path: Path) -> None:
    bench, _, clock = opened(tmp_path, lambda stated: stated.update(settle_s=0.5))
    bench.apply(np.ones(16))
    began_s = clock.now_s()
    bench.readback()
    assert clock.now_s() == pytest.approx(began_s + 0.5)


def test_a_source_that_fails_in_a_readback_makes_the_bench_safe(tmp_path: Path) -> None:
    bench, lab, _ = opened(tmp_path)
    bench.apply(np.ones(16))
    lab.heaters.faults.append(Faulty("read_amps", silence(), times=1))
    refused(bench.readback, "transport", "heaters: no answer to VOLT 1 within 0.5 s; the bench was made safe")
    assert bench.status().safe


@pytest.mark.parametrize(("heaters", "measures_volts"), [("qontrol", True), ("qdac2", False), ("scpi-source", False)])
def test_a_dead_heater_draws_no_current(heaters: str, measures_volts: bool, tmp_path: Path) -> None:
    parameters = load_chip("ideal", ports=4, stages=1, seed=1)
    fault = {"kind": "dead_heater", "channel": 5}
    parameters = parameters.model_validate({**parameters.model_dump(), "faults": [fault]})
    modulators = "scpi-source" if heaters == "qdac2" else "qdac2"
    with (
        running(parameters, BenchChoices(heaters, modulators), folder=tmp_path) as virtual,
        open_lab(str(virtual.addresses.station)) as bench,
    ):
        description = bench.describe()
        assert description.reads_back
        drive = np.linspace(1.0, 2.0, description.channels)
        bench.apply(drive)
        measured = bench.readback()
    if measures_volts:
        np.testing.assert_allclose(measured.volts, drive, atol=1e-3)
    else:
        assert np.isnan(measured.volts).all()
    expected_a = drive / description.drive.resistance_ohm
    expected_a[5] = 0.0
    np.testing.assert_allclose(measured.amperes, expected_a, atol=2e-6)
