"""Train, resume and evaluate: combine device, data, network, session and run folder.

These functions do what `photonloop train` and `photonloop evaluate` do, for scripts and notebooks.
"""

from __future__ import annotations

import secrets
import time
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from photonloop.controller.data.datasets import Dataset, load_dataset
from photonloop.controller.data.encoding import encode, fit_encoding
from photonloop.controller.device.address import DeviceAddress, with_absolute_path
from photonloop.controller.device.compatibility import check_fits, same_chip, virtual_chip
from photonloop.controller.device.device_difference import Difference
from photonloop.controller.device.open_device import OpenDevice, check_device, open_device
from photonloop.controller.device.processes import VirtualChip
from photonloop.controller.device.reconnecting import ReconnectingDevice
from photonloop.controller.experiment import Experiment, as_toml
from photonloop.controller.learning.network import Layer, Prediction, build_network, predict
from photonloop.controller.learning.progress import Listener
from photonloop.controller.learning.session import TEST, TRAIN, Samples, Session
from photonloop.controller.learning.session_reporting import SessionReporter
from photonloop.controller.learning.variable_space import CALIBRATION, calibration_of
from photonloop.controller.runs.checkpoint import RUN_FORMAT, Checkpoint
from photonloop.controller.runs.provenance import (
    absolute_path,
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
from photonloop.controller.runs.run_folder import EXPERIMENT, RunFolder, new_run, versions
from photonloop.controller.stopping import SessionStopped, Stop
from photonloop.protocols.atomic_files import write_atomically
from photonloop.protocols.config import ConfigError
from photonloop.protocols.errors import DeviceError


@dataclass(frozen=True)
class Result:
    """The result of a finished session, or of an evaluation.

    Parameters
    ----------
    run
        The run folder.
    device
        Device string.
    test_accuracy
        Accuracy of the vote over all layers.
    layers
        Name and test accuracy of each layer.
    evaluations
        Settings measured over the whole run.
    wall_s
        Duration of this session [s].
    """

    run: str
    device: str
    test_accuracy: float
    layers: list[dict[str, Any]]
    evaluations: int
    wall_s: float


@dataclass(frozen=True)
class _Setup:
    """An experiment with its data and its open device.

    Parameters
    ----------
    experiment
        The experiment.
    device
        Address of the open device.
    dataset
        The data.
    link
        The open device.
    lease_key
        Key of the device's write lease.
    changed
        How the device differs from the one the run was trained on; None for the same device, and for a new run.
    """

    experiment: Experiment
    device: DeviceAddress
    dataset: Dataset
    link: ReconnectingDevice
    lease_key: str
    changed: Difference | None


def train(
    experiment: Experiment,
    *,
    runs: Path,
    listener: Listener,
    stop: Stop | None = None,
    keys: Path | None = None,
) -> Result:
    """Run a new session of `experiment` in a new folder under `runs`.

    Parameters
    ----------
    experiment
        The experiment.
    runs
        Folder of the run folders.
    listener
        Receives messages and progress.
    stop
        Stops the session when requested.
    keys
        Folder of the CURVE keys for a device server.

    Raises
    ------
    ConfigError, DataError
        Experiment, data and device are not compatible; nothing was applied to the device.
    DeviceError
        The device cannot be opened, or failed and reconnecting did not help.
    SessionStopped
        `stop` was requested. If a run folder exists by then, the run can be resumed.
    """
    address = with_absolute_path(check_device(experiment.device, keys))
    calibration = None if experiment.calibration is None else absolute_path(experiment.calibration)
    changes = {"data": with_absolute_paths(experiment.data), "device": str(address), "calibration": calibration}
    experiment = experiment.model_copy(update=changes)
    stop, reporter = stop or Stop(), SessionReporter(listener)
    with ExitStack() as folders, _set_up(experiment, address, None, reporter, stop, keys) as setup:
        layers, clipped = _build_network(setup)
        path = new_run(runs, experiment.name)
        write_atomically(path / EXPERIMENT, as_toml(experiment).encode())
        write_device(path, setup.link.description)
        if calibration is not None:
            write_atomically(path / CALIBRATION, Path(calibration).read_bytes())
        reporter.folder = folder = folders.enter_context(closing(RunFolder(path)))
        if setup.link.description.warnings:
            reporter.warn(" ".join(setup.link.description.warnings))
        if clipped:
            reporter.warn(f"{clipped} values of the test set were outside the range of the training set and were limited to it")
        reporter.event(
            "start",
            run_format=RUN_FORMAT,
            device=experiment.device,
            seed=experiment.seed,
            lease_key=setup.lease_key,
            data=dataset_digest(setup.dataset),
            experiment=experiment_digest(experiment),
            clipped=clipped,
            versions=versions(),
        )
        listener.message(f"run {path}")
        return _run_session(setup, layers, Checkpoint(), folder, listener, stop)


def resume(
    run: Path,
    *,
    listener: Listener,
    device: str | None = None,
    stop: Stop | None = None,
    keys: Path | None = None,
) -> Result:
    """Continue the session in folder `run`, on the device it was trained on.

    To continue on another chip of the same shape, name it as `device`: variables and optimiser state are kept, and the
    run folder stores the description of the new chip.

    Parameters
    ----------
    run
        The run folder.
    listener, stop, keys
        As for `train`.
    device
        Device string. None: the device of the experiment.

    Raises
    ------
    ConfigError, DataError, DeviceError, SessionStopped
        As for `train`. Also ConfigError if `run` is no run folder, its checkpoint is damaged, or the device is not
        the same as before.
    """
    experiment = open_run(run)
    address = check_device(device or experiment.device, keys)
    stop = stop or Stop()
    # The folder is locked before anything is read: a session that is just stopping may still write to it.
    with closing(RunFolder(run)) as folder:
        reporter = SessionReporter(listener, folder)
        state = read_saved_checkpoint(run, experiment)
        with _set_up(experiment, address, run, reporter, stop, keys, keeps_lease=True) as setup:
            changed = setup.changed
            if changed is not None and device is None:
                raise ConfigError(
                    f"{address} is another chip than the one run {run} was trained on: {changed.detail}. Reconnect that chip, or "
                    f"name this one to continue on it: photonloop train --resume {run} --device {address}"
                )
            if changed is not None and state.finished:
                raise ConfigError(
                    f"run {run} is finished, and {address} is another chip than the one it was trained on ({changed.detail}): to "
                    f"measure its accuracy there, use photonloop evaluate {run} --device {address}"
                )
            layers, _ = _build_network(setup, run, state)
            if changed is not None:
                reporter.warn(f"{address} is another chip than the one the run was trained on so far: {changed.detail}")
                write_device(run, setup.link.description)
            reporter.event("resume", device=str(address), update=state.total, versions=versions())
            after = f"resuming after update {state.total + folder.journalled}"
            reporter.message(f"run {run}: {'finished, measuring it again' if state.finished else after}")
            return _run_session(setup, layers, state, folder, listener, stop)


def evaluate(
    run: Path,
    *,
    listener: Listener,
    device: str | None = None,
    stop: Stop | None = None,
    keys: Path | None = None,
) -> Result:
    """Return the test accuracies of the network in folder `run` in its present state, measured on a device.

    Another chip of the same shape is measured too, with a warning. Nothing in the run folder changes.

    Parameters
    ----------
    run, listener, device, stop, keys
        As for `resume`.

    Raises
    ------
    ConfigError, DataError, DeviceError, SessionStopped
        As for `resume`. Also ConfigError if no layer has been started yet.
    """
    began = time.monotonic()
    experiment = open_run(run)
    address = check_device(device or experiment.device, keys)
    stop, reporter = stop or Stop(), SessionReporter(listener)
    state = read_saved_checkpoint(run, experiment)
    if not state.variables:
        raise ConfigError(f"run {run} has not been trained yet: photonloop train --resume {run}")
    with _set_up(experiment, address, run, reporter, stop, keys) as setup:
        if setup.changed is not None:
            reporter.warn(f"{address} is another chip than the one run {run} was trained on: {setup.changed.detail}")
        layers, _ = _build_network(setup, run, state, trains=False)
        prediction = predict(setup.link, layers, state.variables, experiment.seed, TEST, setup.dataset.y_test.size)
    layers = layers[: len(state.variables)]
    for layer, flags in zip(layers, prediction.flags, strict=True):
        reporter.flags(layer, flags, "of the test set")
    return _result(run, setup, layers, prediction, state, began)


def load_sets(link: ReconnectingDevice, experiment: Experiment, dataset: Dataset) -> int:
    """Load the encoded training and test sets on the device; return how many test values were outside the range.

    Raises
    ------
    DataError
        There are more features than the device has input ports.
    """
    encoding = fit_encoding(dataset.x_train, experiment.encoding)
    ports = link.description.input_ports
    train, test = encode(dataset.x_train, encoding, ports), encode(dataset.x_test, encoding, ports)
    link.load_inputs(TRAIN, train.amplitudes)
    link.load_inputs(TEST, test.amplitudes)
    return test.clipped


@contextmanager
def _set_up(
    experiment: Experiment,
    device: DeviceAddress,
    run: Path | None,
    reporter: SessionReporter,
    stop: Stop,
    keys: Path | None,
    *,
    keeps_lease: bool = False,
) -> Iterator[_Setup]:
    """Load the data and open the device; make the device safe and close it on exit.

    Parameters
    ----------
    experiment, device, reporter, stop, keys
        As for `train` and `resume`.
    run
        Folder of an existing run, whose data and device are checked; None for a new run.
    keeps_lease
        Open the device under the lease key of the run, which takes it over from an earlier session of the same run.
    """
    # The size of a virtual chip depends on the data. Any other device is opened first, so that an error is reported
    # without delay.
    dataset = _load(experiment, stop) if run is not None or device.kind == "sim" else None
    lease_key, chip = secrets.token_hex(16), VirtualChip()
    if dataset is not None and run is not None:
        start = read_start_event(run, experiment, dataset)
        lease_key = str(start.get("lease_key", "")) or lease_key if keeps_lease else lease_key
        chip = same_chip(device, read_device(run), experiment.seed)
    elif dataset is not None:
        chip = virtual_chip(device, experiment, dataset)

    def opener() -> OpenDevice:
        return open_device(device, write=True, chip=chip, label=experiment.name, lease_key=lease_key, keys=keys, stop=stop)

    link = ReconnectingDevice(
        opener,
        stop=stop,
        on_lost=reporter.device_lost,
        on_restored=reporter.device_back,
        on_waiting=reporter.message,
    )
    with closing(link):
        changed = None if run is None else changed_device(run, device, link.description)
        yield _Setup(experiment, device, dataset or _load(experiment, stop), link, lease_key, changed)


def _load(experiment: Experiment, stop: Stop) -> Dataset:
    with stop.at_once("while the data was read"):
        return load_dataset(experiment.data)


def _build_network(
    setup: _Setup, run: Path | None = None, state: Checkpoint | None = None, *, trains: bool = True
) -> tuple[list[Layer], int]:
    """Build the network on the device and load the inputs; return its layers, and how many test values were limited.

    With `trains` false, limits on updates are not checked.
    """
    experiment, description = setup.experiment, setup.link.description
    calibration = calibration_of(experiment, run, description)
    layers = build_network(experiment, description, len(setup.dataset.classes), calibration)
    if run is not None and state is not None:
        check_variables(run, state, layers if trains else layers[: len(state.variables)])
    if trains:
        check_fits(experiment, description, layers, setup.dataset.y_train.size)
    return layers, load_sets(setup.link, experiment, setup.dataset)


def _run_session(
    setup: _Setup, layers: list[Layer], state: Checkpoint, folder: RunFolder, listener: Listener, stop: Stop
) -> Result:
    began, dataset = time.monotonic(), setup.dataset
    session = Session(
        experiment=setup.experiment,
        link=setup.link,
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
        listener.message(f"the run is saved up to its last update; to continue: photonloop train --resume {folder.path}")
        raise
    result = _result(folder.path, setup, layers, prediction, state, began)
    folder.event("result", **vars(result))
    return result


def _result(run: Path, setup: _Setup, layers: list[Layer], prediction: Prediction, state: Checkpoint, began: float) -> Result:
    labels = setup.dataset.y_test
    correct = prediction.layers == labels
    return Result(
        run=str(run),
        device=str(setup.device),
        test_accuracy=float(np.mean(prediction.vote == labels)),
        layers=[{"name": layer.name, "test_accuracy": float(correct[k].mean())} for k, layer in enumerate(layers)],
        evaluations=state.evaluations,
        wall_s=round(time.monotonic() - began, 3),
    )
