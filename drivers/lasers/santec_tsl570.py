"""Santec TSL-570 tunable laser: SCPI with lines that end with CR, over a socket.

The unit of wavelengths depends on the instrument's command set (`:SYST:COMM:COD`: legacy nm, SCPI m), so it is queried
first and after every restart. Powers are sent in dBm, whose meaning does not depend on a mode. Settings are sent one by
one, each followed by the error query and a read-back: a command has no answer, so the loss of a command would otherwise
go unnoticed.

Source: command list of the TSL-570 manual, as used by public drivers.
Not checked against a real unit: the port of the socket; the answer to `:SYST:ALER?` if there is no alert (anything that
contains "no alert", or "0", counts as that); whether the laser keeps its settings over a restart (they are queried,
never assumed).
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
from photonloop.drivers.transports.dialect import Dialect
from photonloop.drivers.transports.interfaces import Transport
from photonloop.protocols.errors import DeviceError

DIALECT = Dialect(write_termination="\r", read_termination="\r", timeout_s=2.0)
"""Line ends and timeout of the laser."""

_ERRORS = ":SYST:ERR?"
_TOLERANCE_DB = 0.05
_TOLERANCE_NM = 0.01


class SantecSettings(BaseModel):
    """Settings in a station file."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    max_power_w: Annotated[float, Field(gt=0, le=0.1)] = 0.02
    """Highest power allowed on this bench."""
    min_nm: Annotated[float, Field(gt=0, le=5000)] = 1240.0
    max_nm: Annotated[float, Field(gt=0, le=5000)] = 1680.0

    @model_validator(mode="after")
    def _is_consistent(self) -> Self:
        if not self.min_nm < self.max_nm:
            raise ValueError(f"max_nm {self.max_nm:g} is not above min_nm {self.min_nm:g}")
        return self


def open_santec(transport: Transport, settings: SantecSettings) -> SantecTsl570:
    """Return the laser behind `transport`; the light stays as it is.

    Raises
    ------
    DeviceError
        "transport" if it does not answer, "device" if it reports an error.
    """
    scpi.read_errors(transport, _ERRORS)  # discards errors from before it was opened
    laser = SantecTsl570(transport, settings)
    laser.configure_units()
    return laser


class SantecTsl570:
    """A `Laser`. Made by `open_santec`."""

    def __init__(self, transport: Transport, settings: SantecSettings) -> None:
        self._transport = transport
        self._settings = settings
        self._metres = False
        transport.on_reconnect(self._configure_and_raise)

    def identify(self) -> Identity:
        """Query *IDN?."""
        return scpi.identity(self._transport.identity())

    def configure_units(self) -> None:
        """Query the command set, which decides the unit of wavelengths, and set the unit of powers to dBm."""
        self._metres = self._transport.query(":SYST:COMM:COD?", _zero_or_one) == 1
        self._set(":POW:UNIT 0", ":POW:UNIT?", 0)

    def on(self) -> None:
        """Switch the laser diode on; "interlock" if the external interlock is open."""
        if self._transport.query(":SYST:LOCK?", _zero_or_one) == 1:
            raise DeviceError("interlock", f"{self._transport.name} cannot be switched on: its external interlock is open")
        self._set(":POW:STAT 1", ":POW:STAT?", 1)

    def off(self) -> None:
        """Switch the laser diode off; repeated if it fails, since the connection may be reopened meanwhile."""
        attempts = [lambda: self._set(":POW:STAT 0", ":POW:STAT?", 0)] * 3
        try_until_confirmed(self._transport, attempts, [":POW:STAT 0"], "off")

    def is_on(self) -> bool:
        """Return whether the laser diode is on."""
        return self._transport.query(":POW:STAT?", _zero_or_one) == 1

    def set_power_w(self, power_w: float) -> None:
        """Set the output power [W], above 0; use `off` for no power."""
        if not (math.isfinite(power_w) and 0 < power_w <= self._settings.max_power_w):
            raise DeviceError(
                "limit",
                f"{self._transport.name} cannot be set to {power_w:.6g} W: it takes powers above 0, up to max_power_w "
                f"{self._settings.max_power_w:.6g} W",
            )
        dbm = dbm_of(power_w)
        self._set(f":POW {dbm:.4f}", ":POW?", dbm, _TOLERANCE_DB)

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
        self._set(command, ":WAV?", wavelength_nm * nm, _TOLERANCE_NM * nm)

    def wavelength_nm(self) -> float:
        """Return the wavelength that is set [nm]."""
        value = self._transport.query(":WAV?", lambda lines: scpi.number(lines[0]))
        nm = value * 1e9 if self._metres else value
        if not 100 < nm < 20_000:
            raise DeviceError(
                "device",
                f"{self._transport.name} answered {value:g} to ':WAV?', which is not a wavelength in "
                f"{'m' if self._metres else 'nm'}: check whether its command set was changed",
            )
        return nm

    def check(self) -> None:
        """Raise the errors in the queue, or an alert."""
        scpi.raise_errors(self._transport, _ERRORS)
        alert = self._transport.query_line(":SYST:ALER?")
        if "no alert" not in alert.lower() and alert.strip('"+ ') not in {"", "0"}:
            raise DeviceError("device", f"{self._transport.name} reports an alert: {alert}", outcome="unknown")

    def close(self) -> None:
        """Close the transport; the light stays as it is."""
        self._transport.close()

    def _configure_and_raise(self) -> NoReturn:
        self.configure_units()
        raise DeviceError(
            "device",
            f"{self._transport.name} was lost and reconnected: its light may be off, power and wavelength must be set again",
            retryable=True,
            outcome="unknown",
        )

    def _set(self, command: str, query: str, expected: float, tolerance: float = 0.0) -> None:
        """Send a setting, query errors and read the setting back; repeat once if it was not applied."""
        for last in (False, True):
            self._transport.write(command)
            if text := self._transport.query(_ERRORS, lambda lines: scpi.parse_error(lines[0]), mutates=True, retries=0):
                raise DeviceError(
                    "device", f"{self._transport.name} reported an error after {command!r}: {text}", outcome="unknown"
                )
            value = self._transport.query(query, lambda lines: scpi.number(lines[0]), mutates=True)
            if abs(value - expected) <= tolerance:
                return
            if last:
                raise DeviceError(
                    "device",
                    f"{self._transport.name} did not apply {command!r}: it answers {value:.9g} to {query!r}",
                    outcome="unknown",
                )


def _zero_or_one(lines: list[str]) -> int:
    value = int(lines[0])
    if value not in {0, 1}:
        raise ValueError(f"{value} is neither 0 nor 1")
    return value


DRIVER = Driver("laser", SantecSettings, through_text(open_santec, DIALECT), "Santec TSL-570 tunable laser, socket")
"""Entry of the driver registry."""
