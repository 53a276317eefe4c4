"""Faults of every transport on virtual instruments: how the bench ends, and what the table of them finds."""

from __future__ import annotations

import json
import time
from functools import partial
from pathlib import Path

import fault_matrix
import numpy as np
import pytest

from photonloop.drivers.bench.bench_opening import open_bench, open_table
from photonloop.drivers.registry import open_instrument
from photonloop.drivers.station.schema import load_station
from photonloop.drivers.transports.connection_settings import ConnectionSettings
from photonloop.drivers.transports.text import TextTransport
from photonloop.protocols.errors import DeviceError
from photonloop.simulator.emulators.bench_choices import BenchChoices
from photonloop.simulator.emulators.running import running
from photonloop.simulator.parameters import load_chip

IDEAL = load_chip("ideal", ports=4, stages=1, seed=0)
WRITES = "\x01\x10"


def test_every_transport_and_every_fault_ends_well(capsys: pytest.CaptureFixture[str]) -> None:
    assert fault_matrix.main(["--json", "--small"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert (found["hangs"], found["stale"]) == (0, 0)
    cases = {(c["transport"], c["fault"], c["phase"]): c for c in found["cases"]}
    assert len(cases) == 3 * 5 * 3
    assert {c["outcome"] for c in cases.values()} == {"retry-and-continue", "clean stop"}
    assert all(c["readings"] >= 48 for c in cases.values())
    # A reading does no harm when it is repeated; a source that was away is not driven on as if nothing had been.
    for transport in ("visa-tcp", "serial", "modbus-tcp"):
        for fault in ("silence", "late", "garbage"):
            assert cases[transport, fault, "read"]["outcome"] == "retry-and-continue"
    for transport in ("visa-tcp", "serial"):
        for phase in ("apply", "idle"):
            reset = cases[transport, "reset", phase]
            assert (reset["outcome"], reset["safe"]) == ("clean stop", "at once")


@pytest.mark.parametrize(("transport", "phase"), [("visa-tcp", "idle"), ("serial", "apply")])
def test_an_instrument_that_is_restarted_at_every_word_is_given_up(
    transport: str, phase: fault_matrix.Phase, tmp_path: Path
) -> None:
    drives_between = next(drives_between for drives_between in fault_matrix.WAYS if drives_between.transport == transport)
    with running(IDEAL, drives_between.choices, stamped=True) as virtual:
        case = fault_matrix.run_case(drives_between, virtual, "reset", phase, lasting=True, locks=tmp_path)
    assert case.good, case
    assert case.outcome == "clean stop"


@pytest.mark.parametrize(
    ("transport", "fault", "phase"),
    [("visa-tcp", "garbage", "apply"), ("visa-tcp", "late", "idle"), ("serial", "garbage", "idle")],
)
def test_a_source_that_hears_and_is_not_understood_stands_at_zero(
    transport: str, fault: str, phase: fault_matrix.Phase, tmp_path: Path
) -> None:
    drives_between = next(drives_between for drives_between in fault_matrix.WAYS if drives_between.transport == transport)
    with running(IDEAL, drives_between.choices, stamped=True) as virtual:
        case = fault_matrix.run_case(drives_between, virtual, fault, phase, lasting=True, locks=tmp_path)
    assert case.good, case
    assert (case.outcome, case.safe) == ("clean stop", fault_matrix.UNCONFIRMED)
    named = drives_between.struck[phase]
    assert f"the rest of the bench was made safe, {named} was told to go to its safe state, which nothing confirms" in case.detail


def test_the_table_knows_a_source_that_hears_and_is_driven(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(TextTransport, "send_without_reply", lambda *_: None)
    drives_between = fault_matrix.WAYS[0]
    with running(IDEAL, drives_between.choices, stamped=True) as virtual:
        case = fault_matrix.run_case(drives_between, virtual, "garbage", "apply", lasting=True, locks=tmp_path)
    assert not case.good
    assert "the source hears, and its heaters are driven" in case.detail


def test_the_table_knows_a_stale_reading_and_a_slow_call(tmp_path: Path) -> None:
    drives_between = fault_matrix.WAYS[0]
    with running(IDEAL, drives_between.choices, stamped=True) as virtual:
        station = load_station(virtual.addresses.station)
        clock = fault_matrix.SkippingClock()
        opener = partial(open_table, tmp_path)
        with open_bench(station, opener, clock=clock, locks=tmp_path) as bench:
            watcher = fault_matrix.Watcher(bench, virtual, clock, deadline_s=-fault_matrix.MARGIN_S)
            watcher.evaluate()
            assert (watcher.traced, watcher.stale) == (24, 0)
            evaluate = bench.evaluate
            kept = evaluate(fault_matrix._SETTINGS_V, fault_matrix._LIGHT, "mesh0")
            bench.evaluate = lambda *_: kept  # pyright: ignore[reportAttributeAccessIssue]
            watcher.evaluate()
            assert watcher.stale == 24
            with pytest.raises(fault_matrix._HungError):
                watcher.call(lambda: time.sleep(0.1))
            assert watcher.hangs == 1


def test_a_readout_that_fell_silent_over_its_settings_gets_them_before_it_is_read_again() -> None:
    with running(IDEAL, BenchChoices(detectors="labjack-t7"), stamped=True) as virtual:
        unit = virtual.bench.units["labjack-t7"]
        link = ConnectionSettings(virtual.addresses.instruments["labjack-t7"], timeout_s=0.25)
        labjack = open_instrument("labjack-t7", link, {"resolution": 5})
        virtual.inject("labjack-t7", "reset", now=True)
        virtual.inject("labjack-t7", "silence", count=100, match=WRITES)
        with pytest.raises(DeviceError, match="did not answer"):
            labjack.read([0])  # pyright: ignore[reportAttributeAccessIssue]
        assert unit.emulator._resolution[0] == 0  # pyright: ignore[reportAttributeAccessIssue]
        virtual.call(unit.faults.clear)
        assert np.isfinite(labjack.read([0])).all()  # pyright: ignore[reportAttributeAccessIssue]
        assert unit.emulator._resolution[0] == 5  # pyright: ignore[reportAttributeAccessIssue]
        labjack.close()


@pytest.mark.parametrize("kind", ["disconnect", "reset"])
def test_a_source_that_is_lost_whenever_it_is_set_up_is_given_up(kind: str, tmp_path: Path) -> None:
    with running(IDEAL, fault_matrix.WAYS[0].choices) as virtual:
        station = fault_matrix.timed(load_station(virtual.addresses.station))
        with open_bench(station, partial(open_table, tmp_path), locks=tmp_path) as bench:
            bench.apply(np.full(16, 1.0))
            virtual.inject("scpi-source", "disconnect", now=True)
            virtual.inject("scpi-source", kind, count=10_000, match="PROT")
            with pytest.raises(DeviceError, match="scpi-source"):
                bench.apply(np.full(16, 2.0))
            virtual.call(virtual.bench.units["scpi-source"].faults.clear)
            bench.clear_fault("scpi-source_failed")
            bench.apply(np.full(16, 2.0))
            assert virtual.state()["heater_v"] == pytest.approx([2.0] * 16)
