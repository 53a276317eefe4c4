"""The one thread that drives a device for a server, so that the socket loop never waits for hardware."""

from __future__ import annotations

import logging
import queue
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field

from photonloop.protocols.device import PhotonicDevice, may_wait
from photonloop.protocols.errors import DeviceError

log = logging.getLogger(__name__)

_CANCEL_AGAIN_S = 0.5
"""Pause after a cancel that failed."""


@dataclass(eq=False)
class Job:
    """One thing to do with the device.

    Parameters
    ----------
    op
        The operation's name, for messages.
    call
        Does it.
    deadline_s
        When it must not start any more, on `time.monotonic`.
    stop
        Set by the socket loop when the job must not start, or must stop at its next setting: the answer to give then.
    """

    op: str
    call: Callable[[], object]
    deadline_s: float | None = None
    stop: DeviceError | None = None
    started_s: float = field(default_factory=time.monotonic)


def carry_out(job: Job) -> object:
    """Do the job; return what it returned, or the `DeviceError` that it ended with. Never raises."""
    if job.stop is not None and job.stop.code != "deadline":
        return job.stop
    if job.stop is not None or (job.deadline_s is not None and time.monotonic() >= job.deadline_s):
        return DeviceError("deadline", f"the deadline of this {job.op} passed before it could start", retryable=True)
    try:
        return job.call()
    except DeviceError as error:
        # The device knows that it was stopped; only the server knows why.
        return job.stop if error.code == "interlock" and job.stop is not None else error
    except Exception as error:
        log.exception("the device failed in %s", job.op)
        return DeviceError(
            "device", f"the device failed in {job.op}: {type(error).__name__}: {str(error)[:500]}", outcome="unknown"
        )


class Worker:
    """A thread, a queue of jobs in, a queue of outcomes out; and a second thread that cancels, where that may take time.

    `wake` is called from the thread after every outcome. Nothing that the socket loop calls waits for the device.
    """

    def __init__(self, device: PhotonicDevice, wake: Callable[[], None]) -> None:
        self._device = device
        self._wake = wake
        self._scheduler: queue.SimpleQueue[Job | None] = queue.SimpleQueue()
        self._outcomes: queue.SimpleQueue[tuple[Job, object]] = queue.SimpleQueue()
        # Held while a cancel is under way, so that it cannot hit the next job. The socket loop takes it only where a cancel
        # returns at once.
        self._lock = threading.Lock()
        self._running: Job | None = None
        self._thread = threading.Thread(target=self._run, name="photonloop-device", daemon=True)
        self._cancel_wanted = threading.Event()
        self._ended = threading.Event()
        self._canceller = (
            threading.Thread(target=self._keep_cancelling, name="photonloop-cancel", daemon=True) if may_wait(device) else None
        )

    def start(self) -> None:
        """Start the threads."""
        self._thread.start()
        if self._canceller is not None:
            self._canceller.start()

    def submit(self, job: Job) -> None:
        """Queue a job behind those that wait."""
        self._scheduler.put(job)

    def outcomes(self) -> list[tuple[Job, object]]:
        """Return the jobs that ended since the last call, each with its result or `DeviceError`."""
        ended: list[tuple[Job, object]] = []
        while True:
            try:
                ended.append(self._outcomes.get_nowait())
            except queue.Empty:
                return ended

    def interrupt(self) -> None:
        """Cancel the running job if it is marked `stop`.

        To be called again while the job runs: a cancel that comes before the device has noticed the evaluation is lost.
        """
        if self._canceller is None:
            self._cancel()
        else:
            self._cancel_wanted.set()

    def expedite(self, job: Job) -> None:
        """Carry out a waiting job now and beside the queue, unless it runs already: for `safe` behind a device that hangs.

        The job may end twice; the second outcome is to be ignored.
        """
        if self._running is job:
            return
        threading.Thread(target=self._finish, args=(job,), name="photonloop-safe", daemon=True).start()

    def join(self, timeout_s: float) -> bool:
        """End the thread after the jobs that wait; return whether it ended in time."""
        self._scheduler.put(None)
        self._ended.set()
        self._cancel_wanted.set()
        self._thread.join(timeout_s)
        return not self._thread.is_alive()

    def _run(self) -> None:
        while (job := self._scheduler.get()) is not None:
            with self._lock:
                self._running = job
            outcome = carry_out(job)
            with self._lock:
                self._running = None
            self._outcomes.put((job, outcome))
            self._wake()

    def _cancel(self) -> bool:
        """Cancel the running job if it is marked `stop`; return False where that failed. Never raises."""
        with self._lock:
            if self._running is None or self._running.stop is None:
                return True
            try:
                self._device.cancel()
            except DeviceError as error:
                log.warning("a running %s could not be stopped: %s", self._running.op, error.detail)
                return False
            except Exception:
                log.exception("the device failed in cancel")
                return False
            return True

    def _keep_cancelling(self) -> None:
        while self._cancel_wanted.wait() and not self._ended.is_set():
            self._cancel_wanted.clear()
            if not self._cancel():
                self._ended.wait(_CANCEL_AGAIN_S)

    def _finish(self, job: Job) -> None:
        self._outcomes.put((job, carry_out(job)))
        self._wake()
