"""Emulated lasers: messages and answers."""

from __future__ import annotations

import pytest

from photonloop.simulator.emulators.generic_scpi import scpi_laser
from photonloop.simulator.emulators.laboratory import LaserLight
from photonloop.simulator.emulators.scpi_engine import ScpiInstrument
from photonloop.simulator.emulators.virtual_santec import santec


class Fibre:
    """Keeps the last light."""

    light = LaserLight()

    def __call__(self, light: LaserLight) -> None:
        self.light = light


def send(device: ScpiInstrument, text: str) -> str:
    return device.handle(text.encode()).data.decode()


def test_santec_answers_in_the_units_of_its_command_set() -> None:
    fibre = Fibre()
    device = santec(fibre)
    assert send(device, "*IDN?").startswith("SANTEC,TSL-570,")
    assert send(device, ":SYST:COMM:COD?;:WAV?") == "0;1550.0000\r"
    assert send(device, ":WAV 1560.12345;:WAV?") == "1560.1234\r"  # truncated to 0.1 pm
    send(device, ":SYST:COMM:COD 1")
    assert send(device, ":SYST:COMM:COD?;:WAV?") == "+1;+1.56012340E-06\r"
    send(device, ":WAV 1.55e-6")
    assert fibre.light.wavelength_nm == pytest.approx(1550.0)
    send(device, ":WAV 1550")  # metres now
    assert send(device, ":SYST:ERR?") == '-222,"Data out of range"\r'
    send(device, ":WAV 1551nm")
    assert fibre.light.wavelength_nm == pytest.approx(1551.0)
    device.reset()
    assert send(device, ":SYST:COMM:COD?") == "+1\r"  # power-up keeps it


def test_santec_power_in_decibels_and_milliwatts() -> None:
    fibre = Fibre()
    device = santec(fibre)
    assert not fibre.light.is_on
    send(device, ":POW 10;:POW:STAT 1")
    assert fibre.light.is_on
    assert fibre.light.power_w == pytest.approx(0.010)
    assert send(device, ":POW:UNIT?;:POW?;:POW:ACT?") == "0;+10.000;+10.000\r"
    assert send(device, ":POW:UNIT 1;:POW?") == "+10.000\r"
    send(device, ":POW 20")
    assert fibre.light.power_w == pytest.approx(0.020, rel=1e-6)
    send(device, ":POW 21")
    assert send(device, ":SYST:ERR?") == '-222,"Data out of range"\r'
    send(device, ":POW:SHUT 1")
    assert (fibre.light.is_on, send(device, ":POW:ACT?;:POW:STAT?")) == (False, "+0.000;1\r")


def test_santec_is_busy_while_it_tunes() -> None:
    now = [0.0]
    device = santec(Fibre(), speed=1.0, clock=lambda: now[0])
    assert send(device, "*OPC?") == "1\r"
    send(device, ":WAV 1600")
    assert send(device, "*OPC?") == "0\r"
    now[0] = 0.51
    assert send(device, "*OPC?") == "1\r"


def test_santec_lines_end_with_carriage_returns() -> None:
    device = santec(Fibre())
    buffer = bytearray(b"*IDN?\n:WAV?\r\n:POW?\r")
    assert device.framing(buffer) == [b"*IDN?\n:WAV?", b":POW?"]


def test_the_generic_laser() -> None:
    fibre = Fibre()
    device = scpi_laser(fibre)
    assert send(device, "POW 10 MW;WAV 1549.5 NM;:OUTP ON;:POW?;:WAV?;:OUTP?") == "1.000000E-02;1549.500;1\n"
    assert fibre.light == LaserLight(0.010, 1549.5, True)
    assert send(device, "POW 21 MW;:SYST:ERR?") == '-222,"Data out of range"\n'
    device.reset()
    assert not fibre.light.is_on
