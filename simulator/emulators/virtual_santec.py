"""Santec TSL-570: a tunable laser, SCPI in lines that end with CR; the units of its answers depend on its command set.

:SYST:COMM:COD 0 (legacy): wavelengths in nm. 1 (SCPI): wavelengths in m. Powers follow :POW:UNIT, dBm or mW, in both.

Source: the maker's command list and public drivers. Not known from there, and taken as follows: which command set a new unit
speaks (legacy), digits of answers, tuning at 100 nm/s, and that the light is stable as soon as it is on.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass, fields

from photonloop.simulator.emulators.emulator import truncated
from photonloop.simulator.emulators.laboratory import LaserLight
from photonloop.simulator.emulators.scpi_engine import Call, Command, ErrorQueue, Manners, ScpiInstrument
from photonloop.simulator.emulators.scpi_parser import ScpiError, error_text, number

LOW_NM, HIGH_NM = 1480.0, 1640.0
LOW_DBM, HIGH_DBM = -15.0, 13.0103
STEP_NM, STEP_DB = 1e-4, 0.01
TUNING_NM_PER_S = 100.0

_POWERS = {"DBM": 1.0}


@dataclass
class _Settings:
    is_scpi: bool = False
    wavelength_nm: float = 1550.0
    power_dbm: float = 0.0
    is_on: bool = False
    is_shut: bool = False
    in_mw: bool = False
    busy_until_s: float = 0.0


def santec(
    set_light: Callable[[LaserLight], None],
    *,
    speed: float = 0.0,
    is_scpi: bool = False,
    serial: str = "21020001",
    clock: Callable[[], float] = time.monotonic,
) -> ScpiInstrument:
    """Return a TSL-570 that tells `set_light` about its light.

    `speed` scales the time it tunes, counted by `clock`; `is_scpi` is the command set it was left in, which power-up keeps.
    """
    settings = _Settings(is_scpi=is_scpi)

    def restore() -> None:
        kept = settings.is_scpi
        for item in fields(_Settings):
            setattr(settings, item.name, item.default)
        settings.is_scpi = kept
        show()

    def show() -> None:
        is_on = settings.is_on and not settings.is_shut
        set_light(LaserLight(1e-3 * 10.0 ** (settings.power_dbm / 10.0), settings.wavelength_nm, is_on))

    def length(nm: float) -> str:
        return f"{nm * 1e-9:+.8E}" if settings.is_scpi else f"{nm:.4f}"

    def power(dbm: float) -> str:
        value = 10.0 ** (dbm / 10.0) if settings.in_mw else dbm
        return f"{value:+.6E}" if settings.is_scpi else f"{value:+.3f}"

    def take_wavelength(call: Call) -> None:
        unit = 1e9 if settings.is_scpi else 1.0
        factors = {"NM": 1.0 / unit, "M": 1e9 / unit}
        wanted = number(call.argument(), low=LOW_NM / unit, high=HIGH_NM / unit, units=factors)
        nm = truncated(wanted * unit, STEP_NM)
        settings.busy_until_s = clock() + speed * abs(nm - settings.wavelength_nm) / TUNING_NM_PER_S
        settings.wavelength_nm = nm
        show()

    def ask_wavelength(call: Call) -> str:
        word = call.arguments[0].upper()[:3] if call.arguments else ""
        return length({"MIN": LOW_NM, "MAX": HIGH_NM}.get(word, settings.wavelength_nm))

    def take_power(call: Call) -> None:
        text = call.argument()
        in_mw = settings.in_mw or text.upper().endswith("MW")
        if in_mw:
            top_mw = 10.0 ** (HIGH_DBM / 10.0)
            value = number(text, low=10.0 ** (LOW_DBM / 10.0), high=top_mw + 1e-6, units={"MW": 1.0})
            dbm = 10.0 * math.log10(value)
        else:
            dbm = number(text, low=LOW_DBM, high=HIGH_DBM, units=_POWERS)
        # The highest setting is not a round number of decibels.
        settings.power_dbm = min(truncated(dbm, STEP_DB), HIGH_DBM) if dbm < HIGH_DBM - 5e-3 else HIGH_DBM
        show()

    def ask_power(call: Call) -> str:
        word = call.arguments[0].upper()[:3] if call.arguments else ""
        return power({"MIN": LOW_DBM, "MAX": HIGH_DBM}.get(word, settings.power_dbm))

    def actual(_: Call) -> str:
        if not settings.is_on or settings.is_shut:
            return power(-100.0) if not settings.in_mw else f"{0.0:+.3f}"
        return power(settings.power_dbm)

    def flag(name: str) -> tuple[Callable[[Call], None], Callable[[Call], str]]:
        def tell(call: Call) -> None:
            if call.argument() not in {"0", "1"}:
                raise ScpiError(-224)
            setattr(settings, name, call.argument() == "1")
            show()

        return tell, lambda _: ("+" if settings.is_scpi else "") + str(int(getattr(settings, name)))

    commands = [
        Command("SYSTem:COMMunicate:CODe", *flag("is_scpi")),
        Command("[SOURce:]WAVelength[:CW]", take_wavelength, ask_wavelength),
        Command("[SOURce:]POWer:STATe", *flag("is_on")),
        Command("[SOURce:]POWer:SHUTter", *flag("is_shut")),
        Command("[SOURce:]POWer:UNIT", *flag("in_mw")),
        Command("[SOURce:]POWer[:LEVel]", take_power, ask_power),
        Command("[SOURce:]POWer:ACTual[:LEVel]", ask=actual),
        Command("SYSTem:LOCK", ask=lambda _: "0"),
        Command("SYSTem:ALERt", ask=lambda _: "No alerts."),
        Command("*OPC", lambda _: None, lambda _: str(int(clock() >= settings.busy_until_s))),
    ]
    manners = Manners(
        f"SANTEC,TSL-570,{serial},0026.0026.0011",
        lambda code: f'{code},"{error_text(code)}"',
        terminator=b"\r",
        exchange_s=5e-3,
    )
    return ScpiInstrument(manners, commands, restore, ErrorQueue(10))
