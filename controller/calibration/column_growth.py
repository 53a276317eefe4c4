"""Growth of a twin, column by column from the inputs: φ of each column, and a fit of everything up to it.

With all other columns in bar and one at θ = π/2, the difference of the powers behind an interferometer is
2 Re(e^{iφ} u l*) with the fields u and l that enter it, which the twin predicts. This gives φ. The twin is then fitted
to the settings that scanned this column and earlier ones, with unknown φ behind it. Errors of a column would otherwise
add up: light passes many of them in bar.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from photonloop.controller.calibration.column_scans import HeaterCurve, random_phases
from photonloop.controller.calibration.fit_problem import FitProblem
from photonloop.controller.calibration.heater_phases import heater_phases
from photonloop.controller.calibration.input_fields import input_fields
from photonloop.controller.calibration.mesh_fields import mesh_elements, propagated
from photonloop.controller.calibration.scan_reader import ScanReader
from photonloop.controller.calibration.twin import Twin
from photonloop.controller.calibration.twin_descent import descended
from photonloop.controller.calibration.twin_misfit import ReadingNoise
from photonloop.controller.calibration.twin_parameters import TwinPrior

Array = NDArray[np.float64]


HEAT_KINDS = ("crosstalk_share", "crosstalk_exponent", "ground_ratio")
"""Parameters that stay fixed until half of the columns are known. Light that leaks in later columns distorts them."""


@dataclass(frozen=True)
class GrowthOptions:
    """Numbers of settings and steps of `grown`.

    Parameters
    ----------
    settings
        Settings of each column's φ.
    steps, batch
        Steps of the fit after each column, and settings of one step.
    rate_rad
        Step of an offset at the start of such a fit [rad].
    """

    settings: int = 6
    steps: int = 100
    batch: int = 4
    rate_rad: float = 0.01


def grown(
    start: Twin,
    bar: Array,
    prior: TwinPrior,
    noise: ReadingNoise,
    read: ScanReader,
    curve: HeaterCurve,
    rng: np.random.Generator,
    options: GrowthOptions,
    scanned: Callable[[int], None] = lambda _column: None,
) -> Twin:
    """Return the twin with the offsets of all φ.

    Parameters
    ----------
    start
        The twin with the offsets of all θ.
    bar
        Nominal heater phases of all θ for bar, shape (interferometers,).
    prior, noise
        For the fits.
    read
        Reads settings, and has those of the θ.
    curve
        Curve of the heaters.
    rng
        Draws phases and batches.
    options
        Numbers of settings and steps.
    scanned
        Called with the number of each column when it is done.
    """
    twin, layout = start, start.layout
    for column in range(int(layout.column.max()) + 1):
        here = np.flatnonzero(layout.column == column)
        settings = _phi_settings(twin, here, bar, curve, rng, options.settings)
        readings = read(settings, column, np.concatenate((layout.theta, layout.phi[here])))
        twin = _with_phi(twin, here, column, read.phases[-len(settings) :], readings, read.inputs)
        order = np.argsort(read.column, kind="stable")
        order = order[read.column[order] <= column]
        newest = int(np.sum(read.column == column))
        problem = FitProblem(_without_later(twin, prior, column), read.observations(order), noise)
        twin = descended(twin, problem, rng, options.steps, options.rate_rad, options.batch, newest)
        scanned(column)
    return twin


def _without_later(twin: Twin, prior: TwinPrior, column: int) -> TwinPrior:
    """Return the prior with the offsets of all later columns fixed."""
    layout, later = twin.layout, twin.layout.column > column
    sigma = prior.sigma.offset_rad.copy()
    sigma[layout.phi[later]] = 0.0
    sigma[layout.theta[later]] = 0.0
    fixed = dict.fromkeys(HEAT_KINDS, 0.0) if 2 * column < layout.column.max() else {}
    return TwinPrior(prior.mean, dataclasses.replace(prior.sigma, offset_rad=sigma, **fixed))


def _phi_settings(
    twin: Twin, here: NDArray[np.int64], bar: Array, curve: HeaterCurve, rng: np.random.Generator, count: int
) -> Array:
    """Return settings with three values of φ of one column in turn, all other φ at random, and all other θ in bar."""
    layout = twin.layout
    settings = np.array([random_phases(layout, curve, rng) for _ in range(count)])
    settings[:, layout.theta] = bar
    theta, own = layout.theta[here], twin.parameters
    settings[:, theta] = dataclasses.replace(curve, kappa=own.kappa[theta]).target(np.pi / 2, own.offset_rad[theta])
    settings[:, layout.phi[here]] = curve.nominal(0.5 + 2 * np.pi / 3 * (np.arange(count) % 3))[:, np.newaxis]
    return settings


def _with_phi(twin: Twin, here: NDArray[np.int64], column: int, settings: Array, readings: Array, inputs: Array) -> Twin:
    """Return the twin with the offsets of one column's φ, by least squares on differences of neighbouring ports."""
    layout, own, offset_rad = twin.layout, twin.parameters, twin.parameters.offset_rad.copy()
    here = here[~layout.alone[here]]  # the phases behind attenuators count as those of the next column
    offset_rad[layout.phi[here]] = 0.0
    own = dataclasses.replace(own, offset_rad=offset_rad)
    effective = heater_phases(layout, own, twin.crosstalk, settings).effective
    fields = input_fields(own, inputs).fields
    fields = propagated(layout, mesh_elements(layout, own, effective), fields, keep=False, stop=column).out
    top = layout.top[here]
    product = fields[:, top] * fields[:, top + 1].conj() * np.exp(1j * effective[:, layout.phi[here], np.newaxis])
    difference = (readings[:, :, top] - readings[:, :, top + 1]).transpose(0, 2, 1)
    for number, channel in enumerate(layout.phi[here]):
        basis = np.stack((product[:, number].real.ravel(), product[:, number].imag.ravel()), axis=1)
        cosine, sine = np.linalg.lstsq(basis, difference[:, number].ravel(), rcond=None)[0]
        offset_rad[channel] = np.arctan2(-sine, cosine)
    return Twin(layout, dataclasses.replace(own, offset_rad=offset_rad))
