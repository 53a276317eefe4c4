"""Prototype rule of FFzero (arXiv 2603.24790): readings of a class should point along its fixed prototype.

The goodness s_j is the cosine between the readings of a layer and prototype j. The prototypes of C classes are the
corners of a regular simplex, with pairwise cosine −1/(C−1). All classes are therefore equally far apart. Prototypes are
not trained.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

_TINY = np.float32(1e-30)  # the cosine of a completely dark reading is 0, not NaN


@dataclass(frozen=True)
class PrototypeRule:
    """Local objective against fixed prototypes.

    Parameters
    ----------
    prototypes
        Unit vectors, shape (classes, tap ports).
    loss
        `cosine`: mean(1 − s_y), the paper's loss for its photonic network. `margin`: Σ_{j≠y} max(0, m + s_j − s_y), the
        paper's loss for perceptrons (its sum includes j = y, a constant m). `softmax`: cross-entropy of scale · s.
    margin
        m of `margin`.
    scale
        Scale of `softmax`.
    """

    prototypes: NDArray[np.float32]
    loss: Literal["cosine", "margin", "softmax"]
    margin: float
    scale: float

    def scores(self, readings: NDArray[np.float32]) -> NDArray[np.float32]:
        """Return the cosine with every prototype, shape (…, samples, classes)."""
        norms = np.sqrt(np.einsum("...p,...p->...", readings, readings))
        return (readings @ self.prototypes.T) / (norms + _TINY)[..., np.newaxis]

    def losses(self, readings: NDArray[np.float32], targets: NDArray[np.int64]) -> NDArray[np.float64]:
        """Return the loss of every setting, shape (settings,)."""
        scores = self.scores(readings)
        true = scores[:, np.arange(targets.size), targets]
        if self.loss == "cosine":
            return (1.0 - true).mean(axis=1, dtype=np.float64)
        if self.loss == "margin":
            short = np.maximum(0.0, self.margin + scores - true[..., np.newaxis]).sum(axis=-1, dtype=np.float64)
            return (short - self.margin).mean(axis=1)
        top = scores.max(axis=-1)
        spread = np.exp(self.scale * (scores - top[..., np.newaxis])).sum(axis=-1)
        return (np.log(spread) + self.scale * (top - true)).mean(axis=1, dtype=np.float64)


def prototypes(classes: int, dimension: int, rng: np.random.Generator) -> NDArray[np.float64]:
    """Return the unit-length corners of a regular simplex, rotated at random (Haar), shape (classes, dimension).

    Raises
    ------
    ValueError
        Fewer than two classes, or dimension < classes.
    """
    if classes < 2:
        raise ValueError(f"there is {classes} class, but prototypes need at least 2")
    if dimension < classes:
        raise ValueError(f"{classes} classes need a layer of at least {classes} readings, but this one has {dimension}")
    corners = np.sqrt(classes / (classes - 1)) * (np.eye(classes) - 1 / classes)
    # Q of a Gaussian matrix is Haar-distributed once the signs of the diagonal of R are made positive (Mezzadri 2007).
    q, r = np.linalg.qr(rng.standard_normal((dimension, classes)))
    return corners @ (q * np.sign(np.diag(r))).T
