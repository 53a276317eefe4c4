"""Ramps: the voltage of the next step, so that no change is ever faster than the slew limit.

    V ▲           ┌──── target          each step is at most slew × the time since the previous step;
      │        ┌──┘                     the first step of a ramp is at most slew × SHORTEST_STEP_S
      │     ┌──┘
      │  ┌──┘
      └──┴──┴──┴──┴──▶ t                all channels of a source arrive together

These functions have no clock. The bench calls them before every write with the time that has passed, so a slow
instrument makes larger steps than a fast one.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Volts = NDArray[np.float64]

SHORTEST_STEP_S = 0.002
"""Shortest time between two writes of a ramp [s]; finer steps would only add traffic."""

LONGEST_STEP_S = 0.05
"""Longest time that counts for one step [s], even if other sources that move at the same time take longer."""


def credit_s(elapsed_s: float, *, ramping: bool) -> float:
    """Return how much of the time since the last write counts for the next step [s].

    Within a ramp (`ramping`) all of it counts, up to `LONGEST_STEP_S`. Before a ramp at most `SHORTEST_STEP_S` counts,
    so the first step is not larger after a long rest.
    """
    return min(elapsed_s, LONGEST_STEP_S if ramping else SHORTEST_STEP_S)


def wait_s(start: Volts, target: Volts, slew_v_per_s: float, elapsed_s: float) -> float:
    """Return how long to wait before the next step from `start` towards `target` [s].

    `elapsed_s` is the time that counts since the last write (`credit_s`). A step that reaches the target waits only as
    long as its distance requires.
    """
    if slew_v_per_s <= 0:
        return 0.0
    needed_s = _distance(start, target) / slew_v_per_s
    return max(0.0, min(needed_s, SHORTEST_STEP_S) - elapsed_s)


def next_step(start: Volts, target: Volts, slew_v_per_s: float, elapsed_s: float) -> Volts:
    """Return the voltages to write now, on the straight line from `start` to `target`, both of shape (channels,).

    No channel moves further than `slew_v_per_s` × `elapsed_s` (`credit_s`). `target` itself is returned if it is within
    that distance, and for a slew of 0, which means no limit.
    """
    if slew_v_per_s <= 0:
        return target
    largest_step_v = slew_v_per_s * elapsed_s
    distance_v = _distance(start, target)
    if distance_v <= largest_step_v:
        return target
    return start + (target - start) * (largest_step_v / distance_v)


def _distance(start: Volts, target: Volts) -> float:
    return float(np.max(np.abs(target - start), initial=0.0))
