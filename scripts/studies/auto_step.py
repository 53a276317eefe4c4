"""Compare the probe step that a session chooses (`auto`) with the step whose slopes agree best with the true gradient.

    python scripts/studies/auto_step.py [--json | --markdown] [--seeds 0 1 2] [--device sim:soi] [--epochs 100]

For every seed a short session runs `examples/digits.toml` with `estimator.probe_step_rad = "auto"`. Then a chip of the
same seed, in this process, is set to the state in which the session chose its step: the layer at its initial variables,
the layers before it trained. There, slopes are measured with ±1 probes at a ladder of steps, as the session measures
them, and compared with the slopes of the exact gradient (`photonloop.simulator.truth.chip_truth`). Their cosine differs
from the cosine between estimate and gradient only by the factor √(directions / channels), which does not depend on the
step.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from photonloop.controller.data.datasets import Dataset, load_dataset
from photonloop.controller.data.encoding import encode, fit_encoding
from photonloop.controller.device.address import parse_device_string
from photonloop.controller.experiment import Experiment, load_experiment
from photonloop.controller.learning.estimators import Probe, estimator, slopes
from photonloop.controller.learning.network import Layer, build_network, held_drive
from photonloop.controller.learning.progress import SilentListener
from photonloop.controller.learning.rules.prototype import PrototypeRule
from photonloop.controller.learning.variables import reflect, stage_bounds, to_drive
from photonloop.controller.runs.run_folder import read_checkpoint, read_events
from photonloop.controller.training import train
from photonloop.protocols.device import LoadedRows
from photonloop.simulator.engine.chip import Chip
from photonloop.simulator.parameters import load_chip
from photonloop.simulator.truth.chip_truth import gradient

EXPERIMENT = Path(__file__).parents[2] / "examples" / "digits.toml"
LADDER_RAD = 0.001 * np.sqrt(2.0) ** np.arange(18)
DIRECTIONS = 256
BATCH = 128


@dataclass(frozen=True)
class Comparison:
    """Comparison for one layer of one chip: steps in radians per phase, cosines between measured and true slopes."""

    seed: int
    layer: int
    auto_rad: float
    best_rad: float
    ratio: float
    cosine_at_auto: float
    cosine_at_best: float
    cosines: dict[str, float]


def softmax_slope(rule: PrototypeRule, labels: NDArray[np.int64]) -> Callable[[NDArray], tuple[float, NDArray]]:
    """Return a function for the rule's softmax loss and its slope by each reading, in double precision."""
    prototypes, rows = rule.prototypes.astype(np.float64), np.arange(labels.size)

    def loss_and_slope(readings: NDArray) -> tuple[float, NDArray]:
        norm = np.linalg.norm(readings, axis=1, keepdims=True)
        cosines = readings @ prototypes.T / norm
        exponentials = np.exp(rule.scale * (cosines - cosines.max(axis=1, keepdims=True)))
        share = exponentials / exponentials.sum(axis=1, keepdims=True)
        loss = -np.log(share[rows, labels]).mean()
        by_cosine = rule.scale / labels.size * (share - np.eye(len(prototypes))[labels])
        along = np.sum(by_cosine * cosines, axis=1, keepdims=True)
        return float(loss), by_cosine @ prototypes / norm - readings * along / norm**2

    return loss_and_slope


def cosine(a: NDArray, b: NDArray) -> float:
    return float(a @ b / (np.linalg.norm(a) * np.linalg.norm(b)))


def compare_layer(
    experiment: Experiment, chip: Chip, layers: list[Layer], checkpoint: dict[str, NDArray], auto_rad: float, dataset: Dataset
) -> Comparison:
    """Compare steps for the last of `layers`, at its initial variables; the layers before it are trained."""
    number, layer, description = len(layers) - 1, layers[-1], chip.describe()
    start = checkpoint[f"initial_{number}"]
    chip.apply(held_drive(description, layers, [*(checkpoint[f"variables_{k}"] for k in range(number)), start]))
    rng = np.random.default_rng([experiment.seed, number])
    rows = rng.permutation(dataset.y_train.size)[:BATCH]
    labels, bounds = dataset.y_train[rows], stage_bounds(description, layer.stage, 0.0)
    inputs = encode(dataset.x_train[rows], fit_encoding(dataset.x_train, experiment.encoding), description.input_ports)
    rule = layer.rule
    assert isinstance(rule, PrototypeRule)
    chosen = estimator(experiment.estimator)
    directions = chosen.draw(layer.stage.channels, layer.groups, DIRECTIONS, rng)

    def losses(settings: NDArray[np.float64]) -> NDArray[np.float64]:
        drives = to_drive(reflect(settings, bounds), description.drive)
        values = [
            chip.evaluate(part, LoadedRows("batch", np.arange(BATCH)), layer.stage.name).values for part in np.split(drives, 8)
        ]
        return np.concatenate([rule.losses(part, labels) for part in values])

    chip.load_inputs("batch", inputs.amplitudes)
    exact = gradient(chip, number, None, inputs.amplitudes, softmax_slope(rule, labels))
    true = directions @ (exact.power_w * description.drive.pi_power_w / np.pi)
    steps = [*LADDER_RAD, auto_rad]
    probes = [Probe(directions, chosen.step_from_rms(step, layer.groups)) for step in steps]
    found = [cosine(slopes(probe, losses(probe.settings(start))), true) for probe in probes]
    best = int(np.argmax(found[:-1]))
    return Comparison(
        seed=experiment.seed,
        layer=number + 1,
        auto_rad=auto_rad,
        best_rad=float(LADDER_RAD[best]),
        ratio=auto_rad / float(LADDER_RAD[best]),
        cosine_at_auto=found[-1],
        cosine_at_best=found[best],
        cosines={f"{step:.4g}": value for step, value in zip(LADDER_RAD, found, strict=False)},
    )


def compare(device: str, seed: int, epochs: int) -> list[Comparison]:
    """Return the comparisons of all layers for the chip of `seed`."""
    overrides = [
        f"seed={seed}",
        "estimator.probe_step_rad='auto'",
        f"training.epochs={epochs}",
        f"training.evaluate_every={epochs}",
    ]
    experiment = load_experiment(EXPERIMENT, overrides, device=device)
    dataset = load_dataset(experiment.data)
    with tempfile.TemporaryDirectory() as runs:
        run = Path(train(experiment, runs=Path(runs), listener=SilentListener()).run)
        checkpoint = read_checkpoint(run)
        chosen = [event["per_phase_rad"] for event in read_events(run) if event["event"] == "step_chosen"]
    source = parse_device_string(device).chip
    ports, count = dataset.x_train.shape[1], experiment.network.layers
    chip = Chip(load_chip(source, ports=ports, stages=count, seed=seed))
    layers = build_network(experiment, chip.describe(), len(dataset.classes))
    found = [compare_layer(experiment, chip, layers[: k + 1], checkpoint, chosen[k], dataset) for k in range(count)]
    chip.close()
    return found


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.add_argument("--markdown", action="store_true", help="the table of docs/results.md (the default)")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2], help="seeds of experiment and chip")
    parser.add_argument("--device", default="sim:soi", help="sim:PRESET")
    parser.add_argument("--epochs", type=int, default=100, help="epochs per layer of the session")
    args = parser.parse_args()
    results = [result for seed in args.seeds for result in compare(args.device, seed, args.epochs)]
    worst = max(max(result.ratio, 1 / result.ratio) for result in results)
    if args.json:
        print(json.dumps({"device": args.device, "worst_factor": worst, "results": [asdict(result) for result in results]}))
        return 0
    print("| device | seed | layer | `auto` [rad] | best [rad] | ratio | cosine at `auto` | cosine at best |")
    print("|---|---|---|---|---|---|---|---|")
    for r in results:
        steps = f"{r.auto_rad:.4f} | {r.best_rad:.4f} | {r.ratio:.2f}"
        print(f"| `{args.device}` | {r.seed} | {r.layer} | {steps} | {r.cosine_at_auto:.5f} | {r.cosine_at_best:.5f} |")
    print(f"\nWorst factor between the two: {worst:.2f}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
