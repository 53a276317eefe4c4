"""Instruments reached through VISA.

With the pyvisa-py library ("@py", the default) a `…::SOCKET` address is a plain socket, and the socket behind the session is used
for what VISA attributes cannot do there (measured with pyvisa 1.16, pyvisa-py 0.8):

- Nagle's algorithm stays on unless the socket itself is told: two writes and a query take 44 ms instead of 0.1 ms.
- A refused connection is reported as an open session.
- A peer that has gone looks like a timeout, during which pyvisa-py spins, and the first write after it "succeeds". So before
  every write, and before every read, the socket is asked whether its end has come.

Other libraries (NI, Keysight, R&S) and other kinds of address (USB, GPIB, VXI-11, HiSLIP) are used through VISA alone; that path
is tested against pyvisa-py's own sockets only, not against those libraries or buses.
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

from photonloop.drivers.transports.transport import ConnectionLost, Stream

_PEEK = 65536
_CHUNK = 4096
"""What pyvisa-py hands to the socket at once; between two such portions it would wait for ever."""

# A peer that vanished without a word (cable pulled, power lost) is given up after 10 + 3 * 5 s of silence.
_KEEPALIVE = (("TCP_KEEPIDLE", 10), ("TCP_KEEPINTVL", 5), ("TCP_KEEPCNT", 3), ("TCP_USER_TIMEOUT", 25_000))


def open_visa(
    address: str, *, timeout_s: float, read_termination: str, library: str = "@py", nodelay: bool = True, baud: int = 0
) -> Stream:
    """Return the VISA resource at `address` as a wire.

    Parameters
    ----------
    address
        A VISA resource name, like TCPIP::192.168.1.5::5025::SOCKET.
    timeout_s
        For opening and for writes.
    ends_got
        Terminator of answers; empty for binary protocols.
    library
        The VISA library: "@py" for pyvisa-py, "@ivi" or a path for another.
    nodelay
        False leaves Nagle's algorithm on, to measure what that costs.
    baud
        Of serial ports; 0 leaves the library's own.

    Raises
    ------
    BrokenError
        Nobody there, no such library, no such kind of address.
    """
    try:
        manager = pyvisa.ResourceManager(library)
        resource: Any = manager.open_resource(address, open_timeout=max(1, round(timeout_s * 1000)))
    except Exception as error:  # noqa: BLE001 - pyvisa-py raises bare Exception, libraries raise what they like
        raise ConnectionLost(f"{address} cannot be opened: {_first_line(error)}", sent=False) from None
    resource.timeout = timeout_s * 1000
    # Reading exactly what has come is how this reads; that there may be more is no news.
    silence = contextlib.ExitStack()
    silence.enter_context(resource.ignore_warning(constants.StatusCode.success_max_count_read))
    if baud and resource.interface_type == constants.InterfaceType.asrl:
        resource.baud_rate = baud
    plain = _socket_behind(resource)
    try:
        if plain is not None:
            _prepare(plain, nodelay)
            return VisaSocket(resource, silence, plain, timeout_s)
        if read_termination and _is_stream(resource):
            resource.read_termination = read_termination
        return VisaMessages(resource, silence)
    except BaseException:
        _close(resource, silence)
        raise


class VisaSocket:
    """A wire over pyvisa-py's session and the socket behind it. Made by `open_visa`."""

    fresh_when_reopened = True
    keeps_messages = False

    def __init__(self, resource: Any, silence: contextlib.ExitStack, plain: socket.socket, timeout_s: float) -> None:
        self._resource = resource
        self._silence = silence
        self._plain = plain
        self._timeout_s = timeout_s

    def send(self, data: bytes) -> None:
        """Send all of `data`, unless the peer has gone."""
        self._has_come()
        deadline_s = time.monotonic() + self._timeout_s
        for start in range(0, len(data), _CHUNK):
            if not select.select([], [self._plain], [], max(0.0, deadline_s - time.monotonic()))[1]:
                raise ConnectionLost(f"it takes no more bytes for {self._timeout_s:g} s", sent=start > 0)
            try:
                self._resource.write_raw(data[start : start + _CHUNK])
            except (OSError, pyvisa.Error) as error:
                raise ConnectionLost(_first_line(error)) from None

    def receive(self, timeout_s: float, count: int) -> bytes:
        """Return what comes within `timeout_s`, at most `count` bytes."""
        try:
            # Not through the session, which takes three more system calls for it.
            if not select.select([self._plain], [], [], timeout_s)[0]:
                return b""
            got = self._plain.recv(count)
        except BlockingIOError:
            return b""
        except (OSError, ValueError) as error:  # reset, or closed on this side
            raise ConnectionLost(_first_line(error), sent=False) from None
        if not got:
            raise ConnectionLost("it has closed the connection", sent=False)
        return got

    def waiting(self) -> bytes:
        """Return what has come."""
        return self.receive(0.0, _PEEK)

    def clear(self) -> None:
        """Throw away what has come."""
        while self.waiting():
            pass

    def close(self) -> None:
        """Let go of the socket."""
        _close(self._resource, self._silence)

    def _has_come(self) -> int:
        """Return how many bytes can be read now; `ConnectionLost` where the peer has closed or reset the connection."""
        try:
            peeked = self._plain.recv(_PEEK, socket.MSG_PEEK)
        except BlockingIOError:
            return 0
        except OSError as error:
            raise ConnectionLost(_first_line(error), sent=False) from None
        if not peeked:
            raise ConnectionLost("it has closed the connection", sent=False)
        return len(peeked)


class VisaMessages:
    """A wire over VISA alone. Made by `open_visa`."""

    fresh_when_reopened = True

    def __init__(self, resource: Any, silence: contextlib.ExitStack) -> None:
        self._resource = resource
        self._silence = silence
        self.keeps_messages = not _is_stream(resource)

    def send(self, data: bytes) -> None:
        """Send all of `data`."""
        try:
            self._resource.write_raw(data)
        except (OSError, pyvisa.Error) as error:
            raise ConnectionLost(_first_line(error)) from None

    def receive(self, timeout_s: float, count: int) -> bytes:
        """Return what comes within `timeout_s`: a whole message, or up to the terminator."""
        try:
            self._resource.timeout = max(1, round(timeout_s * 1000))
            return bytes(self._resource.visalib.read(self._resource.session, count)[0])
        except pyvisa.VisaIOError as error:
            if error.error_code == constants.StatusCode.error_timeout:
                return b""
            raise ConnectionLost(_first_line(error)) from None
        except (OSError, pyvisa.Error) as error:
            raise ConnectionLost(_first_line(error)) from None

    def waiting(self) -> bytes:
        """Return nothing: an instrument on a bus says nothing unless it is asked, and complains where it is read too early."""
        return b""

    def clear(self) -> None:
        """Clear the device: it forgets what it was about to send."""
        try:
            self._resource.clear()
        except (OSError, pyvisa.Error) as error:
            raise ConnectionLost(_first_line(error)) from None

    def close(self) -> None:
        """Let go of the session."""
        _close(self._resource, self._silence)


def _socket_behind(resource: Any) -> socket.socket | None:
    """Return the socket of a pyvisa-py session; None for every other library and kind of address."""
    sessions = getattr(resource.visalib, "sessions", None)
    session = sessions.get(resource.session) if isinstance(sessions, dict) else None
    plain = getattr(session, "interface", None)
    return plain if isinstance(plain, socket.socket) else None


def _prepare(plain: socket.socket, nodelay: bool) -> None:
    if error := plain.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR):
        raise ConnectionLost(f"nobody answers there ({_os_words(error)})", sent=False)
    # Waiting is done by select with a deadline; a socket that blocks, as pyvisa-py leaves it, waits for ever.
    plain.setblocking(False)
    plain.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, int(nodelay))
    plain.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for option, value in _KEEPALIVE:
        if (number := getattr(socket, option, None)) is not None:
            plain.setsockopt(socket.IPPROTO_TCP, number, value)


def _is_stream(resource: Any) -> bool:
    return resource.resource_class == "SOCKET" or resource.interface_type == constants.InterfaceType.asrl


def _close(resource: Any, silence: contextlib.ExitStack) -> None:
    # A session whose peer has gone may refuse to be closed in order; there is nothing left to save then.
    with contextlib.suppress(OSError, pyvisa.Error, KeyError, AttributeError):
        silence.close()
    with contextlib.suppress(OSError, pyvisa.Error, KeyError, AttributeError):
        resource.close()


def _os_words(number: int) -> str:
    return os.strerror(number).lower()


def _first_line(error: BaseException) -> str:
    if isinstance(error, OSError) and error.errno:
        return _os_words(error.errno)
    text = str(error).strip().splitlines()
    return text[0] if text else type(error).__name__
