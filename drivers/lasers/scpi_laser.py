"""A laser that speaks SCPI, described by a table of commands instead of code.

    [instruments.settings]
    max_power_w = 0.02
    min_nm = 1500.0
    max_nm = 1600.0
    on = "OUTP ON"
    off = "OUTP OFF"
    query_on = "OUTP?"
    set_power = "POW {power}"
    query_power = "POW?"
    power_unit = "W"

Not checked against a real unit, since the table describes the unit. Wrong units are the most common error in a table:
compare the power with a power meter.
"""

from __future__ import annotations

import math
from typing import Annotated, Literal, NoReturn, Self

from pydantic import Field, model_validator

from photonloop.drivers.helpers import command_templates, scpi
from photonloop.drivers.helpers.channel_checks import try_until_confirmed
from photonloop.drivers.helpers.command_table import CommandTable, check_instrument, forget_errors, send_settings
from photonloop.drivers.helpers.decibels import dbm_of, watts_of
from photonloop.drivers.instrument import Identity
from photonloop.drivers.registry import Driver
from photonloop.drivers.transports.connection_settings import through_text
from photonloop.drivers.transports.interfaces import Transport
from photonloop.protocols.errors import DeviceError

_NM = {"nm": 1.0, "m": 1e9, "um": 1e3}


class ScpiLaserSettings(CommandTable):
    """The table: the keys below and those of `CommandTable`."""

    max_power_w: Annotated[float, Field(gt=0, le=100)]
    min_nm: Annotated[float, Field(gt=0, allow_inf_nan=False)]
    max_nm: Annotated[float, Field(gt=0, allow_inf_nan=False)]
    on: str
    off: str
    query_on: str
    """Answered 1 or 0, ON or OFF."""
    set_power: str
    """Sets {power} in power_unit."""
    query_power: str
    power_unit: Literal["W", "mW", "dBm"] = "W"
    set_wavelength: str = ""
    """Sets {wavelength} in wavelength_unit; empty: a laser of fixed wavelength, between min_nm and max_nm."""
    query_wavelength: str = ""
    wavelength_unit: Literal["nm", "um", "m"] = "nm"

    @model_validator(mode="after")
    def _is_consistent(self) -> Self:
        if not self.min_nm <= self.max_nm:
            raise ValueError(f"max_nm {self.max_nm:g} is not above min_nm {self.min_nm:g}")
        command_templates.check_template(self.set_power, {"power"}, {"power"})
        if self.set_wavelength:
            command_templates.check_template(self.set_wavelength, {"wavelength"}, {"wavelength"})
        for command in (self.on, self.off, self.query_on, self.query_power, self.query_wavelength):
            command_templates.check_template(command, set())
        return self


def open_scpi_laser(transport: Transport, settings: ScpiLaserSettings) -> ScpiLaser:
    """Return the laser behind `transport` that `settings` describes, after sending its `on_open` commands.

    Raises
    ------
    DeviceError
        "transport" if it does not answer, "device" if it reports an error.
    """
    forget_errors(transport, settings)
    laser = ScpiLaser(transport, settings)
    laser.configure()
    return laser


class ScpiLaser:
    """A `Laser`. Made by `open_scpi_laser`."""

    def __init__(self, transport: Transport, settings: ScpiLaserSettings) -> None:
        self._transport = transport
        self._table = settings
        transport.on_reconnect(self._configure_and_raise)

    def identify(self) -> Identity:
        """Query the identity."""
        return scpi.identity(self._transport.identity())

    def configure(self) -> None:
        """Send the `on_open` commands."""
        for command in self._table.on_open:
            self._send(command)

    def on(self) -> None:
        """Switch the light on."""
        self._switch(on=True)

    def off(self) -> None:
        """Switch the light off; repeated if it fails, since the connection may be reopened meanwhile."""
        try_until_confirmed(self._transport, [lambda: self._switch(on=False)] * 3, [self._table.off], "off")

    def is_on(self) -> bool:
        """Return whether the light is on."""
        return self._transport.query(self._table.query_on, _parse_on)

    def set_power_w(self, power_w: float) -> None:
        """Set the output power [W]."""
        if not (math.isfinite(power_w) and 0 < power_w <= self._table.max_power_w):
            raise DeviceError(
                "limit",
                f"{self._transport.name} cannot be set to {power_w:.6g} W: it takes powers above 0, up to max_power_w "
                f"{self._table.max_power_w:.6g} W",
            )
        value = {"W": power_w, "mW": 1e3 * power_w, "dBm": dbm_of(power_w)}[self._table.power_unit]
        self._send(self._table.set_power.format(power=scpi.decimal(value)))

    def power_w(self) -> float:
        """Return the answer to `query_power` [W]."""
        value = self._transport.query(self._table.query_power, lambda lines: scpi.number(lines[0]))
        return {"W": value, "mW": 1e-3 * value, "dBm": watts_of(value)}[self._table.power_unit]

    def set_wavelength_nm(self, wavelength_nm: float) -> None:
        """Set the wavelength [nm]. A laser of fixed wavelength accepts what its table allows, and does not change."""
        if not self._table.min_nm <= wavelength_nm <= self._table.max_nm:
            raise DeviceError(
                "limit",
                f"{self._transport.name} cannot be set to {wavelength_nm:.6g} nm: its table allows {self._table.min_nm:g} to "
                f"{self._table.max_nm:g} nm",
            )
        if self._table.set_wavelength:
            value = wavelength_nm / _NM[self._table.wavelength_unit]
            self._send(self._table.set_wavelength.format(wavelength=scpi.decimal(value)))

    def wavelength_nm(self) -> float:
        """Return the answer to `query_wavelength` [nm]; without that query, the middle of the range in the table."""
        if not self._table.query_wavelength:
            return (self._table.min_nm + self._table.max_nm) / 2
        value = self._transport.query(self._table.query_wavelength, lambda lines: scpi.number(lines[0]))
        return value * _NM[self._table.wavelength_unit]

    def check(self) -> None:
        """Raise the errors in the queue; without an error query, make sure that the laser answers."""
        check_instrument(self._transport, self._table)

    def close(self) -> None:
        """Close the transport; the light stays as it is."""
        self._transport.close()

    def _configure_and_raise(self) -> NoReturn:
        self.configure()
        raise DeviceError(
            "device",
            f"{self._transport.name} was lost and reconnected: its light may be off, power and wavelength must be set again",
            retryable=True,
            outcome="unknown",
        )

    def _switch(self, *, on: bool) -> None:
        self._send(self._table.on if on else self._table.off)
        if self.is_on() != on:
            raise DeviceError(
                "device",
                f"{self._transport.name} was switched {'on' if on else 'off'}, but reports that it is not",
                outcome="unknown",
            )

    def _send(self, command: str) -> None:
        send_settings(self._transport, self._table, [command])


def _parse_on(lines: list[str]) -> bool:
    word = lines[0].strip().upper()
    if word in {"1", "+1", "ON"}:
        return True
    if word in {"0", "+0", "OFF"}:
        return False
    raise ValueError(f"{word!r} is neither on nor off")


DRIVER = Driver(
    "laser",
    ScpiLaserSettings,
    through_text(open_scpi_laser, lambda settings: settings.dialect),
    "Any SCPI laser, described by a table",
)
"""Entry of the driver registry."""
