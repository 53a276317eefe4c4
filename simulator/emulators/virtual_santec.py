"""Emulated Santec TSL-570 tunable laser: SCPI lines that end with CR, units by command set.

:SYST:COMM:COD 0 (legacy): wavelengths in nm. 1 (SCPI): wavelengths in m. Powers follow :POW:UNIT, dBm or mW, in both.

Source: the maker's command list and public drivers. They do not give the following, which is assumed: a new unit uses
the legacy command set; the number of digits in answers; tuning at 100 nm/s; the light is stable as soon as it is on.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass

from photonloop.simulator.emulators.emulator import truncated
from photonloop.simulator.emulators.laboratory import LaserLight
from photonloop.simulator.emulators.scpi_engine import Call, Command, ErrorQueue, ScpiInstrument, ScpiProfile
from photonloop.simulator.emulators.scpi_parser import ScpiError, error_text, number

LOW_NM, HIGH_NM = 1480.0, 1640.0
LOW_DBM, HIGH_DBM = -15.0, 13.0103
STEP_NM, STEP_DB = 1e-4, 0.01
TUNING_NM_PER_S = 100.0


@dataclass
class _Settings:
    is_scpi: bool = False
    wavelength_nm: float = 1550.0
    power_dbm: float = 0.0
    is_on: bool = False
    is_shut: bool = False
    in_mw: bool = False
    busy_until_s: float = 0.0


class _TunableLaser:
    """The state of the laser and the functions of its commands."""

    def __init__(self, set_light: Callable[[LaserLight], None], speed: float, is_scpi: bool, clock: Callable[[], float]) -> None:
        self._set_light = set_light
        self._speed = speed
        self._clock = clock
        self._settings = _Settings(is_scpi=is_scpi)

    def restore(self) -> None:
        self._settings = _Settings(is_scpi=self._settings.is_scpi)
        self._update_light()

    def set_wavelength(self, call: Call) -> None:
        settings = self._settings
        unit = 1e9 if settings.is_scpi else 1.0
        factors = {"NM": 1.0 / unit, "M": 1e9 / unit}
        wanted = number(call.argument(), low=LOW_NM / unit, high=HIGH_NM / unit, units=factors)
        nm = truncated(wanted * unit, STEP_NM)
        settings.busy_until_s = self._clock() + self._speed * abs(nm - settings.wavelength_nm) / TUNING_NM_PER_S
        settings.wavelength_nm = nm
        self._update_light()

    def query_wavelength(self, call: Call) -> str:
        nm = {"MIN": LOW_NM, "MAX": HIGH_NM}.get(_keyword(call), self._settings.wavelength_nm)
        return f"{nm * 1e-9:+.8E}" if self._settings.is_scpi else f"{nm:.4f}"

    def set_power(self, call: Call) -> None:
        text = call.argument()
        if self._settings.in_mw or text.upper().endswith("MW"):
            max_mw = 10.0 ** (HIGH_DBM / 10.0)
            dbm = 10.0 * math.log10(number(text, low=10.0 ** (LOW_DBM / 10.0), high=max_mw + 1e-6, units={"MW": 1.0}))
        else:
            dbm = number(text, low=LOW_DBM, high=HIGH_DBM, units={"DBM": 1.0})
        # The highest setting is not a round number of decibels.
        self._settings.power_dbm = min(truncated(dbm, STEP_DB), HIGH_DBM) if dbm < HIGH_DBM - 5e-3 else HIGH_DBM
        self._update_light()

    def query_power(self, call: Call) -> str:
        return self._format_power({"MIN": LOW_DBM, "MAX": HIGH_DBM}.get(_keyword(call), self._settings.power_dbm))

    def query_actual_power(self, _: Call) -> str:
        settings = self._settings
        if not settings.is_on or settings.is_shut:
            return self._format_power(-100.0) if not settings.in_mw else f"{0.0:+.3f}"
        return self._format_power(settings.power_dbm)

    def query_complete(self, _: Call) -> str:
        return str(int(self._clock() >= self._settings.busy_until_s))

    def flag(self, name: str) -> tuple[Callable[[Call], None], Callable[[Call], str]]:
        """Return the command and the query of a setting that is 0 or 1."""

        def execute(call: Call) -> None:
            if call.argument() not in {"0", "1"}:
                raise ScpiError(-224)
            setattr(self._settings, name, call.argument() == "1")
            self._update_light()

        return execute, lambda _: ("+" if self._settings.is_scpi else "") + str(int(getattr(self._settings, name)))

    def _format_power(self, dbm: float) -> str:
        value = 10.0 ** (dbm / 10.0) if self._settings.in_mw else dbm
        return f"{value:+.6E}" if self._settings.is_scpi else f"{value:+.3f}"

    def _update_light(self) -> None:
        settings = self._settings
        is_on = settings.is_on and not settings.is_shut
        self._set_light(LaserLight(1e-3 * 10.0 ** (settings.power_dbm / 10.0), settings.wavelength_nm, is_on))


def santec(
    set_light: Callable[[LaserLight], None],
    *,
    speed: float = 0.0,
    is_scpi: bool = False,
    serial: str = "21020001",
    clock: Callable[[], float] = time.monotonic,
) -> ScpiInstrument:
    """Return a TSL-570.

    Parameters
    ----------
    set_light
        Called with the laser's light whenever it changes.
    speed
        Factor on the tuning time, which is measured by `clock`.
    is_scpi
        Command set to which it is set. Power-up keeps it.
    serial
        Serial number.
    clock
        Returns wall time [s].
    """
    laser = _TunableLaser(set_light, speed, is_scpi, clock)
    commands = [
        Command("SYSTem:COMMunicate:CODe", *laser.flag("is_scpi")),
        Command("[SOURce:]WAVelength[:CW]", laser.set_wavelength, laser.query_wavelength),
        Command("[SOURce:]POWer:STATe", *laser.flag("is_on")),
        Command("[SOURce:]POWer:SHUTter", *laser.flag("is_shut")),
        Command("[SOURce:]POWer:UNIT", *laser.flag("in_mw")),
        Command("[SOURce:]POWer[:LEVel]", laser.set_power, laser.query_power),
        Command("[SOURce:]POWer:ACTual[:LEVel]", query=laser.query_actual_power),
        Command("SYSTem:LOCK", query=lambda _: "0"),
        Command("SYSTem:ALERt", query=lambda _: "No alerts."),
        Command("*OPC", lambda _: None, laser.query_complete),
    ]
    profile = ScpiProfile(
        f"SANTEC,TSL-570,{serial},0026.0026.0011",
        lambda code: f'{code},"{error_text(code)}"',
        terminator=b"\r",
        exchange_s=5e-3,
    )
    return ScpiInstrument(profile, commands, laser.restore, ErrorQueue(10))


def _keyword(call: Call) -> str:
    """Return "MIN" or "MAX" if the query has that argument."""
    return call.arguments[0].upper()[:3] if call.arguments else ""
