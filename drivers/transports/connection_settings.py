"""Opening transports by address: connection settings, and the functions that drivers register with.

TCPIP::192.168.1.5::5025::SOCKET     a socket, through pyvisa
ASRL/dev/ttyUSB0::INSTR              a serial port, through pyserial with pyvisa-py, else through VISA
/dev/ttyUSB0                         the same serial port
USB0::0x1313::0x8078::P0001::INSTR   any other VISA resource name
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Generic, TypeVar

from photonloop.drivers.transports.connection import Connection
from photonloop.drivers.transports.dialect import Dialect
from photonloop.drivers.transports.instrument_address import serial_path
from photonloop.drivers.transports.interfaces import ConnectionLost, Stream
from photonloop.drivers.transports.modbus import ModbusTransport
from photonloop.drivers.transports.recording import Recorder, recorded
from photonloop.drivers.transports.serial_port import open_serial
from photonloop.drivers.transports.text import TextTransport, start_text
from photonloop.drivers.transports.transport_clock import SystemClock, TransportClock
from photonloop.protocols.errors import DeviceError

S = TypeVar("S")
Opened = TypeVar("Opened")


@dataclass(frozen=True)
class ConnectionSettings:
    """Address and options of the connection to one instrument.

    Parameters
    ----------
    address
        See the module's docstring.
    name
        Name of the instrument in error messages; empty: its address.
    library
        The VISA library: "@py" for pyvisa-py, "@ivi" or a path for another.
    timeout_s
        Time allowed for one answer; 0: the driver's default.
    recorder
        Records everything that is sent and received.
    nodelay
        False leaves Nagle's algorithm on, to measure its cost.
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
    def label(self) -> str:
        """Name and address, for error messages."""
        return f"{self.name} ({self.address})" if self.name else self.address


def open_text(settings: ConnectionSettings, dialect: Dialect) -> TextTransport:
    """Return a text transport to the instrument at `settings.address`, after it has identified itself.

    Raises
    ------
    DeviceError
        "transport" if there is no connection, or no answer that `dialect` expects.
    """
    timeout_s = settings.timeout_s or dialect.timeout_s
    if timeout_s != dialect.timeout_s:
        dialect = replace(dialect, timeout_s=timeout_s)
    connection = _connect(settings, timeout_s, dialect.read_termination, dialect.baud)
    try:
        return start_text(settings.label, connection, dialect, settings.clock)
    except BaseException:
        connection.close()
        raise


def open_modbus(settings: ConnectionSettings, *, timeout_s: float = 1.0, unit: int = 1) -> ModbusTransport:
    """Return a Modbus transport to the instrument at `settings.address`.

    Raises
    ------
    DeviceError
        "transport" if there is no connection.
    """
    timeout_s = settings.timeout_s or timeout_s
    return ModbusTransport(settings.label, _connect(settings, timeout_s, "", 0), settings.clock, timeout_s=timeout_s, unit=unit)


@dataclass(frozen=True)
class TransportOpener(Generic[S, Opened]):
    """Opens a transport and passes it to a driver; made by `through_text` and `through_modbus`.

    A driver that is opened this way takes the addresses in this module's docstring, which can be checked before
    opening.
    """

    opener: Callable[[ConnectionSettings, S], Opened]
    needs_socket: bool = False
    """Whether the address must be that of a socket."""

    def __call__(self, connection: ConnectionSettings, settings: S) -> Opened:
        """Open the instrument at `connection.address`."""
        return self.opener(connection, settings)


def through_text(
    opener: Callable[[TextTransport, S], Opened], dialect: Dialect | Callable[[S], Dialect]
) -> TransportOpener[S, Opened]:
    """Return a function that opens a text transport and passes it to `opener` with the driver's settings.

    `dialect` may be a function of the settings. The transport is closed if `opener` fails.
    """

    def open_through_text(connection: ConnectionSettings, settings: S) -> Opened:
        transport = open_text(connection, dialect if isinstance(dialect, Dialect) else dialect(settings))
        return _made_or_closed(transport, lambda: opener(transport, settings))

    return TransportOpener(open_through_text)


def through_modbus(opener: Callable[[ModbusTransport, S], Opened]) -> TransportOpener[S, Opened]:
    """Return a function that opens a Modbus transport and passes it to `opener`, and closes it if that fails."""

    def open_through_modbus(connection: ConnectionSettings, settings: S) -> Opened:
        transport = open_modbus(connection)
        return _made_or_closed(transport, lambda: opener(transport, settings))

    return TransportOpener(open_through_modbus, needs_socket=True)


def _made_or_closed(transport: TextTransport | ModbusTransport, make: Callable[[], Opened]) -> Opened:
    try:
        return make()
    except BaseException:
        transport.close()
        raise


def _connect(settings: ConnectionSettings, timeout_s: float, read_termination: str, baud: int) -> Connection:
    opener = _stream_opener(settings, timeout_s, read_termination, baud)
    if settings.recorder is not None:
        opener = recorded(opener, settings.name or settings.address, settings.recorder)
    try:
        return Connection(opener, opener(), settings.clock)
    except ConnectionLost as error:
        raise DeviceError("transport", f"{settings.name or 'instrument'}: {error.reason}", retryable=True) from None


def _stream_opener(settings: ConnectionSettings, timeout_s: float, read_termination: str, baud: int) -> Callable[[], Stream]:
    # pyserial detects a port that was unplugged. Another VISA library opens serial ports itself, unless the address is
    # a path.
    path = serial_path(settings.address) if settings.library == "@py" or settings.address.startswith("/") else ""
    if path and baud:
        return lambda: open_serial(path, baud=baud, timeout_s=timeout_s)

    def open_with_visa() -> Stream:
        # pyvisa takes a quarter of a second to import, so it is imported only if an address needs it.
        from photonloop.drivers.transports.visa import open_visa  # noqa: PLC0415

        return open_visa(
            settings.address,
            timeout_s=timeout_s,
            read_termination=read_termination,
            library=settings.library,
            nodelay=settings.nodelay,
            baud=baud,
        )

    return open_with_visa
