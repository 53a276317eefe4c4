"""LabJack T7 and T7-Pro: 14 analog inputs over Modbus TCP, all of them in one request.

Channels 0 … 13 are AIN0 … AIN13, single-ended. One request reads from the lowest to the highest channel asked for, two
registers each. An input outside its range is returned as infinity.

Source: LabJack Modbus map (AIN at 0, AIN_RANGE at 40000, AIN_RESOLUTION_INDEX at 41500, AIN_SETTLING_US at 42000,
PRODUCT_ID at 60000, FIRMWARE_VERSION at 60004, SERIAL_NUMBER at 60028).
Not checked against a real unit: what an input outside its range reads (here -9999, or more than 1.05 times the range,
counts as overload); the time of a reading by resolution index (data sheet, gain 1).
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from typing import Annotated, ClassVar

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field

from photonloop.drivers.helpers.channel_checks import check_channels
from photonloop.drivers.helpers.numeric_choice import one_of
from photonloop.drivers.instrument import Identity
from photonloop.drivers.registry import Driver
from photonloop.drivers.transports.connection_settings import through_modbus
from photonloop.drivers.transports.modbus import ModbusTransport
from photonloop.protocols.errors import DeviceError

_INPUTS = 14
_RANGES, _RESOLUTIONS, _SETTLINGS = 40000, 41500, 42000
_PRODUCT, _FIRMWARE, _SERIAL = 60000, 60004, 60028
_OVERLOAD_RATIO = 1.05
_NO_READING = -9999.0
_SAMPLE_S = (1.1e-3, 0.04e-3, 0.06e-3, 0.1e-3, 0.16e-3, 0.3e-3, 0.55e-3, 1.1e-3, 1.1e-3)


class LabJackSettings(BaseModel):
    """Settings in a station file."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    channels: ClassVar[int] = _INPUTS
    range_v: Annotated[float, one_of(10.0, 1.0, 0.1, 0.01)] = 10.0
    """Range of all inputs, ± [V]."""
    resolution: Annotated[int, Field(ge=0, le=8)] = 0
    """Resolution index; 0 is the unit's default, 8 the slowest and least noisy."""
    settling_us: Annotated[float, Field(ge=0, le=50_000)] = 0.0
    """Settling time before each input [µs]; 0: the unit's default."""


def open_labjack(transport: ModbusTransport, settings: LabJackSettings) -> LabJackT7:
    """Return the unit behind `transport`, with its inputs configured.

    Raises
    ------
    DeviceError
        "transport" if it does not answer, "device" if it is not a T7 or refuses a setting.
    """
    product = float(transport.read_floats(_PRODUCT, 1)[0])
    if product != 7.0:
        raise DeviceError("device", f"{transport.name} is not a LabJack T7: its product number is {product:g} instead of 7")
    labjack = LabJackT7(transport, settings)
    labjack.configure()
    return labjack


class LabJackT7:
    """A `Readout` in volts. Made by `open_labjack`."""

    channels = _INPUTS
    unit = "V"

    def __init__(self, transport: ModbusTransport, settings: LabJackSettings) -> None:
        self._transport = transport
        self._settings = settings
        transport.on_reconnect(self.configure)

    @property
    def full_scale(self) -> float:
        """The range [V]."""
        return self._settings.range_v

    @property
    def sample_s(self) -> float:
        """Approximate time of one reading of all inputs [s]."""
        return _INPUTS * (_SAMPLE_S[self._settings.resolution] + 1e-6 * self._settings.settling_us)

    def identify(self) -> Identity:
        """Read serial number and firmware."""
        serial = struct.unpack(">I", self._transport.read(_SERIAL, 2))[0]
        firmware = float(self._transport.read_floats(_FIRMWARE, 1)[0])
        return Identity("LabJack", "T7", str(serial), f"{firmware:.4f}")

    def configure(self) -> None:
        """Write range, resolution and settling time of every input."""
        self._transport.write_floats(_RANGES, np.full(_INPUTS, self._settings.range_v))
        self._transport.write(_RESOLUTIONS, struct.pack(f">{_INPUTS}H", *[self._settings.resolution] * _INPUTS))
        self._transport.write_floats(_SETTLINGS, np.full(_INPUTS, self._settings.settling_us))

    def read(self, channels: Sequence[int]) -> NDArray[np.float64]:
        """Measure now [V], shape (channels,)."""
        check_channels(self._transport.name, channels, _INPUTS)
        if not channels:
            return np.zeros(0)
        first, last = min(channels), max(channels)
        volts = self._transport.read_floats(2 * first, last - first + 1)[np.asarray(channels) - first]
        if not np.isfinite(volts).all():
            raise DeviceError("transport", f"{self._transport.name} returned readings that are NaN or infinite", retryable=True)
        overloaded = (np.abs(volts) > _OVERLOAD_RATIO * self._settings.range_v) | (volts == _NO_READING)
        return np.where(overloaded, np.copysign(np.inf, np.where(volts == _NO_READING, 1.0, volts)), volts)

    def check(self) -> None:
        """Compare the range of every input with the settings: a unit that was restarted has lost them."""
        ranges = self._transport.read_floats(_RANGES, _INPUTS)
        if not np.allclose(ranges, self._settings.range_v):
            self.configure()
            raise DeviceError(
                "device",
                f"{self._transport.name} had lost its ranges, so it was restarted or set by someone else; "
                "it has been configured again",
                retryable=True,
                outcome="unknown",
            )

    def close(self) -> None:
        """Close the transport."""
        self._transport.close()


DRIVER = Driver("readout", LabJackSettings, through_modbus(open_labjack), "LabJack T7 and T7-Pro, 14 analog inputs, Modbus TCP")
"""Entry of the driver registry."""
