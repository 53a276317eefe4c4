"""A bench whose heater source steps through lists: readings, held drive, and the state of the source afterwards."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from benchmarks import lab
from support.fake_device import wait_until
from support.fake_instruments import SignallingClock

from photonloop.drivers.bench.bench_device import Bench
from photonloop.drivers.bench.bench_opening import open_bench, open_table
from photonloop.drivers.station.loading import load_station
from photonloop.drivers.station.schema import Station
from photonloop.protocols.device import Readings
from photonloop.protocols.errors import DeviceError
from photonloop.simulator.emulators.bench_choices import BenchChoices
from photonloop.simulator.emulators.laboratory import STAMPS, stamped_sequence
from photonloop.simulator.emulators.running import RunningBench, running
from photonloop.simulator.parameters import load_chip

IDEAL = load_chip("ideal", ports=4, stages=1, seed=0)
CHOICES = BenchChoices(heaters="qdac2", modulators="scpi-source", detectors="scpi-readout", laser="scpi-laser")
HELD_V = np.linspace(0.5, 1.5, 16)
SETTINGS_V = HELD_V + np.random.default_rng(0).uniform(-0.01, 0.01, (20, 16))
"""More settings than one list of 16 channels can hold."""
LIGHT = np.array([[1.0, 0.2, 0.3, 0.4], [0.1, 0.9, 0.5, 0.6]], np.float32)
TIMEOUT_S = 0.25
"""Of instruments that are made to fail."""
PATIENT_S = 10.0
"""Of instruments that answer: a pause of a busy machine is no timeout."""
STEP, LOAD = "tint", "list:volt"


@contextmanager
def opened(
    tmp_path: Path,
    change: Callable[[Station], Station] = lambda station: station,
    choices: BenchChoices = CHOICES,
    timeout_s: float = PATIENT_S,
) -> Iterator[tuple[Bench, RunningBench]]:
    """Yield a bench that steps through lists, and its virtual instruments."""
    with running(IDEAL, choices, stamped=True) as virtual:
        station = lab.with_lists(load_station(virtual.addresses.station))
        tables = tuple(table.model_copy(update={"timeout_s": timeout_s}) for table in station.instruments)
        station = change(station.model_copy(update={"instruments": tables, "watch_s": 3600.0}))
        with open_bench(station, partial(open_table, tmp_path), clock=SignallingClock(), locks=tmp_path) as bench:
            bench.apply(HELD_V)
            yield bench, virtual


def recorded_messages(virtual: RunningBench) -> list[str]:
    """Return a list to which every further message to the heater source is appended."""
    messages: list[str] = []
    emulator = virtual.bench.units["qdac2"].emulator
    handle = emulator.handle

    def record(message: bytes, *, unread: bool = False):
        messages.append(message.decode())
        return handle(message, unread=unread)

    emulator.handle = record  # pyright: ignore[reportAttributeAccessIssue]
    return messages


def modes(virtual: RunningBench) -> set[str]:
    """Return the modes of all outputs that the source reports."""
    emulator = virtual.bench.units["qdac2"].emulator
    return set(virtual.call(lambda: emulator.handle(b"sour:volt:mode? (@1:24)").data.decode().strip()).split(","))


def is_traced(virtual: RunningBench, readings: Readings, settings_v: np.ndarray) -> bool:
    """Return whether every reading was measured while the heaters were at its setting."""
    laboratory = virtual.bench.laboratory
    log = virtual.call(lambda: {entry.sequence % STAMPS: entry for entry in laboratory.log})
    for setting, volts in enumerate(settings_v):
        for amps in readings.values[setting].ravel():
            entry = log[stamped_sequence(float(amps), laboratory.full_scale_a[0])]
            if np.abs(entry.heater_v - volts).max() > 1e-5:
                return False
    return True


def holds(virtual: RunningBench, volts: np.ndarray) -> bool:
    return bool(np.abs(np.array(virtual.state()["heater_v"]) - volts).max() < 1e-5)


def test_settings_are_loaded_once_and_each_takes_one_short_message(tmp_path: Path) -> None:
    with opened(tmp_path) as (bench, virtual):
        bench.evaluate(SETTINGS_V[:1], LIGHT, "mesh0")  # switches the light on and reads all monitors once
        messages = recorded_messages(virtual)
        readings = bench.evaluate(SETTINGS_V, LIGHT, "mesh0")
        assert is_traced(virtual, readings, SETTINGS_V)
        loads = [message for message in messages if LOAD in message]
        steps = [message for message in messages if STEP in message]
        assert (len(loads), len(steps), len(messages)) == (2, 20, 23)  # one more ends the list at the held drive
        assert max(map(len, steps)) < 80
        assert holds(virtual, HELD_V)
        assert modes(virtual) == {"FIX"}
        assert bench.status().health["heater_writes"] == 1 + 1 + 2 + 20 + 1  # open, apply, a setting and back, all and back


def test_no_list_is_used_for_few_settings_or_if_ramps_are_needed(tmp_path: Path) -> None:
    def slowed(station: Station) -> Station:
        return station.model_copy(update={"limits": station.limits.model_copy(update={"slew_v_per_s": 5.0})})

    with opened(tmp_path) as (bench, virtual):
        messages = recorded_messages(virtual)
        assert is_traced(virtual, bench.evaluate(SETTINGS_V[:3], LIGHT, "mesh0"), SETTINGS_V[:3])
        same = np.tile(SETTINGS_V[:1], (6, 1))
        assert is_traced(virtual, bench.evaluate(same, LIGHT, "mesh0"), same)
        assert not any(LOAD in message for message in messages)
    with opened(tmp_path, slowed) as (bench, virtual):
        messages = recorded_messages(virtual)
        apart = SETTINGS_V[:6]  # 20 mV take 4 ms at 5 V/s
        bench.evaluate(apart, LIGHT, "mesh0")
        assert not any(LOAD in message for message in messages)
        near = HELD_V + 0.2 * (SETTINGS_V[:6] - HELD_V)
        readings = bench.evaluate(near, LIGHT, "mesh0")
        assert sum(STEP in message for message in messages) == 6
        assert len(readings.values) == 6


def test_only_heaters_that_change_are_listed_and_modulators_on_the_same_source_leave_them_alone(tmp_path: Path) -> None:
    with opened(tmp_path, choices=BenchChoices("qdac2", "qdac2", "scpi-readout", "scpi-laser")) as (bench, virtual):
        messages = recorded_messages(virtual)
        some = np.tile(HELD_V, (6, 1))
        some[:, 3:5] = SETTINGS_V[:6, 3:5]
        assert is_traced(virtual, bench.evaluate(some, LIGHT, "mesh0"), some)
        (load,) = [message for message in messages if LOAD in message]
        assert load.count("list:volt ") == 2
        assert sum(STEP in message for message in messages) == 6
        assert holds(virtual, HELD_V)
        assert modes(virtual) == {"FIX"}


def test_the_last_setting_may_be_the_held_drive(tmp_path: Path) -> None:
    with opened(tmp_path) as (bench, virtual):
        settings = np.vstack([SETTINGS_V[:5], HELD_V])
        bench.evaluate(settings, LIGHT, "mesh0")
        assert holds(virtual, HELD_V)
        assert modes(virtual) == {"FIX"}


@pytest.mark.parametrize("match", [STEP, LOAD])
@pytest.mark.parametrize("after", [0, 7])
@pytest.mark.parametrize("fault", ["silence", "late", "garbage"])
def test_no_setting_is_wrong_after_a_lost_answer(fault: str, after: int, match: str, tmp_path: Path) -> None:
    with opened(tmp_path, timeout_s=TIMEOUT_S) as (bench, virtual):
        virtual.inject("qdac2", fault, match=match, after=after if match == STEP else after // 7, delay_s=1.5 * TIMEOUT_S)
        for _ in range(2):
            assert is_traced(virtual, bench.evaluate(SETTINGS_V, LIGHT, "mesh0"), SETTINGS_V)
            assert holds(virtual, HELD_V)
            assert modes(virtual) == {"FIX"}
        assert virtual.state()["instruments"]["qdac2"]["faults"] == {fault: 1}
        assert not bench.status().faults


@pytest.mark.parametrize("fault", ["disconnect", "reset", "error"])
@pytest.mark.parametrize("match", [STEP, LOAD])
def test_a_lost_or_failing_source_within_a_list_ends_in_a_clean_stop(fault: str, match: str, tmp_path: Path) -> None:
    with opened(tmp_path, timeout_s=TIMEOUT_S) as (bench, virtual):
        virtual.inject("qdac2", fault, match=match, after=3 if match == STEP else 1)
        with pytest.raises(DeviceError, match="qdac2.*the bench was made safe"):
            bench.evaluate(SETTINGS_V, LIGHT, "mesh0")
        assert holds(virtual, np.zeros(16))
        assert modes(virtual) == {"FIX"}
        assert bench.status().safe
        bench.clear_fault("qdac2_failed")
        bench.apply(HELD_V)
        assert is_traced(virtual, bench.evaluate(SETTINGS_V, LIGHT, "mesh0"), SETTINGS_V)


@pytest.mark.parametrize("fault", ["late", "garbage"])
def test_a_source_with_invalid_answers_within_a_list_goes_to_zero(fault: str, tmp_path: Path) -> None:
    with opened(tmp_path, timeout_s=TIMEOUT_S) as (bench, virtual):
        virtual.inject("qdac2", fault, match="tint", after=4, delay_s=1.5 * TIMEOUT_S)
        virtual.inject("qdac2", fault, after=40, count=100_000, delay_s=1.5 * TIMEOUT_S)
        with pytest.raises(DeviceError, match="qdac2 was sent to its safe state, but did not confirm it"):
            for _ in range(20):
                bench.evaluate(SETTINGS_V, LIGHT, "mesh0")
        wait_until(lambda: holds(virtual, np.zeros(16)), 20)
        assert modes(virtual) == {"FIX"}
        assert not bench.status().safe
        virtual.call(virtual.bench.units["qdac2"].faults.clear)


@pytest.mark.parametrize("act", ["cancel", "safe"])
def test_a_stop_within_a_list_leaves_no_probe(act: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with opened(tmp_path) as (bench, virtual):
        clock = bench._clock
        assert isinstance(clock, SignallingClock)
        driver = bench._handles["qdac2"].instrument
        go, count = driver.go_to_step, iter(range(100))  # pyright: ignore[reportAttributeAccessIssue]
        thread = threading.Thread(target=getattr(bench, act))

        def stopped(step: int) -> None:
            if next(count) == 4:
                clock.woken.clear()
                thread.start()
                assert clock.woken.wait(20)
            go(step)

        monkeypatch.setattr(driver, "go_to_step", stopped)
        with pytest.raises(DeviceError, match="stopped between settings"):
            bench.evaluate(SETTINGS_V, LIGHT, "mesh0")
        thread.join(20)
        assert not thread.is_alive()
        assert holds(virtual, HELD_V if act == "cancel" else np.zeros(16))
        assert modes(virtual) == {"FIX"}


def test_ctrl_c_within_a_list_leaves_no_probe(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with opened(tmp_path) as (bench, virtual):
        driver = bench._handles["qdac2"].instrument
        go, count = driver.go_to_step, iter(range(100))  # pyright: ignore[reportAttributeAccessIssue]

        def interrupted(step: int) -> None:
            go(step)
            if next(count) == 3:
                raise KeyboardInterrupt

        monkeypatch.setattr(driver, "go_to_step", interrupted)
        with pytest.raises(KeyboardInterrupt):
            bench.evaluate(SETTINGS_V, LIGHT, "mesh0")
        assert holds(virtual, np.zeros(16))
        assert modes(virtual) == {"FIX"}
        assert bench.status().safe


def test_ctrl_c_after_a_probe_was_written_leaves_no_probe(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also if no list is used and the held drive is 0 V."""
    with opened(tmp_path) as (bench, virtual):
        bench.apply(np.zeros(16))
        driver = bench._handles["qdac2"].instrument
        write = driver.set_volts  # pyright: ignore[reportAttributeAccessIssue]

        def interrupted(volts: dict[int, float]) -> None:
            write(volts)
            if any(volts.values()):
                raise KeyboardInterrupt

        monkeypatch.setattr(driver, "set_volts", interrupted)
        with pytest.raises(KeyboardInterrupt):
            bench.evaluate(SETTINGS_V[:2], LIGHT, "mesh0")
        assert holds(virtual, np.zeros(16))


def test_lists_are_not_used_if_the_source_does_not_step_as_expected(tmp_path: Path) -> None:
    with opened(tmp_path) as (bench, virtual):
        unit = virtual.bench.units["qdac2"].emulator
        handle = unit.handle
        # A unit that ignores triggers.
        unit.handle = lambda message, unread=False: handle(message.replace(b":tint 2;", b""), unread=unread)  # pyright: ignore[reportAttributeAccessIssue]
        messages = recorded_messages(virtual)
        for _ in range(2):
            assert is_traced(virtual, bench.evaluate(SETTINGS_V, LIGHT, "mesh0"), SETTINGS_V)
        assert sum(LOAD in message for message in messages) == 1
        assert holds(virtual, HELD_V)
        assert not bench.status().faults
