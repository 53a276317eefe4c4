"""Estimators: a descent direction from losses alone.

An estimator asks for settings around the present variables and turns their losses into a direction. It never sees light,
data or labels, so anything that can be shone through can be learned by it.

Settings come in pairs, plus and minus each direction d: for a small step, (L(x + c·d) − L(x − c·d)) / 2c is the directional
derivative along d, and the pair shares batch, drift and second-order terms, which cancel in the difference.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from photonloop.controller.experiment import EstimatorSpec
from photonloop.controller.learning.estimators import directional, spsa
from photonloop.controller.learning.variables import Phases


@dataclass(frozen=True)
class Probe:
    """Settings to be measured for one update.

    Parameters
    ----------
    directions
        Shape (directions, channels), of length as the estimator has it.
    step_rad
        Multiplies a direction into an offset.
    """

    directions: Phases
    step_rad: float

    def settings(self, variables: Phases) -> Phases:
        """Return the settings, shape (2 · directions, channels): all pluses, then all minuses."""
        offsets = self.step_rad * self.directions
        return np.concatenate((variables + offsets, variables - offsets))


class Estimator(Protocol):
    """From random directions to a descent direction. Implementations are modules with these two functions."""

    def draw(self, channels: int, groups: list[slice], count: int, rng: np.random.Generator) -> Phases:
        """Return `count` random directions, shape (count, channels); `groups` are the kinds of phase shifters."""
        ...

    def combine(self, directions: Phases, slopes: NDArray[np.float64], groups: list[slice]) -> Phases:
        """Return the descent direction, shape (channels,), from measured slopes along each direction, shape (count,)."""
        ...

    def step_from_rms(self, rms_rad: float, groups: list[slice]) -> float:
        """Return the step that moves phases by `rms_rad` root mean square (in the largest group)."""
        ...

    def probe_extent(self, step_rad: float, groups: list[slice]) -> Phases:
        """Return how far [rad] a probe moves each phase, or seldom further: variables keep so far from the limits.

        Shape (channels,), proportional to the step.
        """
        ...

    def rms_from_step(self, step_rad: float, groups: list[slice]) -> float:
        """Return the root-mean-square change of a single phase [rad] that `step_rad` makes: the inverse of `step_from_rms`."""
        ...


_BY_NAME: dict[str, Estimator] = {"directional": directional, "spsa": spsa}


def estimator(spec: EstimatorSpec) -> Estimator:
    """Return the estimator that `spec` names."""
    return _BY_NAME[spec.name]


def slopes(probe: Probe, losses: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the measured directional derivatives, shape (directions,), from the losses of `probe.settings`."""
    pairs = len(losses) // 2
    return (losses[:pairs] - losses[pairs:]) / (2 * probe.step_rad)
