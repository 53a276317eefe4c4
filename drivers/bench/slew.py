"""Ramps: how far a voltage may go now, so that no change is ever faster than the slew limit.

    V ▲           ┌──── target          every step is at most slew × the time since the step before; a ramp's first step,
      │        ┌──┘                     which has none before it, at most slew × SHORTEST_STEP_S however long the pause was
      │     ┌──┘
      │  ┌──┘
      └──┴──┴──┴──┴──▶ t                all channels of a source arrive together

The planner is arithmetic without a clock: the bench asks it before every write, with the time that has really passed, so
that a slow instrument takes larger steps and a fast one smaller ones.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Volts = NDArray[np.float64]

SHORTEST_STEP_S = 0.002
"""Pace of a ramp's writes where the instrument is faster: finer steps are only more traffic."""

LONGEST_STEP_S = 0.05
"""A step is never larger than the slew limit allows in this time, however long the others took that move side by side."""


def credit_s(elapsed_s: float, *, ramping: bool) -> float:
    """Return how much of the time since the last write counts for the next step [s].

    Within a ramp (`ramping`) it is the time that the ramp itself took. Time that passed at rest makes no step larger: a heater
    that idled for a second is moved as gently as one that did not.
    """
    return min(elapsed_s, LONGEST_STEP_S if ramping else SHORTEST_STEP_S)


def wait_s(start: Volts, target: Volts, slew_v_per_s: float, elapsed_s: float) -> float:
    """Return how long to wait before the next step from `start` towards `target` [s].

    `elapsed_s` counts (`credit_s`) since the last write. A step that reaches the target waits only for what it needs itself.
    """
    if slew_v_per_s <= 0:
        return 0.0
    needed_s = _distance(start, target) / slew_v_per_s
    return max(0.0, min(needed_s, SHORTEST_STEP_S) - elapsed_s)


def next_step(start: Volts, target: Volts, slew_v_per_s: float, elapsed_s: float) -> Volts:
    """Return the voltages to write now, on the straight way from `start` to `target`, both of shape (channels,).

    No channel moves further than `slew_v_per_s` × `elapsed_s` (`credit_s`). A slew of 0 is no limit: the target itself is
    returned, as it is where it is near enough.
    """
    if slew_v_per_s <= 0:
        return target
    reach_v = slew_v_per_s * elapsed_s
    distance_v = _distance(start, target)
    if distance_v <= reach_v:
        return target
    return start + (target - start) * (reach_v / distance_v)


def _distance(start: Volts, target: Volts) -> float:
    return float(np.max(np.abs(target - start), initial=0.0))
