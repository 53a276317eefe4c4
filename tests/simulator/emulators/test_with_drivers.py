"""The project's drivers with the emulators: two independent implementations of the same manuals."""

from __future__ import annotations

import time
import tomllib
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from importlib import import_module
from typing import Any

import numpy as np
import pytest

from photonloop.protocols.errors import DeviceError
from photonloop.simulator.emulators.bench_choices import BenchChoices
from photonloop.simulator.emulators.laboratory import AMPLIFIER_V
from photonloop.simulator.emulators.running import RunningBench, running
from photonloop.simulator.parameters import load_chip

pytestmark = pytest.mark.slow

opening = pytest.importorskip("photonloop.drivers.transports.connection_settings")

MODULES = {
    "qontrol": "photonloop.drivers.sources.qontrol",
    "qdac2": "photonloop.drivers.sources.qdac2",
    "scpi-source": "photonloop.drivers.sources.scpi_source",
    "labjack-t7": "photonloop.drivers.readouts.labjack_t7",
    "keysight-daq970a": "photonloop.drivers.readouts.keysight_daq",
    "scpi-readout": "photonloop.drivers.readouts.scpi_readout",
    "pm100d": "photonloop.drivers.readouts.pm100d",
    "santec-tsl570": "photonloop.drivers.lasers.santec_tsl570",
    "scpi-laser": "photonloop.drivers.lasers.scpi_laser",
}


@contextmanager
def opened(bench: RunningBench, names: Sequence[str], timeout_s: float = 0.0) -> Iterator[dict[str, Any]]:
    """Open instruments of the station file. `timeout_s` is the timeout of an answer, 0: the driver's own."""
    station = tomllib.loads(bench.addresses.station.read_text(encoding="utf-8"))
    settings = {table["name"]: table.get("settings", {}) for table in station["instruments"]}
    instruments: dict[str, Any] = {}
    try:
        for name in names:
            driver = import_module(MODULES[name]).DRIVER
            link = opening.ConnectionSettings(bench.addresses.instruments[name], name, timeout_s=timeout_s)
            instruments[name] = driver.open(link, driver.settings(**settings.get(name, {})))
        yield instruments
    finally:
        for instrument in instruments.values():
            instrument.close()


@pytest.mark.parametrize(
    "choices",
    [
        BenchChoices("qontrol", "qdac2", "labjack-t7", "santec-tsl570"),
        BenchChoices("scpi-source", "qontrol", "keysight-daq970a", "scpi-laser"),
        BenchChoices("qdac2", "scpi-source", "scpi-readout", "santec-tsl570", laser_command_set="scpi"),
    ],
    ids=["first", "second", "third"],
)
def test_drivers_set_voltages_and_light_and_read_the_detectors(choices: BenchChoices) -> None:
    parameters = load_chip("ideal", ports=4, stages=1, seed=1)
    with running(parameters, choices) as bench:
        wiring, laboratory = bench.bench.wiring, bench.bench.laboratory
        with opened(bench, list(dict.fromkeys((wiring.heaters, wiring.modulators, wiring.detectors, wiring.laser)))) as here:
            here[wiring.laser].set_wavelength_nm(1550.0)
            here[wiring.laser].set_power_w(0.02)
            here[wiring.laser].on()
            assert here[wiring.laser].power_w() == pytest.approx(0.02, rel=1e-3)
            rng = np.random.default_rng(7)
            heater_v, modulator_v = rng.uniform(0, 5, 16), rng.uniform(0.5, 4, 4)
            here[wiring.heaters].set_volts(dict(zip(wiring.heater_channels, heater_v, strict=True)))
            here[wiring.modulators].set_volts(dict(zip(wiring.modulator_channels, modulator_v, strict=True)))
            volts = here[wiring.detectors].read(wiring.detector_channels)
            np.testing.assert_allclose(laboratory.heater_v, heater_v, atol=1.1e-3)
            np.testing.assert_allclose(laboratory.modulator_v, modulator_v, atol=1.1e-3)
            expected = bench.call(lambda: laboratory.measure(0)) * AMPLIFIER_V / laboratory.full_scale_a[0]
            assert expected.max() > 0.1
            np.testing.assert_allclose(volts, expected, atol=1e-3)
            amps = here[wiring.heaters].read_amps(wiring.heater_channels)
            np.testing.assert_allclose(amps, heater_v / parameters.heater.resistance_ohm, atol=5e-6)
            for instrument in here.values():
                instrument.check()
            here[wiring.heaters].safe()
            assert (laboratory.heater_v == 0.0).all()


@pytest.mark.parametrize("fault", ["late", "garbage"])
@pytest.mark.parametrize("heaters", ["qontrol", "qdac2", "scpi-source"])
def test_a_source_that_carries_out_commands_but_cannot_be_understood_goes_to_zero(heaters: str, fault: str) -> None:
    unconfirmed = import_module("photonloop.drivers.instrument").UnconfirmedError
    errors = import_module("photonloop.protocols.errors").DeviceError
    choices = BenchChoices(heaters, "scpi-source" if heaters == "qdac2" else "qdac2", "scpi-readout", "scpi-laser")
    with running(load_chip("ideal", ports=2, stages=1), choices) as bench, opened(bench, [heaters], timeout_s=0.2) as here:
        source = here[heaters]
        channels = bench.bench.wiring.heater_channels
        source.set_volts(dict.fromkeys(channels, 2.0))
        bench.inject(heaters, fault, count=10_000, delay_s=0.3)
        with pytest.raises(errors, match="did not answer|is invalid") as error:
            source.set_volts(dict.fromkeys(channels, 3.0))
        assert error.value.code == "transport"
        with pytest.raises(unconfirmed, match="0 V was sent to it without confirmation") as error:
            source.safe()
        assert (error.value.code, error.value.outcome) == ("transport", "unknown")
        settled = wait_until(lambda: not any(bench.state()["heater_v"]))
        assert settled, bench.state()["heater_v"]
        bench.call(bench.bench.units[heaters].faults.clear)
        # The transport may not be synchronised. It resynchronises, and takes no stale answer for a new one.
        assert wait_until(lambda: succeeds(source.safe, errors))
        np.testing.assert_allclose(source.read_volts(channels), 0.0, atol=2e-3)
        source.set_volts(dict.fromkeys(channels, 1.0))
        np.testing.assert_allclose(bench.state()["heater_v"], 1.0, atol=2e-3)


@pytest.mark.parametrize("laser", ["santec-tsl570", "scpi-laser"])
def test_a_laser_that_carries_out_commands_but_cannot_be_understood_is_switched_off(laser: str) -> None:
    unconfirmed = import_module("photonloop.drivers.instrument").UnconfirmedError
    errors = import_module("photonloop.protocols.errors").DeviceError
    choices = BenchChoices("scpi-source", "qdac2", "scpi-readout", laser)
    with running(load_chip("ideal", ports=2, stages=1), choices) as bench, opened(bench, [laser], timeout_s=0.2) as here:
        here[laser].set_power_w(0.01)
        here[laser].on()
        bench.inject(laser, "garbage", count=10_000)
        with pytest.raises(errors):
            here[laser].is_on()  # out of step from here on, so that not even the first attempt sends "off"
        with pytest.raises(unconfirmed, match="off was sent to it without confirmation"):
            here[laser].off()
        assert wait_until(lambda: not bench.state()["laser"]["is_on"])


def wait_until(condition: Callable[[], bool], within_s: float = 3.0) -> bool:
    """Return whether `condition` becomes true in time."""
    end_s = time.monotonic() + within_s
    while time.monotonic() < end_s:
        if condition():
            return True
        time.sleep(0.02)
    return condition()


def succeeds(act: Callable[[], object], refusal: type[Exception]) -> bool:
    """Return whether `act` does not raise `refusal`."""
    try:
        act()
    except refusal:
        return False
    return True


def test_the_power_meter_reads_the_tap_of_the_laser() -> None:
    with running(load_chip("ideal", ports=2, stages=1)) as bench, opened(bench, ["pm100d", "santec-tsl570"]) as here:
        here["santec-tsl570"].set_power_w(0.01)
        here["santec-tsl570"].on()
        assert here["pm100d"].read([0])[0] == pytest.approx(1e-4, rel=2e-3)
        here["santec-tsl570"].off()
        assert here["pm100d"].read([0])[0] == pytest.approx(0.0, abs=1e-8)


def test_limits_are_written_into_the_modules_and_again_after_a_loss_of_power() -> None:
    limits = import_module("photonloop.drivers.instrument").ChannelLimits
    errors = import_module("photonloop.protocols.errors").DeviceError
    with running(load_chip("ideal", ports=2, stages=1)) as bench, opened(bench, ["qontrol"]) as here:
        chain, emulator = here["qontrol"], bench.bench.units["qontrol"].emulator
        chain.set_limits({channel: limits(0.0, 5.0, max_a=0.01) for channel in range(4)})
        query = lambda: bench.call(lambda: emulator.handle(b"vmax2?").data)  # noqa: E731
        assert query() == b"+5.000000 V\n"
        chain.set_volts({2: 3.0})
        bench.inject("qontrol", "reset")
        with pytest.raises(errors) as error:
            chain.set_volts({2: 3.0})
        assert (error.value.code, error.value.outcome) == ("device", "unknown")
        assert query() == b"+5.000000 V\n"
        chain.set_volts({2: 3.0})
        assert bench.bench.laboratory.heater_v[2] == pytest.approx(3.0, abs=1e-3)


def test_a_chain_that_is_opened_again_keeps_its_voltages() -> None:
    """Opening a chain and setting one channel does not change the others."""
    with running(load_chip("ideal", ports=4, stages=1, seed=1), BenchChoices("qontrol", "qdac2")) as bench:
        held = bench.bench.laboratory.heater_v
        with opened(bench, ["qontrol"]) as here:
            here["qontrol"].set_volts({0: 1.0, 1: 3.0})
        with opened(bench, ["qontrol"]) as here:
            here["qontrol"].set_volts({0: 2.0})
            np.testing.assert_allclose(held[:3], [2.0, 3.0, 0.0], atol=1e-3)
            bench.inject("qontrol", "disconnect")
            with pytest.raises(DeviceError):
                here["qontrol"].set_volts({2: 1.0})
            here["qontrol"].set_volts({2: 1.0})
            np.testing.assert_allclose(held[:4], [2.0, 3.0, 1.0, 0.0], atol=1e-3)
