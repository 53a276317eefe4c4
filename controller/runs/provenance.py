"""The experiment, data and device that a run began with, and checks that it continues with the same ones."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import numpy as np
from pydantic import ValidationError

from photonloop.controller.data.datasets import Dataset, DataSpec, mnist_file
from photonloop.controller.device.address import DeviceAddress
from photonloop.controller.device.device_difference import Difference, difference
from photonloop.controller.experiment import Experiment, load_experiment
from photonloop.controller.learning.network import Layer
from photonloop.controller.runs.checkpoint import RUN_FORMAT, Checkpoint, from_arrays
from photonloop.controller.runs.run_folder import CHECKPOINT, DEVICE, EXPERIMENT, read_checkpoint, read_events
from photonloop.protocols.atomic_files import write_atomically
from photonloop.protocols.config import ConfigError
from photonloop.protocols.device import DeviceDescription


def open_run(run: Path) -> Experiment:
    """Return the experiment of run folder `run`.

    Raises
    ------
    ConfigError
        The folder does not exist, is not a run, or has the run format of another version.
    """
    if not (run / EXPERIMENT).is_file():
        raise ConfigError(f"run {run} is not a run folder: it has no {EXPERIMENT}")
    _check_format(run)
    return load_experiment(run / EXPERIMENT)


def _check_format(run: Path) -> None:
    """Refuse a run of another format. A run that was killed before its first event has nothing to check."""
    event = _start_event(run)
    found = event.get("run_format", 1)  # the first version recorded none
    if event and found != RUN_FORMAT:
        other = "an earlier" if isinstance(found, int) and found < RUN_FORMAT else "another"
        raise ConfigError(
            f"run {run} was written by {other} version of photonloop (run format {found}, this version reads {RUN_FORMAT}): "
            "start a new run"
        )


def _start_event(run: Path) -> dict[str, Any]:
    return next((event for event in read_events(run) if event.get("event") == "start"), {})


def with_absolute_paths(spec: DataSpec) -> DataSpec:
    """Return `spec` with absolute paths, so that a run can be resumed from another working folder."""
    files = {"path": mnist_file(spec), "source": spec.source if spec.source.endswith(".npz") else None}
    return spec.model_copy(update={key: absolute_path(file) for key, file in files.items() if file})


def absolute_path(file: str | Path) -> str:
    """Return the absolute path of a file of the user."""
    return str(Path(file).expanduser().resolve())


def dataset_digest(dataset: Dataset) -> str:
    """Return a digest of all features and labels."""
    found = hashlib.sha256()
    for part in (dataset.x_train, dataset.y_train, dataset.x_test, dataset.y_test):
        found.update(str(part.shape).encode() + np.ascontiguousarray(part).tobytes())
    return found.hexdigest()


def experiment_digest(experiment: Experiment) -> str:
    """Return a digest of everything in `experiment` that affects training: all but the name and the device.

    A run has a copy of its calibration. Runs of earlier versions have no key `variables`.
    """
    left_out = {"name", "device", "calibration"} | ({"variables"} if experiment.variables == "heater" else set())
    return hashlib.sha256(experiment.model_dump_json(exclude=left_out).encode()).hexdigest()


def read_start_event(run: Path, experiment: Experiment, dataset: Dataset) -> dict[str, Any]:
    """Return the "start" event of a run, after a check that its experiment and its data have not changed.

    Raises
    ------
    ConfigError
        The experiment or the data have changed since the run began.
    """
    event = _start_event(run)
    if event.get("experiment", now := experiment_digest(experiment)) != now:
        raise ConfigError(f"experiment.toml of run {run} has changed since the run began: put it back, or start a new run")
    if event.get("data", now := dataset_digest(dataset)) != now:
        raise ConfigError(f"the data of run {run} has changed since the run began: put it back, or start a new run")
    return event


def read_saved_checkpoint(run: Path, experiment: Experiment) -> Checkpoint:
    """Return the state in the checkpoint of a run, or a fresh one if the run ended before its first checkpoint.

    Raises
    ------
    ConfigError
        The checkpoint is damaged or missing.
    """
    arrays = read_checkpoint(run)
    if not arrays and any(event.get("event") == "epoch" for event in read_events(run)):
        raise ConfigError(f"run {run} has lost its {CHECKPOINT}: put back a copy of it, or start a new run")
    return from_arrays(arrays, experiment.seed, str(run / CHECKPOINT))


def write_device(run: Path, description: DeviceDescription) -> None:
    """Write the description of the device that the run's variables belong to."""
    write_atomically(run / DEVICE, description.model_dump_json().encode())


def read_device(run: Path) -> DeviceDescription:
    """Return the description of the device that the run's variables belong to.

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
        reason = "it is damaged, or was written by another version"
    raise ConfigError(f"run {run} has no usable {DEVICE} ({reason}): put back a copy of it, or start a new run")


def changed_device(run: Path, address: DeviceAddress, now: DeviceDescription) -> Difference | None:
    """Return how a device differs from the one that run `run` was trained on, or None if it is the same.

    Parameters
    ----------
    run
        The run folder.
    address
        The device, for errors.
    now
        The description of the device.

    Raises
    ------
    ConfigError
        They differ in shape, so the run's variables have another meaning on this device.
    """
    changed = difference(read_device(run), now)
    if changed is not None and not changed.same_shape:
        raise ConfigError(f"the device {address} is not the one that run {run} was trained on: {changed.detail}")
    return changed


def check_variables(run: Path, state: Checkpoint, layers: list[Layer]) -> None:
    """Refuse a checkpoint with another number of variables than the device has channels.

    Raises
    ------
    ConfigError
        The sentence names the layer and both numbers.
    """
    for layer, phases in zip(layers, state.variables, strict=False):
        if phases.size != layer.stage.channels:
            raise ConfigError(
                f"run {run} has {phases.size} variables for {layer.name}, but stage {layer.stage.name} of the device has "
                f"{layer.stage.channels} channels"
            )
