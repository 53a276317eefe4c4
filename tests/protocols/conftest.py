"""Fixture that starts device servers in threads, on loopback."""

from __future__ import annotations

import threading
from collections.abc import Iterator

import pytest
from support.fake_device import Serve

from photonloop.protocols.device import PhotonicDevice
from photonloop.protocols.server.device_server import DeviceServer, ServerOptions


@pytest.fixture
def serve() -> Iterator[Serve]:
    """Return a function that starts a server and returns it. All servers are stopped at the end of the test."""
    running: list[tuple[DeviceServer, threading.Thread]] = []

    def start(device: PhotonicDevice, bind: str = "tcp://127.0.0.1:*", **options: object) -> DeviceServer:
        server = DeviceServer(device, bind, options=ServerOptions(**options))  # pyright: ignore[reportArgumentType]
        server.bind()
        thread = threading.Thread(target=server.run, daemon=True)
        thread.start()
        running.append((server, thread))
        return server

    yield start
    for server, thread in running:
        server.stop()
        thread.join(10)
        assert not thread.is_alive(), "the server hangs"
