"""Render the report from the templates in `templates/`."""

from __future__ import annotations

from dataclasses import dataclass

from photonloop.controller.report.page_events import EventTable, event_table
from photonloop.controller.report.page_sections import (
    EvaluationSection,
    LayerFigure,
    PhaseSection,
    ProbeStep,
    class_readings,
    evaluation_section,
    learning_curves,
    phase_section,
    probe_steps,
)
from photonloop.controller.report.page_summary import RunSettings, Summary, run_settings, summary
from photonloop.controller.report.page_template import page_template
from photonloop.controller.report.run_contents import RunContents


@dataclass(frozen=True)
class ReportPage:
    """The data of a report, section by section; None or an empty list for a section that has no data yet."""

    summary: Summary
    curves: list[LayerFigure]
    evaluation: EvaluationSection | None
    phases: PhaseSection | None
    readings: list[LayerFigure]
    probe_steps: list[ProbeStep]
    events: EventTable
    settings: RunSettings


def render_page(contents: RunContents) -> str:
    """Return the report of a run as one HTML document, with all text from the run escaped."""
    page = ReportPage(
        summary=summary(contents),
        curves=learning_curves(contents),
        evaluation=evaluation_section(contents),
        phases=phase_section(contents),
        readings=class_readings(contents),
        probe_steps=probe_steps(contents),
        events=event_table(contents),
        settings=run_settings(contents),
    )
    return page_template("report.html.j2").render(page=page)
