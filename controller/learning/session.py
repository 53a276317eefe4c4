"""The in-situ training session: layers are trained one after another, update by update, by evaluations on the device.

    probe ─▶ settings ─▶ device.evaluate ─▶ readings ─▶ rule: losses ─▶ estimator: direction ─▶ optimiser ─▶ variables
      ▲                                                   │
      └── drawn while the device is busy                  └─▶ journal (all that a resumed session needs)

The session uses no phase, field or gradient of the device, so it runs on a simulator and on a bench.
"""

from __future__ import annotations

import time
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from photonloop.controller.device.reconnecting import ReconnectingDevice
from photonloop.controller.experiment import Experiment
from photonloop.controller.learning.accuracy import layer_accuracy, training_rows, write_evaluation
from photonloop.controller.learning.estimators import Probe, estimator, slopes
from photonloop.controller.learning.estimators.probe_step import longest_step
from photonloop.controller.learning.layer_start import layer_bounds, measured_probe_step
from photonloop.controller.learning.network import (
    Layer,
    Prediction,
    held_drive,
    layer_start,
    measure_drives,
    measure_layer,
    predict,
    with_starts,
)
from photonloop.controller.learning.optimizers import descend, fresh_moments, learning_rate
from photonloop.controller.learning.progress import EpochReport, Listener, Stopwatch
from photonloop.controller.learning.rng import Purpose, rng_stream
from photonloop.controller.learning.session_reporting import RecordedEvents, SessionReporter
from photonloop.controller.learning.variables import Bounds, Phases, lsb_rad
from photonloop.controller.runs.checkpoint import Checkpoint, to_arrays
from photonloop.controller.runs.journal import Measured, variables_digest
from photonloop.controller.runs.run_folder import EVALUATION, RunFolder
from photonloop.controller.stopping import SessionStopped, Stop
from photonloop.protocols.config import ConfigError
from photonloop.protocols.device import Drive, LoadedRows
from photonloop.protocols.errors import DeviceError

TRAIN, TEST = "train", "test"
"""Names of the loaded inputs."""

SET_NAMES = {TRAIN: "training set", TEST: "test set"}
"""Their names in messages."""


@dataclass(frozen=True)
class Samples:
    """Labels of the samples whose amplitudes are loaded on the device.

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
    """A training session, from its checkpoint to the finished network.

    Parameters
    ----------
    experiment
        Rule, estimator, optimiser and training schedule.
    link
        The device, with training and test inputs loaded under `TRAIN` and `TEST`.
    layers
        The network on that device.
    samples
        Labels of the loaded inputs.
    state
        Checkpoint to continue from; a fresh `Checkpoint` starts from the beginning.
    folder
        Run folder for events, journal and checkpoints. Losses in its journal are replayed.
    listener
        Receives messages and progress.
    stop
        Checked between updates, and by `link` before each request to the device: give both the same object.
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
        self._folder, self._stop = folder, stop or Stop()
        self._reporter, self._earlier_events = SessionReporter(listener, folder), RecordedEvents(folder)
        self._estimator = estimator(experiment.estimator)
        self._batch = min(experiment.training.batch, samples.train_labels.size)
        self._batches = samples.train_labels.size // self._batch
        self._updates = experiment.training.epochs * self._batches
        self._journal = folder.take_journal()
        self._order = (-1, -1, np.empty(0, dtype=np.int64))  # layer, epoch and the shuffled rows of that epoch
        self._saved_at = time.monotonic()
        self._stopwatch = Stopwatch(state.evaluations)

    def run(self) -> Prediction:
        """Train the remaining layers, then return the network's predictions for the test set.

        Raises
        ------
        SessionStopped
            `stop` was requested; the checkpoint is written.
        DeviceError
            The device refused a request or failed, and reconnecting did not help; the checkpoint is written.
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
        """Train one layer, from its present update to its last."""
        layer, state = self._layers[number], self.state
        if len(state.steps) == number:
            self._begin(number)
        bounds, limits = layer_bounds(layer, self._estimator, state.steps[number])
        pipelined = self._experiment.training.pipelined
        self._link.apply(self._held_drive())
        self._end_epoch_if_due(number)

        def drives_around(center: Phases, probe: Probe) -> Drive:
            return layer.space.drives_around(center, probe.settings(center), limits)

        def start(drives: Drive, rows: NDArray[np.int64]) -> None:
            self._link.start(drives, LoadedRows(TRAIN, rows), layer.stage.name)

        rows, probe = self._rows(number, state.update), self._probe(number, state.update)
        drives = drives_around(state.variables[number] if state.base is None else state.base, probe)
        while state.update < self._updates:
            self._stop.check(f"after update {state.total}")
            variables = state.variables[number]
            around = variables_digest(variables if state.base is None else state.base)
            losses = self._journalled_losses(state.total, around)
            if losses is None and not self._link.under_way:
                start(drives, rows)
            # Prepare the next update while the device is busy: nothing here depends on the readings under way.
            next_rows, next_probe = self._rows(number, state.update + 1), self._probe(number, state.update + 1)
            next_drives = drives_around(variables, next_probe) if pipelined else drives
            if losses is None:
                if pipelined and not self._pauses_after(state.update):
                    start(next_drives, next_rows)
                losses = self._finish_measurement(layer, rows, around)
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

    def _finish_measurement(self, layer: Layer, rows: NDArray[np.int64], around: int) -> NDArray[np.float64]:
        """Return the losses of the evaluation under way, and record them in the journal."""
        update, readings = self.state.total, self._link.finish()
        if readings.flags.any():
            self._reporter.flags(layer, readings.flags, f"of update {update}")
        losses = layer.rule.losses(readings.values, self._samples.train_labels[rows])
        if not np.isfinite(losses).all():
            raise DeviceError("device", f"the loss of {layer.name} at update {update} is NaN or infinite: check its readings")
        self._folder.record(update, Measured(losses, around))
        return losses

    def _journalled_losses(self, update: int, around: int) -> NDArray[np.float64] | None:
        """Return the journalled losses of an update, or None if they must be measured.

        Losses that were measured around other variables are discarded, with those of all later updates.
        """
        found = self._journal.pop(update, None)
        if found is None:
            return None
        if found.around != around:
            self._reporter.warn(
                f"the journal's losses from update {update} on were measured around other variables (an older checkpoint may "
                "have been restored): they are discarded and measured again"
            )
            self._journal.clear()
            return None
        if found.losses.size != 2 * self._experiment.estimator.directions:
            raise ConfigError(
                f"the journal of {self._folder.path} has {found.losses.size} losses per update, expected "
                f"{2 * self._experiment.estimator.directions}: it belongs to another experiment"
            )
        return found.losses

    def _pauses_after(self, update: int) -> bool:
        """Return whether an accuracy is measured after this update, so that the next one must not be started before."""
        epoch, batch = divmod(update + 1, self._batches)
        return batch == 0 and self._measures_accuracy_at(epoch)

    def _measures_accuracy_at(self, epoch: int) -> bool:
        training = self._experiment.training
        return epoch % training.evaluate_every == 0 or epoch == training.epochs

    def _begin(self, number: int) -> None:
        """Draw the starting variables of a layer and choose its probe step."""
        layer, state, spec = self._layers[number], self.state, self._experiment.estimator
        description = self._link.description
        bounds = layer.space.bounds(0.0, longest_step(layer.stage.ports))
        start = layer_start(layer, self._experiment.seed, number)
        measured = 0

        def losses_at(offsets: Phases) -> NDArray[np.float64]:
            nonlocal measured
            measured += len(offsets)
            return self._losses_at(layer, layer.space.drives(start + offsets, bounds), self._rows(number, 0))

        if spec.probe_step_rad == "auto":
            self._link.apply(self._held_drive())
            rng = rng_stream(self._experiment.seed, Purpose.PROBE_STEP, number)
            step_rad, reasons = measured_probe_step(description, layer, self._estimator, losses_at, rng)
        else:
            step_rad, reasons = spec.probe_step_rad, ("given in the experiment file",)
        # The state changes only after the step is measured, so a session stopped before that begins the layer again.
        state.variables.append(start)
        state.initial.append(start.copy())
        state.steps.append(step_rad)
        state.base, state.moments = None, fresh_moments(layer.stage.channels)
        state.update, state.loss_sum, state.loss_count = 0, 0.0, 0
        state.evaluations += measured
        self._save()
        self._report_probe_step(number, step_rad, reasons)

    def _held_drive(self) -> Drive:
        """Return the drive of the whole device: layers that have not been started are at their starting variables."""
        description, seed = self._link.description, self._experiment.seed
        return held_drive(description, self._layers, with_starts(self._layers, self.state.variables, seed))

    def _report_probe_step(self, number: int, step_rad: float, reasons: tuple[str, ...]) -> None:
        layer = self._layers[number]
        rms_rad, one_lsb_rad = self._estimator.rms_from_step(step_rad, layer.groups), lsb_rad(self._link.description.drive)
        self._reporter.event("step_chosen", layer=number, step_rad=step_rad, per_phase_rad=rms_rad, reasons=list(reasons))
        self._reporter.message(f"{layer.name}: probe step {rms_rad:.3g} rad per phase ({'; '.join(reasons)})")
        if rms_rad < one_lsb_rad:
            self._reporter.warn(
                f"{layer.name}: estimator.probe_step_rad changes a phase by {rms_rad:.3g} rad, less than one step of the drive "
                f"source around V_π, {one_lsb_rad:.3g} rad: probes will mostly measure quantisation"
            )

    def _rows(self, layer: int, update: int) -> NDArray[np.int64]:
        """Return the training rows of one update; they are shuffled anew every epoch."""
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

    def _losses_at(self, layer: Layer, drives: Drive, rows: NDArray[np.int64]) -> NDArray[np.float64]:
        readings = measure_drives(self._link, layer, drives, LoadedRows(TRAIN, rows))
        self._reporter.flags(layer, readings.flags, "while its probe step was measured")
        return layer.rule.losses(readings.values, self._samples.train_labels[rows])

    def _update(self, number: int, probe: Probe, losses: NDArray[np.float64], bounds: Bounds) -> None:
        """Move the variables of a layer by one update."""
        state, layer = self.state, self._layers[number]
        assert state.moments is not None
        direction = self._estimator.combine(probe.directions, slopes(probe, losses), layer.groups)
        rate = learning_rate(self._experiment.optimizer, state.update, self._updates)
        change = descend(self._experiment.optimizer, state.moments, direction, rate)
        if not np.isfinite(change).all():
            high = self._experiment.optimizer.rate
            raise ConfigError(
                f"update {state.total} of {layer.name} is NaN or infinite: optimizer.rate is {high:g}: use a lower rate"
            )
        state.variables[number] = layer.space.project(state.variables[number] + change, bounds)
        state.update += 1
        state.total += 1
        state.evaluations += losses.size
        state.loss_sum += float(losses.mean())
        state.loss_count += 1

    def _end_epoch_if_due(self, number: int) -> None:
        """At the end of an epoch, measure the accuracies if they are due, report, and start the next epoch.

        If the session stops or fails while measuring, the epoch stays due and a resumed session measures it.
        """
        state = self.state
        if state.loss_count < self._batches:
            return
        epoch = state.update // self._batches
        accuracies: list[float | None] = [None, None]
        recorded = self._earlier_events.has("epoch", number, epoch)
        if self._measures_accuracy_at(epoch):
            if not recorded:
                accuracies = [self._accuracy(number, part) for part in (TRAIN, TEST)]
            state.evaluations += len(accuracies)
        loss, state.loss_sum, state.loss_count = state.loss_sum / state.loss_count, 0.0, 0
        if not recorded:
            self._reporter.epoch(self._report(number, epoch, loss, accuracies[0], accuracies[1]))

    def _accuracy(self, number: int, part: str) -> float:
        """Measure the accuracy of a layer on the training or the test set."""
        layer, samples = self._layers[number], self._samples
        rows, labels = np.arange(samples.test_labels.size), samples.test_labels
        if part == TRAIN:
            rows = training_rows(self._experiment.seed, samples.train_labels.size, samples.test_labels.size)
            labels = samples.train_labels[rows]
        readings = measure_layer(self._link, layer, self.state.variables[number], LoadedRows(part, rows))
        self._reporter.flags(layer, readings.flags, f"of the {SET_NAMES[part]} after update {self.state.total}")
        return layer_accuracy(layer, readings.values[0], labels)

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
        if not self._earlier_events.has("layer_done", number):
            accuracy = self._accuracy(number, TEST)
            self._reporter.event("layer_done", layer=number, name=layer.name, test_accuracy=accuracy)
            self._reporter.message(f"{layer.name}: trained, test accuracy {accuracy:.4f}")
        self._save()

    def _conclude(self) -> Prediction:
        """Measure the finished network on the test set and write evaluation.npz."""
        labels = self._samples.test_labels
        prediction = predict(self._link, self._layers, self.state.variables, self._experiment.seed, TEST, labels.size)
        for layer, flags in zip(self._layers, prediction.flags, strict=True):
            self._reporter.flags(layer, flags, "of the test set at the end")
        write_evaluation(self._folder.path / EVALUATION, prediction, labels, self._samples.classes)
        return prediction

    def _save(self) -> None:
        self._folder.checkpoint(to_arrays(self.state, self._experiment.seed))
        # The checkpoint emptied the journal: write back the losses that are still to be replayed.
        for update, measured in self._journal.items():
            self._folder.record(update, measured)
        self._saved_at = time.monotonic()
