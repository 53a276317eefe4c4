"""Overlaps of the modes of heaters, inputs and outputs that follow from the layout of a mesh alone.

Examples: two heaters of one half column have the overlap 0; θ and φ of one interferometer have ½, because a coupler
lies between them; so have θ and the next heater behind one of its outputs. Such overlaps are found by computing all of
them in ideal meshes with random phases: the ones that are always the same.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from photonloop.controller.calibration.twin_layout import TwinLayout

Array = NDArray[np.float64]
Complex = NDArray[np.complex128]

DRAWS = 5


@dataclass(frozen=True)
class ModeRelations:
    """Overlaps of modes. Labels are the channels of the stage, then the inputs, then the outputs.

    Parameters
    ----------
    expected
        Overlaps, shape (labels, labels).
    exact
        True for those that do not depend on any phase.
    """

    expected: Array
    exact: NDArray[np.bool_]


def mode_relations(layout: TwinLayout, broken: tuple[int, int] | None = None) -> ModeRelations:
    """Return the overlaps that follow from the layout.

    Parameters
    ----------
    layout
        A mesh without attenuators.
    broken
        Interferometer and coupler (0 or 1) through which light passes without splitting.
    """
    rng = np.random.default_rng(0)
    drawn = np.array([_overlaps(layout, rng, broken) for _ in range(DRAWS)])
    exact = np.ptp(drawn, axis=0) < 1e-9
    exact[:, layout.gamma] = exact[layout.gamma] = False
    np.fill_diagonal(exact, False)
    # Behind the last interferometers come unknown phases: only a step of exactly π would give the overlap of θ and φ.
    for k in _last(layout):
        exact[layout.theta[k], layout.phi[k]] = exact[layout.phi[k], layout.theta[k]] = False
    return ModeRelations(drawn.mean(axis=0), exact)


def _last(layout: TwinLayout) -> list[int]:
    """Return the interferometers of which both outputs lead to the outputs of the mesh."""
    last = {}
    for k, top in enumerate(layout.top):
        last[top] = last[top + 1] = k
    return [k for k, top in enumerate(layout.top) if last[top] == last[top + 1] == k]


def _overlaps(layout: TwinLayout, rng: np.random.Generator, broken: tuple[int, int] | None) -> Array:
    """Return all overlaps at random phases."""
    ports, modes = layout.ports, np.zeros((layout.channels, layout.ports), np.complex128)
    fields = np.eye(ports, dtype=np.complex128)
    for k, top in enumerate(layout.top):
        heated = int(layout.lower[k])
        pair = fields[top : top + 2].copy()
        for coupler, channel in enumerate((layout.phi[k], layout.theta[k])):
            modes[channel] = pair[heated]
            pair[heated] *= np.exp(2j * np.pi * rng.random())
            angle = 0.0 if broken == (k, coupler) else np.pi / 4
            cosine, sine = np.cos(angle), 1j * np.sin(angle)
            pair = np.array([[cosine, sine], [sine, cosine]]) @ pair
        fields[top : top + 2] = pair
    everything = np.concatenate((modes, np.eye(ports), fields))
    return np.abs(everything.conj() @ everything.T) ** 2
