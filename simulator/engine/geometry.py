"""Nominal positions of heaters and waveguides, for the description of a stage."""

from __future__ import annotations

from photonloop.protocols.device import StageGeometry
from photonloop.simulator.parameters import CrosstalkParameters
from photonloop.simulator.physics.mesh import Mesh
from photonloop.simulator.physics.weight_bank import WeightBank


def mesh_geometry(mesh: Mesh, pitches: CrosstalkParameters) -> StageGeometry:
    """Return the positions in a mesh: φ of column c at c · pitch, θ half a pitch after it, γ after the last column."""
    columns = int(mesh.column.max()) + 1
    column_m = pitches.column_pitch_m
    return StageGeometry(
        mode_y_m=tuple(mode * pitches.mode_pitch_m for mode in range(mesh.ports)),
        phi_x_m=tuple(column * column_m for column in range(columns)),
        theta_x_m=tuple((column + 0.5) * column_m for column in range(columns)),
        gamma_x_m=columns * column_m if mesh.gammas else None,
    )


def bank_geometry(bank: WeightBank, pitches: CrosstalkParameters) -> StageGeometry:
    """Return the positions in a weight bank: rings half a column pitch apart, rows one mode pitch apart."""
    return StageGeometry(
        mode_y_m=tuple(row * pitches.mode_pitch_m for row in range(bank.outputs)),
        ring_x_m=tuple(ring * pitches.column_pitch_m / 2 for ring in range(bank.inputs)),
    )
