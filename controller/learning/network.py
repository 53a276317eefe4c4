"""A network is layers on stages: what each layer may move, what it wants, and what it answers.

Layers are cascaded on one chip: layer k is stage k, light goes on through the nonlinearity to the next, and every layer's
readings are taken at its own tap.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from photonloop.controller.device.reconnecting import ReconnectingDevice
from photonloop.controller.experiment import Experiment
from photonloop.controller.learning.rng import Purpose, rng_stream
from photonloop.controller.learning.rules import Rule, majority_vote, make_rule
from photonloop.controller.learning.variables import Phases, to_drive
from photonloop.protocols.config import ConfigError
from photonloop.protocols.device import DeviceDescription, LoadedRows, Readings, StageDescription
from photonloop.protocols.errors import DeviceError

DRIVE_BYTES = 2**25
"""Drives of one evaluation travel as one message; servers take twice as much and more."""

LONGEST_S = 1.0
"""A look at a device in real time is cut into evaluations of about this length."""


@dataclass(frozen=True)
class Layer:
    """One layer of the network.

    Parameters
    ----------
    name
        For people.
    stage
        Where it lives on the device.
    groups
        Kinds of phase shifters (θ, φ, γ) as slices of the stage's channels.
    rule
        Its local objective.
    """

    name: str
    stage: StageDescription
    groups: list[slice]
    rule: Rule


@dataclass(frozen=True)
class Prediction:
    """What a network answers to some samples.

    Parameters
    ----------
    layers
        Predicted class of each layer, shape (layers, samples).
    vote
        Predicted class of the network, shape (samples,).
    readings
        Readings of each layer, shape (samples, tap ports).
    flags
        FLAG_* of each layer's readings, or-ed together.
    """

    layers: NDArray[np.int64]
    vote: NDArray[np.int64]
    readings: list[NDArray[np.float32]]
    flags: list[int]


def build_network(experiment: Experiment, description: DeviceDescription, classes: int) -> list[Layer]:
    """Return the layers of `experiment` on the stages of a device.

    Raises
    ------
    ConfigError
        More layers than stages, or a layer with fewer readings than classes.
    """
    count = experiment.network.layers
    if count > len(description.stages):
        raise ConfigError(f"network.layers is {count}, but the device has {len(description.stages)} stages")
    layers: list[Layer] = []
    for number, stage in enumerate(description.stages[:count]):
        rng = rng_stream(experiment.seed, Purpose.PROTOTYPES, number)
        try:
            rule = make_rule(experiment.rule, classes, stage.tap_ports, rng)
        except ValueError as error:
            raise ConfigError(f"stage {stage.name}: {error}") from None
        groups = [slice(*bounds) for bounds in stage.groups.values()]
        layers.append(Layer(f"layer {number + 1}", stage, groups, rule))
    return layers


def held_drive(description: DeviceDescription, layers: list[Layer], variables: list[Phases]) -> NDArray[np.float64]:
    """Return the drive [V] of the whole device at `variables`; stages without variables rest at the lowest drive."""
    drive = np.full(description.channels, description.drive.min_v)
    for layer, phases in zip(layers, variables, strict=False):
        first = layer.stage.first_channel
        drive[first : first + layer.stage.channels] = to_drive(phases, description.drive)
    return drive


def evaluation_size(description: DeviceDescription, stage: StageDescription, samples: int) -> tuple[int, int]:
    """Return how many settings and samples of a stage one evaluation may have, of as many settings as you like.

    The device's limits are max_batch, max_readings and max_settings. A message of drives has its own, and in real time an
    evaluation should be over after `LONGEST_S`, so that nobody who wants to stop waits longer.
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


def measure_settings(link: ReconnectingDevice, layer: Layer, settings: Phases, rows: LoadedRows) -> Readings:
    """Return the readings of one layer at `settings`, shape (settings, channels), whatever it takes of evaluations.

    No evaluation is larger than `evaluation_size`.

    Raises
    ------
    SessionStopped
        The user wants to stop; asked before every evaluation.
    DeviceError
        As `ReconnectingDevice.evaluate`; "device" where a reading is NaN or infinite.
    """
    stage, drives = layer.stage, to_drive(settings, link.description.drive)
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
        raise DeviceError("device", f"readings of {layer.name} hold a value that is no number")
    return Readings(
        values=values,
        time_s=np.concatenate([some[0].time_s for some in parts]),
        flags=np.concatenate([np.bitwise_or.reduce([part.flags for part in some]) for some in parts]),
    )


def measure_layer(link: ReconnectingDevice, layer: Layer, phases: Phases, rows: LoadedRows) -> Readings:
    """Return the readings of one layer at `phases`, shape (channels,), for rows of loaded inputs."""
    return measure_settings(link, layer, phases[np.newaxis], rows)


def predict(link: ReconnectingDevice, layers: list[Layer], variables: list[Phases], inputs: str, samples: int) -> Prediction:
    """Return what every layer and the whole network answer to the first `samples` loaded `inputs`."""
    link.apply(held_drive(link.description, layers, variables))
    rows = LoadedRows(inputs, np.arange(samples))
    read = [measure_layer(link, layer, phases, rows) for layer, phases in zip(layers, variables, strict=True)]
    readings = [each.values[0] for each in read]
    scores = [layer.rule.scores(values) for layer, values in zip(layers, readings, strict=True)]
    votes = np.stack([score.argmax(axis=1) for score in scores])
    return Prediction(
        layers=votes, vote=majority_vote(votes, scores[-1]), readings=readings, flags=[int(each.flags[0]) for each in read]
    )
