"""Directional derivatives along Gaussian directions of unit length, as FFzero takes them (arXiv 2603.24790).

Each group of phases (θ, φ, γ) gets its own unit direction u; one pair of losses serves all groups. The paper's update is
w ← w − η·dim(w)·g with g = (L(w + εu) − L(w − εu)) / 2ε · u, the mean over K directions. The factor dim(w), one a group,
is part of the direction returned here: E[dim · u uᵀ] = 1 makes it an unbiased gradient, and η is left to the optimiser.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from photonloop.controller.learning.variables import Phases


def draw(channels: int, groups: list[slice], count: int, rng: np.random.Generator) -> Phases:
    """Return `count` Gaussian directions, of unit length over every group, shape (count, channels)."""
    directions = rng.standard_normal((count, channels))
    for group in groups:
        part = directions[:, group]
        part /= np.linalg.norm(part, axis=1, keepdims=True)
    return directions


def combine(directions: Phases, slopes: NDArray[np.float64], groups: list[slice]) -> Phases:
    """Return dim(group) × mean of slope × direction, group by group, shape (channels,)."""
    mean = np.einsum("k,kc->c", slopes / slopes.size, directions)
    for group in groups:
        mean[group] *= group.stop - group.start
    return mean


def step_from_rms(rms_rad: float, groups: list[slice]) -> float:
    """Return the length over the largest group that moves its phases by `rms_rad` root mean square."""
    return rms_rad * _largest(groups) ** 0.5


def probe_extent(step_rad: float, groups: list[slice]) -> Phases:
    """Return four standard deviations of each phase's move, which its group decides; no phase moves further than the step."""
    reached = np.empty(max(group.stop for group in groups))
    for group in groups:
        reached[group] = step_rad * min(1.0, 4.0 / (group.stop - group.start) ** 0.5)
    return reached


def rms_from_step(step_rad: float, groups: list[slice]) -> float:
    """Return the root-mean-square change of one phase in the largest group under a step of length `step_rad`."""
    return step_rad / _largest(groups) ** 0.5


def _largest(groups: list[slice]) -> int:
    return max(group.stop - group.start for group in groups)
