"""A mesh at random phases with errors and losses, and where its interferometers are in anybody's drawing of it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from photonloop.simulator.physics.mesh import Mesh, transfer_matrix


@dataclass(frozen=True)
class FlawedMesh:
    """Arrays as `transfer_matrix` takes them."""

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
        """φ, angle of the first coupler, θ and angle of the second one of an interferometer: in the order of the light."""
        first, second = np.pi / 4 + self.coupler_error[number]
        return float(self.phi[self.mesh.phi[number]]), float(first), float(self.theta[self.mesh.theta[number]]), float(second)


def flawed(mesh: Mesh, seed: int, loss_db: float) -> FlawedMesh:
    """Coupler errors of 0.1 rad and losses up to `loss_db`."""
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
    """Interferometers by (top mode, how many came before it on that mode): the same in every drawing of the same wiring."""
    found: dict[tuple[int, int], int] = {}
    uses = dict.fromkeys(range(mesh.ports), 0)
    for number, top in enumerate(mesh.top.tolist()):
        found[top, uses[top]] = number
        uses[top] += 1
    return found
