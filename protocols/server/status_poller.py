"""Reading the status of a device that may wait, so that the socket loop need not.

    loop ──ask──▶ [ thread: device.status() ] ──collect──▶ loop: the status
      └──────────── too late: give_up ────────────────────▶ loop: the last one that was read

Everything but `_run` belongs to the socket loop's thread.
"""

from __future__ import annotations

import logging
import math
import queue
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass

from photonloop.protocols.device import DeviceStatus, PhotonicDevice
from photonloop.protocols.errors import DeviceError
from photonloop.protocols.wire.messages import Request

log = logging.getLogger(__name__)

_PATIENCE_S = 0.25
"""How long a status may take before its readers are told the last one instead."""
_MOST_WAITING = 256
STATUS_AGE = "status_age_s"
"""Gauge of a status that is not of now."""


@dataclass(frozen=True)
class StatusRequest:
    """Somebody who asked for the status, and the route back."""

    route: bytes
    request: Request
    asked_s: float


Found = tuple[StatusRequest, DeviceStatus | DeviceError]


class StatusPoller:
    """A thread that reads `device.status()` when asked, once for all who ask meanwhile.

    `wake` is called from the thread when `collect` has something to give.
    """

    def __init__(self, device: PhotonicDevice, wake: Callable[[], None]) -> None:
        self._device = device
        self._wake = wake
        self._wanted: queue.SimpleQueue[bool] = queue.SimpleQueue()
        self._read: queue.SimpleQueue[DeviceStatus | DeviceError] = queue.SimpleQueue()
        self._served: list[StatusRequest] = []  # by the reading under way
        self._next: list[StatusRequest] = []  # who came while it was under way: it may be of before they asked
        self._began_s = math.inf
        self._last: DeviceStatus | None = None
        self._last_s = 0.0
        self._thread = threading.Thread(target=self._run, name="photonloop-status", daemon=True)

    @property
    def any(self) -> bool:
        """Whether anybody waits."""
        return bool(self._served or self._next)

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    def end(self) -> None:
        """Tell the thread to end, when the device lets it."""
        self._wanted.put(False)

    def ask(self, route: bytes, request: Request) -> None:
        """Have the status read; `collect` or `give_up` will tell it.

        Raises
        ------
        DeviceError
            "transport" where too many wait already.
        """
        if len(self._served) + len(self._next) >= _MOST_WAITING:
            raise DeviceError("transport", f"{_MOST_WAITING} requests wait for the status already", retryable=True)
        self._next.append(StatusRequest(route, request, time.monotonic()))
        self._begin()

    def collect(self) -> list[Found]:
        """Return who can be answered, each with the status, or the error that reading it ended with."""
        try:
            outcome = self._read.get_nowait()
        except queue.Empty:
            return []
        if isinstance(outcome, DeviceStatus):
            self._last, self._last_s = outcome, self._began_s
        found: list[Found] = [(one, outcome) for one in self._served]
        self._served, self._began_s = [], math.inf
        self._begin()
        return found

    def give_up(self, now_s: float) -> list[Found]:
        """Return who has waited too long, or would: each with the last status, which says how old it is and not "safe"."""
        if now_s - self._began_s < _PATIENCE_S:
            return []
        late = self._served + self._next
        self._served, self._next = [], []
        answer = self._old(now_s) if late else None
        return [(one, answer) for one in late if answer is not None]

    def _begin(self) -> None:
        if self._next and self._began_s == math.inf:
            self._served, self._next = self._next, []
            self._began_s = time.monotonic()
            self._wanted.put(True)

    def _old(self, now_s: float) -> DeviceStatus | DeviceError:
        if self._last is None:
            return DeviceError("transport", "the device has not yet told its status", retryable=True)
        health = {**self._last.health, STATUS_AGE: now_s - self._last_s}
        return self._last.model_copy(update={"safe": False, "health": health})

    def _run(self) -> None:
        while self._wanted.get():
            try:
                outcome = self._device.status()
            except DeviceError as error:
                outcome = error
            except Exception as error:
                log.exception("the device failed in status")
                outcome = DeviceError("device", f"the device failed in status: {type(error).__name__}", outcome="unknown")
            self._read.put(outcome)
            self._wake()
