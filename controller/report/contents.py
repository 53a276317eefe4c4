"""What a run folder holds, read so that a report can always be written: what is missing or damaged becomes a sentence."""

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
class Epoch:
    """One pass over the training part. Accuracies are NaN where nobody looked."""

    epoch: int
    loss: float
    train_accuracy: float
    test_accuracy: float


@dataclass(frozen=True)
class PhaseSnapshots:
    """Nominal heater phases of one layer [rad], shape (channels of its stage,)."""

    before: NDArray[np.float64]
    after: NDArray[np.float64]


@dataclass(frozen=True)
class Evaluation:
    """The test part after learning: class numbers, shape (n,), and mean readings, shape (classes, ports), a layer."""

    y_true: NDArray[np.int64]
    vote: NDArray[np.int64]
    layer_predictions: NDArray[np.int64]
    class_readings: tuple[NDArray[np.float64], ...]
    classes: tuple[str, ...]


@dataclass(frozen=True)
class Contents:
    """A run folder as data. `remarks` holds a sentence for each file that is missing or damaged."""

    folder: Path
    name: str
    experiment: str
    device: DeviceDescription | None
    events: tuple[Event, ...]
    epochs: dict[int, tuple[Epoch, ...]]
    phases: tuple[PhaseSnapshots, ...]
    evaluation: Evaluation | None
    remarks: tuple[str, ...]

    @property
    def result(self) -> Event | None:
        """The last result; None while the run is unfinished."""
        last = [event for event in self.events if event.get("event") in ("result", "resume", "start")][-1:]
        return last[0] if last and last[0]["event"] == "result" else None

    def of_kind(self, *kinds: str) -> list[Event]:
        """Return the events of these kinds, in order."""
        return [event for event in self.events if event.get("event") in kinds]

    def layer_name(self, layer: int) -> str:
        """Return "Layer 1 (mesh 1)", counted from one, with the name of its stage where that is known and says more."""
        plain = f"Layer {layer + 1}"
        told = {event.get("layer"): event.get("name") for event in self.of_kind("layer_done")}
        has_stage = self.device is not None and layer < len(self.device.stages)
        names = (self.device.stages[layer].name if self.device is not None and has_stage else None, told.get(layer))
        name = next((name for name in names if name and str(name).casefold() != plain.casefold()), None)
        return f"{plain} ({name})" if name else plain


def read_contents(run: Path) -> Contents:
    """Return what the run folder `run` holds.

    Raises
    ------
    ConfigError
        `run` is not a folder, or neither an experiment nor metrics are in it.
    """
    if not run.is_dir():
        raise ConfigError(f"run {run} is not there or not a folder")
    if not (run / EXPERIMENT).exists() and not (run / METRICS).exists():
        raise ConfigError(f"{run} is not a run folder: it holds neither {EXPERIMENT} nor {METRICS}")
    remarks: list[str] = []
    experiment = _text(run / EXPERIMENT, remarks)
    events = tuple(read_events(run))
    if not events:
        remarks.append(f"{METRICS} holds no events: the session never began.")
    return Contents(
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


def number(value: object) -> float:
    """Return `value` as a float, NaN where it is not a number."""
    return float(value) if isinstance(value, int | float) and not isinstance(value, bool) else math.nan


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
        remarks.append(f"{path.name} is not a device description of this version: the meshes are drawn as lists of channels.")
        return None


def _epochs(events: tuple[Event, ...]) -> dict[int, tuple[Epoch, ...]]:
    """Return the epochs of each layer in order; of an epoch repeated after a resume, the last counts."""
    latest: dict[tuple[int, int], Epoch] = {}
    for event in events:
        layer, epoch = event.get("layer"), event.get("epoch")
        if event.get("event") == "epoch" and isinstance(layer, int) and isinstance(epoch, int):
            accuracies = (number(event.get("train_accuracy")), number(event.get("test_accuracy")))
            latest[layer, epoch] = Epoch(epoch, number(event.get("loss")), *accuracies)
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


def _evaluation(path: Path, remarks: list[str]) -> Evaluation | None:
    if not path.exists():
        return None
    try:
        arrays = read_npz(path)
        layers = arrays["layer_predictions"].astype(np.int64)
        evaluation = Evaluation(
            y_true=arrays["y_true"].astype(np.int64),
            vote=arrays["vote"].astype(np.int64),
            layer_predictions=layers,
            class_readings=tuple(arrays[f"class_readings_{k}"].astype(np.float64) for k in range(len(layers))),
            classes=tuple(str(label) for label in arrays["classes"]),
        )
    except (ValueError, TypeError, KeyError):  # ConfigError of a damaged file among them
        remarks.append(f"{path.name} is damaged, so the test results cannot be shown.")
        return None
    if not _consistent(evaluation):
        remarks.append(f"{path.name} contradicts itself, so the test results cannot be shown.")
        return None
    return evaluation


def _consistent(evaluation: Evaluation) -> bool:
    samples, classes = evaluation.y_true.shape, len(evaluation.classes)
    named = np.concatenate([evaluation.y_true.ravel(), evaluation.vote.ravel()])
    return (
        len(samples) == 1
        and evaluation.vote.shape == samples
        and all(predicted.shape == samples for predicted in evaluation.layer_predictions)
        and all(values.ndim == 2 and values.shape[0] == classes and values.size for values in evaluation.class_readings)
        and named.size > 0
        and named.min() >= 0
        and named.max() < classes
    )
