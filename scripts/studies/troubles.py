"""Measure what the troubles of a lab cost a training session: digits on 64 ports, one layer, 300 epochs.

    python scripts/studies/troubles.py [--json] [--quick] [--seeds 0 1 2] [--estimators spsa directional] [--jobs 2]

Every row is a session of the product on a chip file: preset `soi` with one trouble, with the clock of `soi` and with
that of preset `lab`. Prints the table of docs/results.md: mean test accuracy over the seeds, and the lowest one. The
probe step is measured by the session ("auto").
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from learning_loop import EXPERIMENT, setting_time_s, write_chip

from photonloop.controller.experiment import load_experiment
from photonloop.controller.learning.progress import SilentListener
from photonloop.controller.runs.run_folder import read_events
from photonloop.controller.training import train
from photonloop.simulator.parameters import load_chip

Changes = dict[str, dict[str, Any]]


def wander(rad: float, time_s: float) -> Changes:
    """Return input phases that change by `rad` in `time_s`, root mean square, and are uniform in the long run."""
    sigma = 3.0
    return {"modulator": {"phase_drift_rad": sigma, "phase_drift_tau_s": 2.0 * sigma**2 * time_s / rad**2}}


def drift_of(preset: str) -> Changes:
    """Return the phase and temperature drift of `preset`."""
    parameters = load_chip(preset)
    keys = {"drift": ("sigma_rad", "tau_s"), "temperature": ("sigma_k", "tau_s", "imbalance_sigma")}
    return {part: {key: getattr(getattr(parameters, part), key) for key in names} for part, names in keys.items()}


def clock_of(preset: str) -> Changes:
    """Return the durations of `preset`, at which the samples of a setting are settled."""
    return {"clock": load_chip(preset).clock.model_dump()}


TROUBLES: dict[str, Changes] = {
    "none": {},
    "inputs 1 rad an hour": wander(1.0, 3600.0),
    "inputs 1 rad a minute": wander(1.0, 60.0),
    "inputs 3 rad a second": wander(3.0, 1.0),
    "drift of harsh": drift_of("harsh"),
    "sources 0.1 mV": {"dac": {"noise_v": 1e-4}},
    "sources 1 mV": {"dac": {"noise_v": 1e-3}},
}

CLOCKS: dict[str, Changes] = {"soi": {}, "lab": clock_of("lab")}


@dataclass(frozen=True)
class TroubledSession:
    """One session: its accuracy, hours on the chip's clock, and probe step [rad per phase]."""

    trouble: str
    clock: str
    estimator: str
    seed: int
    accuracy: float
    evaluations: int
    device_h: float
    step_rad: float


def session(trouble: str, clock: str, estimator: str, seed: int, epochs: int) -> TroubledSession:
    """Train a layer on a chip with one trouble."""
    with tempfile.TemporaryDirectory() as folder:
        chip = write_chip(Path(folder) / "chip.toml", "soi", TROUBLES[trouble], CLOCKS[clock])
        overrides = [f"seed={seed}", "network.layers=1", f"training.epochs={epochs}", f"training.evaluate_every={epochs}"]
        overrides += [f"estimator.name={estimator}", "estimator.probe_step_rad='auto'", *RATES[estimator]]
        experiment = load_experiment(EXPERIMENT, overrides, device=f"sim:{chip}")
        result = train(experiment, runs=Path(folder) / "runs", listener=SilentListener())
        step = next(event["per_phase_rad"] for event in read_events(Path(result.run)) if event["event"] == "step_chosen")
        setting_s = setting_time_s(load_chip(chip, ports=64, stages=1), experiment.training.batch)
    return TroubledSession(
        trouble, clock, estimator, seed, result.test_accuracy, result.evaluations, result.evaluations * setting_s / 3600, step
    )


RATES: dict[str, list[str]] = {
    "spsa": [],
    # The best of the rates tried for directional derivatives with the softmax loss.
    "directional": ["optimizer.name=sgd", "optimizer.rate=0.008"],
}


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.add_argument("--quick", action="store_true", help="one seed, one estimator, 100 epochs")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2], help="seeds of experiment and chip")
    parser.add_argument("--estimators", nargs="+", default=list(RATES), choices=list(RATES))
    parser.add_argument("--epochs", type=int, default=300)
    parser.add_argument("--jobs", type=int, default=2, help="sessions at the same time")
    args = parser.parse_args()
    seeds, estimators, epochs = (args.seeds[:1], ["spsa"], 100) if args.quick else (args.seeds, args.estimators, args.epochs)
    cases = [(t, p, e, s, epochs) for e in estimators for p in CLOCKS for t in TROUBLES for s in seeds]
    with ProcessPoolExecutor(args.jobs) as pool:
        rows = list(pool.map(session, *zip(*cases, strict=True)))
    if args.json:
        print(json.dumps({"epochs": epochs, "results": [asdict(row) for row in rows]}))
        return 0
    print("| trouble | clock | estimator | accuracy | lowest | evaluations | device time | probe step [rad] |")
    print("|---|---|---|---|---|---|---|---|")
    for first in range(0, len(rows), len(seeds)):
        some = rows[first : first + len(seeds)]
        accuracy = np.array([row.accuracy for row in some])
        a = some[0]
        figures = f"{accuracy.mean():.3f} | {accuracy.min():.3f} | {a.evaluations:,} | {shown_time(a.device_h)}"
        step = np.mean([row.step_rad for row in some])
        print(f"| {a.trouble} | `{a.clock}` | {a.estimator} | {figures} | {step:.4f} |")
    return 0


def shown_time(hours: float) -> str:
    """Return a duration in the unit that suits it."""
    return f"{hours:.1f} h" if hours >= 1 else f"{60 * hours:.1f} min" if hours >= 1 / 60 else f"{3600 * hours:.0f} s"


if __name__ == "__main__":
    sys.exit(main())
