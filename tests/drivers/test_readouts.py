"""Power meter, scanner and readouts described by a table, against transcripts."""

from __future__ import annotations

import numpy as np
import pytest
from support.replays import driven

from photonloop.drivers.instrument import Readout
from photonloop.drivers.readouts import keysight_daq, pm100d
from photonloop.drivers.readouts.keysight_daq import KeysightDaqSettings, open_keysight_daq
from photonloop.drivers.readouts.pm100d import Pm100dSettings, open_pm100d
from photonloop.drivers.readouts.scpi_readout import ScpiReadoutSettings, open_scpi_readout
from photonloop.drivers.transports.recording import Event
from photonloop.protocols.config import ConfigError, validate
from photonloop.protocols.errors import DeviceError

NO_ERROR = '+0,"No error"'
IDENTITY = ("*IDN?", "ACME,M1,7,1.0")
ERRORS = ("SYST:ERR?", NO_ERROR)
SETUP = ":CONF:POW;:SENS:CORR:WAV 1550;:SENS:AVER:COUN 1;:SENS:POW:RANG:AUTO 1;:SYST:ERR?"


def meter(lines, **settings):
    return driven(open_pm100d, Pm100dSettings(**settings), pm100d.DIALECT, [IDENTITY, ERRORS, *lines])


def test_power_meter():
    with meter(
        [(SETUP, NO_ERROR), ("READ?", "1.25E-04"), ("READ?", "9.9E+37"), ("SYST:SENS:IDN?", '"S144C"'), ERRORS]
    ) as readout:
        assert isinstance(readout, Readout)
        assert (readout.channels, readout.unit, readout.full_scale) == (1, "W", 0.0)
        assert readout.read([0]).tolist() == [1.25e-4]
        assert np.isposinf(readout.read([0])).all()
        assert readout.sensor() == '"S144C"'
        readout.check()


def test_power_meter_with_a_fixed_range_reads_its_full_scale():
    setup = ":CONF:POW;:SENS:CORR:WAV 1310.5;:SENS:AVER:COUN 10;:SENS:POW:RANG:AUTO 0;:SENS:POW:RANG 0.001;:SYST:ERR?"
    with meter([(setup, NO_ERROR), ("SENS:POW:RANG?", "1.3E-03")], wavelength_nm=1310.5, range_w=1e-3, averages=10) as readout:
        assert readout.full_scale == 1.3e-3
        assert readout.sample_s == pytest.approx(0.03)


def test_power_meter_zero():
    lines = [(SETUP, NO_ERROR), (":SENS:CORR:COLL:ZERO;:SYST:ERR?", NO_ERROR), ("SENS:CORR:COLL:ZERO:MAGN?", "1E-9")]
    with meter(lines) as readout:
        assert readout.zero() == 1e-9


def test_power_meter_is_configured_again_after_a_reconnection():
    lines = [(SETUP, NO_ERROR), Event("lost", b"reset by peer"), IDENTITY, (SETUP, NO_ERROR), ("READ?", "1E-3")]
    with meter(lines) as readout:
        assert readout.read([0]).tolist() == [1e-3]


def test_power_meter_that_refuses_a_setting():
    with pytest.raises(DeviceError, match="reported an error after .*Data out of range"):
        with meter([(SETUP, '-222,"Data out of range"'), ERRORS]):
            pass


def daq(lines, inputs: tuple[int, ...] = (103, 101, 102)):
    opening = [
        IDENTITY,
        (":ABOR;:SYST:ERR?", '-420,"Query UNTERMINATED"'),
        ERRORS,
        (
            ":CONF:VOLT:DC 10,(@101,102,103);:VOLT:DC:NPLC 1,(@101,102,103);:ROUT:SCAN (@101,102,103);:FORM:READ:CHAN ON;"
            ":TRIG:SOUR IMM;:SYST:ERR?",
            NO_ERROR,
        ),
    ]
    return driven(open_keysight_daq, KeysightDaqSettings(inputs=inputs), keysight_daq.DIALECT, [*opening, *lines])


def test_scanner_assigns_values_to_the_right_channels():
    with daq([(":READ?", "+1.0E-03,101,+2.0E-03,102,+9.9E+37,103")]) as readout:
        assert isinstance(readout, Readout)
        values = readout.read([0, 1, 2])
        assert np.isposinf(values[0])
        assert values[1:].tolist() == [1e-3, 2e-3]


def test_scanner_writes_its_list_only_if_it_differs():
    lines = [
        (":ROUT:SCAN (@102,103);:READ?", "+2.0E-03,102,+3.0E-03,103"),
        (":READ?", "+2.0E-03,102,+3.0E-03,103"),
        (":ROUT:SCAN (@101,102,103);:READ?", "+1.0E-03,101,+2.0E-03,102,+3.0E-03,103"),
    ]
    with daq(lines) as readout:
        assert readout.read([0, 2]).tolist() == [3e-3, 2e-3]
        assert readout.read([2, 0]).tolist() == [2e-3, 3e-3]
        assert readout.read([1, 2, 0]).tolist() == [1e-3, 2e-3, 3e-3]


def test_scanner_is_queried_again_if_it_scanned_other_inputs():
    good = "+1.0E-03,101,+2.0E-03,102,+3.0E-03,103"
    with daq([(":READ?", "+2.0E-03,102"), IDENTITY, (":READ?", good)]) as readout:
        assert readout.read([1, 2, 0]).tolist() == [1e-3, 2e-3, 3e-3]


def test_scanner_answer_cut_in_two():
    good = "+1.0E-03,101,+2.0E-03,102,+3.0E-03,103"
    lines = [(":READ?", b"+1.0E-03,101,+2.0"), ("*IDN?", "E-03,102,+3.0E-03,103\nACME,M1,7,1.0"), (":READ?", good)]
    with daq(lines) as readout:
        assert readout.read([1, 2, 0]).tolist() == [1e-3, 2e-3, 3e-3]


def test_scanner_that_was_reconnected_gets_the_list_it_needs():
    setup = (
        ":CONF:VOLT:DC 10,(@101,102,103);:VOLT:DC:NPLC 1,(@101,102,103);:ROUT:SCAN (@102);:FORM:READ:CHAN ON;"
        ":TRIG:SOUR IMM;:SYST:ERR?",
        NO_ERROR,
    )
    one = (":READ?", "+2.0E-03,102")
    lines = [(":ROUT:SCAN (@102);:READ?", "+2.0E-03,102"), Event("lost", b"reset by peer"), IDENTITY, setup, one]
    with daq(lines) as readout:
        assert readout.read([2]).tolist() == [2e-3]
        assert readout.read([2]).tolist() == [2e-3]


def test_scanner_settings():
    with pytest.raises(ConfigError, match="inputs names 101 twice"):
        validate(KeysightDaqSettings, {"inputs": [101, 102, 101]}, "settings")
    with pytest.raises(ConfigError, match="range_v is 5.0, but it must be one of 0.1, 1, 10, 100, 300"):
        validate(KeysightDaqSettings, {"range_v": 5.0}, "settings")


def test_readout_by_table():
    settings = ScpiReadoutSettings(channels=4, unit="V", read="MEAS:VOLT? (@{channels})", error="SYST:ERR?", full_scale=10.0)
    lines = [
        IDENTITY,
        ERRORS,
        (":MEAS:VOLT? (@4,1)", "1.5,-0.25"),
        (":MEAS:VOLT? (@1)", "NaN"),
        IDENTITY,
        (":MEAS:VOLT? (@1)", "2"),
        ERRORS,
    ]
    with driven(open_scpi_readout, settings, settings.dialect, lines) as readout:
        assert isinstance(readout, Readout)
        assert readout.read([3, 0]).tolist() == [1.5, -0.25]
        assert readout.read([0]).tolist() == [2.0]
        with pytest.raises(DeviceError, match="has no channel 4; its channels are 0 to 3"):
            readout.read([4])
        readout.check()


def test_readout_by_table_that_does_not_join_commands():
    settings = ScpiReadoutSettings(
        channels=2, first=0, unit="V", read="ANALOG:PIN? AIN{channel}", joins=False, termination="\r\n", on_open=("START",)
    )
    lines = [IDENTITY, ("START", ""), ("ANALOG:PIN? AIN0", "0.5"), ("ANALOG:PIN? AIN1", "0.25")]
    with driven(open_scpi_readout, settings, settings.dialect, lines) as readout:
        assert readout.read([0, 1]).tolist() == [0.5, 0.25]
