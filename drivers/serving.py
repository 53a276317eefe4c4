"""A bench behind the device server: the process that holds the instruments, and never leaves them hot when it ends in order."""

from __future__ import annotations

import json
import logging
import os
import signal
import sys
import threading
from collections.abc import Callable
from pathlib import Path

from drivers.bench import Bench
from protocols.errors import DeviceError
from protocols.server import DeviceServer, ServerOptions

log = logging.getLogger(__name__)


class Stopping:
    """Takes SIGTERM and Ctrl-C from the start: a bench that is just being opened is opened first, then closed in order."""

    def __init__(self) -> None:
        self.asked = False
        self._tell: Callable[[], None] = lambda: None
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, self._ask)

    def then(self, tell: Callable[[], None]) -> None:
        """Call `tell` when asked to stop, at once if that was already so."""
        self._tell = tell
        if self.asked:
            tell()

    def _ask(self, *_: object) -> None:
        self.asked = True
        self._tell()


def serve(bench: Bench, bind: str, keys: Path | None, stopping: Stopping, alive: Callable[[], bool]) -> None:
    """Serve `bench` at `bind` until a signal, or until `alive`, asked a few times a second, says no; leaves it open.

    The address goes to standard output as one JSON line once clients can connect.

    Raises
    ------
    DeviceError
        A bad or taken address.
    """
    server = DeviceServer(bench, bind, options=ServerOptions(keys=keys, on_tick=alive))
    address = server.bind()
    stopping.then(server.stop)
    done = threading.Event()
    watcher = threading.Thread(target=_watch, args=(bench, done), name="photonloop-watch", daemon=True)
    watcher.start()
    try:
        announce({"address": address, "pid": os.getpid(), "station": bench.describe().name, "epoch": server.epoch})
        server.run()
    finally:
        done.set()
        watcher.join(5.0)


def announce(message: dict[str, object]) -> None:
    """Print one JSON line.

    Raises
    ------
    DeviceError
        "transport" where nobody reads it.
    """
    try:
        print(json.dumps(message), flush=True)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        raise DeviceError("transport", "nobody reads the address on standard output") from None


def _watch(bench: Bench, done: threading.Event) -> None:
    """Let the bench look at itself while nobody asks it anything."""
    while not done.wait(0.1):
        try:
            bench.watch()
        except Exception:
            log.exception("watching the bench")
