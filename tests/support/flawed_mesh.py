"""A mesh at random phases with coupler errors and losses, and positions of its interferometers for other packages."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from photonloop.simulator.physics.mesh import Mesh, transfer_matrix


@dataclass(frozen=True)
class FlawedMesh:
    """A mesh and the arguments of `transfer_matrix`."""

    mesh: Mesh
    theta: NDArray[np.float64]
    phi: NDArray[np.float64]
    gamma: NDArray[np.float64]
    coupler_error: NDArray[np.float64]
    loss_db: NDArray[np.float64]

    @property
    def matrix(self) -> NDArray[np.complex128]:
        return transfer_matrix(self.mesh, self.theta, self.phi, self.gamma, self.coupler_error, self.loss_db)

    def element(self, number: int) -> tuple[float, float, float, float]:
        """φ, angle of coupler 1, θ and angle of coupler 2 of an interferometer, in the order of the light."""
        first, second = np.pi / 4 + self.coupler_error[number]
        return float(self.phi[self.mesh.phi[number]]), float(first), float(self.theta[self.mesh.theta[number]]), float(second)


def flawed(mesh: Mesh, seed: int, loss_db: float) -> FlawedMesh:
    """Return a mesh at random phases with coupler errors of 0.1 rad and losses up to `loss_db`."""
    rng, count = np.random.default_rng(seed), mesh.interferometers
    return FlawedMesh(
        mesh,
        theta=rng.uniform(0, 2 * np.pi, count),
        phi=rng.uniform(0, 2 * np.pi, count),
        gamma=rng.uniform(0, 2 * np.pi, mesh.gammas),
        coupler_error=rng.normal(0, 0.1, (count, 2)),
        loss_db=rng.uniform(0, loss_db, count),
    )


def places(mesh: Mesh) -> dict[tuple[int, int], int]:
    """Number of each interferometer by (top mode, how many come before it on that top mode).

    These keys do not depend on how a package assigns interferometers to columns.
    """
    found: dict[tuple[int, int], int] = {}
    uses = dict.fromkeys(range(mesh.ports), 0)
    for number, top in enumerate(mesh.top.tolist()):
        found[top, uses[top]] = number
        uses[top] += 1
    return found
