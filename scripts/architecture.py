"""Draw the folders of the code and the imports between them: docs/architecture.svg.

    python scripts/architecture.py [--out docs/architecture.svg] [--json]

The files beside the folders of a package count as one more folder. An arrow from one folder to another stands for
imports; its width grows with their number. `--json` prints the numbers instead.
"""

from __future__ import annotations

import argparse
import json
from collections import Counter
from pathlib import Path

import grimp
import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import FancyArrowPatch, FancyBboxPatch

ROOT = Path(__file__).resolve().parents[1]
PACKAGES = {
    "controller": (0.0, 6.6, 7.6, 3.4, "#1b6ca8", "training: learning, data, runs, reports, the command"),
    "drivers": (0.0, 2.55, 7.6, 3.4, "#a8541b", "real instruments, composed into a bench"),
    "simulator": (8.4, 2.55, 4.6, 7.45, "#3f7d3a", "virtual chip and instruments"),
    "protocols": (0.0, 0.0, 13.0, 1.9, "#6a4c93", "the device contract, server and client"),
}
"""Of each package: left edge, lower edge, width, height, colour, purpose."""

COLUMNS = {"controller": 3, "drivers": 3, "simulator": 1, "protocols": 4}
"""Folders side by side."""

FILES = "files"
"""Name for the files beside the folders of a package."""

Folder = tuple[str, str]


def folders_and_imports() -> tuple[dict[Folder, int], Counter[tuple[Folder, Folder]]]:
    """Return the number of modules in every folder, and how many imports lead from one folder to another."""
    graph = grimp.build_graph("photonloop", cache_dir=None)
    modules = {module: folder for module in graph.modules if (folder := _folder(module, graph)) is not None}
    sizes = Counter(modules.values())
    imports: Counter[tuple[Folder, Folder]] = Counter()
    for module, folder in modules.items():
        for imported in graph.find_modules_directly_imported_by(module):
            if (other := modules.get(imported)) is not None and other != folder:
                imports[folder, other] += 1
    return dict(sizes), imports


def _folder(module: str, graph: grimp.ImportGraph) -> Folder | None:
    _, *parts = module.split(".")
    if not parts or parts[0] not in PACKAGES:
        return None
    has_folder = len(parts) > 2 or (len(parts) == 2 and graph.find_children(module))
    return parts[0], parts[1] if has_folder else FILES


def draw(sizes: dict[Folder, int], imports: Counter[tuple[Folder, Folder]]) -> Figure:
    """Return the picture: folders, arrows between the folders of a package, and one arrow from package to package."""
    mpl.rcParams["svg.hashsalt"] = "photonloop"
    mpl.rcParams["font.family"] = "DejaVu Sans"
    figure = Figure(figsize=(13, 10), layout="constrained")
    axes = figure.add_subplot()
    axes.set(xlim=(-0.9, 13.1), ylim=(-0.1, 10.1))
    axes.axis("off")
    places: dict[Folder, FancyBboxPatch] = {}
    for package in PACKAGES:
        places |= _draw_package(axes, package, {name: n for (owner, name), n in sorted(sizes.items()) if owner == package})
    between: Counter[tuple[str, str]] = Counter()
    for (start, end), count in sorted(imports.items()):
        if start[0] == end[0]:
            _draw_import(axes, places[start], places[end], count, PACKAGES[start[0]][4])
        else:
            between[start[0], end[0]] += count
    for (start, end), count in sorted(between.items()):
        _draw_between(axes, start, end, count)
    axes.text(8.0, 8.3, "only through a\nprocess (ZeroMQ)", ha="center", va="center", size=8, color="#444444", rotation=90)
    return figure


def _draw_package(axes: Axes, package: str, folders: dict[str, int]) -> dict[Folder, FancyBboxPatch]:
    left, low, width, height, colour, purpose = PACKAGES[package]
    shape = FancyBboxPatch((left, low), width, height, boxstyle="round,pad=0,rounding_size=0.12", fc=colour, alpha=0.1, lw=0)
    axes.add_patch(shape)
    axes.text(left + 0.15, low + height - 0.32, package, color=colour, weight="bold", size=14)
    axes.text(left + 1.75, low + height - 0.3, purpose, color="#444444", size=9)
    columns = COLUMNS[package]
    lines = -(-len(folders) // columns)
    wide, tall = (width - 0.3) / columns, (height - 0.65) / lines
    places = {}
    for number, (folder, modules) in enumerate(folders.items()):
        x = left + 0.15 + (number % columns) * wide + 0.2
        y = low + height - 0.55 - (number // columns + 1) * tall + 0.2
        box_width, box_height = wide - 0.4, min(0.6, tall - 0.3)
        box = FancyBboxPatch((x, y), box_width, box_height, boxstyle="round,pad=0,rounding_size=0.08", fc="white", ec=colour)
        box.set_zorder(3)
        axes.add_patch(box)
        middle = (x + box_width / 2, y + box_height / 2)
        axes.text(middle[0], middle[1] + 0.09, folder, ha="center", va="center", size=11, zorder=4)
        count = f"{modules} module{'s' if modules > 1 else ''}"
        axes.text(middle[0], middle[1] - 0.16, count, ha="center", va="center", size=7, color="#666666", zorder=4)
        places[package, folder] = box
    return places


def _draw_between(axes: Axes, start: str, end: str, count: int) -> None:
    """Draw the arrow from one package to another, with the number of imports."""
    left, low, width, _, colour, _ = PACKAGES[start]
    end_top = PACKAGES[end][1] + PACKAGES[end][3]
    if (start, end) == ("controller", "protocols"):  # around the drivers, on the left
        axes.plot([left - 0.02, -0.5, -0.5], [low + 1.5, low + 1.5, end_top - 1.0], color=colour, lw=3, alpha=0.8)
        _draw_arrow(axes, (-0.5, end_top - 1.0), (left + 0.05, end_top - 1.0), colour)
        axes.text(-0.62, 4.2, f"{count} imports", rotation=90, ha="center", va="center", size=8, color=colour)
        return
    x = left + width / 2
    _draw_arrow(axes, (x, low + 0.02), (x, end_top - 0.02), colour)
    axes.text(x + 0.15, (low + end_top) / 2, f"{count} imports", va="center", size=8, color=colour)


def _draw_import(axes: Axes, start: FancyBboxPatch, end: FancyBboxPatch, count: int, colour: str) -> None:
    """Draw the arrow from one folder to another of the same package."""
    ends = [(box.get_x() + box.get_width() / 2, box.get_y() + box.get_height() / 2) for box in (start, end)]
    arrow = FancyArrowPatch(ends[0], ends[1], patchA=start, patchB=end, shrinkA=0, shrinkB=1, connectionstyle="arc3,rad=0.12")
    arrow.set(arrowstyle="-|>", mutation_scale=9, lw=0.5 + 0.3 * count**0.5, color=colour, alpha=0.5, zorder=2)
    axes.add_patch(arrow)


def _draw_arrow(axes: Axes, start: tuple[float, float], end: tuple[float, float], colour: str) -> None:
    arrow = FancyArrowPatch(start, end, shrinkA=0, shrinkB=0, arrowstyle="-|>", mutation_scale=16, lw=3, color=colour, alpha=0.8)
    axes.add_patch(arrow)


def main() -> None:
    """Write the picture, or print the numbers."""
    parser = argparse.ArgumentParser(description="Draw the folders of the code and the imports between them.")
    parser.add_argument("--out", type=Path, default=ROOT / "docs" / "architecture.svg", help="[%(default)s]")
    parser.add_argument("--json", action="store_true", help="print the numbers instead")
    args = parser.parse_args()
    sizes, imports = folders_and_imports()
    if args.json:
        edges = [{"from": ".".join(a), "to": ".".join(b), "imports": n} for (a, b), n in sorted(imports.items())]
        print(json.dumps({"folders": {".".join(folder): n for folder, n in sorted(sizes.items())}, "imports": edges}))
        return
    draw(sizes, imports).savefig(args.out, metadata={"Date": None})
    print(args.out)


if __name__ == "__main__":
    main()
