"""Thorlabs PM100D: an optical power meter, SCPI, one answer at a time.

Source: the maker's command list. Not known from there, and taken as follows: what an overload reads (9.9E+37), the time of a
reading (3 ms times the averages), the ranges (decades), and noise: 10⁻⁴ of the reading and 1 nW, over the square root of the
averages.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field, fields

import numpy as np

from photonloop.simulator.emulators.laboratory import LaserLight
from photonloop.simulator.emulators.scpi_engine import Call, Command, ErrorQueue, Manners, ScpiInstrument, plain_error
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


def pm100d(light: Callable[[], LaserLight], rng: np.random.Generator, *, serial: str = "P0001234") -> ScpiInstrument:
    """Return a PM100D with an InGaAs sensor whose fibre carries what `light` returns; `rng` draws its noise."""
    settings = _Settings()

    def restore() -> None:
        for item in fields(_Settings):
            setattr(settings, item.name, item.default)

    def measure() -> float:
        seen = light()
        # A photodiode's current grows with wavelength; the meter divides by what it takes the wavelength to be.
        power_w = seen.power_w * seen.wavelength_nm / settings.wavelength_nm
        spread_w = math.hypot(1e-4 * power_w, 1e-9) / math.sqrt(settings.averages)
        power_w += DARK_W + spread_w * float(rng.standard_normal()) - settings.zero_w
        if settings.is_auto:
            settings.range_w = next((r for r in RANGES_W if r >= power_w), RANGES_W[-1])
        reading_w = OVERLOAD if power_w > settings.range_w else power_w * 10.0 ** (settings.loss_db / 10.0)
        settings.last_w = reading_w
        return reading_w

    def initiate(_: Call) -> None:
        measure()

    def shown(power_w: float) -> str:
        if settings.unit == "DBM" and power_w != OVERLOAD:
            return f"{10.0 * math.log10(max(power_w, 1e-15) / 1e-3):.6E}"
        return f"{power_w:.6E}"

    def fetch(_: Call) -> str:
        if settings.last_w is None:
            raise ScpiError(-230)
        return shown(settings.last_w)

    def take_range(call: Call) -> None:
        wanted_w = number(call.argument(), low=0.0, high=RANGES_W[-1], default=RANGES_W[-1], units=_WATTS)
        settings.range_w, settings.is_auto = next(r for r in RANGES_W if r >= wanted_w), False

    def take_wavelength(call: Call) -> None:
        settings.wavelength_nm = number(call.argument(), low=LOW_NM, high=HIGH_NM, default=1310.0, units=_LENGTHS)

    def ask_wavelength(call: Call) -> str:
        words = {"MIN": LOW_NM, "MAX": HIGH_NM}
        return f"{words[call.arguments[0].upper()[:3]] if call.arguments else settings.wavelength_nm:.6E}"

    def zero(_: Call) -> None:
        settings.zero_w = 0.0
        settings.zero_w = measure()

    def set_unit(call: Call) -> None:
        if call.argument().upper() not in {"W", "DBM"}:
            raise ScpiError(-224)
        settings.unit = call.argument().upper()

    def put(name: str, read: Callable[[str], object]) -> Callable[[Call], None]:
        return lambda call: setattr(settings, name, read(call.argument()))

    def taking(_: Call) -> float:
        return SAMPLE_S * settings.averages

    sense, zeroing = "[SENSe:]", "[SENSe:]CORRection:COLLect:ZERO"
    commands = [
        Command(f"{sense}CORRection:WAVelength", take_wavelength, ask_wavelength),
        Command(
            f"{sense}CORRection[:LOSS]",
            put("loss_db", lambda t: number(t, low=-60, high=60, default=0.0, units={"DB": 1.0})),
            lambda _: f"{settings.loss_db:.6E}",
        ),
        Command(f"{zeroing}[:INITiate]", zero, takes_s=0.1),
        Command(f"{zeroing}:MAGNitude", ask=lambda _: f"{settings.zero_w:.6E}"),
        Command(f"{zeroing}:STATe", ask=lambda _: "0"),
        Command(f"{zeroing}:ABORt", lambda _: None),
        Command(f"{sense}POWer[:DC]:RANGe[:UPPer]", take_range, lambda _: f"{settings.range_w:.6E}"),
        Command(f"{sense}POWer[:DC]:RANGe:AUTO", put("is_auto", boolean), lambda _: str(int(settings.is_auto))),
        Command(f"{sense}POWer[:DC]:UNIT", set_unit, lambda _: settings.unit),
        Command(
            f"{sense}AVERage[:COUNt]",
            put("averages", lambda t: int(number(t, low=1, high=10_000, default=1))),
            lambda _: str(settings.averages),
        ),
        Command("CONFigure[:SCALar][:POWer]", lambda _: None, lambda _: '"POW"'),
        Command("INITiate[:IMMediate]", initiate),
        Command("FETCh", ask=fetch),
        Command("READ", ask=lambda _: shown(measure()), takes_s=taking),
        Command("MEASure[:SCALar][:POWer]", ask=lambda _: shown(measure()), takes_s=taking),
        Command("ABORt", lambda _: None),
        Command("SYSTem:SENSor:IDN", ask=lambda _: '"S144C","211012345","12-Oct-2021",1,18,289'),
        Command("SYSTem:VERSion", ask=lambda _: "1999.0"),
    ]
    manners = Manners(f"Thorlabs,PM100D,{serial},2.8.0", plain_error, one_query=True, exchange_s=1e-3)
    return ScpiInstrument(manners, commands, restore, ErrorQueue(10))
