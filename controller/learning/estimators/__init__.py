"""Estimators: a descent direction from the losses of probe settings.

An estimator chooses settings around the present variables and computes a direction from their losses. It needs no
access to readings, data or labels, so it works for any device and any rule.

Settings come in pairs, plus and minus each direction d. For a small step c, (L(x + c·d) − L(x − c·d)) / 2c is the
directional derivative along d. Batch and second-order terms are common to the two settings of a pair and cancel in the
difference. The two settings of a pair are measured one directly after the other, so that drift between them is least.
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
    """Settings to measure for one update.

    Parameters
    ----------
    directions
        Directions of the estimator, shape (directions, channels).
    step_rad
        Probe step [rad]: an offset is the step times a direction.
    """

    directions: Phases
    step_rad: float

    def settings(self, variables: Phases) -> Phases:
        """Return the settings, shape (2 · directions, channels): plus and minus each direction, one after the other."""
        offsets = self.step_rad * self.directions
        settings = np.empty((2 * len(offsets), offsets.shape[1]))
        np.add(variables, offsets, out=settings[0::2])
        np.subtract(variables, offsets, out=settings[1::2])
        return settings


class Estimator(Protocol):
    """A method to estimate a descent direction. Implementations are modules with these functions."""

    def draw(self, channels: int, groups: list[slice], count: int, rng: np.random.Generator) -> Phases:
        """Return `count` random directions, shape (count, channels); `groups` are the kinds of phase shifters."""
        ...

    def combine(self, directions: Phases, slopes: NDArray[np.float64], groups: list[slice]) -> Phases:
        """Return the descent direction, shape (channels,), from the slopes along each direction, shape (count,)."""
        ...

    def step_from_rms(self, rms_rad: float, groups: list[slice]) -> float:
        """Return the probe step [rad] that changes the phases of the largest group by `rms_rad` root mean square."""
        ...

    def probe_extent(self, step_rad: float, groups: list[slice]) -> Phases:
        """Return how far a probe moves each phase [rad], shape (channels,), proportional to the step.

        Variables keep this distance from the limits. For random lengths it is a bound that is rarely exceeded.
        """
        ...

    def rms_from_step(self, step_rad: float, groups: list[slice]) -> float:
        """Return the root-mean-square change of a phase [rad] for a probe step: the inverse of `step_from_rms`."""
        ...


_BY_NAME: dict[str, Estimator] = {"directional": directional, "spsa": spsa}


def estimator(spec: EstimatorSpec) -> Estimator:
    """Return the estimator that `spec` names."""
    return _BY_NAME[spec.name]


def slopes(probe: Probe, losses: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the measured directional derivatives, shape (directions,), from the losses of `probe.settings`."""
    return (losses[0::2] - losses[1::2]) / (2 * probe.step_rad)
