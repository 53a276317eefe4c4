"""A laser that speaks SCPI, described by a small table.

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

Not checked against a real unit: by its nature. Units are the commonest way to get a table wrong: compare with a power meter.
"""

from __future__ import annotations

import math
from typing import Annotated, Literal, NoReturn, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from photonloop.drivers.helpers import command_templates, scpi
from photonloop.drivers.helpers.channel_checks import try_until_confirmed
from photonloop.drivers.helpers.command_table import dialect_of, look
from photonloop.drivers.helpers.decibels import dbm_of, watts_of
from photonloop.drivers.instrument import Identity
from photonloop.drivers.registry import Driver
from photonloop.drivers.transports.connection_settings import through_text
from photonloop.drivers.transports.text import Dialect
from photonloop.drivers.transports.transport import Transport
from photonloop.protocols.errors import DeviceError

_NM = {"nm": 1.0, "m": 1e9, "um": 1e3}


class ScpiLaserSettings(BaseModel):
    """The table. Commands are templates of `photonloop.drivers.helpers.command_templates`; empty ones are not used."""

    model_config = ConfigDict(frozen=True, extra="forbid")

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
    """Sets {wavelength} in wavelength_unit; empty: a laser of one wavelength, which must lie within min_nm and max_nm."""
    query_wavelength: str = ""
    wavelength_unit: Literal["nm", "um", "m"] = "nm"
    error: str = ""
    identity: str = "*IDN?"
    identity_pattern: str = r"[^,]+,[^,]+,.+"
    on_open: tuple[str, ...] = ()
    joins: bool = True
    """The instrument takes commands joined by ;:"""
    terminator: Annotated[str, Field(min_length=1, max_length=2)] = "\n"
    timeout_s: Annotated[float, Field(gt=0, le=60)] = 2.0
    baud: Annotated[int, Field(ge=50, le=4_000_000)] = 115200

    @model_validator(mode="after")
    def _fits(self) -> Self:
        if not self.min_nm <= self.max_nm:
            raise ValueError(f"max_nm {self.max_nm:g} is not above min_nm {self.min_nm:g}")
        command_templates.checked(self.set_power, {"power"}, {"power"})
        if self.set_wavelength:
            command_templates.checked(self.set_wavelength, {"wavelength"}, {"wavelength"})
        plain = (self.on, self.off, self.query_on, self.query_power, self.query_wavelength, self.error, self.identity)
        for command in (*plain, *self.on_open):
            command_templates.checked(command, set())
        return self

    @property
    def dialect(self) -> Dialect:
        """How the instrument is spoken to."""
        return dialect_of(self)


def open_scpi_laser(transport: Transport, settings: ScpiLaserSettings) -> ScpiLaser:
    """Return the laser behind `transport` that `settings` describes, its `on_open` commands sent.

    Raises
    ------
    DeviceError
        "transport" where it does not answer, "device" where it complains.
    """
    if settings.error:
        scpi.forget_complaints(transport, settings.error)
    laser = ScpiLaser(transport, settings)
    laser.configure()
    return laser


class ScpiLaser:
    """A `Laser`. Made by `open_scpi_laser`."""

    def __init__(self, transport: Transport, settings: ScpiLaserSettings) -> None:
        self._transport = transport
        self._table = settings
        transport.on_reconnect(self._start_anew)

    def identify(self) -> Identity:
        """Ask who is there."""
        return scpi.identity(self._transport.identity())

    def configure(self) -> None:
        """Send what the table wants sent first."""
        for command in self._table.on_open:
            self._tell(command)

    def on(self) -> None:
        """Switch the light on."""
        self._switch(on=True)

    def off(self) -> None:
        """Switch the light off; tried again, since the way may have been lost and found."""
        try_until_confirmed(self._transport, [lambda: self._switch(on=False)] * 3, [self._table.off], "off")

    def is_on(self) -> bool:
        """Return whether the light is on."""
        return self._transport.query(self._table.query_on, _yes_or_no)

    def set_power_w(self, power_w: float) -> None:
        """Set the output power [W]."""
        if not (math.isfinite(power_w) and 0 < power_w <= self._table.max_power_w):
            raise DeviceError(
                "limit",
                f"{self._transport.name} cannot be set to {power_w:.6g} W: it takes powers above 0, up to max_power_w "
                f"{self._table.max_power_w:.6g} W",
            )
        value = {"W": power_w, "mW": 1e3 * power_w, "dBm": dbm_of(power_w)}[self._table.power_unit]
        self._tell(self._table.set_power.format(power=scpi.decimal(value)))

    def power_w(self) -> float:
        """Return the power that the instrument answers to `query_power` [W]."""
        value = self._transport.query(self._table.query_power, lambda lines: scpi.number(lines[0]))
        return {"W": value, "mW": 1e-3 * value, "dBm": watts_of(value)}[self._table.power_unit]

    def set_wavelength_nm(self, wavelength_nm: float) -> None:
        """Set the wavelength [nm]; a laser of one wavelength takes whatever its table allows, and stays as it is."""
        if not self._table.min_nm <= wavelength_nm <= self._table.max_nm:
            raise DeviceError(
                "limit",
                f"{self._transport.name} cannot be set to {wavelength_nm:.6g} nm: its table allows {self._table.min_nm:g} to "
                f"{self._table.max_nm:g} nm",
            )
        if self._table.set_wavelength:
            value = wavelength_nm / _NM[self._table.wavelength_unit]
            self._tell(self._table.set_wavelength.format(wavelength=scpi.decimal(value)))

    def wavelength_nm(self) -> float:
        """Return the wavelength that the instrument answers [nm]; without a word for it, the middle of what the table allows."""
        if not self._table.query_wavelength:
            return (self._table.min_nm + self._table.max_nm) / 2
        value = self._transport.query(self._table.query_wavelength, lambda lines: scpi.number(lines[0]))
        return value * _NM[self._table.wavelength_unit]

    def check(self) -> None:
        """Empty the queue of errors, or ask for a sign of life where the table has no word for errors."""
        look(self._transport, self._table)

    def close(self) -> None:
        """Let go of the laser; the light stays as it is."""
        self._transport.close()

    def _start_anew(self) -> NoReturn:
        self.configure()
        raise DeviceError(
            "device",
            f"{self._transport.name} was lost and has been found again: its light may be off, its settings must be made again",
            retryable=True,
            outcome="unknown",
        )

    def _switch(self, *, on: bool) -> None:
        self._tell(self._table.on if on else self._table.off)
        if self.is_on() != on:
            raise DeviceError(
                "device",
                f"{self._transport.name} was switched {'on' if on else 'off'}, but says that it is not",
                outcome="unknown",
            )

    def _tell(self, command: str) -> None:
        """Send a setting and ask for errors: in one message where the instrument joins commands, else in two."""
        if self._table.joins and self._table.error:
            scpi.set_and_check(self._transport, [command], self._table.error)
            return
        self._transport.write(command)
        if self._table.error:
            scpi.raise_complaints(self._transport, self._table.error)


def _yes_or_no(lines: list[str]) -> bool:
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
"""What the registry finds."""
