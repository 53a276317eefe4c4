"""Effects that a twin lacks: which of them, added alone, lowers the residual of held-out settings most.

If settings that were not fitted are described worse than by the noise of the readings, the twin lacks something. Each
group of parameters that is fixed is set free in turn, and each other structure of the crosstalk is tried. A fit that
starts at the present twin shows what it explains.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import numpy as np

from photonloop.controller.calibration.evidence import CandidateTerm
from photonloop.controller.calibration.fit_problem import FitProblem
from photonloop.controller.calibration.twin import Twin
from photonloop.controller.calibration.twin_fit import fit_least_squares
from photonloop.controller.calibration.twin_layout import TwinLayout
from photonloop.controller.calibration.twin_parameters import TwinPrior

EXCESS = 1.5
"""Median held-out residual beyond which the twin lacks something."""

TERMS: dict[str, tuple[str, ...]] = {
    "curvature of the heaters": ("curvature",),
    "self-heating of the heaters": ("self_heating",),
    "spread of the heaters": ("kappa",),
    "thermal crosstalk": ("crosstalk_share", "crosstalk_exponent"),
    "response to the heat of the whole stage": ("heat_response",),
    "shared ground": ("ground_ratio",),
    "coupler errors": ("coupler_error_rad",),
    "losses": ("loss_db", "shifter_db"),
    "light of inputs at amplitude 0": ("input_leak",),
    "coupling of neighbouring inputs": ("input_coupling",),
    "gains of the inputs": ("input_gain",),
    "gains of the detectors": ("detector_gain",),
    "compression of the detectors": ("compression",),
    "memory of the detectors": ("detector_memory",),
}
"""Groups of parameters that belong to one effect, by its name."""


def fixed_terms(prior: TwinPrior) -> list[str]:
    """Return the names of the effects of which all parameters are fixed."""
    return [name for name, kinds in TERMS.items() if not any(np.any(getattr(prior.sigma, kind)) for kind in kinds)]


def candidate_terms(
    fitted: Twin,
    problem: FitProblem,
    complete: TwinPrior,
    layouts: Mapping[str, TwinLayout] | None = None,
    max_steps: int = 12,
) -> tuple[CandidateTerm, ...]:
    """Return the held-out residual with each effect that the twin lacks added alone, the lowest first.

    Parameters
    ----------
    fitted
        The fitted twin.
    problem
        What it was fitted to, with held-out settings. Effects that it lacks are fixed in its prior.
    complete
        A prior in which they are free.
    layouts
        Other structures of the crosstalk, by name.
    max_steps
        Most steps of each fit.

    Raises
    ------
    ValueError
        The problem has no held-out settings.
    """
    if problem.held_out is None:
        raise ValueError("candidate terms are compared on held-out settings, but the problem has none: hold some out")
    trials: dict[str, tuple[TwinLayout, TwinPrior]] = {
        name: (fitted.layout, with_free(problem.prior, complete, TERMS[name])) for name in fixed_terms(problem.prior)
    }
    trials |= {name: (layout, problem.prior) for name, layout in (layouts or {}).items()}
    found = []
    for name, (layout, prior) in trials.items():
        fit = fit_least_squares(Twin(layout, fitted.parameters), replace(problem, prior=prior), max_steps)
        found.append(CandidateTerm(name, float(np.median(fit.held_out_residual))))
    return tuple(sorted(found, key=lambda term: term.held_out_residual))


def with_free(prior: TwinPrior, complete: TwinPrior, kinds: tuple[str, ...]) -> TwinPrior:
    """Return `prior` with some kinds of parameters as free as in `complete`."""
    mean = {kind: getattr(complete.mean, kind) for kind in kinds}
    sigma = {kind: getattr(complete.sigma, kind) for kind in kinds}
    return TwinPrior(replace(prior.mean, **mean), replace(prior.sigma, **sigma))


def with_fixed(prior: TwinPrior, kinds: tuple[str, ...]) -> TwinPrior:
    """Return `prior` with some kinds of parameters fixed: they keep the values that a fit starts from."""
    return TwinPrior(prior.mean, replace(prior.sigma, **{kind: 0.0 * getattr(prior.sigma, kind) for kind in kinds}))
