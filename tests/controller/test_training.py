"""Resuming and evaluating runs: on the same chip, on another chip, on an unsuitable device; and stopping early."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from photonloop.controller import training
from photonloop.controller.data.datasets import DataSpec, load_dataset
from photonloop.controller.device.address import DeviceAddress
from photonloop.controller.device.open_device import OpenDevice
from photonloop.controller.experiment import EstimatorSpec, Experiment, NetworkSpec, TrainingSpec
from photonloop.controller.learning.progress import EpochReport
from photonloop.controller.runs.npz_files import write_npz
from photonloop.controller.runs.run_folder import CHECKPOINT, DEVICE, EVALUATION, read_checkpoint, read_events
from photonloop.controller.stopping import SessionStopped, Stop
from photonloop.protocols.config import ConfigError
from photonloop.protocols.device import DeviceDescription
from photonloop.simulator.engine.chip import Chip
from photonloop.simulator.parameters import ChipParameters, load_chip

EXPERIMENT = Experiment(
    name="small",
    device="tcp://lab:5555",
    data=DataSpec(source="iris"),
    network=NetworkSpec(layers=2),
    estimator=EstimatorSpec(directions=1),
    training=TrainingSpec(epochs=2, batch=60, evaluate_every=1),
)


class Notes:
    """A listener that stores messages."""

    def __init__(self) -> None:
        self.messages: list[str] = []

    def epoch(self, report: EpochReport) -> None:
        del report

    def message(self, text: str) -> None:
        self.messages.append(text)


class Bench:
    """Opens a chip of `parameters` in this process for any device string."""

    def __init__(self) -> None:
        self.parameters = load_chip("soi", ports=8, stages=2)

    def open(self, address: DeviceAddress, **_: object) -> OpenDevice:
        del address
        return OpenDevice(Chip(self.parameters, threads=1))

    def change(self, **tables: object) -> None:
        self.parameters = ChipParameters.model_validate({**load_chip("soi", ports=8, stages=2).model_dump(), **tables})

    def describe(self) -> DeviceDescription:
        return Chip(self.parameters, threads=1).describe()


@pytest.fixture
def bench(monkeypatch: pytest.MonkeyPatch) -> Bench:
    bench = Bench()
    monkeypatch.setattr(training, "open_device", bench.open)
    return bench


@pytest.fixture
def run(bench: Bench, tmp_path: Path) -> Path:
    """A finished run."""
    return Path(training.train(EXPERIMENT, runs=tmp_path, listener=Notes()).run)


def unfinished(run: Path) -> None:
    """Mark the run as not finished."""
    arrays = read_checkpoint(run)
    arrays["meta"] = np.array(str(arrays["meta"]).replace('"finished": true', '"finished": false'))
    write_npz(run / CHECKPOINT, arrays)


def stored(run: Path) -> DeviceDescription:
    return DeviceDescription.model_validate_json((run / DEVICE).read_text(encoding="utf-8"))


def test_the_same_chip_gives_no_warning(run: Path) -> None:
    for act in (training.resume, training.evaluate):
        notes = Notes()
        act(run, listener=notes)
        assert not [message for message in notes.messages if "another chip" in message]


def test_a_run_of_an_earlier_version_continues_on_the_same_chip(run: Path) -> None:
    """Its device.json lacks the fields that were added since."""
    unfinished(run)
    device = json.loads((run / DEVICE).read_text(encoding="utf-8"))
    for field in ("inputs_at_once", "phases_steady_s", "light_switch", "reads_back"):
        del device[field]
    del device["drive"]["noise_v"], device["drive"]["time_constant_s"]
    del device["readout"]["noise"], device["readout"]["bandwidth_hz"]
    for stage in device["stages"]:
        del stage["geometry"]
    (run / DEVICE).write_text(json.dumps(device), encoding="utf-8")
    for act in (training.resume, training.evaluate):
        notes = Notes()
        act(run, listener=notes)
        assert not [message for message in notes.messages if "another chip" in message]


def test_a_device_that_lights_one_input_is_refused_before_anything_is_applied(
    bench: Bench, run: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    unfinished(run)
    bench.change(modulator={**bench.parameters.modulator.model_dump(), "kind": "switch"})
    opened: list[Chip] = []

    def opener(address: DeviceAddress, **options: object) -> OpenDevice:
        device = bench.open(address, **options)
        assert isinstance(device.device, Chip)
        opened.append(device.device)
        return device

    monkeypatch.setattr(training, "open_device", opener)
    sentence = "the device 'soi' lights one input at a time \\(inputs_at_once is 'one'\\), .*: give every input a modulator"
    for act in (
        lambda: training.train(EXPERIMENT, runs=tmp_path / "new", listener=Notes()),
        lambda: training.resume(run, device="tcp://lab:5555", listener=Notes()),
    ):
        with pytest.raises(ConfigError, match=sentence) as caught:
            act()
        assert "\n" not in str(caught.value)
    assert not (tmp_path / "new").exists()
    assert [(chip.status().clock_s, chip.status().evaluations) for chip in opened] == [(0.0, 0)] * 2


def test_an_edited_chip_is_refused_unless_named_and_evaluated_with_a_warning(bench: Bench, run: Path) -> None:
    unfinished(run)
    began = bench.describe()
    bench.change(coupler={"angle_sigma_rad": 0.1})
    with pytest.raises(ConfigError) as caught:
        training.resume(run, listener=Notes())
    for part in (
        "tcp://lab:5555 is another chip than the one run",
        "serials.parameters is",
        "Reconnect that chip",
        f"photonloop train --resume {run} --device tcp://lab:5555",
    ):
        assert part in str(caught.value)
    assert "\n" not in str(caught.value)
    notes = Notes()
    assert training.evaluate(run, listener=notes).layers
    assert [message.partition(": serials")[0] for message in notes.messages] == [
        f"warning: tcp://lab:5555 is another chip than the one run {run} was trained on"
    ]
    assert stored(run) == began, "evaluate must not change the run"
    notes = Notes()
    training.resume(run, device="tcp://lab:5555", listener=notes)
    assert any(message.startswith("warning: tcp://lab:5555 is another chip than the one the run") for message in notes.messages)
    assert any(event["event"] == "warning" and "another chip" in event["message"] for event in read_events(run))
    assert stored(run) == bench.describe(), "the run must store the new chip"
    training.resume(run, listener=Notes())
    bench.parameters = load_chip("soi", ports=8, stages=2)
    with pytest.raises(ConfigError, match="another chip"):
        training.resume(run, listener=Notes())


def test_a_finished_run_keeps_its_chip_and_its_result(bench: Bench, run: Path) -> None:
    began, result = stored(run), (run / EVALUATION).read_bytes()
    bench.change(seed=5)
    with pytest.raises(ConfigError, match=r"is finished, and tcp://other:5555 is another chip .*photonloop evaluate"):
        training.resume(run, device="tcp://other:5555", listener=Notes())
    assert (stored(run), (run / EVALUATION).read_bytes()) == (began, result)
    assert training.evaluate(run, device="tcp://other:5555", listener=Notes()).layers


@pytest.mark.parametrize("device", [None, "tcp://other:5555"])
@pytest.mark.parametrize(
    ("changes", "difference"),
    [
        ({"ports": 10}, "input_ports is 10 and was 8"),
        ({"stages": 3}, "it has 3 stages and had 2"),
        ({"dac": {"max_v": 9.0}}, "drive.max_v is 9.0 and was 10.8"),
        ({"limits": {"power_w": 0.05}}, "limits.power_w is 0.05 and was 0.06"),
    ],
)
def test_a_device_of_another_shape_is_always_refused(
    bench: Bench, run: Path, changes: dict[str, object], difference: str, device: str | None
) -> None:
    bench.change(**changes)
    for act in (training.resume, training.evaluate):
        with pytest.raises(ConfigError, match=rf"is not the one that run .* was trained on: {difference}$"):
            act(run, device=device, listener=Notes())


@pytest.mark.parametrize("content", ["", "{", '{"name": "x"}', None])
def test_a_missing_or_damaged_description_is_refused_with_one_sentence(run: Path, content: str | None) -> None:
    (run / DEVICE).unlink()
    if content is not None:
        (run / DEVICE).write_text(content, encoding="utf-8")
    for act in (training.resume, training.evaluate):
        with pytest.raises(ConfigError, match=r"has no usable device.json \([^\n]*\): put back a copy of it"):
            act(run, listener=Notes())


def test_evaluate_warns_of_saturated_detectors(bench: Bench, run: Path) -> None:
    bench.change(adc={**bench.parameters.adc.model_dump(), "headroom": 0.2})
    notes = Notes()
    training.evaluate(run, listener=notes)
    (warning,) = [message for message in notes.messages if "layer 1" in message and "saturated" in message]
    assert re.fullmatch(
        r"warning: layer 1: readings of the test set: \d of 8 detectors saturated; reported once per layer", warning
    )


@pytest.mark.parametrize("act", [training.resume, training.evaluate])
def test_a_stop_request_prevents_reading_data_and_measuring(
    monkeypatch: pytest.MonkeyPatch, run: Path, act: Callable[..., object]
) -> None:
    stop, before = Stop(), (run / CHECKPOINT).read_bytes()
    stop.ask()
    with pytest.raises(SessionStopped, match="stopped on request while the data was read"):
        act(run, listener=Notes(), stop=stop)
    # Requested after the data was read, the stop takes effect before anything is sent to the device.
    read = False

    def reading(spec: DataSpec) -> object:
        nonlocal read
        read = True
        return load_dataset(spec)

    monkeypatch.setattr(training, "load_dataset", reading)
    with pytest.raises(SessionStopped):
        act(run, listener=Notes(), stop=Stop(lambda: read))
    assert (run / CHECKPOINT).read_bytes() == before
