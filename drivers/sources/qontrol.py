"""Qontrol Q8iv and Q8b driver modules on a BP8 backplane: 8 voltage channels per module, one serial line for the chain.

    port ── Q8iv 0 ── Q8iv 1 ── …        channels 0 … 7, 8 … 15, … along the chain

Channels count along the chain from 0, as the modules themselves count. Voltages are set per module (`VVEC`), all
modules of one call in one write. `VVEC` sets every channel of its module, and the modules report measured voltages
only, not setpoints. So `VVEC` is used only if this driver itself set each channel of the module last; otherwise the
named channels are set one by one (`V`). `set_limits` writes VMAX and IMAX of every channel into the modules. A module
that has lost power forgets them and reports error 90; then they are written again. Errors come at any time, solicited
or not: `set_volts`, `read_…` and `check` raise those that have arrived.

Sources: vendor's public Python API (github.com/takeqontrol/api); command set as published there.
Not checked against a real unit: that the number after VVEC is the first channel of the vector; the text around numbers
(anything around the first number of a line is ignored); how NUPALL ends (here: a tenth of the timeout without a line,
or OK); the length of a message that the modules take (after error 14 everything is sent again). The binary mode, about
twice as fast, is not used.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, NoReturn

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field

from photonloop.drivers.helpers.channel_checks import check_channels, check_volts, send_all, tightened, try_until_confirmed
from photonloop.drivers.instrument import ChannelLimits, Identity
from photonloop.drivers.registry import Driver
from photonloop.drivers.transports.connection_settings import through_text
from photonloop.drivers.transports.dialect import Dialect
from photonloop.drivers.transports.interfaces import Transport
from photonloop.protocols.errors import DeviceError

_ERROR = re.compile(r"\s*[A-Za-z]{1,3}(\d+):(\d+)\s*")
_NUMBER = re.compile(r"[+-]?(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?")
_MODULE = re.compile(r"(([A-Za-z]+)(\d+)\w*)-([0-9A-Fa-f*]+)\s*:\s*(\d+)")

_MODULE_CHANNELS = 8
_POWERED_UP = 90
_SEND_AGAIN = frozenset({14, 15, 16})
_ANSWERS = frozenset(range(10, 17))
"""Errors that replace the answer to a command. All others are unsolicited."""

_ERROR_TEXTS = {
    1: "over-voltage",
    2: "over-current",
    3: "power",
    4: "calibration",
    5: "output",
    10: "unknown command",
    11: "unknown parameter",
    12: "unknown channel",
    13: "forbidden",
    14: "serial buffer overflow",
    15: "serial line",
    16: "command timed out",
    30: "too many errors, some were dropped",
    31: "firmware trap",
    90: "powered up",
}

_FULL_SCALE = {"Q8iv": (12.0, 0.024), "Q8b": (12.0, 0.25 / 3)}
"""Full scale [V, A] of module types that a chain may mix.

For other types, the answer of the chain applies to all modules.
"""


class QontrolSettings(BaseModel):
    """Settings in a station file."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    modules: Annotated[int, Field(ge=0, le=64)] = 0
    """Number of modules on the chain; 0: as many as answer."""

    @property
    def channels(self) -> int:
        """Channels of that many modules; 0: not known before opening."""
        return _MODULE_CHANNELS * self.modules


@dataclass(frozen=True)
class _Module:
    kind: str
    serial: str
    first: int
    channels: int


def _error_code(line: str) -> int | None:
    match = _ERROR.fullmatch(line)
    return int(match[1]) if match else None


def _is_unsolicited(line: str) -> bool:
    code = _error_code(line)
    return code is not None and code not in _ANSWERS


DIALECT = Dialect(
    timeout_s=0.5, retries=2, id_query="id?", id_pattern=r"\w+-[0-9A-Fa-f*]+", is_unsolicited=_is_unsolicited, baud=115200
)
"""Timeout, identification and baud rate of the modules."""


def open_qontrol(transport: Transport, settings: QontrolSettings) -> Qontrol:
    """Return the chain behind `transport`, after counting its modules and querying their full scales.

    No output changes.

    Raises
    ------
    DeviceError
        "transport" if it does not answer, "device" if modules are missing.
    """
    transport.query("nup=0", _check_ok)  # the modules are numbered again
    modules = transport.query("nupall?", _parse_modules, lines=0)
    if settings.modules and len(modules) != settings.modules:
        raise DeviceError(
            "device",
            f"{transport.name} has {len(modules)} modules on its chain, but modules is {settings.modules} in its settings",
        )
    full_v, full_ma = (transport.query(f"{quantity}full?", _one_number) for quantity in ("v", "i"))
    hardware: list[ChannelLimits] = []
    for module in modules:
        max_v, max_a = _FULL_SCALE.get(module.kind, (full_v, full_ma / 1000))
        hardware += [ChannelLimits(min_v=0.0, max_v=max_v, max_a=max_a, bits=16, range_v=max_v)] * module.channels
    transport.pop_unsolicited()  # errors from before it was opened
    return Qontrol(transport, modules, hardware)


class Qontrol:
    """A chain of modules as a `DriveSource` that `ReadsVolts`, `MeasuresVolts` and `ReadsAmps`: all are measured.

    Made by `open_qontrol`.
    """

    def __init__(self, transport: Transport, modules: Sequence[_Module], hardware: Sequence[ChannelLimits]) -> None:
        self._transport = transport
        self._modules = tuple(modules)
        self._hardware = tuple(hardware)
        self._limits = list(hardware)
        self._written_limits: dict[int, ChannelLimits] = {}
        self._held = np.full(len(hardware), np.nan)
        """Setpoints [V]; NaN for channels not set by this driver since it was opened, or since the last failure."""
        self._restoring = False
        transport.on_reconnect(lambda: self._restore_and_raise("was lost and reconnected"))

    @property
    def channels(self) -> int:
        """Number of channels of the whole chain."""
        return len(self._hardware)

    def identify(self) -> Identity:
        """Query the first module; the model states how many more there are."""
        model, _, serial = self._transport.identity().partition("-")
        firmware = self._transport.query_line("firmware?")
        more = f" and {len(self._modules) - 1} more" if len(self._modules) > 1 else ""
        return Identity("Qontrol", model + more, serial, firmware)

    def limits(self, channel: int) -> ChannelLimits:
        """Return the limits of `channel`."""
        check_channels(self._transport.name, [channel], self.channels)
        return self._limits[channel]

    def set_limits(self, limits: Mapping[int, ChannelLimits]) -> None:
        """Write VMAX and IMAX of the named channels."""
        check_channels(self._transport.name, tuple(limits), self.channels)
        tight = {c: tightened(self._transport.name, c, self._hardware[c], limit) for c, limit in limits.items()}
        self._write_limits(tight)
        self._written_limits.update(tight)
        for channel, limit in tight.items():
            self._limits[channel] = limit
        self._raise_unsolicited()

    def set_volts(self, volts: Mapping[int, float]) -> None:
        """Set the named channels and no others, all in one write: by `VVEC` if all setpoints of a module are known."""
        check_volts(self._transport.name, volts, self._limits)
        self._raise_unsolicited()
        held = self._held.copy()
        held[list(volts)] = list(volts.values())
        lines: list[str] = []
        for module in self._modules:
            members = range(module.first, module.first + module.channels)
            named = [channel for channel in members if channel in volts]
            if named:
                known = not np.isnan(held[members]).any()
                lines += [_vector(module, held)] if known else [f"v{channel}={held[channel]:.5f}" for channel in named]
        if lines:
            self._held[list(volts)] = np.nan  # unknown if the query fails
            self._query(lines, mutates=True)
        self._held = held
        self._raise_unsolicited()

    def read_volts(self, channels: Sequence[int]) -> NDArray[np.float64]:
        """Return measured voltages [V], shape (channels,); queries every channel of the chain, in one exchange."""
        return self._read_all("vall?", channels)

    def measure_volts(self, channels: Sequence[int]) -> NDArray[np.float64]:
        """Return the same as `read_volts`: the modules report measured voltages only."""
        return self.read_volts(channels)

    def read_amps(self, channels: Sequence[int]) -> NDArray[np.float64]:
        """Return measured currents [A], shape (channels,); queries every channel of the chain, in one exchange."""
        return self._read_all("iall?", channels) / 1000

    def check(self) -> None:
        """Make sure that the first module answers, and raise the errors that the modules have reported."""
        self._transport.identity()
        self._raise_unsolicited()

    def safe(self) -> None:
        """Set every channel to 0 V.

        Tries vectors, vectors again (the connection may be reopened meanwhile), one by one, and at last without waiting
        for replies.
        """
        zeros = np.zeros(self.channels)
        vectors = [_vector(module, zeros) for module in self._modules]
        singles = [[f"v{channel}=0.00000"] for channel in range(self.channels)]
        self._held[:] = np.nan

        def all_at_once() -> None:
            self._query(vectors, mutates=True)

        def one_by_one() -> None:
            send_all(singles, lambda lines: self._query(lines, mutates=True))

        try_until_confirmed(self._transport, [all_at_once, all_at_once, one_by_one], vectors, "0 V")
        self._held = zeros

    def close(self) -> None:
        """Close the transport; the outputs stay as they are."""
        self._transport.close()

    def _query(self, lines: list[str], *, mutates: bool) -> None:
        """Send commands that are each answered OK, all in one write."""
        try:
            self._transport.query("\n".join(lines), _check_ok, lines=len(lines), mutates=mutates)
        except DeviceError as error:
            if error.code == "transport":
                self._raise_unsolicited()  # an error reported by a module explains the missing answer
            raise

    def _read_all(self, command: str, channels: Sequence[int]) -> NDArray[np.float64]:
        check_channels(self._transport.name, channels, self.channels)
        values = self._transport.query(command, lambda lines: np.array([_number(line) for line in lines]), lines=self.channels)
        self._raise_unsolicited()
        return values[list(channels)]

    def _write_limits(self, limits: Mapping[int, ChannelLimits]) -> None:
        for module in self._modules:
            limited = [c for c in range(module.first, module.first + module.channels) if c in limits]
            lines = [f"vmax{c}={limits[c].max_v:.5f}" for c in limited] + [
                f"imax{c}={1000 * limits[c].max_a:.5f}" for c in limited if limits[c].max_a > 0
            ]
            if lines:
                self._query(lines, mutates=False)

    def _raise_unsolicited(self) -> None:
        """Raise unsolicited errors; after a power-up, write the limits again first."""
        errors = [(int(m[1]), int(m[2])) for line in self._transport.pop_unsolicited() if (m := _ERROR.fullmatch(line))]
        if errors:
            # A module may have shut off a channel, and VVEC for its neighbours would switch that on again.
            self._held[:] = np.nan
        if any(code == _POWERED_UP for code, _ in errors) and not self._restoring:
            self._restore_and_raise(f"was powered up again ({_describe(errors)})")
        if errors:
            channel = next((number for code, number in errors if code in {1, 2}), None)
            raise DeviceError(
                "device", f"{self._transport.name} reports an error: {_describe(errors)}", outcome="unknown", channel=channel
            )

    def _restore_and_raise(self, reason: str) -> NoReturn:
        """Write the limits again after a restart, and raise."""
        self._held[:] = np.nan
        self._restoring = True  # a power-up during this must not start it again, without an end
        try:
            self._write_limits(self._written_limits)
        finally:
            self._restoring = False
        raise DeviceError(
            "device",
            f"{self._transport.name} {reason}: its limits have been written again, every channel must be set again",
            retryable=True,
            outcome="unknown",
        )


def _vector(module: _Module, volts: NDArray[np.float64]) -> str:
    values = volts[module.first : module.first + module.channels]
    return f"VVEC{module.first}=" + ",".join(f"{value:.5f}" for value in values)


def _describe(errors: Sequence[tuple[int, int]]) -> str:
    return "; ".join(f"{_ERROR_TEXTS.get(code, f'error {code}')} at {place}" for code, place in errors)


def _check_ok(lines: list[str]) -> None:
    for line in lines:
        if line == "OK":
            continue
        code = _error_code(line)
        if code is None or code in _SEND_AGAIN:
            raise ValueError(f"{line!r} instead of OK")
        raise DeviceError(
            "device", f"the driver module refused a command: {_ERROR_TEXTS.get(code, code)} ({line})", outcome="unknown"
        )


def _parse_modules(lines: list[str]) -> tuple[_Module, ...]:
    modules: dict[int, _Module] = {}
    for line in lines:
        if line in {"", "OK"}:
            continue
        match = _MODULE.fullmatch(line)
        if match is None:
            raise ValueError(f"{line!r} does not describe a module")
        modules[int(match[5])] = _Module(match[1], match[4], 0, int(match[3]))
    if sorted(modules) != list(range(len(modules))) or not modules:
        raise ValueError(f"modules are numbered {sorted(modules)}")
    first, placed = 0, []
    for index in range(len(modules)):
        placed.append(_Module(modules[index].kind, modules[index].serial, first, modules[index].channels))
        first += modules[index].channels
    return tuple(placed)


def _number(line: str) -> float:
    match = _NUMBER.search(line)
    if match is None:
        raise ValueError(f"no number in {line!r}")
    return float(match[0])


def _one_number(lines: list[str]) -> float:
    return _number(lines[0])


DRIVER = Driver(
    "source", QontrolSettings, through_text(open_qontrol, DIALECT), "Qontrol Q8iv and Q8b modules on a BP8 backplane, serial"
)
"""Entry of the driver registry."""
