"""An instrument on a real socket or a real pseudo-terminal that is silent, late, or gone when a test wants it to be."""

from __future__ import annotations

import os
import pty
import select
import socket
import struct
import threading
import time
import tty
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass


@dataclass(frozen=True)
class Late:
    """An answer that comes after `delay_s`; what is asked meanwhile waits its turn, as with a real instrument."""

    data: bytes
    delay_s: float


CLOSE = "close"
"""End the connection in order."""
RESET = "reset"
"""End the connection with a reset."""

Reaction = bytes | Late | str | None
React = Callable[[bytes], Reaction]


@dataclass
class Peer:
    """A running peer: its VISA address, the lines it got, and how often somebody connected."""

    address: str
    got: list[bytes]
    connections: int = 0
    hang_up: Callable[[], None] = lambda: None
    say: Callable[[bytes], None] = lambda data: None


@contextmanager
def tcp_peer(react: React, terminator: bytes = b"\n", port: int = 0) -> Iterator[Peer]:
    """Yield a peer on a loopback socket, one connection at a time; it goes on listening after each."""
    listener = socket.create_server(("127.0.0.1", port))
    stop = threading.Event()
    peer = Peer(f"TCPIP::127.0.0.1::{listener.getsockname()[1]}::SOCKET", [])

    def serve() -> None:
        while not stop.is_set():
            if not select.select([listener], [], [], 0.02)[0]:
                continue
            connection, _ = listener.accept()
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            peer.connections += 1
            peer.say = connection.sendall
            with connection:
                _converse(connection, peer, react, terminator, stop)

    thread = threading.Thread(target=serve, daemon=True)
    thread.start()
    yield peer
    stop.set()
    thread.join(5)
    listener.close()


def _converse(connection: socket.socket, peer: Peer, react: React, terminator: bytes, stop: threading.Event) -> None:
    pending = b""
    while not stop.is_set():
        if not select.select([connection], [], [], 0.02)[0]:
            continue
        try:
            data = connection.recv(65536)
        except OSError:
            return
        if not data:
            return
        pending += data
        while terminator in pending:
            line, _, pending = pending.partition(terminator)
            peer.got.append(line)
            reaction = react(line)
            if isinstance(reaction, Late):
                time.sleep(reaction.delay_s)
                reaction = reaction.data
            if reaction == RESET:
                connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            if isinstance(reaction, str):
                return
            if reaction:
                try:
                    connection.sendall(reaction)
                except OSError:
                    return


@contextmanager
def pty_peer(react: React) -> Iterator[Peer]:
    """Yield a peer behind a pseudo-terminal; `hang_up` closes its side, as a cable that is pulled."""
    master, slave = pty.openpty()
    tty.setraw(slave)
    stop = threading.Event()
    peer = Peer(f"ASRL{os.ttyname(slave)}::INSTR", [], 1)
    peer.say = lambda data: (os.write(master, data), None)[1]

    def serve() -> None:
        pending = b""
        while not stop.is_set():
            if not select.select([master], [], [], 0.02)[0]:
                continue
            pending += os.read(master, 65536)
            while b"\n" in pending:
                line, _, pending = pending.partition(b"\n")
                peer.got.append(line)
                reaction = react(line)
                if isinstance(reaction, Late):
                    time.sleep(reaction.delay_s)
                    reaction = reaction.data
                if isinstance(reaction, bytes):
                    os.write(master, reaction)

    thread = threading.Thread(target=serve, daemon=True)
    thread.start()

    def hang_up() -> None:
        stop.set()
        thread.join(5)
        if not hung_up:
            hung_up.append(True)
            os.close(slave)
            os.close(master)

    hung_up: list[bool] = []
    peer.hang_up = hang_up
    yield peer
    hang_up()
