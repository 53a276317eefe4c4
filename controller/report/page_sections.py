"""Sections of the report with drawings: learning curves, test results, phases, readings and probe steps."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from markupsafe import Markup
from numpy.typing import NDArray

from photonloop.controller.report import matrix_drawing, mesh_drawing
from photonloop.controller.report.curve_drawing import learning_curves_svg
from photonloop.controller.report.display_text import radians_text
from photonloop.controller.report.run_contents import EvaluationResults, PhaseSnapshots, RunContents

_GROUP_NAMES = {
    "theta": "θ",
    "phi": "φ",
    "gamma": "γ",
    "attenuator_theta": "θ of attenuators",
    "attenuator_phi": "φ of attenuators",
    "ring": "rings",
}


@dataclass(frozen=True)
class LayerFigure:
    """A drawing of one layer."""

    name: str
    svg: Markup


@dataclass(frozen=True)
class LayerAccuracy:
    """Test accuracy of one layer, and the comparison of the vote with it, as text."""

    name: str
    accuracy: float
    compared: str


@dataclass(frozen=True)
class EvaluationSection:
    """Results on the test set; without a vote (a single layer), vote and layer are the same."""

    confusion_svg: Markup
    samples: int
    correct: int
    most_confused: str
    layers: tuple[LayerAccuracy, ...]


@dataclass(frozen=True)
class MeshPanel:
    """One drawing of a mesh with its caption."""

    caption: str
    svg: Markup


@dataclass(frozen=True)
class GroupChange:
    """Change of the phases of one group of phase shifters [rad]."""

    name: str
    count: int
    rms_rad: float
    largest_rad: float


@dataclass(frozen=True)
class LayerPhases:
    """Phases of one layer: rows of panels (before, after, change), and the change by group."""

    name: str
    rows: tuple[tuple[MeshPanel, ...], ...]
    changes: tuple[GroupChange, ...]


@dataclass(frozen=True)
class PhaseSection:
    """Phases of all layers with their colour scales."""

    limit_rad: float
    phase_scale: Markup
    change_scale: Markup
    layers: tuple[LayerPhases, ...]


@dataclass(frozen=True)
class ProbeStep:
    """The probe step of one layer and the reasons for it."""

    name: str
    step: str
    rms_step: str
    reasons: tuple[str, ...]


def learning_curves(contents: RunContents) -> list[LayerFigure]:
    """Return the learning curves of each layer that has finished an epoch."""
    drawn = learning_curves_svg(contents.epochs) if contents.epochs else {}
    return [LayerFigure(contents.layer_name(layer), svg) for layer, svg in drawn.items()]


def evaluation_section(contents: RunContents) -> EvaluationSection | None:
    """Return the results on the test set; None before the evaluation."""
    evaluation = contents.evaluation
    if evaluation is None:
        return None
    counts = matrix_drawing.confusion_counts(evaluation.y_true, evaluation.vote, len(evaluation.classes))
    samples, correct = int(counts.sum()), int(np.trace(counts))
    return EvaluationSection(
        confusion_svg=matrix_drawing.confusion_matrix_svg(counts, evaluation.classes),
        samples=samples,
        correct=correct,
        most_confused=matrix_drawing.most_confused(counts, evaluation.classes),
        layers=tuple(_layer_accuracies(contents, evaluation, correct / samples)),
    )


def phase_section(contents: RunContents) -> PhaseSection | None:
    """Return the phases before and after training; None without a checkpoint."""
    if not contents.phases:
        return None
    limit_rad = mesh_drawing.change_limit_rad([phases.after - phases.before for phases in contents.phases])
    return PhaseSection(
        limit_rad=limit_rad,
        phase_scale=mesh_drawing.phase_scale_svg(),
        change_scale=mesh_drawing.change_scale_svg(limit_rad),
        layers=tuple(_layer_phases(contents, layer, phases, limit_rad) for layer, phases in enumerate(contents.phases)),
    )


def class_readings(contents: RunContents) -> list[LayerFigure]:
    """Return the mean readings per class of each layer; empty before the evaluation."""
    evaluation = contents.evaluation
    if evaluation is None:
        return []
    unit = contents.device.readout.unit if contents.device is not None else "A"
    return [
        LayerFigure(contents.layer_name(layer), matrix_drawing.class_readings_svg(readings, evaluation.classes, unit))
        for layer, readings in enumerate(evaluation.class_readings)
    ]


def probe_steps(contents: RunContents) -> list[ProbeStep]:
    """Return the probe steps that were chosen."""
    steps = []
    for event in contents.of_kind("step_chosen"):
        reasons, layer = event.get("reasons"), event.get("layer")
        steps.append(
            ProbeStep(
                name=contents.layer_name(layer) if isinstance(layer, int) else "",
                step=radians_text(event.get("step_rad")),
                rms_step=radians_text(event.get("per_phase_rad")),
                reasons=tuple(str(reason) for reason in reasons) if isinstance(reasons, list) else (),
            )
        )
    return steps


def _layer_accuracies(contents: RunContents, evaluation: EvaluationResults, vote: float) -> list[LayerAccuracy]:
    accuracies = [float(np.mean(predicted == evaluation.y_true)) for predicted in evaluation.layer_predictions]
    return [
        LayerAccuracy(contents.layer_name(layer), accuracy, f"{_difference(vote - accuracy)} layer {layer + 1}")
        for layer, accuracy in enumerate(accuracies)
    ]


def _difference(accuracy_difference: float) -> str:
    """Return a difference of accuracies as "1.2 percentage points better than"."""
    points = f"{abs(100 * accuracy_difference):.1f}"
    if points == "0.0":
        return "as good as"
    return f"{points} percentage points {'better' if accuracy_difference > 0 else 'worse'} than"


def _layer_phases(contents: RunContents, layer: int, phases: PhaseSnapshots, limit_rad: float) -> LayerPhases:
    stages = contents.device.stages if contents.device is not None else ()
    stage = stages[layer] if layer < len(stages) and stages[layer].channels == len(phases.after) else None
    phase, change = mesh_drawing.phase_paint(), mesh_drawing.change_paint(limit_rad)
    columns = (("Before", phases.before, phase), ("After", phases.after, phase), ("Change", phases.after - phases.before, change))
    rows = []
    for drawing in mesh_drawing.stage_drawings(stage, len(phases.after)):
        captions = [f"{name}: {drawing.title}" for name, _, _ in columns]
        rows.append(
            tuple(
                MeshPanel(caption, mesh_drawing.mesh_panel_svg(drawing, values, paint, caption))
                for caption, (_, values, paint) in zip(captions, columns, strict=True)
            )
        )
    changes = _group_changes(stage.groups if stage else {}, phases.after - phases.before)
    return LayerPhases(contents.layer_name(layer), tuple(rows), tuple(changes))


def _group_changes(groups: dict[str, tuple[int, int]], change_rad: NDArray[np.float64]) -> list[GroupChange]:
    """Return the change of each group, and of all phases together if the groups are unknown."""
    changes = []
    for name, (start, stop) in (groups or {"all": (0, len(change_rad))}).items():
        if 0 <= start < stop <= len(change_rad):
            part = np.abs(change_rad[start:stop])
            rms = math.sqrt(float(np.mean(part**2)))
            changes.append(GroupChange(_GROUP_NAMES.get(name, name), stop - start, rms, float(part.max())))
    return changes
