"""Read the status of a device whose `status` may wait, without blocking the socket loop.

    loop ──ask──▶ [ thread: device.status() ] ──collect──▶ loop: the status
      └──────────── timeout: give_up ─────────────────────▶ loop: the last status that was read

All methods except `_run` are called in the socket loop's thread.
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

_TIMEOUT_S = 0.25
"""Time after which a request for the status is answered with the last one that was read."""
_MOST_WAITING = 256
STATUS_AGE = "status_age_s"
"""Key in `DeviceStatus.health` for the age of a status that is not current."""


@dataclass(frozen=True)
class StatusRequest:
    """A request for the status, and the route of its reply."""

    route: bytes
    request: Request
    asked_s: float


Found = tuple[StatusRequest, DeviceStatus | DeviceError]


class StatusPoller:
    """A thread that reads `device.status()` on request. Requests that arrive during one reading share the next one.

    `wake` is called from the thread if `collect` has something to return.
    """

    def __init__(self, device: PhotonicDevice, wake: Callable[[], None]) -> None:
        self._device = device
        self._wake = wake
        self._wanted: queue.SimpleQueue[bool] = queue.SimpleQueue()
        self._read: queue.SimpleQueue[DeviceStatus | DeviceError] = queue.SimpleQueue()
        self._served: list[StatusRequest] = []  # answered by the current reading
        self._next: list[StatusRequest] = []  # arrived during the current reading, which may be older than they are
        self._began_s = math.inf
        self._last: DeviceStatus | None = None
        self._last_s = 0.0
        self._thread = threading.Thread(target=self._run, name="photonloop-status", daemon=True)

    @property
    def any(self) -> bool:
        """Whether any request is waiting."""
        return bool(self._served or self._next)

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    def end(self) -> None:
        """Make the thread end as soon as the device returns."""
        self._wanted.put(False)

    def ask(self, route: bytes, request: Request) -> None:
        """Request a reading; `collect` or `give_up` will return its status.

        Raises
        ------
        DeviceError
            "transport" if too many requests are waiting.
        """
        if len(self._served) + len(self._next) >= _MOST_WAITING:
            raise DeviceError("transport", f"{_MOST_WAITING} requests wait for the status: try again later", retryable=True)
        self._next.append(StatusRequest(route, request, time.monotonic()))
        self._begin()

    def collect(self) -> list[Found]:
        """Return the requests that can be answered, each with the status or the error of the reading."""
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
        """Return the requests that timed out, each with the last status read.

        Its age is in `health`, and `safe` is False.
        """
        if now_s - self._began_s < _TIMEOUT_S:
            return []
        late = self._served + self._next
        self._served, self._next = [], []
        answer = self._old_status(now_s) if late else None
        return [(one, answer) for one in late if answer is not None]

    def _begin(self) -> None:
        if self._next and self._began_s == math.inf:
            self._served, self._next = self._next, []
            self._began_s = time.monotonic()
            self._wanted.put(True)

    def _old_status(self, now_s: float) -> DeviceStatus | DeviceError:
        if self._last is None:
            return DeviceError("transport", "the device has not reported its status yet", retryable=True)
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
