"""The fault matrix on virtual instruments: outcomes of the bench, and the errors that the matrix detects."""

from __future__ import annotations

import json
import re
import time
from functools import partial
from pathlib import Path

import fault_cases
import fault_matrix
import numpy as np
import pytest

from photonloop.drivers.bench.bench_opening import open_bench, open_table
from photonloop.drivers.registry import open_instrument
from photonloop.drivers.station.loading import load_station
from photonloop.drivers.transports.connection_settings import ConnectionSettings
from photonloop.drivers.transports.text import TextTransport
from photonloop.protocols.errors import DeviceError
from photonloop.simulator.emulators.bench_choices import BenchChoices
from photonloop.simulator.emulators.running import running
from photonloop.simulator.parameters import load_chip

pytestmark = pytest.mark.slow

IDEAL = load_chip("ideal", ports=4, stages=1, seed=0)
WRITES = "\x01\x10"


def test_every_fault_of_every_transport_has_a_good_outcome(capsys: pytest.CaptureFixture[str]) -> None:
    assert fault_matrix.main(["--json", "--small"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert (found["hangs"], found["stale"]) == (0, 0)
    cases = {(c["transport"], c["fault"], c["phase"]): c for c in found["cases"]}
    assert len(cases) == 3 * 5 * 3
    assert {c["outcome"] for c in cases.values()} == {"retry-and-continue", "clean stop"}
    assert all(c["readings"] >= 48 for c in cases.values())
    # Readings are repeated without harm. A source that lost power must not be driven on without a clean stop.
    for transport in ("visa-tcp", "serial", "modbus-tcp"):
        for fault in ("silence", "late", "garbage"):
            assert cases[transport, fault, "read"]["outcome"] == "retry-and-continue"
    for transport in ("visa-tcp", "serial"):
        for phase in ("apply", "idle"):
            reset = cases[transport, "reset", phase]
            assert (reset["outcome"], reset["safe"]) == ("clean stop", "at once")


@pytest.mark.parametrize(("transport", "phase"), [("visa-tcp", "idle"), ("serial", "apply")])
def test_an_instrument_that_restarts_at_every_message_ends_in_a_clean_stop(
    transport: str, phase: fault_cases.Phase, tmp_path: Path
) -> None:
    setup = next(setup for setup in fault_cases.SETUPS if setup.transport == transport)
    with running(IDEAL, setup.choices, stamped=True) as virtual:
        case = fault_cases.run_case(setup, virtual, "reset", phase, lasting=True, locks=tmp_path)
    assert case.good, case
    assert case.outcome == "clean stop"


@pytest.mark.parametrize(
    ("transport", "fault", "phase"),
    [("visa-tcp", "garbage", "apply"), ("visa-tcp", "late", "idle"), ("serial", "garbage", "idle")],
)
def test_a_source_that_carries_out_commands_but_cannot_be_understood_is_at_zero(
    transport: str, fault: str, phase: fault_cases.Phase, tmp_path: Path
) -> None:
    setup = next(setup for setup in fault_cases.SETUPS if setup.transport == transport)
    with running(IDEAL, setup.choices, stamped=True) as virtual:
        case = fault_cases.run_case(setup, virtual, fault, phase, lasting=True, locks=tmp_path)
    assert case.good, case
    assert (case.outcome, case.safe) == ("clean stop", fault_cases.UNCONFIRMED)
    assert re.search(f"the rest of the bench was made safe.*{setup.faulty[phase]}.*confirm", case.detail), case.detail


def test_a_driven_source_that_carries_out_commands_is_detected(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(TextTransport, "send_without_reply", lambda *_: None)
    setup = fault_cases.SETUPS[0]
    with running(IDEAL, setup.choices, stamped=True) as virtual:
        case = fault_cases.run_case(setup, virtual, "garbage", "apply", lasting=True, locks=tmp_path)
    assert not case.good
    assert "the source carries out commands, but its heaters are driven" in case.detail


def test_stale_readings_and_slow_calls_are_detected(tmp_path: Path) -> None:
    setup = fault_cases.SETUPS[0]
    with running(IDEAL, setup.choices, stamped=True) as virtual:
        station = load_station(virtual.addresses.station)
        clock = fault_cases.SkippingClock()
        opener = partial(open_table, tmp_path)
        with open_bench(station, opener, clock=clock, locks=tmp_path) as bench:
            runner = fault_cases.CaseRunner(bench, virtual, clock, deadline_s=-fault_cases.MARGIN_S)
            runner.evaluate()
            assert (runner.traced, runner.stale) == (24, 0)
            evaluate = bench.evaluate
            kept = evaluate(fault_cases.SETTINGS_V, fault_cases.LIGHT, "mesh0")
            bench.evaluate = lambda *_: kept  # pyright: ignore[reportAttributeAccessIssue]
            runner.evaluate()
            assert runner.stale == 24
            with pytest.raises(fault_cases.HangError):
                runner.call(lambda: time.sleep(0.1))
            assert runner.hangs == 1


def test_a_readout_that_did_not_answer_its_settings_gets_them_again_before_it_is_read() -> None:
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
def test_a_source_that_is_lost_whenever_it_is_set_up_raises(kind: str, tmp_path: Path) -> None:
    with running(IDEAL, fault_cases.SETUPS[0].choices) as virtual:
        station = fault_cases.with_short_timeouts(load_station(virtual.addresses.station))
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
