"""From an address to an open transport.

TCPIP::192.168.1.5::5025::SOCKET     a socket, through pyvisa
ASRL/dev/ttyUSB0::INSTR              a serial port, through pyserial with pyvisa-py, else through VISA
/dev/ttyUSB0                         the same serial port
USB0::0x1313::0x8078::P0001::INSTR   whatever else VISA knows
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Generic, TypeVar

from photonloop.drivers.transports.connection import Connection
from photonloop.drivers.transports.instrument_address import serial_path
from photonloop.drivers.transports.modbus import ModbusTransport
from photonloop.drivers.transports.recording import Recorder, recorded
from photonloop.drivers.transports.serial_port import open_serial
from photonloop.drivers.transports.text import Dialect, TextTransport, start_text
from photonloop.drivers.transports.transport import ConnectionLost, Stream
from photonloop.drivers.transports.transport_clock import SystemClock, TransportClock
from photonloop.protocols.errors import DeviceError

S = TypeVar("S")
Opened = TypeVar("Opened")


@dataclass(frozen=True)
class ConnectionSettings:
    """How to get to one instrument.

    Parameters
    ----------
    address
        See the module's docstring.
    name
        What errors call the instrument; empty: its address.
    library
        The VISA library: "@py" for pyvisa-py, "@ivi" or a path for another.
    timeout_s
        How long one answer may take; 0: as the driver says.
    recorder
        Told everything that is sent and got.
    nodelay
        False leaves Nagle's algorithm on, to measure what that costs.
    clock
        For deadlines.
    """

    address: str
    name: str = ""
    library: str = "@py"
    timeout_s: float = 0.0
    recorder: Recorder | None = None
    nodelay: bool = True
    clock: TransportClock = field(default_factory=SystemClock)

    @property
    def called(self) -> str:
        """Name and address, as errors call the instrument."""
        return f"{self.name} ({self.address})" if self.name else self.address


def open_text(link: ConnectionSettings, dialect: Dialect) -> TextTransport:
    """Return a transport in text to the instrument at `link`, which has said who it is.

    Raises
    ------
    DeviceError
        "transport": nobody there, or nobody who answers as `dialect` expects.
    """
    timeout_s = link.timeout_s or dialect.timeout_s
    if timeout_s != dialect.timeout_s:
        dialect = replace(dialect, timeout_s=timeout_s)
    connection = _connect(link, timeout_s, dialect.read_termination, dialect.baud)
    try:
        return start_text(link.called, connection, dialect, link.clock)
    except BaseException:
        connection.close()
        raise


def open_modbus(link: ConnectionSettings, *, timeout_s: float = 1.0, unit: int = 1) -> ModbusTransport:
    """Return a Modbus transport to the instrument at `link`.

    Raises
    ------
    DeviceError
        "transport": nobody there.
    """
    timeout_s = link.timeout_s or timeout_s
    return ModbusTransport(link.called, _connect(link, timeout_s, "", 0), link.clock, timeout_s=timeout_s, unit=unit)


@dataclass(frozen=True)
class Through(Generic[S, Opened]):
    """What opens a link and hands its transport to a driver; made by `through_text` and `through_modbus`.

    A driver that is opened so takes the addresses of this module's docstring, which can be checked before anything is opened.
    """

    opener: Callable[[ConnectionSettings, S], Opened]
    needs_socket: bool = False
    """Whether only a socket will do."""

    def __call__(self, link: ConnectionSettings, settings: S) -> Opened:
        """Open the instrument at `link`."""
        return self.opener(link, settings)


def through_text(opener: Callable[[TextTransport, S], Opened], dialect: Dialect | Callable[[S], Dialect]) -> Through[S, Opened]:
    """Return what opens a link in text and hands it to `opener` with the settings; closed again where that fails.

    `dialect` may follow from the settings.
    """

    def open_through_text(link: ConnectionSettings, settings: S) -> Opened:
        transport = open_text(link, dialect if isinstance(dialect, Dialect) else dialect(settings))
        return _or_closed(transport, lambda: opener(transport, settings))

    return Through(open_through_text)


def through_modbus(opener: Callable[[ModbusTransport, S], Opened]) -> Through[S, Opened]:
    """Return what opens a Modbus link and hands it to `opener` with the settings; closed again where that fails."""

    def open_through_modbus(link: ConnectionSettings, settings: S) -> Opened:
        transport = open_modbus(link)
        return _or_closed(transport, lambda: opener(transport, settings))

    return Through(open_through_modbus, needs_socket=True)


def _or_closed(transport: TextTransport | ModbusTransport, make: Callable[[], Opened]) -> Opened:
    try:
        return make()
    except BaseException:
        transport.close()
        raise


def _connect(link: ConnectionSettings, timeout_s: float, read_termination: str, baud: int) -> Connection:
    opener = _opener(link, timeout_s, read_termination, baud)
    if link.recorder is not None:
        opener = recorded(opener, link.name or link.address, link.recorder)
    try:
        return Connection(opener, opener(), link.clock)
    except ConnectionLost as error:
        raise DeviceError("transport", f"{link.name or 'instrument'}: {error.reason}", retryable=True) from None


def _opener(link: ConnectionSettings, timeout_s: float, read_termination: str, baud: int) -> Callable[[], Stream]:
    # Through pyserial, which finds a port that was pulled; with another library the port is that library's, unless it is a path.
    path = serial_path(link.address) if link.library == "@py" or link.address.startswith("/") else ""
    if path and baud:
        return lambda: open_serial(path, baud=baud, timeout_s=timeout_s)

    def open_with_visa() -> Stream:
        # pyvisa takes a quarter of a second to import, which a bench of serial ports need not pay.
        from photonloop.drivers.transports.visa import open_visa  # noqa: PLC0415

        return open_visa(
            link.address,
            timeout_s=timeout_s,
            read_termination=read_termination,
            library=link.library,
            nodelay=link.nodelay,
            baud=baud,
        )

    return open_with_visa
