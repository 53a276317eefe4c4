"""Ornstein-Uhlenbeck processes of the input ports, compiled, for many steps at once."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from photonloop.simulator import kernels
from photonloop.simulator.physics.drift import bridge_levels


class PortProcesses:
    """A vector of independent processes, with the values of `drift.OrnsteinUhlenbeck` up to rounding.

    Fast drift of the inputs needs new values at every setting. They take a few microseconds here.

    Parameters
    ----------
    key
        Key of the random numbers (`fabrication.slow_key`).
    size
        Number of processes.
    sigma
        Standard deviation of each.
    steps_per_tau
        Grid steps per correlation time.
    """

    def __init__(self, key: np.uint64, size: int, sigma: float, steps_per_tau: float) -> None:
        self._key = key
        self._size = size
        self._sigma = np.float32(sigma)
        self._steps_per_tau = steps_per_tau
        rows = bridge_levels(steps_per_tau) + 1
        self._level = np.array([rows])
        self._lefts = np.zeros(rows, np.int64)
        self._ends = np.empty((2, rows, size), np.float32)
        self._draws = np.empty((-(-size // (2 * kernels.LANES)) * 2, kernels.LANES), np.float32)

    def at(self, steps: NDArray[np.int64]) -> NDArray[np.float32]:
        """Return the values at each of `steps` ≥ 0, shape (steps, size)."""
        out = np.empty((steps.size, self._size), np.float32)
        kernels.follow_process(
            self._key,
            steps,
            self._steps_per_tau,
            self._sigma,
            self._level,
            self._lefts,
            self._ends[0],
            self._ends[1],
            self._draws,
            out,
        )
        return out
