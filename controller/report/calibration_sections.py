"""Sections of the report of a calibration: one per stage, with its drawings, tables and warnings."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from markupsafe import Markup

from photonloop.controller.calibration.calibrated_device import HeldOut, RingCalibration, StageCalibration
from photonloop.controller.calibration.evidence import CalibrationEvidence, CandidateTerm
from photonloop.controller.report.calibration_crosstalk import crosstalk_law, crosstalk_map
from photonloop.controller.report.calibration_curves import crosstalk_law_svg, held_out_svg, scatter_svg
from photonloop.controller.report.calibration_deviations import DeviationGroup, deviation_groups, largest_deviations
from photonloop.controller.report.calibration_fringes import MOST_FRINGES, FringeDrawing, fringe_drawing
from photonloop.controller.report.calibration_names import heater_names, trouble_place
from photonloop.controller.report.calibration_values import FittedValue, fitted_values
from photonloop.controller.report.display_text import quantity_text, short_text, thousands_text, uncertain_text
from photonloop.controller.report.mesh_drawing import change_paint, change_scale_svg, mesh_panel_svg, stage_drawings
from photonloop.controller.report.page_sections import MeshPanel

EXCESS = 1.3
"""Median held-out residual, relative to the noise, above which the report warns. The noise is known to some 10 %."""

CONSPICUOUS = 5.0
"""Deviation in standard deviations from which a parameter is counted, and end of the colour scale."""

_ROWS = 8

_CAPTIONS = {"angle error": "angle errors of the couplers, the larger of both", "loss": "losses of the interferometers"}

METHODS = {
    "columns": "columns, with several inputs lit at once",
    "diagonal": "diagonal, with one input lit at a time",
    "rings": "rings, one after the other",
}


@dataclass(frozen=True)
class HeldOutSection:
    """Test on settings that were not fitted: a sentence, histograms, and measured against predicted readings."""

    summary: str
    histograms: Markup | None
    scatter: Markup | None


@dataclass(frozen=True)
class FringeSection:
    """Fringes, and sentences on them."""

    svg: Markup
    summary: str
    caption: str


@dataclass(frozen=True)
class CrosstalkSection:
    """Map, law, and rows of (name, value)."""

    map_svg: Markup
    law_svg: Markup
    heater: str
    rows: tuple[tuple[str, str], ...]


@dataclass(frozen=True)
class DeviationRow:
    """One parameter that differs from its neighbours, as text."""

    name: str
    place: str
    value: str
    neighbours: str
    z: str


@dataclass(frozen=True)
class DeviationSection:
    """Drawings and a table of parameters that differ from their neighbours."""

    panels: tuple[MeshPanel, ...]
    scale: Markup
    rows: tuple[DeviationRow, ...]
    summary: str


@dataclass(frozen=True)
class TroubleRow:
    """A defect: what, where, and what was measured."""

    kind: str
    place: str
    detail: str


@dataclass(frozen=True)
class StageSection:
    """Everything about one stage; None or empty for parts that the calibration has no data for."""

    name: str
    method: str
    warnings: tuple[str, ...]
    held_out: HeldOutSection
    fringes: FringeSection | None
    crosstalk: CrosstalkSection | None
    deviations: DeviationSection | None
    values: tuple[FittedValue, ...]
    troubles: tuple[TroubleRow, ...]
    excluded: str
    facts: tuple[tuple[str, str], ...]


def stage_section(
    found: StageCalibration, evidence: CalibrationEvidence | None, unit: str, prefix: str, most_fringes: int = MOST_FRINGES
) -> StageSection:
    """Return the section of one stage.

    Parameters
    ----------
    found
        The calibrated stage.
    evidence
        Its settings and fringes; None if they are not known.
    unit
        Unit of the readings.
    prefix
        Beginning of the ids of its drawings.
    most_fringes
        Fringes that are drawn.
    """
    return StageSection(
        name=found.stage.name,
        method=METHODS.get(found.method, found.method),
        warnings=tuple(stage_warnings(found.held_out, evidence.candidates if evidence else ())),
        held_out=_held_out(found, evidence, unit, prefix),
        fringes=_fringes(found, evidence, unit, most_fringes),
        crosstalk=_crosstalk(found, prefix),
        deviations=_deviations(found),
        values=tuple(fitted_values(found, unit)),
        troubles=tuple(TroubleRow(t.kind, trouble_place(t, found.layout), t.detail) for t in found.troubles),
        excluded=_excluded(evidence),
        facts=fact_rows(found, unit, evidence),
    )


def stage_warnings(held_out: HeldOut, candidates: tuple[CandidateTerm, ...]) -> list[str]:
    """Return warnings about the fit of one stage; empty if the twin describes the chip up to noise."""
    if not held_out.residual.size:
        return ["No setting was held out, so the calibration is not tested."]
    residual = float(np.median(held_out.residual))
    if not residual > EXCESS:
        return []
    text = (
        f"The residual of the held-out settings exceeds the noise of the readings by a factor of {residual:.2g}: "
        "the chip has an effect that the twin does not describe."
    )
    if candidates:
        best = min(candidates, key=lambda term: term.held_out_residual)
        if best.held_out_residual < residual:
            text += (
                f" Of the effects that were tried, {best.name} lowers it most if added alone, to {best.held_out_residual:.2g}."
            )
        else:
            text += " None of the effects that were tried lowers it."
    return [text]


def _held_out(found: StageCalibration, evidence: CalibrationEvidence | None, unit: str, prefix: str) -> HeldOutSection:
    held_out, scatter = found.held_out, None
    if evidence is not None and evidence.measured.size:
        scatter = scatter_svg(evidence, found.noise, unit, f"{prefix}-scatter")
    if not held_out.residual.size:
        return HeldOutSection(held_out_summary(held_out), None, scatter)
    return HeldOutSection(held_out_summary(held_out), held_out_svg(held_out, f"{prefix}-held-out"), scatter)


def held_out_summary(held_out: HeldOut) -> str:
    """Return what the test on held-out settings found, in plain sentences."""
    settings, tvd = held_out.residual.size, held_out.tvd[np.isfinite(held_out.tvd)]
    if not settings:
        return "No setting was held out."
    misfit = "the square roots of the readings by" if tvd.size else "or, relative to their rms, by"
    summary = (
        f"{settings} settings were read and not fitted. In the median over these settings, the readings differ from those "
        f"of the twin by {float(np.median(held_out.residual)):.3g} times their noise, "
        f"{'and ' if tvd.size else ''}{misfit} {float(np.median(held_out.misfit)):.2%}."
    )
    if tvd.size:
        summary += (
            f" The output distributions of the inputs differ by a total variation distance of {float(np.median(tvd)):.2%}, "
            f"at most {float(np.max(tvd)):.2%}."
        )
    return summary


def _fringes(found: StageCalibration, evidence: CalibrationEvidence | None, unit: str, most: int) -> FringeSection | None:
    drawing = fringe_drawing(evidence.fringes, heater_names(found.layout), unit, most) if evidence is not None else None
    return FringeSection(drawing.svg, *_fringe_text(drawing)) if drawing is not None else None


def _fringe_text(drawing: FringeDrawing) -> tuple[str, str]:
    """Return a summary and a caption."""
    worst, name = drawing.worst
    summary = (
        f"The residuals are {drawing.median:.2%} of the height of the fringe (rms, median over the heaters). "
        f"The largest is {f'{worst:.2%}' if np.isfinite(worst) else 'undefined, because the fringe is flat'}, of {name}."
    )
    caption = (
        "Reading, from 0 to the largest, against nominal heater phase [rad]. Points: measured; line or dashes: fit; below: "
        "residual."
    )
    if drawing.shown < drawing.fringes:
        caption += f" {drawing.shown} of {drawing.fringes} fringes are shown, those with the largest residuals."
    return summary, caption


def _crosstalk(found: StageCalibration, prefix: str) -> CrosstalkSection | None:
    law, chip = crosstalk_law(found), crosstalk_map(found)
    if law is None or chip is None:
        return None
    own, sigma = found.parameters, found.sigma
    rows = (
        ("share at 100 µm", uncertain_text(100 * own.crosstalk_share, 100 * sigma.crosstalk_share, "%")),
        ("exponent of the decay", uncertain_text(own.crosstalk_exponent, sigma.crosstalk_exponent)),
        (f"largest share of the power of {chip.heater}", f"{100 * chip.largest:.2g} %"),
        (f"heat at {chip.heater} if all heaters have the same power", f"{100 * chip.total:.2g} % of it"),
        ("largest distance with crosstalk", f"{1e3 * chip.reach_m:.2g} mm"),
    )
    return CrosstalkSection(chip.svg, crosstalk_law_svg(law, f"{prefix}-law"), chip.heater, rows)


def _deviations(found: StageCalibration) -> DeviationSection | None:
    groups = deviation_groups(found)
    if not groups:
        return None
    every = np.concatenate([group.z for group in groups])
    conspicuous = int(np.sum(np.abs(every) > CONSPICUOUS))
    summary = (
        f"Of {thousands_text(every.size)} parameters, {conspicuous or 'none'} "
        f"{'differs' if conspicuous <= 1 else 'differ'} from {'its' if conspicuous <= 1 else 'their'} neighbours by more than "
        f"{CONSPICUOUS:g} σ."
    )
    rows = tuple(
        DeviationRow(
            name=row.name,
            place=row.place,
            value=uncertain_text(row.value, row.sigma, row.unit),
            neighbours=short_text(row.neighbours, row.unit),
            z=f"{row.z:+.1f} σ".replace("-", "−"),
        )
        for row in largest_deviations(groups, _ROWS)
    )
    panels = tuple(_panel(found, group) for group in groups if group.channels.size)
    return DeviationSection(panels, change_scale_svg(CONSPICUOUS, "σ"), rows, summary)


def _panel(found: StageCalibration, group: DeviationGroup) -> MeshPanel:
    """Return the drawing of a group; of two parameters at one place, the one that deviates more."""
    values = np.full(found.layout.channels, np.nan)
    order = np.argsort(np.abs(group.z), kind="stable")
    values[group.channels[order]] = group.z[order]
    theta, *others = stage_drawings(found.stage, found.layout.channels)
    drawing = others[0] if others and "φ" in group.of else theta
    caption = f"{group.name} of {group.of}" if group.of else _CAPTIONS[group.name]
    return MeshPanel(caption, mesh_panel_svg(drawing, values, change_paint(CONSPICUOUS), caption))


def _excluded(evidence: CalibrationEvidence | None) -> str:
    """Return a sentence on readings that were not used; empty if nothing is known about them."""
    if evidence is None or not evidence.measured.size:
        return ""
    # Settings with fewer samples than others are padded with NaN, for measured and predicted readings alike.
    real = np.isfinite(evidence.predicted)
    lost = int(np.sum(real & ~np.isfinite(evidence.measured)))
    total = thousands_text(int(real.sum()))
    if not lost:
        return f"All {total} readings of the random settings were used."
    return f"{thousands_text(lost)} of {total} readings of the random settings were saturated or flagged, and were not used."


def fact_rows(
    found: StageCalibration | RingCalibration, unit: str, evidence: CalibrationEvidence | None = None
) -> tuple[tuple[str, str], ...]:
    """Return rows of (name, value) about method, settings and noise of a stage."""
    noise = found.noise
    rows = [
        ("method", METHODS.get(found.method, found.method)),
        ("settings read", thousands_text(found.settings)),
        ("noise of a dark reading", quantity_text(noise.dark, unit)),
        ("noise in proportion to the reading", f"{100 * noise.relative:.2g} %"),
    ]
    if isinstance(found, StageCalibration):
        draws = len(found.draws)
        rows += [
            ("phases between inputs", "steady, fitted" if found.steady_inputs else "not known: they are not part of the matrix"),
            ("uncertainties of matrices", f"from {draws} draws of the posterior" if draws else "not computed"),
        ]
    if evidence is not None:
        fitted, tested = int(np.sum(~evidence.held_out)), int(np.sum(evidence.held_out))
        rows.insert(2, ("of these, random settings", f"{fitted} fitted, {tested} held out"))
    return tuple(rows)
