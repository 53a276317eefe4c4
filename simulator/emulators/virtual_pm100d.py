"""Emulated Thorlabs PM100D optical power meter: SCPI, one query at a time.

Source: the maker's command list. It does not give the following, which is assumed: the reading at overload (9.9E+37);
the time of a reading (3 ms times the averages); the ranges (decades); the noise (10⁻⁴ of the reading and 1 nW, divided
by the square root of the averages).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field, fields

import numpy as np

from photonloop.simulator.emulators.laboratory import LaserLight
from photonloop.simulator.emulators.scpi_engine import Call, Command, ErrorQueue, ScpiInstrument, ScpiProfile, plain_error
from photonloop.simulator.emulators.scpi_parser import ScpiError, boolean, number

LOW_NM, HIGH_NM = 800.0, 1700.0
RANGES_W = tuple(5.0 * 10.0**k for k in range(-8, -1))
OVERLOAD = 9.9e37
DARK_W = 2e-9
SAMPLE_S = 3e-3

_WATTS = {"W": 1.0, "MW": 1e-3, "UW": 1e-6, "NW": 1e-9}
_LENGTHS = {"NM": 1.0, "M": 1e9}


@dataclass
class _Settings:
    wavelength_nm: float = 1310.0
    averages: int = 1
    range_w: float = RANGES_W[-1]
    is_auto: bool = True
    unit: str = "W"
    loss_db: float = 0.0
    zero_w: float = 0.0
    last_w: float | None = field(default=None)


class _PowerMeter:
    """The state of the power meter and the functions of its commands."""

    def __init__(self, light: Callable[[], LaserLight], rng: np.random.Generator) -> None:
        self.settings = _Settings()
        self._light = light
        self._rng = rng

    def restore(self) -> None:
        for item in fields(_Settings):
            setattr(self.settings, item.name, item.default)

    def measure_w(self) -> float:
        settings, light = self.settings, self._light()
        # A photodiode's current grows with wavelength; the meter divides by the wavelength to which it is set.
        power_w = light.power_w * light.wavelength_nm / settings.wavelength_nm
        spread_w = math.hypot(1e-4 * power_w, 1e-9) / math.sqrt(settings.averages)
        power_w += DARK_W + spread_w * float(self._rng.standard_normal()) - settings.zero_w
        if settings.is_auto:
            settings.range_w = next((r for r in RANGES_W if r >= power_w), RANGES_W[-1])
        reading_w = OVERLOAD if power_w > settings.range_w else power_w * 10.0 ** (settings.loss_db / 10.0)
        settings.last_w = reading_w
        return reading_w

    def initiate(self, _: Call) -> None:
        self.measure_w()

    def read(self, _: Call) -> str:
        return self._format_power(self.measure_w())

    def read_s(self, _: Call) -> float:
        return SAMPLE_S * self.settings.averages

    def fetch(self, _: Call) -> str:
        if self.settings.last_w is None:
            raise ScpiError(-230)
        return self._format_power(self.settings.last_w)

    def zero(self, _: Call) -> None:
        self.settings.zero_w = 0.0
        self.settings.zero_w = self.measure_w()

    def set_range(self, call: Call) -> None:
        wanted_w = number(call.argument(), low=0.0, high=RANGES_W[-1], default=RANGES_W[-1], units=_WATTS)
        self.settings.range_w, self.settings.is_auto = next(r for r in RANGES_W if r >= wanted_w), False

    def set_auto_range(self, call: Call) -> None:
        self.settings.is_auto = boolean(call.argument())

    def set_wavelength(self, call: Call) -> None:
        self.settings.wavelength_nm = number(call.argument(), low=LOW_NM, high=HIGH_NM, default=1310.0, units=_LENGTHS)

    def query_wavelength(self, call: Call) -> str:
        bounds = {"MIN": LOW_NM, "MAX": HIGH_NM}
        return f"{bounds[call.arguments[0].upper()[:3]] if call.arguments else self.settings.wavelength_nm:.6E}"

    def set_loss(self, call: Call) -> None:
        self.settings.loss_db = number(call.argument(), low=-60, high=60, default=0.0, units={"DB": 1.0})

    def set_averages(self, call: Call) -> None:
        self.settings.averages = int(number(call.argument(), low=1, high=10_000, default=1))

    def set_unit(self, call: Call) -> None:
        if call.argument().upper() not in {"W", "DBM"}:
            raise ScpiError(-224)
        self.settings.unit = call.argument().upper()

    def _format_power(self, power_w: float) -> str:
        if self.settings.unit == "DBM" and power_w != OVERLOAD:
            return f"{10.0 * math.log10(max(power_w, 1e-15) / 1e-3):.6E}"
        return f"{power_w:.6E}"


def pm100d(light: Callable[[], LaserLight], rng: np.random.Generator, *, serial: str = "P0001234") -> ScpiInstrument:
    """Return a PM100D with an InGaAs sensor.

    Parameters
    ----------
    light
        Returns the light in the fibre at its sensor.
    rng
        Random numbers for its noise.
    serial
        Serial number.
    """
    meter = _PowerMeter(light, rng)
    settings = meter.settings
    sense, zeroing = "[SENSe:]", "[SENSe:]CORRection:COLLect:ZERO"
    commands = [
        Command(f"{sense}CORRection:WAVelength", meter.set_wavelength, meter.query_wavelength),
        Command(f"{sense}CORRection[:LOSS]", meter.set_loss, lambda _: f"{settings.loss_db:.6E}"),
        Command(f"{zeroing}[:INITiate]", meter.zero, takes_s=0.1),
        Command(f"{zeroing}:MAGNitude", query=lambda _: f"{settings.zero_w:.6E}"),
        Command(f"{zeroing}:STATe", query=lambda _: "0"),
        Command(f"{zeroing}:ABORt", lambda _: None),
        Command(f"{sense}POWer[:DC]:RANGe[:UPPer]", meter.set_range, lambda _: f"{settings.range_w:.6E}"),
        Command(f"{sense}POWer[:DC]:RANGe:AUTO", meter.set_auto_range, lambda _: str(int(settings.is_auto))),
        Command(f"{sense}POWer[:DC]:UNIT", meter.set_unit, lambda _: settings.unit),
        Command(f"{sense}AVERage[:COUNt]", meter.set_averages, lambda _: str(settings.averages)),
        Command("CONFigure[:SCALar][:POWer]", lambda _: None, lambda _: '"POW"'),
        Command("INITiate[:IMMediate]", meter.initiate),
        Command("FETCh", query=meter.fetch),
        Command("READ", query=meter.read, takes_s=meter.read_s),
        Command("MEASure[:SCALar][:POWer]", query=meter.read, takes_s=meter.read_s),
        Command("ABORt", lambda _: None),
        Command("SYSTem:SENSor:IDN", query=lambda _: '"S144C","211012345","12-Oct-2021",1,18,289'),
        Command("SYSTem:VERSion", query=lambda _: "1999.0"),
    ]
    profile = ScpiProfile(f"Thorlabs,PM100D,{serial},2.8.0", plain_error, single_query=True, exchange_s=1e-3)
    return ScpiInstrument(profile, commands, meter.restore, ErrorQueue(10))
