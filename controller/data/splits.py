"""Split of samples into training and test set, and choice of samples if their number is limited."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from photonloop.controller.data.data_checks import Array, DataError, RawData


def stratified_split(x: Array, y: Array, test_fraction: float, seed: int) -> RawData:
    """Return a training and a test set with each class in proportion.

    Raises
    ------
    DataError
        There are too few samples for each class to be in both sets.
    """
    from sklearn.model_selection import train_test_split  # noqa: PLC0415

    rows = np.arange(len(y))
    try:
        train, test = train_test_split(rows, test_size=test_fraction, stratify=y, random_state=seed)
    except ValueError:
        raise DataError(
            f"test_fraction is {test_fraction:g}, but {len(y)} samples of {len(np.unique(y))} classes "
            "cannot be split so that each class is in both sets"
        ) from None
    return RawData(x[train], y[train], x[test], y[test])


def chosen_rows(count: int, limit: int | None, seed: int, part: int) -> NDArray[np.int64]:
    """Return the rows to use of a set with `count` samples: all of them, or the first `limit` after a shuffle.

    A larger limit contains the rows of a smaller one. `part` is 0 for the training set and 1 for the test set.
    """
    if limit is None:
        return np.arange(count)
    return np.random.default_rng([seed, part]).permutation(count)[:limit]
