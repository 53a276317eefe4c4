"""Values of several kinds as one flat vector, kind by kind, for fits."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
from numpy.typing import NDArray

Shapes = dict[str, tuple[int, ...]]
"""Shape of each kind of values, in the order of the vector; () for a single number."""


def parts_of(shapes: Shapes) -> dict[str, slice]:
    """Return the part of the flat vector that each kind of values has."""
    found, start = {}, 0
    for kind, shape in shapes.items():
        stop = start + int(np.prod(shape, dtype=np.int64))
        found[kind] = slice(start, stop)
        start = stop
    return found


def flattened(values: object, kinds: Iterable[str]) -> NDArray[np.float64]:
    """Return the attributes `kinds` of `values` as one flat vector."""
    return np.concatenate([np.ravel(getattr(values, kind)) for kind in kinds]).astype(np.float64)


def by_kind(vector: NDArray[np.float64], shapes: Shapes) -> dict[str, Any]:
    """Return an array of its shape, or a number, for each kind: the inverse of `flattened`."""
    parts = parts_of(shapes)
    shaped = {kind: vector[parts[kind]].reshape(shape).copy() for kind, shape in shapes.items()}
    return {kind: value if value.ndim else float(value) for kind, value in shaped.items()}
