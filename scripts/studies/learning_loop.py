"""A training loop of one layer in the chip's process, for studies that vary what the product fixes.

It uses the product's encoding, rule, estimators, probe steps, optimiser and bounds, on `examples/digits.toml`. Unlike a
session it can change the order of the settings, repeat them, and correct the inputs' phases between updates. It keeps
no run folder, and it does not overlap updates.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from photonloop.controller.calibration.column_scans import HeaterCurve
from photonloop.controller.data.datasets import Dataset, load_dataset
from photonloop.controller.data.encoding import encode, fit_encoding
from photonloop.controller.experiment import Experiment, load_experiment
from photonloop.controller.learning.estimators import estimator
from photonloop.controller.learning.layer_start import measured_probe_step
from photonloop.controller.learning.network import Layer, build_network
from photonloop.controller.learning.optimizers import descend, fresh_moments, learning_rate
from photonloop.controller.learning.rng import Purpose, rng_stream
from photonloop.controller.learning.variables import Bounds, Phases, project, reflect, stage_bounds, start_variables, to_drive
from photonloop.protocols.device import LoadedRows
from photonloop.simulator.engine.chip import Chip
from photonloop.simulator.parameters import ChipParameters, load_chip

EXPERIMENT = Path(__file__).parents[2] / "examples" / "digits.toml"

Order = Literal["interleaved", "blocks", "reference"]
"""Order of the settings of an update. interleaved: + - + - …; blocks: all plus, then all minus; reference: one setting
at the present variables, then all plus, so that each slope is a difference to the re-measured reference."""


@dataclass(frozen=True)
class Recipe:
    """How a layer is trained.

    Parameters
    ----------
    directions
        Directions per update.
    order
        Order of the settings.
    repeats
        Number of times that each setting is measured; losses are averaged.
    step_rad
        Probe step [rad]; None: measured, as a session does.
    evaluations
        Settings in total, without those that measure the step.
    room_rad
        Distance of the variables from their lower bounds, for corrections [rad].
    """

    directions: int = 4
    order: Order = "interleaved"
    repeats: int = 1
    step_rad: float | None = 0.05
    evaluations: int = 26_400
    room_rad: float = 0.0

    @property
    def settings(self) -> int:
        """Settings per update."""
        return (self.directions + 1 if self.order == "reference" else 2 * self.directions) * self.repeats


@dataclass(frozen=True)
class Outcome:
    """Result of `learn`: test accuracy, settings read in total, time on the chip's clock [s], probe step [rad]."""

    accuracy: float
    evaluations: int
    clock_s: float
    step_rad: float


@dataclass(frozen=True)
class Task:
    """A chip with loaded digits, and the layer that is to be trained on it."""

    chip: Chip
    layer: Layer
    dataset: Dataset
    experiment: Experiment


def chip_text(preset: str, changes: dict[str, dict[str, Any]]) -> str:
    """Return the text of a chip file: `preset` with `changes`, a table of values per section."""
    lines = [f'preset = "{preset}"']
    for section, values in changes.items():
        lines += [f"[{section}]", *(f"{key} = {_literal(value)}" for key, value in values.items())]
    return "\n".join(lines) + "\n"


def write_chip(path: Path, preset: str, *changes: dict[str, dict[str, Any]]) -> Path:
    """Write a chip file at `path` that is `preset` with the tables of all `changes`; return the path."""
    merged: dict[str, dict[str, Any]] = {}
    for change in changes:
        for section, values in change.items():
            merged[section] = {**merged.get(section, {}), **values}
    path.write_text(chip_text(preset, merged), encoding="utf-8")
    return path


def digits_task(preset: str, seed: int, *changes: dict[str, dict[str, Any]], ports: int = 64) -> Task:
    """Return a new chip of `preset` with `changes`, of `seed`, with the digits loaded on it."""
    with tempfile.TemporaryDirectory() as folder:
        parameters = load_chip(write_chip(Path(folder) / "chip.toml", preset, *changes), ports=ports, stages=1, seed=seed)
    experiment = load_experiment(EXPERIMENT, [f"seed={seed}", "network.layers=1"])
    dataset = load_dataset(experiment.data)
    chip = Chip(parameters, threads=1)
    description = chip.describe()
    encoding = fit_encoding(dataset.x_train, experiment.encoding)
    for name, x in (("train", dataset.x_train), ("test", dataset.x_test)):
        chip.load_inputs(name, encode(x, encoding, description.input_ports).amplitudes)
    return Task(chip, build_network(experiment, description, len(dataset.classes))[0], dataset, experiment)


def setting_time_s(parameters: ChipParameters, samples: int) -> float:
    """Return the time [s] of one setting of a chip of one mesh: writing all channels, settling, reading `samples`."""
    clock = parameters.clock
    return clock.channel_s * parameters.ports**2 + clock.settle_s + samples * parameters.sample_s


def shifted(task: Task, settings: Phases, added: Phases, limits: Bounds) -> Phases:
    """Return settings whose heaters' phases are increased by `added` [rad], by whole turns inside the limits.

    The curve of the heaters is taken as known, as from a calibration: a turn is not 2π of nominal heater phase.
    """
    heater = task.chip.parameters.heater
    curve = HeaterCurve(heater.curvature, heater.self_heating)
    phases = curve.phase(settings) + added
    low, high = curve.phase(limits.low), curve.phase(limits.high)
    phases += (
        2 * np.pi * (np.ceil(np.maximum(low - phases, 0) / (2 * np.pi)) - np.ceil(np.maximum(phases - high, 0) / (2 * np.pi)))
    )
    return reflect(curve.nominal(phases), limits)


def learn(task: Task, recipe: Recipe, correct: Callable[[int, Phases], Phases] | None = None) -> Outcome:
    """Train the layer of `task` from its starting variables, and return what it reached.

    Parameters
    ----------
    task
        The chip and its layer.
    recipe
        How it is trained.
    correct
        Called before every update with its number and the phases [rad] added to all settings so far, shape (channels,);
        returns the phases to add from now on. None: nothing is added.
    """
    chip, layer, experiment = task.chip, task.layer, task.experiment
    description, seed = chip.describe(), experiment.seed
    chosen, limits = estimator(experiment.estimator), stage_bounds(description, layer.stage, 0.0)
    variables = start_variables(limits, rng_stream(seed, Purpose.START, 0))
    added: Phases = np.zeros(variables.size)

    def losses(settings: Phases, rows: NDArray[np.int64]) -> NDArray[np.float64]:
        drives = to_drive(shifted(task, settings, added, limits) if added.any() else reflect(settings, limits), description.drive)
        readings = chip.evaluate(drives, LoadedRows("train", rows), layer.stage.name)
        return layer.rule.losses(readings.values, task.dataset.y_train[rows])

    order = _Batches(seed, task.dataset.y_train.size, experiment.training.batch)
    step_rad = recipe.step_rad
    if step_rad is None:
        rng, start = rng_stream(seed, Purpose.PROBE_STEP, 0), variables
        step_rad, _ = measured_probe_step(description, layer, chosen, lambda o: losses(start + o, order.rows(0)), rng)
    bounds = stage_bounds(description, layer.stage, chosen.probe_extent(step_rad, layer.groups))
    bounds = replace(bounds, low=bounds.low + recipe.room_rad)
    variables = project(variables, bounds)
    moments, updates = fresh_moments(variables.size), recipe.evaluations // recipe.settings
    for update in range(updates):
        if correct is not None:
            added = correct(update, added)
        rows = order.rows(update)
        directions = chosen.draw(
            layer.stage.channels, layer.groups, recipe.directions, rng_stream(seed, Purpose.PROBES, 0, update)
        )
        slopes = _slopes(recipe, step_rad, directions, lambda offsets, at=variables, rows=rows: losses(at + offsets, rows))
        direction = chosen.combine(directions, slopes, layer.groups)
        change = descend(experiment.optimizer, moments, direction, learning_rate(experiment.optimizer, update, updates))
        variables = project(variables + change, bounds)
    if correct is not None:
        added = correct(updates, added)
    drive = to_drive(shifted(task, variables, added, limits), description.drive)[np.newaxis]
    labels = task.dataset.y_test
    readings = chip.evaluate(drive, LoadedRows("test", np.arange(labels.size)), layer.stage.name)
    accuracy = float((layer.rule.scores(readings.values[0]).argmax(axis=1) == labels).mean())
    status = chip.status()
    return Outcome(accuracy, status.evaluations, status.clock_s, float(step_rad))


def _slopes(
    recipe: Recipe, step_rad: float, directions: Phases, losses: Callable[[Phases], NDArray[np.float64]]
) -> NDArray[np.float64]:
    """Return the slope along each direction, measured in the order and as often as `recipe` says."""
    count, offsets = len(directions), step_rad * directions
    if recipe.order == "reference":
        settings = np.concatenate((np.zeros((1, offsets.shape[1])), offsets))
    elif recipe.order == "blocks":
        settings = np.concatenate((offsets, -offsets))
    else:
        settings = np.stack((offsets, -offsets), axis=1).reshape(2 * count, -1)
    measured = losses(np.repeat(settings, recipe.repeats, axis=0)).reshape(-1, recipe.repeats).mean(axis=1)
    if recipe.order == "reference":
        return (measured[1:] - measured[0]) / step_rad
    plus, minus = (measured[:count], measured[count:]) if recipe.order == "blocks" else (measured[0::2], measured[1::2])
    return (plus - minus) / (2 * step_rad)


class _Batches:
    """Shuffled training rows of each update, as in a session."""

    def __init__(self, seed: int, samples: int, batch: int) -> None:
        self._seed, self._samples, self._batch = seed, samples, batch
        self._epoch, self._order = -1, np.empty(0, np.int64)

    def rows(self, update: int) -> NDArray[np.int64]:
        epoch, batch = divmod(update, self._samples // self._batch)
        if epoch != self._epoch:
            self._epoch, self._order = epoch, rng_stream(self._seed, Purpose.SHUFFLE, 0, epoch).permutation(self._samples)
        return self._order[batch * self._batch : (batch + 1) * self._batch]


def _literal(value: Any) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    return f'"{value}"' if isinstance(value, str) else repr(value)
