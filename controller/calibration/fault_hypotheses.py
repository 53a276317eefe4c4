"""Defects of a stage that was calibrated before they occurred: the hypothesis that explains new readings best.

The calibrated twin predicts the readings for every possible defect: a heater without current, a stuck source, two
exchanged sources or fibres, a detector without a signal, a coupler that does not split. The one that lowers the misfit
most is taken, and then the next, until the rest is as good as at the calibration. No further readings are needed, and
one lit input at a time is enough.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import combinations

import numpy as np
from numpy.typing import NDArray

from photonloop.controller.calibration.calibrated_device import StageCalibration, Trouble
from photonloop.controller.calibration.fit_problem import predicted_all
from photonloop.controller.calibration.twin import Twin
from photonloop.controller.calibration.twin_misfit import Observations, relative_misfit

Array = NDArray[np.float64]

MOST_DEFECTS = 4

LEAST_GAIN = 0.6
"""A defect must lower the misfit to at most this share."""

STUCK_RAD = tuple(np.arange(0.5, 7.0, 0.5).tolist())
"""Nominal heater phases of stuck sources that are tried."""

PAIRED = 24
"""Channels of which exchanges are tried: those whose drive explains the readings worst."""


@dataclass(frozen=True)
class _State:
    """What is assumed: the true drives and inputs, couplers of the twin, and detectors without a signal."""

    data: Observations
    twin: Twin
    taps: tuple[int, ...] = ()


def explain_misfit(found: StageCalibration, data: Observations, sufficient: float) -> tuple[Trouble, ...]:
    """Return the defects that explain readings which the twin of a calibration does not describe.

    Parameters
    ----------
    found
        The calibration.
    data
        Settings that were read now.
    sufficient
        Misfit at which no further defect is looked for.

    Returns
    -------
        The defects; empty if no single one explains much.
    """
    state, troubles = _State(data, found.twin), []
    misfit = _misfit(found, state)
    while misfit > sufficient and len(troubles) < MOST_DEFECTS:
        tried = [
            (_misfit(found, changed), number, trouble, changed) for number, (trouble, changed) in enumerate(_all(found, state))
        ]
        best, _, trouble, changed = min(tried, key=lambda each: each[:2])
        if not best < LEAST_GAIN * misfit:
            break
        troubles.append(trouble)
        misfit, state = best, changed
    return tuple(troubles)


def _misfit(found: StageCalibration, state: _State) -> float:
    predicted, dark = predicted_all(state.twin, state.data), found.parameters.detector_dark
    for tap in state.taps:
        predicted[:, :, tap] = dark[tap]
    return float(np.sqrt(np.mean(relative_misfit(state.data.readings, predicted, dark) ** 2)))


def _all(found: StageCalibration, state: _State) -> Iterator[tuple[Trouble, _State]]:
    """Yield every hypothesis and the state that it assumes."""
    layout, name = found.layout, found.stage.name
    channels = np.concatenate((layout.theta, layout.phi)).tolist()
    without = {}
    for channel in channels:
        dead = _driven(state, lambda phases, channel=channel: _constant(phases, channel, 0.0))
        without[channel] = _misfit(found, dead)
        yield Trouble("dead heater", name, (channel,), detail="the readings are as if it were at 0 V"), dead
        for phase_rad in STUCK_RAD:
            stuck = _driven(state, lambda phases, channel=channel, phase_rad=phase_rad: _constant(phases, channel, phase_rad))
            detail = f"the readings are as if it were at {phase_rad / np.pi:.2g} π"
            yield Trouble("stuck channel", name, (channel,), detail=detail), stuck
    for pair in combinations(sorted(sorted(channels, key=without.__getitem__)[:PAIRED]), 2):
        changed = _driven(state, lambda phases, pair=pair: _exchanged(phases, pair))
        yield Trouble("swapped heaters", name, pair, detail="the readings are as if their wires were exchanged"), changed
    for pair in combinations(range(layout.ports), 2):
        data = dataclasses.replace(state.data, inputs=_exchanged(np.asarray(state.data.inputs, np.float64), pair))
        detail = "the readings are as if their fibres were exchanged"
        yield Trouble("swapped inputs", name, ports=pair, detail=detail), dataclasses.replace(state, data=data)
    for tap in range(layout.taps):
        taken = dataclasses.replace(state, taps=(*state.taps, tap))
        yield Trouble("open detector", name, ports=(tap,), detail="it reads no light"), taken
    for k in range(layout.interferometers):
        for coupler in (0, 1):
            error_rad = state.twin.parameters.coupler_error_rad.copy()
            error_rad[k, coupler] = -np.pi / 4
            twin = Twin(layout, dataclasses.replace(state.twin.parameters, coupler_error_rad=error_rad))
            top, both = int(layout.top[k]), (int(layout.theta[k]), int(layout.phi[k]))
            detail = f"the readings are as if coupler {coupler + 1} did not split"
            yield Trouble("broken coupler", name, both, (top, top + 1), detail), dataclasses.replace(state, twin=twin)


def _driven(state: _State, change: Callable[[Array], Array]) -> _State:
    return dataclasses.replace(state, data=dataclasses.replace(state.data, phases=change(state.data.phases)))


def _constant(phases: Array, channel: int, value: float) -> Array:
    found = phases.copy()
    found[:, channel] = value
    return found


def _exchanged(values: Array, pair: tuple[int, int]) -> Array:
    found = values.copy()
    found[..., list(pair)] = values[..., list(pair[::-1])]
    return found
