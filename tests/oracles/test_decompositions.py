"""Phases of the controller's decompositions in meshes of the `interferometer` package, and against its own phases."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from numpy.typing import ArrayLike, NDArray
from support.target_matrices import KINDS, unitary

from photonloop.controller.decompose.clements import clements_phases
from photonloop.controller.decompose.mesh_phases import MeshPhases
from photonloop.controller.decompose.reck import reck_phases
from photonloop.controller.decompose.stage_layout import Element, clements_elements, reck_elements

interferometer = pytest.importorskip("interferometer", reason="needs the extra oracles")

SHAPES = pytest.mark.parametrize(
    ("decompose", "elements", "theirs"),
    [
        (clements_phases, clements_elements, interferometer.square_decomposition),
        (reck_phases, reck_elements, interferometer.triangle_decomposition),
    ],
)
SIZES = pytest.mark.parametrize("n", [2, 3, 4, 5, 8, 13, 16, 32])

Decompose = Callable[[ArrayLike], MeshPhases]


def rebuilt(elements: list[Element], phases: MeshPhases) -> NDArray[np.complex128]:
    """The matrix of a mesh of T(ϑ, ϕ) = [[e^{iϕ} cos ϑ, −sin ϑ], [e^{iϕ} sin ϑ, cos ϑ]].

    At ϑ = (π − θ)/2 and ϕ = φ − π, M(θ, φ) = −i e^{iθ/2} T. This phase is common to both modes. It is carried to the
    outputs; unequal phases in front of an interferometer go into its ϕ.
    """
    circuit, screen = interferometer.Interferometer(), np.zeros(phases.gamma.size)
    for (_, top, _), theta, phi in zip(elements, phases.theta, phases.phi, strict=True):
        extra = screen[top] - screen[top + 1]
        circuit.add_BS(interferometer.Beamsplitter(top + 1, top + 2, (np.pi - theta) / 2, phi - np.pi + extra))
        screen[top : top + 2] = screen[top + 1] + theta / 2 - np.pi / 2
    circuit.output_phases = list(phases.gamma + screen)
    return circuit.calculate_transformation()


@SHAPES
@SIZES
@pytest.mark.parametrize("kind", KINDS)
def test_their_mesh_at_our_phases_has_the_matrix(
    decompose: Decompose, elements: Callable[[int], list[Element]], theirs: Callable[..., Any], n: int, kind: str
) -> None:
    target = unitary(kind, n)
    np.testing.assert_allclose(theirs(target).calculate_transformation(), target, atol=1e-10)
    np.testing.assert_allclose(rebuilt(elements(n), decompose(target)), target, atol=1e-10)


@SHAPES
@SIZES
def test_splitting_ratios_of_a_random_matrix_are_theirs(
    decompose: Decompose, elements: Callable[[int], list[Element]], theirs: Callable[..., Any], n: int
) -> None:
    """For a random matrix the decomposition is unique: each interferometer has the same |cos ϑ|."""
    target = unitary("haar", n)
    ours: dict[int, list[float]] = {}
    for (_, top, _), theta in zip(elements(n), decompose(target).theta, strict=True):
        ours.setdefault(top, []).append(np.sin(theta / 2))
    other: dict[int, list[float]] = {}
    for splitter in theirs(target).BS_list:
        other.setdefault(int(splitter.mode1) - 1, []).append(abs(np.cos(splitter.theta)))
    for top, ratios in ours.items():
        np.testing.assert_allclose(ratios, other[top], atol=1e-8)
