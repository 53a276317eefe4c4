"""Phases of a stage as SVG, drawn at their places in the mesh.

    ──┬────┬───────────── γ ──        each coloured cell is an interferometer at (column, top mode)
    ──┴────┴──┬────┬───── γ ──        lines are waveguides; light enters on the left
    ──┬────┬──┴────┴───── γ ──        an attenuator covers one mode
    ──┴────┴───────────── γ ──

Cells of one colour share one path, so that a panel of 2016 interferometers takes 40 kB instead of 300 kB.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from markupsafe import Markup
from numpy.typing import NDArray

from photonloop.controller.report.colours import PHASE_STEPS, phase_wheel
from photonloop.controller.report.svg_elements import svg_attributes, svg_element, svg_figure
from photonloop.protocols.device import StageDescription

_PITCH = 20
"""Drawing units per column and per mode. Even, so that cells have integer coordinates."""
_LEVELS = 24
"""Number of opacities in the colour scale of changes."""
_CHANNELS_PER_ROW = 32
"""Channels per row if the layout is unknown."""


@dataclass(frozen=True)
class Cell:
    """The place of one channel in a drawing: left, top, width and height in drawing units."""

    channel: int
    box: tuple[int, int, int, int]


@dataclass(frozen=True)
class StageDrawing:
    """Cells over waveguides; width and height in drawing units."""

    title: str
    cells: tuple[Cell, ...]
    guides: tuple[int, ...]
    width: int
    height: int

    @property
    def channels(self) -> list[int]:
        """Channels in the order of the cells."""
        return [cell.channel for cell in self.cells]


Paint = Callable[[float], str]
"""Maps a value to the SVG attributes of its cell; a cell with no attributes is left out."""


def stage_drawings(stage: StageDescription | None, channels: int) -> tuple[StageDrawing, ...]:
    """Return the drawings of a stage: its θ, then its φ with the output phases γ.

    A weight bank is one table of rings, with a row per output and a column per input.
    A stage without a usable layout is one table of all channels.

    Parameters
    ----------
    stage
        The stage; None if the device is unknown.
    channels
        Number of channels of the stage.
    """
    if stage is not None and stage.topology == "weight_bank" and stage.ports * stage.tap_ports == channels:
        return (_table("rings (one row per output, one column per input)", channels, stage.ports),)
    usable = stage is not None and all(0 <= row[2] < channels and 0 <= row[3] < channels for row in stage.layout)
    if stage is None or not stage.layout or not usable:
        return (_table("all channels, row by row", channels, _CHANNELS_PER_ROW),)
    columns = 1 + max(row[0] for row in stage.layout)
    start, stop = stage.groups.get("gamma", (0, 0))
    gammas = range(start, min(stop, channels))
    outputs = tuple(Cell(channel, _output_box(columns, port)) for port, channel in enumerate(gammas))
    attenuators = range(*stage.groups.get("attenuator_theta", (0, 0)))
    boxes = [_attenuator_box(row[0], row[1]) if row[2] in attenuators else _mzi_box(row[0], row[1]) for row in stage.layout]
    theta = tuple(Cell(row[2], box) for row, box in zip(stage.layout, boxes, strict=True))
    phi = tuple(Cell(row[3], box) for row, box in zip(stage.layout, boxes, strict=True))
    guides = tuple(_PITCH * mode + _PITCH // 2 for mode in range(stage.ports))
    size = (_PITCH * (columns + 3), _PITCH * stage.ports)
    return (
        StageDrawing("θ", theta, guides, *size),
        StageDrawing("φ, and γ at the outputs" if outputs else "φ", phi + outputs, guides, *size),
    )


def mesh_panel_svg(drawing: StageDrawing, values: NDArray[np.float64], paint: Paint, label: str) -> Markup:
    """Return `drawing` as SVG, each cell painted by the value of its channel.

    Parameters
    ----------
    drawing
        Where the channels are drawn.
    values
        One value per channel of the stage, shape (channels,).
    paint
        SVG attributes of a cell by its value.
    label
        Accessible label of the figure.
    """
    paths: dict[str, list[str]] = defaultdict(list)
    for cell in drawing.cells:
        if attributes := paint(float(values[cell.channel])):
            left, top, width, height = cell.box
            paths[attributes].append(f"M{left} {top}h{width}v{height}h-{width}z")
    lines = "".join(f"M0 {y}h{drawing.width}" for y in drawing.guides)
    guides = [svg_element("path", class_="guide", d=lines)] if lines else []
    cells = [Markup('<path {} d="{}"/>').format(attributes, "".join(path)) for attributes, path in sorted(paths.items())]
    # Small meshes are not enlarged to the width of the column.
    limit_px = round(max(drawing.width, drawing.height) * 1.2)
    box = (0, 0, drawing.width, drawing.height)
    return svg_figure(label, box, *guides, *cells, style=f"max-width:{limit_px}px")


def phase_paint() -> Paint:
    """Return the paint of phases [rad], which are wrapped to 2π; NaN is left out."""
    wheel = phase_wheel()

    def paint(phase_rad: float) -> str:
        if not math.isfinite(phase_rad):
            return ""
        # The second modulo gives a phase just below 2π the colour of 0.
        index = round(phase_rad % (2 * math.pi) / (2 * math.pi) * PHASE_STEPS) % PHASE_STEPS
        return svg_attributes(fill=wheel[index])

    return paint


def change_paint(limit: float) -> Paint:
    """Return the paint of changes: one colour per sign, opaque from `limit` on; 0 and NaN are left out."""

    def paint(change: float) -> str:
        level = round(min(abs(change) / limit, 1.0) * _LEVELS) if limit > 0 and math.isfinite(change) else 0
        sign = "up" if change > 0 else "down"
        return svg_attributes(class_=sign, fill_opacity=round(level / _LEVELS, 3)) if level else ""

    return paint


def change_limit_rad(changes: Sequence[NDArray[np.float64]]) -> float:
    """Return the end of the colour scale of changes: the 99th percentile of |change|, because of outliers."""
    finite = [np.abs(change[np.isfinite(change)]) for change in changes]
    everything = np.concatenate(finite) if finite else np.zeros(0)
    return float(np.percentile(everything, 99)) if everything.size else 0.0


def phase_scale_svg() -> Markup:
    """Return the colour scale of phases, 0 to 2π, as SVG."""
    bars = [svg_element("rect", x=2 * k, width=2.2, height=8, fill=colour) for k, colour in enumerate(phase_wheel())]
    labels = [svg_element("text", text, x=32 * k + 1, y=18) for k, text in enumerate(("0", "π/2", "π", "3π/2", "2π"))]
    return _colour_scale("Colour scale of phases", (-8, 0, 148, 20), bars + labels)


def change_scale_svg(limit: float, unit: str = "rad") -> Markup:
    """Return the colour scale of changes, -`limit` to `limit`, as SVG."""
    width = 64 / _LEVELS
    bars = [
        svg_element(
            "rect",
            class_="up" if k > 0 else "down",
            x=round(64 + (k - 1 if k > 0 else k) * width, 2),
            width=round(width, 2),
            height=8,
            fill_opacity=round(abs(k) / _LEVELS, 3),
        )
        for k in range(-_LEVELS, _LEVELS + 1)
        if k
    ]
    names = ((0, f"−{limit:.2g}"), (64, "0"), (128, f"+{limit:.2g} {unit}"))
    labels = [svg_element("text", text, x=x, y=18) for x, text in names]
    return _colour_scale("Colour scale of changes", (-12, 0, 160, 20), bars + labels)


def _colour_scale(label: str, box: tuple[float, float, float, float], parts: list[Markup]) -> Markup:
    return svg_figure(label, box, *parts, class_="scale", shape_rendering="crispEdges")


def _mzi_box(column: int, top_mode: int) -> tuple[int, int, int, int]:
    return (_PITCH * (column + 1) - _PITCH // 2 + 2, _PITCH * top_mode + 4, _PITCH - 4, 2 * _PITCH - 8)


def _attenuator_box(column: int, mode: int) -> tuple[int, int, int, int]:
    return (_PITCH * (column + 1) - _PITCH // 2 + 2, _PITCH * mode + 4, _PITCH - 4, _PITCH - 8)


def _output_box(columns: int, port: int) -> tuple[int, int, int, int]:
    return (_PITCH * (columns + 1), _PITCH * port + 2, _PITCH, _PITCH - 4)


def _table(title: str, channels: int, per_row: int) -> StageDrawing:
    rows = math.ceil(channels / per_row)
    cells = tuple(
        Cell(channel, (_PITCH * (channel % per_row) + 1, _PITCH * (channel // per_row) + 1, _PITCH - 2, _PITCH - 2))
        for channel in range(channels)
    )
    return StageDrawing(title, cells, (), _PITCH * min(channels, per_row), _PITCH * rows)
