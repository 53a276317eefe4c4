"""Meshes with coupler errors and loss against sax netlists of couplers, phase shifters and lossy waveguides."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from support.flawed_mesh import FlawedMesh, flawed

from photonloop.simulator.physics.mesh import Mesh, clements, reck, svd

jnp = pytest.importorskip("jax.numpy", reason="needs the extra oracles")
sax = pytest.importorskip("sax", reason="needs the extra oracles")


def coupler(angle: float = 0.0) -> Any:
    bar, cross = jnp.cos(angle), 1j * jnp.sin(angle)
    return sax.reciprocal({("in0", "out0"): bar, ("in0", "out1"): cross, ("in1", "out0"): cross, ("in1", "out1"): bar})


def guide(phase: float = 0.0, loss_db: float = 0.0) -> Any:
    return sax.reciprocal({("in0", "out0"): 10 ** (-loss_db / 20) * jnp.exp(1j * phase)})


def netlist(chip: FlawedMesh) -> dict[str, Any]:
    """The whole mesh, element by element. The lower output and the lower input of an attenuator are not connected."""
    mesh = chip.mesh
    instances: dict[str, Any] = {}
    connections: dict[str, str] = {}
    ports: dict[str, str] = {}
    ends: dict[int, str] = {}

    def place(name: str, component: str, **settings: float) -> None:
        instances[name] = {"component": component, "settings": settings}

    def join(mode: int, start: str, end: str) -> None:
        if mode in ends:
            connections[ends[mode]] = start
        else:
            ports[f"in{mode}"] = start
        ends[mode] = end

    for k, (top, alone) in enumerate(zip(mesh.top.tolist(), mesh.attenuates.tolist(), strict=True)):
        phi, first, theta, second = chip.element(k)
        place(f"phi{k}", "guide", phase=phi)
        place(f"first{k}", "coupler", angle=first)
        place(f"theta{k}", "guide", phase=theta)
        place(f"second{k}", "coupler", angle=second)
        for arm in ("upper", "lower"):
            place(f"{arm}{k}", "guide", loss_db=float(chip.loss_db[k]))
        inside = (
            ("phi", "first", 0),
            ("first", "theta", 0),
            ("theta", "second", 0),
            ("second", "upper", 0),
            ("second", "lower", 1),
        )
        connections |= {f"{a}{k},out{arm if a == 'second' else 0}": f"{b}{k},in0" for a, b, arm in inside}
        connections[f"first{k},out1"] = f"second{k},in1"
        join(top, f"phi{k},in0", f"upper{k},out0")
        if not alone:
            join(top + 1, f"first{k},in1", f"lower{k},out0")
    for mode in range(mesh.ports):
        place(f"gamma{mode}", "guide", phase=float(chip.gamma[mode]))
        join(mode, f"gamma{mode},in0", "")
        ports[f"out{mode}"] = f"gamma{mode},out0"
    return {"instances": instances, "connections": connections, "ports": ports}


def matrix_of(chip: FlawedMesh) -> NDArray[np.complex128]:
    circuit, _ = sax.circuit(netlist(chip), {"coupler": coupler, "guide": guide})
    answer, modes = sax.sdict(circuit()), range(chip.mesh.ports)
    return np.array([[complex(answer[f"in{i}", f"out{o}"]) for i in modes] for o in modes])


SIZES = [(clements, n) for n in (2, 3, 4, 7, 16)] + [(reck, n) for n in (2, 5, 12, 16)] + [(svd, n) for n in (2, 3, 8)]


@pytest.mark.parametrize(("build", "n"), SIZES)
def test_matrix_agrees_with_sax(build: Callable[[int], Mesh], n: int) -> None:
    chip = flawed(build(n), seed=n, loss_db=1.0)
    np.testing.assert_allclose(chip.matrix, matrix_of(chip), atol=1e-12)
