"""A network of layers on the stages of a device: building it, measuring its layers, and its predictions.

Layers are cascaded on one chip. Layer k is stage k: its readings are taken at its own tap, and the rest of its light
passes through the nonlinearity to the next stage.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from photonloop.controller.calibration.calibrated_device import Calibration
from photonloop.controller.device.reconnecting import ReconnectingDevice
from photonloop.controller.experiment import Experiment
from photonloop.controller.learning.estimators.probe_step import longest_step
from photonloop.controller.learning.rng import Purpose, rng_stream
from photonloop.controller.learning.rules import Rule, majority_vote, make_rule
from photonloop.controller.learning.variable_space import VariableSpace, variable_space
from photonloop.controller.learning.variables import Phases, start_variables
from photonloop.protocols.config import ConfigError
from photonloop.protocols.device import DeviceDescription, Drive, LoadedRows, Readings, StageDescription
from photonloop.protocols.errors import DeviceError

DRIVE_BYTES = 2**25
"""Largest drives of one evaluation [bytes]. They are one message, and servers accept at least twice this size."""

LONGEST_S = 1.0
"""Longest evaluation [s] on a device in real time, outside updates: longer measurements are divided into several."""


@dataclass(frozen=True)
class Layer:
    """One layer of the network.

    Parameters
    ----------
    name
        Name in messages and reports.
    stage
        The stage of the device that implements it.
    groups
        Kinds of phase shifters (θ, φ, γ) as slices of the stage's channels.
    rule
        Its local objective.
    space
        What its variables are.
    """

    name: str
    stage: StageDescription
    groups: list[slice]
    rule: Rule
    space: VariableSpace


@dataclass(frozen=True)
class Prediction:
    """Predictions of a network for some samples.

    Parameters
    ----------
    layers
        Predicted class of each layer, shape (layers, samples).
    vote
        Predicted class of the network, shape (samples,).
    readings
        Readings of each layer, shape (samples, tap ports).
    flags
        FLAG_* of each layer's readings, shape (1, tap ports).
    """

    layers: NDArray[np.int64]
    vote: NDArray[np.int64]
    readings: list[NDArray[np.float32]]
    flags: list[NDArray[np.uint32]]


def build_network(
    experiment: Experiment, description: DeviceDescription, classes: int, calibration: Calibration | None = None
) -> list[Layer]:
    """Return the layers of `experiment` on the stages of a device, with calibrated phases if there is a calibration.

    Raises
    ------
    ConfigError
        There are more layers than stages, several layers on weight banks, a layer has fewer readings than there are
        classes, or its stage is not in the calibration.
    """
    count = experiment.network.layers
    if count > len(description.stages):
        raise ConfigError(f"network.layers is {count}, but the device has {len(description.stages)} stages")
    if count > 1 and any(stage.topology == "weight_bank" for stage in description.stages[:count]):
        raise ConfigError(
            f"network.layers is {count}, but the device's stages are weight banks, which pass no light to each other: "
            "set network.layers to 1"
        )
    layers: list[Layer] = []
    for number, stage in enumerate(description.stages[:count]):
        rng = rng_stream(experiment.seed, Purpose.PROTOTYPES, number)
        try:
            rule = make_rule(experiment.rule, classes, stage.tap_ports, rng)
        except ValueError as error:
            raise ConfigError(f"stage {stage.name}: {error}") from None
        groups = [slice(*bounds) for bounds in stage.groups.values()]
        layers.append(Layer(f"layer {number + 1}", stage, groups, rule, variable_space(description, stage, calibration)))
    return layers


def layer_start(layer: Layer, seed: int, number: int) -> Phases:
    """Return the starting variables of layer `number` of an experiment with this seed, shape (channels,)."""
    bounds = layer.space.bounds(0.0, longest_step(layer.stage.ports))
    return start_variables(bounds, rng_stream(seed, Purpose.START, number))


def with_starts(layers: list[Layer], variables: list[Phases], seed: int) -> list[Phases]:
    """Return the variables of all layers: `variables`, and the starting variables of the layers that have none yet.

    A layer is heated before it is trained, so that the temperature of the chip, on which the layers before it depend,
    stays about the same for the whole session.
    """
    starts = [layer_start(layers[k], seed, k) for k in range(len(variables), len(layers))]
    return [*variables, *starts]


def held_drive(description: DeviceDescription, layers: list[Layer], variables: list[Phases]) -> NDArray[np.float64]:
    """Return the drive [V] of the whole device at `variables`; stages without variables are at the lowest drive."""
    drive = np.full(description.channels, description.drive.min_v)
    for layer, phases in zip(layers, variables, strict=False):
        first = layer.stage.first_channel
        drive[first : first + layer.stage.channels] = layer.space.drives(phases[np.newaxis])[0]
    return drive


def evaluation_size(description: DeviceDescription, stage: StageDescription, samples: int) -> tuple[int, int]:
    """Return the highest number of settings and of samples, at most `samples`, in one evaluation of a stage.

    The bounds are max_batch, max_readings and max_settings of the device, and `DRIVE_BYTES`. On a device in real time
    an evaluation also takes about `LONGEST_S` at most, so that a request to stop is answered soon.
    """
    limits, settle_s, sample_s = description.limits, description.drive.settle_s, description.readout.sample_s
    in_time = LONGEST_S / sample_s if description.clock == "real" and sample_s > 0 else samples
    samples = max(1, min(samples, limits.max_batch, limits.max_readings // stage.tap_ports, int(in_time)))
    setting_s = settle_s + samples * sample_s
    in_time = LONGEST_S / setting_s if description.clock == "real" and setting_s > 0 else limits.max_settings
    settings = min(
        limits.max_settings,
        limits.max_readings // (samples * stage.tap_ports),
        DRIVE_BYTES // (stage.channels * np.dtype(np.float64).itemsize),
        int(in_time),
    )
    return max(1, settings), samples


def measure_drives(link: ReconnectingDevice, layer: Layer, drives: Drive, rows: LoadedRows) -> Readings:
    """Return the readings of one layer at `drives` [V], shape (settings, channels), in as many evaluations as needed.

    No evaluation is larger than `evaluation_size`.

    Raises
    ------
    SessionStopped
        A stop was requested; checked before every evaluation.
    DeviceError
        As `ReconnectingDevice.evaluate`. Code "device" if a reading is NaN or infinite.
    """
    stage = layer.stage
    count, samples = evaluation_size(link.description, stage, rows.rows.size)
    parts = [
        [
            link.evaluate(drives[first : first + count], LoadedRows(rows.name, rows.rows[start : start + samples]), stage.name)
            for start in range(0, rows.rows.size, samples)
        ]
        for first in range(0, len(drives), count)
    ]
    values = np.concatenate([np.concatenate([part.values for part in some], axis=1) for some in parts])
    if not np.isfinite(values).all():
        raise DeviceError("device", f"readings of {layer.name} contain NaN or infinity: check its detectors")
    return Readings(
        values=values,
        time_s=np.concatenate([some[0].time_s for some in parts]),
        flags=np.concatenate([np.bitwise_or.reduce([part.flags for part in some]) for some in parts]),
    )


def measure_settings(link: ReconnectingDevice, layer: Layer, settings: Phases, rows: LoadedRows) -> Readings:
    """Return the readings of one layer at `settings` of its variables, (settings, channels); as `measure_drives`."""
    return measure_drives(link, layer, layer.space.drives(settings), rows)


def measure_layer(link: ReconnectingDevice, layer: Layer, phases: Phases, rows: LoadedRows) -> Readings:
    """Return the readings of one layer at `phases`, shape (channels,), for rows of loaded inputs."""
    return measure_settings(link, layer, phases[np.newaxis], rows)


def predict(
    link: ReconnectingDevice, layers: list[Layer], variables: list[Phases], seed: int, inputs: str, samples: int
) -> Prediction:
    """Return the predictions of the trained layers and of the network.

    Parameters
    ----------
    link, layers
        The device and all layers on it.
    variables
        Variables of the layers that have been started; the others are held at their start, and are not measured.
    seed
        Seed of the experiment.
    inputs, samples
        Name of the loaded inputs, and how many of their rows are measured.
    """
    link.apply(held_drive(link.description, layers, with_starts(layers, variables, seed)))
    layers, rows = layers[: len(variables)], LoadedRows(inputs, np.arange(samples))
    read = [measure_layer(link, layer, phases, rows) for layer, phases in zip(layers, variables, strict=True)]
    readings = [each.values[0] for each in read]
    scores = [layer.rule.scores(values) for layer, values in zip(layers, readings, strict=True)]
    votes = np.stack([score.argmax(axis=1) for score in scores])
    return Prediction(layers=votes, vote=majority_vote(votes, scores[-1]), readings=readings, flags=[each.flags for each in read])
