"""Twins that are wrong on purpose: does the held-out residual show it, and is the missing effect named?

    python scripts/studies/wrong_twins.py [--ports 8] [--seed 0] [--json]

A chip of preset `soi` with stray light at -40 dB is fitted with the complete twin. Each case then lacks one effect, and
the effects common to all heaters, inputs or detectors are fixed at their fitted values. What is left is fitted again.
A row has the held-out residual of the wrong twin relative to the noise, and the effects that were added alone, the best
one first, each with its residual.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from verify_calibration import chip_parameters

from photonloop.controller.calibration.candidate_terms import candidate_terms, with_fixed
from photonloop.controller.calibration.fit_problem import FitProblem
from photonloop.controller.calibration.noise_readings import measure_noise
from photonloop.controller.calibration.random_settings import RandomSettingsOptions, random_inputs, random_phases
from photonloop.controller.calibration.setting_reader import SettingReader
from photonloop.controller.calibration.twin import Twin, predict
from photonloop.controller.calibration.twin_fit import fit_least_squares
from photonloop.controller.calibration.twin_layout import TwinLayout, twin_layout
from photonloop.controller.calibration.twin_parameters import TwinParameters, TwinPrior, nominal_prior
from photonloop.simulator.engine.chip import Chip

COMMON = (
    "curvature",
    "self_heating",
    "crosstalk_share",
    "crosstalk_exponent",
    "heat_response",
    "ground_ratio",
    "input_leak",
    "input_coupling",
    "compression",
    "detector_memory",
)
"""Kinds of parameters that the wrong twins fix."""

BARE, FAR = "heat in bare waveguides", "far heat"


@dataclass(frozen=True)
class Case:
    """A twin that lacks something: its name, its structure, and its parameters."""

    name: str
    layout: Callable[[TwinLayout], TwinLayout]
    parameters: Callable[[TwinParameters], TwinParameters]
    structure: str = ""


def without_bare(layout: TwinLayout) -> TwinLayout:
    """Return the layout in which only segments with heaters receive heat of others."""
    kept = np.isin(layout.near_to, layout.own)
    return replace(layout, near_to=layout.near_to[kept], near_from=layout.near_from[kept], near_ln=layout.near_ln[kept])


def without_far(layout: TwinLayout) -> TwinLayout:
    """Return the layout in which heat reaches 0.2 mm only."""
    kept = layout.near_ln > np.log(0.5) - 1e-9
    return replace(layout, near_to=layout.near_to[kept], near_from=layout.near_from[kept], near_ln=layout.near_ln[kept])


CASES = (
    Case("no heat in bare waveguides", without_bare, lambda own: own, BARE),
    Case("no far heat", without_far, lambda own: replace(own, heat_response=0.0 * own.heat_response), FAR),
    Case("heaters without curvature", lambda layout: layout, lambda own: replace(own, curvature=0.0)),
    Case("no stray light", lambda layout: layout, lambda own: replace(own, input_leak=0.0)),
)


def started(chip: Chip, layout: TwinLayout, prior: TwinPrior, rng: np.random.Generator) -> Twin:
    """Return a twin with offsets near the true ones: this study is about the fit, not about its start."""
    truth = chip.stages[0].truth
    offset_rad = truth.offset_rad + 0.05 * rng.standard_normal(layout.channels)
    own = replace(prior.mean, offset_rad=offset_rad, input_phase_rad=chip.input_truth().phase_rad)
    return Twin(layout, own)


def with_level(prior: TwinPrior, twin: Twin, phases: np.ndarray, inputs: np.ndarray, readings: np.ndarray) -> TwinPrior:
    """Return the prior with the level at which `twin` gives as much light as was read."""
    dark = prior.mean.detector_dark
    level = prior.mean.level * float(np.nansum(readings - dark) / np.sum(predict(twin, phases, inputs) - dark))
    return TwinPrior(replace(prior.mean, level=level), replace(prior.sigma, level=0.3 * level))


def rows(ports: int, seed: int, settings: int) -> list[dict[str, Any]]:
    """Return one row per case, the complete twin first."""
    chip = Chip(chip_parameters("soi", ports, "clements", seed, modulator={"extinction_db": 40.0}), threads=1)
    description, rng, options = chip.describe(), np.random.default_rng(seed), RandomSettingsOptions()
    stage = description.stages[0]
    layout, reader, measured = twin_layout(description, stage), SettingReader(chip, stage.name), measure_noise(chip, stage, rng)
    inputs = random_inputs(ports, rng, options)[: options.fitted_samples]
    everything = reader.read(random_phases(reader.bounds, rng, settings, 8), inputs).observations()
    data, held_out = everything.part(slice(0, settings)), everything.part(slice(settings, None))
    prior = nominal_prior(layout, 1.0, measured.level)
    prior = with_level(prior, started(chip, layout, prior, rng), data.phases, data.inputs, data.readings)
    complete = fit_least_squares(started(chip, layout, prior, rng), FitProblem(prior, data, measured.noise, held_out))
    found = [{"case": "complete", "held_out": round(float(np.median(complete.held_out_residual)), 2), "candidates": {}}]
    known = TwinPrior(replace(prior.mean, **{kind: getattr(complete.parameters, kind) for kind in COMMON}), prior.sigma)
    for case in CASES:
        problem = FitProblem(with_fixed(prior, COMMON), data, measured.noise, held_out)
        wrong = Twin(case.layout(layout), case.parameters(complete.parameters))
        fit = fit_least_squares(wrong, problem, 15)
        twin = Twin(wrong.layout, fit.parameters)
        others = {case.structure: layout} if case.structure else {}
        terms = candidate_terms(twin, problem, known, others)
        row = {"case": case.name, "held_out": round(float(np.median(fit.held_out_residual)), 2)}
        found.append({**row, "candidates": {term.name: round(term.held_out_residual, 2) for term in terms}})
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--ports", type=int, default=8)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--settings", type=int, default=64)
    parser.add_argument("--json", action="store_true")
    args = parser.parse_args()
    found = rows(args.ports, args.seed, args.settings)
    if args.json:
        print(json.dumps(found))
        return
    for row in found:
        print(f"{row['case']:30} {row['held_out']:8.2f}   " + ", ".join(f"{k} {v}" for k, v in row["candidates"].items()))


if __name__ == "__main__":
    main()
