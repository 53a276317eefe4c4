"""Modbus TCP: numbered requests on 16-bit registers.

    ┌─────────┬──────────┬────────┬──────┬──────────┬──────────
    │ number  │ 0        │ length │ unit │ function │ data …           all big-endian
    └─────────┴──────────┴────────┴──────┴──────────┴──────────
      2 bytes   2 bytes    2 bytes  1      1

Every request has its own number, and its answer repeats it: a late answer carries an old number and is discarded.
Source: MODBUS Messaging on TCP/IP Implementation Guide V1.0b; functions 3 and 16 of the Application Protocol V1.1b3.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from typing import NoReturn

import numpy as np
from numpy.typing import NDArray

from photonloop.drivers.transports.connection import Connection
from photonloop.drivers.transports.interfaces import ConnectionLost, ReadTimeout, T
from photonloop.drivers.transports.reconfiguration import Reconfiguration
from photonloop.drivers.transports.transport_clock import TransportClock
from photonloop.protocols.errors import DeviceError

_HEADER = struct.Struct(">HHHB")
_READ, _WRITE = 3, 16
_MAX_FRAME_BYTES = 260  # on Modbus TCP
_EXCEPTIONS = {
    1: "unknown function",
    2: "no such register",
    3: "value not allowed",
    4: "the device failed",
    6: "the device is busy",
}

MAX_REGISTERS = 125
"""Registers of one read, by the standard."""


class _InvalidAnswerError(ValueError):
    """An invalid answer, after which the start of the next frame in the stream is unknown."""


class ModbusTransport:
    """Registers of one Modbus TCP server.

    Parameters
    ----------
    name
        Name and address of the instrument, for error messages.
    connection
        Connection to the server.
    clock
        For deadlines.
    timeout_s
        Time allowed for one answer.
    unit
        Unit identifier; most instruments on Ethernet ignore it.
    retries
        Number of repetitions of a request; all requests are absolute.
    """

    def __init__(
        self, name: str, connection: Connection, clock: TransportClock, *, timeout_s: float = 1.0, unit: int = 1, retries: int = 1
    ) -> None:
        self._name = name
        self._connection = connection
        self._clock = clock
        self._timeout_s = timeout_s
        self._unit = unit
        self._retries = retries
        self._number = 0
        self._aligned = True
        self._reconfiguration = Reconfiguration()

    @property
    def name(self) -> str:
        """Name and address of the instrument, for error messages."""
        return self._name

    @property
    def timeout_s(self) -> float:
        """Time allowed for one answer."""
        return self._timeout_s

    def read(self, register: int, count: int) -> bytes:
        """Return `count` registers from `register` on, two bytes each, in one request.

        Raises
        ------
        DeviceError
            "transport" for a timeout, an invalid answer or a lost connection, "device" if the instrument refuses.
        """
        request = f"read {count} registers from {register}"

        def parse(data: bytes) -> bytes:
            if len(data) != 1 + 2 * count or data[0] != 2 * count:
                raise _InvalidAnswerError(f"{len(data)} bytes instead of {1 + 2 * count}")
            return data[1:]

        return self._exchange(request, _READ, struct.pack(">HH", register, count), parse, mutates=False)

    def read_floats(self, register: int, count: int) -> NDArray[np.float64]:
        """Return `count` 32-bit floats from `register` on, shape (count,), in one request."""
        return np.frombuffer(self.read(register, 2 * count), ">f4").astype(np.float64)

    def write(self, register: int, data: bytes) -> None:
        """Write `data`, two bytes per register, from `register` on, in one request."""
        count = len(data) // 2
        request = f"write {count} registers from {register}"

        def parse(answer: bytes) -> None:
            if answer != struct.pack(">HH", register, count):
                raise _InvalidAnswerError(f"{answer.hex()} does not confirm the write")

        self._exchange(request, _WRITE, struct.pack(">HHB", register, count, 2 * count) + data, parse, mutates=True)

    def write_floats(self, register: int, values: NDArray[np.float64]) -> None:
        """Write 32-bit floats from `register` on, in one request."""
        self.write(register, values.astype(">f4").tobytes())

    def on_reconnect(self, configure: Callable[[], None]) -> None:
        """Call `configure` whenever the connection was lost and reopened, before anything else is sent."""
        self._reconfiguration.set_configure(configure)

    def close(self) -> None:
        """Close the connection. Closing twice is harmless."""
        self._connection.close()

    def _exchange(self, request: str, function: int, data: bytes, parse: Callable[[bytes], T], *, mutates: bool) -> T:
        tries = 1 + self._retries
        sent = found_lost = False
        while True:
            self._get_ready(request, mutates, sent)
            sent_before = sent
            self._number = self._number % 0xFFFF + 1
            frame = _HEADER.pack(self._number, 0, 2 + len(data), self._unit) + bytes([function]) + data
            try:
                sent = True
                self._connection.send(frame)
                return parse(self._answer(request, function, self._clock.now_s() + self._timeout_s))
            except (ReadTimeout, ConnectionLost, _InvalidAnswerError) as error:
                if isinstance(error, _InvalidAnswerError):
                    self._aligned = False
                if isinstance(error, ConnectionLost) and not error.sent:
                    sent = sent_before
                    if not found_lost:
                        found_lost = True
                        continue
                tries -= 1
                if tries == 0:
                    self._raise_failure(request, error, mutates=mutates and sent)

    def _answer(self, request: str, function: int, deadline_s: float) -> bytes:
        """Return the data of the answer to the last request; answers to earlier ones are discarded."""
        while True:
            if self._clock.now_s() > deadline_s + self._timeout_s:
                raise ReadTimeout
            number, protocol, length, _unit = _HEADER.unpack(self._connection.read_exactly(_HEADER.size, deadline_s))
            if protocol != 0 or not 2 <= length <= _MAX_FRAME_BYTES - 6:
                raise _InvalidAnswerError(f"protocol {protocol}, length {length}")
            # Until the body has been read, the stream is in the middle of a frame.
            self._aligned = False
            body = self._connection.read_exactly(length - 1, deadline_s)
            self._aligned = True
            if number != self._number:
                continue
            if body[0] == function | 0x80 and len(body) == 2:
                reason = _EXCEPTIONS.get(body[1], f"exception {body[1]}")
                raise DeviceError("device", f"{self._name} refused to {request}: {reason}", retryable=body[1] == 6)
            if body[0] != function:
                raise _InvalidAnswerError(f"function {body[0]} instead of {function}")
            return body[1:]

    def _get_ready(self, request: str, mutates: bool, sent: bool) -> None:
        """Reopen and reconfigure as needed. `sent`: an earlier try of the request may have reached the instrument."""
        outcome = "unknown" if mutates and sent else "not_applied"
        reopened = self._connection.lost or not self._aligned
        if reopened:
            self._reconfiguration.require()
            try:
                self._connection.reopen()
            except ConnectionLost as error:
                raise DeviceError(
                    "transport",
                    f"{self._name}: connection lost before the request to {request}: {error.reason}",
                    retryable=True,
                    outcome=outcome,
                ) from None
            self._aligned = True
        if self._reconfiguration.running:
            if reopened:  # configuring must not start again within itself, without an end
                raise DeviceError(
                    "transport",
                    f"{self._name} was lost again while it was being configured, before the request to {request}",
                    retryable=True,
                    outcome="unknown",
                )
            return
        if self._reconfiguration.due:
            self._reconfiguration.run()
        if reopened and mutates and sent:
            raise DeviceError(
                "device",
                f"{self._name} was lost and reconnected during the request to {request}: it may have been restarted",
                retryable=True,
                outcome="unknown",
            )

    def _raise_failure(self, request: str, error: Exception, *, mutates: bool) -> NoReturn:
        if isinstance(error, ConnectionLost):
            detail = f"{self._name}: connection lost during the request to {request}: {error.reason}"
        elif isinstance(error, ReadTimeout):
            partial = f", it sent only the bytes {error.received.hex()}" if error.received else ""
            detail = f"{self._name} did not answer the request to {request} within {self._timeout_s:g} s{partial}"
        else:
            detail = f"{self._name} sent an invalid answer to the request to {request}: {error}"
        raise DeviceError("transport", detail, retryable=True, outcome="unknown" if mutates else "not_applied") from None
