"""Labelled data as a session wants it: features, class numbers, and refusals in one plain sentence.

    source ──▶ load ──▶ check ──▶ split or limit ──▶ crop or pool ──▶ class numbers ──▶ Dataset

Nothing here scales features: that is learned from the training part alone, in `photonloop.controller.data.encoding`.
"""

from __future__ import annotations

import difflib
import os
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, Self

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, model_validator

from photonloop.controller.runs.npz_files import DAMAGED
from photonloop.protocols.config import ConfigError

_NPZ_KEYS = ("x_train", "y_train", "x_test", "y_test")
_OWN_SOURCES = ("digits", "iris", "mnist")
_CHUNK = 4096
"""Samples converted to float at a time: 60 000 images of 28 × 28 would otherwise take 190 MB each time."""

Label = int | str
_Count = Annotated[int, Field(ge=1)]
_Array = NDArray[Any]


class DataError(ConfigError):
    """Data that cannot be learned from. The message is one plain sentence that names the field, the value and the bound."""


class DataSpec(BaseModel):
    """The `[data]` table of an experiment file."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    source: str
    """"digits" or "iris" (in scikit-learn), "mnist", or the path of an .npz with x_train, y_train, x_test, y_test."""
    path: str | None = None
    """Where mnist.npz lies. Without it: $PHOTONLOOP_DATA/mnist.npz, and where that is not, a download by scikit-learn."""
    test_fraction: Annotated[float, Field(gt=0, lt=1)] = 0.2
    """Part of the samples kept for the test, each class in proportion; only for sets without a split of their own
    (digits, iris)."""
    split_seed: Annotated[int, Field(ge=0, le=2**32 - 1)] = 0
    """Seed of the split and of the shuffle before the limits."""
    image: Literal["none", "crop", "pool"] = "none"
    """none: features as they are · crop: the middle size × size pixels · pool: means over size × size equal areas."""
    size: _Count | None = None
    train_limit: _Count | None = None
    """At most so many training samples, the first after a seeded shuffle; a larger limit contains a smaller one's."""
    test_limit: _Count | None = None

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if self.source not in _OWN_SOURCES and not self.source.endswith(".npz"):
            close = difflib.get_close_matches(self.source, _OWN_SOURCES, n=1)
            hint = f" (did you mean {close[0]}?)" if close else ""
            raise ValueError(f"source is {self.source!r}, expected digits, iris, mnist or a path that ends in .npz{hint}")
        if self.path is not None and self.source != "mnist":
            raise ValueError(f"path is {self.path!r}, but only source mnist takes a path: give an archive's path as source")
        if self.image != "none" and self.size is None:
            raise ValueError(f"image is {self.image!r} without a size: give the pixels a side, as in size = 8")
        if self.image == "none" and self.size is not None:
            raise ValueError(f'size is {self.size}, but image is \'none\': choose image = "crop" or "pool"')
        return self


@dataclass(frozen=True)
class Dataset:
    """A training and a test part.

    Parameters
    ----------
    x_train, x_test
        Features in the source's own unit, float32, shape (samples, features).
    y_train, y_test
        Class numbers 0 … C − 1, int64, shape (samples,).
    classes
        The C labels as the source has them, sorted; `classes[number]` is the label of a class number.
    feature_shape
        Shape of one sample before it was flattened, as (8, 8) for an image of 8 × 8 pixels.
    """

    x_train: NDArray[np.float32]
    y_train: NDArray[np.int64]
    x_test: NDArray[np.float32]
    y_test: NDArray[np.int64]
    classes: tuple[Label, ...]
    feature_shape: tuple[int, ...]


@dataclass(frozen=True)
class _Raw:
    """What a source holds: x of shape (samples, …), y of shape (samples,)."""

    x_train: _Array
    y_train: _Array
    x_test: _Array
    y_test: _Array


def load_dataset(spec: DataSpec) -> Dataset:
    """Return the data that `spec` names, checked, limited, reduced and with labels as class numbers.

    The same spec gives the same arrays, bit for bit. Class numbers follow the sorted labels of the training part after
    `train_limit`.

    Raises
    ------
    DataError
        For a file that is missing, corrupt or lacks a key, pickled objects, NaN, unequal lengths or feature counts,
        empty parts, labels that are not classes, test labels missing from the training part, fewer than two classes,
        images that cannot be cropped or pooled as asked, or a download without a network.
    """
    raw = _load(spec)
    _check_features(raw)
    y_train, y_test = _as_labels(raw.y_train, "y_train"), _as_labels(raw.y_test, "y_test")
    for name, x, y in (("train", raw.x_train, y_train), ("test", raw.x_test, y_test)):
        if len(x) != len(y):
            raise DataError(f"x_{name} holds {len(x)} samples, but y_{name} holds {len(y)} labels")
    train = _chosen_rows(len(y_train), spec.train_limit, spec.split_seed, 0)
    test = _chosen_rows(len(y_test), spec.test_limit, spec.split_seed, 1)
    numbers_train, numbers_test, classes = _class_numbers(y_train[train], y_test[test], spec.train_limit)
    x_train, shape = _features(raw.x_train, train, spec)
    x_test, _ = _features(raw.x_test, test, spec)
    return Dataset(x_train, numbers_train, x_test, numbers_test, classes, shape)


def _load(spec: DataSpec) -> _Raw:
    if spec.source == "digits":
        from sklearn.datasets import load_digits  # noqa: PLC0415  scikit-learn takes most of a second

        digits: Any = load_digits()
        return _split(digits.images, digits.target, spec)
    if spec.source == "iris":
        from sklearn.datasets import load_iris  # noqa: PLC0415

        iris: Any = load_iris()
        return _split(iris.data, np.asarray(iris.target_names)[iris.target], spec)
    if spec.source == "mnist":
        file = mnist_file(spec)
        return _download_mnist() if file is None else _load_npz(Path(file).expanduser())
    return _load_npz(Path(spec.source).expanduser())


def _split(x: _Array, y: _Array, spec: DataSpec) -> _Raw:
    from sklearn.model_selection import train_test_split  # noqa: PLC0415

    rows = np.arange(len(y))
    try:
        train, test = train_test_split(rows, test_size=spec.test_fraction, stratify=y, random_state=spec.split_seed)
    except ValueError:
        raise DataError(
            f"test_fraction is {spec.test_fraction:g}, but {len(y)} samples of {len(np.unique(y))} classes "
            "cannot be split so that each class is in both parts"
        ) from None
    return _Raw(x[train], y[train], x[test], y[test])


def _load_npz(path: Path) -> _Raw:
    if not path.is_file():
        raise DataError(f"{path} is not there or not a file")
    try:
        with path.open("rb") as file:
            archive = np.load(file, allow_pickle=False)
            if not isinstance(archive, np.lib.npyio.NpzFile):
                raise DataError(f"{path} holds a single array, expected an .npz archive with {', '.join(_NPZ_KEYS)}")
            missing = [key for key in _NPZ_KEYS if key not in archive.files]
            if missing:
                there = ", ".join(archive.files) or "nothing"
                raise DataError(f"{path} lacks {', '.join(missing)}: it holds {there}")
            return _Raw(*(_member(archive, key, path) for key in _NPZ_KEYS))
    except DataError:
        raise
    except PermissionError:
        raise DataError(f"{path} may not be read: permission denied") from None
    except DAMAGED:
        raise DataError(f"{path} cannot be read as an .npz archive: it is damaged or of another format") from None


def _member(archive: Any, key: str, path: Path) -> _Array:
    try:
        return archive[key]
    except ValueError as error:
        if "allow_pickle" in str(error):
            raise DataError(f"{key} in {path} holds pickled Python objects, which are never loaded: save plain numbers") from None
        raise


def mnist_file(spec: DataSpec) -> str | None:
    """Return where `spec` finds MNIST: its path, else in $PHOTONLOOP_DATA; None where a download must do."""
    folder = os.environ.get("PHOTONLOOP_DATA", "")
    if spec.source != "mnist" or spec.path is not None or not folder:
        return spec.path
    beside = Path(folder).expanduser() / "mnist.npz"
    return str(beside) if beside.is_file() else None


def _download_mnist() -> _Raw:
    """Return MNIST from OpenML, kept as an .npz in scikit-learn's cache: parsing OpenML's format takes long each time."""
    from sklearn.datasets import fetch_openml, get_data_home  # noqa: PLC0415

    try:
        kept = Path(get_data_home()) / "photonloop-mnist.npz"
        if kept.is_file():
            return _load_npz(kept)
        # liac-arff because the other parser needs pandas, which is no dependency of ours.
        table: Any = fetch_openml("mnist_784", version=1, as_frame=False, parser="liac-arff", n_retries=1, delay=0.5)
        x = np.asarray(table.data).astype(np.uint8).reshape(-1, 28, 28)
        y = np.asarray(table.target).astype(np.int64)
        with tempfile.TemporaryDirectory(dir=kept.parent) as aside:
            np.savez_compressed(Path(aside) / kept.name, x_train=x[:60000], y_train=y[:60000], x_test=x[60000:], y_test=y[60000:])
            (Path(aside) / kept.name).replace(kept)
        return _Raw(x[:60000], y[:60000], x[60000:], y[60000:])
    except DataError:
        raise
    except (OSError, ValueError) as error:
        # URLError is an OSError; ValueError is OpenML answering with something else, or a cut-off file.
        raise DataError(
            f"mnist could not be downloaded ({_one_line(error)}): connect to a network, or give path or $PHOTONLOOP_DATA, "
            "a folder that holds mnist.npz"
        ) from None


def _one_line(error: BaseException) -> str:
    return " ".join(str(error).split())[:120] or type(error).__name__


def _check_features(raw: _Raw) -> None:
    for name, x in (("x_train", raw.x_train), ("x_test", raw.x_test)):
        if x.dtype.kind not in "fiub":
            raise DataError(f"{name} has type {x.dtype}, expected real numbers")
        if x.ndim < 2 or x[:1].size == 0:
            raise DataError(f"{name} has shape {x.shape}, expected (samples, features) with at least one of each")
        for start in range(0, len(x) if x.dtype.kind == "f" else 0, _CHUNK):
            chunk = x[start : start + _CHUNK].reshape(len(x[start : start + _CHUNK]), -1)
            # NaN compares false too. Beyond single precision is as good as infinite: that is what Dataset holds.
            bad = ~(np.abs(chunk) <= np.finfo(np.float32).max)
            if bad.any():
                row, column = (int(i) for i in np.argwhere(bad)[0])
                raise DataError(f"{name} holds {chunk[row, column]:g} in row {start + row}, expected finite numbers")
    if raw.x_train.shape[1:] != raw.x_test.shape[1:]:
        raise DataError(
            f"x_train has samples of shape {raw.x_train.shape[1:]}, but x_test of shape {raw.x_test.shape[1:]}: "
            "both parts need the same features"
        )


def _as_labels(y: _Array, name: str) -> _Array:
    """Return labels as int64 or str, shape (samples,)."""
    if y.ndim != 1:
        raise DataError(f"{name} has shape {y.shape}, expected one class label a sample, (samples,)")
    if y.dtype.kind == "U":
        return y
    if y.dtype.kind not in "iubf":
        raise DataError(f"{name} has type {y.dtype}, expected class labels: integers or text")
    if y.dtype.kind == "f":
        whole = np.isfinite(y) & (np.abs(y) < 2**53) & (y == np.round(y))
        if not whole.all():
            row = int(np.argmin(whole))
            raise DataError(f"{name} holds {y[row]:g} in row {row}, expected class labels, whole numbers or text, not a quantity")
    return y.astype(np.int64)


def _class_numbers(
    y_train: _Array, y_test: _Array, train_limit: int | None
) -> tuple[NDArray[np.int64], NDArray[np.int64], tuple[Label, ...]]:
    if y_train.dtype.kind != y_test.dtype.kind:
        raise DataError(f"y_train has type {y_train.dtype}, but y_test has type {y_test.dtype}: both need the same labels")
    labels, numbers_train = np.unique(y_train, return_inverse=True)
    missing = np.setdiff1d(y_test, labels)
    if missing.size:
        shown = ", ".join(str(label) for label in missing[:8]) + (", …" if missing.size > 8 else "")
        after = f" limited to {train_limit} samples" if train_limit is not None else ""
        raise DataError(f"labels missing from the training part{after}: y_test holds {shown}, y_train does not")
    if len(labels) < 2:
        raise DataError(f"y_train holds the one class {labels[0]} only, learning needs at least 2")
    numbers_test = np.searchsorted(labels, y_test)
    return numbers_train.astype(np.int64), numbers_test.astype(np.int64), tuple(label.item() for label in labels)


def _chosen_rows(count: int, limit: int | None, seed: int, part: int) -> NDArray[np.int64]:
    if limit is None:
        return np.arange(count)
    return np.random.default_rng([seed, part]).permutation(count)[:limit]


def _features(x: _Array, rows: NDArray[np.int64], spec: DataSpec) -> tuple[NDArray[np.float32], tuple[int, ...]]:
    """Return the chosen rows of x, cropped or pooled, as float32 (samples, features), and the shape of one sample."""
    if spec.image == "none" or spec.size is None:
        return x[rows].reshape(len(rows), -1).astype(np.float32), x.shape[1:]
    size = spec.size
    if x.ndim != 3:
        raise DataError(
            f"image is {spec.image!r}, which needs images of shape (samples, height, width), but x_train has shape {x.shape}"
        )
    height, width = x.shape[1:]
    if size > min(height, width):
        raise DataError(f"size is {size}, larger than the images of {height} × {width} pixels")
    if spec.image == "crop":
        top, left = (height - size) // 2, (width - size) // 2
        cropped = x[:, top : top + size, left : left + size][rows]
        return cropped.reshape(len(rows), -1).astype(np.float32), (size, size)
    down, across = _area_weights(height, size), _area_weights(width, size)
    pooled = np.empty((len(rows), size, size), dtype=np.float32)
    for start in range(0, len(rows), _CHUNK):
        chunk = x[rows[start : start + _CHUNK]].astype(np.float32)
        pooled[start : start + _CHUNK] = down @ chunk @ across.T
    return pooled.reshape(len(rows), -1), (size, size)


def _area_weights(pixels: int, cells: int) -> NDArray[np.float32]:
    """Return weights, shape (cells, pixels), of the mean over each of `cells` equal lengths of a line of `pixels`.

    A pixel that two cells share counts in each by the length that lies there: 28 pixels on 8 cells are 3.5 a cell.
    """
    edges = np.arange(cells + 1) * (pixels / cells)
    start = np.arange(pixels)
    overlap = np.minimum(edges[1:, None], start + 1) - np.maximum(edges[:-1, None], start)
    return (np.clip(overlap, 0.0, None) * (cells / pixels)).astype(np.float32)
