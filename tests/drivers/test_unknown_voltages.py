"""After a failed setting, channels are unknown until they are confirmed, and making safe writes 0 V to all of them.

Virtual instruments over sockets accept the setting and then fail to answer. The tests cover all combinations of
settings, readback and error queries that the command table of an SCPI source allows.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from support.fake_instruments import FakeClock, FakeLab, Faulty, bench_of

from photonloop.drivers.bench.bench_device import Bench
from photonloop.drivers.bench.bench_opening import open_bench, open_table
from photonloop.drivers.station.loading import load_station
from photonloop.protocols.errors import DeviceError
from photonloop.simulator.emulators.bench_choices import BenchChoices
from photonloop.simulator.emulators.running import RunningBench, running
from photonloop.simulator.parameters import load_chip

ERROR = 'error = "SYST:ERR?"'
QUERY = 'query_volts = "VOLT? (@{channels})"\n'
TIMEOUT_S = 0.05


def of_first_source(old: str, new: str) -> Callable[[str], str]:
    def edit(station: str) -> str:
        assert old in station
        return station.replace(old, new, 1)

    return edit


SETS_THEN_ASKS_VOLTS = of_first_source(ERROR, "joins = false")
JOINS_AND_ASKS_VOLTS = of_first_source(ERROR, "")


def sets_then_asks_errors(station: str) -> str:
    return of_first_source(QUERY, "")(of_first_source(ERROR, f"{ERROR}\njoins = false")(station))


def sets_then_asks_both(station: str) -> str:
    return of_first_source(ERROR, f"{ERROR}\njoins = false")(station)


@contextmanager
def bench_with(edit: Callable[[str], str], tmp_path: Path) -> Iterator[tuple[RunningBench, Bench]]:
    choices = BenchChoices("scpi-source", "qdac2", "scpi-readout", "scpi-laser", "legacy")
    with running(load_chip("ideal", ports=4, stages=1, seed=0), choices) as virtual:
        station = virtual.addresses.station
        text = edit(station.read_text()).replace('driver = "scpi-source"', f'driver = "scpi-source"\ntimeout_s = {TIMEOUT_S}', 1)
        station.write_text(text)
        locks = tmp_path / "locks"
        locks.mkdir()
        bench = open_bench(load_station(station), partial(open_table, station.parent), locks=locks)
        try:
            yield virtual, bench
        finally:
            bench.close()


def heaters(virtual: RunningBench) -> list[float]:
    return virtual.state()["heater_v"]


@pytest.mark.parametrize(
    ("edit", "match", "kind", "count"),
    [
        (SETS_THEN_ASKS_VOLTS, "VOLT? (@", "garbage", 20),
        (SETS_THEN_ASKS_VOLTS, "VOLT? (@", "garbage", 3),
        (SETS_THEN_ASKS_VOLTS, "VOLT? (@", "silence", 3),
        (sets_then_asks_errors, "SYST:ERR?", "silence", 1),
        (JOINS_AND_ASKS_VOLTS, "VOLT? (@", "silence", 3),
        (sets_then_asks_both, "SYST:ERR?", "silence", 1),
        (sets_then_asks_both, "VOLT? (@", "silence", 3),
        (lambda station: station, "VOLT", "silence", 3),
    ],
    ids=[
        "set-then-volts-garbage-lasting",
        "set-then-volts-garbage",
        "set-then-volts-silence",
        "set-then-errors-silence",
        "joined-volts-silence",
        "set-then-both-errors-silence",
        "set-then-both-volts-silence",
        "as-shipped",
    ],
)
def test_heaters_go_to_0_v_after_a_setting_whose_answer_is_lost(
    edit: Callable[[str], str], match: str, kind: str, count: int, tmp_path: Path
) -> None:
    with bench_with(edit, tmp_path) as (virtual, bench):
        channels = bench.describe().channels
        virtual.inject("scpi-source", kind, match=match, count=count)
        with pytest.raises(DeviceError) as caught:
            bench.apply(np.full(channels, 1.5))
        assert caught.value.outcome == "unknown"
        assert heaters(virtual)[:channels] == [0.0] * channels
        assert [fault.name for fault in bench.status().faults] == ["scpi-source_failed"]


def test_the_bench_is_not_safe_until_0_v_is_confirmed(tmp_path: Path) -> None:
    with bench_with(SETS_THEN_ASKS_VOLTS, tmp_path) as (virtual, bench):
        channels = bench.describe().channels
        virtual.inject("scpi-source", "garbage", match="VOLT? (@", count=1000)
        with pytest.raises(DeviceError, match="did not confirm"):
            bench.apply(np.full(channels, 1.5))
        assert heaters(virtual)[:channels] == [0.0] * channels  # 0 V was sent without waiting for an answer
        assert not bench.status().safe
        virtual.call(lambda: [unit.faults.clear() for unit in virtual.bench.units.values()])
        bench.safe()
        assert bench.status().safe


def opened(tmp_path: Path) -> tuple[Bench, FakeLab, FakeClock]:
    lab = FakeLab(clock := FakeClock())
    return bench_of(lab, clock, tmp_path, lambda stated: None), lab, clock


def fail_after_setting(lab: FakeLab, error: Exception) -> None:
    """Make the heater source accept the next setting and then raise `error`."""
    original: Any = lab.heaters.set_volts

    def set_volts(volts: Mapping[int, float]) -> None:
        original(volts)
        lab.heaters.set_volts = original
        raise error

    lab.heaters.set_volts = set_volts


@pytest.mark.parametrize(
    "error",
    [
        DeviceError("transport", "no answer", outcome="not_applied"),
        DeviceError("limit", "too late", outcome="not_applied"),
        DeviceError("device", "complaint", outcome="applied"),
        RuntimeError("a bug"),
        KeyboardInterrupt(),
    ],
    ids=["not_applied", "limit", "applied", "bug", "interrupt"],
)
def test_channels_are_unknown_after_a_failed_setting_whatever_the_error(error: Exception, tmp_path: Path) -> None:
    bench, lab, _ = opened(tmp_path)
    fail_after_setting(lab, error)
    with pytest.raises(type(error) if isinstance(error, KeyboardInterrupt) else DeviceError):
        bench.apply(np.full(16, 1.5))
    assert not lab.heaters.volts.any()
    assert bench.status().safe


def test_a_source_that_restarted_at_rest_is_brought_to_0_v(tmp_path: Path) -> None:
    bench, lab, clock = opened(tmp_path)
    lab.heaters.volts[:] = 1.5  # power-up voltages, while the bench holds 0 V
    lab.heaters.faults.append(Faulty("check", DeviceError("device", "was restarted", retryable=True, outcome="unknown"), times=1))
    clock.time_s += 1000.0
    bench.watch()
    assert not lab.heaters.volts.any()
    assert bench.status().faults


def test_a_failed_query_keeps_channels_known(tmp_path: Path) -> None:
    bench, lab, clock = opened(tmp_path)
    bench.apply(np.full(16, 1.5))
    lab.heaters.calls.clear()
    lab.heaters.faults.append(Faulty("check", DeviceError("transport", "no answer", retryable=True), times=1))
    clock.time_s += 1000.0
    bench.watch()
    assert "safe" not in lab.heaters.calls  # ramped from known voltages
    assert not lab.heaters.volts.any()


def test_a_source_that_restarts_during_a_ramp_is_ramped_from_where_it_is(tmp_path: Path) -> None:
    lab = FakeLab(clock := FakeClock())
    bench = bench_of(lab, clock, tmp_path, lambda stated: stated["limits"].update(slew_v_per_s=10.0))
    handle, waits = bench._handles["heaters"], []

    def restart_at_the_twentieth_wait() -> None:
        waits.append(clock.time_s)
        if len(waits) == 20:
            lab.heaters.volts[:] = 0.0
            handle.invalidations += 1  # as if a check in another thread had found the restart

    clock.on_wait = restart_at_the_twentieth_wait
    lab.heaters.written.clear()
    bench.apply(np.full(16, 3.0))
    written = np.array([volts[0] for _, volts in lab.heaters.written])
    assert len(waits) > 20
    assert lab.heaters.volts.tolist() == [3.0] * 16
    steps = np.diff(written, prepend=0.0)
    restart = int(np.argmin(steps))
    assert steps[restart] < 0  # from the reached voltage back to a first step from 0 V
    assert written[restart] <= 10.0 * 0.05 + 1e-9
    assert np.delete(steps, restart).max() <= 10.0 * 0.05 + 1e-9


def test_the_light_is_off_after_an_interrupt(tmp_path: Path) -> None:
    bench, lab, _ = opened(tmp_path)
    lab.daq.faults.append(Faulty("read", KeyboardInterrupt(), times=1))  # pyright: ignore[reportArgumentType]
    with pytest.raises(KeyboardInterrupt):
        bench.evaluate(np.ones((1, 8)), np.ones((1, 4)), "mesh0")
    assert not lab.laser.lit
    assert not lab.heaters.volts.any()
