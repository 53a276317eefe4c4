"""An optical switch in front of the inputs: its driver against transcripts, and a bench on a virtual switch."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from support.fake_instruments import FakeClock, FakeLab, FakeSwitch, bench_of
from support.replays import driven

from photonloop.drivers.bench.bench_opening import open_lab
from photonloop.drivers.instrument import OpticalSwitch
from photonloop.drivers.switches.scpi_switch import ScpiSwitchSettings, open_scpi_switch
from photonloop.protocols.config import ConfigError, validate
from photonloop.protocols.errors import DeviceError
from photonloop.simulator.emulators.bench_choices import BenchChoices
from photonloop.simulator.emulators.running import running
from photonloop.simulator.parameters import load_chip

NO_ERROR = '+0,"No error"'
IDENTITY = ("*IDN?", "ACME,SW8,7,1.0")
TABLE: dict[str, Any] = {"channels": 8, "select": "ROUT:CHAN {channel}", "query": "ROUT:CHAN?", "error": "SYST:ERR?"}
OPENING = [IDENTITY, ("SYST:ERR?", NO_ERROR)]


def switch(lines, **changes: Any):
    settings = validate(ScpiSwitchSettings, {**TABLE, **changes}, "table")
    return driven(open_scpi_switch, settings, settings.dialect, lines)


# ---- the driver ------------------------------------------------------------------------------------------------------


def test_a_channel_is_selected_and_confirmed():
    lines = [*OPENING, (":ROUT:CHAN 3;:SYST:ERR?", NO_ERROR), ("ROUT:CHAN?", "3"), ("ROUT:CHAN?", "+3")]
    with switch(lines) as instrument:
        assert isinstance(instrument, OpticalSwitch)
        instrument.select(2)
        assert instrument.selected() == 2


def test_the_dark_position():
    lines = [*OPENING, (":ROUT:CHAN 0;:SYST:ERR?", NO_ERROR), ("ROUT:CHAN?", "0"), ("ROUT:CHAN?", "0")]
    with switch(lines, dark=0) as instrument:
        assert instrument.has_dark
        instrument.select(None)
        assert instrument.selected() is None


def test_a_lost_command_is_sent_again():
    sent = (":ROUT:CHAN 3;:SYST:ERR?", NO_ERROR)
    with switch([*OPENING, sent, ("ROUT:CHAN?", "1"), sent, ("ROUT:CHAN?", "3")]) as instrument:
        instrument.select(2)
    lines = [*OPENING, sent, ("ROUT:CHAN?", "1"), sent, ("ROUT:CHAN?", "1")]
    with switch(lines) as instrument, pytest.raises(DeviceError, match="was switched to position 3, but reports position 1"):
        instrument.select(2)


def test_plain_commands_without_an_error_query():
    lines = [IDENTITY, ("S 5", ""), ("S?", "(@5)")]
    with switch(lines, select="S {channel}", query="S?", error="", joins=False) as instrument:
        instrument.select(4)


def test_a_switch_that_was_turned_by_someone_else_is_an_error():
    lines = [*OPENING, (":ROUT:CHAN 3;:SYST:ERR?", NO_ERROR), ("ROUT:CHAN?", "3"), ("SYST:ERR?", NO_ERROR), ("ROUT:CHAN?", "1")]
    with switch(lines) as instrument:
        instrument.select(2)
        with pytest.raises(DeviceError, match="is at position 1 although position 3 was selected"):
            instrument.check()


def test_what_the_driver_refuses():
    with switch(OPENING) as instrument:
        for channel, words in ((8, "has no channel 8"), (None, "has no dark position")):
            with pytest.raises(DeviceError, match=words) as caught:
                instrument.select(channel)
            assert caught.value.code == "bad_request"
    with pytest.raises(ConfigError, match="dark is 3, which is the number of channel 2"):
        validate(ScpiSwitchSettings, {**TABLE, "dark": 3}, "table")
    with pytest.raises(ConfigError, match="lacks the placeholder"):
        validate(ScpiSwitchSettings, {**TABLE, "select": "ROUT:CHAN 1"}, "table")


# ---- a bench with a switch -------------------------------------------------------------------------------------------


def with_switch(stated: dict[str, Any]) -> None:
    stated["instruments"].append({"name": "switch", "driver": "fake", "address": "switch"})
    stated["instruments"] = [table for table in stated["instruments"] if table["name"] != "modulators"]
    stated["inputs"] = {"kind": "switch", "instrument": "switch", "channels": [2, 0, 1, 3], "settle_s": 0.02}


def switched(tmp_path: Path, *, has_dark: bool = True):
    lab = FakeLab(clock := FakeClock())
    switch = FakeSwitch("switch", clock, has_dark=has_dark)
    lab.extra = {"switch": switch}
    return bench_of(lab, clock, tmp_path, with_switch), switch, clock


def test_the_switch_selects_the_lit_port_and_settles(tmp_path: Path) -> None:
    bench, switch, clock = switched(tmp_path)
    assert (bench.describe().inputs_at_once, bench.describe().input_ports) == ("one", 4)
    clock.time_s = 1.0
    samples = np.array([[1, 0, 0, 0], [1, 0, 0, 0], [0, 0, 0, 0], [0, 0, 0, 1]], np.float32)
    bench.evaluate(np.zeros((1, 8)), samples, "mesh0")
    assert switch.history == [2, None, 3]
    assert clock.now_s() == pytest.approx(1.0 + 3 * 0.02, abs=2e-3)
    assert bench.status().health["input_writes"] == 3.0
    bench.load_inputs("x", samples)


@pytest.mark.parametrize(
    ("sample", "words"),
    [
        ([1, 1, 0, 0], "row 1 of inputs lights 2 inputs"),
        ([0.5, 0, 0, 0], "inputs contains the amplitude 0.5, but an optical switch has only 0 and 1"),
        ([0, 0, 0, 0], "row 1 of inputs has no lit port, but the switch has no dark position: use set_light"),
    ],
)
def test_inputs_that_a_switch_cannot_set_are_refused(sample: list[float], words: str, tmp_path: Path) -> None:
    bench, switch, _ = switched(tmp_path, has_dark=False)
    for call in (
        lambda: bench.evaluate(np.zeros((1, 8)), np.array([[1, 0, 0, 0], sample]), "mesh0"),
        lambda: bench.load_inputs("x", np.array([[1, 0, 0, 0], sample])),
    ):
        with pytest.raises(DeviceError, match=words) as caught:
            call()
        assert (caught.value.code, caught.value.outcome) == ("bad_request", "not_applied")
    assert switch.history == []


def test_after_a_failure_the_switch_is_set_again(tmp_path: Path) -> None:
    bench, switch, _ = switched(tmp_path)
    one = np.eye(4, dtype=np.float32)[:1]
    bench.evaluate(np.zeros((1, 8)), one, "mesh0")
    bench.evaluate(np.zeros((1, 8)), one, "mesh0")
    assert switch.history == [2]
    switch.fail_once("select")
    with pytest.raises(DeviceError, match="the bench was made safe"):
        bench.evaluate(np.zeros((1, 8)), np.eye(4, dtype=np.float32)[1:2], "mesh0")
    bench.clear_fault("switch_failed")
    bench.evaluate(np.zeros((1, 8)), one, "mesh0")
    assert switch.history == [2, 2]


def test_a_bench_on_a_virtual_switch(tmp_path: Path) -> None:
    """The power at the detectors comes from the selected port: rows of the intensity matrix, not their sum."""
    with running(load_chip("ideal", ports=4, stages=1, seed=2), BenchChoices(inputs="switch"), folder=tmp_path) as virtual:
        assert virtual.state()["lit_port"] is None
        with open_lab(str(virtual.addresses.station)) as bench:
            description = bench.describe()
            assert (description.inputs_at_once, description.input_ports) == ("one", 4)
            stage = description.stages[0]
            readings = bench.evaluate(np.zeros((1, stage.channels)), np.vstack([np.eye(4), np.zeros((1, 4))]), stage.name)
            values = readings.values[0].astype(float)
            assert virtual.state()["lit_port"] is None  # the last sample was dark
        power = values[:4].sum(axis=1)
        np.testing.assert_allclose(power, power[0], rtol=1e-2)  # a mesh without loss keeps the power of every input
        assert np.abs(values[4]).max() < 1e-3 * power[0]


def test_a_virtual_bench_with_a_switch_has_no_modulators() -> None:
    with (
        pytest.raises(ConfigError, match="modulators is 'qdac2', but with inputs 'switch' there are no modulators"),
        running(load_chip("ideal", ports=4, stages=1), BenchChoices(modulators="qdac2", inputs="switch")),
    ):
        pass
