"""Calibrations for tests, without a device: the true parameters of a virtual chip, errors, and readings of its twin."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np

from photonloop.controller.calibration.calibrated_device import Calibration, HeldOut, RingCalibration, StageCalibration, Trouble
from photonloop.controller.calibration.evidence import CalibrationEvidence, Fringe, gather_evidence
from photonloop.controller.calibration.ring_layout import ring_layout
from photonloop.controller.calibration.ring_values import ring_prior, ring_values, ring_vector
from photonloop.controller.calibration.twin import Twin, predict
from photonloop.controller.calibration.twin_layout import twin_layout
from photonloop.controller.calibration.twin_misfit import Observations, ReadingNoise, relative_misfit
from photonloop.controller.calibration.twin_parameters import TwinParameters, nominal_prior, pack, unpack
from support.chips import chip_of
from support.twins import true_parameters

PRECISION = 0.02
"""Standard deviations of the parameters in a calibration of `calibration_of`, as a share of the prior's."""


def observed(twin: Twin, settings: int, noise: ReadingNoise, rng: np.random.Generator, samples: int = 0) -> Observations:
    """Return readings of a twin at random settings, with noise: every input alone, or the first `samples` inputs."""
    phases = rng.uniform(0.2, 0.2 + 2 * np.pi, (settings, twin.layout.channels))
    inputs = np.eye(twin.layout.ports)[: samples or None]
    readings = predict(twin, phases, inputs)
    sigma = np.hypot(noise.dark, noise.relative * readings)
    return Observations(phases, inputs, readings + sigma * rng.standard_normal(readings.shape))


def held_out_of(twin: Twin, data: Observations, noise: ReadingNoise) -> HeldOut:
    """Return the test of a twin on settings in which one input is lit at a time."""
    predicted = predict(twin, data.phases, data.inputs)
    z = (predicted - data.readings) / np.hypot(noise.dark, noise.relative * data.readings)
    dark = twin.parameters.detector_dark
    shares = [np.maximum(readings - dark, 0) for readings in (data.readings, predicted)]
    p, q = (part / part.sum(axis=2, keepdims=True) for part in shares)
    tvd = 0.5 * np.abs(p - q).sum(axis=2).mean(axis=1)
    return HeldOut(np.sqrt(np.mean(z**2, axis=(1, 2))), relative_misfit(data.readings, predicted, dark), tvd)


def fringes_of(twin: Twin, channels: range, noise: ReadingNoise, rng: np.random.Generator) -> tuple[Fringe, ...]:
    """Return sweeps of single heaters, each at the input and output with the largest contrast."""
    found = []
    for channel in channels:
        phases = np.tile(np.full(twin.layout.channels, 1.0), (24, 1))
        phases[:, channel] = np.linspace(0.1, 2.2 * np.pi, 24)
        readings = predict(twin, phases, np.eye(twin.layout.ports))
        best = np.unravel_index(np.argmax(np.ptp(readings, axis=0)), readings.shape[1:])
        fitted = readings[:, best[0], best[1]]
        sigma = np.hypot(noise.dark, noise.relative * fitted)
        found.append(Fringe(channel, phases[:, channel], fitted + sigma * rng.standard_normal(fitted.size), fitted))
    return tuple(found)


def calibration_of(
    ports: int = 4,
    seed: int = 0,
    stages: int = 1,
    settings: int = 20,
    held_out: int = 8,
    error: float = 0.0,
    samples: int = 0,
    changes: dict[str, Any] | None = None,
    troubles: tuple[Trouble, ...] = (),
    swept: int = 0,
) -> tuple[Calibration, tuple[CalibrationEvidence, ...]]:
    """Return a calibration of a virtual chip of preset soi, and its evidence.

    Parameters
    ----------
    ports, seed, stages
        The chip. All stages have the parameters of the first one.
    settings, held_out
        Numbers of settings.
    error
        Errors of the fitted parameters in standard deviations; 0: the true parameters.
    samples
        Number of inputs that are lit, one at a time; 0: all.
    changes
        True parameters that are different, by name.
    troubles
        Defects to be listed.
    swept
        Number of heaters with a fringe.
    """
    chip, rng = chip_of("soi", {}, ports=ports, stages=stages, seed=seed), np.random.default_rng(seed)
    description, noise = chip.describe(), ReadingNoise(dark=2e-9, relative=1e-3)
    found, evidence = [], []
    for stage in description.stages:
        layout = twin_layout(description, stage)
        true = dataclasses.replace(_soi_heat(true_parameters(chip, layout)), **(changes or {}))
        sigma = PRECISION * pack(nominal_prior(layout, true.level).sigma)
        draws = rng.standard_normal((40, sigma.size)) * sigma
        parameters = unpack(layout, pack(true) + error * rng.standard_normal(sigma.size) * sigma)
        truth, twin = Twin(layout, true), Twin(layout, parameters)
        tested = observed(truth, held_out, noise, rng, samples)
        calibrated = StageCalibration(
            stage=stage,
            method="diagonal" if swept else "columns",
            layout=layout,
            parameters=parameters,
            sigma=unpack(layout, sigma),
            draws=draws,
            noise=noise,
            held_out=held_out_of(twin, tested, noise),
            settings=settings + held_out + 24 * swept,
            steady_inputs=not swept,
            troubles=troubles,
        )
        fringes = fringes_of(twin, range(swept), noise, rng)
        found.append(calibrated)
        evidence.append(gather_evidence(calibrated, observed(truth, settings, noise, rng, samples), tested, fringes))
    conditions: dict[str, str | float] = {"temperature_c": 25.0123456}
    return Calibration(description, "2026-11-25T16:00:00+00:00", 42.5, conditions, tuple(found)), tuple(evidence)


def _soi_heat(true: TwinParameters) -> TwinParameters:
    """Return parameters with crosstalk and a shared ground of the size of preset soi."""
    return dataclasses.replace(true, crosstalk_share=0.004, crosstalk_exponent=1.0, ground_ratio=2e-4)


def bank_calibration(rows: int = 4, seed: int = 0) -> Calibration:
    """Return a calibration of a square weight bank of preset soi with random values from the prior, without a fit."""
    chip = chip_of("soi", {"mesh": {"topology": "weight_bank"}}, ports=rows, stages=1, seed=seed)
    description, rng = chip.describe(), np.random.default_rng(seed)
    layout = ring_layout(description, description.stages[0])
    prior = ring_prior(layout, 1e-4)
    sigma = ring_vector(prior.sigma)
    values = ring_values(layout, ring_vector(prior.mean) + 0.3 * sigma * rng.uniform(0, 1, sigma.size))
    influence_rad = 0.01 * rng.standard_normal((layout.channels, layout.channels))
    bank = RingCalibration(
        stage=description.stages[0],
        layout=layout,
        values=values,
        sigma=ring_values(layout, PRECISION * sigma),
        influence_rad=influence_rad,
        influence_sigma=np.full_like(influence_rad, 0.001),
        only_own=False,
        noise=ReadingNoise(dark=2e-9),
        held_out=HeldOut(rng.uniform(0.9, 1.1, 10), np.full(10, 0.004), np.full(10, np.nan)),
        settings=321,
    )
    return Calibration(description, "2026-11-25T16:00:00+00:00", 42.5, {}, (), banks=(bank,))
