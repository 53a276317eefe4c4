"""Limits of the processors: micro-kernels for arithmetic, the first-level cache and reading of large arrays.

They use the lanes of the chip's kernels, so that they compile to the same instructions. `benchmarks/forward.py`
compares the forward with these limits.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from threading import Barrier
from typing import Any

import numpy as np
from numba import njit

from photonloop.simulator import kernels

_compiled: Any = njit(nogil=True)

SLICE_S = 4e-3
"""Shortest time of one measurement [s]; faster works are repeated."""

MODE_BYTES = 2 * 4 * kernels.LANES
"""Bytes of one mode of one block, real and imaginary parts."""


def seconds(work: Callable[[], object], repeats: int = 1, clock: Callable[[], float] = time.perf_counter) -> float:
    """Return the time of one call [s], averaged over `repeats`; processor time with `time.thread_time`."""
    start = clock()
    for _ in range(repeats):
        work()
    return (clock() - start) / repeats


@_compiled
def _multiply_adds(block, repeats):
    """Five independent chains of fused multiply-adds, LANES wide, in registers."""
    factor = block[0, 0, 0]
    a = b = c = d = e = kernels.load_lanes(block, 0, 0)
    addend = kernels.load_lanes(block, 0, 1)
    for _ in range(repeats):
        a = kernels.plus_times(addend, factor, a)
        b = kernels.plus_times(addend, factor, b)
        c = kernels.plus_times(addend, factor, c)
        d = kernels.plus_times(addend, factor, d)
        e = kernels.plus_times(addend, factor, e)
    # All results are stored, because the compiler would remove unused chains.
    rest = kernels.plus_times(kernels.plus_times(a, factor, b), factor, kernels.plus_times(c, factor, d))
    kernels.store_lanes(block, 0, 1, kernels.plus_times(rest, factor, e))


@_compiled
def _copies(block, repeats):
    """Write the first half of the ports, times a factor, onto the second half."""
    half = block.shape[0] // 2
    factor = block[0, 0, 0]
    for _ in range(repeats):
        for port in range(half):
            kernels.store_lanes(block, half + port, 0, kernels.times(factor, kernels.load_lanes(block, port, 0)))
            kernels.store_lanes(block, half + port, 1, kernels.times(factor, kernels.load_lanes(block, port, 1)))


@_compiled
def _reads(block, repeats):
    """Add up an even number of ports, in four sums."""
    one = np.float32(1.0)
    a = b = c = d = kernels.load_lanes(block, 0, 0)
    for _ in range(repeats):
        for port in range(0, block.shape[0], 2):
            a = kernels.plus_times(a, one, kernels.load_lanes(block, port, 0))
            b = kernels.plus_times(b, one, kernels.load_lanes(block, port, 1))
            c = kernels.plus_times(c, one, kernels.load_lanes(block, port + 1, 0))
            d = kernels.plus_times(d, one, kernels.load_lanes(block, port + 1, 1))
    kernels.store_lanes(block, 0, 0, kernels.plus_times(kernels.plus_times(a, one, b), one, kernels.plus_times(c, one, d)))


def operations_per_thread_s() -> float:
    """Return operations per second of this thread's processor time, as fused multiply-adds in registers."""
    block, repeats = _full(1), 100_000
    return repeats * _OPERATIONS / seconds(lambda: _multiply_adds(block, repeats), clock=time.thread_time)


def _full(ports: int) -> np.ndarray:
    return np.full((ports, 2, kernels.LANES), 0.5, np.float32)


_OPERATIONS = 5 * 2 * kernels.LANES
"""Operations of one repeat of `_multiply_adds`."""


@dataclass(frozen=True)
class Machine:
    """Runs micro-kernels on all processors at once; `repeats` caches the number of repeats that fill `SLICE_S`."""

    processors: int
    threads: ThreadPoolExecutor
    repeats: dict[tuple[str, int], int] = field(default_factory=dict)

    def rate_per_s(self, kernel: Any, blocks: Sequence[np.ndarray], amount: float) -> float:
        """Return the total rate per second of all processors, for `amount` per repeat and block."""
        key = (kernel.__name__, blocks[0].shape[0])
        if key not in self.repeats:
            kernel(blocks[0], 1)
            self.repeats[key] = max(1, round(20 * SLICE_S / seconds(lambda: kernel(blocks[0], 20))))
        repeats, together = self.repeats[key], Barrier(self.processors)

        def one(block: np.ndarray) -> float:
            together.wait()
            return repeats * amount / seconds(lambda: kernel(block, repeats))

        return sum(self.threads.map(one, blocks))

    def operations_per_s(self) -> float:
        """Return operations per second, as fused multiply-adds in registers."""
        return self.rate_per_s(_multiply_adds, [_full(1) for _ in range(self.processors)], _OPERATIONS)

    def cache_bytes_per_s(self) -> float:
        """Return bytes per second, half read and half written, in 12 KiB, which fit in any first-level cache."""
        ports = 96
        return self.rate_per_s(_copies, [_full(ports) for _ in range(self.processors)], ports * MODE_BYTES)

    def stream_bytes_per_s(self, shared: np.ndarray) -> float:
        """Return bytes per second that all processors together read from one array."""
        return self.rate_per_s(_reads, [shared] * self.processors, shared.nbytes)
