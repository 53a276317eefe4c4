"""Modbus TCP: numbered requests on 16-bit registers.

    ┌─────────┬──────────┬────────┬──────┬──────────┬──────────
    │ number  │ 0        │ length │ unit │ function │ payload …        all big-endian
    └─────────┴──────────┴────────┴──────┴──────────┴──────────
      2 bytes   2 bytes    2 bytes  1      1

Every request has its number, and every answer repeats it: an answer that comes late carries an old number and is thrown away.
Source: MODBUS Messaging on TCP/IP Implementation Guide V1.0b; functions 3 and 16 of the Application Protocol V1.1b3.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from typing import NoReturn

import numpy as np
from numpy.typing import NDArray

from photonloop.drivers.transports.connection import Connection
from photonloop.drivers.transports.reconfiguration import Reconfiguration
from photonloop.drivers.transports.transport import ConnectionLost, ReadTimeout, T
from photonloop.drivers.transports.transport_clock import TransportClock
from photonloop.protocols.errors import DeviceError

_HEADER = struct.Struct(">HHHB")
_READ, _WRITE = 3, 16
_LONGEST = 260  # of a whole frame on Modbus TCP
_EXCEPTIONS = {
    1: "unknown function",
    2: "no such register",
    3: "value not allowed",
    4: "the device failed",
    6: "the device is busy",
}

MOST_REGISTERS = 125
"""Of one read, by the standard."""


class _WrongAnswerError(ValueError):
    """An answer that cannot be, after which the bytes of the stream mean nothing any more."""


class ModbusTransport:
    """Registers of one Modbus TCP server.

    Parameters
    ----------
    name
        Name and address of the instrument, as errors call it.
    connection
        The way there.
    clock
        For deadlines.
    timeout_s
        How long one answer may take.
    unit
        Unit identifier; most instruments on Ethernet don't look at it.
    repeats
        How often a request is repeated; all are absolute.
    """

    def __init__(
        self, name: str, connection: Connection, clock: TransportClock, *, timeout_s: float = 1.0, unit: int = 1, retries: int = 1
    ) -> None:
        self._name = name
        self._connection = connection
        self._clock = clock
        self._timeout_s = timeout_s
        self._unit = unit
        self._repeats = retries
        self._number = 0
        self._aligned = True
        self._reconfiguration = Reconfiguration()

    @property
    def name(self) -> str:
        """Name and address of the instrument, as errors call it."""
        return self._name

    @property
    def timeout_s(self) -> float:
        """How long one answer may take."""
        return self._timeout_s

    def read(self, register: int, count: int) -> bytes:
        """Return `count` registers from `register` on, two bytes each, in one request.

        Raises
        ------
        DeviceError
            "transport" for silence, nonsense or a lost connection, "device" where the instrument refuses.
        """
        what = f"read {count} registers from {register}"

        def parse(payload: bytes) -> bytes:
            if len(payload) != 1 + 2 * count or payload[0] != 2 * count:
                raise _WrongAnswerError(f"{len(payload)} bytes where {1 + 2 * count} are due")
            return payload[1:]

        return self._exchange(what, _READ, struct.pack(">HH", register, count), parse, mutates=False)

    def read_floats(self, register: int, count: int) -> NDArray[np.float64]:
        """Return `count` numbers of 32 bits from `register` on, shape (count,), in one request."""
        return np.frombuffer(self.read(register, 2 * count), ">f4").astype(np.float64)

    def write(self, register: int, data: bytes) -> None:
        """Write `data`, two bytes a register, from `register` on, in one request."""
        count = len(data) // 2
        what = f"write {count} registers from {register}"

        def parse(payload: bytes) -> None:
            if payload != struct.pack(">HH", register, count):
                raise _WrongAnswerError(f"{payload.hex()} does not confirm the write")

        self._exchange(what, _WRITE, struct.pack(">HHB", register, count, 2 * count) + data, parse, mutates=True)

    def write_floats(self, register: int, values: NDArray[np.float64]) -> None:
        """Write numbers of 32 bits from `register` on, in one request."""
        self.write(register, values.astype(">f4").tobytes())

    def on_reconnect(self, configure: Callable[[], None]) -> None:
        """Call `configure` whenever the connection was lost and found again, before anything else is sent."""
        self._reconfiguration.use(configure)

    def close(self) -> None:
        """Let go of the instrument. Closing twice is harmless."""
        self._connection.close()

    def _exchange(self, what: str, function: int, payload: bytes, parse: Callable[[bytes], T], *, mutates: bool) -> T:
        tries = 1 + self._repeats
        sent = found_dead = False
        while True:
            self._get_ready(what, mutates, sent)
            sent_before = sent
            self._number = self._number % 0xFFFF + 1
            frame = _HEADER.pack(self._number, 0, 2 + len(payload), self._unit) + bytes([function]) + payload
            try:
                sent = True
                self._connection.send(frame)
                return parse(self._answer(what, function, self._clock.now_s() + self._timeout_s))
            except (ReadTimeout, ConnectionLost, _WrongAnswerError) as error:
                if isinstance(error, _WrongAnswerError):
                    self._aligned = False
                if isinstance(error, ConnectionLost) and not error.sent:
                    sent = sent_before
                    if not found_dead:
                        found_dead = True
                        continue
                tries -= 1
                if tries == 0:
                    self._fail(what, error, mutates=mutates and sent)

    def _answer(self, what: str, function: int, deadline_s: float) -> bytes:
        """Return the payload of the answer to the last request; answers to earlier ones are thrown away."""
        while True:
            if self._clock.now_s() > deadline_s + self._timeout_s:
                raise ReadTimeout
            number, protocol, length, _unit = _HEADER.unpack(self._connection.exactly(_HEADER.size, deadline_s))
            if protocol != 0 or not 2 <= length <= _LONGEST - 6:
                raise _WrongAnswerError(f"protocol {protocol}, length {length}")
            # From here until the body is there, the stream stands in the middle of a frame.
            self._aligned = False
            body = self._connection.exactly(length - 1, deadline_s)
            self._aligned = True
            if number != self._number:
                continue
            if body[0] == function | 0x80 and len(body) == 2:
                reason = _EXCEPTIONS.get(body[1], f"exception {body[1]}")
                raise DeviceError("device", f"{self._name} refused to {what}: {reason}", retryable=body[1] == 6)
            if body[0] != function:
                raise _WrongAnswerError(f"function {body[0]} where {function} was asked")
            return body[1:]

    def _get_ready(self, what: str, mutates: bool, sent: bool) -> None:
        outcome = "unknown" if mutates and sent else "not_applied"
        found_again = self._connection.lost or not self._aligned
        if found_again:
            self._reconfiguration.found_again()
            try:
                self._connection.reopen()
            except ConnectionLost as error:
                raise DeviceError(
                    "transport", f"{self._name} is gone: {error.reason}, before: {what}", retryable=True, outcome=outcome
                ) from None
            self._aligned = True
        if self._reconfiguration.running:
            if found_again:  # or it would be set up within being set up, without an end
                raise DeviceError(
                    "transport",
                    f"{self._name} was lost again while it was being set up, before: {what}",
                    retryable=True,
                    outcome="unknown",
                )
            return
        if self._reconfiguration.due:
            self._reconfiguration.run()
        if found_again and mutates and sent:
            raise DeviceError(
                "device",
                f"{self._name} was lost and has been opened again on the way to {what}: it may have been restarted",
                retryable=True,
                outcome="unknown",
            )

    def _fail(self, what: str, error: Exception, *, mutates: bool) -> NoReturn:
        if isinstance(error, ConnectionLost):
            detail = f"{self._name} is gone: {error.reason}, at: {what}"
        elif isinstance(error, ReadTimeout):
            only = f", only the bytes {error.got.hex()} came" if error.got else ""
            detail = f"{self._name} did not answer within {self._timeout_s:g} s to: {what}{only}"
        else:
            detail = f"{self._name} sent an answer that makes no sense ({error}) to: {what}"
        raise DeviceError("transport", detail, retryable=True, outcome="unknown" if mutates else "not_applied") from None
