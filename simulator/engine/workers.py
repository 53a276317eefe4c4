"""A few threads that share the items of one job, with a hand-off cheap enough for jobs of 100 µs.

The calling thread works too, as worker 0, and never waits for a helper that has not woken up yet: items are claimed one by one
(`kernels.next_item`), so a late helper finds less to do, or nothing. Compiled kernels let go of the interpreter lock.
"""

from __future__ import annotations

import os
import threading
import weakref
from collections.abc import Callable
from queue import SimpleQueue

from photonloop.simulator import kernels

Kernel = Callable[[int], object]
"""Works on claimed items until none is left, as the worker of the given number."""

_MAX_POLLS = 4000
"""Looks at the counter of finished items before the processor is offered to somebody else: about 20 µs."""

WORTH_SHARING_FLOPS = 5e6
"""Work of about 60 µs: of less, a helper that takes 40 µs to wake up finds nothing left worth the waking."""

BESIDE_FLOPS = 8e7
"""Work of about a millisecond, up to which whoever asks is as busy between two evaluations as the chip is with one.

What a session does for an update (directions, volts, losses, variables) takes about as long as light for a few settings. Of a
longer evaluation helpers get their share even so: what is left of the session's own time is theirs.
"""


class KernelJob:
    """One set of items, shared by the first `workers` workers."""

    def __init__(self, workers: int, items: int) -> None:
        self.items = items
        self.workers = workers
        self.control = kernels.new_control(workers)
        self.stopped = False
        self.failure: BaseException | None = None

    def stop(self) -> None:
        """Leave nothing to claim. May be called from any thread."""
        self.stopped = True
        self.control[: -kernels.CONTROL_STRIDE : 2 * kernels.CONTROL_STRIDE] = kernels.STOPPED


class Workers:
    """`count` workers: the calling thread and count - 1 helpers, which end with `close` or with the last reference to this.

    Parameters
    ----------
    count
        How many.
    beside
        Of these, how many stay out of short evaluations, because whoever asks needs their processors meanwhile.
    """

    def __init__(self, count: int, beside: int = 0) -> None:
        self.count = max(1, count)
        self._beside = beside
        self._queues: list[SimpleQueue[tuple[KernelJob, Kernel] | None]] = [SimpleQueue() for _ in range(self.count - 1)]
        for number, queue in enumerate(self._queues, start=1):
            threading.Thread(target=_help, args=(number, queue), name=f"chip-{number}", daemon=True).start()
        self._end = weakref.finalize(self, _dismiss, self._queues)

    def new_job(self, items: int, flops: float, *, is_reading: bool = False) -> KernelJob:
        """Return a job for `run`, shared only where `flops` are worth waking somebody; `is_reading`: of an evaluation."""
        free = self.count - self._beside if is_reading and flops <= BESIDE_FLOPS else self.count
        return KernelJob(max(1, free) if flops > WORTH_SHARING_FLOPS and items > 1 else 1, items)

    def run(self, job: KernelJob, kernel: Kernel) -> bool:
        """Work on the job until every item is finished, or until it is stopped; return whether all are finished.

        Of a stopped job, a helper may still be finishing the item it had claimed: throw away what the job was writing.
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
        """End the helpers."""
        self._end()


def default_count() -> int:
    """Return how many workers a chip uses where nobody says: one a processor, four at most."""
    return min(len(os.sched_getaffinity(0)), 4)


def _help(number: int, queue: SimpleQueue[tuple[KernelJob, Kernel] | None]) -> None:
    while (task := queue.get()) is not None:
        job, kernel = task
        try:
            kernel(number)
        except BaseException as error:  # noqa: BLE001 - handed to the caller of `run`
            job.failure = error
        del job, kernel, task


def _dismiss(queues: list[SimpleQueue[tuple[KernelJob, Kernel] | None]]) -> None:
    for queue in queues:
        queue.put(None)
