"""Phases on the drawn mesh, as SVG.

    ──┬────┬───────────── γ ──        a coloured cell is an interferometer at (column, top mode);
    ──┴────┴──┬────┬───── γ ──        light enters on the left, lines are waveguides
    ──┬────┬──┴────┴───── γ ──
    ──┴────┴───────────── γ ──        an attenuator sits on one mode

Cells of one colour share one path: 2016 interferometers take 40 kB a panel instead of 300.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from photonloop.controller.report.colours import PHASE_STEPS, phase_wheel
from photonloop.protocols.device import StageDescription

_PITCH = 20
"""Drawing units a column and a mode: even, so that cells keep whole coordinates."""
_LEVELS = 24
"""Strengths of a change told apart."""
_PER_ROW = 32
"""Channels a row where the wiring is unknown."""


@dataclass(frozen=True)
class Cell:
    """Where the phase of one channel is drawn: left, top, width, height in drawing units."""

    channel: int
    box: tuple[int, int, int, int]


@dataclass(frozen=True)
class Drawing:
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
"""From a value to SVG attributes of its cell; the empty string leaves the cell out."""


def drawings(stage: StageDescription | None, channels: int) -> tuple[Drawing, ...]:
    """Return what is drawn of a stage: its θ, then its φ with the output phases γ; a plain list where wiring is unknown.

    Rings of a weight bank are a table, a row an output, a column an input.
    """
    if stage is not None and stage.topology == "weight_bank" and stage.ports * stage.tap_ports == channels:
        return (_table("rings, a row an output, a column an input", channels, stage.ports),)
    usable = stage is not None and all(0 <= row[2] < channels and 0 <= row[3] < channels for row in stage.layout)
    if stage is None or not stage.layout or not usable:
        return (_table("all channels, row by row", channels, _PER_ROW),)
    columns = 1 + max(row[0] for row in stage.layout)
    start, stop = stage.groups.get("gamma", (0, 0))
    gammas = range(start, min(stop, channels))
    screen = tuple(Cell(channel, _screen_box(columns, port)) for port, channel in enumerate(gammas))
    alone = range(*stage.groups.get("attenuator_theta", (0, 0)))
    boxes = [_attenuator_box(row[0], row[1]) if row[2] in alone else _mzi_box(row[0], row[1]) for row in stage.layout]
    theta = tuple(Cell(row[2], box) for row, box in zip(stage.layout, boxes, strict=True))
    phi = tuple(Cell(row[3], box) for row, box in zip(stage.layout, boxes, strict=True))
    guides = tuple(_PITCH * mode + _PITCH // 2 for mode in range(stage.ports))
    size = (_PITCH * (columns + 3), _PITCH * stage.ports)
    return (
        Drawing("θ", theta, guides, *size),
        Drawing("φ, and γ at the outputs" if screen else "φ", phi + screen, guides, *size),
    )


def panel(drawing: Drawing, values: NDArray[np.float64], paint: Paint, label: str) -> str:
    """Return one SVG of `drawing` with the cell of each channel painted by its value; values of shape (channels,)."""
    paths: dict[str, list[str]] = defaultdict(list)
    for cell in drawing.cells:
        if attributes := paint(float(values[cell.channel])):
            left, top, width, height = cell.box
            paths[attributes].append(f"M{left} {top}h{width}v{height}h-{width}z")
    lines = "".join(f"M0 {y}h{drawing.width}" for y in drawing.guides)
    guides = f'<path class="guide" d="{lines}"/>' if lines else ""
    cells = "".join(f'<path {attributes} d="{"".join(parts)}"/>' for attributes, parts in sorted(paths.items()))
    # Small meshes keep a readable pitch instead of filling the column.
    limit_px = max(drawing.width, drawing.height) * 1.2
    return (
        f'<svg role="img" aria-label="{label}" viewBox="0 0 {drawing.width} {drawing.height}" '
        f'style="max-width:{limit_px:.0f}px">{guides}{cells}</svg>'
    )


def phase_paint() -> Paint:
    """Return the paint of phases [rad], wrapped to 2π."""
    wheel = phase_wheel()

    def paint(phase_rad: float) -> str:
        if not math.isfinite(phase_rad):
            return ""
        # A phase a hair below 2π belongs to the colour of 0.
        return f'fill="{wheel[round(phase_rad % (2 * math.pi) / (2 * math.pi) * PHASE_STEPS) % PHASE_STEPS]}"'

    return paint


def change_paint(limit_rad: float) -> Paint:
    """Return the paint of changes [rad]: warm up, cool down, full strength at `limit_rad`, nothing at 0."""

    def paint(change_rad: float) -> str:
        level = round(min(abs(change_rad) / limit_rad, 1.0) * _LEVELS) if limit_rad > 0 and math.isfinite(change_rad) else 0
        side = "up" if change_rad > 0 else "down"
        return f'class="{side}" fill-opacity="{level / _LEVELS:.3g}"' if level else ""

    return paint


def change_limit_rad(changes: Sequence[NDArray[np.float64]]) -> float:
    """Return where the colours of change end: at the 99th percentile of all, so that one runaway phase hides nothing."""
    finite = [np.abs(change[np.isfinite(change)]) for change in changes]
    everything = np.concatenate(finite) if finite else np.zeros(0)
    return float(np.percentile(everything, 99)) if everything.size else 0.0


def phase_scale() -> str:
    """Return the phase wheel unrolled, as SVG with its ends named."""
    bars = "".join(f'<rect x="{2 * k}" width="2.2" height="8" fill="{colour}"/>' for k, colour in enumerate(phase_wheel()))
    ticks = "".join(f'<text x="{32 * k + 1}" y="18">{text}</text>' for k, text in enumerate(("0", "π/2", "π", "3π/2", "2π")))
    return _scale("-8 0 148 20", "Colours of phase", bars + ticks)


def change_scale(limit_rad: float) -> str:
    """Return the colours of change, as SVG with its ends named."""
    bars = "".join(
        f'<rect class="{"up" if k > 0 else "down"}" x="{64 + k * 64 / _LEVELS - (64 / _LEVELS if k > 0 else 0):.2f}" '
        f'width="{64 / _LEVELS:.2f}" height="8" fill-opacity="{abs(k) / _LEVELS:.3g}"/>'
        for k in range(-_LEVELS, _LEVELS + 1)
        if k
    )
    names = ((0, f"−{limit_rad:.2g}"), (64, "0"), (128, f"+{limit_rad:.2g} rad"))
    ticks = "".join(f'<text x="{x}" y="18">{text}</text>' for x, text in names)
    return _scale("-12 0 160 20", "Colours of change", bars + ticks)


def _scale(box: str, label: str, body: str) -> str:
    return f'<svg class="scale" shape-rendering="crispEdges" viewBox="{box}" role="img" aria-label="{label}">{body}</svg>'


def _mzi_box(column: int, top_mode: int) -> tuple[int, int, int, int]:
    return (_PITCH * (column + 1) - _PITCH // 2 + 2, _PITCH * top_mode + 4, _PITCH - 4, 2 * _PITCH - 8)


def _attenuator_box(column: int, mode: int) -> tuple[int, int, int, int]:
    return (_PITCH * (column + 1) - _PITCH // 2 + 2, _PITCH * mode + 4, _PITCH - 4, _PITCH - 8)


def _screen_box(columns: int, port: int) -> tuple[int, int, int, int]:
    return (_PITCH * (columns + 1), _PITCH * port + 2, _PITCH, _PITCH - 4)


def _table(title: str, channels: int, per_row: int) -> Drawing:
    rows = math.ceil(channels / per_row)
    cells = tuple(
        Cell(channel, (_PITCH * (channel % per_row) + 1, _PITCH * (channel // per_row) + 1, _PITCH - 2, _PITCH - 2))
        for channel in range(channels)
    )
    return Drawing(title, cells, (), _PITCH * min(channels, per_row), _PITCH * rows)
