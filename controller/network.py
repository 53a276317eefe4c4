"""A network is layers on stages: what each layer may move, what it wants, and what it answers.

Layers are cascaded on one chip: layer k is stage k, light goes on through the nonlinearity to the next, and every layer's
readings are taken at its own tap.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from controller.experiment import Experiment
from controller.link import DeviceLink
from controller.rules import Rule, majority_vote, make_rule
from controller.streams import Purpose, stream
from controller.variables import Phases, volts
from protocols.device import DeviceDescription, StageDescription, StagedRows
from protocols.validation import ConfigError


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
    """

    layers: NDArray[np.int64]
    vote: NDArray[np.int64]
    readings: list[NDArray[np.float32]]


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
        rng = stream(experiment.seed, Purpose.PROTOTYPES, number)
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
        drive[first : first + layer.stage.channels] = volts(phases, description.drive)
    return drive


def portions(description: DeviceDescription, layer: Layer, samples: int) -> list[NDArray[np.int64]]:
    """Return row numbers 0 … samples−1 in runs that fit one evaluation of one setting."""
    limits = description.limits
    most = max(1, min(limits.max_batch, limits.max_readings // layer.stage.tap_ports))
    return [np.arange(start, min(start + most, samples)) for start in range(0, samples, most)]


def read_layer(link: DeviceLink, layer: Layer, phases: Phases, inputs: str, samples: int) -> NDArray[np.float32]:
    """Return the readings of one layer at `phases` for the first `samples` staged `inputs`, shape (samples, tap ports)."""
    drive = volts(phases, link.description.drive)[np.newaxis]
    parts = [
        link.evaluate(drive, StagedRows(inputs, rows), layer.stage.name).values[0]
        for rows in portions(link.description, layer, samples)
    ]
    return np.concatenate(parts)


def predict(link: DeviceLink, layers: list[Layer], variables: list[Phases], inputs: str, samples: int) -> Prediction:
    """Return what every layer and the whole network answer to the first `samples` staged `inputs`."""
    link.hold(held_drive(link.description, layers, variables))
    readings = [read_layer(link, layer, phases, inputs, samples) for layer, phases in zip(layers, variables, strict=True)]
    scores = [layer.rule.scores(values) for layer, values in zip(layers, readings, strict=True)]
    votes = np.stack([score.argmax(axis=1) for score in scores])
    return Prediction(layers=votes, vote=majority_vote(votes, scores[-1]), readings=readings)
