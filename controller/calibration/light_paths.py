"""Light paths on which the power at one output depends on few interferometers, whatever the phases elsewhere are.

In a rectangular mesh exactly one path leads from input 0 to the last output. It crosses every interferometer of the
main falling diagonal, so the power behind it is a product of their cross transmissions:

    in 0 ──┐                         x: interferometers of the main diagonal
          [x]──┐
              [x]──┐
                  [x]── last output

Once these are in bar, they separate the mesh into two triangles, and the next diagonals are the only paths through
them: below from input 2 to the last output, above from input 0 to the last output but two, and so on.

A triangular mesh needs no long paths. The first interferometer of its longest diagonal is the only one in front of
output 0. Once it is in cross, the next ones are each the only unknown one on a path.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from photonloop.controller.calibration.twin_layout import TwinLayout


@dataclass(frozen=True)
class LightPath:
    """A path from one input to one output.

    Parameters
    ----------
    interferometers
        Those that are not yet known, in the order of light.
    lit, output
        Input and output port.
    target_rad
        θ of these interferometers at which the output is brightest: 0 for cross, π for bar.
    """

    interferometers: tuple[int, ...]
    lit: int
    output: int
    target_rad: float


@dataclass(frozen=True)
class PathRound:
    """Paths without an interferometer in common, whose interferometers can be found at the same time.

    Parameters
    ----------
    paths
        The paths. They exist if the interferometers of earlier rounds are at their `locked_rad`.
    locked_rad
        θ that the interferometers of the paths need in later rounds: 0 for cross, π for bar.
    """

    paths: tuple[LightPath, ...]
    locked_rad: float


def path_rounds(layout: TwinLayout, topology: str) -> list[PathRound]:
    """Return the order in which the θ of a rectangular or triangular mesh can be found from one lit input at a time.

    Parameters
    ----------
    layout
        The stage.
    topology
        "clements" or "reck".

    Raises
    ------
    ValueError
        The topology is another one.
    """
    if topology == "clements":
        return _rectangular(layout)
    if topology == "reck":
        return _triangular(layout)
    raise ValueError(
        f"a mesh of topology {topology!r} has no order of light paths for one lit input at a time: "
        "this calibration needs clements or reck"
    )


def _rectangular(layout: TwinLayout) -> list[PathRound]:
    below = layout.top - layout.column  # 0 on the main diagonal
    rounds = []
    for distance in range(0, int(np.abs(below).max()) + 1, 2):
        paths = []
        for side in sorted({distance, -distance}, reverse=True):
            here = np.flatnonzero(below == side)
            here = here[np.argsort(layout.column[here])]
            if here.size:
                first, last = int(layout.top[here[0]]), int(layout.top[here[-1]])
                paths.append(LightPath(tuple(here.tolist()), first, last + 1, 0.0))
        rounds.append(PathRound(tuple(paths), np.pi))
    return rounds


def _triangular(layout: TwinLayout) -> list[PathRound]:
    diagonal = (layout.ports - 2 - (layout.column - layout.top)) // 2  # 0 is the longest one
    rounds = []
    for last in range(int(layout.top.max()) + 1):
        paths = [
            LightPath((int(k),), int(diagonal[k]), int(layout.top[k] - diagonal[k]), np.pi)
            for k in np.flatnonzero(layout.top == last)
        ]
        rounds.append(PathRound(tuple(paths), 0.0))
    return rounds
