"""Jobs of the worker and the requests that wait for them.

Runs in the socket loop's thread and never waits.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass

from photonloop.protocols.device import PhotonicDevice
from photonloop.protocols.errors import DeviceError
from photonloop.protocols.server.worker import Job, Worker
from photonloop.protocols.wire.messages import Request

_MAX_WAITING = 32
_ACCEPT_SAFE_S = 0.03
"""Time after which a `safe` is answered even if the device is not safe yet."""
_EXPEDITE_SAFE_S = 1.0
"""Time after which a job that makes the device safe is run beside the queue, because the device hangs."""


@dataclass
class Waiting:
    """A request that waits for a job, and the route of its reply."""

    route: bytes
    request: Request
    reported_s: float
    accept_s: float = math.inf
    """Time at which to reply "accepted" if the job has not ended by then."""


class Scheduler:
    """The pending jobs and the requests that wait for them.

    Parameters
    ----------
    wake
        Called from the worker's thread if `collect` has something to do.
    working_s
        Interval at which waiting clients are sent "working".
    max_bytes
        Size of the arrays of all waiting requests; a single request may exceed it.
    """

    def __init__(self, device: PhotonicDevice, wake: Callable[[], None], working_s: float, max_bytes: int) -> None:
        self._device = device
        self._worker = Worker(device, wake)
        self._working_s = working_s
        self._max_bytes = max_bytes
        self._bytes: dict[Job, int] = {}
        self._waiting: dict[Job, list[Waiting]] = {}
        self._commands: dict[tuple[str, int], Job] = {}
        self._safe_job: Job | None = None
        self._expedited = False

    @property
    def any(self) -> bool:
        """Whether any job is pending."""
        return bool(self._waiting)

    @property
    def safe_pending(self) -> bool:
        """Whether a job that makes the device safe is pending."""
        return self._safe_job is not None

    def start(self) -> None:
        """Start the worker."""
        self._worker.start()

    def join(self, timeout_s: float) -> bool:
        """End the worker; return whether it ended in time."""
        return self._worker.join(timeout_s)

    def submit(self, route: bytes, request: Request, call: Callable[[], object], nbytes: int = 0) -> None:
        """Queue the job of a request, whose arrays have `nbytes` bytes.

        Raises
        ------
        DeviceError
            "transport" if too many requests or bytes are waiting.
        """
        if len(self._waiting) >= _MAX_WAITING:
            raise DeviceError("transport", f"{_MAX_WAITING} requests are waiting for the device: try again later", retryable=True)
        held = sum(self._bytes.values())
        if held and held + nbytes > self._max_bytes:
            raise DeviceError(
                "transport",
                f"this {request.op} has {nbytes} bytes, and {held} of at most {self._max_bytes} bytes wait for the device: "
                "try again later",
                retryable=True,
            )
        job = Job(request.op, call, request.deadline)
        self._bytes[job] = nbytes
        self._waiting[job] = [Waiting(route, request, job.started_s)]
        self._commands[request.client_id, request.seq] = job
        self._worker.submit(job)

    def attach(self, route: bytes, request: Request) -> bool:
        """Send the reply to a pending command to `route`; return False if it is not pending."""
        job = self._commands.get((request.client_id, request.seq))
        if job is None:
            return False
        for one in self._waiting[job]:
            if (one.request.client_id, one.request.seq) == (request.client_id, request.seq):
                one.route = route
        return True

    def stop(self, why: DeviceError, *, only: str | None = None) -> None:
        """Stop the running job and prevent waiting ones from starting, except those that make the device safe."""
        for job in self._waiting:
            if job is not self._safe_job and job.stop is None and only in {None, job.op}:
                job.stop = why
        self._worker.interrupt()

    def make_safe(self, route: bytes | None = None, request: Request | None = None) -> None:
        """Queue a job that makes the device safe, or join the one that is pending. Call `stop` first.

        A `release` is answered when the device is safe. A `safe` is answered within 50 ms, with "accepted" if the
        device is not safe by then.
        """
        now_s = time.monotonic()
        if self._safe_job is None:
            self._safe_job = Job("safe", self._device.safe)
            self._expedited = False
            self._waiting[self._safe_job] = []
            self._worker.submit(self._safe_job)
        if route is not None and request is not None:
            accept_s = now_s + _ACCEPT_SAFE_S if request.op == "safe" else math.inf
            self._waiting[self._safe_job].append(Waiting(route, request, now_s, accept_s))
            if request.seq:
                self._commands[request.client_id, request.seq] = self._safe_job

    def collect(self) -> list[tuple[Job, list[Waiting], object]]:
        """Return the jobs that have ended, each with the requests that waited for it and its outcome."""
        ended: list[tuple[Job, list[Waiting], object]] = []
        for job, outcome in self._worker.outcomes():
            waiting = self._waiting.pop(job, None)
            if waiting is None:  # an expedited job ends twice
                continue
            self._bytes.pop(job, None)
            if job is self._safe_job:
                self._safe_job = None
            for one in waiting:
                self._commands.pop((one.request.client_id, one.request.seq), None)
            ended.append((job, waiting, outcome))
        return ended

    def tick(self, now_s: float) -> tuple[list[Waiting], list[Waiting]]:
        """Stop jobs after their deadline and expedite a `safe` that takes too long.

        Returns the requests to answer "accepted", and those to answer "working".
        """
        accepted: list[Waiting] = []
        working: list[Waiting] = []
        for job, waiting in self._waiting.items():
            if job.deadline_s is not None and now_s >= job.deadline_s and job.op == "evaluate" and job.stop is None:
                job.stop = DeviceError("deadline", "the deadline of this evaluate passed while it ran")
            accepted += [one for one in waiting if now_s >= one.accept_s]
            waiting[:] = [one for one in waiting if now_s < one.accept_s]
            for one in waiting:
                if now_s - one.reported_s >= self._working_s:
                    one.reported_s = now_s
                    working.append(one)
        self._worker.interrupt()
        job = self._safe_job
        if job is not None and not self._expedited and now_s - job.started_s > _EXPEDITE_SAFE_S:
            self._expedited = True
            self._worker.expedite(job)
        return accepted, working
