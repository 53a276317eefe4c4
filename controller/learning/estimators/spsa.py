"""Simultaneous perturbation (SPSA): every phase changes by plus or minus the same amount (Spall 1992, eq. 2.2).

If the loss is linear over the step, E[d (d·∇L)] = ∇L for independent signs d = ±1. The mean of slope × direction is
then an unbiased gradient.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from photonloop.controller.learning.variables import Phases


def draw(channels: int, groups: list[slice], count: int, rng: np.random.Generator) -> Phases:
    """Return `count` directions of independent signs ±1, shape (count, channels)."""
    bits = np.frombuffer(rng.bytes(count * channels // 8 + 1), dtype=np.uint8)
    signs = np.unpackbits(bits, count=count * channels).astype(np.float64)
    return (2.0 * signs - 1.0).reshape(count, channels)


def combine(directions: Phases, slopes: NDArray[np.float64], groups: list[slice]) -> Phases:
    """Return the mean of slope × direction, shape (channels,)."""
    return np.einsum("k,kc->c", slopes / slopes.size, directions)


def step_from_rms(rms_rad: float, groups: list[slice]) -> float:
    """Return `rms_rad`: every phase changes by the step."""
    return rms_rad


def probe_extent(step_rad: float, groups: list[slice]) -> Phases:
    """Return `step_rad` for every phase, shape (channels,)."""
    return np.full(max(group.stop for group in groups), step_rad)


def rms_from_step(step_rad: float, groups: list[slice]) -> float:
    """Return `step_rad`: every phase changes by the step."""
    return step_rad
