"""The report: it shows the data of the run folder, is self-contained, and can be written if files are missing."""

import json
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from support.html_pages import HtmlPage, assert_self_contained

from photonloop.controller.report import write_report
from photonloop.controller.report.colours import phase_wheel
from photonloop.controller.report.curve_drawing import accuracy_ticks
from photonloop.controller.report.matrix_drawing import (
    class_readings_svg,
    confusion_counts,
    confusion_matrix_svg,
    most_confused,
)
from photonloop.controller.report.mesh_drawing import (
    change_limit_rad,
    change_paint,
    mesh_panel_svg,
    phase_paint,
    stage_drawings,
)
from photonloop.protocols.config import ConfigError
from photonloop.protocols.device import (
    DeviceDescription,
    DriveDescription,
    LimitsDescription,
    ReadoutDescription,
    StageDescription,
)


def clements_layout(ports: int) -> tuple[tuple[int, int, int, int], ...]:
    """Return one row per interferometer of a rectangular mesh: column, top mode, θ channel, φ channel."""
    places = [(column, mode) for column in range(ports) for mode in range(column % 2, ports - 1, 2)]
    return tuple((column, mode, k, len(places) + k) for k, (column, mode) in enumerate(places))


def describe(ports: int, layers: int) -> DeviceDescription:
    count = ports * (ports - 1) // 2
    channels = 2 * count + ports
    groups = {"theta": (0, count), "phi": (count, 2 * count), "gamma": (2 * count, channels)}
    return DeviceDescription(
        name="virtual chip",
        kind="simulator",
        serials={"preset": "soi", "seed": "0"},
        input_ports=ports,
        phases_settable=True,
        stages=tuple(
            StageDescription(
                name=f"mesh{k + 1}",
                topology="clements",
                ports=ports,
                first_channel=k * channels,
                channels=channels,
                groups=groups,
                layout=clements_layout(ports),
                tap_ports=ports,
                nonlinearity="electro-optic" if k + 1 < layers else "none",
            )
            for k in range(layers)
        ),
        drive=DriveDescription(
            min_v=0.0, max_v=8.0, bits=16, range_v=12.0, settle_s=2e-5, resistance_ohm=770.0, pi_power_w=0.0248
        ),
        readout=ReadoutDescription(full_scale=(1e-3,) * layers, bits=16, sample_s=1e-6),
        limits=LimitsDescription(
            voltage_v=8.0, max_batch=4096, max_settings=256, max_readings=10**8, max_loaded_bytes=10**9
        ),
        clock="virtual",
    )  # fmt: skip


EXPERIMENT = """name = "digits"
seed = 0
device = "sim:soi"

[data]
source = "digits"
test_fraction = 0.2
split_seed = 0
image = "none"

[encoding]
scale = "feature"

[network]
layers = 2

[rule]
name = "prototype"
loss = "softmax"
scale = 10.0

[estimator]
name = "spsa"
probe_step_rad = "auto"
directions = 1

[optimizer]
name = "adam"
rate = 0.01
schedule = "cosine"

[training]
epochs = 40
batch = 128
"""


def write_run(run: Path, ports: int = 6, layers: int = 2, classes: int = 3, epochs: int = 12, *, finished: bool = True) -> Path:
    """Write a run folder as a session writes it, with invented but plausible numbers."""
    rng = np.random.default_rng(0)
    run.mkdir(parents=True, exist_ok=True)
    device = describe(ports, layers)
    (run / "experiment.toml").write_text(EXPERIMENT)
    (run / "device.json").write_text(device.model_dump_json())
    (run / "metrics.jsonl").write_text("".join(json.dumps(event) + "\n" for event in _events(layers, epochs, finished, rng)))
    arrays: dict[str, Any] = {"meta": np.array(json.dumps({"update": 12}))}
    for k, stage in enumerate(device.stages):
        initial = rng.uniform(0, 2 * np.pi, stage.channels)
        arrays |= {f"initial_{k}": initial, f"variables_{k}": initial + rng.normal(0, 0.25, stage.channels)}
    np.savez(run / "checkpoint.npz", **arrays)
    if finished:
        np.savez(run / "evaluation.npz", **_evaluation(ports, layers, classes, rng))
    return run


def _events(layers: int, epochs: int, finished: bool, rng: np.random.Generator) -> Iterator[dict[str, Any]]:
    def at(second: float) -> str:
        return f"2025-11-23T12:{int(second) // 60:02d}:{int(second) % 60:02d}.250+00:00"

    versions = {"python": "3.11.2", "photonloop": "0.1.0", "numpy": "2.4.0", "numba": "0.68.0", "pyzmq": "27.1.0"}
    yield {
        "event": "start",
        "time": at(0),
        "device": "sim:soi",
        "seed": 0,
        "lease_key": "a-lease-key",
        "clipped": 3,
        "versions": versions,
    }
    yield {
        "event": "warning",
        "time": at(0),
        "message": "a probe of 1e-05 rad is below one DAC step",
    }
    clock, evaluations = 1.0, 0
    for layer in range(layers if finished else 1):
        reasons = [
            "one DAC step near V_π moves a phase by 0.00026 rad",
            "8 repeats of one setting: loss noise 0.0011, so 0.05 rad gives a signal of 14 standard deviations",
        ]
        yield {
            "event": "step_chosen",
            "time": at(clock),
            "layer": layer,
            "step_rad": 0.05,
            "per_phase_rad": 0.05,
            "reasons": reasons,
        }
        for epoch in range(1, epochs + 1):
            done, evaluated = epoch / epochs, epoch % 2 == 0
            clock, evaluations = clock + 45 / layers / epochs, evaluations + 24
            accuracy = 0.94 - 0.8 * np.exp(-5 * done) - 0.01 * layer
            yield {
                "event": "epoch", "time": at(clock), "layer": layer, "epoch": epoch, "update": 11 * epoch,
                "loss": 0.35 + 1.9 * float(np.exp(-4 * done)) + float(rng.normal(0, 0.02)),
                "train_accuracy": accuracy + 0.02 if evaluated else None,
                "test_accuracy": accuracy + float(rng.normal(0, 0.004)) if evaluated else None,
                "evaluations": evaluations, "evaluations_per_s": 1040.0, "wall_s": clock,
            }  # fmt: skip
            if layer == 0 and epoch == epochs // 2:
                yield {"event": "device_lost", "time": at(clock), "message": "the simulator process ended (exit code -9)"}
                yield {
                    "event": "device_back",
                    "time": at(clock + 1),
                    "message": "a new simulator process holds the same drive",
                }
        yield {
            "event": "layer_done",
            "time": at(clock),
            "layer": layer,
            "name": f"mesh{layer + 1}",
            "test_accuracy": 0.931 - 0.01 * layer,
        }
        if layer == 0 and finished:
            yield {"event": "resume", "time": at(clock), "layer": 1, "update": 0, "versions": versions}
    if finished:
        named = [{"name": f"mesh{k + 1}", "test_accuracy": 0.931 - 0.01 * k} for k in range(layers)]
        yield {"event": "result", "time": at(clock + 1), "run": "runs/digits", "device": "sim:soi", "test_accuracy": 0.9361,
               "layers": named, "evaluations": evaluations, "wall_s": 52.4}  # fmt: skip


def _evaluation(ports: int, layers: int, classes: int, rng: np.random.Generator) -> dict[str, Any]:
    y_true = np.sort(np.arange(36 * classes) % classes)
    predictions = np.where(rng.random((layers, y_true.size)) < 0.93, y_true, rng.integers(0, classes, (layers, y_true.size)))
    arrays: dict[str, Any] = {"y_true": y_true, "vote": predictions[-1], "layer_predictions": predictions}
    arrays["classes"] = np.array([str(k) for k in range(classes)])
    for k in range(layers):
        arrays[f"class_readings_{k}"] = rng.exponential(2e-5, (classes, ports)) * (1 + rng.integers(0, 2, (classes, ports)))
    return arrays


def _report(run: Path) -> tuple[str, HtmlPage]:
    text = write_report(run).read_text(encoding="utf-8")
    return text, HtmlPage(text)


@pytest.fixture(scope="module")
def full(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, HtmlPage]:
    return _report(write_run(tmp_path_factory.mktemp("full") / "digits"))


def test_shows_the_data_of_the_run(full: tuple[str, HtmlPage]) -> None:
    text = full[1].text
    for words in (
        "93.6%", "virtual chip", "preset soi", "Layer 1 (mesh1)", "Layer 2 (mesh2)", "52.4 s", "576", "0.05 rad",
        "one DAC step near V_π", "device lost the simulator process ended", "device back", "resumed",
        "3 test values were outside", "below one DAC step", "numba 0.68.0", "[optimizer]", 'schedule = "cosine"',
        "16 bit, 183 µV per step", "24.8 mW for π", "test accuracy",
    ):  # fmt: skip
        assert words in text, words
    assert "not finished" not in text and "a-lease-key" not in text


def test_is_self_contained(full: tuple[str, HtmlPage]) -> None:
    assert_self_contained(*full)


def test_reports_of_the_same_run_are_identical(tmp_path: Path) -> None:
    run = write_run(tmp_path / "r")
    assert write_report(run).read_bytes() == write_report(run).read_bytes()
    assert not list(run.glob("*.tmp"))


def test_all_text_from_the_run_is_escaped(tmp_path: Path) -> None:
    run = write_run(tmp_path / "r")
    evil = "<script>alert('x')</script>&\"$\\frac{"
    (run / "experiment.toml").write_text(f"name = {json.dumps(evil)}\n# {evil}\n")
    device = describe(6, 2)
    stages = tuple(stage.model_copy(update={"name": evil + stage.name, "topology": evil}) for stage in device.stages)
    (run / "device.json").write_text(
        device.model_copy(update={"name": evil, "serials": {evil: evil}, "stages": stages}).model_dump_json()
    )
    fields = {
        "message": evil,
        "layer": 0,
        "name": evil,
        "reasons": [evil],
        "device": evil,
        "seed": evil,
        "versions": {evil: evil},
    }
    kinds = ("start", "resume", "warning", "device_lost", "step_chosen", "layer_done", evil, "epoch")
    with (run / "metrics.jsonl").open("a") as file:
        for kind in kinds:
            file.write(json.dumps({"event": kind, "time": evil, **fields}) + "\n")
    with np.load(run / "evaluation.npz") as archive:
        arrays = {name: archive[name] for name in archive.files}
    np.savez(run / "evaluation.npz", allow_pickle=False, **(arrays | {"classes": np.array([evil, "b", "c"])}))
    text, page = _report(run)
    assert "script" not in page.tags and "<script" not in text
    assert page.text.count("<script>") >= 8


def test_unfinished_run_is_reported_with_its_last_epoch(tmp_path: Path) -> None:
    run = write_run(tmp_path / "r", finished=False)
    with (run / "metrics.jsonl").open("a") as file:
        file.write('{"event": "epoch", "layer": 1, "ep')
    _, page = _report(run)
    assert "This run is not finished: the last finished epoch is 12 of layer 1." in page.text
    assert f"photonloop train --resume {run}" in page.text
    assert "no confusion matrix" in page.text and "After: θ" in page.text


def test_resumed_run_is_unfinished_again(tmp_path: Path) -> None:
    run = write_run(tmp_path / "r")
    with (run / "metrics.jsonl").open("a") as file:
        file.write('{"event": "resume", "time": "2025-11-23T13:00:00+00:00"}\n')
    assert "This run is not finished" in _report(run)[1].text


def test_run_without_events_and_damaged_files(tmp_path: Path) -> None:
    run = tmp_path / "r"
    run.mkdir()
    (run / "experiment.toml").write_text(EXPERIMENT)
    text = _report(run)[1].text
    assert "the session did not start" in text and "no epoch is finished" in text
    write_run(run)
    for name, words in (
        ("checkpoint.npz", "checkpoint.npz is damaged"),
        ("evaluation.npz", "evaluation.npz is damaged"),
        ("device.json", "device.json is not a device description"),
    ):
        (run / name).write_bytes(b"PK\x03\x04 nothing")
        assert words in _report(run)[1].text


def test_inconsistent_evaluation_is_not_shown(tmp_path: Path) -> None:
    run = write_run(tmp_path / "r")
    with np.load(run / "evaluation.npz") as archive:
        arrays = {name: archive[name] for name in archive.files}
    for name, value in (
        ("vote", arrays["vote"][:-1]),
        ("y_true", arrays["y_true"] + 1),
        ("class_readings_1", np.zeros((2, 6))),
    ):
        np.savez(run / "evaluation.npz", allow_pickle=False, **(arrays | {name: value}))
        assert "evaluation.npz is inconsistent" in _report(run)[1].text


def test_many_classes_and_a_triangular_mesh_without_output_phases(tmp_path: Path) -> None:
    run = write_run(tmp_path / "r", ports=8, classes=40, layers=1)
    device = describe(8, 1)
    places = [(2 * diagonal + mode, mode) for diagonal in range(7) for mode in range(7 - diagonal)]
    reck = tuple((column, mode, k, 28 + k) for k, (column, mode) in enumerate(places))
    stage = device.stages[0].model_copy(
        update={"layout": reck, "groups": {"theta": (0, 28), "phi": (28, 64)}, "topology": "reck"}
    )
    (run / "device.json").write_text(device.model_copy(update={"stages": (stage,)}).model_dump_json())
    text, page = _report(run)
    assert "Before: φ" in page.text and "γ" not in page.text
    assert text.count("<title>") == 1 + 40 * 40 + 40 * 8


def test_layer_number_is_not_repeated_in_its_name(tmp_path: Path) -> None:
    """Sessions name their layers "layer 1"; the report adds the name of the stage, or nothing."""
    run = write_run(tmp_path / "r")
    metrics = run / "metrics.jsonl"
    metrics.write_text(re.sub(r'"name": "mesh(\d)"', r'"name": "layer \1"', metrics.read_text()))
    text = _report(run)[1].text
    assert "Layer 1 (mesh1)" in text and "(layer 1)" not in text
    (run / "device.json").unlink()
    text = _report(run)[1].text
    assert "(layer" not in text and "Layer 2 " in text
    device = describe(6, 2)
    stages = tuple(stage.model_copy(update={"name": f"LAYER_{k + 1}"}) for k, stage in enumerate(device.stages))
    (run / "device.json").write_text(device.model_copy(update={"stages": stages}).model_dump_json())
    assert "(LAYER" not in _report(run)[1].text


def test_vote_is_compared_with_each_layer(tmp_path: Path) -> None:
    run = write_run(tmp_path / "r", layers=3)
    with np.load(run / "evaluation.npz") as archive:
        arrays = {name: archive[name] for name in archive.files}
    y_true = np.arange(100) % 3
    layers = np.stack([y_true, np.where(np.arange(100) < 10, (y_true + 1) % 3, y_true), y_true])
    vote = np.where(np.arange(100) < 4, (y_true + 1) % 3, y_true)
    for count, sentence in (
        (3, "In a tie, the last layer decides. The accuracy of the vote is 96.0%: 4.0 percentage points worse than layer 1, "
            "6.0 percentage points better than layer 2 and 4.0 percentage points worse than layer 3."),
        (2, "so the vote is the prediction of the last layer. The accuracy of the vote is 96.0%: "
            "4.0 percentage points worse than layer 1 and 6.0 percentage points better than layer 2."),
    ):  # fmt: skip
        changed = {"y_true": y_true, "vote": vote, "layer_predictions": layers[:count]}
        np.savez(run / "evaluation.npz", allow_pickle=False, **(arrays | changed))
        assert sentence in _report(run)[1].text
    alone = {"y_true": y_true, "vote": layers[1], "layer_predictions": layers[1:2]}
    np.savez(run / "evaluation.npz", allow_pickle=False, **(arrays | alone))
    text = _report(run)[1].text
    assert "The layer classifies 90 of 100 test samples correctly" in text and "Vote of all layers" not in text


def test_other_folders_and_unwritable_reports_raise(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="does not exist or is not a folder"):
        write_report(tmp_path / "none")
    with pytest.raises(ConfigError, match=r"has neither experiment\.toml nor metrics\.jsonl"):
        write_report(tmp_path)
    run = write_run(tmp_path / "r")
    (run / "report.html").mkdir()
    with pytest.raises(ConfigError, match=r"report .* cannot be written"):
        write_report(run)


def test_curves_have_each_epoch_once_and_the_last_of_repeated_ones(tmp_path: Path) -> None:
    run = tmp_path / "r"
    run.mkdir()
    # The session was killed after epoch 2, and the resumed session repeated that epoch.
    losses = ((1, 3.0), (2, 99.0), (2, 2.0), (3, 1.0))
    lines = [{"event": "epoch", "layer": 0, "epoch": epoch, "loss": loss, "test_accuracy": None} for epoch, loss in losses]
    (run / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    text, page = _report(run)
    assert "not evaluated yet" in page.text
    path = re.search(r'<path d="(M[^"]*)"[^>]*stroke: var\(--accent\)', text)
    assert path is not None
    points = np.array(re.findall(r"[-\d.]+", path.group(1)), dtype=float).reshape(-1, 2)
    # The losses 3, 2, 1 are on a straight line; with the loss of 99 they would not be.
    assert len(points) == 3
    np.testing.assert_allclose(np.diff(points, n=2, axis=0), 0, atol=1e-4)


@pytest.mark.parametrize(
    ("low", "high", "step"),
    [(0.0, 1.0, 0.2), (0.794, 0.906, 0.02), (0.9, 0.93, 0.005), (0.95, 1.05, 0.02), (0.9964, 0.9982, 0.0005)],
)
def test_accuracy_ticks_have_round_steps_within_0_to_100_percent(low: float, high: float, step: float) -> None:
    ticks = np.array(accuracy_ticks(low, high))
    np.testing.assert_allclose(np.diff(ticks), step)
    assert max(low, 0.0) <= ticks[0] < ticks[-1] <= min(high, 1.0)


def test_labels_of_accuracy_ticks_are_exact(full: tuple[str, HtmlPage]) -> None:
    """Labels rounded to whole percent would not be evenly spaced."""
    (figure, *_) = re.findall(r'<svg class="curves".*?</svg>', full[0], re.DOTALL)
    labels = [float(label) for label in re.findall(r">([\d.]+)%<", figure)]
    assert len(labels) > 2
    np.testing.assert_allclose(np.diff(labels, n=2), 0, atol=1e-9)


def test_long_class_names_are_slanted() -> None:
    counts = np.diag([3, 4])
    assert confusion_matrix_svg(counts, ("a", "b")).count("rotate(") == 0
    assert confusion_matrix_svg(counts, ("versicolor", "b")).count("rotate(") == 2


def test_confusion_matrix_counts_pairs_of_classes() -> None:
    rng = np.random.default_rng(1)
    y_true, predicted = rng.integers(0, 4, 200), rng.integers(0, 4, 200)
    counts = confusion_counts(y_true, predicted, 4)
    for row in range(4):
        for column in range(4):
            assert counts[row, column] == sum(1 for a, b in zip(y_true, predicted, strict=True) if (a, b) == (row, column))
    svg = confusion_matrix_svg(counts, ("a", "b", "c", "<d>"))
    assert f"&lt;d&gt; classified as a: {counts[3, 0]}</title>" in svg
    assert most_confused(np.array([[5, 1, 0], [3, 9, 0], [0, 0, 2]]), ("a", "b", "c")) == "b as a (3 times), a as b (once)"
    assert most_confused(np.diag([3, 4]), ("a", "b")) == ""


def test_phase_wheel_is_continuous_and_opposite_phases_differ() -> None:
    wheel = np.array([[int(c[k : k + 2], 16) for k in (1, 3, 5)] for c in phase_wheel()], dtype=float)
    steps = np.linalg.norm(wheel - np.roll(wheel, 1, axis=0), axis=1)
    assert steps.max() < 25, "neighbouring colours differ too much"
    assert np.linalg.norm(wheel - np.roll(wheel, len(wheel) // 2, axis=0), axis=1).min() > 90
    paint = phase_paint()
    assert paint(0.0) == paint(2 * np.pi) == paint(-2 * np.pi) == paint(2 * np.pi - 1e-9) != paint(np.pi)
    assert paint(float("nan")) == ""


def test_change_paint_is_signed_and_limited() -> None:
    paint = change_paint(0.5)
    assert paint(0.0) == "" and paint(0.5) == paint(7.0) == 'class="up" fill-opacity="1"'
    assert paint(-0.25) == 'class="down" fill-opacity="0.5"'
    assert change_paint(0.0)(0.0) == ""
    changes = np.concatenate([np.full(995, 0.1), np.full(5, 6.0)])
    assert change_limit_rad([changes, np.array([np.nan])]) == pytest.approx(0.1)


@pytest.mark.parametrize("ports", [2, 5, 8])
def test_every_channel_is_drawn_once_at_its_place(ports: int) -> None:
    stage = describe(ports, 1).stages[0]
    theta, phi = stage_drawings(stage, stage.channels)
    assert sorted(theta.channels + phi.channels) == list(range(stage.channels))
    boxes = {cell.channel: cell.box for cell in theta.cells + phi.cells}
    for column, mode, theta_channel, phi_channel in stage.layout:
        left, top, width, height = boxes[theta_channel]
        assert boxes[phi_channel] == boxes[theta_channel]
        assert left > boxes[stage.layout[0][2]][0] if column > 0 else left == boxes[stage.layout[0][2]][0]
        # A cell covers the two waveguides of its modes and no others.
        inside = [k for k, y in enumerate(theta.guides) if top < y < top + height]
        assert inside == [mode, mode + 1] and left + width < theta.width
    for port, channel in enumerate(range(*stage.groups["gamma"])):
        left, top, _, height = boxes[channel]
        assert top < phi.guides[port] < top + height and left > max(boxes[row[2]][0] for row in stage.layout)


def test_unknown_layout_is_drawn_as_a_table() -> None:
    stage = describe(4, 1).stages[0].model_copy(update={"layout": (), "topology": "unknown"})
    for known in (stage, None):
        (listed,) = stage_drawings(known, 70)
        assert listed.channels == list(range(70)) and len({cell.box for cell in listed.cells}) == 70
        svg = mesh_panel_svg(listed, np.zeros(70), phase_paint(), "x")
        assert svg.count("M") == 70


def test_report_of_64_ports_is_below_3_mb(tmp_path: Path) -> None:
    run = write_run(tmp_path / "r", ports=64, classes=10, epochs=100)
    path = write_report(run)
    assert path.stat().st_size < 3_000_000
    HtmlPage(path.read_text(encoding="utf-8"))


def test_matplotlib_is_not_imported_before_a_report_is_written() -> None:
    script = "import photonloop.controller.report, sys; print('matplotlib' in sys.modules, 'sklearn' in sys.modules)"
    out = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True).stdout
    assert out.split() == ["False", "False"]


def test_attenuators_are_drawn_on_their_own_mode() -> None:
    """An SVD mesh of two modes: an interferometer, two attenuators, an interferometer and the output phases."""
    layout = ((0, 0, 0, 4), (1, 0, 2, 6), (1, 1, 3, 7), (2, 0, 1, 5))
    groups = {"theta": (0, 2), "attenuator_theta": (2, 4), "phi": (4, 6), "attenuator_phi": (6, 8), "gamma": (8, 10)}
    changes = {"layout": layout, "groups": groups, "channels": 10, "topology": "svd"}
    stage = describe(2, 1).stages[0].model_copy(update=changes)
    theta, phi = stage_drawings(stage, 10)
    assert sorted(theta.channels + phi.channels) == list(range(10))
    for drawing, first, channels in ((theta, 0, (2, 3)), (phi, 4, (6, 7))):
        boxes = {cell.channel: cell.box for cell in drawing.cells}
        covered = [[k for k, y in enumerate(drawing.guides) if box[1] < y < box[1] + box[3]] for box in boxes.values()]
        assert dict(zip(boxes, covered, strict=True))[first] == [0, 1]
        assert [dict(zip(boxes, covered, strict=True))[channel] for channel in channels] == [[0], [1]]
        assert boxes[first][0] < boxes[channels[0]][0] == boxes[channels[1]][0] < boxes[first + 1][0]


def test_rings_of_a_weight_bank_are_drawn_as_a_table() -> None:
    changes = {"layout": (), "groups": {"ring": (0, 12)}, "channels": 12, "topology": "weight_bank", "ports": 4, "tap_ports": 3}
    (table,) = stage_drawings(describe(4, 1).stages[0].model_copy(update=changes), 12)
    assert table.channels == list(range(12))
    boxes = [cell.box for cell in table.cells]
    assert boxes[4][0] == boxes[0][0] and boxes[4][1] > boxes[3][1] == boxes[0][1]


def test_negative_readings_have_a_second_colour() -> None:
    signed = class_readings_svg(np.array([[-2e-6, 1e-6], [0.5e-6, np.nan]]), ("a", "b"), "A")
    assert signed.count('class="down"') == 1 + 16 and "−2 to 2 µA" in signed
    plain = class_readings_svg(np.array([[2e-6, 1e-6], [0.5e-6, 0.0]]), ("a", "b"), "A")
    assert 'class="down"' not in plain and ">0 to 2 µA" in plain
