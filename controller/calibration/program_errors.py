"""Errors of a programmed matrix as the calibration predicts them, with the uncertainty of the calibration."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from photonloop.controller.calibration.calibrated_device import StageCalibration
from photonloop.controller.calibration.matrix_merit import device_matrix, input_phases
from photonloop.controller.calibration.twin import Twin
from photonloop.controller.calibration.twin_parameters import pack, unpack
from photonloop.controller.decompose.fidelity import fidelity, power_errors, total_variation_distance
from photonloop.controller.learning.variables import Phases

Complex = NDArray[np.complex128]


@dataclass(frozen=True)
class Predicted:
    """A predicted number and its standard deviation; NaN if the calibration has no uncertainties."""

    value: float
    sigma: float


@dataclass(frozen=True)
class MatrixErrors:
    """Predicted errors of a matrix, as means over draws from the posterior of the calibration.

    Parameters
    ----------
    tvd
        Total variation distance of the output distributions, mean over the inputs.
    power_rms, power_largest
        Errors of the powers at the outputs relative to the power at one input, after one common factor.
    fidelity
        Fidelity with the target (`decompose.fidelity.fidelity`), of the model: power detectors measure no phases.
    """

    tvd: Predicted
    power_rms: Predicted
    power_largest: Predicted
    fidelity: Predicted


def expected_errors(found: StageCalibration, nominal: Phases, target: Complex) -> MatrixErrors:
    """Return the predicted errors at nominal heater phases (channels,) of a calibrated stage."""
    center = pack(found.parameters)
    twins = [Twin(found.layout, unpack(found.layout, center + draw)) for draw in found.draws] or [found.twin]
    taps = found.layout.taps
    powers, rows = np.abs(target[:taps]) ** 2, []
    for twin in twins:
        matrix = device_matrix(found, twin, nominal)
        here = np.abs(matrix[:taps]) ** 2
        errors = power_errors(powers, here)
        rows.append(
            (
                total_variation_distance(powers, here),
                errors.rms,
                errors.largest,
                fidelity(target[:taps], matrix[:taps], input_phases(found)),
            )
        )
    values = np.array(rows)
    sigmas = values.std(axis=0, ddof=1) if len(values) > 1 else np.full(4, np.nan)
    return MatrixErrors(
        *(Predicted(float(value), float(sigma)) for value, sigma in zip(values.mean(axis=0), sigmas, strict=True))
    )
