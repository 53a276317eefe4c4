"""From an experiment to a finished run: data, device, network, session and folder put together.

What `photonloop train` and `photonloop evaluate` do, as functions for scripts and notebooks.
"""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from photonloop.controller.data.datasets import Dataset, load_dataset
from photonloop.controller.data.encoding import encode, fit_encoding
from photonloop.controller.device.address import DeviceAddress, with_absolute_path
from photonloop.controller.device.compatibility import check_fits, same_chip, virtual_chip
from photonloop.controller.device.open_device import OpenDevice, check_device, open_device
from photonloop.controller.device.processes import VirtualChip
from photonloop.controller.device.reconnecting import ReconnectingDevice
from photonloop.controller.experiment import Experiment, as_toml
from photonloop.controller.learning.network import Layer, Prediction, build_network, predict
from photonloop.controller.learning.progress import Listener
from photonloop.controller.learning.reading_flags import FlagWatch
from photonloop.controller.learning.session import TEST, TRAIN, Samples, Session
from photonloop.controller.runs.checkpoint import RUN_FORMAT, Checkpoint
from photonloop.controller.runs.provenance import (
    changed_device,
    check_variables,
    dataset_digest,
    experiment_digest,
    open_run,
    read_device,
    read_saved_checkpoint,
    read_start_event,
    with_absolute_paths,
    write_device,
)
from photonloop.controller.runs.run_folder import EXPERIMENT, RunFolder, new_run, versions, write_aside
from photonloop.controller.stopping import SessionStopped, Stop
from photonloop.protocols.config import ConfigError
from photonloop.protocols.errors import DeviceError

Opener = Callable[[], OpenDevice]


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


def stage_parts(link: ReconnectingDevice, experiment: Experiment, dataset: Dataset) -> int:
    """Stage the encoded training and test parts; return how many test values lay outside the training range.

    Raises
    ------
    DataError
        More features than the device has input ports.
    """
    encoding = fit_encoding(dataset.x_train, experiment.encoding)
    ports = link.description.input_ports
    train, test = encode(dataset.x_train, encoding, ports), encode(dataset.x_test, encoding, ports)
    link.load_inputs(TRAIN, train.amplitudes)
    link.load_inputs(TEST, test.amplitudes)
    return test.clipped


def train(
    experiment: Experiment,
    *,
    runs: Path,
    listener: Listener,
    stop: Stop | None = None,
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
        `stop` was asked for; where a run folder had been made by then, the run can be resumed.
    """
    address = with_absolute_path(check_device(experiment.device, keys))
    experiment = experiment.model_copy(update={"data": with_absolute_paths(experiment.data), "device": str(address)})
    stop = stop or Stop()
    # A virtual chip is built to the data; whether any other device is there is known sooner than the data is read.
    dataset = _load(experiment, stop) if address.kind == "sim" else None
    chip = virtual_chip(address, experiment, dataset) if dataset is not None else VirtualChip()
    lease_key = secrets.token_hex(16)
    opener = _opener(address, chip, experiment.name, lease_key, keys, stop)
    watch = _Watch(listener)
    link = ReconnectingDevice(opener, stop=stop, on_lost=watch.lost, on_restored=watch.found, on_waiting=watch.tell)
    try:
        if dataset is None:
            dataset = _load(experiment, stop)
        layers = build_network(experiment, link.description, len(dataset.classes))
        check_fits(experiment, link.description, layers, dataset.y_train.size)
        clipped = stage_parts(link, experiment, dataset)
        path = new_run(runs, experiment.name)
        write_aside(path / EXPERIMENT, as_toml(experiment).encode())
        write_device(path, link.description)
        folder = watch.folder = RunFolder(path)
        if clipped:
            watch.warn(f"{clipped} values of the test part lie outside the range of the training part and were limited to it")
        folder.event(
            "start",
            run_format=RUN_FORMAT,
            device=experiment.device,
            seed=experiment.seed,
            lease_key=lease_key,
            data=dataset_digest(dataset),
            experiment=experiment_digest(experiment),
            clipped=clipped,
            versions=versions(),
        )
        listener.message(f"run {path}")
        return _run_session(experiment, link, layers, dataset, Checkpoint(), folder, listener, stop)
    finally:
        link.close()
        if watch.folder is not None:
            watch.folder.close()


def resume(
    run: Path,
    *,
    listener: Listener,
    device: str | None = None,
    stop: Stop | None = None,
    keys: Path | None = None,
) -> Result:
    """Go on with the session in folder `run`, on the chip it learned on.

    To go on with another chip of the same shape, name it as `device`: variables and optimiser are taken over, and the run folder
    keeps the new chip's description.

    Raises as `train` does, and `ConfigError` where the folder is no run, its checkpoint is damaged, or the device is another
    one than it was.
    """
    experiment = open_run(run)
    address = check_device(device or experiment.device, keys)
    stop = stop or Stop()
    folder = RunFolder(run)  # before anything is read: a session that is just stopping may still write
    watch = _Watch(listener, folder)
    try:
        state = read_saved_checkpoint(run, experiment)
        dataset = _load(experiment, stop)
        lease_key = str(read_start_event(run, experiment, dataset).get("lease_key", "")) or secrets.token_hex(16)
        chip = same_chip(address, read_device(run), experiment.seed)
        opener = _opener(address, chip, experiment.name, lease_key, keys, stop)
        link = ReconnectingDevice(opener, stop=stop, on_lost=watch.lost, on_restored=watch.found, on_waiting=watch.tell)
    except BaseException:
        folder.close()
        raise
    try:
        changed = changed_device(run, address, link.description)
        if changed is not None and device is None:
            raise ConfigError(
                f"{address} is another chip than run {run} learned on: {changed.detail}; put that one back, or go on with this "
                f"one by naming it: photonloop train --resume {run} --device {address}"
            )
        if changed is not None and state.finished:
            raise ConfigError(
                f"run {run} is finished, and {address} is another chip than it learned on ({changed.detail}): "
                f"measure it there with photonloop evaluate {run} --device {address}"
            )
        layers = build_network(experiment, link.description, len(dataset.classes))
        check_variables(run, state, layers)
        check_fits(experiment, link.description, layers, dataset.y_train.size)
        stage_parts(link, experiment, dataset)
        if changed is not None:
            watch.warn(f"{address} is another chip than the one learned on so far: {changed.detail}")
            write_device(run, link.description)
        folder.event("resume", device=str(address), update=state.total, versions=versions())
        told = "finished: measuring it again" if state.finished else f"resuming after update {state.total + folder.journalled}"
        watch.tell(f"run {run}: {told}")
        return _run_session(experiment, link, layers, dataset, state, folder, listener, stop, str(address))
    finally:
        link.close()
        folder.close()


def evaluate(
    run: Path,
    *,
    listener: Listener,
    device: str | None = None,
    stop: Stop | None = None,
    keys: Path | None = None,
) -> Result:
    """Return the test accuracies of the network in folder `run` as it is now, measured on a device.

    Another chip of the same shape is warned of and measured. Raises as `resume` does otherwise, and `ConfigError` where no layer
    has been begun.
    """
    began = time.monotonic()
    experiment = open_run(run)
    address = check_device(device or experiment.device, keys)
    stop = stop or Stop()
    state = read_saved_checkpoint(run, experiment)
    if not state.variables:
        raise ConfigError(f"run {run} has learned nothing yet: photonloop train --resume {run}")
    dataset = _load(experiment, stop)
    read_start_event(run, experiment, dataset)
    watch = _Watch(listener)
    chip = same_chip(address, read_device(run), experiment.seed)
    opener = _opener(address, chip, experiment.name, secrets.token_hex(16), keys, stop)
    link = ReconnectingDevice(opener, stop=stop, on_lost=watch.lost, on_restored=watch.found, on_waiting=watch.tell)
    try:
        if (changed := changed_device(run, address, link.description)) is not None:
            watch.warn(f"{address} is another chip than run {run} learned on: {changed.detail}")
        layers = build_network(experiment, link.description, len(dataset.classes))[: len(state.variables)]
        check_variables(run, state, layers)
        stage_parts(link, experiment, dataset)
        prediction = predict(link, layers, state.variables, TEST, dataset.y_test.size)
    finally:
        link.close()
    flags = FlagWatch()
    for layer, seen in zip(layers, prediction.flags, strict=True):
        if (sentence := flags.look(layer.name, seen, "of the test part")) is not None:
            watch.warn(sentence)
    return _result(run, str(address), layers, prediction, dataset, state, began)


def _load(experiment: Experiment, stop: Stop) -> Dataset:
    with stop.at_once("while the data was read"):
        return load_dataset(experiment.data)


def _run_session(
    experiment: Experiment,
    link: ReconnectingDevice,
    layers: list[Layer],
    dataset: Dataset,
    state: Checkpoint,
    folder: RunFolder,
    listener: Listener,
    stop: Stop,
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
        stop=stop,
    )
    try:
        prediction = session.run()
    except (SessionStopped, KeyboardInterrupt, DeviceError, OSError, ValueError) as reason:
        words = str(reason) or "interrupted"
        folder.event("stopped", update=state.total, reason=words)
        folder.log(f"stopped: {words}")
        listener.message(f"the run stands as it was at its last step: photonloop train --resume {folder.path}")
        raise
    result = _result(folder.path, device or experiment.device, layers, prediction, dataset, state, began)
    folder.event("result", **vars(result))
    return result


def _result(
    run: Path, device: str, layers: list[Layer], prediction: Prediction, dataset: Dataset, state: Checkpoint, began: float
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


def _opener(address: DeviceAddress, chip: VirtualChip, label: str, lease_key: str, keys: Path | None, stop: Stop) -> Opener:
    def opener() -> OpenDevice:
        return open_device(address, write=True, chip=chip, label=label, lease_key=lease_key, keys=keys, stop=stop)

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
        self.tell(f"warning: {message}" if event == "warning" else message)
