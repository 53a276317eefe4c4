"""Santec TSL-570 tunable laser: SCPI with lines that end with CR, over a socket.

The unit of wavelengths depends on the instrument's command set (`:SYST:COMM:COD`: legacy nm, SCPI m), so it is asked for first
and after every restart. Powers travel in dBm, whose meaning no mode changes. Settings are sent one by one, each followed by the
question for errors and read back: a command has no answer, so one that was lost on the way would not be missed.

Source: command list of the TSL-570 manual, as used by public drivers.
Not checked against a real unit: the port that a socket needs; what `:SYST:ALER?` says when all is well (anything that contains
"no alert", or "0", counts as that); whether the laser keeps its settings over a restart (they are asked for, never assumed).
"""

from __future__ import annotations

import math
from typing import Annotated, NoReturn, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from photonloop.drivers.helpers import scpi
from photonloop.drivers.helpers.channel_checks import try_until_confirmed
from photonloop.drivers.helpers.decibels import dbm_of, watts_of
from photonloop.drivers.instrument import Identity
from photonloop.drivers.registry import Driver
from photonloop.drivers.transports.connection_settings import through_text
from photonloop.drivers.transports.text import Dialect
from photonloop.drivers.transports.transport import Transport
from photonloop.protocols.errors import DeviceError

DIALECT = Dialect(write_termination="\r", read_termination="\r", timeout_s=2.0)
"""How the laser is spoken to."""

_ERRORS = ":SYST:ERR?"
_AGREES_DB = 0.05
_AGREES_NM = 0.01


class SantecSettings(BaseModel):
    """Settings of a station file."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    max_power_w: Annotated[float, Field(gt=0, le=0.1)] = 0.02
    """Highest power that this bench may be given."""
    min_nm: Annotated[float, Field(gt=0, le=5000)] = 1240.0
    max_nm: Annotated[float, Field(gt=0, le=5000)] = 1680.0

    @model_validator(mode="after")
    def _fits(self) -> Self:
        if not self.min_nm < self.max_nm:
            raise ValueError(f"max_nm {self.max_nm:g} is not above min_nm {self.min_nm:g}")
        return self


def open_santec(transport: Transport, settings: SantecSettings) -> SantecTsl570:
    """Return the laser behind `transport`; the light stays as it is.

    Raises
    ------
    DeviceError
        "transport" where it does not answer, "device" where it complains.
    """
    scpi.forget_complaints(transport, _ERRORS)
    laser = SantecTsl570(transport, settings)
    laser.learn_units()
    return laser


class SantecTsl570:
    """A `Laser`. Made by `open_santec`."""

    def __init__(self, transport: Transport, settings: SantecSettings) -> None:
        self._transport = transport
        self._settings = settings
        self._metres = False
        transport.on_reconnect(self._start_anew)

    def identify(self) -> Identity:
        """Ask *IDN?."""
        return scpi.identity(self._transport.identity())

    def learn_units(self) -> None:
        """Ask which command set the laser speaks, and have powers in dBm."""
        self._metres = self._transport.query(":SYST:COMM:COD?", _zero_or_one) == 1
        self._tell(":POW:UNIT 0", ":POW:UNIT?", 0)

    def on(self) -> None:
        """Switch the laser diode on; "interlock" where the external interlock is open."""
        if self._transport.query(":SYST:LOCK?", _zero_or_one) == 1:
            raise DeviceError("interlock", f"{self._transport.name} cannot be switched on: its external interlock is open")
        self._tell(":POW:STAT 1", ":POW:STAT?", 1)

    def off(self) -> None:
        """Switch the laser diode off; tried again, since the way may have been lost and found."""
        told = [lambda: self._tell(":POW:STAT 0", ":POW:STAT?", 0)] * 3
        try_until_confirmed(self._transport, told, [":POW:STAT 0"], "off")

    def is_on(self) -> bool:
        """Return whether the laser diode is on."""
        return self._transport.query(":POW:STAT?", _zero_or_one) == 1

    def set_power_w(self, power_w: float) -> None:
        """Set the output power [W]; 0 is no power, use `off`."""
        if not (math.isfinite(power_w) and 0 < power_w <= self._settings.max_power_w):
            raise DeviceError(
                "limit",
                f"{self._transport.name} cannot be set to {power_w:.6g} W: it takes powers above 0, up to max_power_w "
                f"{self._settings.max_power_w:.6g} W",
            )
        dbm = dbm_of(power_w)
        self._tell(f":POW {dbm:.4f}", ":POW?", dbm, _AGREES_DB)

    def power_w(self) -> float:
        """Return the measured output power [W]."""
        return watts_of(self._transport.query(":POW:ACT?", lambda lines: scpi.number(lines[0])))

    def set_wavelength_nm(self, wavelength_nm: float) -> None:
        """Set the wavelength [nm]."""
        if not self._settings.min_nm <= wavelength_nm <= self._settings.max_nm:
            raise DeviceError(
                "limit",
                f"{self._transport.name} cannot be set to {wavelength_nm:.6g} nm: the station allows {self._settings.min_nm:g} "
                f"to {self._settings.max_nm:g} nm",
            )
        nm = 1e-9 if self._metres else 1.0
        command = f":WAV {wavelength_nm * nm:.13e}" if self._metres else f":WAV {wavelength_nm:.4f}"
        self._tell(command, ":WAV?", wavelength_nm * nm, _AGREES_NM * nm)

    def wavelength_nm(self) -> float:
        """Return the wavelength that is set [nm]."""
        value = self._transport.query(":WAV?", lambda lines: scpi.number(lines[0]))
        nm = value * 1e9 if self._metres else value
        if not 100 < nm < 20_000:
            raise DeviceError(
                "device",
                f"{self._transport.name} answered {value:g} to ':WAV?', no wavelength in {'m' if self._metres else 'nm'}: "
                "was its command set changed by other hands?",
            )
        return nm

    def check(self) -> None:
        """Empty the queue of errors, and ask for alerts."""
        scpi.raise_complaints(self._transport, _ERRORS)
        alert = self._transport.query_line(":SYST:ALER?")
        if "no alert" not in alert.lower() and alert.strip('"+ ') not in {"", "0"}:
            raise DeviceError("device", f"{self._transport.name} raises an alert: {alert}", outcome="unknown")

    def close(self) -> None:
        """Let go of the laser; the light stays as it is."""
        self._transport.close()

    def _start_anew(self) -> NoReturn:
        self.learn_units()
        raise DeviceError(
            "device",
            f"{self._transport.name} was lost and has been found again: its light may be off, its settings must be made again",
            retryable=True,
            outcome="unknown",
        )

    def _tell(self, command: str, question: str, expected: float, tolerance: float = 0.0) -> None:
        """Send a setting, ask for errors, and read back; once more where it is not there."""
        for again in (False, True):
            self._transport.write(command)
            if text := self._transport.query(_ERRORS, lambda lines: scpi.complaint(lines[0]), mutates=True, retries=0):
                raise DeviceError("device", f"{self._transport.name} complained after {command!r}: {text}", outcome="unknown")
            value = self._transport.query(question, lambda lines: scpi.number(lines[0]), mutates=True)
            if abs(value - expected) <= tolerance:
                return
            if again:
                raise DeviceError(
                    "device",
                    f"{self._transport.name} did not take {command!r}: {question!r} is answered {value:.9g}",
                    outcome="unknown",
                )


def _zero_or_one(lines: list[str]) -> int:
    value = int(lines[0])
    if value not in {0, 1}:
        raise ValueError(f"{value} is neither 0 nor 1")
    return value


DRIVER = Driver("laser", SantecSettings, through_text(open_santec, DIALECT), "Santec TSL-570 tunable laser, socket")
"""What the registry finds."""
