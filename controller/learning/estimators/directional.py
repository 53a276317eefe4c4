"""Directional derivatives along Gaussian directions of unit length, as in FFzero (arXiv 2603.24790).

Each group of phases (θ, φ, γ) has its own unit direction u, and one pair of losses is used for all groups. The update
of the paper is w ← w − η·dim(w)·g with g = (L(w + εu) − L(w − εu)) / 2ε · u, the mean over K directions. The direction
returned here includes the factor dim(w) of each group: since E[dim · u uᵀ] = 1, it is an unbiased gradient. The
optimiser applies η.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from photonloop.controller.learning.variables import Phases


def draw(channels: int, groups: list[slice], count: int, rng: np.random.Generator) -> Phases:
    """Return `count` Gaussian directions of unit length in every group, shape (count, channels)."""
    directions = rng.standard_normal((count, channels))
    for group in groups:
        part = directions[:, group]
        part /= np.linalg.norm(part, axis=1, keepdims=True)
    return directions


def combine(directions: Phases, slopes: NDArray[np.float64], groups: list[slice]) -> Phases:
    """Return dim(group) × mean of slope × direction, for each group, shape (channels,)."""
    mean = np.einsum("k,kc->c", slopes / slopes.size, directions)
    for group in groups:
        mean[group] *= group.stop - group.start
    return mean


def step_from_rms(rms_rad: float, groups: list[slice]) -> float:
    """Return the length of a step that changes the phases of the largest group by `rms_rad` root mean square."""
    return rms_rad * _largest(groups) ** 0.5


def probe_extent(step_rad: float, groups: list[slice]) -> Phases:
    """Return four standard deviations of the change of each phase, or the step if it is smaller, shape (channels,)."""
    extent = np.empty(max(group.stop for group in groups))
    for group in groups:
        extent[group] = step_rad * min(1.0, 4.0 / (group.stop - group.start) ** 0.5)
    return extent


def rms_from_step(step_rad: float, groups: list[slice]) -> float:
    """Return the root-mean-square change of a phase in the largest group for a step of length `step_rad`."""
    return step_rad / _largest(groups) ** 0.5


def _largest(groups: list[slice]) -> int:
    return max(group.stop - group.start for group in groups)
