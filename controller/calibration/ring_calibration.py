"""Calibration of a weight bank: from an unknown bank to a fitted model of its weights.

1. Sweeps of all rings, twice, one wavelength lit at a time (`ring_scans`): where each ring is in resonance.
2. The ratio of the waveguides between rings to their circumference, from the first rows alone: light that several rings
   drop interferes with a phase that depends on it, and the fit finds it only from nearby.
3. Random settings, and a fit of all values (`ring_fit.fit_values`).
4. The influence of every heater on every ring, row by row (`ring_fit.fit_row`), and a fit of all values again.

Some random settings are not fitted. They are the test.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from photonloop.controller.calibration.calibrated_device import HeldOut, RingCalibration
from photonloop.controller.calibration.column_scans import HeaterCurve
from photonloop.controller.calibration.heater_phases import CrosstalkModel
from photonloop.controller.calibration.ring_fit import RingFit, fit_row, fit_values, reading_sigma
from photonloop.controller.calibration.ring_layout import RingLayout, first_rows, ring_layout
from photonloop.controller.calibration.ring_readings import RingModel, predict_readings
from photonloop.controller.calibration.ring_scans import RingScan, one_at_a_time, scan_rings
from photonloop.controller.calibration.ring_values import RingPrior, ring_prior, ring_values
from photonloop.controller.calibration.setting_reader import SettingReader
from photonloop.controller.calibration.twin_misfit import Observations, ReadingNoise
from photonloop.controller.learning.variables import Bounds, project

Array = NDArray[np.float64]

TOTAL_SHARE = 0.999
"""Share of the highest total power that random settings use, because of rounding."""


RATIO_STEP = 0.5
"""Distance of the ratios of waveguides that are tried."""

RATIOS, DESCRIBED = 3, 0.03
"""How many ratios are fitted to all readings, until the error of the readings relative to their rms is small."""


@dataclass(frozen=True)
class RingOptions:
    """Options of `calibrate_rings`.

    Parameters
    ----------
    points
        Settings of each sweep: at least 1.5 times the finesse.
    random_settings
        Random settings that are fitted; None: 40 and two per ring.
    held_out
        Random settings that are not fitted.
    all_lit
        Samples of random settings with all inputs lit at random amplitudes.
    rounds
        How often influences and values are fitted in turn.
    ratio_rows
        Rows from which the ratio of waveguides is found.
    """

    points: int = 56
    random_settings: int | None = None
    held_out: int = 20
    all_lit: int = 4
    rounds: int = 2
    ratio_rows: int = 2

    def fitted(self, channels: int) -> int:
        """Return the number of random settings that are fitted."""
        return 40 + 2 * channels if self.random_settings is None else self.random_settings


def calibrate_rings(
    reader: SettingReader,
    noise: ReadingNoise,
    rng: np.random.Generator,
    options: RingOptions | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> RingCalibration:
    """Calibrate a weight bank, by `evaluate` alone.

    Parameters
    ----------
    reader
        Reads settings of the bank.
    noise
        Noise of the readings.
    rng
        Draws settings.
    options
        Numbers of settings; None: the defaults.
    progress
        Called after each step with the number of steps done, and of all steps.

    Raises
    ------
    ValueError
        The stage is not a weight bank, or its description contradicts itself.

    Notes
    -----
    Rings must have a finesse of at most about 50 for the default number of points, and the wavelengths must be about
    equally spaced over one free spectral range.
    """
    options, report = options or RingOptions(), progress or (lambda _done, _total: None)
    before, steps = reader.settings, 4 + options.rounds
    layout, m = ring_layout(reader.description, reader.stage), reader.stage.ports
    curve = _nominal_curve(layout)
    first = len(reader.done)
    scan = scan_rings(layout, lambda x, lit: reader.read(x, lit).readings, curve, reader.bounds, options.points)
    report(1, steps)
    single = one_at_a_time(m)
    swept = [part.observations() for part in reader.done[first + m :]]
    prior = _prior_from(layout, scan)
    ratios = _ratios(layout, scan, _joined(swept), noise, min(options.ratio_rows, layout.rows))
    report(2, steps)
    count = options.fitted(layout.channels)
    bounds = replace(reader.bounds, total=reader.bounds.total * TOTAL_SHARE)
    settings = np.array([_random(bounds, rng) for _ in range(count + options.held_out)])
    inputs = np.concatenate((single, rng.random((options.all_lit, m))))
    read = reader.read(settings, inputs).observations()
    test = read.part(slice(count, None))
    report(3, steps)
    some = [_padded(part.part(slice(number % 2, None, 2)), inputs) for number, part in enumerate(swept)]
    data = _joined([*some, read.part(slice(0, count))])
    best = _best_fit(_start(layout, scan, prior), prior, data, noise, ratios)
    prior, fit = best.prior, best.fit
    report(4, steps)
    influence_sigma = np.zeros((layout.channels, layout.channels))
    for number in range(options.rounds):
        fit, influence_sigma = _refined(fit.model, prior, data, noise)
        report(5 + number, steps)
    return RingCalibration(
        stage=reader.stage,
        layout=layout,
        values=fit.model.values,
        sigma=ring_values(layout, fit.sigma),
        influence_rad=fit.model.influence_rad,
        influence_sigma=influence_sigma,
        only_own=fit.model.only_own,
        noise=noise,
        held_out=held_out_readings(fit.model, test, noise),
        settings=reader.settings - before,
    )


def held_out_readings(model: RingModel, test: Observations, noise: ReadingNoise) -> HeldOut:
    """Return how well a model predicts readings of a bank."""
    difference = predict_readings(model, test.phases, test.inputs) - test.readings
    sigma = np.hypot(noise.dark, noise.relative * test.readings)
    residual = np.sqrt(np.nanmean((difference / sigma) ** 2, axis=(1, 2)))
    misfit = np.sqrt(np.nanmean(difference**2, axis=(1, 2)) / np.nanmean(test.readings**2))
    return HeldOut(residual, misfit, np.full(len(residual), np.nan))


def _nominal_curve(layout: RingLayout) -> HeaterCurve:
    mean = ring_prior(layout, 1.0).mean
    return HeaterCurve(mean.curvature, mean.self_heating)


def _random(bounds: Bounds, rng: np.random.Generator) -> Array:
    return project(bounds.low + np.minimum(2.2 * np.pi, bounds.high - bounds.low) * rng.random(bounds.low.size), bounds)


def _joined(parts: list[Observations]) -> Observations:
    """Return the observations of several parts, which have the same inputs."""
    phases, readings = (np.concatenate([getattr(part, name) for part in parts]) for name in ("phases", "readings"))
    return Observations(phases, parts[0].inputs, readings)


def _padded(part: Observations, inputs: Array) -> Observations:
    """Return observations with further inputs, which were not read."""
    missing = np.full((len(part.phases), len(inputs) - len(part.inputs), part.readings.shape[2]), np.nan)
    return Observations(part.phases, inputs, np.concatenate((part.readings, missing), axis=1))


def _prior_from(layout: RingLayout, scan: RingScan) -> RingPrior:
    prior = ring_prior(layout, scan.level)
    return replace(prior, mean=replace(prior.mean, wavelength_rad=scan.wavelength_rad, row_dark=scan.dark))


def _start(layout: RingLayout, scan: RingScan, prior: RingPrior) -> RingModel:
    """Return a model with the values of the scan, less the heat of other rings during the sweeps."""
    mean, ring = prior.mean, np.arange(layout.channels) % layout.wavelengths
    shares = mean.crosstalk_share * CrosstalkModel(layout.heaters, mean.crosstalk_share, mean.crosstalk_exponent).unit.toarray()
    together = ring[:, np.newaxis] == ring
    values = replace(
        mean,
        offset_rad=scan.offset_rad - (shares * ~together) @ scan.parked,
        kappa=scan.kappa / (1 + (shares * together).sum(axis=1)),
        # F = π√b/(1 - b) with b = (1 - share) a, and little loss
        coupler_share=np.pi / scan.finesse,
    )
    return RingModel(layout, values, np.zeros((layout.channels, layout.channels)))


def _ratios(layout: RingLayout, scan: RingScan, swept: Observations, noise: ReadingNoise, rows: int) -> list[float]:
    """Return ratios of waveguides, those first that describe the sweeps of the first rows best.

    Equally spaced wavelengths do not distinguish ratios that differ by M.
    """
    some = first_rows(layout, rows)
    count = some.channels
    own = replace(
        scan, offset_rad=scan.offset_rad[:count], kappa=scan.kappa[:count], dark=scan.dark[:rows], parked=scan.parked[:count]
    )
    data = Observations(swept.phases[::3, :count], swept.inputs, swept.readings[::3, :, :rows])
    prior = _prior_from(some, own)
    start, fits = _start(some, own, prior), []
    sigma = reading_sigma(start, data, noise)
    for ratio in np.arange(0.0, layout.wavelengths, RATIO_STEP):
        near = replace(prior, mean=replace(prior.mean, bus_ratio=ratio))
        fit = fit_values(_with_ratio(start, ratio), near, data, sigma, max_steps=12)
        fits.append((_relative_error(fit.model, data), fit.model.values.bus_ratio))
    return [ratio for _, ratio in sorted(fits)]


def _relative_error(model: RingModel, data: Observations) -> float:
    """Return the rms error of predicted readings relative to the rms of the readings."""
    difference = predict_readings(model, data.phases, data.inputs) - data.readings
    return float(np.sqrt(np.nanmean(difference**2) / np.nanmean(data.readings**2)))


def _best_fit(start: RingModel, prior: RingPrior, data: Observations, noise: ReadingNoise, ratios: list[float]) -> _Best:
    """Return prior and fit for the first ratio with which the model describes the bank, or else the best ones."""
    best = None
    for ratio in ratios[:RATIOS]:
        near = replace(prior, mean=replace(prior.mean, bus_ratio=ratio))
        model = _with_ratio(start, ratio)
        fit = fit_values(model, near, data, reading_sigma(model, data, noise))
        found = _Best(_relative_error(fit.model, data), near, fit)
        best = found if best is None or found.error < best.error else best
        if best.error < DESCRIBED:
            break
    assert best is not None
    return best


class _Best(NamedTuple):
    error: float
    prior: RingPrior
    fit: RingFit


def _with_ratio(model: RingModel, ratio: float) -> RingModel:
    return replace(model, values=replace(model.values, bus_ratio=ratio))


def _refined(model: RingModel, prior: RingPrior, data: Observations, noise: ReadingNoise) -> tuple[RingFit, Array]:
    """Return the fit with the influences of all heaters, and the standard deviations of these."""
    sigma, found = reading_sigma(model, data, noise), []
    for row in range(model.layout.rows):
        fit = fit_row(model, row, data, sigma)
        model = fit.model
        found.append(fit.sigma)
    return fit_values(model, prior, data, reading_sigma(model, data, noise)), np.concatenate(found)
