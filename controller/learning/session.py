"""The in-situ training session: layer after layer, update after update, every light through the device link.

    probe ──▶ settings ──▶ device.evaluate ──▶ readings ──▶ rule: losses ──▶ estimator: direction ──▶ optimiser ──▶ variables
      ▲                                                       │
      └── drawn while the device is busy                      └──▶ journal (all that a resumed session needs)

The session never sees a phase, a field or a gradient of the device; what trains on the simulator trains on the bench.
"""

from __future__ import annotations

import time
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from photonloop.controller.device.reconnecting import ReconnectingDevice
from photonloop.controller.experiment import Experiment
from photonloop.controller.learning.estimators import Probe, estimator, slopes
from photonloop.controller.learning.estimators.probe_step import choose_step, longest_step
from photonloop.controller.learning.network import Layer, Prediction, held_drive, measure_layer, measure_settings, predict
from photonloop.controller.learning.optimizers import descend, fresh_moments, learning_rate
from photonloop.controller.learning.progress import EpochReport, Listener, Stopwatch
from photonloop.controller.learning.reading_flags import FlagWatch
from photonloop.controller.learning.rng import Purpose, rng_stream
from photonloop.controller.learning.variables import (
    Bounds,
    Phases,
    longest_with_room,
    lsb_rad,
    project,
    reflect,
    stage_bounds,
    start_variables,
    to_drive,
)
from photonloop.controller.runs.checkpoint import Checkpoint, to_arrays
from photonloop.controller.runs.journal import Measured, variables_digest
from photonloop.controller.runs.npz_files import write_npz
from photonloop.controller.runs.run_folder import EVALUATION, RunFolder, read_events
from photonloop.controller.stopping import SessionStopped, Stop
from photonloop.protocols.config import ConfigError
from photonloop.protocols.device import Drive, LoadedRows
from photonloop.protocols.errors import DeviceError

TRAIN, TEST = "train", "test"
"""Names of the loaded inputs."""


@dataclass(frozen=True)
class Samples:
    """The data of a session, as loaded on the device: amplitudes stay there, labels stay here.

    Parameters
    ----------
    train_labels, test_labels
        Class numbers, shape (samples,).
    classes
        Names of the classes.
    """

    train_labels: NDArray[np.int64]
    test_labels: NDArray[np.int64]
    classes: tuple[str, ...]


class Session:
    """One training session, from its state to the finished network.

    Parameters
    ----------
    experiment
        What to learn and how.
    link
        The device, with training and test inputs loaded under `TRAIN` and `TEST`.
    layers
        The network on that device.
    samples
        Labels.
    state
        Where to go on from; a fresh `Checkpoint` begins.
    folder
        Where events, journal and checkpoints go, and where journalled losses come from.
    listener
        Who watches.
    stop
        Looked at between updates, and by `link` before every look at the accuracies: give both the same.
    """

    def __init__(
        self,
        *,
        experiment: Experiment,
        link: ReconnectingDevice,
        layers: list[Layer],
        samples: Samples,
        state: Checkpoint,
        folder: RunFolder,
        listener: Listener,
        stop: Stop | None = None,
    ) -> None:
        self.state = state
        self._experiment, self._link, self._layers, self._samples = experiment, link, layers, samples
        self._folder, self._listener, self._stop = folder, listener, stop or Stop()
        self._estimator = estimator(experiment.estimator)
        self._batch = min(experiment.training.batch, samples.train_labels.size)
        self._batches = samples.train_labels.size // self._batch
        self._updates = experiment.training.epochs * self._batches
        self._told = {(e["event"], e.get("layer"), e.get("epoch")) for e in read_events(folder.path) if "event" in e}
        self._journal = folder.take_journal()
        self._order = (-1, -1, np.empty(0, dtype=np.int64))  # layer, epoch and its shuffle
        self._flags = FlagWatch()
        self._saved_at = time.monotonic()
        self._stopwatch = Stopwatch(state.evaluations)

    def run(self) -> Prediction:
        """Learn what is left to learn, then return the network's answer to the test part.

        Raises
        ------
        SessionStopped
            `stop` was asked for; the checkpoint is written.
        DeviceError
            The device refused or failed beyond what the link can mend; the checkpoint is written.
        """
        try:
            for number in range(max(len(self.state.steps) - 1, 0), len(self._layers)):
                if not self.state.finished:
                    self._learn(number)
            self.state.finished = True
            prediction = self._conclude()
        except SessionStopped:
            self._link.cancel()
            self._save()
            raise
        except DeviceError:
            self._save()
            raise
        self._save()
        return prediction

    def _learn(self, number: int) -> None:
        layer, state = self._layers[number], self.state
        if len(state.steps) == number:
            self._begin(number)
        bounds, limits = self._boxes(layer, state.steps[number])
        pipelined = self._experiment.training.pipelined
        self._link.apply(held_drive(self._link.description, self._layers, state.variables))
        self._end_epoch_if_due(number)

        def drives_around(base: Phases, probe: Probe) -> Drive:
            return to_drive(reflect(probe.settings(base), limits), self._link.description.drive)

        def start(drives: Drive, rows: NDArray[np.int64]) -> None:
            self._link.start(drives, LoadedRows(TRAIN, rows), layer.stage.name)

        rows, probe = self._rows(number, state.update), self._probe(number, state.update)
        drives = drives_around(state.variables[number] if state.base is None else state.base, probe)
        while state.update < self._updates:
            self._stop.check(f"after update {state.total}")
            variables = state.variables[number]
            around = variables_digest(variables if state.base is None else state.base)
            recorded = self._recorded_for(state.total, around)
            if recorded is None and not self._link.under_way:
                start(drives, rows)
            # Done now, while the device is busy: none of it depends on what it will answer.
            next_rows, next_probe = self._rows(number, state.update + 1), self._probe(number, state.update + 1)
            next_drives = drives_around(variables, next_probe) if pipelined else drives
            if recorded is None:
                if pipelined and not self._pauses_after(state.update):
                    start(next_drives, next_rows)
                readings = self._link.finish()
                if readings.flags.any():
                    self._look_at_flags(layer, readings.flags, f"of update {state.total}")
                losses = layer.rule.losses(readings.values, self._samples.train_labels[rows])
                if not np.isfinite(losses).all():
                    raise DeviceError("device", f"readings of {layer.name} at update {state.total} give a loss that is no number")
                self._folder.record(state.total, Measured(losses, around))
            else:
                losses = recorded
                if losses.size != 2 * self._experiment.estimator.directions:
                    raise ConfigError(
                        f"the journal of {self._folder.path} holds {losses.size} losses an update, of another experiment"
                    )
            self._update(number, probe, losses, bounds)
            if pipelined:
                state.base = variables
            else:
                next_drives = drives_around(state.variables[number], next_probe)
            self._end_epoch_if_due(number)
            if time.monotonic() - self._saved_at > self._experiment.training.checkpoint_s:
                self._save()
            rows, probe, drives = next_rows, next_probe, next_drives
        self._end_layer(number)

    def _recorded_for(self, update: int, around: int) -> NDArray[np.float64] | None:
        """Return journalled losses of an update if they were measured around its variables; None: to be measured."""
        found = self._journal.pop(update, None)
        if found is None or found.around == around:
            return None if found is None else found.losses
        self._warn(
            f"the journal's losses from update {update} on were measured around other variables (was an older checkpoint put "
            "back?): they are left out and measured again"
        )
        self._journal.clear()
        return None

    def _look_at_flags(self, layer: Layer, flags: NDArray[np.uint32] | int, occasion: str) -> None:
        if (sentence := self._flags.look(layer.name, flags, occasion)) is not None:
            self._warn(sentence)

    def _pauses_after(self, update: int) -> bool:
        """Return whether the device is wanted for something else after this update: a look at the accuracies, or the end."""
        epoch, batch = divmod(update + 1, self._batches)
        return batch == 0 and self._looks_at(epoch)

    def _looks_at(self, epoch: int) -> bool:
        training = self._experiment.training
        return epoch % training.evaluate_every == 0 or epoch == training.epochs

    def _begin(self, number: int) -> None:
        """Draw the layer's starting variables and settle its probe step."""
        layer, state, spec = self._layers[number], self.state, self._experiment.estimator
        description = self._link.description
        bounds = stage_bounds(description, layer.stage, 0.0, longest_step(layer.stage.ports))
        start = start_variables(bounds, rng_stream(self._experiment.seed, Purpose.START, number))
        drive_step = lsb_rad(description.drive)
        measured = 0

        def losses_at(offsets: Phases) -> NDArray[np.float64]:
            nonlocal measured
            measured += len(offsets)
            return self._losses_at(layer, reflect(start + offsets, bounds), self._rows(number, 0))

        if spec.probe_step_rad == "auto":
            self._link.apply(held_drive(description, self._layers, [*state.variables, start]))
            rng = rng_stream(self._experiment.seed, Purpose.PROBE_STEP, number)
            choice = choose_step(losses_at, layer.stage.channels, layer.stage.ports, drive_step, rng)
            step_rad, reasons = self._estimator.step_from_rms(choice.rms_rad, layer.groups), choice.reasons
            step_rad, held = self._with_room(layer, step_rad)
            reasons = (*reasons, *held)
        else:
            step_rad, reasons = spec.probe_step_rad, ("given in the experiment file",)
        # Only now, so that a session ended while measuring has not half begun the layer.
        state.variables.append(start)
        state.initial.append(start.copy())
        state.steps.append(step_rad)
        state.base, state.moments = None, fresh_moments(layer.stage.channels)
        state.update, state.loss_sum, state.loss_count = 0, 0.0, 0
        state.evaluations += measured
        self._save()
        rms_from_step = self._estimator.rms_from_step(step_rad, layer.groups)
        self._event("step_chosen", layer=number, step_rad=step_rad, per_phase_rad=rms_from_step, reasons=list(reasons))
        self._tell(f"{layer.name}: probe step {rms_from_step:.3g} rad a phase ({'; '.join(reasons)})")
        if rms_from_step < drive_step:
            self._warn(
                f"{layer.name}: estimator.probe_step_rad moves a phase by {rms_from_step:.3g} rad, less than one step of the drive source "
                f"around V_π, {drive_step:.3g} rad: probes will mostly measure quantisation"
            )

    def _with_room(self, layer: Layer, step_rad: float) -> tuple[float, tuple[str, ...]]:
        """Return a chosen step, shortened where it would leave variables less than half their range, and the reason then."""
        probe_extent = self._estimator.probe_extent
        held_rad = longest_with_room(self._link.description, layer.stage, lambda step: probe_extent(step, layer.groups), step_rad)
        if held_rad == step_rad:
            return step_rad, ()
        rms_from_step = self._estimator.rms_from_step(held_rad, layer.groups)
        return held_rad, (f"held at {rms_from_step:.3g} rad a phase, so that variables keep half their range",)

    def _boxes(self, layer: Layer, step_rad: float) -> tuple[Bounds, Bounds]:
        """Return where the layer's variables may live, and the limits of its settings."""
        probe_extent = self._estimator.probe_extent(step_rad, layer.groups)
        description = self._link.description
        return stage_bounds(description, layer.stage, probe_extent), stage_bounds(description, layer.stage, 0.0)

    def _rows(self, layer: int, update: int) -> NDArray[np.int64]:
        """Return the rows of the training part for one update: a fresh shuffle every epoch."""
        epoch, batch = divmod(update, self._batches)
        if self._order[:2] != (layer, epoch):
            rng = rng_stream(self._experiment.seed, Purpose.SHUFFLE, layer, epoch)
            self._order = (layer, epoch, rng.permutation(self._samples.train_labels.size))
        return self._order[2][batch * self._batch : (batch + 1) * self._batch]

    def _probe(self, number: int, update: int) -> Probe:
        rng = rng_stream(self._experiment.seed, Purpose.PROBES, number, update)
        layer, count = self._layers[number], self._experiment.estimator.directions
        directions = self._estimator.draw(layer.stage.channels, layer.groups, count, rng)
        return Probe(directions, self.state.steps[number])

    def _losses_at(self, layer: Layer, settings: Phases, rows: NDArray[np.int64]) -> NDArray[np.float64]:
        readings = measure_settings(self._link, layer, settings, LoadedRows(TRAIN, rows))
        self._look_at_flags(layer, readings.flags, "while its probe step was measured")
        return layer.rule.losses(readings.values, self._samples.train_labels[rows])

    def _update(self, number: int, probe: Probe, losses: NDArray[np.float64], bounds: Bounds) -> None:
        state, layer = self.state, self._layers[number]
        assert state.moments is not None
        direction = self._estimator.combine(probe.directions, slopes(probe, losses), layer.groups)
        rate = learning_rate(self._experiment.optimizer, state.update, self._updates)
        change = descend(self._experiment.optimizer, state.moments, direction, rate)
        if not np.isfinite(change).all():
            high = self._experiment.optimizer.rate
            raise ConfigError(f"update {state.total} of {layer.name} is no number: optimizer.rate is {high:g}, too high")
        state.variables[number] = project(state.variables[number] + change, bounds)
        state.update += 1
        state.total += 1
        state.evaluations += losses.size
        state.loss_sum += float(losses.mean())
        state.loss_count += 1

    def _end_epoch_if_due(self, number: int) -> None:
        """Look at the accuracies where the epoch asks for it, tell, and begin the next epoch.

        Stopped or failed while it looks, it leaves the epoch as it is, due: a resumed session looks then.
        """
        state = self.state
        if state.loss_count < self._batches:
            return
        epoch = state.update // self._batches
        accuracies: list[float | None] = [None, None]
        told = ("epoch", number, epoch) in self._told
        if self._looks_at(epoch):
            if not told:
                accuracies = [self._accuracy(number, part) for part in (TRAIN, TEST)]
            state.evaluations += len(accuracies)
        loss, state.loss_sum, state.loss_count = state.loss_sum / state.loss_count, 0.0, 0
        if told:
            return  # the session that died had got as far as telling this
        report = self._report(number, epoch, loss, accuracies[0], accuracies[1])
        self._event(
            "epoch",
            layer=number,
            epoch=epoch,
            update=state.update,
            loss=loss,
            train_accuracy=report.train_accuracy,
            test_accuracy=report.test_accuracy,
            evaluations=state.evaluations,
            evaluations_per_s=report.evaluations_per_s,
            wall_s=report.wall_s,
        )
        self._listener.epoch(report)

    def _looked_at(self) -> NDArray[np.int64]:
        """Return rows of the training part to look at: as many as test samples, at most, so that looking is cheap.

        Drawn, since files may be in any order: the first rows of a sorted one are all of one class.
        """
        known, most = self._samples.train_labels.size, self._samples.test_labels.size
        if known <= most:
            return np.arange(known)
        return np.sort(rng_stream(self._experiment.seed, Purpose.ACCURACY_ROWS).permutation(known)[:most])

    def _accuracy(self, number: int, part: str) -> float:
        layer, samples = self._layers[number], self._samples
        rows, labels = np.arange(samples.test_labels.size), samples.test_labels
        if part == TRAIN:
            rows = self._looked_at()
            labels = samples.train_labels[rows]
        readings = measure_layer(self._link, layer, self.state.variables[number], LoadedRows(part, rows))
        self._look_at_flags(layer, readings.flags, f"of the {part} part after update {self.state.total}")
        return float((layer.rule.scores(readings.values[0]).argmax(axis=1) == labels).mean())

    def _report(
        self, number: int, epoch: int, loss: float, train_accuracy: float | None, test_accuracy: float | None
    ) -> EpochReport:
        state, layers, epochs = self.state, len(self._layers), self._experiment.training.epochs
        rate = self._stopwatch.evaluations_per_s(state.evaluations)
        left = (self._updates * layers - state.total) * 2 * self._experiment.estimator.directions
        return EpochReport(
            layer=number,
            layers=layers,
            epoch=epoch,
            epochs=epochs,
            update=state.update,
            loss=loss,
            train_accuracy=train_accuracy,
            test_accuracy=test_accuracy,
            evaluations=state.evaluations,
            evaluations_per_s=rate,
            wall_s=self._stopwatch.wall_s,
            left_s=left / rate if rate > 0 else float("inf"),
        )

    def _end_layer(self, number: int) -> None:
        layer = self._layers[number]
        if ("layer_done", number, None) not in self._told:
            accuracy = self._accuracy(number, TEST)
            self._event("layer_done", layer=number, name=layer.name, test_accuracy=accuracy)
            self._tell(f"{layer.name}: learned, test accuracy {accuracy:.4f}")
        self._save()

    def _conclude(self) -> Prediction:
        labels = self._samples.test_labels
        prediction = predict(self._link, self._layers, self.state.variables, TEST, labels.size)
        for layer, flags in zip(self._layers, prediction.flags, strict=True):
            self._look_at_flags(layer, flags, "of the test part at the end")
        classes = range(len(self._samples.classes))
        means = {
            f"class_readings_{k}": np.stack([_mean(values[labels == c]) for c in classes])
            for k, values in enumerate(prediction.readings)
        }
        write_npz(
            self._folder.path / EVALUATION,
            {
                "y_true": labels,
                "vote": prediction.vote,
                "layer_predictions": prediction.layers,
                "classes": np.array(self._samples.classes),
                **means,
            },
        )
        return prediction

    def _save(self) -> None:
        self._folder.checkpoint(to_arrays(self.state, self._experiment.seed))
        for update, measured in self._journal.items():  # emptied with the rest, and not replayed yet
            self._folder.record(update, measured)
        self._saved_at = time.monotonic()

    def _event(self, event: str, **fields: object) -> None:
        self._folder.event(event, **fields)

    def _tell(self, text: str) -> None:
        self._folder.log(text)
        self._listener.message(text)

    def _warn(self, text: str) -> None:
        self._event("warning", message=text)
        self._tell(f"warning: {text}")


def _mean(readings: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return the mean over samples; NaN for a class of which the test part has none."""
    return readings.mean(axis=0) if len(readings) else np.full(readings.shape[1], np.nan, dtype=np.float32)
