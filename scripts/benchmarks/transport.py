"""What the transports' cures are worth: Nagle's algorithm off, commands joined, serial answers read in blocks.

    python scripts/benchmarks/transport.py [--json] [--rounds 40] [--lines 64]

The instrument is a second process on loopback, or behind a pseudo-terminal, that answers at once. Both ways of each pair take
turns, so that a machine whose speed drifts slows both; times are medians.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import pty
import select
import socket
import statistics
import sys
import time
import tty
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import serial

from photonloop.drivers.helpers import scpi
from photonloop.drivers.transports.connection_settings import ConnectionSettings, open_text
from photonloop.drivers.transports.dialect import Dialect
from photonloop.drivers.transports.text import TextTransport

_FORK = multiprocessing.get_context("fork")
_WHO = "ACME,M1,7,1.0"


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.add_argument("--rounds", type=int, default=40)
    parser.add_argument("--lines", type=int, default=64, help="channels of one update, lines of one serial answer")
    options = parser.parse_args(arguments)
    results = {**tcp_times(options.rounds, options.lines), **serial_times(options.rounds, options.lines)}
    if options.json:
        print(json.dumps(results))
    else:
        for name, value in results.items():
            print(f"{name:32} {value:10.4g}")
    return 0


def tcp_times(rounds: int, lines: int) -> dict[str, float]:
    """Return medians [ms] and ratios over a socket."""
    with tcp_instrument() as address:
        fast, slow = (open_text(ConnectionSettings(address, nodelay=nodelay), Dialect()) for nodelay in (True, False))

        def two_writes_and_a_query(transport: TextTransport) -> None:
            transport.write("VOLT 1")
            transport.write("VOLT 2")
            transport.query_line("VOLT?")

        with_nodelay_s, with_nagle_s = medians_s(
            rounds, lambda: two_writes_and_a_query(fast), lambda: two_writes_and_a_query(slow)
        )
        commands = [f"SOUR{n}:VOLT 1.5" for n in range(1, lines + 1)]

        def joined() -> None:
            scpi.set_and_check(fast, commands, "SYST:ERR?")

        def one_by_one() -> None:
            for command in commands:
                scpi.set_and_check(fast, [command], "SYST:ERR?")

        joined_s, single_s = medians_s(rounds, joined, one_by_one)
        fast.close()
        slow.close()
    return {
        "nodelay_ms": 1e3 * with_nodelay_s,
        "nagle_ms": 1e3 * with_nagle_s,
        "nagle_ratio": with_nagle_s / with_nodelay_s,
        "joined_ms": 1e3 * joined_s,
        "single_ms": 1e3 * single_s,
        "single_ratio": single_s / joined_s,
    }


def serial_times(rounds: int, lines: int) -> dict[str, float]:
    """Return medians [ms] and their ratio over a pseudo-terminal: one answer of many lines."""
    with serial_instrument(lines) as path:
        transport = open_text(ConnectionSettings(path), Dialect())

        def block() -> None:
            transport.query("VALL?", lambda answer: answer, lines=lines)

        block_s = [timed_s(block) for _ in range(rounds)]
        transport.close()
        with serial.Serial(path, 115200, timeout=2.0) as port:

            def line_by_line() -> None:
                port.write(b"VALL?\n")
                for _ in range(lines):
                    port.readline()

            readline_s = [timed_s(line_by_line) for _ in range(rounds)]
    block_median_s, readline_median_s = statistics.median(block_s), statistics.median(readline_s)
    return {
        "serial_block_ms": 1e3 * block_median_s,
        "serial_readline_ms": 1e3 * readline_median_s,
        "readline_ratio": readline_median_s / block_median_s,
    }


def medians_s(rounds: int, one: Callable[[], None], other: Callable[[], None]) -> tuple[float, float]:
    """Return the median times of two ways, taken in turn."""
    pairs = [(timed_s(one), timed_s(other)) for _ in range(rounds)]
    return statistics.median(a for a, _ in pairs), statistics.median(b for _, b in pairs)


def timed_s(act: Callable[[], None]) -> float:
    start_s = time.perf_counter()
    act()
    return time.perf_counter() - start_s


@contextmanager
def tcp_instrument() -> Iterator[str]:
    """Yield the address of an instrument in a process of its own."""
    listener = socket.create_server(("127.0.0.1", 0))
    process = _FORK.Process(target=_serve_tcp, args=(listener,), daemon=True)
    process.start()
    yield f"TCPIP::127.0.0.1::{listener.getsockname()[1]}::SOCKET"
    process.kill()
    process.join()
    listener.close()


def _serve_tcp(listener: socket.socket) -> None:
    pending: dict[socket.socket, bytes] = {}
    while True:
        for ready in select.select([listener, *pending], [], [])[0]:
            if ready is listener:
                connection, _ = listener.accept()
                connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                pending[connection] = b""
            elif data := ready.recv(65536):
                *lines, pending[ready] = (pending[ready] + data).split(b"\n")
                for line in lines:
                    if line == b"*IDN?":
                        ready.sendall(_WHO.encode() + b"\n")
                    elif line.endswith(b"?"):
                        ready.sendall(b'0,"No error"\n')
            else:
                del pending[ready]


@contextmanager
def serial_instrument(lines: int) -> Iterator[str]:
    """Yield the path of a pseudo-terminal behind which a process of its own answers with `lines` lines."""
    master, slave = pty.openpty()
    tty.setraw(slave)
    process = _FORK.Process(target=_serve_serial, args=(master, lines), daemon=True)
    process.start()
    yield os.ttyname(slave)
    process.kill()
    process.join()
    os.close(master)
    os.close(slave)


def _serve_serial(master: int, lines: int) -> None:
    answer = b"".join(b"+%d.000000 V\n" % (n % 10) for n in range(lines))
    while True:
        for line in os.read(master, 65536).split(b"\n")[:-1]:
            os.write(master, _WHO.encode() + b"\n" if line == b"*IDN?" else answer)


if __name__ == "__main__":
    sys.exit(main())
