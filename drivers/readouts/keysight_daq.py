"""Keysight 34970A, 34972A, DAQ970A and DAQ973A: a voltmeter behind a scanner, up to three cards.

Channel 0 is the first of `inputs`, which are numbered as on the cards: 101 is input 01 of slot 1. Each `read` starts
one scan (`READ?`). Every value is tagged with its input, so values go to the right channels in whatever order the
instrument scans. The scan list is written only if it differs from the last one. An overload reads 9.9E37 and is
returned as infinity.

Source: 34970A/34972A Command Reference; DAQ970A Programming Guide.
Not checked against a real unit: the time of a scan (from `cycles` and `relay_s`), which is used only for the time
allowed for an answer.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Self

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, model_validator

from photonloop.drivers.helpers import scpi
from photonloop.drivers.helpers.channel_checks import check_channels
from photonloop.drivers.helpers.numeric_choice import one_of
from photonloop.drivers.instrument import Identity
from photonloop.drivers.registry import Driver
from photonloop.drivers.transports.connection_settings import through_text
from photonloop.drivers.transports.dialect import Dialect
from photonloop.drivers.transports.interfaces import Transport

DIALECT = Dialect(timeout_s=2.0)
"""Timeout of the instrument."""

_ERRORS = "SYST:ERR?"
_CYCLE_S = 0.02
"""One power-line cycle at 50 Hz; at 60 Hz it is shorter."""


class KeysightDaqSettings(BaseModel):
    """Settings in a station file."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    inputs: Annotated[tuple[Annotated[int, Field(ge=101, le=399)], ...], Field(min_length=1, max_length=120)] = tuple(
        range(101, 121)
    )
    """Numbers of the inputs, in the order of channels 0, 1, 2, …"""
    range_v: Annotated[float, one_of(0.1, 1.0, 10.0, 100.0, 300.0)] = 10.0
    cycles: Annotated[float, one_of(0.02, 0.2, 1.0, 2.0, 10.0, 20.0, 100.0, 200.0)] = 1.0
    """Integration time of one input, in power-line cycles."""
    relay_s: Annotated[float, Field(ge=0, le=1)] = 0.02
    """Time to switch from one input to the next."""

    @property
    def channels(self) -> int:
        """Number of channels: one per input."""
        return len(self.inputs)

    @model_validator(mode="after")
    def _inputs_are_unique(self) -> Self:
        if len(set(self.inputs)) < len(self.inputs):
            raise ValueError(f"inputs names {next(i for i in self.inputs if self.inputs.count(i) > 1)} twice")
        return self


def open_keysight_daq(transport: Transport, settings: KeysightDaqSettings) -> KeysightDaq:
    """Return the scanner behind `transport`, configured to measure DC voltages.

    Raises
    ------
    DeviceError
        "transport" if it does not answer, "device" if an input does not exist.
    """
    transport.query(scpi.joined(["ABOR", _ERRORS]), lambda lines: scpi.parse_error(lines[0]), mutates=True)
    scpi.read_errors(transport, _ERRORS)  # discards errors from before it was opened
    daq = KeysightDaq(transport, settings)
    daq.configure()
    return daq


class KeysightDaq:
    """A `Readout` in volts. Made by `open_keysight_daq`."""

    unit = "V"

    def __init__(self, transport: Transport, settings: KeysightDaqSettings) -> None:
        self._transport = transport
        self._settings = settings
        self._scan_list = tuple(sorted(settings.inputs))
        self._scanned: tuple[int, ...] = ()
        transport.on_reconnect(self.configure)

    @property
    def channels(self) -> int:
        """Number of inputs in use."""
        return len(self._settings.inputs)

    @property
    def full_scale(self) -> float:
        """The range [V]; the voltmeter reads up to 20 % above it."""
        return self._settings.range_v

    @property
    def sample_s(self) -> float:
        """Approximate time of a scan over all inputs [s]."""
        return self._scan_s(self.channels)

    def identify(self) -> Identity:
        """Query *IDN?."""
        return scpi.identity(self._transport.identity())

    def configure(self) -> None:
        """Write all settings; `CONF` resets format and scan list, so these are written after it."""
        listed = _listed(sorted(self._settings.inputs))
        commands = [
            f"CONF:VOLT:DC {scpi.decimal(self._settings.range_v)},{listed}",
            f"VOLT:DC:NPLC {scpi.decimal(self._settings.cycles)},{listed}",
            f"ROUT:SCAN {_listed(self._scan_list)}",
            "FORM:READ:CHAN ON",
            "TRIG:SOUR IMM",
        ]
        scpi.set_and_check(self._transport, commands, _ERRORS)
        self._scanned = self._scan_list

    def read(self, channels: Sequence[int]) -> NDArray[np.float64]:
        """Scan the named channels now [V], shape (channels,)."""
        check_channels(self._transport.name, channels, self.channels)
        if not channels:
            return np.zeros(0)
        names = [self._settings.inputs[channel] for channel in channels]
        inputs = self._scan_list = tuple(sorted(set(names)))
        # The list is sent in the same message as the query, so that a retry repeats both. If the instrument is lost and
        # reconnected meanwhile, `configure` writes the list.
        change = [] if inputs == self._scanned else [f"ROUT:SCAN {_listed(inputs)}"]
        self._scanned = ()
        values = self._transport.query(
            scpi.joined([*change, "READ?"]), lambda lines: _parse_tagged(lines[0], inputs), wait_s=self._scan_s(len(inputs))
        )
        self._scanned = inputs
        return np.array([values[name] for name in names])

    def check(self) -> None:
        """Raise the errors in the queue."""
        scpi.raise_errors(self._transport, _ERRORS)

    def close(self) -> None:
        """Close the transport."""
        self._transport.close()

    def _scan_s(self, count: int) -> float:
        return count * (self._settings.cycles * _CYCLE_S + self._settings.relay_s)


def _listed(inputs: Sequence[int]) -> str:
    return f"(@{','.join(map(str, inputs))})"


def _parse_tagged(line: str, inputs: tuple[int, ...]) -> dict[int, float]:
    """Return readings by input from "value,input,value,input"; ValueError unless each of `inputs` is there once."""
    parts = line.split(",")
    values = {int(name): scpi.number(value) for value, name in zip(parts[::2], parts[1::2], strict=True)}
    if tuple(sorted(values)) != inputs or len(parts) != 2 * len(inputs):
        raise ValueError(f"it scanned {sorted(values)} instead of {list(inputs)}")
    return values


DRIVER = Driver(
    "readout",
    KeysightDaqSettings,
    through_text(open_keysight_daq, DIALECT),
    "Keysight 34970A, 34972A, DAQ970A and DAQ973A scanners",
)
"""Entry of the driver registry."""
