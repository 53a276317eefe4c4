"""Lasers against transcripts."""

from __future__ import annotations

from typing import Any

import pytest
from support.replays import driven

from photonloop.drivers.instrument import Laser
from photonloop.drivers.lasers import santec_tsl570
from photonloop.drivers.lasers.santec_tsl570 import SantecSettings, open_santec
from photonloop.drivers.lasers.scpi_laser import ScpiLaserSettings, open_scpi_laser
from photonloop.drivers.transports.recording import Event
from photonloop.protocols.config import ConfigError, validate
from photonloop.protocols.errors import DeviceError

IDENTITY = ("*IDN?", "SANTEC,TSL-570,21020001,0026.0026.0011")
NO_ERROR = '0,"No error"'
ERRORS = (":SYST:ERR?", NO_ERROR)
UNIT = (":POW:UNIT?", "0")


def santec(lines, code: str = "0", settings: SantecSettings | None = None):
    opening = [IDENTITY, ERRORS, (":SYST:COMM:COD?", code), (":POW:UNIT 0", ""), ERRORS, UNIT]
    return driven(open_santec, settings or SantecSettings(), santec_tsl570.DIALECT, [*opening, *lines])


@pytest.mark.parametrize(
    ("code", "set_to", "answered"), [("0", "1550.1200", "1550.1200"), ("+1", "1.5501200000000e-06", "+1.55012000E-006")]
)
def test_wavelengths_in_the_unit_of_the_command_set(code: str, set_to: str, answered: str):
    with santec([(f":WAV {set_to}", ""), ERRORS, (":WAV?", answered), (":WAV?", answered)], code) as laser:
        assert isinstance(laser, Laser)
        laser.set_wavelength_nm(1550.12)
        assert laser.wavelength_nm() == pytest.approx(1550.12)


def test_a_changed_command_set_is_detected():
    with santec([(":WAV?", "+1.55012000E-006")]) as laser:
        with pytest.raises(DeviceError, match="not a wavelength in nm: check whether its command set was changed"):
            laser.wavelength_nm()


def test_powers_are_sent_in_dbm():
    with santec([(":POW 3.0103", ""), ERRORS, (":POW?", "+3.01"), (":POW:ACT?", "+3.010")]) as laser:
        laser.set_power_w(2e-3)
        assert laser.power_w() == pytest.approx(2e-3, rel=1e-3)


def test_limits():
    with santec([], settings=SantecSettings(max_power_w=0.01, min_nm=1500, max_nm=1600)) as laser:
        for refused in (0.0, 0.011, float("nan"), -1.0):
            with pytest.raises(DeviceError, match="it takes powers above 0, up to max_power_w 0.01 W") as caught:
                laser.set_power_w(refused)
            assert (caught.value.code, caught.value.outcome) == ("limit", "not_applied")
        with pytest.raises(DeviceError, match="the station allows 1500 to 1600 nm"):
            laser.set_wavelength_nm(1601)


def test_light_on_and_off():
    lines = [
        (":SYST:LOCK?", "0"),
        (":POW:STAT 1", ""),
        ERRORS,
        (":POW:STAT?", "+1"),
        (":POW:STAT?", "+1"),
        (":POW:STAT 0", ""),
        ERRORS,
        (":POW:STAT?", "0"),
        (":POW:STAT?", "0"),
    ]
    with santec(lines) as laser:
        laser.on()
        assert laser.is_on()
        laser.off()
        assert not laser.is_on()


def test_an_open_interlock():
    with santec([(":SYST:LOCK?", "1")]) as laser:
        with pytest.raises(DeviceError, match="external interlock is open") as caught:
            laser.on()
        assert caught.value.code == "interlock"


def test_errors_and_alerts():
    lines = [
        (":POW 3.0103", ""),
        (":SYST:ERR?", '-222,"Data out of range"'),
        ERRORS,
        (":SYST:ALER?", "No alerts."),
        ERRORS,
        (":SYST:ALER?", "No.06 LD temperature"),
    ]
    with santec(lines) as laser:
        with pytest.raises(DeviceError, match="reported an error after ':POW 3.0103': -222"):
            laser.set_power_w(2e-3)
        laser.check()
        with pytest.raises(DeviceError, match="reports an alert: No.06 LD temperature"):
            laser.check()


def test_off_is_repeated_and_units_are_queried_again_after_a_reconnection():
    lines = [
        Event("lost", b"reset by peer"),
        IDENTITY,
        (":SYST:COMM:COD?", "1"),
        (":POW:UNIT 0", ""),
        ERRORS,
        UNIT,
        (":POW:STAT 0", ""),
        ERRORS,
        (":POW:STAT?", "0"),
        (":WAV?", "+1.55000000E-006"),
    ]
    with santec(lines) as laser:
        laser.off()
        assert laser.wavelength_nm() == pytest.approx(1550)


def test_a_setting_that_was_lost_is_sent_again_once():
    off = [(":POW:STAT 0", ""), ERRORS, (":POW:STAT?", "1")]
    with santec([*off, (":POW:STAT 0", ""), ERRORS, (":POW:STAT?", "0")]) as laser:
        laser.off()
    with santec(off * 6) as laser:
        with pytest.raises(DeviceError, match="did not apply ':POW:STAT 0': it answers 1 to ':POW:STAT[?]'"):
            laser.off()


TABLE: dict[str, Any] = {
    "max_power_w": 0.02,
    "min_nm": 1500.0,
    "max_nm": 1600.0,
    "on": "OUTP ON",
    "off": "OUTP OFF",
    "query_on": "OUTP?",
    "set_power": "POW {power}",
    "query_power": "POW?",
    "power_unit": "mW",
    "set_wavelength": "WAV {wavelength}",
    "query_wavelength": "WAV?",
    "wavelength_unit": "m",
    "error": "SYST:ERR?",
}


def test_laser_by_table():
    no_error = '+0,"No error"'
    errors = ("SYST:ERR?", no_error)
    lines = [
        ("*IDN?", "ACME,L1,7,1.0"),
        errors,
        (":POW 2;:SYST:ERR?", no_error),
        ("POW?", "2.001"),
        (":WAV 1.55012e-06;:SYST:ERR?", no_error),
        ("WAV?", "1.55012E-6"),
        (":OUTP ON;:SYST:ERR?", no_error),
        ("OUTP?", "ON"),
        ("OUTP?", "1"),
        (":OUTP OFF;:SYST:ERR?", no_error),
        ("OUTP?", "0"),
        errors,
    ]
    settings = ScpiLaserSettings(**TABLE)
    with driven(open_scpi_laser, settings, settings.dialect, lines) as laser:
        assert isinstance(laser, Laser)
        laser.set_power_w(2e-3)
        assert laser.power_w() == pytest.approx(2.001e-3)
        laser.set_wavelength_nm(1550.12)
        assert laser.wavelength_nm() == pytest.approx(1550.12)
        laser.on()
        assert laser.is_on()
        laser.off()
        laser.check()
        with pytest.raises(DeviceError, match="its table allows 1500 to 1600 nm"):
            laser.set_wavelength_nm(1400)


def test_a_laser_of_fixed_wavelength_without_error_query():
    table = {**TABLE, "set_wavelength": "", "query_wavelength": "", "error": "", "min_nm": 1550.0, "max_nm": 1550.0}
    settings = ScpiLaserSettings(**table)
    with driven(open_scpi_laser, settings, settings.dialect, [("*IDN?", "ACME,L1,7,1.0"), ("*IDN?", "ACME,L1,7,1.0")]) as laser:
        laser.set_wavelength_nm(1550.0)
        assert laser.wavelength_nm() == 1550.0
        laser.check()


def test_an_invalid_laser_table():
    with pytest.raises(ConfigError, match="has the placeholder {watts}; only {power} can be used here"):
        validate(ScpiLaserSettings, {**TABLE, "set_power": "POW {watts}"}, "table")
