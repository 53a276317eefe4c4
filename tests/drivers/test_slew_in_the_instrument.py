"""Sources that slew by themselves: readings wait until the outputs have reached their setpoints."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from support.fake_instruments import FakeClock, FakeSource

from photonloop.drivers.bench.bench_opening import open_bench, open_lab, open_table
from photonloop.drivers.bench.instrument_handle import InstrumentHandle
from photonloop.drivers.bench.output_channels import OutputChannels, move
from photonloop.drivers.instrument import ChannelLimits
from photonloop.drivers.station.loading import load_station
from photonloop.simulator.emulators.bench_choices import BenchChoices
from photonloop.simulator.emulators.running import running
from photonloop.simulator.parameters import load_chip


@pytest.mark.parametrize("v_per_s", [20.0, 200.0])
def test_readings_wait_for_a_qdac_that_slews(v_per_s: float, tmp_path: Path) -> None:
    with running(load_chip("ideal", ports=4, stages=1, seed=1), BenchChoices("qdac2", "scpi-source")) as virtual:
        path = tmp_path / "station.toml"
        limits = f"[limits]\nslew_v_per_s = {v_per_s}"
        path.write_text(virtual.addresses.station.read_text().replace("[limits]", limits))
        laboratory = virtual.bench.laboratory
        with open_lab(str(path)) as bench:
            stage = bench.describe().stages[0].name
            drives = np.zeros((6, 16))
            drives[::2, 0], drives[1::2, 1] = 5.0, 3.0
            readings = bench.evaluate(drives, np.ones((1, 4)), stage)
            held = [entry.heater_v for entry in laboratory.log][-6:]
            np.testing.assert_allclose(held, drives, atol=1e-6)
            assert bench._outputs.heaters[0].handle.instrument.limits(0).slew_v_per_s == 5 * v_per_s
            bench.apply(drives[0])
            np.testing.assert_allclose(bench.evaluate(drives[:1], np.ones((1, 4)), stage).values, readings.values[:1], rtol=1e-4)


def test_arrival_includes_the_travel_that_is_left() -> None:
    source = FakeSource("heaters", clock := FakeClock(), hardware=ChannelLimits(0.0, 10.0, slew_v_per_s=10.0))
    source.written_limits = {0: source.hardware, 1: source.hardware}
    output = OutputChannels(InstrumentHandle("heaters", source), [0, 1], np.arange(2), np.zeros(2), np.full(2, 10.0), 0.0)
    output.make_safe(clock)
    assert output.arrives_at_s == 1.0  # from any voltage
    clock.time_s = 10.0
    move([output], [np.array([5.0, 2.0])], clock)
    assert output.arrives_at_s == 10.5
    move([output], [np.array([4.0, 2.0])], clock)  # while it is still moving up
    assert output.arrives_at_s == 10.6


def test_the_slew_of_an_instrument_does_not_delay_ramps(tmp_path: Path) -> None:
    """An instrument's slew does not make the ramps of the bench longer."""
    with running(load_chip("ideal", ports=4, stages=1, seed=1), BenchChoices("qdac2", "scpi-source")) as virtual:
        path = tmp_path / "station.toml"
        path.write_text(virtual.addresses.station.read_text().replace("[limits]", "[limits]\nslew_v_per_s = 50.0"))
        clock = FakeClock()
        with open_bench(load_station(path), lambda table: open_table(tmp_path, table), clock=clock, locks=tmp_path) as bench:
            before_s = clock.now_s()
            bench.apply(np.full(16, 5.0))
            assert clock.now_s() - before_s == pytest.approx(5.0 / 50.0, abs=0.003)
