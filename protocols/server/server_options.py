"""Options of a device server."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class ServerOptions:
    """Options of a device server.

    Parameters
    ----------
    keys
        Folder of CURVE keys (`photonloop.protocols.wire.keys`). Required unless the server binds to this machine only.
    inline_s
        Evaluations with a shorter predicted duration run in the socket loop, which saves two thread switches. Keep it
        well below the 50 ms within which `safe` must be answered. 0: always use the worker thread. A device that may
        wait always uses the worker thread.
    max_message_bytes
        Largest array that a client may send in one message.
    cache_bytes
        Size of all replies kept for retries, over all clients.
    waiting_bytes
        Size of the arrays of all requests that wait for the device. Requests beyond it are refused.
    working_s
        Interval at which a client is sent "working" while its request is in progress.
    tick_s, on_tick
        `on_tick` is called at least every `tick_s`. The server stops when it returns False.
    """

    keys: Path | None = None
    inline_s: float = 0.0
    max_message_bytes: int = 64 * 2**20
    cache_bytes: int = 64 * 2**20
    waiting_bytes: int = 256 * 2**20
    working_s: float = 0.5
    tick_s: float = 0.25
    on_tick: Callable[[], bool] | None = None
