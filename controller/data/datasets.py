"""Labelled data sets: features and class numbers, split into a training set and a test set.

    source ──▶ split ──▶ check ──▶ limit ──▶ class numbers ──▶ crop or pool ──▶ Dataset

Features are not scaled here. The scale is fitted to the training set in `photonloop.controller.data.encoding`.
"""

from __future__ import annotations

import difflib
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Self

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, model_validator

from photonloop.controller.data.data_checks import Array, DataError, Label, RawData, as_labels, check_features, class_numbers
from photonloop.controller.data.data_sources import download_mnist, read_digits, read_iris, read_npz
from photonloop.controller.data.images import Features, ImageReduction, flat_features, image_features
from photonloop.controller.data.splits import chosen_rows, stratified_split

_NAMED_SOURCES = ("digits", "iris", "mnist")

_Count = Annotated[int, Field(ge=1)]


class DataSpec(BaseModel):
    """The `[data]` table of an experiment file."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    source: str
    """"digits" or "iris" (from scikit-learn), "mnist", or the path of an .npz with x_train, y_train, x_test, y_test."""
    path: str | None = None
    """Path of mnist.npz. Default: $PHOTONLOOP_DATA/mnist.npz if it exists, else a download by scikit-learn."""
    test_fraction: Annotated[float, Field(gt=0, lt=1)] = 0.2
    """Fraction of the samples in the test set, each class in proportion. Only for digits and iris."""
    split_seed: Annotated[int, Field(ge=0, le=2**32 - 1)] = 0
    """Seed of the split, and of the shuffle before the limits are applied."""
    image: ImageReduction = "none"
    """none: features unchanged · crop: the middle size × size pixels · pool: means over size × size equal areas."""
    size: _Count | None = None
    """Pixels per side after crop or pool."""
    train_limit: _Count | None = None
    """Number of training samples to use, from a seeded shuffle. A larger limit includes those of a smaller one."""
    test_limit: _Count | None = None
    """Number of test samples to use."""

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if self.source not in _NAMED_SOURCES and not self.source.endswith(".npz"):
            close = difflib.get_close_matches(self.source, _NAMED_SOURCES, n=1)
            hint = f" (did you mean {close[0]}?)" if close else ""
            raise ValueError(f"source is {self.source!r}, expected digits, iris, mnist or a path that ends in .npz{hint}")
        if self.path is not None and self.source != "mnist":
            raise ValueError(f"path is {self.path!r}, but only source mnist takes a path: give the path of an archive as source")
        if self.image != "none" and self.size is None:
            raise ValueError(f"image is {self.image!r} without a size: give the pixels per side, as in size = 8")
        if self.image == "none" and self.size is not None:
            raise ValueError(f'size is {self.size}, but image is \'none\': choose image = "crop" or "pool"')
        return self


@dataclass(frozen=True)
class Dataset:
    """Labelled samples in a training set and a test set.

    Parameters
    ----------
    x_train, x_test
        Features in the unit of the source, float32, shape (samples, features).
    y_train, y_test
        Class numbers 0 … C − 1, int64, shape (samples,).
    classes
        The C labels of the source, sorted; `classes[number]` is the label of a class number.
    feature_shape
        Shape of one sample before it was flattened, for example (8, 8) for an image of 8 × 8 pixels.
    """

    x_train: NDArray[np.float32]
    y_train: NDArray[np.int64]
    x_test: NDArray[np.float32]
    y_test: NDArray[np.int64]
    classes: tuple[Label, ...]
    feature_shape: tuple[int, ...]


def load_dataset(spec: DataSpec) -> Dataset:
    """Return the data set described by `spec`: checked, limited, cropped or pooled, with labels as class numbers.

    The same spec gives the same arrays, bit for bit. Class numbers follow the sorted labels of the training set after
    `train_limit`.

    Raises
    ------
    DataError
        The file is missing, damaged or lacks an array, or contains pickled objects; there are NaN, sets of different
        lengths or feature counts, empty sets, labels that are not classes, test labels that the training set lacks,
        or fewer than two classes; images cannot be cropped or pooled as requested; or a download failed.
    """
    raw = _read(spec)
    check_features(raw)
    y_train, y_test = as_labels(raw.y_train, "y_train"), as_labels(raw.y_test, "y_test")
    for name, x, y in (("train", raw.x_train, y_train), ("test", raw.x_test, y_test)):
        if len(x) != len(y):
            raise DataError(f"x_{name} has {len(x)} samples, but y_{name} has {len(y)} labels")
    train = chosen_rows(len(y_train), spec.train_limit, spec.split_seed, 0)
    test = chosen_rows(len(y_test), spec.test_limit, spec.split_seed, 1)
    numbers_train, numbers_test, classes = class_numbers(y_train[train], y_test[test], spec.train_limit)
    x_train, shape = _features(raw.x_train, train, spec)
    x_test, _ = _features(raw.x_test, test, spec)
    return Dataset(x_train, numbers_train, x_test, numbers_test, classes, shape)


def mnist_file(spec: DataSpec) -> str | None:
    """Return the path of mnist.npz for `spec`: `spec.path`, else in $PHOTONLOOP_DATA; None if it must be downloaded."""
    folder = os.environ.get("PHOTONLOOP_DATA", "")
    if spec.source != "mnist" or spec.path is not None or not folder:
        return spec.path
    file = Path(folder).expanduser() / "mnist.npz"
    return str(file) if file.is_file() else None


def _read(spec: DataSpec) -> RawData:
    if spec.source == "digits":
        return stratified_split(*read_digits(), spec.test_fraction, spec.split_seed)
    if spec.source == "iris":
        return stratified_split(*read_iris(), spec.test_fraction, spec.split_seed)
    file = mnist_file(spec) if spec.source == "mnist" else spec.source
    return download_mnist() if file is None else read_npz(Path(file).expanduser())


def _features(x: Array, rows: NDArray[np.int64], spec: DataSpec) -> tuple[Features, tuple[int, ...]]:
    if spec.image == "none" or spec.size is None:
        return flat_features(x, rows)
    return image_features(x, rows, spec.image, spec.size)
