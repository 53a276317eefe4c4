"""Serial ports, read in blocks.

pyserial's `readline` and pyvisa-py's serial session fetch one byte a system call; 64 answers take 3 ms that way and 0.1 ms in
blocks. Only Unix: the port is waited for with `select`.
"""

from __future__ import annotations

import contextlib
import os
import select

import serial

from photonloop.drivers.transports.transport import ConnectionLost, Stream


def open_serial(path: str, *, baud: int, timeout_s: float) -> Stream:
    """Return the serial port at `path` as a wire: 8 bits, no parity, one stop bit, no flow control, locked for this process.

    Raises
    ------
    BrokenError
        No such port, no right to it, or another program holds it.
    """
    try:
        # Timeout 0: reads return what is there; waiting is done by select, so that no termios call is spent on a timeout.
        port = serial.Serial(path, baudrate=baud, timeout=0, write_timeout=timeout_s, exclusive=True)
    except (OSError, ValueError) as error:  # SerialException is an OSError
        raise ConnectionLost(f"{path} cannot be opened: {_words(error)}", sent=False) from None
    return SerialStream(port)


class SerialStream:
    """A wire over a serial port. Made by `open_serial`."""

    fresh_when_reopened = False
    keeps_messages = False

    def __init__(self, port: serial.Serial) -> None:
        self._port = port

    def send(self, data: bytes) -> None:
        """Send all of `data`."""
        try:
            self._port.write(data)
        except (OSError, TypeError) as error:  # TypeError: pyserial on a port whose file is gone
            raise ConnectionLost(f"the serial port failed: {_words(error)}") from None

    def receive(self, timeout_s: float, count: int) -> bytes:
        """Return what comes within `timeout_s`, at most `count` bytes."""
        try:
            if not select.select([self._port.fileno()], [], [], timeout_s)[0]:
                return b""
            return self._port.read(min(count, max(1, self._port.in_waiting)))
        except (OSError, TypeError, ValueError) as error:
            raise ConnectionLost(f"the serial port failed: {_words(error)}") from None

    def waiting(self) -> bytes:
        """Return what has come."""
        return self.receive(0.0, 65536)

    def clear(self) -> None:
        """Throw away what has come, here and in the driver of the port.

        What was sent and has not left yet leaves all the same: it may be what makes a source safe, and a line that is cut off
        would spoil the next one.
        """
        try:
            self._port.reset_input_buffer()
        except (OSError, TypeError) as error:
            raise ConnectionLost(f"the serial port failed: {_words(error)}") from None

    def close(self) -> None:
        """Let go of the port."""
        with contextlib.suppress(OSError, TypeError):
            self._port.close()


def _words(error: Exception) -> str:
    """Return what the system says of an error, without its number and without pyserial's repetition of the path."""
    number = getattr(error, "errno", None)
    return os.strerror(number).lower() if number else str(error)
