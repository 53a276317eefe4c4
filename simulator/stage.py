"""One stage as the kernels want it: wiring, true values and levels folded into flat arrays.

Channels of a stage: all θ, then all φ, then all γ, each in the order of the mesh (by column, then by top mode), attenuators
behind the interferometers.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from protocols.device import StageDescription
from simulator.fabrication import StageTruth, fabricate
from simulator.levels import StageLevels
from simulator.mesh import Mesh, couplers, schedule
from simulator.parameters import ChipParameters


@dataclass(frozen=True)
class Stage:
    """A built stage.

    Parameters
    ----------
    description
        What the controller may know.
    mesh, truth, levels
        Wiring, true values, trimmed levels.
    tops, theta, phi, couplers
        Per interferometer in the order of the sweep: upper mode, channel of θ, channel of φ, `kernels.coefficients`.
    attenuators
        What `kernels.attenuate` wants.
    offset, scale
        Per channel: phase in half turns is offset + scale·V².
    readout
        What `kernels.read_settings` calls readout.
    """

    description: StageDescription
    mesh: Mesh
    truth: StageTruth
    levels: StageLevels
    tops: NDArray[np.int64]
    theta: NDArray[np.int64]
    phi: NDArray[np.int64]
    couplers: NDArray[np.float32]
    attenuators: NDArray[np.int64]
    offset: NDArray[np.float64]
    scale: NDArray[np.float64]
    readout: NDArray[np.float32]

    @property
    def channels(self) -> slice:
        """The stage's channels in a drive of the whole device."""
        return slice(self.description.first_channel, self.description.first_channel + self.description.channels)


def build_stage(parameters: ChipParameters, mesh: Mesh, index: int, levels: StageLevels) -> Stage:
    """Return stage number `index` of a chip."""
    n, channels = mesh.interferometers, mesh.channels
    truth = fabricate(parameters, mesh, index, channels)
    last = index == parameters.stages - 1
    description = StageDescription(
        name=f"mesh{index}",
        topology=mesh.topology,
        ports=mesh.ports,
        first_channel=index * channels,
        channels=channels,
        groups=mesh.groups,
        layout=tuple(zip(mesh.column.tolist(), mesh.top.tolist(), mesh.theta.tolist(), (n + mesh.phi).tolist(), strict=True)),
        tap_ports=mesh.ports,
        nonlinearity="none" if last else parameters.nonlinearity.kind,
    )
    order = schedule(mesh)
    alone = np.flatnonzero(mesh.attenuates[order])
    full_scale_a = levels.full_scale_a if levels.saturates else 0.0
    readout = (levels.ampere, parameters.photodiode.dark_a, levels.thermal_a2, levels.shot_a, full_scale_a, levels.code_a)
    return Stage(
        description=description,
        mesh=mesh,
        truth=truth,
        levels=levels,
        # An attenuator on the last mode is swept as the lower of the last two.
        tops=np.minimum(mesh.top[order], mesh.ports - 2),
        theta=mesh.theta[order],
        phi=n + mesh.phi[order],
        couplers=couplers(mesh, truth.coupler_error_rad, truth.loss_db)[order].astype(np.float32),
        attenuators=np.stack((alone, (mesh.top[order][alone] > mesh.ports - 2).astype(np.int64)), axis=1),
        offset=truth.offset_rad / np.pi,
        scale=1.0 / (parameters.heater.resistance_ohm * truth.pi_power_w),
        readout=np.array(readout, np.float32),
    )
