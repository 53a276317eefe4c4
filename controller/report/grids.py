"""Matrices as SVG: the confusion matrix, and readings by class."""

from __future__ import annotations

from html import escape

import numpy as np
from numpy.typing import NDArray

_MOST_COUNTS = 30
"""Classes up to which counts are written into the cells."""

_PREFIXES = ((1.0, ""), (1e-3, "m"), (1e-6, "µ"), (1e-9, "n"), (1e-12, "p"))


def confusion_counts(y_true: NDArray[np.int64], predicted: NDArray[np.int64], classes: int) -> NDArray[np.int64]:
    """Return how often class r was read as class c, shape (classes, classes)."""
    counts = np.zeros((classes, classes), dtype=np.int64)
    np.add.at(counts, (y_true, predicted), 1)
    return counts


def confusion(counts: NDArray[np.int64], classes: tuple[str, ...]) -> str:
    """Return the confusion matrix as SVG: rows are true classes, columns predictions, the last column the share found."""
    size = len(classes)
    cell, left, top = max(14, min(44, 640 // size)), _label_width(classes), 40
    share = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    parts: list[str] = []
    for row in range(size):
        y = top + row * cell
        parts.append(f'<text class="end" x="{left - 8}" y="{y + cell / 2:g}">{_short(classes[row])}</text>')
        parts.append(f'<text x="{left + (row + 0.5) * cell:g}" y="{top - 10}">{_short(classes[row])}</text>')
        for column in range(size):
            count = int(counts[row, column])
            kind = "hit" if row == column else "miss"
            # A square root, so that one mistake in a hundred still shows.
            strength = float(np.sqrt(share[row, column]))
            parts.append(
                f'<rect class="{kind}" x="{left + column * cell}" y="{y}" width="{cell - 2}" height="{cell - 2}" rx="2" '
                f'fill-opacity="{0.05 + 0.85 * strength:.3g}"><title>{escape(classes[row])} read as '
                f"{escape(classes[column])}: {count}</title></rect>"
            )
            if count and size <= _MOST_COUNTS:
                tone = ' class="on"' if strength > 0.75 else ""
                parts.append(f'<text{tone} x="{left + column * cell + cell / 2 - 1:g}" y="{y + cell / 2:g}">{count}</text>')
        parts.append(f'<text class="muted" x="{left + size * cell + 26}" y="{y + cell / 2:g}">{share[row, row]:.0%}</text>')
    middle = left + size * cell / 2
    parts.append(f'<text class="muted" x="{middle:g}" y="10">read as</text>')
    parts.append(f'<text class="muted end" x="{left - 8}" y="{top - 10}">true</text>')
    width, height = left + size * cell + 56, top + size * cell + 4
    return _svg("matrix", width, height, "Confusion matrix", parts)


def confused_most(counts: NDArray[np.int64], classes: tuple[str, ...]) -> str:
    """Return the most frequent mistakes as plain text; empty where there is none."""
    mistakes = counts.copy()
    np.fill_diagonal(mistakes, 0)
    order = np.argsort(-mistakes, axis=None, kind="stable")[:3]
    pairs = [divmod(int(index), len(classes)) for index in order]
    told = [f"{classes[r]} read as {classes[c]} ({mistakes[r, c]} times)" for r, c in pairs if mistakes[r, c] > 0]
    return ", ".join(told).replace("(1 times)", "(once)")


def readings(mean_readings: NDArray[np.float64], classes: tuple[str, ...], unit: str) -> str:
    """Return mean readings as SVG, shape (classes, ports), and a scale of its own from 0 to the greatest.

    Where some are negative, as balanced detectors read them, the other colour is theirs and the scale runs to both sides.
    """
    count, ports = mean_readings.shape
    left, top, row = _label_width(classes), 22, max(8, min(18, 480 // count))
    column = max(4, min(40, 960 // ports))
    finite = np.where(np.isfinite(mean_readings), mean_readings, 0.0)
    greatest, signed = float(np.abs(finite).max(initial=0.0)), bool((finite < 0).any())
    factor, prefix = next(((f, p) for f, p in _PREFIXES if greatest >= f), _PREFIXES[-1])
    parts: list[str] = []
    for number, name in enumerate(classes[:count]):
        y = top + number * row
        parts.append(f'<text class="end" x="{left - 8}" y="{y + row / 2:g}">{_short(name)}</text>')
        for port in range(ports):
            value = float(mean_readings[number, port])
            strength = min(abs(value) / greatest, 1.0) if greatest > 0 and np.isfinite(value) else 0.0
            colour = "down" if value < 0 else "hit"
            parts.append(
                f'<rect class="{colour}" x="{left + port * column}" y="{y}" width="{column - 1}" height="{row - 1}" '
                f'fill-opacity="{0.04 + 0.96 * strength:.3g}"><title>{escape(name)}, port {port}: '
                f"{value / factor:.4g} {prefix}{escape(unit)}</title></rect>"
            )
    every = next(step for step in (1, 2, 4, 8, 16, 32, 64, 128, 256, 512) if step * column >= 24 or step == 512)
    parts += [f'<text x="{left + (p + 0.5) * column:g}" y="10">{p}</text>' for p in range(0, ports, every)]
    foot, bar = top + count * row + 10, 160
    levels = [2 * (k + 0.5) / 32 - 1 if signed else (k + 0.5) / 32 for k in range(32)]
    parts += [
        f'<rect class="{"down" if level < 0 else "hit"}" x="{left + k * bar / 32:g}" y="{foot}" width="{bar / 32:g}" height="7" '
        f'fill-opacity="{0.04 + 0.96 * abs(level):.3g}"/>'
        for k, level in enumerate(levels)
    ]
    parts.append(
        f'<text class="start muted" x="{left + bar + 8}" y="{foot + 4}">'
        f"{f'−{greatest / factor:.3g}' if signed else '0'} to {greatest / factor:.3g} {prefix}{escape(unit)}</text>"
    )
    parts.append(f'<text class="end muted" x="{left - 8}" y="10">port</text>')
    return _svg("matrix", left + ports * column + 4, foot + 14, "Mean readings by class", parts)


def _svg(kind: str, width: float, height: float, label: str, parts: list[str]) -> str:
    body = "".join(parts)
    return (
        f'<svg class="{kind}" role="img" aria-label="{label}" viewBox="0 0 {width:g} {height:g}" '
        f'style="max-width:{width:g}px">{body}</svg>'
    )


def _label_width(classes: tuple[str, ...]) -> int:
    return 24 + 7 * max(4, *(len(_shortened(name)) for name in classes))


def _short(name: str) -> str:
    return escape(_shortened(name))


def _shortened(name: str) -> str:
    return name if len(name) <= 12 else name[:11] + "…"
