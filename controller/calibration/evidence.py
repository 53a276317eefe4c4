"""Evidence of a calibration, for its report: random settings and fringes, measured and predicted.

Both methods gather it. It is not part of `calibration.json`: recorded readings and the calibration give it again.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from photonloop.controller.calibration.calibrated_device import StageCalibration
from photonloop.controller.calibration.fit_problem import predicted_all
from photonloop.controller.calibration.twin_misfit import Observations

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Fringe:
    """Readings during a sweep of one heater.

    Parameters
    ----------
    channel
        The heater, as channel within the stage.
    phases
        Its nominal heater phases [rad], shape (points,).
    readings
        What was read, or a ratio of readings, shape (points,). NaN: not used.
    fitted
        The fitted curve at the same points, shape (points,).
    unit
        Unit of both; "" for ratios, None for that of the readings.
    """

    channel: int
    phases: Array
    readings: Array
    fitted: Array
    unit: str | None = None


@dataclass(frozen=True)
class CandidateTerm:
    """An effect that the twin lacks, and the held-out residual if it is added alone.

    Parameters
    ----------
    name
        The effect, such as "heat in bare waveguides".
    held_out_residual
        Median over the held-out settings, relative to the noise (`HeldOut.residual`).
    """

    name: str
    held_out_residual: float


@dataclass(frozen=True)
class CalibrationEvidence:
    """Settings of one stage that a fit used or was tested with.

    Parameters
    ----------
    stage
        Name of the stage.
    settings
        Nominal heater phases [rad], shape (settings, channels).
    measured, predicted
        Readings, measured and of the fitted twin, shape (settings, samples, taps). NaN: not used.
    held_out
        True for settings that were not fitted, shape (settings,).
    fringes
        Sweeps of single heaters; empty if the method makes none.
    candidates
        Effects that were tried because the held-out residual exceeds the noise.
    """

    stage: str
    settings: Array
    measured: Array
    predicted: Array
    held_out: NDArray[np.bool_]
    fringes: tuple[Fringe, ...] = ()
    candidates: tuple[CandidateTerm, ...] = ()


def gather_evidence(
    found: StageCalibration,
    fitted: Observations,
    held_out: Observations | None = None,
    fringes: tuple[Fringe, ...] = (),
    candidates: tuple[CandidateTerm, ...] = (),
) -> CalibrationEvidence:
    """Return the evidence for a calibrated stage: observations and what its twin predicts for them.

    Parameters
    ----------
    found
        The calibrated stage.
    fitted, held_out
        Settings that were fitted, and settings that were not. Their numbers of samples may differ.
    fringes, candidates
        As in `CalibrationEvidence`.
    """
    parts = [fitted] if held_out is None else [fitted, held_out]
    samples = max(part.readings.shape[1] for part in parts)
    return CalibrationEvidence(
        stage=found.stage.name,
        settings=np.concatenate([part.phases for part in parts]),
        measured=np.concatenate([_padded(part.readings, samples) for part in parts]),
        predicted=np.concatenate([_padded(predicted_all(found.twin, part), samples) for part in parts]),
        held_out=np.repeat([False, True][: len(parts)], [len(part.phases) for part in parts]),
        fringes=fringes,
        candidates=candidates,
    )


def _padded(readings: Array, samples: int) -> Array:
    """Return readings, shape (settings, any number, taps), with NaN for further samples."""
    missing = samples - readings.shape[1]
    return np.pad(readings, ((0, 0), (0, missing), (0, 0)), constant_values=np.nan)
