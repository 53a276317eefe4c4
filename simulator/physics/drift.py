"""Slow random processes as functions of time.

An Ornstein-Uhlenbeck process, stationary with deviation σ and correlation e^{-t/τ}, on a grid of time steps. Its value at a step
is a function of (key, step) alone: it doesn't depend on which steps were asked for before, and a night's jump costs no more
than a few draws. Far apart (`_ANCHOR` correlation times) the values are independent; between two known ones the middle is drawn
from what both ends leave open, and so on down to single steps:

    known ●───────────────────────●───────────────────────● known         X(m) | X(l), X(r) is normal, of mean
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
"""Correlation times between values that are drawn independently; e^-64 of correlation is left out."""

Normals = Callable[[int, NDArray[np.float32]], None]
"""Fills an array with the standard normals that belong to a number."""


class _Interval(NamedTuple):
    """Steps `left` to left + 2^level, and the values at both ends."""

    level: int
    left: int
    at_left: NDArray[np.float32]
    at_right: NDArray[np.float32]


class OrnsteinUhlenbeck:
    """A vector of independent processes.

    Parameters
    ----------
    normals
        Standard normals of a number, always the same: `normals(number, out)` fills `out`, shape (size,).
    size
        How many processes.
    sigma
        Standard deviation of each.
    steps_per_tau
        Grid steps in a correlation time.
    """

    def __init__(self, normals: Normals, size: int, sigma: float, steps_per_tau: float) -> None:
        self._normals = normals
        self._size = size
        self._sigma = sigma
        self._steps_per_tau = steps_per_tau
        self._levels = max(0, math.ceil(math.log2(_ANCHOR * steps_per_tau)))
        self._path: list[_Interval] = []

    def at(self, step: int) -> NDArray[np.float32]:
        """Return the values at `step` ≥ 0, shape (size,). Neighbouring steps cost two draws of them on average."""
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
