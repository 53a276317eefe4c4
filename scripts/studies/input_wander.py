"""Measure how fast the phases of the inputs may wander before coherent training is lost, and what cures it.

    python scripts/studies/input_wander.py [--json] [--quick] [--seeds 0 1 2] [--jobs 2]

Digits on 64 ports, one layer, 26 400 evaluations on preset `soi` (`learning_loop`). The rate is the root-mean-square
change of an input's phase during one update of 8 settings; what it means at a lab's pace follows from the durations of
preset `lab`. Cures:

    none         the inputs wander
    lock         before every update, one setting at a fixed drive is read with random inputs and compared with its
                 first reading. The phases follow by least squares, with a Jacobian measured once (126 settings). The
                 heaters of all φ correct them, by the sums that are equivalent to input phases (`input_phase_sums`)
    weight bank  a bank of 64 × 64 independent rings of low finesse, whose inputs are powers: nothing is coherent

Splitting the light on the chip is the row whose rate is that of milliradians an hour.
"""

from __future__ import annotations

import argparse
import json
import sys
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass

import numpy as np
from learning_loop import Outcome, Recipe, Task, digits_task, learn, setting_time_s, shifted
from numpy.typing import NDArray

from photonloop.controller.learning.rng import Purpose, rng_stream
from photonloop.controller.learning.variables import Phases, project, stage_bounds, start_variables, to_drive
from photonloop.protocols.device import LoadedRows, StageDescription
from photonloop.simulator.parameters import load_chip

RATES_RAD = (0.0, 0.003, 0.01, 0.03, 0.1, 0.3, 1.0)
"""Change of a phase per update, root mean square [rad]."""
SIGMA_RAD = 3.0
PROBE_RAD = 0.1
LOCK_SAMPLES = 128
REFERENCE_RAD = 2.0
"""Least nominal heater phase of the lock's setting."""
ROOM_RAD = 0.5
"""Least nominal heater phase of the variables, if they are corrected."""
BANK_FINESSE = 4.0
"""Low, so that an uncalibrated ring is seldom far from its resonance."""


def input_phase_sums(stage: StageDescription) -> NDArray[np.float64]:
    """Return the change of all phases that is equivalent to a phase of 1 rad of each input, shape (ports, channels).

    An interferometer behind phases a and b on its upper and lower mode is one with φ + a - b, and leaves the phase b on
    both modes. Only the differences of input phases matter, and phases at the outputs are not seen.
    """
    sums, behind = np.zeros((stage.ports, stage.channels)), np.eye(stage.ports)
    for _, top, _, phi in sorted(stage.layout):
        sums[:, phi] = behind[:, top] - behind[:, top + 1]
        behind[:, top] = behind[:, top + 1]
    return sums


class InputLock:
    """Follows the phases of the inputs and corrects them by the heaters of φ.

    Parameters
    ----------
    task
        The chip and its layer.
    """

    def __init__(self, task: Task) -> None:
        self._task, stage = task, task.layer.stage
        description = task.chip.describe()
        self._bounds = stage_bounds(description, stage, 0.0, 0.5)
        self._sums = input_phase_sums(stage)[1:]  # relative to the first input
        rng = rng_stream(task.experiment.seed, Purpose.START, 7)
        task.chip.load_inputs("lock", rng.random((LOCK_SAMPLES, stage.ports)).astype(np.float32))
        # Far enough from 0 V that corrections seldom need another turn.
        self._reference = np.maximum(project(start_variables(self._bounds, rng), self._bounds), REFERENCE_RAD)
        self._first: NDArray[np.float64] | None = None
        self._solve: NDArray[np.floating] = np.empty(0)

    def __call__(self, update: int, added: Phases) -> Phases:
        """Return the phases to add from now on, from one reading at the reference drive."""
        if self._first is None:
            self._calibrate()
            return added
        change = self._read(added) - self._first
        corrected = added - (self._solve @ change) @ self._sums
        # A correction by full turns is none, and the heaters have to stay within their range.
        return corrected - 2 * np.pi * np.round(corrected / (2 * np.pi))

    def _calibrate(self) -> None:
        """Measure the reference reading and its change with the phase of every input."""
        steps = PROBE_RAD * self._sums
        read = np.stack([self._read(sign * step) for step in steps for sign in (1.0, -1.0)])
        self._solve = np.linalg.pinv(((read[0::2] - read[1::2]) / (2 * PROBE_RAD)).T, rcond=1e-2)
        self._first = self._read(np.zeros(self._reference.size))

    def _read(self, added: Phases) -> NDArray[np.float64]:
        task = self._task
        drive = to_drive(shifted(task, self._reference, added, self._bounds), task.chip.describe().drive)
        rows = LoadedRows("lock", np.arange(LOCK_SAMPLES))
        return task.chip.evaluate(drive[np.newaxis], rows, task.layer.stage.name).values.astype(np.float64).ravel()


@dataclass(frozen=True)
class WanderingChip:
    """One trained chip."""

    rate_rad: float
    cure: str
    seed: int
    outcome: Outcome


def run(rate_rad: float, cure: str, seed: int, evaluations: int) -> WanderingChip:
    """Train with inputs that change by `rate_rad` per update of 8 settings."""
    update_s = 8 * setting_time_s(load_chip("soi", ports=64, stages=1), 128)
    tau_s = 2.0 * SIGMA_RAD**2 * update_s / rate_rad**2 if rate_rad else 1.0
    inputs = {"modulator": {"phase_drift_rad": SIGMA_RAD if rate_rad else 0.0, "phase_drift_tau_s": tau_s}}
    rings = {"spectral_crosstalk": False, "bus_interference": False, "finesse": BANK_FINESSE}
    bank = {"mesh": {"topology": "weight_bank"}, "ring": rings} if cure == "weight bank" else {}
    task = digits_task("soi", seed, inputs, bank)
    recipe = Recipe(step_rad=None, evaluations=evaluations, room_rad=ROOM_RAD if cure == "lock" else 0.0)
    return WanderingChip(rate_rad, cure, seed, learn(task, recipe, InputLock(task) if cure == "lock" else None))


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.add_argument("--quick", action="store_true", help="one seed, 8 000 evaluations")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2], help="seeds of experiment and chip")
    parser.add_argument("--evaluations", type=int, default=26_400)
    parser.add_argument("--jobs", type=int, default=2, help="chips at the same time")
    args = parser.parse_args()
    seeds, evaluations = (args.seeds[:1], 8_000) if args.quick else (args.seeds, args.evaluations)
    cures = ("none", "lock", "weight bank")
    cases = [(rate, cure, seed, evaluations) for rate in RATES_RAD for cure in cures for seed in seeds]
    with ProcessPoolExecutor(args.jobs) as pool:
        rows = list(pool.map(run, *zip(*cases, strict=True)))
    update_s = 8 * setting_time_s(load_chip("lab", ports=64, stages=1), 128)
    if args.json:
        found = [asdict(row) for row in rows]
        print(json.dumps({"evaluations": evaluations, "lab_update_s": update_s, "results": found}))
        return 0
    print("| change per update [rad] | at the pace of `lab` | " + " | ".join(cures) + " |\n|---|---|---|---|---|")
    for rate in RATES_RAD:
        cells = []
        for cure in cures:
            accuracy = np.array([row.outcome.accuracy for row in rows if (row.rate_rad, row.cure) == (rate, cure)])
            cells.append(f"{accuracy.mean():.3f} ({accuracy.min():.3f})")
        print(f"| {rate:g} | {_at_lab(rate, update_s)} | " + " | ".join(cells) + " |")
    return 0


def _at_lab(rate_rad: float, update_s: float) -> str:
    """Return the time in which a phase changes by 1 rad, root mean square, if an update takes `update_s`."""
    if rate_rad == 0:
        return "steady"
    seconds = update_s / rate_rad**2
    return f"1 rad in {seconds / 3600:.1f} h" if seconds > 5400 else f"1 rad in {seconds:.0f} s"


if __name__ == "__main__":
    sys.exit(main())
