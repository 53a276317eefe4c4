"""Accuracy of a layer, and the record of a finished network on the test set."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from photonloop.controller.learning.network import Layer, Prediction
from photonloop.controller.learning.rng import Purpose, rng_stream
from photonloop.controller.runs.npz_files import write_npz


def layer_accuracy(layer: Layer, readings: NDArray[np.float32], labels: NDArray[np.int64]) -> float:
    """Return the fraction of samples that `layer` classifies correctly, from readings (samples, tap ports)."""
    return float((layer.rule.scores(readings).argmax(axis=1) == labels).mean())


def training_rows(seed: int, train_samples: int, test_samples: int) -> NDArray[np.int64]:
    """Return the training rows on which the accuracy is measured: at most as many as there are test samples.

    They are drawn at random, because a file may be sorted by class.
    """
    if train_samples <= test_samples:
        return np.arange(train_samples)
    return np.sort(rng_stream(seed, Purpose.ACCURACY_ROWS).permutation(train_samples)[:test_samples])


def write_evaluation(path: Path, prediction: Prediction, labels: NDArray[np.int64], classes: tuple[str, ...]) -> None:
    """Write predictions, labels and the mean readings of each class on the test set to the .npz file at `path`."""
    means = {
        f"class_readings_{k}": np.stack([_mean(values[labels == c]) for c in range(len(classes))])
        for k, values in enumerate(prediction.readings)
    }
    write_npz(
        path,
        {
            "y_true": labels,
            "vote": prediction.vote,
            "layer_predictions": prediction.layers,
            "classes": np.array(classes),
            **means,
        },
    )


def _mean(readings: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return the mean over samples; NaN for a class without test samples."""
    return readings.mean(axis=0) if len(readings) else np.full(readings.shape[1], np.nan, dtype=np.float32)
