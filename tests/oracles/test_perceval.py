"""Meshes with coupler errors against Perceval's generic interferometers, and lossy meshes against Perceval circuits."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from support.flawed_mesh import FlawedMesh, flawed, places

from photonloop.simulator.physics.mesh import Mesh, clements, reck, svd

pcvl = pytest.importorskip("perceval", reason="needs the extra oracles")

SIZES = pytest.mark.parametrize("n", [2, 3, 4, 5, 8, 11, 16])


def interferometer(chip: FlawedMesh, number: int, arm: int = 0) -> Any:
    """One interferometer, φ first, with its shifters on `arm`. Perceval's Rx(2a) is our coupler of angle a."""
    phi, first, theta, second = chip.element(number)
    couplers = pcvl.BS.Rx(theta=2 * first), pcvl.BS.Rx(theta=2 * second)
    return pcvl.Circuit(2) // (arm, pcvl.PS(phi)) // couplers[0] // (arm, pcvl.PS(theta)) // couplers[1]


def unitary(circuit: Any) -> NDArray[np.complex128]:
    return np.array(circuit.compute_unitary(), dtype=np.complex128)


def screen(chip: FlawedMesh) -> dict[str, Any]:
    return {"phase_shifter_fun_gen": lambda mode: pcvl.PS(float(chip.gamma[mode])), "phase_at_output": True}


@SIZES
def test_rectangle_agrees_with_perceval(n: int) -> None:
    chip = flawed(clements(n), seed=n, loss_db=0.0)
    circuit = pcvl.GenericInterferometer(n, lambda k: interferometer(chip, k), **screen(chip))
    np.testing.assert_allclose(chip.matrix, unitary(circuit), atol=1e-12)


@SIZES
def test_triangle_agrees_with_perceval(n: int) -> None:
    """Perceval's triangle has its apex at the last mode. Counted from there, upper and lower arms are exchanged."""
    chip = flawed(reck(n), seed=n, loss_db=0.0)
    tops = [j - 1 for i in range(1, n) for j in range(i, 0, -1)]
    uses = [tops[:k].count(top) for k, top in enumerate(tops)]
    ours = [places(chip.mesh)[n - 2 - top, use] for top, use in zip(tops, uses, strict=True)]
    circuit = pcvl.GenericInterferometer(n, lambda k: interferometer(chip, ours[k], arm=1), shape="triangle")
    expected = np.exp(1j * chip.gamma)[:, np.newaxis] * unitary(circuit)[::-1, ::-1]
    np.testing.assert_allclose(chip.matrix, expected, atol=1e-12)


@pytest.mark.parametrize("n", [2, 5, 8])
def test_svd_agrees_with_two_perceval_rectangles_and_attenuators(n: int) -> None:
    chip = flawed(svd(n), seed=n, loss_db=0.0)
    pairs = clements(n).interferometers
    before = pcvl.GenericInterferometer(n, lambda k: interferometer(chip, k))
    after = pcvl.GenericInterferometer(n, lambda k: interferometer(chip, pairs + n + k), **screen(chip))
    sigma = np.diag([unitary(interferometer(chip, pairs + mode))[0, 0] for mode in range(n)])
    np.testing.assert_allclose(chip.matrix, unitary(after) @ sigma @ unitary(before), atol=1e-12)


@pytest.mark.parametrize("build", [clements, reck])
@pytest.mark.parametrize("n", [2, 3, 5])
def test_loss_agrees_with_coupling_to_extra_modes(build: Callable[[int], Mesh], n: int) -> None:
    """Perceval's circuits are lossless, so each arm of each interferometer couples to an undetected extra mode."""
    chip = flawed(build(n), seed=n, loss_db=1.0)
    circuit = pcvl.Circuit(n + 2 * chip.mesh.interferometers)
    for k, top in enumerate(chip.mesh.top.tolist()):
        circuit.add((top, top + 1), interferometer(chip, k))
        for arm in (0, 1):
            mode, dump = top + arm, n + 2 * k + arm
            # Circuits couple neighbouring modes only: swap the extra mode with the mode next to the arm, and back.
            swap = list(range(dump - mode))
            swap[0], swap[-1] = swap[-1], swap[0]
            circuit.add(mode + 1, pcvl.PERM(swap))
            circuit.add(mode, pcvl.BS.Rx(theta=2 * np.arccos(10 ** (-chip.loss_db[k] / 20))))
            circuit.add(mode + 1, pcvl.PERM(swap))
    expected = np.exp(1j * chip.gamma)[:, np.newaxis] * unitary(circuit)[:n, :n]
    np.testing.assert_allclose(chip.matrix, expected, atol=1e-12)
