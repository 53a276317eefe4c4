"""Thorlabs power meters of the PM100D family (PM100D, PM100A, PM100USB, PM101, PM103, PM400): one channel, in watts.

Every reading is a new measurement (`READ?`), averaged over the `averages` of the settings. A fixed range is faster than automatic
ranging and has a full scale; above it the meter reports 9.9E37, which is returned as infinity. One question is on its way at a
time, because a second one throws the first answer away.

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
from photonloop.drivers.transports.text import Dialect
from photonloop.drivers.transports.transport import Transport

DIALECT = Dialect(timeout_s=2.0)
"""How the instrument is spoken to."""

_ERRORS = "SYST:ERR?"
_READING_S = 3e-3
_ZERO_S = 30.0


class Pm100dSettings(BaseModel):
    """Settings of a station file."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    channels: ClassVar[int] = 1
    wavelength_nm: Annotated[float, Field(ge=100, le=20_000, allow_inf_nan=False)] = 1550.0
    """What the sensor's responsivity is corrected for."""
    range_w: Annotated[float, Field(ge=0, le=1e5, allow_inf_nan=False)] = 0.0
    """Highest power to be measured; the meter takes its next range above. 0: automatic."""
    averages: Annotated[int, Field(ge=1, le=10_000)] = 1


def open_pm100d(transport: Transport, settings: Pm100dSettings) -> Pm100d:
    """Return the meter behind `transport`, set up as `settings` say.

    Raises
    ------
    DeviceError
        "transport" where it does not answer, "device" where it does not take a setting.
    """
    scpi.forget_complaints(transport, _ERRORS)
    return Pm100d(transport, settings, _configure(transport, settings))


class Pm100d:
    """A `Readout` of one channel. Made by `open_pm100d`."""

    channels = 1
    unit = "W"

    def __init__(self, transport: Transport, settings: Pm100dSettings, full_scale: float) -> None:
        self._transport = transport
        self._settings = settings
        self._full_scale = full_scale
        transport.on_reconnect(lambda: self._remember(_configure(transport, settings)))

    @property
    def full_scale(self) -> float:
        """Top of the fixed range [W]; 0 with automatic ranging."""
        return self._full_scale

    @property
    def sample_s(self) -> float:
        """About the time of one reading [s]."""
        return _READING_S * self._settings.averages

    def identify(self) -> Identity:
        """Ask *IDN?."""
        return scpi.identity(self._transport.identity())

    def sensor(self) -> str:
        """Return what the meter says of the sensor that is plugged in."""
        return self._transport.query_line("SYST:SENS:IDN?")

    def read(self, channels: Sequence[int]) -> NDArray[np.float64]:
        """Measure power [W], shape (channels,)."""
        check_channels(self._transport.name, channels, self.channels)
        value = self._transport.query("READ?", lambda lines: scpi.number(lines[0]), wait_s=self.sample_s)
        return np.full(len(channels), value)

    def zero(self) -> float:
        """Adjust the zero, which takes seconds and needs a dark sensor; return the offset that was found [W]."""
        scpi.set_and_check(self._transport, ["SENS:CORR:COLL:ZERO"], _ERRORS, wait_s=_ZERO_S)
        return self._transport.query("SENS:CORR:COLL:ZERO:MAGN?", lambda lines: scpi.number(lines[0]))

    def check(self) -> None:
        """Empty the queue of errors."""
        scpi.raise_complaints(self._transport, _ERRORS)

    def close(self) -> None:
        """Let go of the meter."""
        self._transport.close()

    def _remember(self, full_scale: float) -> None:
        self._full_scale = full_scale


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
"""What the registry finds."""
