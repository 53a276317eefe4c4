"""Read a run folder for the report. Missing or damaged files become remarks instead of errors."""

from __future__ import annotations

import math
import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydantic import ValidationError

from photonloop.controller.runs.npz_files import read_npz
from photonloop.controller.runs.run_folder import DEVICE, EVALUATION, EXPERIMENT, METRICS, read_checkpoint, read_events
from photonloop.protocols.config import ConfigError
from photonloop.protocols.device import DeviceDescription

Event = dict[str, Any]


@dataclass(frozen=True)
class EpochRecord:
    """Metrics of one pass over the training set. Accuracies are NaN if they were not evaluated after this epoch."""

    epoch: int
    loss: float
    train_accuracy: float
    test_accuracy: float


@dataclass(frozen=True)
class PhaseSnapshots:
    """Nominal heater phases of one layer before and after training [rad], shape (channels of its stage,)."""

    before: NDArray[np.float64]
    after: NDArray[np.float64]


@dataclass(frozen=True)
class EvaluationResults:
    """Results on the test set after training.

    Attributes
    ----------
    y_true
        True class indices, shape (samples,).
    vote
        Class indices predicted by the vote of all layers, shape (samples,).
    layer_predictions
        Class indices predicted by each layer, shape (layers, samples).
    class_readings
        Mean readings of each layer, shape (classes, ports).
    classes
        Names of the classes.
    """

    y_true: NDArray[np.int64]
    vote: NDArray[np.int64]
    layer_predictions: NDArray[np.int64]
    class_readings: tuple[NDArray[np.float64], ...]
    classes: tuple[str, ...]


@dataclass(frozen=True)
class RunContents:
    """A run folder as data. `remarks` has one sentence per missing or damaged file."""

    folder: Path
    name: str
    experiment: str
    device: DeviceDescription | None
    events: tuple[Event, ...]
    epochs: dict[int, tuple[EpochRecord, ...]]
    phases: tuple[PhaseSnapshots, ...]
    evaluation: EvaluationResults | None
    remarks: tuple[str, ...]

    @property
    def result(self) -> Event | None:
        """The result of the last session; None if that session is not finished."""
        last = self.of_kind("result", "resume", "start")[-1:]
        return last[0] if last and last[0]["event"] == "result" else None

    def of_kind(self, *kinds: str) -> list[Event]:
        """Return the events of these kinds, in order."""
        return [event for event in self.events if event.get("event") in kinds]

    def layer_name(self, layer: int) -> str:
        """Return "Layer 1 (mesh0)": the number of the layer, counted from 1, and the name of its stage.

        The name is left out if it is unknown, or if it is only the number of the layer again, such as "layer 1".
        """
        numbered = f"Layer {layer + 1}"
        from_events = {event.get("layer"): event.get("name") for event in self.of_kind("layer_done")}
        has_stage = self.device is not None and layer < len(self.device.stages)
        names = (self.device.stages[layer].name if self.device is not None and has_stage else None, from_events.get(layer))
        name = next((name for name in names if name and _letters(str(name)) != _letters(numbered)), None)
        return f"{numbered} ({name})" if name else numbered


def read_run_contents(run: Path) -> RunContents:
    """Read the run folder `run`.

    Raises
    ------
    ConfigError
        `run` is not a folder, or has neither an experiment nor metrics.
    """
    if not run.is_dir():
        raise ConfigError(f"run {run} does not exist or is not a folder")
    if not (run / EXPERIMENT).exists() and not (run / METRICS).exists():
        raise ConfigError(f"{run} is not a run folder: it has neither {EXPERIMENT} nor {METRICS}")
    remarks: list[str] = []
    experiment = _text(run / EXPERIMENT, remarks)
    events = tuple(read_events(run))
    if not events:
        remarks.append(f"{METRICS} has no events: the session did not start.")
    return RunContents(
        folder=run,
        name=_name(experiment) or run.resolve().name,
        experiment=experiment,
        device=_device(run / DEVICE, remarks),
        events=events,
        epochs=_epochs(events),
        phases=_phases(run, remarks),
        evaluation=_evaluation(run / EVALUATION, remarks),
        remarks=tuple(remarks),
    )


def float_or_nan(value: object) -> float:
    """Return a number as a float, and NaN for anything else."""
    return float(value) if isinstance(value, int | float) and not isinstance(value, bool) else math.nan


def _letters(name: str) -> str:
    """Return `name` in lower case, letters and digits only."""
    return "".join(character for character in name.casefold() if character.isalnum())


def _text(path: Path, remarks: list[str]) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError):
        remarks.append(f"{path.name} is missing or cannot be read.")
        return ""


def _name(experiment: str) -> str:
    try:
        name = tomllib.loads(experiment).get("name", "")
    except tomllib.TOMLDecodeError:
        return ""
    return name if isinstance(name, str) else ""


def _device(path: Path, remarks: list[str]) -> DeviceDescription | None:
    text = _text(path, remarks)
    if not text:
        return None
    try:
        return DeviceDescription.model_validate_json(text)
    except ValidationError:
        remarks.append(f"{path.name} is not a device description of this version, so the phases are shown as plain tables.")
        return None


def _epochs(events: tuple[Event, ...]) -> dict[int, tuple[EpochRecord, ...]]:
    """Return the epochs of each layer, in order. Of an epoch that was repeated after a resume, the last counts."""
    latest: dict[tuple[int, int], EpochRecord] = {}
    for event in events:
        layer, epoch = event.get("layer"), event.get("epoch")
        if event.get("event") == "epoch" and isinstance(layer, int) and isinstance(epoch, int):
            accuracies = (float_or_nan(event.get("train_accuracy")), float_or_nan(event.get("test_accuracy")))
            latest[layer, epoch] = EpochRecord(epoch, float_or_nan(event.get("loss")), *accuracies)
    layers = sorted({layer for layer, _ in latest})
    return {layer: tuple(latest[key] for key in sorted(latest) if key[0] == layer) for layer in layers}


def _phases(run: Path, remarks: list[str]) -> tuple[PhaseSnapshots, ...]:
    try:
        arrays = read_checkpoint(run)
    except ConfigError:
        remarks.append("checkpoint.npz is damaged, so the phases cannot be shown.")
        return ()
    phases: list[PhaseSnapshots] = []
    while (after := arrays.get(f"variables_{len(phases)}")) is not None:
        before = arrays.get(f"initial_{len(phases)}")
        if before is None or before.shape != after.shape or after.ndim != 1:
            break
        phases.append(PhaseSnapshots(before.astype(np.float64), after.astype(np.float64)))
    return tuple(phases)


def _evaluation(path: Path, remarks: list[str]) -> EvaluationResults | None:
    if not path.exists():
        return None
    try:
        arrays = read_npz(path)
        layers = arrays["layer_predictions"].astype(np.int64)
        evaluation = EvaluationResults(
            y_true=arrays["y_true"].astype(np.int64),
            vote=arrays["vote"].astype(np.int64),
            layer_predictions=layers,
            class_readings=tuple(arrays[f"class_readings_{k}"].astype(np.float64) for k in range(len(layers))),
            classes=tuple(str(label) for label in arrays["classes"]),
        )
    except (ValueError, TypeError, KeyError):  # ConfigError, which a damaged file raises, is a ValueError
        remarks.append(f"{path.name} is damaged, so the results on the test set cannot be shown.")
        return None
    if not _consistent(evaluation):
        remarks.append(f"{path.name} is inconsistent, so the results on the test set cannot be shown.")
        return None
    return evaluation


def _consistent(evaluation: EvaluationResults) -> bool:
    """Return True if all shapes match and all true and predicted classes exist."""
    samples, classes = evaluation.y_true.shape, len(evaluation.classes)
    indices = np.concatenate([evaluation.y_true.ravel(), evaluation.vote.ravel()])
    return (
        len(samples) == 1
        and evaluation.vote.shape == samples
        and all(predicted.shape == samples for predicted in evaluation.layer_predictions)
        and all(values.ndim == 2 and values.shape[0] == classes and values.size for values in evaluation.class_readings)
        and indices.size > 0
        and indices.min() >= 0
        and indices.max() < classes
    )
