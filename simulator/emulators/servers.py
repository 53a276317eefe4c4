"""Sockets and serial lines of the units, in asyncio. They listen on loopback only, at ports that the system chooses."""

from __future__ import annotations

import asyncio
import os
import socket
import struct
import tty
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import cast

from photonloop.simulator.emulators.units import ClientConnection, ConnectionAction, Unit

LOOPBACK = "127.0.0.1"
_RESET_ON_CLOSE = struct.pack("ii", 1, 0)
_UNSENT_BYTES = 1 << 16
"""Bytes that a serial line keeps for a client that does not read. Older bytes are lost, as in a UART."""


class _Outbox:
    """Answers of one connection that have not been sent yet, in order."""

    def __init__(self, unit: Unit, loop: asyncio.AbstractEventLoop) -> None:
        self._unit = unit
        self._loop = loop
        self._waiting: deque[ConnectionAction] = deque()
        self._timer: asyncio.TimerHandle | None = None

    def __len__(self) -> int:
        return len(self._waiting)

    def clear(self) -> None:
        """Discard all answers."""
        self._waiting.clear()
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def put(self, action: ConnectionAction) -> None:
        """Add an answer."""
        self._waiting.append(action)

    def take(self) -> bytes:
        """Return the bytes that are due. Call `schedule` afterwards for those that are due later."""
        now_s = self._unit.clock()
        ready = []
        while self._waiting and self._waiting[0].at_s <= now_s:
            ready.append(self._waiting.popleft().data)
        return b"".join(ready)

    def schedule(self, flush: Callable[[], None]) -> None:
        """Call `flush` when the next answer is due."""
        if self._waiting and self._timer is None:
            delay_s = max(0.0, self._waiting[0].at_s - self._unit.clock())

            def run() -> None:
                self._timer = None
                flush()

            self._timer = self._loop.call_later(delay_s, run)


class TcpConnection(asyncio.Protocol):
    """One client of a unit over TCP."""

    def __init__(self, unit: Unit) -> None:
        self._unit = unit

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Connect to the unit. asyncio sets TCP_NODELAY on its sockets, as instruments do."""
        self._transport = cast("asyncio.Transport", transport)
        self._outbox = _Outbox(self._unit, asyncio.get_running_loop())
        self._connection: ClientConnection = self._unit.connect(self._perform)

    def data_received(self, data: bytes) -> None:
        """Pass bytes on to the unit and carry out the actions that they cause."""
        actions, discards = self._connection.receive(data, unread=bool(self._outbox))
        if discards:
            self._outbox.clear()
        for action in actions:
            self._perform(action)

    def connection_lost(self, exc: Exception | None) -> None:
        """Discard the client's answers and its connection."""
        del exc
        self._outbox.clear()
        self._connection.close()

    def _perform(self, action: ConnectionAction) -> None:
        if action.breaks:
            raw = self._transport.get_extra_info("socket")
            if raw is not None:
                with suppress(OSError):
                    raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET_ON_CLOSE)
            self._transport.abort()
            return
        self._outbox.put(action)
        self._flush()

    def _flush(self) -> None:
        if self._transport.is_closing():
            return
        if data := self._outbox.take():
            self._transport.write(data)
        self._outbox.schedule(self._flush)


class TcpServer:
    """A unit behind a TCP port."""

    def __init__(self, unit: Unit) -> None:
        self._unit = unit
        self._server: asyncio.Server | None = None

    async def start(self) -> str:
        """Listen; return the VISA address."""
        loop = asyncio.get_running_loop()
        self._server = await loop.create_server(lambda: TcpConnection(self._unit), LOOPBACK, 0)
        port = self._server.sockets[0].getsockname()[1]
        return f"TCPIP::{LOOPBACK}::{port}::SOCKET"

    def close(self) -> None:
        """Stop listening and break every connection."""
        if self._server is not None:
            self._server.close()
        for connection in list(self._unit.connections):
            connection.perform(ConnectionAction(breaks=True))


class SerialServer:
    """A unit behind a pseudo-terminal.

    `path` is a symbolic link to the present terminal, as the names under /dev/serial are. When the line is unplugged
    and plugged in again, the link leads to a new terminal before the old one is closed. A client that has lost the old
    terminal can therefore open `path` at once.
    """

    def __init__(self, unit: Unit, path: Path) -> None:
        self._unit = unit
        self._path = path
        self._master = self._slave = -1

    async def start(self) -> str:
        """Open the line; return the VISA address."""
        self._loop = asyncio.get_running_loop()
        self._outbox = _Outbox(self._unit, self._loop)
        self._open()
        return f"ASRL{self._path}::INSTR"

    def close(self) -> None:
        """Close the line and remove the symbolic link."""
        if self._master < 0:
            return
        self._detach()
        with suppress(OSError):
            self._path.unlink()
        _close_terminal(self._master, self._slave)
        self._master = self._slave = -1

    def _open(self) -> None:
        """Open a terminal, let the symbolic link lead to it, and connect it to the unit."""
        self._unsent = bytearray()
        self._master, self._slave = os.openpty()  # the slave stays open here, so that clients may come and go
        tty.setraw(self._slave)
        os.set_blocking(self._master, False)
        new = self._path.with_name(self._path.name + ".new")
        new.unlink(missing_ok=True)
        new.symlink_to(os.ttyname(self._slave))
        new.replace(self._path)  # atomic: the link always leads to a terminal
        self._loop.add_reader(self._master, self._read)
        self._connection = self._unit.connect(self._perform)

    def _detach(self) -> None:
        """Disconnect the terminal from the unit and from the event loop, without closing it."""
        self._outbox.clear()
        self._connection.close()
        self._loop.remove_reader(self._master)
        self._loop.remove_writer(self._master)

    def _replug(self) -> None:
        """Unplug the adapter and plug it in again: a new terminal under the same name."""
        old = self._master, self._slave
        self._detach()
        self._open()
        _close_terminal(*old)  # only now does the client notice

    def _read(self) -> None:
        try:
            data = os.read(self._master, 65536)
        except BlockingIOError:
            return
        actions, discards = self._connection.receive(data, unread=bool(self._outbox))
        if discards:
            self._outbox.clear()
        for action in actions:
            self._perform(action)

    def _perform(self, action: ConnectionAction) -> None:
        if action.breaks:
            self._replug()
            return
        self._outbox.put(action)
        self._flush()

    def _flush(self) -> None:
        self._unsent += self._outbox.take()
        del self._unsent[:-_UNSENT_BYTES]
        self._outbox.schedule(self._flush)
        self._send()

    def _send(self) -> None:
        if self._unsent:
            with suppress(BlockingIOError):
                sent = os.write(self._master, self._unsent)
                del self._unsent[:sent]
        if self._unsent:
            self._loop.add_writer(self._master, self._send)
        else:
            self._loop.remove_writer(self._master)


def _close_terminal(master: int, slave: int) -> None:
    os.close(slave)
    os.close(master)
