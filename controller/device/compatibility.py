"""Experiment and device made to fit each other: virtual chips built to an experiment, experiments checked against a device."""

from __future__ import annotations

from pathlib import Path

from photonloop.controller.data.datasets import Dataset, DataSpec, mnist_file
from photonloop.controller.device.processes import VirtualChip
from photonloop.controller.experiment import Experiment
from photonloop.controller.learning.estimators import estimator
from photonloop.controller.learning.network import Layer
from photonloop.controller.learning.variables import stage_bounds
from photonloop.controller.runs.provenance import read_device
from photonloop.protocols.config import ConfigError
from photonloop.protocols.device import DeviceDescription


def virtual_chip(device: str, experiment: Experiment, dataset: Dataset) -> VirtualChip:
    """Return what a virtual chip should be for this experiment; a chip file is a chip already, and taken as it is."""
    if device.endswith(".toml"):
        return VirtualChip()
    needed = max(dataset.x_train.shape[1] + (experiment.encoding.reference > 0), len(dataset.classes))
    ports = experiment.network.ports or needed + needed % 2
    return VirtualChip(ports=ports, stages=experiment.network.layers, seed=experiment.seed)


def with_absolute_paths(spec: DataSpec) -> DataSpec:
    """Return `spec` with its files named from the root, so that a run can be resumed from another folder."""
    files = {"path": mnist_file(spec), "source": spec.source if spec.source.endswith(".npz") else None}
    return spec.model_copy(update={key: str(Path(file).expanduser().resolve()) for key, file in files.items() if file})


def pinned(device: str) -> str:
    """Return a device string with its chip file, station file or socket named from the root."""
    kind, _, source = device.partition(":")
    if device.startswith("ipc://") and not device.startswith("ipc://@"):
        return f"ipc://{Path(device.removeprefix('ipc://')).expanduser().resolve()}"
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
        if spec.probe_step_rad != "auto":
            try:
                stage_bounds(description, layer.stage, estimator(spec).probe_extent(spec.probe_step_rad, layer.groups))
            except ValueError as error:
                raise ConfigError(f"estimator.probe_step_rad is {spec.probe_step_rad:g}, but {error}") from None


def same_chip(device: str, run: Path, experiment: Experiment) -> VirtualChip:
    """Return a virtual chip of the shape that the run was begun on; a chip file is taken as it is."""
    if device.endswith(".toml"):
        return VirtualChip()
    began = read_device(run)
    return VirtualChip(ports=began.input_ports, stages=len(began.stages), seed=experiment.seed)
