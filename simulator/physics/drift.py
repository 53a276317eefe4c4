"""Slow random processes as functions of time.

An Ornstein-Uhlenbeck process, stationary with standard deviation σ and correlation e^{-t/τ}, on a grid of time steps.
Its value at a step is a function of (key, step) alone: it does not depend on the steps that were computed before, and a
jump over many hours takes only a few draws. Values `_ANCHOR` correlation times apart are drawn independently. Between
two known values, the value in the middle is drawn from its conditional distribution given both, and so on down to
single steps (bridge sampling):

    known ●───────────────────────●───────────────────────● known         X(m) | X(l), X(r) is normal with mean
                      ●           ▲ middle first                            a (X(l) + X(r)) / (1 + a²) and variance
                ●  ▲                                                        σ² (1 - a²) / (1 + a²),  a = e^{-(m - l)/τ}
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

_ANCHOR = 64.0
"""Distance, in correlation times, of values that are drawn independently. This neglects a correlation of e^-64."""

Normals = Callable[[int, NDArray[np.float32]], None]
"""Fills an array with the standard normals that belong to a given number."""


def bridge_levels(steps_per_tau: float) -> int:
    """Return l if the values that are drawn independently are 2^l steps apart."""
    return max(0, math.ceil(math.log2(_ANCHOR * steps_per_tau)))


class _Interval(NamedTuple):
    """Steps `left` to left + 2^level, and the values at both ends."""

    level: int
    left: int
    at_left: NDArray[np.float32]
    at_right: NDArray[np.float32]


class OrnsteinUhlenbeck:
    """A vector of independent Ornstein-Uhlenbeck processes.

    Parameters
    ----------
    normals
        `normals(number, out)` fills `out`, shape (size,), with standard normals, always the same for the same number.
    size
        Number of processes.
    sigma
        Standard deviation of each.
    steps_per_tau
        Grid steps per correlation time.
    """

    def __init__(self, normals: Normals, size: int, sigma: float, steps_per_tau: float) -> None:
        self._normals = normals
        self._size = size
        self._sigma = sigma
        self._steps_per_tau = steps_per_tau
        self._levels = bridge_levels(steps_per_tau)
        self._path: list[_Interval] = []

    def at(self, step: int) -> NDArray[np.float32]:
        """Return the values at `step` ≥ 0, shape (size,). Consecutive steps take two draws per step on average."""
        while self._path and not 0 <= step - self._path[-1].left < 2 ** self._path[-1].level:
            self._path.pop()
        if not self._path:
            span = 2**self._levels
            left = step // span * span
            self._path.append(_Interval(self._levels, left, self._anchor(left), self._anchor(left + span)))
        while step != (here := self._path[-1]).left:
            middle = here.left + 2 ** (here.level - 1)
            at_middle = self._between(here, middle)
            if step < middle:
                self._path.append(_Interval(here.level - 1, here.left, here.at_left, at_middle))
            else:
                self._path.append(_Interval(here.level - 1, middle, at_middle, here.at_right))
        return here.at_left

    def _anchor(self, step: int) -> NDArray[np.float32]:
        return np.float32(self._sigma) * self._drawn(step)

    def _between(self, here: _Interval, middle: int) -> NDArray[np.float32]:
        decay = math.exp(-(2.0 ** (here.level - 1)) / self._steps_per_tau)
        mean = np.float32(decay / (1.0 + decay**2))
        left_open = -math.expm1(-(2.0**here.level) / self._steps_per_tau) / (1.0 + decay**2)
        spread = np.float32(self._sigma * math.sqrt(left_open))
        return (mean * (here.at_left + here.at_right) + spread * self._drawn(middle)).astype(np.float32, copy=False)

    def _drawn(self, number: int) -> NDArray[np.float32]:
        out = np.empty(self._size, np.float32)
        self._normals(number, out)
        return out
