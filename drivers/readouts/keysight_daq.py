"""Keysight 34970A, 34972A, DAQ970A and DAQ973A: a voltmeter behind a scanner, up to three cards.

Channel 0 is the first of `inputs`, which are named as on the cards: 101 is slot 1, place 01. Each `read` is one scan started
when asked (`READ?`), every value tagged with its input, so that values are given to the right channels whatever order the
instrument scans in. The scan list is written only where it differs from the last one. An overload reads 9.9E37 and is returned
as infinity.

Source: 34970A/34972A Command Reference; DAQ970A Programming Guide.
Not checked against a real unit: the time of a scan (from `cycles` and `relay_s`), which only bounds how long an answer may take.
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
from photonloop.drivers.transports.text import Dialect
from photonloop.drivers.transports.transport import Transport

DIALECT = Dialect(timeout_s=2.0)
"""How the instrument is spoken to."""

_ERRORS = "SYST:ERR?"
_CYCLE_S = 0.02
"""One power-line cycle at 50 Hz; at 60 Hz it is shorter."""


class KeysightDaqSettings(BaseModel):
    """Settings of a station file."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    inputs: Annotated[tuple[Annotated[int, Field(ge=101, le=399)], ...], Field(min_length=1, max_length=120)] = tuple(
        range(101, 121)
    )
    """Inputs by name, in the order of channels 0, 1, 2, …"""
    range_v: Annotated[float, one_of(0.1, 1.0, 10.0, 100.0, 300.0)] = 10.0
    cycles: Annotated[float, one_of(0.02, 0.2, 1.0, 2.0, 10.0, 20.0, 100.0, 200.0)] = 1.0
    """Integration time of one input, in power-line cycles."""
    relay_s: Annotated[float, Field(ge=0, le=1)] = 0.02
    """Time to switch from one input to the next."""

    @property
    def channels(self) -> int:
        """Channels: one an input."""
        return len(self.inputs)

    @model_validator(mode="after")
    def _once_each(self) -> Self:
        if len(set(self.inputs)) < len(self.inputs):
            raise ValueError(f"inputs names {next(i for i in self.inputs if self.inputs.count(i) > 1)} twice")
        return self


def open_keysight_daq(transport: Transport, settings: KeysightDaqSettings) -> KeysightDaq:
    """Return the scanner behind `transport`, its inputs set up to measure DC volts.

    Raises
    ------
    DeviceError
        "transport" where it does not answer, "device" where an input is not there.
    """
    transport.query(scpi.joined(["ABOR", _ERRORS]), lambda lines: scpi.complaint(lines[0]), mutates=True)
    scpi.forget_complaints(transport, _ERRORS)
    daq = KeysightDaq(transport, settings)
    daq.configure()
    return daq


class KeysightDaq:
    """A `Readout` in volts. Made by `open_keysight_daq`."""

    unit = "V"

    def __init__(self, transport: Transport, settings: KeysightDaqSettings) -> None:
        self._transport = transport
        self._settings = settings
        self._wanted = tuple(sorted(settings.inputs))
        self._scanned: tuple[int, ...] = ()
        transport.on_reconnect(self.configure)

    @property
    def channels(self) -> int:
        """Inputs in use."""
        return len(self._settings.inputs)

    @property
    def full_scale(self) -> float:
        """The range [V]; the voltmeter reads up to 20 % beyond."""
        return self._settings.range_v

    @property
    def sample_s(self) -> float:
        """About the time of a scan over all inputs [s]."""
        return self._scan_s(self.channels)

    def identify(self) -> Identity:
        """Ask *IDN?."""
        return scpi.identity(self._transport.identity())

    def configure(self) -> None:
        """Write all settings; `CONF` resets format and scan list, so these follow it."""
        listed = _listed(sorted(self._settings.inputs))
        commands = [
            f"CONF:VOLT:DC {scpi.decimal(self._settings.range_v)},{listed}",
            f"VOLT:DC:NPLC {scpi.decimal(self._settings.cycles)},{listed}",
            f"ROUT:SCAN {_listed(self._wanted)}",
            "FORM:READ:CHAN ON",
            "TRIG:SOUR IMM",
        ]
        scpi.set_and_check(self._transport, commands, _ERRORS)
        self._scanned = self._wanted

    def read(self, channels: Sequence[int]) -> NDArray[np.float64]:
        """Scan the named channels now [V], shape (channels,)."""
        check_channels(self._transport.name, channels, self.channels)
        if not channels:
            return np.zeros(0)
        names = [self._settings.inputs[channel] for channel in channels]
        wanted = self._wanted = tuple(sorted(set(names)))
        # The list travels with the question: repeated after a silence, both are. An instrument lost and found on the way gets
        # it from `configure`.
        change = [] if wanted == self._scanned else [f"ROUT:SCAN {_listed(wanted)}"]
        self._scanned = ()
        values = self._transport.query(
            scpi.joined([*change, "READ?"]), lambda lines: _tagged(lines[0], wanted), wait_s=self._scan_s(len(wanted))
        )
        self._scanned = wanted
        return np.array([values[name] for name in names])

    def check(self) -> None:
        """Empty the queue of errors."""
        scpi.raise_complaints(self._transport, _ERRORS)

    def close(self) -> None:
        """Let go of the instrument."""
        self._transport.close()

    def _scan_s(self, count: int) -> float:
        return count * (self._settings.cycles * _CYCLE_S + self._settings.relay_s)


def _listed(inputs: Sequence[int]) -> str:
    return f"(@{','.join(map(str, inputs))})"


def _tagged(line: str, inputs: tuple[int, ...]) -> dict[int, float]:
    """Return readings by input from "value,input,value,input"; ValueError where they are not these inputs, once each."""
    parts = line.split(",")
    values = {int(name): scpi.number(value) for value, name in zip(parts[::2], parts[1::2], strict=True)}
    if tuple(sorted(values)) != inputs or len(parts) != 2 * len(inputs):
        raise ValueError(f"it scanned {sorted(values)} in place of {list(inputs)}")
    return values


DRIVER = Driver(
    "readout",
    KeysightDaqSettings,
    through_text(open_keysight_daq, DIALECT),
    "Keysight 34970A, 34972A, DAQ970A and DAQ973A scanners",
)
"""What the registry finds."""
