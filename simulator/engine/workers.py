"""Worker threads that share the items of one job, with an overhead low enough for jobs of 100 µs.

The calling thread works too, as worker 0, and does not wait for a helper thread that has not woken up yet. Workers
claim items one by one (`kernels.next_item`), so a late helper has less to do, or nothing. Compiled kernels release the
interpreter lock.
"""

from __future__ import annotations

import os
import threading
import weakref
from collections.abc import Callable
from queue import SimpleQueue

from photonloop.simulator import kernels

Kernel = Callable[[int], object]
"""Claims and computes items until none is left. The argument is the number of the worker."""

_MAX_POLLS = 4000
"""How often the counter of finished items is read before the thread yields its processor: about 20 µs."""

WORTH_SHARING_FLOPS = 5e6
"""Work of about 60 µs. Shorter jobs are not shared, because a helper takes 40 µs to wake up."""

BESIDE_FLOPS = 8e7
"""Work of about a millisecond. In evaluations up to this size the threads counted by `beside` take no part.

What a session computes per update (directions, voltages, losses, variables) takes about as long as an evaluation of a
few settings, and needs a processor. In longer evaluations all threads take part, because the session's own work is then
small compared with the evaluation.
"""


class KernelJob:
    """A set of items shared by the first `workers` workers."""

    def __init__(self, workers: int, items: int) -> None:
        self.items = items
        self.workers = workers
        self.control = kernels.new_control(workers)
        self.stopped = False
        self.failure: BaseException | None = None

    def stop(self) -> None:
        """Mark all items as claimed, so that workers stop. May be called from any thread."""
        self.stopped = True
        self.control[: -kernels.CONTROL_STRIDE : 2 * kernels.CONTROL_STRIDE] = kernels.STOPPED


Run = Callable[[KernelJob, Kernel], None]
"""Runs a job on all workers; raises `DeviceError` if it was cancelled."""


class Workers:
    """`count` workers: the calling thread and count - 1 helper threads.

    The helpers end with `close`, or when the object is garbage-collected.

    Parameters
    ----------
    count
        Number of workers.
    beside
        Number of workers that take no part in short evaluations, because the client needs their processors.
    """

    def __init__(self, count: int, beside: int = 0) -> None:
        self.count = max(1, count)
        self._beside = beside
        self._queues: list[SimpleQueue[tuple[KernelJob, Kernel] | None]] = [SimpleQueue() for _ in range(self.count - 1)]
        for number, queue in enumerate(self._queues, start=1):
            threading.Thread(target=_help, args=(number, queue), name=f"chip-{number}", daemon=True).start()
        self._end = weakref.finalize(self, _dismiss, self._queues)

    def new_job(self, items: int, flops: float, *, is_reading: bool = False) -> KernelJob:
        """Return a job for `run`, shared only if its work `flops` justifies waking helpers.

        `is_reading`: the job computes readings, so `beside` applies to it.
        """
        free = self.count - self._beside if is_reading and flops <= BESIDE_FLOPS else self.count
        return KernelJob(max(1, free) if flops > WORTH_SHARING_FLOPS and items > 1 else 1, items)

    def run(self, job: KernelJob, kernel: Kernel) -> bool:
        """Work on the job until every item is finished or the job is stopped; return whether all items are finished.

        After a job was stopped, a helper may still be finishing its last item, so discard the arrays that the job wrote
        to.

        Raises
        ------
        RuntimeError
            If a helper thread raised an exception, which is the cause.
        """
        for queue in self._queues[: job.workers - 1]:
            queue.put((job, kernel))
        kernel(0)
        while True:
            done = kernels.finished(job.control, job.items, _MAX_POLLS if job.workers > 1 else 1)
            if job.failure is not None:
                raise RuntimeError("a helper thread of the chip failed") from job.failure
            if done >= job.items or job.stopped:
                return bool(done >= job.items)
            os.sched_yield()

    def close(self) -> None:
        """End the helper threads."""
        self._end()


def default_count() -> int:
    """Return the default number of workers of a chip: one per processor, at most four."""
    return min(len(os.sched_getaffinity(0)), 4)


def _help(number: int, queue: SimpleQueue[tuple[KernelJob, Kernel] | None]) -> None:
    while (task := queue.get()) is not None:
        job, kernel = task
        try:
            kernel(number)
        except BaseException as error:  # noqa: BLE001 - passed on to the caller of `run`
            job.failure = error
        del job, kernel, task


def _dismiss(queues: list[SimpleQueue[tuple[KernelJob, Kernel] | None]]) -> None:
    for queue in queues:
        queue.put(None)
