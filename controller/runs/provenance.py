"""What a run began with, and whether it still is so: a run goes on with its data, its experiment and its chip, or not at all."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import numpy as np
from pydantic import ValidationError

from photonloop.protocols.atomic_files import write_atomically
from photonloop.controller.data.datasets import Dataset
from photonloop.controller.experiment import Experiment, load_experiment
from photonloop.controller.device.device_difference import Difference, difference
from photonloop.controller.learning.network import Layer
from photonloop.controller.runs.run_folder import CHECKPOINT, DEVICE, EXPERIMENT, read_checkpoint, read_events
from photonloop.controller.runs.checkpoint import Checkpoint, from_arrays
from photonloop.protocols.config import ConfigError
from photonloop.protocols.device import DeviceDescription


def open_run(run: Path) -> Experiment:
    """Return the experiment of run folder `run`.

    Raises
    ------
    ConfigError
        The folder is not there or is no run.
    """
    if not (run / EXPERIMENT).is_file():
        raise ConfigError(f"run {run} is not a run folder: it holds no {EXPERIMENT}")
    return load_experiment(run / EXPERIMENT)


def digest(dataset: Dataset) -> str:
    """Return a digest of all features and labels."""
    found = hashlib.sha256()
    for part in (dataset.x_train, dataset.y_train, dataset.x_test, dataset.y_test):
        found.update(str(part.shape).encode() + np.ascontiguousarray(part).tobytes())
    return found.hexdigest()


def fingerprint(experiment: Experiment) -> str:
    """Return a digest of all that decides what is learned: everything but the name and the device."""
    return hashlib.sha256(experiment.model_dump_json(exclude={"name", "device"}).encode()).hexdigest()


def started(run: Path, experiment: Experiment, dataset: Dataset) -> dict[str, Any]:
    """Return the first event of a run.

    Raises
    ------
    ConfigError
        The run began with another experiment, or with other data.
    """
    event = next((event for event in read_events(run) if event.get("event") == "start"), {})
    if event.get("experiment", now := fingerprint(experiment)) != now:
        raise ConfigError(f"experiment.toml of run {run} is not what it began with: put it back, or start a new run")
    if event.get("data", now := digest(dataset)) != now:
        raise ConfigError(f"the data of run {run} is not what it began with: put it back, or start a new run")
    return event


def read_saved_checkpoint(run: Path, experiment: Experiment) -> Checkpoint:
    """Return the state in the checkpoint of a run, or a fresh one where nothing was learned before the end came.

    Raises
    ------
    ConfigError
        The checkpoint is damaged or lost.
    """
    arrays = read_checkpoint(run)
    if not arrays and any(event.get("event") == "epoch" for event in read_events(run)):
        raise ConfigError(f"run {run} has lost its {CHECKPOINT}: put back a copy of it, or start a new run")
    return from_arrays(arrays, experiment.seed, str(run / CHECKPOINT))


def write_device(run: Path, description: DeviceDescription) -> None:
    """Keep the description of the device whose variables the run holds."""
    write_atomically(run / DEVICE, description.model_dump_json().encode())


def read_device(run: Path) -> DeviceDescription:
    """Return the description of the device whose variables the run holds.

    Raises
    ------
    ConfigError
        It is missing or damaged.
    """
    try:
        return DeviceDescription.model_validate_json((run / DEVICE).read_bytes())
    except OSError as error:
        reason = error.strerror or str(error)
    except ValidationError:
        reason = "it is damaged, or of another version"
    raise ConfigError(f"run {run} has no usable {DEVICE} ({reason}): put back a copy of it, or start a new run")


def changed_device(run: Path, string: str, now: DeviceDescription) -> Difference | None:
    """Return how the device `now`, found at `string`, differs from the one that run `run` learned on; None where it does not.

    Raises
    ------
    ConfigError
        They differ so that the run's variables mean something else there.
    """
    changed = difference(read_device(run), now)
    if changed is not None and not changed.fits:
        raise ConfigError(f"the device {string} is not what run {run} learned on: {changed.told}")
    return changed


def check_variables(run: Path, state: Checkpoint, layers: list[Layer]) -> None:
    """Refuse a checkpoint whose variables are not as many as the device has channels.

    Raises
    ------
    ConfigError
        One sentence that names the layer and both numbers.
    """
    for layer, phases in zip(layers, state.variables, strict=False):
        if phases.size != layer.stage.channels:
            raise ConfigError(
                f"run {run} holds {phases.size} variables for {layer.name}, but stage {layer.stage.name} of the device has "
                f"{layer.stage.channels} channels"
            )
