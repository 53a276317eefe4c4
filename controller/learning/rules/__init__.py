"""Rules: the local objective of one layer, computed from its own readings and the targets.

A rule has access to the readings at the layer's own tap only: no other layer, no phase.
"""

from __future__ import annotations

from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from photonloop.controller.experiment import RuleSpec
from photonloop.controller.learning.rules.prototype import PrototypeRule, prototypes


class Rule(Protocol):
    """The local objective of one layer."""

    def losses(self, readings: NDArray[np.float32], targets: NDArray[np.int64]) -> NDArray[np.float64]:
        """Return the loss of every setting, shape (settings,), from readings, shape (settings, samples, ports)."""
        ...

    def scores(self, readings: NDArray[np.float32]) -> NDArray[np.float32]:
        """Return the goodness of every class, shape (…, samples, classes), from readings, shape (…, samples, ports)."""
        ...


def make_rule(spec: RuleSpec, classes: int, tap_ports: int, rng: np.random.Generator) -> Rule:
    """Return the rule that `spec` names for a layer of `tap_ports` readings; `rng` draws its fixed prototypes.

    Raises
    ------
    ValueError
        The layer has fewer readings than there are classes.
    """
    return PrototypeRule(prototypes(classes, tap_ports, rng).astype(np.float32), spec.loss, spec.margin, spec.scale)


def majority_vote(predictions: NDArray[np.int64], last_scores: NDArray[np.float32]) -> NDArray[np.int64]:
    """Return the class that most layers predict, shape (samples,). The goodness of the last layer decides a tie.

    Parameters
    ----------
    predictions
        Predicted classes, shape (layers, samples).
    last_scores
        Goodness of the last layer, shape (samples, classes).
    """
    classes = last_scores.shape[1]
    votes = np.stack([(predictions == c).sum(axis=0) for c in range(classes)], axis=1)
    most = votes == votes.max(axis=1, keepdims=True)
    return np.where(most, last_scores, -np.inf).argmax(axis=1)
