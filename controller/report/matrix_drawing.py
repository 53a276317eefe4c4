"""Matrices as SVG: the confusion matrix, and mean readings per class."""

from __future__ import annotations

import numpy as np
from markupsafe import Markup
from numpy.typing import NDArray

from photonloop.controller.report.display_text import unit_prefix
from photonloop.controller.report.svg_elements import svg_element, svg_figure

_MAX_CLASSES_WITH_COUNTS = 30
"""With more classes, cells of the confusion matrix are too small for a count."""
_MAX_LABEL_LENGTH = 12
_CHARACTER_WIDTH = 6.8
"""Mean width of a character of the label font, in drawing units."""
_SCALE_WIDTH, _SCALE_STEPS = 160, 32


def confusion_counts(y_true: NDArray[np.int64], predicted: NDArray[np.int64], classes: int) -> NDArray[np.int64]:
    """Return how often true class r was classified as class c, shape (classes, classes)."""
    counts = np.zeros((classes, classes), dtype=np.int64)
    np.add.at(counts, (y_true, predicted), 1)
    return counts


def most_confused(counts: NDArray[np.int64], classes: tuple[str, ...]) -> str:
    """Return the three most frequent mistakes as text, or an empty string if there are none."""
    mistakes = counts.copy()
    np.fill_diagonal(mistakes, 0)
    order = np.argsort(-mistakes, axis=None, kind="stable")[:3]
    pairs = [divmod(int(index), len(classes)) for index in order]
    phrases = [f"{classes[r]} as {classes[c]} ({mistakes[r, c]} times)" for r, c in pairs if mistakes[r, c] > 0]
    return ", ".join(phrases).replace("(1 times)", "(once)")


def confusion_matrix_svg(counts: NDArray[np.int64], classes: tuple[str, ...]) -> Markup:
    """Return the confusion matrix as SVG.

    Rows are true classes and columns predicted classes. The last column is the recall of each class.
    """
    size = len(classes)
    cell, left = max(14, min(44, 640 // size)), _label_width(classes)
    slanted = max(len(_shortened(name)) for name in classes) * _CHARACTER_WIDTH > cell
    top = _label_width(classes) if slanted else 40
    recall = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    parts: list[Markup] = []
    for row, name in enumerate(classes):
        middle = top + (row + 0.5) * cell
        parts.append(_text(left - 8, middle, _shortened(name), "end"))
        parts.append(_column_label(left + (row + 0.5) * cell, top - 10, _shortened(name), slanted))
        for column in range(size):
            x, y = left + column * cell, top + row * cell
            parts += _confusion_cell(x, y, cell, row, column, counts, recall[row, column], classes)
        parts.append(_text(left + size * cell + 26, middle, f"{recall[row, row]:.0%}", "muted"))
    parts.append(_text(left + size * cell / 2, 10, "predicted", "muted"))
    parts.append(_text(left - 8, top - 10, "true", "muted end"))
    return _matrix("Confusion matrix", left + size * cell + 56, top + size * cell + 4, parts)


def _confusion_cell(
    x: int, y: int, cell: int, row: int, column: int, counts: NDArray[np.int64], share: float, classes: tuple[str, ...]
) -> list[Markup]:
    """Return the coloured cell of one pair of classes and its count; `share` is its part of the row."""
    count = int(counts[row, column])
    # With the square root, one mistake in a hundred is still visible.
    strength = float(np.sqrt(share))
    title = svg_element("title", f"{classes[row]} classified as {classes[column]}: {count}")
    kind = "hit" if row == column else "miss"
    parts = [_cell(x, y, cell - 2, cell - 2, kind, 0.05 + 0.85 * strength, title, rx=2)]
    if count and len(classes) <= _MAX_CLASSES_WITH_COUNTS:
        parts.append(_text(x + cell / 2 - 1, y + cell / 2, str(count), "on" if strength > 0.75 else None))
    return parts


def class_readings_svg(mean_readings: NDArray[np.float64], classes: tuple[str, ...], unit: str) -> Markup:
    """Return mean readings as SVG, with a colour scale from 0 to the largest reading.

    If there are negative readings, as of balanced detectors, they have a second colour and the scale is symmetric.

    Parameters
    ----------
    mean_readings
        Mean readings, shape (classes, ports) [unit].
    classes
        Names of the classes.
    unit
        Unit of the readings, without a prefix.
    """
    count, ports = mean_readings.shape
    left, top, row = _label_width(classes), 22, max(8, min(18, 480 // count))
    column = max(4, min(40, 960 // ports))
    finite = np.where(np.isfinite(mean_readings), mean_readings, 0.0)
    largest, signed = float(np.abs(finite).max(initial=0.0)), bool((finite < 0).any())
    factor, prefix = unit_prefix(largest)
    parts: list[Markup] = []
    for index, name in enumerate(classes[:count]):
        y = top + index * row
        parts.append(_text(left - 8, y + row / 2, _shortened(name), "end"))
        for port in range(ports):
            value = float(mean_readings[index, port])
            strength = min(abs(value) / largest, 1.0) if largest > 0 and np.isfinite(value) else 0.0
            title = svg_element("title", f"{name}, port {port}: {value / factor:.4g} {prefix}{unit}")
            kind = "down" if value < 0 else "hit"
            parts.append(_cell(left + port * column, y, column - 1, row - 1, kind, 0.04 + 0.96 * strength, title))
    label_step = next(step for step in (1, 2, 4, 8, 16, 32, 64, 128, 256, 512) if step * column >= 24 or step == 512)
    parts += [_text(left + (port + 0.5) * column, 10, str(port)) for port in range(0, ports, label_step)]
    parts.append(_text(left - 8, 10, "port", "end muted"))
    scale_y = top + count * row + 10
    parts += _colour_scale(left, scale_y, signed)
    limits = f"{f'−{largest / factor:.3g}' if signed else '0'} to {largest / factor:.3g} {prefix}{unit}"
    parts.append(_text(left + _SCALE_WIDTH + 8, scale_y + 4, limits, "start muted"))
    width = left + max(ports * column + 4, _SCALE_WIDTH + 8 + round(len(limits) * _CHARACTER_WIDTH))
    return _matrix("Mean readings per class", width, scale_y + 14, parts)


def _colour_scale(left: int, top: int, signed: bool) -> list[Markup]:
    """Return the colour scale of readings: from 0, or symmetric about 0 if `signed`."""
    width = _SCALE_WIDTH / _SCALE_STEPS
    levels = [(k + 0.5) / _SCALE_STEPS for k in range(_SCALE_STEPS)]
    if signed:
        levels = [2 * level - 1 for level in levels]
    return [
        _cell(left + k * width, top, width, 7, "down" if level < 0 else "hit", 0.04 + 0.96 * abs(level))
        for k, level in enumerate(levels)
    ]


def _matrix(label: str, width: float, height: float, parts: list[Markup]) -> Markup:
    return svg_figure(label, (0, 0, width, height), *parts, class_="matrix", style=f"max-width:{width:g}px")


def _cell(x: float, y: float, width: float, height: float, kind: str, opacity: float, *children: Markup, rx: int = 0) -> Markup:
    return svg_element(
        "rect", *children, class_=kind, x=x, y=y, width=width, height=height, rx=rx or None, fill_opacity=round(opacity, 3)
    )


def _text(x: float, y: float, text: str, kind: str | None = None) -> Markup:
    return svg_element("text", text, class_=kind, x=x, y=y)


def _column_label(x: float, y: float, text: str, slanted: bool) -> Markup:
    if slanted:
        return svg_element("text", text, class_="start", transform=f"translate({x:g} {y:g}) rotate(-45)")
    return _text(x, y, text)


def _label_width(classes: tuple[str, ...]) -> int:
    return 24 + 7 * max(4, *(len(_shortened(name)) for name in classes))


def _shortened(name: str) -> str:
    return name if len(name) <= _MAX_LABEL_LENGTH else name[: _MAX_LABEL_LENGTH - 1] + "…"
