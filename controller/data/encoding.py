"""Encoding of features as field amplitudes at the input ports.

    feature 0 ──▶ [0, 1] ──▶ port 0
       ⋮                        ⋮
    feature F−1 ─▶ [0, 1] ──▶ port F−1
             reference ─────▶ port F (only with a reference)
                     0 ─────▶ further ports (no light)

The range of the features is taken from the training set only, so that the test set has no influence on training.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field

from photonloop.controller.data.data_checks import CHUNK, DataError

Scale = Literal["feature", "global", "image"]


class EncodingSpec(BaseModel):
    """The `[encoding]` table of an experiment file."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    reference: Annotated[float, Field(ge=0, le=1)] = 0.0
    """Amplitude of constant light on the port after the last feature; 0: none. Rules compare the direction of readings
    only, so without it a network cannot distinguish two samples that differ only by a factor."""
    scale: Scale = "feature"
    """feature: range of each feature · global: range of all features together, which keeps their proportions · image:
    each sample is divided by its own maximum, as FFzero does with pixels."""


@dataclass(frozen=True)
class Encoding:
    """Scale and ranges, fitted to the training set.

    Parameters
    ----------
    scale
        As in `EncodingSpec`.
    reference
        Amplitude of the constant light on the port after the features; 0: none.
    low, high
        Range of each feature that is mapped to [0, 1], float64, shape (features,). With scale "image" low is 0 and high
        is infinite, because each sample has its own maximum.
    """

    scale: Scale
    reference: float
    low: NDArray[np.float64]
    high: NDArray[np.float64]


@dataclass(frozen=True)
class EncodedInputs:
    """Field amplitudes for a device.

    Parameters
    ----------
    amplitudes
        float32, in [0, 1], shape (samples, ports).
    clipped
        Number of values outside the training range, which were limited to it. Always 0 for the training set; callers
        should warn if it is not 0.
    """

    amplitudes: NDArray[np.float32]
    clipped: int


def fit_encoding(x_train: NDArray[np.float32], spec: EncodingSpec) -> Encoding:
    """Return the encoding fitted to the training set, shape (samples, features).

    Raises
    ------
    DataError
        There are NaN or infinite values, or negative values with scale "image".
    """
    _check(x_train, "x_train")
    features = x_train.shape[1]
    if spec.scale == "image":
        if (least := float(x_train.min())) < 0:
            raise DataError(
                f"x_train contains {least:g}, but encoding.scale 'image' divides by the largest value and needs values ≥ 0"
            )
        return Encoding(spec.scale, spec.reference, np.zeros(features), np.full(features, np.inf))
    axis = 0 if spec.scale == "feature" else None
    low = np.broadcast_to(x_train.min(axis=axis), features).astype(np.float64)
    high = np.broadcast_to(x_train.max(axis=axis), features).astype(np.float64)
    return Encoding(spec.scale, spec.reference, low, high)


def encode(x: NDArray[np.float32], encoding: Encoding, ports: int) -> EncodedInputs:
    """Return amplitudes for `ports` input ports: the features, then the reference light if there is one, then 0.

    A constant feature and an all-zero image give 0. Values outside the training range are limited and counted.

    Raises
    ------
    DataError
        There are more features than ports, another number of features than in `encoding`, or NaN or infinite values.
    """
    _check(x, "x")
    features = len(encoding.low)
    if x.shape[1] != features:
        raise DataError(f"the data has {x.shape[1]} features, but the encoding was made for {features}")
    needed = features + (encoding.reference > 0)
    if needed > ports:
        needs = f"{features} features" + (" and encoding.reference takes a port" if needed > features else "")
        raise DataError(
            f"the data has {needs}, but the device has {ports} input ports: "
            "use fewer features (for images: data.image and data.size) or a larger device"
        )
    amplitudes = np.zeros((len(x), ports), dtype=np.float32)
    clipped = 0
    for start in range(0, len(x), CHUNK):
        # In double precision the difference of two single-precision numbers cannot overflow.
        values = x[start : start + CHUNK].astype(np.float64)
        clipped += int(np.count_nonzero((values < encoding.low) | (values > encoding.high)))
        high = values.max(axis=1, keepdims=True) if encoding.scale == "image" else encoding.high
        span = high - encoding.low
        limited = np.clip(values, encoding.low, np.maximum(high, encoding.low)) - encoding.low
        scaled = np.divide(limited, span, out=np.zeros_like(values), where=span > 0)
        amplitudes[start : start + CHUNK, :features] = scaled
    if encoding.reference > 0:
        amplitudes[:, features] = encoding.reference
    return EncodedInputs(amplitudes, clipped)


def _check(x: NDArray[np.float32], name: str) -> None:
    if x.ndim != 2 or x.size == 0:
        raise DataError(f"{name} has shape {x.shape}, expected (samples, features) with at least one of each")
    if not np.isfinite(x).all():
        row = int(np.argwhere(~np.isfinite(x))[0][0])
        raise DataError(f"{name} contains NaN or infinity in row {row}, expected finite numbers")
