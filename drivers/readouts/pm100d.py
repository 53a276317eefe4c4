"""Thorlabs power meters of the PM100D family (PM100D, PM100A, PM100USB, PM101, PM103, PM400): one channel, in watts.

Every reading is a new measurement (`READ?`), averaged over the `averages` of the settings. A fixed range is faster than
automatic ranging and has a full scale; above it the meter reports 9.9E37, which is returned as infinity. Queries are
sent one at a time, because the meter discards the answer to a query if another one arrives.

Source: command list of the PM100D manual, as used by public drivers.
Not checked against a real unit: that an overload reads 9.9E37; the time of a reading (3 ms times the averages).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, ClassVar

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field

from photonloop.drivers.helpers import scpi
from photonloop.drivers.helpers.channel_checks import check_channels
from photonloop.drivers.instrument import Identity
from photonloop.drivers.registry import Driver
from photonloop.drivers.transports.connection_settings import through_text
from photonloop.drivers.transports.dialect import Dialect
from photonloop.drivers.transports.interfaces import Transport

DIALECT = Dialect(timeout_s=2.0)
"""Timeout of the meter."""

_ERRORS = "SYST:ERR?"
_READING_S = 3e-3
_ZERO_S = 30.0


class Pm100dSettings(BaseModel):
    """Settings in a station file."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    channels: ClassVar[int] = 1
    wavelength_nm: Annotated[float, Field(ge=100, le=20_000, allow_inf_nan=False)] = 1550.0
    """Wavelength for which the sensor's responsivity is corrected."""
    range_w: Annotated[float, Field(ge=0, le=1e5, allow_inf_nan=False)] = 0.0
    """Highest power to be measured; the meter selects the next range above it. 0: automatic."""
    averages: Annotated[int, Field(ge=1, le=10_000)] = 1


def open_pm100d(transport: Transport, settings: Pm100dSettings) -> Pm100d:
    """Return the meter behind `transport`, configured by `settings`.

    Raises
    ------
    DeviceError
        "transport" if it does not answer, "device" if it refuses a setting.
    """
    scpi.read_errors(transport, _ERRORS)  # discards errors from before it was opened
    return Pm100d(transport, settings, _configure(transport, settings))


class Pm100d:
    """A `Readout` of one channel. Made by `open_pm100d`."""

    channels = 1
    unit = "W"

    def __init__(self, transport: Transport, settings: Pm100dSettings, full_scale: float) -> None:
        self._transport = transport
        self._settings = settings
        self._full_scale = full_scale
        transport.on_reconnect(self._reconfigure)

    @property
    def full_scale(self) -> float:
        """Top of the fixed range [W]; 0 with automatic ranging."""
        return self._full_scale

    @property
    def sample_s(self) -> float:
        """Approximate time of one reading [s]."""
        return _READING_S * self._settings.averages

    def identify(self) -> Identity:
        """Query *IDN?."""
        return scpi.identity(self._transport.identity())

    def sensor(self) -> str:
        """Return the identity of the sensor that is plugged in."""
        return self._transport.query_line("SYST:SENS:IDN?")

    def read(self, channels: Sequence[int]) -> NDArray[np.float64]:
        """Measure power [W], shape (channels,)."""
        check_channels(self._transport.name, channels, self.channels)
        value = self._transport.query("READ?", lambda lines: scpi.number(lines[0]), wait_s=self.sample_s)
        return np.full(len(channels), value)

    def zero(self) -> float:
        """Adjust the zero, which takes seconds and needs a dark sensor; return the measured offset [W]."""
        scpi.set_and_check(self._transport, ["SENS:CORR:COLL:ZERO"], _ERRORS, wait_s=_ZERO_S)
        return self._transport.query("SENS:CORR:COLL:ZERO:MAGN?", lambda lines: scpi.number(lines[0]))

    def check(self) -> None:
        """Raise the errors in the queue."""
        scpi.raise_errors(self._transport, _ERRORS)

    def close(self) -> None:
        """Close the transport."""
        self._transport.close()

    def _reconfigure(self) -> None:
        self._full_scale = _configure(self._transport, self._settings)


def _configure(transport: Transport, settings: Pm100dSettings) -> float:
    """Write the settings and return the full scale."""
    commands = [
        "CONF:POW",
        f"SENS:CORR:WAV {scpi.decimal(settings.wavelength_nm)}",
        f"SENS:AVER:COUN {settings.averages}",
        f"SENS:POW:RANG:AUTO {int(settings.range_w == 0)}",
    ]
    if settings.range_w > 0:
        commands.append(f"SENS:POW:RANG {scpi.decimal(settings.range_w)}")
    scpi.set_and_check(transport, commands, _ERRORS)
    return transport.query("SENS:POW:RANG?", lambda lines: scpi.number(lines[0])) if settings.range_w > 0 else 0.0


DRIVER = Driver("readout", Pm100dSettings, through_text(open_pm100d, DIALECT), "Thorlabs power meters of the PM100D family")
"""Entry of the driver registry."""
