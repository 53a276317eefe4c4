"""From an experiment to a finished run: data, device, network, session and folder put together.

What `photonloop train` and `photonloop evaluate` do, as functions for scripts and notebooks.
"""

from __future__ import annotations

import hashlib
import secrets
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from controller.datasets import Dataset, DataSpec, load_dataset
from controller.devices import OpenDevice, VirtualChip, check_device_string, open_device
from controller.encoding import encode, fit_encoding
from controller.estimators import estimator
from controller.experiment import Experiment, as_toml, load_experiment
from controller.link import DeviceLink
from controller.network import Layer, Prediction, build_network, predict
from controller.run import CHECKPOINT, DEVICE, EXPERIMENT, RunFolder, new_run, read_checkpoint, read_events, versions, write_aside
from controller.session import TEST, TRAIN, Listener, Samples, Session, SessionStopped
from controller.state import State, from_arrays
from controller.variables import stage_box
from protocols.device import DeviceDescription
from protocols.errors import DeviceError
from protocols.validation import ConfigError

Opener = Callable[[], OpenDevice]
Stopped = Callable[[], bool]


@dataclass(frozen=True)
class Result:
    """What a finished session, or an evaluation, answers.

    Parameters
    ----------
    run
        The run folder.
    device
        Device string.
    test_accuracy
        Of the vote over all layers.
    layers
        Name and test accuracy of each layer.
    evaluations
        Settings measured over the whole run.
    wall_s
        Seconds of this session.
    """

    run: str
    device: str
    test_accuracy: float
    layers: list[dict[str, Any]]
    evaluations: int
    wall_s: float


def virtual_chip(device: str, experiment: Experiment, dataset: Dataset) -> VirtualChip:
    """Return what a virtual chip should be for this experiment; a chip file is a chip already, and taken as it is."""
    if device.endswith(".toml"):
        return VirtualChip()
    needed = max(dataset.x_train.shape[1] + (experiment.encoding.reference > 0), len(dataset.classes))
    ports = experiment.network.ports or needed + needed % 2
    return VirtualChip(ports=ports, stages=experiment.network.layers, seed=experiment.seed)


def with_absolute_paths(spec: DataSpec) -> DataSpec:
    """Return `spec` with its files named from the root, so that a run can be resumed from another folder."""
    files = {"path": spec.path, "source": spec.source if spec.source.endswith(".npz") else None}
    return spec.model_copy(update={key: str(Path(file).expanduser().resolve()) for key, file in files.items() if file})


def pinned(device: str) -> str:
    """Return a device string with its chip file or station file named from the root."""
    kind, _, source = device.partition(":")
    if kind == "lab":
        file, query, limits = source.partition("?")
        return f"lab:{Path(file).expanduser().resolve()}{query}{limits}"
    return f"sim:{Path(source).expanduser().resolve()}" if kind == "sim" and source.endswith(".toml") else device


def check_fits(experiment: Experiment, description: DeviceDescription, layers: list[Layer], samples: int) -> None:
    """Refuse an experiment whose updates the device would refuse.

    Raises
    ------
    ConfigError
        One sentence that names the key, its value and the device's limit.
    """
    limits, spec = description.limits, experiment.estimator
    batch, settings = min(experiment.training.batch, samples), 2 * spec.directions
    if batch > limits.max_batch:
        raise ConfigError(f"training.batch is {batch}, but the device takes {limits.max_batch} samples at once")
    if settings > limits.max_settings:
        raise ConfigError(
            f"estimator.directions is {spec.directions}, but the device takes {limits.max_settings} settings at once"
        )
    for layer in layers:
        readings = settings * batch * layer.stage.tap_ports
        if readings > limits.max_readings:
            raise ConfigError(
                f"estimator.directions {spec.directions} and training.batch {batch} make {readings} readings, but the device "
                f"takes {limits.max_readings} at once"
            )
        if spec.step != "auto":
            try:
                stage_box(description, layer.stage, estimator(spec).reach(spec.step, layer.groups))
            except ValueError as error:
                raise ConfigError(f"estimator.step is {spec.step:g}, but {error}") from None


def stage_parts(link: DeviceLink, experiment: Experiment, dataset: Dataset) -> int:
    """Stage the encoded training and test parts; return how many test values lay outside the training range.

    Raises
    ------
    DataError
        More features than the device has input ports.
    """
    encoding = fit_encoding(dataset.x_train, experiment.encoding)
    ports = link.description.input_ports
    train, test = encode(dataset.x_train, encoding, ports), encode(dataset.x_test, encoding, ports)
    link.stage(TRAIN, train.amplitudes)
    link.stage(TEST, test.amplitudes)
    return test.clipped


def train(
    experiment: Experiment,
    *,
    runs: Path,
    listener: Listener,
    stopped: Stopped = lambda: False,
    keys: Path | None = None,
) -> Result:
    """Run a new session of `experiment` in a new folder under `runs`.

    Raises
    ------
    ConfigError, DataError
        Something does not fit, before anything is applied.
    DeviceError
        The device cannot be had, or failed beyond mending.
    SessionStopped
        `stopped` said so; the run can be resumed.
    """
    check_device_string(experiment.device)
    experiment = experiment.model_copy(update={"data": with_absolute_paths(experiment.data), "device": pinned(experiment.device)})
    # A virtual chip is built to the data; whether any other device is there is known sooner than the data is read.
    dataset = load_dataset(experiment.data) if experiment.device.startswith("sim") else None
    chip = virtual_chip(experiment.device, experiment, dataset) if dataset is not None else VirtualChip()
    lease_key = secrets.token_hex(16)
    opener = _opener(experiment.device, chip, experiment.name, lease_key, keys)
    watch = _Watch(listener)
    link = DeviceLink(opener, stopped=stopped, lost=watch.lost, found=watch.found)
    try:
        if dataset is None:
            dataset = load_dataset(experiment.data)
        layers = build_network(experiment, link.description, len(dataset.classes))
        check_fits(experiment, link.description, layers, dataset.y_train.size)
        clipped = stage_parts(link, experiment, dataset)
        path = new_run(runs, experiment.name)
        write_aside(path / EXPERIMENT, as_toml(experiment).encode())
        write_aside(path / DEVICE, link.description.model_dump_json().encode())
        folder = watch.folder = RunFolder(path)
        if clipped:
            watch.warn(f"{clipped} values of the test part lie outside the range of the training part and were limited to it")
        folder.event(
            "start",
            device=experiment.device,
            seed=experiment.seed,
            session=lease_key,
            data=digest(dataset),
            experiment=fingerprint(experiment),
            clipped=clipped,
            versions=versions(),
        )
        listener.message(f"run {path}")
        return _run_session(experiment, link, layers, dataset, State(), folder, listener, stopped)
    finally:
        link.close()
        if watch.folder is not None:
            watch.folder.close()


def resume(
    run: Path,
    *,
    listener: Listener,
    device: str | None = None,
    stopped: Stopped = lambda: False,
    keys: Path | None = None,
) -> Result:
    """Go on with the session in folder `run`, on its own device or on another one of the same shape.

    Raises as `train` does, and `ConfigError` where the folder is no run or its checkpoint is damaged.
    """
    experiment = open_run(run)
    string = device or experiment.device
    check_device_string(string)
    folder = RunFolder(run)  # before anything is read: a session that is just stopping may still write
    watch = _Watch(listener, folder)
    try:
        state = _state(run, experiment)
        dataset = load_dataset(experiment.data)
        lease_key = str(_started(run, experiment, dataset).get("session", "")) or secrets.token_hex(16)
        opener = _opener(string, _same_chip(string, run, experiment), experiment.name, lease_key, keys)
        link = DeviceLink(opener, stopped=stopped, lost=watch.lost, found=watch.found)
    except BaseException:
        folder.close()
        raise
    try:
        layers = build_network(experiment, link.description, len(dataset.classes))
        _check_fits(state, layers, run)
        stage_parts(link, experiment, dataset)
        folder.event("resume", device=string, update=state.total, versions=versions())
        told = "finished: measuring it again" if state.finished else f"resuming after update {state.total + folder.journalled}"
        watch.tell(f"run {run}: {told}")
        return _run_session(experiment, link, layers, dataset, state, folder, listener, stopped, string)
    finally:
        link.close()
        folder.close()


def evaluate(run: Path, *, device: str | None = None, stopped: Stopped = lambda: False, keys: Path | None = None) -> Result:
    """Return the test accuracies of the network in folder `run` as it is now, measured on a device.

    Raises as `resume` does, and `ConfigError` where no layer has been begun.
    """
    began = time.monotonic()
    experiment = open_run(run)
    string = device or experiment.device
    check_device_string(string)
    state = _state(run, experiment)
    if not state.variables:
        raise ConfigError(f"run {run} has learned nothing yet: photonloop train --resume {run}")
    dataset = load_dataset(experiment.data)
    _started(run, experiment, dataset)
    opener = _opener(string, _same_chip(string, run, experiment), experiment.name, secrets.token_hex(16), keys)
    link = DeviceLink(opener, stopped=stopped)
    try:
        layers = build_network(experiment, link.description, len(dataset.classes))[: len(state.variables)]
        _check_fits(state, layers, run)
        stage_parts(link, experiment, dataset)
        prediction = predict(link, layers, state.variables, TEST, dataset.y_test.size)
    finally:
        link.close()
    return _result(run, string, layers, prediction, dataset, state, began)


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
    """Return a digest of all features and labels: a run goes on with the data it began with, or not at all."""
    found = hashlib.sha256()
    for part in (dataset.x_train, dataset.y_train, dataset.x_test, dataset.y_test):
        found.update(str(part.shape).encode() + np.ascontiguousarray(part).tobytes())
    return found.hexdigest()


def fingerprint(experiment: Experiment) -> str:
    """Return a digest of all that decides what is learned: everything but the name and the device."""
    return hashlib.sha256(experiment.model_dump_json(exclude={"name", "device"}).encode()).hexdigest()


def _started(run: Path, experiment: Experiment, dataset: Dataset) -> dict[str, Any]:
    """Return the first event of a run, which must have begun with the same experiment and data."""
    started = next((event for event in read_events(run) if event.get("event") == "start"), {})
    if started.get("experiment", now := fingerprint(experiment)) != now:
        raise ConfigError(f"experiment.toml of run {run} is not what it began with: put it back, or start a new run")
    if started.get("data", now := digest(dataset)) != now:
        raise ConfigError(f"the data of run {run} is not what it began with: put it back, or start a new run")
    return started


def _state(run: Path, experiment: Experiment) -> State:
    """Return the state in the checkpoint of a run, or a fresh one where nothing was learned before the end came."""
    arrays = read_checkpoint(run)
    if not arrays and any(event.get("event") == "epoch" for event in read_events(run)):
        raise ConfigError(f"run {run} has lost its checkpoint.npz: put back a copy of it, or start a new run")
    return from_arrays(arrays, experiment.seed, str(run / CHECKPOINT))


def _same_chip(device: str, run: Path, experiment: Experiment) -> VirtualChip:
    """Return a virtual chip of the shape that the run was begun on; a chip file is taken as it is."""
    if device.endswith(".toml"):
        return VirtualChip()
    try:
        began = DeviceDescription.model_validate_json((run / DEVICE).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ConfigError(f"run {run} has no usable {DEVICE}: {str(error).splitlines()[0]}") from None
    return VirtualChip(ports=began.input_ports, stages=len(began.stages), seed=experiment.seed)


def _run_session(
    experiment: Experiment,
    link: DeviceLink,
    layers: list[Layer],
    dataset: Dataset,
    state: State,
    folder: RunFolder,
    listener: Listener,
    stopped: Stopped,
    device: str | None = None,
) -> Result:
    began = time.monotonic()
    session = Session(
        experiment=experiment,
        link=link,
        layers=layers,
        samples=Samples(dataset.y_train, dataset.y_test, tuple(str(label) for label in dataset.classes)),
        state=state,
        folder=folder,
        listener=listener,
        stopped=stopped,
    )
    try:
        prediction = session.run()
    except (SessionStopped, DeviceError, OSError, ValueError) as reason:
        folder.event("stopped", update=state.total, reason=str(reason))
        folder.log(f"stopped: {reason}")
        listener.message(f"the run stands as it was at its last step: photonloop train --resume {folder.path}")
        raise
    result = _result(folder.path, device or experiment.device, layers, prediction, dataset, state, began)
    folder.event("result", **vars(result))
    return result


def _result(
    run: Path, device: str, layers: list[Layer], prediction: Prediction, dataset: Dataset, state: State, began: float
) -> Result:
    right = prediction.layers == dataset.y_test
    return Result(
        run=str(run),
        device=device,
        test_accuracy=float(np.mean(prediction.vote == dataset.y_test)),
        layers=[{"name": layer.name, "test_accuracy": float(right[k].mean())} for k, layer in enumerate(layers)],
        evaluations=state.evaluations,
        wall_s=round(time.monotonic() - began, 3),
    )


def _check_fits(state: State, layers: list[Layer], run: Path) -> None:
    for layer, phases in zip(layers, state.variables, strict=False):
        if phases.size != layer.stage.channels:
            raise ConfigError(
                f"run {run} holds {phases.size} variables for {layer.name}, but stage {layer.stage.name} of the device has "
                f"{layer.stage.channels} channels"
            )


def _opener(string: str, chip: VirtualChip, label: str, lease_key: str, keys: Path | None) -> Opener:
    def opener() -> OpenDevice:
        return open_device(string, write=True, chip=chip, label=label, lease_key=lease_key, keys=keys)

    return opener


class _Watch:
    """Passes on what the link tells: to the listener, and to the run folder once there is one."""

    def __init__(self, listener: Listener, folder: RunFolder | None = None) -> None:
        self.listener, self.folder = listener, folder

    def lost(self, message: str) -> None:
        self._pass_on("device_lost", message)

    def found(self, message: str) -> None:
        self._pass_on("device_back", message)

    def tell(self, message: str) -> None:
        if self.folder is not None:
            self.folder.log(message)
        self.listener.message(message)

    def warn(self, message: str) -> None:
        self._pass_on("warning", message)

    def _pass_on(self, event: str, message: str) -> None:
        if self.folder is not None:
            self.folder.event(event, message=message)
        self.tell(message)
