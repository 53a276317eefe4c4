"""Checks of raw data: features must be finite real numbers, labels must be classes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from photonloop.protocols.config import ConfigError

CHUNK = 4096
"""Samples processed at a time, to bound memory: 60 000 images of 28 × 28 pixels in single precision take 190 MB."""

Label = int | str
Array = NDArray[Any]


class DataError(ConfigError):
    """The data cannot be used for training. The message names the field, the value and the bound."""


@dataclass(frozen=True)
class RawData:
    """Arrays as a source returns them: `x` of shape (samples, …), `y` of shape (samples,)."""

    x_train: Array
    y_train: Array
    x_test: Array
    y_test: Array


def check_features(raw: RawData) -> None:
    """Check that features are finite real numbers, and that training and test set have the same ones.

    Raises
    ------
    DataError
        Another type, an empty set, NaN or infinity, or samples of different shapes in the two sets.
    """
    for name, x in (("x_train", raw.x_train), ("x_test", raw.x_test)):
        if x.dtype.kind not in "fiub":
            raise DataError(f"{name} has type {x.dtype}, expected real numbers")
        if x.ndim < 2 or x[:1].size == 0:
            raise DataError(f"{name} has shape {x.shape}, expected (samples, features) with at least one of each")
        _check_finite(name, x)
    if raw.x_train.shape[1:] != raw.x_test.shape[1:]:
        raise DataError(
            f"x_train has samples of shape {raw.x_train.shape[1:]}, but x_test of shape {raw.x_test.shape[1:]}: "
            "training and test set need the same features"
        )


def _check_finite(name: str, x: Array) -> None:
    if x.dtype.kind != "f":
        return
    for start in range(0, len(x), CHUNK):
        chunk = x[start : start + CHUNK].reshape(len(x[start : start + CHUNK]), -1)
        # Also true for NaN, and for values beyond single precision, which `Dataset` cannot represent.
        bad = ~(np.abs(chunk) <= np.finfo(np.float32).max)
        if bad.any():
            row, column = (int(i) for i in np.argwhere(bad)[0])
            raise DataError(f"{name} contains {chunk[row, column]:g} in row {start + row}, expected finite numbers")


def as_labels(y: Array, name: str) -> Array:
    """Return labels as int64 or str, shape (samples,).

    Raises
    ------
    DataError
        `y` is not one-dimensional, or contains something other than integers, whole floats or text.
    """
    if y.ndim != 1:
        raise DataError(f"{name} has shape {y.shape}, expected one class label per sample, (samples,)")
    if y.dtype.kind == "U":
        return y
    if y.dtype.kind not in "iubf":
        raise DataError(f"{name} has type {y.dtype}, expected class labels: integers or text")
    if y.dtype.kind == "f":
        whole = np.isfinite(y) & (np.abs(y) < 2**53) & (y == np.round(y))
        if not whole.all():
            row = int(np.argmin(whole))
            raise DataError(f"{name} contains {y[row]:g} in row {row}, expected class labels (whole numbers or text)")
    return y.astype(np.int64)


def class_numbers(
    y_train: Array, y_test: Array, train_limit: int | None
) -> tuple[NDArray[np.int64], NDArray[np.int64], tuple[Label, ...]]:
    """Return the labels of training and test set as class numbers, and the label of each class number.

    Parameters
    ----------
    y_train, y_test
        Labels as returned by `as_labels`.
    train_limit
        Limit that was applied to the training set, for the error message.

    Raises
    ------
    DataError
        The two sets have different types, the test set has a label that the training set lacks, or
        there is only one class.
    """
    if y_train.dtype.kind != y_test.dtype.kind:
        raise DataError(f"y_train has type {y_train.dtype}, but y_test has type {y_test.dtype}: both sets need the same labels")
    labels, numbers_train = np.unique(y_train, return_inverse=True)
    missing = np.setdiff1d(y_test, labels)
    if missing.size:
        shown = ", ".join(str(label) for label in missing[:8]) + (", …" if missing.size > 8 else "")
        after = f" limited to {train_limit} samples" if train_limit is not None else ""
        raise DataError(f"labels missing from the training set{after}: y_test contains {shown}, y_train does not")
    if len(labels) < 2:
        raise DataError(f"y_train contains only class {labels[0]}, but at least 2 classes are needed")
    numbers_test = np.searchsorted(labels, y_test)
    return numbers_train.astype(np.int64), numbers_test.astype(np.int64), tuple(label.item() for label in labels)
