"""Calibration with one lit input at a time: from an unknown mesh to a twin, up to 16 ports.

Only detectors behind the last column are needed, and no phases between inputs, so a 1×N switch in front of the chip is
enough.

1. θ of each interferometer, up to about 0.3 rad, from the light paths of a mesh (`light_paths`, `path_search`).
2. θ and the curves of their heaters, with everything else in bar (`ratio_sweeps.sweep_thetas`).
3. φ and the curves of their heaters, likewise (`ratio_sweeps.sweep_phis`).
4. A fit of the twin to all readings of 2 and 3 (`sweep_fit`). Interference with light that leaks from interferometers
   that are not exactly in bar, and crosstalk, bias the fringes; the twin has both.

Phases of the inputs cannot be told from φ in front of them: the first φ on each pair of modes keeps the offset 0, and
the other offsets are relative to it. The output phases γ do not change any reading.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from photonloop.controller.calibration.evidence import Fringe
from photonloop.controller.calibration.light_paths import path_rounds
from photonloop.controller.calibration.path_search import SearchOptions, search_round
from photonloop.controller.calibration.ratio_sweeps import RatioSweeps, sweep_phis, sweep_thetas
from photonloop.controller.calibration.setting_reader import SettingReader
from photonloop.controller.calibration.sweep_fit import SweepFitOptions, fit_sweeps, with_level
from photonloop.controller.calibration.twin import Twin
from photonloop.controller.calibration.twin_layout import twin_layout
from photonloop.controller.calibration.twin_misfit import ReadingNoise
from photonloop.controller.calibration.twin_parameters import TwinPrior, nominal_prior

Array = NDArray[np.float64]

MOST_PORTS = 16
"""Largest mesh: the power at a random setting of a path falls by 6 dB per interferometer."""


@dataclass(frozen=True)
class DiagonalOptions:
    """Options of `calibrate_diagonal`.

    Parameters
    ----------
    search
        Options of the search along light paths.
    theta_points, phi_points
        Phases of each sweep of θ, which is read at two values of φ, and of each sweep of φ.
    theta_passes
        How often all θ are swept. The second time the others are closer to bar.
    repeats
        Samples that are averaged in these sweeps.
    least_visibility
        Visibility of a fringe below which a heater is listed as `low_visibility`.
    fit
        Options of the fit to the sweeps; None: no fit.
    """

    search: SearchOptions = field(default_factory=SearchOptions)
    theta_points: int = 6
    phi_points: int = 10
    theta_passes: int = 1
    repeats: int = 2
    least_visibility: float = 0.15
    fit: SweepFitOptions | None = field(default_factory=SweepFitOptions)


@dataclass(frozen=True)
class DiagonalCalibration:
    """Result of `calibrate_diagonal`: the start of a fit to random settings.

    Parameters
    ----------
    twin
        The twin that was fitted to the sweeps.
    swept
        The twin before this fit: offsets and κ of all heaters that could be swept, and the curvature of all heaters.
    prior
        The prior that was used, with the level found.
    fringes
        The fringe of every heater that was swept, with the fit by `swept`.
    visibility
        Visibility of these fringes, NaN for heaters that were not swept, shape (channels,).
    not_found
        Channels of θ that no light path showed: their interferometers may be in any state.
    low_visibility
        Further channels whose fringe is too weak.
    settings
        Settings read.
    """

    twin: Twin
    swept: Twin
    prior: TwinPrior
    fringes: tuple[Fringe, ...]
    visibility: Array
    not_found: tuple[int, ...]
    low_visibility: tuple[int, ...]
    settings: int


def calibrate_diagonal(
    reader: SettingReader,
    noise: ReadingNoise,
    rng: np.random.Generator,
    options: DiagonalOptions | None = None,
    prior: TwinPrior | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> DiagonalCalibration:
    """Find the offsets of a rectangular or triangular mesh with one lit input at a time.

    Parameters
    ----------
    reader
        Reads settings of the stage. Its inputs must be the inputs of the device.
    noise
        Noise of the readings.
    rng
        Draws settings.
    options
        Numbers of settings and samples; None: the defaults.
    prior
        The prior, with the dark reading of each detector; None: `nominal_prior`. Its level is replaced by that of the
        readings.
    progress
        Called after each step with the number of steps done, and of all steps.

    Raises
    ------
    ValueError
        The mesh is neither rectangular nor triangular, has more than 16 ports or a detector missing, its inputs are not
        those of the device, or the limits leave less than 2π per heater.
    """
    options = options or DiagonalOptions()
    _check(reader)
    layout = twin_layout(reader.description, reader.stage)
    prior = prior or nominal_prior(layout, 1.0)
    rounds, before = path_rounds(layout, reader.stage.topology), reader.settings
    report, steps = progress or (lambda _done, _total: None), len(rounds) + options.theta_passes + 1
    twin, nominal, not_found = Twin(layout, prior.mean), np.zeros(layout.channels), []
    for number, round_ in enumerate(rounds):
        search = search_round(twin, nominal, round_, reader, noise, rng, options.search)
        twin, nominal = search.twin, search.nominal
        not_found += [int(layout.theta[k]) for k in search.failed]
        report(number + 1, steps)
    done: list[RatioSweeps] = []
    for number in range(options.theta_passes):
        done.append(sweep_thetas(twin, reader, rng, options.theta_points, options.repeats))
        twin = done[-1].twin
        report(len(rounds) + number + 1, steps)
    done.append(sweep_phis(twin, reader, rng, options.phi_points, options.repeats))
    report(steps, steps)
    swept, prior = with_level(done[-1].twin, prior, done[-1].observations())
    visibility = np.fmin(done[-2].visibility, done[-1].visibility)
    twin = swept
    if options.fit is not None:
        twin = fit_sweeps(swept, prior, noise, [part.observations() for part in done], rng, options.fit)
    low = set(np.flatnonzero(visibility < options.least_visibility).tolist()) - set(not_found)
    return DiagonalCalibration(
        twin=swept
        if options.fit is None
        else fit_sweeps(swept, prior, noise, [part.observations() for part in done], rng, options.fit),
        swept=swept,
        prior=prior,
        fringes=done[-2].fringes + done[-1].fringes,
        visibility=visibility,
        not_found=tuple(sorted(not_found)),
        low_visibility=tuple(sorted(low)),
        settings=reader.settings - before,
    )


def _check(reader: SettingReader) -> None:
    stage, description = reader.stage, reader.description
    if stage.topology not in ("clements", "reck"):
        raise ValueError(
            f"stage {stage.name} is {stage.topology}, but calibration with one lit input at a time needs a rectangular "
            "(clements) or triangular (reck) mesh"
        )
    if stage.ports > MOST_PORTS:
        raise ValueError(
            f"stage {stage.name} has {stage.ports} ports, but calibration with one lit input at a time is for at most "
            f"{MOST_PORTS}: use method columns, which needs several inputs at once"
        )
    if stage.tap_ports < stage.ports:
        raise ValueError(
            f"stage {stage.name} has {stage.tap_ports} detectors for {stage.ports} ports, but calibration with one lit "
            "input at a time needs one at every output"
        )
    if description.stage_index(stage.name) != 0:
        raise ValueError(f"the inputs of stage {stage.name} are not those of the device: calibrate the first stage")
