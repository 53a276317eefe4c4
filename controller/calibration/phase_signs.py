"""Choice between equivalent phases of a mesh: the one that suffers least from unequal losses.

An interferometer with -θ and φ + π has the same matrix as one with θ and φ, apart from phases of its outputs, which
later phases make up for. So an ideal mesh has the same matrix for any signs of its θ. A phase shifter loses light, and
the arm opposite to it does not: the errors that follow depend on the signs. With the best ones they cancel in part.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from photonloop.controller.calibration.matrix_merit import MatrixMerit
from photonloop.controller.calibration.twin import Twin
from photonloop.controller.calibration.twin_layout import TwinLayout

Array = NDArray[np.float64]
Signs = NDArray[np.bool_]

SWEEPS = 4
"""Most passes over all interferometers."""

LARGEST_PORTS = 16
"""Ports up to which signs are searched: a pass takes a time in proportion to the fourth power of the ports."""


def with_signs(layout: TwinLayout, phases: Array, flipped: Signs) -> Array:
    """Return phases with which an ideal mesh has the same matrix up to the phases of its outputs.

    Parameters
    ----------
    layout
        The stage.
    phases
        Effective phases [rad], shape (channels,).
    flipped
        True for interferometers whose θ changes its sign, shape (interferometers,). Attenuators keep theirs.
    """
    found = phases.copy()
    running = [0.0] * layout.ports
    for k, (top, theta, phi) in enumerate(zip(layout.top.tolist(), layout.theta.tolist(), layout.phi.tolist(), strict=True)):
        if layout.alone[k]:
            found[phi] -= running[top]
            running[top] = 0.0
            continue
        below = running[top + 1]
        found[phi] -= running[top] - below
        running[top] = below
        if flipped[k]:
            # M(-θ, φ + π) = e^{-iθ} · diag(1, -1) · M(θ, φ)
            found[phi] += np.pi
            found[theta] = -found[theta]
            running[top], running[top + 1] = below + found[theta], below + found[theta] + np.pi
    if layout.gamma.size:
        found[layout.gamma] -= running
    return found


def best_signs(merit: MatrixMerit, phases: Array, rng: np.random.Generator, starts: int = 3) -> Array:
    """Return phases equivalent to `phases`, (channels,), with the signs of least infidelity of a mesh with losses.

    Signs are changed one by one as long as that helps, from the present ones and from random ones. Couplers count as
    50:50 meanwhile: what they add is compensated for afterwards, with any signs.
    """
    twin, layout = merit.twin, merit.twin.layout
    even = replace(twin.parameters, coupler_error_rad=np.zeros_like(twin.parameters.coupler_error_rad))
    merit = replace(merit, twin=Twin(layout, even))
    ends = []
    for number in range(starts):
        flipped = (rng.random(layout.interferometers) < 0.5) & (number > 0) & ~layout.alone
        ends.append(_searched(merit, phases, flipped))
    return with_signs(layout, phases, min(ends, key=lambda end: end[0])[1])


def _searched(merit: MatrixMerit, phases: Array, flipped: Signs) -> tuple[float, Signs]:
    """Return the infidelity and the signs after changing them one by one from `flipped`."""
    layout, inputs = merit.twin.layout, np.zeros(len(merit.target))

    def value(signs: Signs) -> float:
        return merit.value_and_slopes(with_signs(layout, phases, signs), inputs)[0]

    best = value(flipped)
    for _ in range(SWEEPS):
        before = best
        for k in np.flatnonzero(~layout.alone):
            flipped[k] ^= True
            if (found := value(flipped)) < best:
                best = found
            else:
                flipped[k] ^= True
        if best == before:
            break
    return best, flipped
