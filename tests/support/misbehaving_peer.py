"""A peer on a real socket or pseudo-terminal that does not answer, answers late or disconnects, as a test wants it."""

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
    """An answer that comes after `delay_s`; queries that arrive meanwhile are answered after it."""

    data: bytes
    delay_s: float


CLOSE = "close"
"""Close the connection."""
RESET = "reset"
"""Reset the connection."""

Reaction = bytes | Late | str | None
React = Callable[[bytes], Reaction]


@dataclass
class Peer:
    """A running peer: its VISA address, the lines it received, and its connections and disconnections so far."""

    address: str
    received: list[bytes]
    connections: int = 0
    disconnections: int = 0
    unplug: Callable[[], None] = lambda: None
    send: Callable[[bytes], None] = lambda data: None


@contextmanager
def tcp_peer(react: React, termination: bytes = b"\n", port: int = 0) -> Iterator[Peer]:
    """Yield a peer on a loopback socket, one connection at a time; it accepts a new one after each."""
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
            peer.send = connection.sendall
            with connection:
                _converse(connection, peer, react, termination, stop)
            peer.disconnections += 1

    thread = threading.Thread(target=serve, daemon=True)
    thread.start()
    yield peer
    stop.set()
    thread.join(5)
    listener.close()


def _converse(connection: socket.socket, peer: Peer, react: React, termination: bytes, stop: threading.Event) -> None:
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
        while termination in pending:
            line, _, pending = pending.partition(termination)
            peer.received.append(line)
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
    """Yield a peer behind a pseudo-terminal; `unplug` closes its side, like pulling the cable."""
    master, slave = pty.openpty()
    tty.setraw(slave)
    stop = threading.Event()
    peer = Peer(f"ASRL{os.ttyname(slave)}::INSTR", [], 1)
    peer.send = lambda data: (os.write(master, data), None)[1]

    def serve() -> None:
        pending = b""
        while not stop.is_set():
            if not select.select([master], [], [], 0.02)[0]:
                continue
            pending += os.read(master, 65536)
            while b"\n" in pending:
                line, _, pending = pending.partition(b"\n")
                peer.received.append(line)
                reaction = react(line)
                if isinstance(reaction, Late):
                    time.sleep(reaction.delay_s)
                    reaction = reaction.data
                if isinstance(reaction, bytes):
                    os.write(master, reaction)

    thread = threading.Thread(target=serve, daemon=True)
    thread.start()

    def unplug() -> None:
        stop.set()
        thread.join(5)
        if not unplugged:
            unplugged.append(True)
            os.close(slave)
            os.close(master)

    unplugged: list[bool] = []
    peer.unplug = unplug
    yield peer
    unplug()
