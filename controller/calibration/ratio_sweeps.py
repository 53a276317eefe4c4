"""Sweeps of θ and φ with all other interferometers in bar, whole columns at a time.

With everything in bar, light of each input leaves at the output of the same number. An interferometer on modes t, t + 1
that is not in bar exchanges light of these two inputs only, so all interferometers of a column can be swept at once.
The share of power that crosses follows from four readings P_ab, from input a to output b:

    crossed / stayed = √(P_t,t+1 · P_t+1,t / (P_t,t · P_t+1,t+1))

The powers and losses of the inputs, the gains of the detectors and the laser cancel, and so does, to first order, the
interference with light that leaks from the other one of the two inputs.

- θ: the share is (1 + cos θ)/2.
- φ: the interferometers (c - 2, t) and (c, t) at θ = π/2 form a Mach-Zehnder interferometer. Between them light passes
  interferometers in bar: the upper mode without a phase, the lower one with the phase φ' + π of interferometer
  (c - 1, t + 1). The share is (1 + cos(φ - φ'))/2; (1 - cos φ)/2 if there is none. Columns without an earlier
  interferometer on the same modes have no measurable φ: it cannot be told from the phases of the inputs.

Other φ are at random at two values half a period apart. This averages the interference with what leaks from
interferometers that are not exactly in bar.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize_scalar

from photonloop.controller.calibration.evidence import Fringe
from photonloop.controller.calibration.fringes import ScaledFringes, fit_scaled
from photonloop.controller.calibration.heated_phases import (
    Channels,
    arm_signs,
    effective_phases,
    heater_curve,
    nominal_for,
    sweep_nominals,
    with_offsets,
)
from photonloop.controller.calibration.lit_inputs import LitReadings, read_lit
from photonloop.controller.calibration.setting_reader import SettingReader
from photonloop.controller.calibration.twin import Twin
from photonloop.controller.calibration.twin_layout import TwinLayout
from photonloop.controller.calibration.twin_misfit import Observations

Array = NDArray[np.float64]

LOW_PHI_RAD = 0.2
"""Lower one of the two phases of the φ that are not swept."""


class MeasurablePhi(NamedTuple):
    """An interferometer, the one before it on the same modes, and the channel of φ' between them (-1: none)."""

    number: int
    before: int
    minus: int


@dataclass(frozen=True)
class ColumnSweep:
    """Settings of one sweep, and the shares of power that crossed.

    Parameters
    ----------
    channels
        Heaters that were swept, shape (rows,).
    minus
        For each, the channel of φ', whose effective phase is subtracted; -1 if there is none.
    shift_rad
        Added to the phase: π if the share is (1 - cos)/2.
    nominal
        Nominal heater phases [rad], shape (settings, channels of the stage).
    read
        What was read.
    share
        Share of power that crossed, shape (rows, settings).
    """

    channels: Channels
    minus: Channels
    shift_rad: Array
    nominal: Array
    read: LitReadings
    share: Array


@dataclass(frozen=True)
class RatioSweeps:
    """Sweeps of all θ or φ, with the twin that describes them."""

    twin: Twin
    sweeps: tuple[ColumnSweep, ...]

    @property
    def visibility(self) -> Array:
        """Visibility of the fringe of each channel, NaN if it was not swept, shape (channels,)."""
        found = np.full(self.twin.layout.channels, np.nan)
        for sweep in self.sweeps:
            found[sweep.channels] = _fitted(self.twin, sweep).cosines.visibility
        return found

    @property
    def fringes(self) -> tuple[Fringe, ...]:
        """The fringe of every heater that was swept, in the order of nominal heater phases."""
        found = []
        for sweep in self.sweeps:
            fitted = _fitted(self.twin, sweep).cosines.fitted
            for row, channel in enumerate(sweep.channels):
                order = np.argsort(sweep.nominal[:, channel], kind="stable")
                x, share = sweep.nominal[order, channel], sweep.share[row, order]
                found.append(Fringe(int(channel), x, share, fitted[row, order], ""))
        return tuple(found)

    def observations(self) -> Observations:
        """Return the readings of all sweeps, with all single lit inputs and with none."""
        return Observations(
            np.concatenate([sweep.nominal for sweep in self.sweeps]),
            self.sweeps[0].read.inputs,
            np.concatenate([sweep.read.readings for sweep in self.sweeps]),
        )


def sweep_thetas(twin: Twin, reader: SettingReader, rng: np.random.Generator, points: int, repeats: int) -> RatioSweeps:
    """Sweep all θ, column by column, and refit offsets, κ and the common curvature.

    Parameters
    ----------
    twin
        The twin with offsets of θ that are right within about 0.5 rad.
    reader
        Reads settings.
    rng
        Draws orders and the other φ.
    points
        Phases of each sweep; each is read at two values of φ.
    repeats
        Samples that are averaged.
    """
    layout, sweeps = twin.layout, []
    for column in range(int(layout.column.max()) + 1):
        here = np.flatnonzero((layout.column == column) & ~layout.alone)
        channels = layout.theta[here]
        nominal = np.tile(_random_phis(twin, points, rng), (2, 1))
        nominal[:, channels] = np.tile(sweep_nominals(twin, channels, points, reader.bounds, rng), (2, 1))
        own = nominal[:points, layout.phi[here]]
        nominal[points:, layout.phi[here]] = np.where(own > own.min(axis=0) + 1, own.min(axis=0), own + _half_turn(twin))
        others = np.setdiff1d(layout.theta, channels)
        nominal = nominal_for(twin, nominal, others, np.full(others.size, np.pi), reader.bounds)
        read = read_lit(reader, nominal, list(range(layout.ports)), repeats)
        none = np.full(here.size, -1)
        sweeps.append(ColumnSweep(channels, none, np.zeros(here.size), nominal, read, _crossed(read, layout.top[here])))
        twin = _with_fit(twin, sweeps[-1])
    twin = _with_curvature(twin, sweeps)
    for sweep in sweeps:
        twin = _with_fit(twin, sweep)
    return RatioSweeps(twin, tuple(sweeps))


def sweep_phis(twin: Twin, reader: SettingReader, rng: np.random.Generator, points: int, repeats: int) -> RatioSweeps:
    """Sweep all φ that can be measured, column by column; arguments as for `sweep_thetas`."""
    layout, sweeps = twin.layout, []
    for column in range(int(layout.column.max()) + 1):
        pairs = [pair for pair in measurable_phis(layout) if layout.column[pair.number] == column]
        if not pairs:
            continue
        here, earlier, minus = (np.array(part) for part in zip(*pairs, strict=True))
        channels = layout.phi[here]
        nominal = _random_phis(twin, points, rng)
        nominal[:, channels] = sweep_nominals(twin, channels, points, reader.bounds, rng)
        wanted = np.full(layout.theta.size, np.pi)
        wanted[here] = wanted[earlier] = np.pi / 2
        nominal = nominal_for(twin, nominal, layout.theta, wanted, reader.bounds)
        read = read_lit(reader, nominal, list(range(layout.ports)), repeats)
        sweeps.append(
            ColumnSweep(channels, minus, np.where(minus < 0, np.pi, 0.0), nominal, read, _crossed(read, layout.top[here]))
        )
        twin = _with_fit(twin, sweeps[-1])
    return RatioSweeps(twin, tuple(sweeps))


def measurable_phis(layout: TwinLayout) -> list[MeasurablePhi]:
    """Return the φ that can be measured with one lit input: those with an earlier interferometer on the same modes."""
    found, column = [], layout.column
    for k in np.flatnonzero(~layout.alone):
        earlier = np.flatnonzero((layout.top == layout.top[k]) & (column < column[k]) & ~layout.alone)
        if earlier.size:
            between = (layout.top == layout.top[k] + 1) & (column > column[earlier[-1]]) & (column < column[k])
            minus = layout.phi[np.flatnonzero(between)]
            found.append(MeasurablePhi(int(k), int(earlier[-1]), int(minus[0]) if minus.size else -1))
    return found


def _half_turn(twin: Twin) -> float:
    """Return the difference of the two nominal phases of φ that are not swept."""
    low, high = heater_curve(twin).nominal(np.array([LOW_PHI_RAD, LOW_PHI_RAD + np.pi]))
    return float(high - low)


def _random_phis(twin: Twin, settings: int, rng: np.random.Generator) -> Array:
    """Return settings with each φ at one of two values, and everything else at 0."""
    layout = twin.layout
    nominal = np.zeros((settings, layout.channels))
    low = float(heater_curve(twin).nominal(LOW_PHI_RAD))
    nominal[:, layout.phi] = low + _half_turn(twin) * rng.integers(0, 2, (settings, layout.phi.size))
    return nominal


def _crossed(read: LitReadings, top: Channels) -> Array:
    """Return the shares that crossed the interferometers with these upper modes, shape (rows, settings)."""
    power = np.maximum(read.lit, 0.0)
    crossed = np.sqrt(power[:, top, top + 1] * power[:, top + 1, top])
    stayed = np.sqrt(power[:, top, top] * power[:, top + 1, top + 1])
    total = crossed + stayed
    return np.where(total > 0, crossed / np.where(total > 0, total, 1.0), np.nan).T


def _fitted(twin: Twin, sweep: ColumnSweep) -> ScaledFringes:
    """Fit a sweep, with the twin's phases of everything but the heaters that were swept."""
    channels, curve, sign = sweep.channels, heater_curve(twin), arm_signs(twin.layout)[sweep.channels]
    unknown = with_offsets(twin, channels, np.zeros(channels.size))
    effective = effective_phases(unknown, sweep.nominal).T
    x = sweep.nominal[:, channels].T
    other = np.where(sweep.minus[:, np.newaxis] >= 0, effective[sweep.minus], 0.0)
    own = sign[:, np.newaxis] * curve.phase(twin.parameters.kappa[channels, np.newaxis] * x)
    rest = effective[channels] - other + sweep.shift_rad[:, np.newaxis] - own
    return fit_scaled(x, rest, sign, sweep.share, curve)


def _with_fit(twin: Twin, sweep: ColumnSweep) -> Twin:
    """Return the twin with offsets and κ of the heaters of a sweep."""
    found = _fitted(twin, sweep)
    kappa = twin.parameters.kappa.copy()
    kappa[sweep.channels] = found.kappa
    twin = with_offsets(twin, sweep.channels, arm_signs(twin.layout)[sweep.channels] * found.cosines.offset_rad)
    return Twin(twin.layout, dataclasses.replace(twin.parameters, kappa=kappa))


def _with_curvature(twin: Twin, sweeps: list[ColumnSweep]) -> Twin:
    """Return the twin with the curvature that leaves the least unexplained in all sweeps."""

    def changed(curvature: float) -> Twin:
        return Twin(twin.layout, dataclasses.replace(twin.parameters, curvature=curvature))

    def unexplained(curvature: float) -> float:
        return float(sum(_fitted(changed(curvature), sweep).unexplained.sum() for sweep in sweeps))

    best: Any = minimize_scalar(unexplained, bounds=(-0.08, 0.1), method="bounded", options={"xatol": 1e-4})
    return changed(float(best.x))
