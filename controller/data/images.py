"""Features from images: flattened, cropped, or pooled to fewer pixels."""

from __future__ import annotations

from typing import Literal

import numpy as np
from numpy.typing import NDArray

from photonloop.controller.data.data_checks import CHUNK, Array, DataError

ImageReduction = Literal["none", "crop", "pool"]
Features = NDArray[np.float32]


def flat_features(x: Array, rows: NDArray[np.int64]) -> tuple[Features, tuple[int, ...]]:
    """Return the chosen rows of `x` as float32, shape (samples, features), and the shape of one sample."""
    return x[rows].reshape(len(rows), -1).astype(np.float32), x.shape[1:]


def image_features(
    x: Array, rows: NDArray[np.int64], reduction: Literal["crop", "pool"], size: int
) -> tuple[Features, tuple[int, ...]]:
    """Return the chosen images reduced to size × size pixels, shape (samples, size²), and the shape of one image.

    Parameters
    ----------
    x
        Images, shape (samples, height, width).
    rows
        Rows to use.
    reduction
        "crop": the middle size × size pixels. "pool": means over size × size equal areas.
    size
        Pixels per side.

    Raises
    ------
    DataError
        `x` does not contain images, or they are smaller than `size`.
    """
    if x.ndim != 3:
        raise DataError(
            f"image is {reduction!r}, which needs images of shape (samples, height, width), but x_train has shape {x.shape}"
        )
    height, width = x.shape[1:]
    if size > min(height, width):
        raise DataError(f"size is {size}, but the images have only {height} × {width} pixels")
    if reduction == "crop":
        top, left = (height - size) // 2, (width - size) // 2
        return flat_features(x[:, top : top + size, left : left + size], rows)
    down, across = _area_weights(height, size), _area_weights(width, size)
    pooled = np.empty((len(rows), size, size), dtype=np.float32)
    for start in range(0, len(rows), CHUNK):
        chunk = x[rows[start : start + CHUNK]].astype(np.float32)
        pooled[start : start + CHUNK] = down @ chunk @ across.T
    return pooled.reshape(len(rows), -1), (size, size)


def _area_weights(pixels: int, cells: int) -> Features:
    """Return weights, shape (cells, pixels), that average a line of `pixels` over `cells` equal lengths.

    A pixel shared by two cells counts in each in proportion to its overlap: 28 pixels on 8 cells are 3.5 per cell.
    """
    edges = np.arange(cells + 1) * (pixels / cells)
    start = np.arange(pixels)
    overlap = np.minimum(edges[1:, None], start + 1) - np.maximum(edges[:-1, None], start)
    return (np.clip(overlap, 0.0, None) * (cells / pixels)).astype(np.float32)
