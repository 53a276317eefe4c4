"""Serve a bench in the process that holds its instruments."""

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
    """Serve `bench` at `bind` until a signal; the caller closes the bench.

    Parameters
    ----------
    bench
        The bench.
    bind
        Address: tcp://HOST:PORT or ipc://PATH.
    keys
        Folder of CURVE keys; required for an address that other machines can reach.
    stop
        Stops the server on a signal.
    alive
        Called several times per second; the server stops when it returns False.
    output
        Receives the address as one JSON line, once clients can connect; standard output by default.

    Raises
    ------
    DeviceError
        The address is invalid or in use.
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
    """Monitor the bench, also while no client sends requests."""
    while not done.wait(0.1):
        try:
            bench.watch()
        except Exception:
            log.exception("monitoring the bench failed")
