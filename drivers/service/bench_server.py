"""A bench behind the device server: the process that holds the instruments, and never leaves them hot when it ends in order."""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Callable
from pathlib import Path
from typing import TextIO

from photonloop.drivers.bench.bench_device import Bench
from photonloop.protocols.process import announce
from photonloop.protocols.server.device_server import DeviceServer, ServerOptions
from photonloop.protocols.stop_request import StopRequest

log = logging.getLogger(__name__)


def serve(
    bench: Bench, bind: str, keys: Path | None, stop: StopRequest, alive: Callable[[], bool], output: TextIO | None = None
) -> None:
    """Serve `bench` at `bind` until a signal, or until `alive`, asked a few times a second, says no; leaves it open.

    The address goes to `output`, standard output by default, as one JSON line once clients can connect.

    Raises
    ------
    DeviceError
        A bad or taken address.
    """
    server = DeviceServer(bench, bind, options=ServerOptions(keys=keys, on_tick=alive))
    address = server.bind()
    stop.call_when_asked(server.stop)
    done = threading.Event()
    watcher = threading.Thread(target=_watch, args=(bench, done), name="photonloop-watch", daemon=True)
    watcher.start()
    try:
        announce({"address": address, "pid": os.getpid(), "station": bench.describe().name, "epoch": server.epoch}, output)
        server.run()
    finally:
        done.set()
        watcher.join(5.0)


def _watch(bench: Bench, done: threading.Event) -> None:
    """Let the bench look at itself while nobody asks it anything."""
    while not done.wait(0.1):
        try:
            bench.watch()
        except Exception:
            log.exception("watching the bench")
