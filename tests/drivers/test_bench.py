"""The bench on instruments in memory: writes, limits, ramps, failing instruments, monitoring, stops, closing."""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.fake_instruments import (
    FakeClock,
    FakeLab,
    FakeReadout,
    FakeSource,
    Faulty,
    Gate,
    SignallingClock,
    bench_of,
    silence,
)

from photonloop.drivers.bench.bench_clock import WallClock
from photonloop.drivers.bench.bench_device import Bench
from photonloop.protocols.device import FLAG_SATURATED
from photonloop.protocols.errors import DeviceError

Change = Callable[[dict[str, Any]], None]


def opened(tmp_path: Path, change: Change = lambda t: None, **limits: float) -> tuple[Bench, FakeLab, FakeClock]:
    clock = FakeClock()
    lab = FakeLab(clock)
    bench = bench_of(lab, clock, tmp_path, change, **limits)
    assert written(lab.heaters) == [dict.fromkeys(range(16), 0.0)]  # all channels are written once, whatever was read back
    lab.heaters.written.clear()
    return bench, lab, clock


def light(samples: int = 3) -> np.ndarray:
    return np.random.default_rng(samples).random((samples, 4)).astype(np.float32)


def written(source: FakeSource) -> list[dict[int, float]]:
    return [volts for _, volts in source.written]


# ---- writes and readings ---------------------------------------------------------------------------------------------


def test_only_changed_channels_are_written(tmp_path: Path) -> None:
    bench, lab, _ = opened(tmp_path)
    drive = np.zeros(16)
    drive[[2, 9]] = 1.0, 2.0
    bench.apply(drive)
    drive[2] = 1.5
    bench.apply(drive)
    bench.apply(drive)
    assert written(lab.heaters) == [{2: 1.0, 9: 2.0}, {2: 1.5}]
    lab.heaters.written.clear()
    probes = np.tile(drive[:8], (2, 1))
    probes[0, 3] = 0.5
    samples = np.array([[0, 1, 0, 0], [0, 1, 1, 0]])
    bench.evaluate(probes, samples, "mesh0")
    assert written(lab.heaters) == [{3: 0.5}, {3: 0.0}]
    assert [set(volts) for volts in written(lab.modulators)] == [{1}, {2}, {2}, {2}]
    assert lab.daq.calls.count("read") == 4
    health = bench.status().health
    assert (health["heater_writes"], health["input_writes"]) == (5.0, 4.0)  # one of them when the bench was opened
    assert health["daq_calls"] == len(lab.daq.calls)


def test_readings_are_currents_of_the_right_port_setting_and_sample(tmp_path: Path) -> None:
    def change(stated: dict[str, Any]) -> None:
        stated["stages"][1]["detectors"]["channels"] = [7, 6, 5, 4]
        stated["stages"][1]["detectors"]["ampere_per_unit"] = [1e-4, 2e-4, 3e-4, 4e-4]

    bench, _, _ = opened(tmp_path, change)
    drives, samples = np.random.default_rng(0).uniform(0, 3, (4, 8)), light(5)
    values = bench.evaluate(drives, samples, "mesh1").values
    power = samples[:, ::-1].astype(float) ** 2
    expected = (1 + (drives**2).sum(1) / 800)[:, None, None] * power * np.array([1e-4, 2e-4, 3e-4, 4e-4])
    np.testing.assert_allclose(values, expected, rtol=1e-5)


def test_settle_and_warm_up_times_of_the_station_are_kept(tmp_path: Path) -> None:
    def change(stated: dict[str, Any]) -> None:
        stated.update(settle_s=0.1)
        stated["inputs"]["settle_s"] = 0.01
        stated["laser"]["warm_s"] = 5.0

    bench, _, clock = opened(tmp_path, change)
    drives = np.ones((3, 8)) * np.array([[1], [1], [2]])
    time_s = bench.evaluate(drives, np.array([[0.5] * 4, [0.7] * 4]), "mesh0").time_s
    # After the warm-up, heaters settle. The second sample waits for its modulators only, an unchanged drive for
    # nothing.
    np.testing.assert_allclose(time_s - 5.0, [0.1, 0.12, 0.23], atol=1e-9)
    assert bench.status().health["settling_s"] == pytest.approx(0.1 + 0.01 + 2 * 0.01 + 0.1 + 0.01)
    assert clock.now_s() == pytest.approx(5.24)


def test_one_stage_may_use_two_readouts_and_two_sources(tmp_path: Path) -> None:
    clock = FakeClock()
    lab = FakeLab(clock)
    more = FakeSource("more", clock)
    meter = FakeReadout("meter", clock, unit="W", light=lambda: np.full(8, 0.25))
    lab.extra = {"more": more, "meter": meter}

    def change(stated: dict[str, Any]) -> None:
        stated["instruments"] += [{"name": name, "driver": "fake", "address": name} for name in ("more", "meter")]
        stated["stages"][0]["heaters"]["channels"] = [0, "more:3", 2, 3, 4, 5, 6, "more:0"]
        stated["stages"][0]["detectors"].update(channels=[0, "meter:1", 2, 3], ampere_per_unit=[1e-4, 0.8, 1e-4, 1e-4])

    with bench_of(lab, clock, tmp_path, change) as bench:
        values = bench.evaluate(np.arange(1.0, 9.0)[np.newaxis] / 2, np.ones((1, 4)), "mesh0").values
        assert written(more)[0] == {3: 1.0, 0: 4.0}
        assert lab.heaters.written[1][1] == {0: 0.5, 2: 1.5, 3: 2.0, 4: 2.5, 5: 3.0, 6: 3.5}
        assert values[0, 0, 1] == pytest.approx(0.2)


# ---- limits ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("channels", "value", "words"),
    [
        (3, 9.01, "above its limit"),
        (3, 7.1, "above its limit 7.07107 V"),  # 0.05 W in 1000 Ω
        (3, -0.001, "below the lowest drive"),
        (3, np.nan, "not a voltage"),
        (slice(8), 5.1, "more than total_power_w"),  # the other eight hold 5 V
    ],
)
def test_a_request_beyond_a_limit_makes_no_call(channels: Any, value: float, words: str, tmp_path: Path) -> None:
    bench, lab, _ = opened(tmp_path)
    held = np.zeros(16)
    held[8:] = 5.0
    bench.apply(held)
    drive, settings = held.copy(), np.zeros((3, 8))
    drive[channels] = settings[2, channels] = value
    before = {name: len(one.calls) for name, one in lab.instruments().items()}
    for call in (lambda: bench.apply(drive), lambda: bench.evaluate(settings, light(), "mesh0")):
        with pytest.raises(DeviceError, match=words) as caught:
            call()
        assert caught.value.outcome == "not_applied"
    assert {name: len(one.calls) for name, one in lab.instruments().items()} == before


def test_limits_of_the_device_string_tighten_those_of_the_station(tmp_path: Path) -> None:
    bench, lab, _ = opened(tmp_path, max_v=3.0)
    with pytest.raises(DeviceError, match="above its limit 3 V"):
        bench.apply(np.full(16, 3.01))
    assert written(lab.heaters) == []
    assert lab.heaters.written_limits[0].max_v == 3.0


@pytest.mark.parametrize("v_per_s", [0.0, 20.0])
@pytest.mark.parametrize("sources", [1, 2])
def test_total_power_is_kept_between_writes(sources: int, v_per_s: float, tmp_path: Path) -> None:
    """If power moves from one heater to another, the first heater falls before the second rises."""
    clock = FakeClock()
    lab = FakeLab(clock)
    lab.extra = {"more": FakeSource("more", clock)}
    power_w: list[float] = []

    class OneByOne(np.ndarray):
        """Records the power of all heaters after every single channel, as a source sets them one after the other."""

        def __setitem__(self, key: Any, value: Any) -> None:
            super().__setitem__(key, value)
            power_w.append(float((lab.heaters.volts**2).sum() + (more.volts**2).sum()) / 1000)

    def change(stated: dict[str, Any]) -> None:
        stated["limits"].update(total_w=0.1)
        if v_per_s:
            stated["limits"].update(slew_v_per_s=v_per_s)
        if sources == 2:
            stated["instruments"].append({"name": "more", "driver": "fake", "address": "more"})
            stated["stages"][1]["heaters"]["instrument"] = "more"

    more: Any = lab.extra["more"]
    with bench_of(lab, clock, tmp_path, change) as bench:
        lab.heaters.volts, more.volts = lab.heaters.volts.view(OneByOne), more.volts.view(OneByOne)
        first, second = np.zeros(16), np.zeros(16)
        first[8:10] = second[0:2] = 7.0  # 98 mW each
        for drive in (first, second, first):
            bench.apply(drive)
            assert power_w[-1] == pytest.approx(0.098)
        bench.apply(first * 0.1)
        probes = np.zeros((2, 8))
        probes[0, 0] = probes[1, 1] = 7.0
        bench.evaluate(probes, light(1), "mesh0")
        writes = len(lab.heaters.written) + len(more.written)
        bench.apply(first * 0.2)
        if not v_per_s:
            assert len(lab.heaters.written) + len(more.written) == writes + 1  # a single write if the total power allows it
    assert max(power_w) <= 0.1


# ---- ramps -----------------------------------------------------------------------------------------------------------


def slew(v_per_s: float) -> Change:
    return lambda stated: stated["limits"].update(slew_v_per_s=v_per_s)


def assert_within_slew(source: FakeSource, v_per_s: float, start: np.ndarray) -> None:
    """Assert that no step exceeds the slew limit times the time since the previous step, or times 2 ms after a rest."""
    volts, last_s = start.copy(), -np.inf
    for time_s, mutates in source.written:
        rest = time_s - last_s > 0.05
        for channel, value in mutates.items():
            most_s = 0.002 if rest else time_s - last_s
            assert abs(value - volts[channel]) <= v_per_s * most_s * (1 + 1e-6) + 1e-12
            volts[channel] = value
        last_s = time_s


@settings(max_examples=25, deadline=None)
@given(
    drives=st.lists(st.lists(st.floats(0, 5), min_size=16, max_size=16), min_size=1, max_size=4),
    v_per_s=st.floats(2.0, 1e5),
    write_s=st.sampled_from([0.0, 1e-4, 0.05]),
    probes=st.booleans(),
)
def test_ramps_never_exceed_the_slew(
    tmp_path_factory: pytest.TempPathFactory, drives: list[list[float]], v_per_s: float, write_s: float, probes: bool
) -> None:
    bench, lab, clock = opened(tmp_path_factory.mktemp("locks"), slew(v_per_s))

    def take_time(method: str) -> None:
        clock.time_s += write_s if method == "set_volts" else 0.0

    lab.heaters.before = take_time
    clock.time_s = 10.0
    with bench:
        for drive in drives:
            if probes:
                bench.evaluate(np.array([drive[:8]]), light(1), "mesh0")
            else:
                bench.apply(np.array(drive))
                np.testing.assert_array_equal(lab.heaters.volts, drive)
    assert not lab.heaters.volts.any()
    assert_within_slew(lab.heaters, v_per_s, np.zeros(16))


@pytest.mark.parametrize("fast", [20.0, 200.0, 5000.0])
def test_first_step_of_a_ramp_does_not_depend_on_the_rest_before(fast: float, tmp_path: Path) -> None:
    """Neither the ramp to a drive nor the ramp to the safe drive hours later starts with a larger step."""
    bench, lab, clock = opened(tmp_path, slew(fast))
    up, down = np.linspace(3.0, 6.0, 16), np.zeros(16)
    for move, start, end in ((lambda: bench.apply(up), down, up), (bench.safe, up, down)):
        clock.time_s += 3600.0
        lab.heaters.written.clear()
        began_s = clock.now_s()
        move()
        first = lab.heaters.written[0][1]
        assert max(abs(volts - start[channel]) for channel, volts in first.items()) <= fast * 0.002 * (1 + 1e-6)
        assert_within_slew(lab.heaters, fast, start)
        np.testing.assert_array_equal(lab.heaters.volts, end)
        assert clock.now_s() - began_s >= 6.0 / fast - 0.0021


def test_a_ramp_takes_no_longer_than_necessary(tmp_path: Path) -> None:
    bench, lab, clock = opened(tmp_path, slew(2.0))
    began_s = clock.now_s()
    bench.apply(np.full(16, 4.0))
    assert 1.9 < clock.now_s() - began_s < 2.01
    lab.heaters.written.clear()
    began_s = clock.now_s()
    bench.safe()
    assert 1.9 < clock.now_s() - began_s < 2.01
    assert_within_slew(lab.heaters, 2.0, np.full(16, 4.0))


def test_voltages_found_at_opening_are_ramped_down(tmp_path: Path) -> None:
    """The program that used the source before may have been killed."""
    clock = FakeClock()
    lab = FakeLab(clock)
    lab.heaters.volts[:] = 6.0
    lab.modulators.volts[:] = 3.0
    with bench_of(lab, clock, tmp_path, slew(10.0)) as bench:
        assert not lab.heaters.volts.any()
        assert bench.status().safe
        assert_within_slew(lab.heaters, 10.0, np.full(16, 6.0))
        assert len(lab.heaters.written) > 5
        assert "safe" in lab.modulators.calls  # it has no readback
        assert set(lab.heaters.written[-1][1]) == set(range(16))
        assert lab.heaters.calls.index("set_limits") < lab.heaters.calls.index("set_volts")


def test_voltages_beyond_their_limits_are_brought_inside_at_once(tmp_path: Path) -> None:
    clock = FakeClock()
    lab = FakeLab(clock)
    lab.heaters.volts[:] = 11.0  # set under wider limits
    lab.heaters.volts[3] = -0.002  # a measured value
    with bench_of(lab, clock, tmp_path, slew(10.0)):
        assert not lab.heaters.volts.any()
        first = lab.heaters.written[0][1]
        assert 8.0 < first[0] <= 9.0
        assert first[3] == 0.0


def test_safe_ends_a_long_ramp(tmp_path: Path) -> None:
    bench, lab, clock = opened(tmp_path, slew(1.0))

    def safe_at_one_second() -> None:
        if clock.time_s > 1.0:
            clock.on_wait = lambda: None
            bench.safe()

    clock.on_wait = safe_at_one_second
    with pytest.raises(DeviceError, match="safe was called while the drive was being applied") as caught:
        bench.apply(np.full(16, 5.0))
    assert (caught.value.code, caught.value.outcome) == ("interlock", "unknown")
    assert not lab.heaters.volts.any()
    assert bench.status().safe
    assert clock.now_s() < 2.2
    assert_within_slew(lab.heaters, 1.0, np.zeros(16))


# ---- instruments that fail -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("instrument", ["heaters", "modulators", "daq"])
@pytest.mark.parametrize("after", [0, 1, 7])
def test_a_failure_during_an_evaluation_makes_the_bench_safe(instrument: str, after: int, tmp_path: Path) -> None:
    bench, lab, _ = opened(tmp_path)
    bench.apply(np.full(16, 2.0))
    broken = lab.instruments()[instrument]
    broken.faults.append(Faulty("read" if instrument == "daq" else "set_volts", silence(), after=after, times=1))
    drives = np.random.default_rng(0).uniform(0, 4, (12, 8))
    with pytest.raises(DeviceError) as caught:
        bench.evaluate(drives, light(), "mesh0")
    assert (caught.value.code, caught.value.outcome, caught.value.retryable) == ("transport", "unknown", False)
    assert caught.value.detail == f"{instrument}: no answer to VOLT 1 within 0.5 s; the bench was made safe"
    assert not lab.heaters.volts.any()
    assert not lab.modulators.volts.any()
    assert not lab.laser.lit
    status = bench.status()
    assert status.safe
    assert [(fault.name, fault.detail) for fault in status.faults] == [
        (f"{instrument}_failed", f"{instrument}: no answer to VOLT 1 within 0.5 s")
    ]
    for call in (lambda: bench.evaluate(drives, light(), "mesh0"), lambda: bench.apply(np.full(16, 2.0))):
        with pytest.raises(DeviceError, match=f"fault {instrument}_failed is latched") as refused:
            call()
        assert (refused.value.code, refused.value.outcome) == ("interlock", "not_applied")
    configurations = broken.calls.count("set_limits")
    bench.clear_fault(f"{instrument}_failed")
    assert broken.calls.count("set_limits") == configurations + (instrument != "daq")
    bench.apply(np.full(16, 2.0))
    bench.evaluate(drives, light(), "mesh0")
    assert lab.laser.lit


def test_an_unreachable_source_is_tried_again_until_it_is_safe(tmp_path: Path) -> None:
    bench, lab, clock = opened(tmp_path)
    bench.apply(np.full(16, 2.0))
    lab.heaters.faults.append(Faulty("*", silence()))
    with pytest.raises(DeviceError, match="the bench was made safe|heaters: no answer"):
        bench.apply(np.full(16, 1.0))
    assert lab.heaters.volts.any()  # it cannot be reached
    assert "safe" in lab.heaters.calls
    assert not bench.status().safe
    with pytest.raises(DeviceError, match="no answer"):
        bench.clear_fault("heaters_failed")
    assert [fault.name for fault in bench.status().faults] == ["heaters_failed"]
    lab.heaters.faults.clear()
    clock.time_s += 2.0
    bench.watch()
    assert not lab.heaters.volts.any()
    assert bench.status().safe
    bench.clear_fault("heaters_failed")
    bench.apply(np.full(16, 1.0))


@pytest.mark.parametrize("mends", [True, False])
def test_a_laser_that_did_not_switch_off_is_switched_off_again(mends: bool, tmp_path: Path) -> None:
    bench, lab, clock = opened(tmp_path, lambda stated: stated["laser"].update(max_power_w=0.02))
    bench.evaluate(np.ones((1, 8)), light(), "mesh0")
    lab.laser.set_w = 0.05
    lab.laser.faults.append(Faulty("off", silence()))
    clock.time_s += 2.0
    bench.watch()
    assert [fault.name for fault in bench.status().faults] == ["over_power"]
    assert not lab.heaters.volts.any()
    assert lab.laser.lit
    assert not bench.status().safe  # the light is still on
    with pytest.raises(DeviceError, match="laser: no answer"):
        bench.clear_fault("over_power")
    clock.time_s += 2.0
    bench.watch()
    assert lab.laser.lit
    lab.laser.faults.clear()
    if mends:
        clock.time_s += 2.0
        bench.watch()
        assert not lab.laser.lit
        assert bench.status().safe
        offs = lab.laser.calls.count("off")
        clock.time_s += 2.0
        bench.watch()
        assert lab.laser.calls.count("off") == offs
    bench.clear_fault("over_power")
    assert not lab.laser.lit
    assert bench.status().safe


def test_modulators_that_failed_to_become_safe_are_tried_again(tmp_path: Path) -> None:
    bench, lab, clock = opened(tmp_path)
    bench.evaluate(np.zeros((1, 8)), np.ones((1, 4)), "mesh0")
    assert not bench.status().safe  # the light is on
    lab.modulators.faults.append(Faulty("*", silence()))
    with pytest.raises(DeviceError, match="could not be made safe: modulators: no answer"):
        bench.safe()
    assert lab.modulators.volts.any()
    assert not bench.status().safe
    lab.modulators.faults.clear()
    clock.time_s += 2.0
    bench.watch()
    assert not lab.modulators.volts.any()
    assert bench.status().safe


def test_other_sources_are_made_safe_if_one_is_dead(tmp_path: Path) -> None:
    clock = FakeClock()
    lab = FakeLab(clock)
    lab.extra = {"more": FakeSource("more", clock)}

    def change(stated: dict[str, Any]) -> None:
        stated["instruments"].append({"name": "more", "driver": "fake", "address": "more"})
        stated["stages"][1]["heaters"]["instrument"] = "more"

    bench = bench_of(lab, clock, tmp_path, change)
    bench.apply(np.full(16, 2.0))
    lab.heaters.faults.append(Faulty("*", silence()))
    with pytest.raises(DeviceError):
        bench.apply(np.full(16, 1.0))
    assert not lab.extra["more"].volts.any()  # pyright: ignore[reportAttributeAccessIssue]
    with pytest.raises(DeviceError, match="heaters: no answer"):
        bench.close()
    assert all(one.closed for name, one in lab.instruments().items() if name != "heaters")


def test_an_unexpected_exception_of_a_driver_is_an_instrument_failure(tmp_path: Path) -> None:
    bench, lab, _ = opened(tmp_path)
    lab.daq.faults.append(Faulty("read", ZeroDivisionError("oh"), times=1))
    with pytest.raises(DeviceError, match="daq: its driver failed in read: ZeroDivisionError: oh; the bench was made safe"):
        bench.evaluate(np.ones((1, 8)), light(), "mesh0")
    assert [fault.name for fault in bench.status().faults] == ["daq_failed"]


def test_ctrl_c_makes_the_bench_safe(tmp_path: Path) -> None:
    bench, lab, _ = opened(tmp_path)
    bench.apply(np.full(16, 2.0))
    lab.daq.faults.append(Faulty("read", KeyboardInterrupt(), after=2, times=1))  # pyright: ignore[reportArgumentType]
    with pytest.raises(KeyboardInterrupt):
        bench.evaluate(np.ones((3, 8)), light(), "mesh0")
    assert not lab.heaters.volts.any()
    assert bench.status().safe
    assert bench.status().faults == ()


@pytest.mark.parametrize("answer", [np.array([1.0, np.nan, 0, 0]), np.zeros(3), np.float64(1.0)])
def test_invalid_readings_are_an_instrument_failure(answer: Any, tmp_path: Path) -> None:
    bench, lab, _ = opened(tmp_path)
    lab.daq.read = lambda channels: answer  # pyright: ignore[reportAttributeAccessIssue]
    with pytest.raises(DeviceError, match="daq: returned"):
        bench.evaluate(np.ones((1, 8)), light(), "mesh0")
    assert bench.status().safe


def test_a_replaced_instrument_is_refused(tmp_path: Path) -> None:
    bench, lab, _ = opened(tmp_path)
    lab.daq.faults.append(Faulty("read", silence(), times=1))
    with pytest.raises(DeviceError):
        bench.evaluate(np.ones((1, 8)), light(), "mesh0")
    lab.daq.serial = "other"
    with pytest.raises(DeviceError, match="another unit answers now: Fake FakeReadout serial other"):
        bench.clear_fault("daq_failed")
    lab = FakeLab(clock := FakeClock())
    with pytest.raises(DeviceError, match="but the station file requires serial 4711"):
        bench_of(lab, clock, tmp_path / "..", lambda t: t["instruments"][2].update(serial="4711"))
    assert lab.daq.closed


# ---- monitoring ------------------------------------------------------------------------------------------------------


def warm(stated: dict[str, Any]) -> None:
    stated["monitors"] = [
        {
            "name": "chip_temperature",
            "instrument": "meter",
            "channel": 0,
            "scale": 100.0,
            "offset": -50.0,
            "unit": "°C",
            "max": 60,
        }
    ]
    stated["instruments"].append({"name": "meter", "driver": "fake", "address": "meter"})


@pytest.mark.parametrize("idle", [False, True])
def test_over_temperature_makes_safe_and_latches_a_fault(idle: bool, tmp_path: Path) -> None:
    clock = FakeClock()
    lab = FakeLab(clock)
    volts = np.array([0.9])
    lab.extra = {"meter": FakeReadout("meter", clock, channels=1, light=lambda: volts)}
    bench = bench_of(lab, clock, tmp_path, warm)
    bench.apply(np.full(16, 2.0))
    bench.evaluate(np.ones((1, 8)), light(), "mesh0")
    assert bench.status().health["chip_temperature_°C"] == pytest.approx(40.0)
    volts[0] = 1.2
    clock.time_s += 1.5
    if idle:
        bench.watch()
    else:
        with pytest.raises(DeviceError, match="chip_temperature: 70 °C is above its max 60 °C; the bench was made safe"):
            bench.evaluate(np.ones((1, 8)), light(), "mesh0")
    assert not lab.heaters.volts.any()
    assert not lab.laser.lit
    assert [fault.name for fault in bench.status().faults] == ["chip_temperature"]
    bench.clear_fault("chip_temperature")
    bench.apply(np.full(16, 2.0))


def test_measured_currents_are_checked_against_the_limits(tmp_path: Path) -> None:
    bench, lab, clock = opened(tmp_path)
    bench.apply(np.full(16, 4.0))
    lab.heaters.ohm = 250.0  # damaged heaters: 64 mW each instead of 16
    clock.time_s += 2.0
    bench.watch()
    (fault,) = bench.status().faults
    assert fault.name == "over_power"
    assert fault.detail == "heater 0 (heaters:0) takes 0.064 W at 4 V, above its max_w 0.05 W by more than 10%"
    assert bench.status().safe


def test_too_much_light_switches_the_laser_off_first(tmp_path: Path) -> None:
    def change(stated: dict[str, Any]) -> None:
        stated["stages"][0]["detectors"]["trip_a"] = 1.1e-4

    bench, lab, _ = opened(tmp_path, change)
    order: list[str] = []
    lab.laser.before = lambda method: order.append(f"laser {method}")
    lab.heaters.before = lambda method: order.append(f"heaters {method}")
    bench.evaluate(np.zeros((1, 8)), np.ones((1, 4)), "mesh0")
    with pytest.raises(DeviceError, match=r"over_power: detector 0 \(daq:0\) reads 0.0001\d+ A, above its trip_a 0.00011 A"):
        bench.evaluate(np.full((1, 8), 5.0), np.ones((1, 4)), "mesh0")
    assert order.index("laser off") < len(order) - 1 - order[::-1].index("heaters set_volts")
    assert not lab.laser.lit


def test_a_laser_that_switches_off_by_itself_is_a_fault(tmp_path: Path) -> None:
    bench, lab, clock = opened(tmp_path)
    bench.evaluate(np.ones((1, 8)), light(), "mesh0")
    lab.laser.lit = False
    clock.time_s += 2.0
    with pytest.raises(DeviceError, match="laser_dark"):
        bench.evaluate(np.ones((1, 8)), light(), "mesh0")


def test_saturated_readings_are_flagged_and_set_to_full_scale(tmp_path: Path) -> None:
    bench, lab, _ = opened(tmp_path)
    lab.daq.light = lambda: np.array([np.inf, 10.0, 9.99, 0, 0, 0, 0, 0])
    readings = bench.evaluate(np.ones((2, 8)), light(1), "mesh0")
    assert readings.flags.tolist() == [[FLAG_SATURATED, FLAG_SATURATED, 0, 0]] * 2
    np.testing.assert_allclose(readings.values[0, 0], [1e-3, 1e-3, 9.99e-4, 0], rtol=1e-6)
    assert bench.evaluate(np.ones((2, 8)), light(1), "mesh1").flags.tolist() == [[0] * 4] * 2


# ---- stops from other threads ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("stop", ["cancel", "safe"])
def test_a_stop_takes_effect_at_the_next_sample(stop: str, tmp_path: Path) -> None:
    clock = WallClock()
    lab = FakeLab(clock)
    bench = bench_of(lab, clock, tmp_path)
    bench.apply(np.full(16, 2.0))
    gate = Gate("read")
    lab.daq.before = gate
    errors: list[DeviceError] = []

    def evaluate() -> None:
        try:
            bench.evaluate(np.full((5, 8), 3.0), light(100), "mesh0")
        except DeviceError as error:
            errors.append(error)

    thread = threading.Thread(target=evaluate)
    thread.start()
    assert gate.reached.wait(10)
    reads = lab.daq.calls.count("read")
    getattr(bench, stop)()  # returns although the readout hangs
    if stop == "safe":
        assert not lab.heaters.volts.any()
    gate.opened.set()
    thread.join(10)
    assert (errors[0].code, errors[0].outcome) == ("interlock", "not_applied")
    assert lab.daq.calls.count("read") == reads
    np.testing.assert_array_equal(lab.heaters.volts, np.full(16, 0.0 if stop == "safe" else 2.0))
    assert bench.status().safe is (stop == "safe")
    bench.close()


def test_safe_ends_a_long_settle_time(tmp_path: Path) -> None:
    clock = SignallingClock()
    lab = FakeLab(clock)
    bench = bench_of(lab, clock, tmp_path, lambda stated: stated.update(settle_s=3600.0))
    clock.waiting.clear()

    def stop() -> None:
        assert clock.waiting.wait(20)
        bench.safe()

    thread = threading.Thread(target=stop)
    thread.start()
    with pytest.raises(DeviceError, match="stopped"):
        bench.evaluate(np.full((1, 8), 3.0), light(), "mesh0")
    thread.join(20)
    assert bench.status().safe


# ---- closing ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("keep_on", [False, True])
def test_close_makes_the_bench_safe_and_closes_all_instruments(keep_on: bool, tmp_path: Path) -> None:
    bench, lab, _ = opened(tmp_path, lambda stated: stated["laser"].update(keep_on=keep_on))
    bench.apply(np.full(16, 2.0))
    bench.evaluate(np.ones((1, 8)), light(), "mesh0")
    bench.close()
    assert not lab.heaters.volts.any()
    assert lab.laser.lit is keep_on
    assert all(one.closed for one in lab.instruments().values())
    bench.close()
    with pytest.raises(DeviceError, match="the bench is closed"):
        bench.apply(np.zeros(16))


def test_only_one_program_can_open_a_bench(tmp_path: Path) -> None:
    bench, _, clock = opened(tmp_path)
    other = FakeLab(clock)
    with pytest.raises(DeviceError, match="is in use by process") as caught:
        bench_of(other, clock, tmp_path)
    assert (caught.value.code, caught.value.retryable) == ("lease", True)
    assert other.heaters.calls == []
    bench.close()
    bench_of(other, clock, tmp_path).close()


def test_loaded_inputs_are_limited_in_size(tmp_path: Path) -> None:
    bench, _, _ = opened(tmp_path, lambda stated: stated["capacity"].update(max_loaded_bytes=4000))
    bench.load_inputs("a", light(200))
    bench.load_inputs("a", light(250))
    with pytest.raises(DeviceError, match="would bring the loaded inputs to 4016 bytes, more than max_loaded_bytes 4000"):
        bench.load_inputs("b", light(1))
