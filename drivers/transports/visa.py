"""Streams through VISA.

With the pyvisa-py library ("@py", the default) a `…::SOCKET` address is a raw_socket socket. The socket behind the
session is used directly for what VISA attributes cannot do there (measured with pyvisa 1.16, pyvisa-py 0.8):

- Nagle's algorithm stays on unless it is switched off on the socket: two writes and a query take 44 ms instead of 0.1
  ms.
- A refused connection is reported as an open session.
- A closed connection looks like a timeout, during which pyvisa-py uses the CPU, and the first write after it
  "succeeds". So the socket is checked for the end of the connection before every write and every read.

Other libraries (NI, Keysight, R&S) and other kinds of address (USB, GPIB, VXI-11, HiSLIP) are used through VISA alone;
that path is tested against pyvisa-py's own sockets only, not against those libraries or buses.
"""

from __future__ import annotations

import contextlib
import os
import select
import socket
import time
from typing import Any

import pyvisa
from pyvisa import constants

from photonloop.drivers.transports.interfaces import ConnectionLost, Stream

_PEEK = 65536
_CHUNK = 4096
"""Bytes that pyvisa-py passes to the socket at once; it has no timeout between two such portions."""

# A connection that ended without notice (cable pulled, power lost) is reported as lost after 10 + 3 * 5 s of
# ignored_warning.
_KEEPALIVE = (("TCP_KEEPIDLE", 10), ("TCP_KEEPINTVL", 5), ("TCP_KEEPCNT", 3), ("TCP_USER_TIMEOUT", 25_000))


def open_visa(
    address: str, *, timeout_s: float, read_termination: str, library: str = "@py", nodelay: bool = True, baud: int = 0
) -> Stream:
    """Return the VISA resource at `address` as a stream.

    Parameters
    ----------
    address
        A VISA resource name, like TCPIP::192.168.1.5::5025::SOCKET.
    timeout_s
        For opening and for writes.
    read_termination
        Line end of answers; empty for binary protocols.
    library
        The VISA library: "@py" for pyvisa-py, "@ivi" or a path for another.
    nodelay
        False leaves Nagle's algorithm on, to measure its cost.
    baud
        Baud rate of serial ports; 0: the library's default.

    Raises
    ------
    ConnectionLost
        No connection, no such library, or no such kind of address.
    """
    try:
        manager = pyvisa.ResourceManager(library)
        resource: Any = manager.open_resource(address, open_timeout=max(1, round(timeout_s * 1000)))
    except Exception as error:  # noqa: BLE001 - pyvisa-py raises bare Exception, libraries raise any type
        raise ConnectionLost(f"{address} cannot be opened: {_first_line(error)}", sent=False) from None
    resource.timeout = timeout_s * 1000
    # Reads return what has arrived, so the warning that there may be more is ignored.
    ignored_warning = contextlib.ExitStack()
    ignored_warning.enter_context(resource.ignore_warning(constants.StatusCode.success_max_count_read))
    if baud and resource.interface_type == constants.InterfaceType.asrl:
        resource.baud_rate = baud
    raw_socket = _raw_socket_of(resource)
    try:
        if raw_socket is not None:
            _prepare(raw_socket, nodelay)
            return VisaSocket(resource, ignored_warning, raw_socket, timeout_s)
        if read_termination and _is_stream(resource):
            resource.read_termination = read_termination
        return VisaMessages(resource, ignored_warning)
    except BaseException:
        _close(resource, ignored_warning)
        raise


class VisaSocket:
    """A `Stream` over pyvisa-py's session and the socket behind it. Made by `open_visa`."""

    fresh_when_reopened = True
    keeps_messages = False

    def __init__(self, resource: Any, ignored_warning: contextlib.ExitStack, raw_socket: socket.socket, timeout_s: float) -> None:
        self._resource = resource
        self._ignored_warning = ignored_warning
        self._raw_socket = raw_socket
        self._timeout_s = timeout_s

    def send(self, data: bytes) -> None:
        """Send all of `data`, unless the connection has ended."""
        self._check_connected()
        deadline_s = time.monotonic() + self._timeout_s
        for start in range(0, len(data), _CHUNK):
            if not select.select([], [self._raw_socket], [], max(0.0, deadline_s - time.monotonic()))[1]:
                raise ConnectionLost(f"the instrument accepted no more bytes for {self._timeout_s:g} s", sent=start > 0)
            try:
                self._resource.write_raw(data[start : start + _CHUNK])
            except (OSError, pyvisa.Error) as error:
                raise ConnectionLost(_first_line(error)) from None

    def receive(self, timeout_s: float, count: int) -> bytes:
        """Return bytes as soon as there are any, at most `count`, or none after `timeout_s`."""
        try:
            # Not through the session, which needs three more system calls.
            if not select.select([self._raw_socket], [], [], timeout_s)[0]:
                return b""
            data = self._raw_socket.recv(count)
        except BlockingIOError:
            return b""
        except (OSError, ValueError) as error:  # reset, or closed locally
            raise ConnectionLost(_first_line(error), sent=False) from None
        if not data:
            raise ConnectionLost("the instrument closed the connection", sent=False)
        return data

    def read_available(self) -> bytes:
        """Return the bytes that have arrived."""
        return self.receive(0.0, _PEEK)

    def clear(self) -> None:
        """Discard received bytes."""
        while self.read_available():
            pass

    def close(self) -> None:
        """Close the socket."""
        _close(self._resource, self._ignored_warning)

    def _check_connected(self) -> None:
        """Raise `ConnectionLost` if the instrument has closed or reset the connection."""
        try:
            peeked = self._raw_socket.recv(_PEEK, socket.MSG_PEEK)
        except BlockingIOError:
            return
        except OSError as error:
            raise ConnectionLost(_first_line(error), sent=False) from None
        if not peeked:
            raise ConnectionLost("the instrument closed the connection", sent=False)


class VisaMessages:
    """A `Stream` over VISA alone. Made by `open_visa`."""

    fresh_when_reopened = True

    def __init__(self, resource: Any, ignored_warning: contextlib.ExitStack) -> None:
        self._resource = resource
        self._ignored_warning = ignored_warning
        self.keeps_messages = not _is_stream(resource)

    def send(self, data: bytes) -> None:
        """Send all of `data`."""
        try:
            self._resource.write_raw(data)
        except (OSError, pyvisa.Error) as error:
            raise ConnectionLost(_first_line(error)) from None

    def receive(self, timeout_s: float, count: int) -> bytes:
        """Return a whole message, or the bytes up to the line end; none after `timeout_s`."""
        try:
            self._resource.timeout = max(1, round(timeout_s * 1000))
            return bytes(self._resource.visalib.read(self._resource.session, count)[0])
        except pyvisa.VisaIOError as error:
            if error.error_code == constants.StatusCode.error_timeout:
                return b""
            raise ConnectionLost(_first_line(error)) from None
        except (OSError, pyvisa.Error) as error:
            raise ConnectionLost(_first_line(error)) from None

    def read_available(self) -> bytes:
        """Return nothing: an instrument on a bus sends only answers, and reports an error if read too early."""
        return b""

    def clear(self) -> None:
        """Clear the device, which discards its pending output."""
        try:
            self._resource.clear()
        except (OSError, pyvisa.Error) as error:
            raise ConnectionLost(_first_line(error)) from None

    def close(self) -> None:
        """Close the session."""
        _close(self._resource, self._ignored_warning)


def _raw_socket_of(resource: Any) -> socket.socket | None:
    """Return the socket of a pyvisa-py session; None for other libraries and kinds of address."""
    sessions = getattr(resource.visalib, "sessions", None)
    session = sessions.get(resource.session) if isinstance(sessions, dict) else None
    raw_socket = getattr(session, "interface", None)
    return raw_socket if isinstance(raw_socket, socket.socket) else None


def _prepare(raw_socket: socket.socket, nodelay: bool) -> None:
    if error := raw_socket.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR):
        raise ConnectionLost(f"no connection ({_os_text(error)})", sent=False)
    # `select` waits with a deadline; a blocking socket, as pyvisa-py leaves it, would wait without one.
    raw_socket.setblocking(False)
    raw_socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, int(nodelay))
    raw_socket.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for option, value in _KEEPALIVE:
        if (number := getattr(socket, option, None)) is not None:
            raw_socket.setsockopt(socket.IPPROTO_TCP, number, value)


def _is_stream(resource: Any) -> bool:
    return resource.resource_class == "SOCKET" or resource.interface_type == constants.InterfaceType.asrl


def _close(resource: Any, ignored_warning: contextlib.ExitStack) -> None:
    # Closing a session whose connection has ended may fail, which does not matter.
    with contextlib.suppress(OSError, pyvisa.Error, KeyError, AttributeError):
        ignored_warning.close()
    with contextlib.suppress(OSError, pyvisa.Error, KeyError, AttributeError):
        resource.close()


def _os_text(number: int) -> str:
    return os.strerror(number).lower()


def _first_line(error: BaseException) -> str:
    if isinstance(error, OSError) and error.errno:
        return _os_text(error.errno)
    text = str(error).strip().splitlines()
    return text[0] if text else type(error).__name__
