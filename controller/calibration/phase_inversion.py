"""Nominal heater phases that give wanted effective phases: the inverse of `heater_phases`, with crosstalk.

    nominal phases ──▶ `heater_phases` ──▶ effective phases ──▶ difference from the wanted ones, modulo 2π
          ▲                                                                │
          └── power ◀── heat of the arm, without what it receives ◀── phase of each heater's arm

Each round moves every arm by the phase that is missing, as if the heat that it receives stayed as it is. Crosstalk is
small, so few rounds are needed. Heat only adds phase: of all multiples of 2π, each arm has the lowest that its bounds
allow. All functions take many settings at once.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy import sparse
from scipy.sparse.linalg import SuperLU, splu

from photonloop.controller.calibration.heater_phases import HeaterPhases, heater_phases
from photonloop.controller.calibration.twin import Twin
from photonloop.controller.learning.variables import Bounds

Array = NDArray[np.float64]

TURN = 2 * np.pi

MOST_ROUNDS = 400
"""Rounds after which an inversion counts as not converging: crosstalk is too strong."""

FREE_ROUNDS = 8
"""Rounds after which multiples of 2π only grow, so that they cannot alternate, until all phases are right. Then those
that can be lowered are lowered, one at a time."""

MANY = 16
"""Heaters that can be lowered by a turn from which they are lowered together, to save time."""


class NominalPhases(NamedTuple):
    """Result of an inversion.

    Parameters
    ----------
    nominal
        Nominal heater phases [rad], shape (settings, channels).
    limited
        True for channels whose bounds do not allow the wanted phase; they are at the bound with the nearest phase.
    error_rad
        Largest difference from the wanted phases, modulo 2π, among all other channels.
    """

    nominal: Array
    limited: NDArray[np.bool_]
    error_rad: float


@dataclass(frozen=True)
class PhaseInversion:
    """Inversion of the heater phases of one stage.

    Parameters
    ----------
    twin
        The model of the stage.
    bounds
        Bounds of the nominal heater phases. `Bounds.total` is not considered.
    """

    twin: Twin
    bounds: Bounds

    @cached_property
    def _arms(self) -> SuperLU:
        """Factors of the matrix from the phases of the heaters' arms to the effective phases of the channels."""
        return splu(sparse.csc_array(self.twin.layout.effective[:, self.twin.layout.own]))

    def nominal(
        self,
        wanted: Array,
        start: Array | None = None,
        *,
        keep_turns: bool = False,
        least_power: bool = True,
        tolerance_rad: float = 1e-10,
        rounds: int = MOST_ROUNDS,
    ) -> NominalPhases:
        """Return the nominal heater phases that give the `wanted` effective phases modulo 2π.

        Parameters
        ----------
        wanted
            Effective phases [rad], shape (settings, channels). NaN: any phase, so the heater stays at its lower bound.
        start
            Nominal heater phases of similar settings, which save rounds.
        keep_turns
            True: every heater moves by less than a turn from `start`, except if the bounds leave no other way.
        least_power
            False: heaters that could be lowered by a turn in the end may stay as they are. That saves rounds.
        tolerance_rad
            Error at which the rounds end.
        rounds
            Most rounds. Fewer than `MOST_ROUNDS` save time if an error is acceptable; it is in the result.
        """
        layout, own, crosstalk = self.twin.layout, self.twin.parameters, self.twin.crosstalk
        free = np.isnan(wanted)
        x = np.broadcast_to(self.bounds.low, wanted.shape) if start is None else start
        limited, tried, error = np.zeros(wanted.shape, np.bool_), np.zeros(wanted.shape, np.bool_), np.inf
        for number in range(rounds + 1):
            at = heater_phases(layout, own, crosstalk, x)
            missing = np.where(free, 0.0, np.remainder(wanted - at.effective + np.pi, TURN) - np.pi)
            error = float(np.abs(missing[~limited]).max(initial=0.0))
            arms = own.offset_rad + _phase(at.arm_power, own.curvature)
            low, high = self._arm_bounds(at)
            asked = np.where(free, low, arms + self._arms.solve(missing.T).T)
            # A margin, so that rounding errors do not add a turn to a heater at its lower bound.
            turns = np.floor((asked - low) / TURN + 1e-9)
            if keep_turns:
                turns = np.where(asked > high, np.maximum(turns, 0.0), np.minimum(turns, 0.0))
            elif number >= FREE_ROUNDS:
                lower = (
                    _one_each((turns > 0) & ~tried, asked - low)
                    if least_power and error <= tolerance_rad
                    else np.zeros_like(tried)
                )
                tried |= lower
                turns = np.where(lower, turns, np.minimum(turns, 0.0))
            if number == rounds or (error <= tolerance_rad and not turns.any()):
                break
            asked = asked - TURN * turns
            above = asked > high
            asked = np.where(above, np.where(asked - high < low + TURN - asked, high, low), np.maximum(asked, low))
            limited = above & ~free
            x = np.where(free, self.bounds.low, self._from_arms(at, asked))
        return NominalPhases(x, limited, error)

    def _arm_bounds(self, at: HeaterPhases) -> tuple[Array, Array]:
        """Return the phases of the arms at the lower and upper bounds, with the heat that they receive in `at`."""
        own = self.twin.parameters
        received = at.arm_power / at.arm_per_q - at.q
        limits = []
        for bound in (self.bounds.low, self.bounds.high):
            across = np.maximum(np.sqrt(bound / np.pi) - at.grounds[:, self.twin.layout.ground_bus], 0.0)
            q = _solved(own.kappa * across**2, own.self_heating) / own.kappa
            limits.append(own.offset_rad + _phase((q + received) * at.arm_per_q, own.curvature))
        return limits[0], limits[1]

    def _from_arms(self, at: HeaterPhases, arms: Array) -> Array:
        """Return the nominal phases at which the arms have these phases, with received heat and grounds as in `at`."""
        own = self.twin.parameters
        received = at.arm_power / at.arm_per_q - at.q
        power = _solved((arms - own.offset_rad) * (1 + own.curvature) / np.pi, own.curvature)
        p = np.maximum(power / at.arm_per_q - received, 0.0) * own.kappa
        v = np.sqrt(p * (1 + own.self_heating * p) / own.kappa) + at.grounds[:, self.twin.layout.ground_bus]
        return np.clip(np.pi * v**2, self.bounds.low, self.bounds.high)


def _one_each(possible: NDArray[np.bool_], height: Array) -> NDArray[np.bool_]:
    """Return a mask of the highest possible channel of each setting, or of all if there are more than `MANY`."""
    best = np.where(possible, height, -np.inf).argmax(axis=1)
    highest = np.arange(possible.shape[1]) == best[:, np.newaxis]
    return possible & (highest | (possible.sum(axis=1, keepdims=True) > MANY))


def _phase(power: Array, curvature: float) -> Array:
    """Return the phase [rad] that heat adds to an arm (`TwinParameters.curvature`)."""
    return np.pi * power * (1 + curvature * power) / (1 + curvature)


def _solved(value: Array, curvature: float) -> Array:
    """Return u ≥ 0 that solves u · (1 + curvature · u) = value, or u = value if that is negative."""
    value = np.asarray(value)
    return np.where(value > 0, 2 * value / (1 + np.sqrt(np.maximum(1 + 4 * curvature * value, 0.0))), value)
