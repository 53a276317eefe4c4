"""The thread in which a server calls its device, so that the socket loop never waits for hardware."""

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
    """One call of the device.

    Parameters
    ----------
    op
        The operation's name, for messages.
    call
        The call.
    deadline_s
        Time on `time.monotonic` after which it must not start.
    stop
        Set by the socket loop if the job must not start, or must stop at its next setting: the error to reply with.
    """

    op: str
    call: Callable[[], object]
    deadline_s: float | None = None
    stop: DeviceError | None = None
    started_s: float = field(default_factory=time.monotonic)


def carry_out(job: Job) -> object:
    """Run the job; return its result, or the `DeviceError` with which it ended. Never raises."""
    if job.stop is not None and job.stop.code != "deadline":
        return job.stop
    if job.stop is not None or (job.deadline_s is not None and time.monotonic() >= job.deadline_s):
        return DeviceError("deadline", f"the deadline of this {job.op} passed before it could start", retryable=True)
    try:
        return job.call()
    except DeviceError as error:
        # The device reports that it was stopped; the server has the reason.
        return job.stop if error.code == "interlock" and job.stop is not None else error
    except Exception as error:
        log.exception("the device failed in %s", job.op)
        return DeviceError(
            "device", f"the device failed in {job.op}: {type(error).__name__}: {str(error)[:500]}", outcome="unknown"
        )


class Worker:
    """A thread with a queue of jobs and a queue of outcomes, and a second thread for `cancel` if that may wait.

    `wake` is called from the thread after every outcome. The methods do not wait for the device.
    """

    def __init__(self, device: PhotonicDevice, wake: Callable[[], None]) -> None:
        self._device = device
        self._wake = wake
        self._scheduler: queue.SimpleQueue[Job | None] = queue.SimpleQueue()
        self._outcomes: queue.SimpleQueue[tuple[Job, object]] = queue.SimpleQueue()
        # Held during a cancel, so that it cannot stop the next job. The socket loop acquires it only if `cancel`
        # returns at once.
        self._lock = threading.Lock()
        self._running: Job | None = None
        self._thread = threading.Thread(target=self._run, name="photonloop-device", daemon=True)
        self._cancel_wanted = threading.Event()
        self._ended = threading.Event()
        self._canceller = (
            threading.Thread(target=self._run_cancels, name="photonloop-cancel", daemon=True) if may_wait(device) else None
        )

    def start(self) -> None:
        """Start the threads."""
        self._thread.start()
        if self._canceller is not None:
            self._canceller.start()

    def submit(self, job: Job) -> None:
        """Append a job to the queue."""
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

        Call it repeatedly while the job runs: a cancel before the evaluation has started in the device has no effect.
        """
        if self._canceller is None:
            self._cancel()
        else:
            self._cancel_wanted.set()

    def expedite(self, job: Job) -> None:
        """Run a waiting job now in a thread of its own, unless it is running: for `safe` if the device hangs.

        The job may then have two outcomes; ignore the second.
        """
        if self._running is job:
            return
        threading.Thread(target=self._finish, args=(job,), name="photonloop-safe", daemon=True).start()

    def join(self, timeout_s: float) -> bool:
        """End the thread after the waiting jobs; return whether it ended in time."""
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
        """Cancel the running job if it is marked `stop`; return False if that failed. Never raises."""
        with self._lock:
            if self._running is None or self._running.stop is None:
                return True
            try:
                self._device.cancel()
            except DeviceError as error:
                log.warning("the running %s could not be stopped: %s", self._running.op, error.detail)
                return False
            except Exception:
                log.exception("the device failed in cancel")
                return False
            return True

    def _run_cancels(self) -> None:
        while self._cancel_wanted.wait() and not self._ended.is_set():
            self._cancel_wanted.clear()
            if not self._cancel():
                self._ended.wait(_CANCEL_AGAIN_S)

    def _finish(self, job: Job) -> None:
        self._outcomes.put((job, carry_out(job)))
        self._wake()
