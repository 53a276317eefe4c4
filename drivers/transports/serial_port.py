"""Serial ports, read in blocks.

pyserial's `readline` and pyvisa-py's serial session read one byte per system call; 64 answers take 3 ms that way and
0.1 ms in blocks. Unix only, because `select` is used to wait for the port.
"""

from __future__ import annotations

import contextlib
import os
import select

import serial

from photonloop.drivers.transports.interfaces import ConnectionLost, Stream


def open_serial(path: str, *, baud: int, timeout_s: float) -> Stream:
    """Return the serial port at `path` as a stream: 8 bits, no parity, one stop bit, no flow control.

    The port is locked to this process.

    Raises
    ------
    ConnectionLost
        There is no such port, access to it is denied, or another program holds it.
    """
    try:
        # Timeout 0: reads return what is there. `select` does the waiting, which saves a termios call per timeout.
        port = serial.Serial(path, baudrate=baud, timeout=0, write_timeout=timeout_s, exclusive=True)
    except (OSError, ValueError) as error:  # SerialException is an OSError
        raise ConnectionLost(f"{path} cannot be opened: {_system_text(error)}", sent=False) from None
    return SerialStream(port)


class SerialStream:
    """A `Stream` over a serial port. Made by `open_serial`."""

    fresh_when_reopened = False
    keeps_messages = False

    def __init__(self, port: serial.Serial) -> None:
        self._port = port

    def send(self, data: bytes) -> None:
        """Send all of `data`."""
        try:
            self._port.write(data)
        except (OSError, TypeError) as error:  # TypeError: pyserial on a port whose file has disappeared
            raise ConnectionLost(f"the serial port failed: {_system_text(error)}") from None

    def receive(self, timeout_s: float, count: int) -> bytes:
        """Return bytes as soon as there are any, at most `count`, or none after `timeout_s`."""
        try:
            if not select.select([self._port.fileno()], [], [], timeout_s)[0]:
                return b""
            return self._port.read(min(count, max(1, self._port.in_waiting)))
        except (OSError, TypeError, ValueError) as error:
            raise ConnectionLost(f"the serial port failed: {_system_text(error)}") from None

    def read_available(self) -> bytes:
        """Return the bytes that have arrived."""
        return self.receive(0.0, 65536)

    def clear(self) -> None:
        """Discard received bytes, here and in the system's buffer.

        Bytes that were sent but are still in the system's buffer are not discarded: they may be the commands that make
        a source safe, and an incomplete line would spoil the next one.
        """
        try:
            self._port.reset_input_buffer()
        except (OSError, TypeError) as error:
            raise ConnectionLost(f"the serial port failed: {_system_text(error)}") from None

    def close(self) -> None:
        """Close the port."""
        with contextlib.suppress(OSError, TypeError):
            self._port.close()


def _system_text(error: Exception) -> str:
    """Return the system's text for an error, without its number and without the path that pyserial adds."""
    number = getattr(error, "errno", None)
    return os.strerror(number).lower() if number else str(error)
