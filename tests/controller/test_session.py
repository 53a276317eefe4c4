"""Sessions on a chip in this process: accuracies, exact resumption, limits of the device, flags and failures."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from photonloop.controller.data.datasets import DataSpec, load_dataset
from photonloop.controller.data.encoding import EncodingSpec
from photonloop.controller.device.compatibility import check_fits
from photonloop.controller.device.open_device import OpenDevice
from photonloop.controller.device.reconnecting import ReconnectingDevice
from photonloop.controller.experiment import EstimatorSpec, Experiment, NetworkSpec, OptimizerSpec, RuleSpec, TrainingSpec
from photonloop.controller.learning.accuracy import training_rows
from photonloop.controller.learning.layer_start import layer_bounds
from photonloop.controller.learning.network import build_network, evaluation_size, measure_settings
from photonloop.controller.learning.progress import EpochReport
from photonloop.controller.learning.reading_flags import FlagWarnings
from photonloop.controller.learning.session import Samples, Session
from photonloop.controller.learning.variables import to_drive
from photonloop.controller.runs.checkpoint import from_arrays
from photonloop.controller.runs.run_folder import CHECKPOINT, EVALUATION, JOURNAL, RunFolder, read_checkpoint, read_events
from photonloop.controller.stopping import SessionStopped, Stop
from photonloop.controller.training import load_sets
from photonloop.protocols.config import ConfigError
from photonloop.protocols.device import FLAG_SATURATED, FLAG_UNSETTLED, Drive, Inputs, LoadedRows, Readings
from photonloop.protocols.errors import DeviceError
from photonloop.simulator.engine.chip import Chip
from photonloop.simulator.parameters import ChipParameters, load_chip


class Notes:
    """A listener that stores what it receives."""

    def __init__(self) -> None:
        self.epochs: list[EpochReport] = []
        self.messages: list[str] = []

    def epoch(self, report: EpochReport) -> None:
        self.epochs.append(report)

    def message(self, text: str) -> None:
        self.messages.append(text)


def iris(**changes: object) -> Experiment:
    tables: dict[str, object] = {
        "name": "iris",
        "data": DataSpec(source="iris"),
        "encoding": EncodingSpec(reference=1.0),
        "network": NetworkSpec(ports=8, layers=1),
        "optimizer": OptimizerSpec(rate=0.03),
        "training": TrainingSpec(epochs=150, batch=60, evaluate_every=50),
    }
    return Experiment.model_validate({**tables, **changes})


def chip(preset: str, experiment: Experiment) -> Chip:
    return Chip(load_chip(preset, ports=8, stages=experiment.network.layers, seed=experiment.seed))


def session(
    path: Path, experiment: Experiment, opener: Callable[[], OpenDevice], stop: Stop | None = None
) -> tuple[Session, ReconnectingDevice, RunFolder, Notes]:
    path.mkdir(exist_ok=True)
    notes, dataset, link = Notes(), load_dataset(experiment.data), ReconnectingDevice(opener, stop=stop)
    load_sets(link, experiment, dataset)
    folder = RunFolder(path)
    made = Session(
        experiment=experiment,
        link=link,
        layers=build_network(experiment, link.description, len(dataset.classes)),
        samples=Samples(dataset.y_train, dataset.y_test, tuple(str(c) for c in dataset.classes)),
        state=from_arrays(read_checkpoint(path), experiment.seed, "checkpoint"),
        folder=folder,
        listener=notes,
        stop=stop,
    )
    return made, link, folder, notes


def run(path: Path, experiment: Experiment, preset: str) -> tuple[float, Notes]:
    made, link, folder, notes = session(path, experiment, lambda: OpenDevice(chip(preset, experiment)))
    try:
        prediction = made.run()
    finally:
        link.close()
        folder.close()
    return float(np.mean(prediction.vote == load_dataset(experiment.data).y_test)), notes


@pytest.mark.parametrize(
    ("name", "loss", "preset", "reached"),
    [("spsa", "softmax", "soi", 0.9), ("directional", "cosine", "ideal", 0.6), ("spsa", "margin", "soi", 0.75)],
)
def test_iris_is_trained_on_eight_ports(tmp_path: Path, name: str, loss: str, preset: str, reached: float) -> None:
    experiment = iris(
        rule=RuleSpec.model_validate({"loss": loss, "scale": 20.0}),
        estimator=EstimatorSpec.model_validate({"name": name, "directions": 2}),
        optimizer=OptimizerSpec(rate=0.05),
        training=TrainingSpec(epochs=2000, batch=60, evaluate_every=500),
    )
    accuracy, notes = run(tmp_path, experiment, preset)
    assert accuracy >= reached
    assert notes.epochs[-1].loss < 0.7 * notes.epochs[0].loss


def test_a_layer_keeps_its_accuracy_when_the_next_one_heats_the_chip(tmp_path: Path) -> None:
    """Heat changes the phases of all stages by their path differences, here by 0.3 rad if a stage is heated later."""
    experiment = iris(
        network=NetworkSpec(ports=8, layers=2),
        rule=RuleSpec.model_validate({"loss": "softmax", "scale": 20.0}),
        optimizer=OptimizerSpec(rate=0.05),
        training=TrainingSpec(epochs=500, batch=60, evaluate_every=500),
    )
    warm = {"temperature": {"heating_k_per_w": 20.0, "phase_rad_per_k": 0.045, "imbalance_sigma": 0.2}}
    parameters = chip("ideal", experiment).parameters
    warmed = ChipParameters.model_validate({**parameters.model_dump(), **warm})
    made, link, folder, notes = session(tmp_path, experiment, lambda: OpenDevice(Chip(warmed)))
    try:
        prediction = made.run()
    finally:
        link.close()
        folder.close()
    labels = load_dataset(experiment.data).y_test
    trained = next(report.test_accuracy for report in notes.epochs if report.layer == 0 and report.test_accuracy is not None)
    assert trained >= 0.8
    assert float(np.mean(prediction.layers[0] == labels)) >= trained - 0.1


def test_two_layers_are_trained_one_after_the_other(tmp_path: Path) -> None:
    experiment = iris(network=NetworkSpec(ports=8, layers=2), training=TrainingSpec(epochs=40, batch=60, evaluate_every=20))
    _, notes = run(tmp_path, experiment, "soi")
    assert [report.layer for report in notes.epochs] == [0] * 40 + [1] * 40
    checkpoint = read_checkpoint(tmp_path)
    for layer in range(2):
        assert np.abs(checkpoint[f"variables_{layer}"] - checkpoint[f"initial_{layer}"]).max() > 0.05
    with np.load(tmp_path / EVALUATION) as evaluation:
        assert evaluation["layer_predictions"].shape == (2, 30)
        assert evaluation["class_readings_1"].shape == (3, 8)
        # Two layers that disagree give a tie, which the last layer decides.
        assert (evaluation["vote"] == evaluation["layer_predictions"][1]).all()


def test_a_trained_layer_does_not_change(tmp_path: Path) -> None:
    experiment = iris(network=NetworkSpec(ports=8, layers=2), training=TrainingSpec(epochs=10, batch=60, evaluate_every=10))
    seen: dict[int, np.ndarray] = {}

    made, link, folder, _ = session(tmp_path, experiment, lambda: OpenDevice(chip("ideal", experiment)))
    end_layer = made._end_layer

    def noting(number: int) -> None:
        end_layer(number)
        seen[number] = made.state.variables[number].copy()

    made._end_layer = noting
    made.run()
    link.close()
    folder.close()
    np.testing.assert_array_equal(seen[0], made.state.variables[0])


@pytest.mark.parametrize("interruptions", [(7,), (3, 50, 51), (80, 81, 119)])
def test_an_interrupted_session_ends_bit_for_bit_like_a_whole_one(tmp_path: Path, interruptions: tuple[int, ...]) -> None:
    experiment = iris(network=NetworkSpec(ports=8, layers=2), training=TrainingSpec(epochs=30, batch=60, evaluate_every=7))
    whole, interrupted = tmp_path / "whole", tmp_path / "interrupted"
    run(whole, experiment, "ideal")
    for update in interruptions:
        stopped_at(interrupted, experiment, update, "ideal", killed=True)
        assert (interrupted / JOURNAL).stat().st_size > 0
    run(interrupted, experiment, "ideal")
    assert (whole / CHECKPOINT).read_bytes() == (interrupted / CHECKPOINT).read_bytes()
    epochs = [
        [(e["layer"], e["epoch"], e["loss"]) for e in read_events(p) if e["event"] == "epoch"] for p in (whole, interrupted)
    ]
    assert epochs[0] == epochs[1]


def saving_only_at_layer_start(made: Session) -> Callable[[], None]:
    save = made._save

    def saving() -> None:
        if made.state.update == 0:
            save()

    return saving


def stopped_at(
    path: Path, experiment: Experiment, update: int, preset: str = "soi", *, killed: bool = False
) -> tuple[Session, Notes]:
    """Return a session stopped at an update; `killed`: with a journal but no final checkpoint, as after kill -9."""
    made, link, folder, notes = session(path, experiment, lambda: OpenDevice(chip(preset, experiment)))
    if killed:
        made._save = saving_only_at_layer_start(made)
    made._stop = Stop(lambda: made.state.total >= update)
    with pytest.raises(SessionStopped):
        made.run()
    link.close()
    folder.close()
    return made, notes


def test_the_journal_also_replays_noisy_losses(tmp_path: Path) -> None:
    experiment = iris(training=TrainingSpec(epochs=20, batch=60, evaluate_every=20))
    made, _ = stopped_at(tmp_path, experiment, 25, killed=True)
    again, _ = stopped_at(tmp_path, experiment, 25)
    np.testing.assert_array_equal(again.state.variables[0], made.state.variables[0])


def test_losses_measured_around_other_variables_are_measured_again(tmp_path: Path) -> None:
    """After an older checkpoint is restored, losses in a newer journal belong to other variables."""
    experiment = iris(training=TrainingSpec(epochs=20, batch=60, evaluate_every=20))
    made, _ = stopped_at(tmp_path, experiment, 12, killed=True)
    content = (tmp_path / JOURNAL).read_bytes()
    record = len(content) // 12
    (tmp_path / JOURNAL).write_bytes(content[5 * record :])  # as if after a checkpoint at update 5
    again, notes = stopped_at(tmp_path, experiment, 12)
    assert any("from update 5 on were measured around other variables" in message for message in notes.messages)
    assert again.state.evaluations == made.state.evaluations
    assert not again._journal


def test_an_auto_step_leaves_directional_variables_their_range(tmp_path: Path) -> None:
    """A small group of phases has larger changes; only its own variables keep a larger distance from the limits."""
    experiment = iris(
        estimator=EstimatorSpec(name="directional", directions=2), training=TrainingSpec(epochs=2, batch=60, evaluate_every=2)
    )
    coarse = load_chip("soi", ports=8, stages=1)
    coarse = coarse.model_copy(update={"dac": coarse.dac.model_copy(update={"bits": 5})})
    made, link, folder, _ = session(tmp_path, experiment, lambda: OpenDevice(Chip(coarse)))
    made.run()
    bounds, limits = layer_bounds(made._layers[0], made._estimator, made.state.steps[0])
    share = (bounds.high - bounds.low) / (limits.high - limits.low)
    assert share.min() >= 0.5 - 1e-9
    reasons = next(e["reasons"] for e in read_events(tmp_path) if e["event"] == "step_chosen")
    assert "limited to" in reasons[-1]
    link.close()
    folder.close()


def test_nan_updates_are_not_written_to_the_checkpoint(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    experiment = iris(training=TrainingSpec(epochs=4, batch=60, evaluate_every=4))
    made, link, folder, _ = session(tmp_path, experiment, lambda: OpenDevice(chip("ideal", experiment)))
    monkeypatch.setattr(
        "photonloop.controller.learning.session.descend", lambda spec, moments, direction, rate: direction * np.inf
    )
    with pytest.raises(ConfigError, match="optimizer.rate is 0.03: use a lower rate"):
        made.run()
    link.close()
    folder.close()
    assert from_arrays(read_checkpoint(tmp_path), 0, "here").total == 0


def test_training_accuracy_uses_rows_from_the_whole_training_part() -> None:
    rows = training_rows(0, 120, 30)
    assert len(rows) == len(set(rows)) == 30
    assert rows.max() > 90
    assert np.array_equal(rows, training_rows(0, 120, 30))
    assert np.array_equal(training_rows(0, 20, 30), np.arange(20))


class Flaky:
    """A chip whose connection breaks at chosen evaluations; each opening gives a new chip."""

    def __init__(self, breaks: set[int]) -> None:
        self.breaks, self.count, self.opened = breaks, 0, 0

    def open(self, experiment: Experiment) -> OpenDevice:
        self.opened += 1
        real = chip("ideal", experiment)
        evaluate = real.evaluate

        def breaking(drives: Drive, inputs: Inputs | LoadedRows, stage: str) -> Readings:
            self.count += 1
            if self.count in self.breaks:
                raise DeviceError("transport", "cable disconnected", outcome="unknown")
            return evaluate(drives, inputs, stage)

        real.evaluate = breaking
        return OpenDevice(real)


def test_reconnecting_does_not_change_the_result(tmp_path: Path) -> None:
    experiment = iris(network=NetworkSpec(ports=8, layers=2), training=TrainingSpec(epochs=10, batch=60, evaluate_every=5))
    run(tmp_path / "whole", experiment, "ideal")
    flaky = Flaky({1, 15, 16, 40})
    made, link, folder, _ = session(tmp_path / "flaky", experiment, lambda: flaky.open(experiment))
    made.run()
    link.close()
    folder.close()
    assert flaky.opened == 5
    assert (tmp_path / "whole" / CHECKPOINT).read_bytes() == (tmp_path / "flaky" / CHECKPOINT).read_bytes()


def test_a_hardware_fault_stops_the_session_and_leaves_it_resumable(tmp_path: Path) -> None:
    experiment = iris(training=TrainingSpec(epochs=10, batch=60, evaluate_every=10))
    made, link, folder, _ = session(tmp_path, experiment, lambda: OpenDevice(chip("ideal", experiment)))
    evaluate, count = link.finish, 0

    def dying() -> Readings:
        nonlocal count
        count += 1
        if count == 6:
            raise DeviceError("device", "heater supply over temperature", outcome="unknown")
        return evaluate()

    link.finish = dying
    with pytest.raises(DeviceError, match="over temperature"):
        made.run()
    link.close()
    folder.close()
    assert from_arrays(read_checkpoint(tmp_path), 0, "here").total == 5


def test_a_probe_step_below_one_dac_step_gives_a_warning(tmp_path: Path) -> None:
    paper = EstimatorSpec(name="directional", probe_step_rad=1e-3)
    experiment = iris(estimator=paper, training=TrainingSpec(epochs=1, batch=60))
    _, notes = run(tmp_path, experiment, "soi")
    assert any("less than one step of the drive source" in message for message in notes.messages)
    assert any(event["event"] == "warning" for event in read_events(tmp_path))


def test_more_layers_than_stages_are_refused() -> None:
    experiment = iris(network=NetworkSpec(ports=8, layers=3))
    with pytest.raises(ConfigError, match="network.layers is 3, but the device has 2 stages"):
        build_network(experiment, Chip(load_chip("ideal", ports=8, stages=2)).describe(), 3)


def test_several_layers_on_weight_banks_are_refused() -> None:
    parameters = load_chip("ideal", ports=8, stages=2)
    mesh = parameters.mesh.model_copy(update={"topology": "weight_bank"})
    chip = Chip(parameters.model_copy(update={"mesh": mesh}))
    with pytest.raises(ConfigError, match="network.layers is 2, but the device's stages are weight banks"):
        build_network(iris(network=NetworkSpec(ports=8, layers=2)), chip.describe(), 3)
    (layer,) = build_network(iris(network=NetworkSpec(ports=8, layers=1)), chip.describe(), 3)
    assert layer.stage.name == "bank0"


def test_a_nan_reading_stops_the_session_before_it_changes_the_run(tmp_path: Path) -> None:
    experiment = iris(training=TrainingSpec(epochs=10, batch=60, evaluate_every=10))
    made, link, folder, _ = session(tmp_path, experiment, lambda: OpenDevice(chip("ideal", experiment)))
    finish, count = link.finish, 0

    def returning_nan() -> Readings:
        nonlocal count
        count += 1
        readings = finish()
        if count == 6:
            readings.values[0, 3, 1] = np.nan
        return readings

    link.finish = returning_nan
    with pytest.raises(DeviceError, match="the loss of layer 1 at update 5 is NaN"):
        made.run()
    link.close()
    folder.close()
    state = from_arrays(read_checkpoint(tmp_path), 0, "here")
    assert state.total == 5
    assert np.isfinite(state.variables[0]).all()
    run(tmp_path, experiment, "ideal")


def test_a_session_works_within_a_tight_total_power_limit(tmp_path: Path) -> None:
    experiment = iris(training=TrainingSpec(epochs=40, batch=60, evaluate_every=40), estimator=EstimatorSpec(probe_step_rad=0.1))
    parameters = load_chip("soi", ports=8, stages=1, seed=0)
    tight = parameters.model_copy(update={"limits": parameters.limits.model_copy(update={"mean_power_w": 0.012})})
    made, link, folder, _ = session(tmp_path, experiment, lambda: OpenDevice(Chip(tight)))
    made.run()
    assert link.description.limits.total_power_w == pytest.approx(0.012 * link.description.channels)
    link.close()
    folder.close()


def test_another_device_after_reconnecting_is_refused(tmp_path: Path) -> None:
    experiment = iris(training=TrainingSpec(epochs=10, batch=60, evaluate_every=5))
    seeds = iter((0, 1))
    flaky = Flaky({8})

    def opener() -> OpenDevice:
        return flaky.open(experiment.model_copy(update={"seed": next(seeds)}))

    made, link, folder, _ = session(tmp_path, experiment, opener)
    with pytest.raises(DeviceError, match="is another one after reconnecting: serials.seed is 1 and was 0"):
        made.run()
    link.close()
    folder.close()


def test_updates_beyond_the_limits_of_the_device_are_refused() -> None:
    description = Chip(load_chip("ideal", ports=8, stages=1)).describe()
    small = description.model_copy(update={"limits": description.limits.model_copy(update={"max_batch": 32, "max_settings": 6})})
    for changes, sentence in (
        ({}, "training.batch is 60, but the device takes 32 samples at once"),
        ({"training": TrainingSpec(batch=16)}, "estimator.directions is 4, but the device takes 6 settings at once"),
        (
            {"training": TrainingSpec(batch=16), "estimator": EstimatorSpec(directions=1, probe_step_rad=50.0)},
            "estimator.probe_step_rad is 50, but",
        ),
    ):
        experiment = iris(**changes)
        with pytest.raises(ConfigError, match=sentence):
            check_fits(experiment, small, build_network(experiment, small, 3), 120)


def test_saturated_detectors_give_one_warning_per_layer(tmp_path: Path) -> None:
    experiment = iris(training=TrainingSpec(epochs=5, batch=60, evaluate_every=5))
    parameters = load_chip("soi", ports=8, stages=1, seed=0)
    blinded = parameters.model_copy(update={"adc": parameters.adc.model_copy(update={"headroom": 0.3})})
    made, link, folder, notes = session(tmp_path, experiment, lambda: OpenDevice(Chip(blinded)))
    made.run()
    link.close()
    folder.close()
    assert sum("saturated" in message for message in notes.messages) == 1


def test_stopping_during_replay_keeps_the_rest_of_the_journal(tmp_path: Path) -> None:
    experiment = iris(training=TrainingSpec(epochs=20, batch=60, evaluate_every=20))
    stopped_at(tmp_path, experiment, 25, killed=True)
    stopped_at(tmp_path, experiment, 10)  # stopped during the replay
    assert from_arrays(read_checkpoint(tmp_path), 0, "here").total == 10
    folder = RunFolder(tmp_path)
    assert sorted(folder.take_journal()) == list(range(10, 25))
    folder.close()


def two_short_layers() -> Experiment:
    return iris(
        network=NetworkSpec(ports=8, layers=2),
        estimator=EstimatorSpec(directions=1),
        training=TrainingSpec(epochs=2, batch=60, evaluate_every=1),
    )


class Counted:
    """An ideal chip that counts its evaluations, and optionally fails at one of them."""

    def __init__(self, fails_at: int = 0) -> None:
        self.count, self.fails_at = 0, fails_at

    def open(self, experiment: Experiment) -> OpenDevice:
        real = chip("ideal", experiment)
        evaluate = real.evaluate

        def counting(drives: Drive, inputs: Inputs | LoadedRows, stage: str) -> Readings:
            self.count += 1
            if self.count == self.fails_at:
                raise DeviceError("device", "heater supply over temperature")
            return evaluate(drives, inputs, stage)

        real.evaluate = counting
        return OpenDevice(real)


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, int]:
    """Return the run of `two_short_layers` without interruption, and its number of evaluations."""
    path, counted, experiment = tmp_path_factory.mktemp("uninterrupted"), Counted(), two_short_layers()
    made, link, folder, _ = session(path, experiment, lambda: counted.open(experiment))
    made.run()
    link.close()
    folder.close()
    return path, counted.count


@pytest.mark.parametrize("how", ["stopped", "failed"])
def test_a_session_stopped_at_any_evaluation_resumes_exactly(tmp_path: Path, uninterrupted: tuple[Path, int], how: str) -> None:
    """Evaluations: of the probe step, of updates, and of accuracies after an epoch, after a layer and at the end."""
    experiment, (whole, evaluations) = two_short_layers(), uninterrupted
    assert evaluations >= 30
    events = [(e["event"], e.get("layer"), e.get("epoch"), e.get("test_accuracy")) for e in read_events(whole)]
    for at in range(1, evaluations + 1):
        path = tmp_path / str(at)
        counted = Counted(fails_at=at if how == "failed" else 0)
        stop = Stop(lambda counted=counted, at=at: how == "stopped" and counted.count >= at)
        made, link, folder, _ = session(path, experiment, lambda counted=counted: counted.open(experiment), stop)
        if how == "stopped" and at == evaluations:
            made.run()  # the last evaluation: nothing is left to stop
        else:
            with pytest.raises(SessionStopped if how == "stopped" else DeviceError):
                made.run()
        # After the stop it sends no further evaluation.
        assert counted.count == at
        link.close()
        folder.close()
        run(path, experiment, "ideal")
        assert (path / CHECKPOINT).read_bytes() == (whole / CHECKPOINT).read_bytes(), f"{how} at evaluation {at}"
        again = [(e["event"], e.get("layer"), e.get("epoch"), e.get("test_accuracy")) for e in read_events(path)]
        assert again == events, f"{how} at evaluation {at}"


def test_the_probe_step_is_measured_within_the_limits_of_the_device(tmp_path: Path) -> None:
    experiment = iris(training=TrainingSpec(epochs=2, batch=60, evaluate_every=2), estimator=EstimatorSpec(directions=1))
    parameters = load_chip("ideal", ports=8, stages=1, seed=0)
    narrow = parameters.limits.model_copy(update={"max_settings": 5, "max_readings": 2 * 60 * 8, "max_batch": 60})
    checkpoints = []
    for name, limits in (("wide", parameters.limits), ("narrow", narrow)):
        device = Chip(parameters.model_copy(update={"limits": limits}))
        made, link, folder, _ = session(tmp_path / name, experiment, lambda device=device: OpenDevice(device))
        made.run()
        link.close()
        folder.close()
        checkpoints.append((tmp_path / name / CHECKPOINT).read_bytes())
    assert checkpoints[0] == checkpoints[1]


@pytest.mark.parametrize(
    ("limits", "settings", "samples", "expected"),
    [
        ({}, 1, 100, (1024, 100)),
        ({"max_batch": 7}, 3, 20, (1024, 7)),
        ({"max_settings": 2}, 5, 20, (2, 20)),
        ({"max_readings": 8 * 20 * 3}, 7, 20, (3, 20)),
        ({"max_readings": 8 * 6}, 3, 20, (1, 6)),
    ],
)
def test_measurements_are_divided_to_fit_the_limits_of_the_device(
    limits: dict[str, int], settings: int, samples: int, expected: tuple[int, int]
) -> None:
    parameters = load_chip("ideal", ports=8, stages=1)
    device = Chip(parameters.model_copy(update={"limits": parameters.limits.model_copy(update=limits)}))
    whole = Chip(parameters)
    rng = np.random.default_rng(0)
    inputs = rng.random((samples, 8), np.float32)
    link = ReconnectingDevice(lambda: OpenDevice(device))
    link.load_inputs("x", inputs)
    stage = link.description.stages[0]
    assert evaluation_size(link.description, stage, samples) == expected
    layer = build_network(iris(), link.description, 3)[0]
    phases = rng.random((settings, stage.channels))
    read = measure_settings(link, layer, phases, LoadedRows("x", np.arange(samples)))
    drives = to_drive(phases, link.description.drive)
    np.testing.assert_allclose(read.values, whole.evaluate(drives, inputs, stage.name).values, rtol=1e-6)
    assert read.time_s.shape == (settings,)
    assert read.flags.shape == (settings, read.values.shape[2])
    link.close()
    whole.close()


def test_in_real_time_measurements_are_divided_into_evaluations_of_a_second() -> None:
    description = Chip(load_chip("ideal", ports=8, stages=1), realtime=True).describe()
    drive = description.drive.model_copy(update={"settle_s": 0.05})
    slow = description.model_copy(update={"drive": drive, "readout": description.readout.model_copy(update={"sample_s": 0.001})})
    assert evaluation_size(slow, slow.stages[0], 50) == (10, 50)
    assert evaluation_size(slow, slow.stages[0], 5000) == (1, 1000)
    slower = slow.model_copy(update={"readout": description.readout.model_copy(update={"sample_s": 7.0})})
    assert evaluation_size(slower, slow.stages[0], 50) == (1, 1)


@pytest.mark.parametrize("settings", [32, 1])
def test_nan_in_any_measurement_stops_the_session(tmp_path: Path, settings: int) -> None:
    """Measurements of the probe step have 32 settings, of the accuracies 1."""
    experiment = two_short_layers()

    def opener() -> OpenDevice:
        real = chip("ideal", experiment)
        evaluate = real.evaluate

        def blind(drives: Drive, inputs: Inputs | LoadedRows, stage: str) -> Readings:
            readings = evaluate(drives, inputs, stage)
            if len(drives) == settings:
                readings.values[-1, 2, 3] = np.nan
            return readings

        real.evaluate = blind
        return OpenDevice(real)

    made, link, folder, _ = session(tmp_path, experiment, opener)
    with pytest.raises(DeviceError, match="readings of layer 1 contain NaN or infinity"):
        made.run()
    link.close()
    folder.close()


@pytest.mark.parametrize("settings", [2, 32, 1])
def test_flags_of_any_measurement_give_one_warning_per_layer(tmp_path: Path, settings: int) -> None:
    """Updates have 2 settings, measurements of the probe step 32, and of the accuracies 1."""
    experiment = two_short_layers()

    def opener() -> OpenDevice:
        real = chip("ideal", experiment)
        evaluate = real.evaluate

        def flagging(drives: Drive, inputs: Inputs | LoadedRows, stage: str) -> Readings:
            readings = evaluate(drives, inputs, stage)
            if len(drives) == settings:
                readings.flags[-1] |= FLAG_UNSETTLED
            return readings

        real.evaluate = flagging
        return OpenDevice(real)

    made, link, folder, notes = session(tmp_path, experiment, opener)
    made.run()
    link.close()
    folder.close()
    warned = [message for message in notes.messages if "before they had settled" in message]
    assert [message.partition(":")[2].strip()[:7] for message in warned] == ["layer 1", "layer 2"]
    assert [e["message"] for e in read_events(tmp_path) if e["event"] == "warning"] == [
        message.removeprefix("warning: ") for message in warned
    ]


def test_another_kind_of_flag_in_the_same_layer_gives_another_warning() -> None:
    warnings = FlagWarnings()
    flags, unsettled = np.zeros((2, 4), np.uint32), np.full((2, 4), FLAG_UNSETTLED, np.uint32)
    assert warnings.new_warning("layer 1", flags, "of update 1") is None
    flags[1, :3] = FLAG_SATURATED
    warning = warnings.new_warning("layer 1", flags, "of update 2")
    assert warning == "layer 1: readings of update 2: 3 of 4 detectors saturated in 1 of 2 settings; reported once per layer"
    assert warnings.new_warning("layer 1", flags[1:], "of the test set") is None
    warning = warnings.new_warning("layer 1", flags[1:] | unsettled[1:], "of the test set")
    assert warning == "layer 1: readings of the test set: taken before they had settled; reported once per layer"
    both = warnings.new_warning("layer 3", flags | unsettled, "of update 3")
    assert both == (
        "layer 3: readings of update 3: 3 of 4 detectors saturated in 1 of 2 settings, and taken before they had settled in "
        "2 of 2 settings; reported once per layer"
    )
    flags[0, 0] = 1 << 5
    assert (
        warnings.new_warning("layer 2", flags[:1], "of the test set")
        == "layer 2: readings of the test set: 1 of 4 detectors flagged 0x20; reported once per layer"
    )
