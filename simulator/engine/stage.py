"""One stage in the layout of the kernels: wiring, true values and levels as flat arrays.

The channels of a mesh are all θ, then all φ, then all γ. Each group is in the order of the mesh (by column, then by top
mode), with attenuators after the interferometers. The channels of a weight bank are its rings, row by row. Meshes are
in series, weight banks in parallel.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from photonloop.protocols.device import StageDescription
from photonloop.simulator import kernels
from photonloop.simulator.engine.geometry import bank_geometry, mesh_geometry
from photonloop.simulator.engine.heat_map import heat_map
from photonloop.simulator.engine.levels import StageLevels, bank_levels, levels
from photonloop.simulator.engine.rings import kernel_rings, ring_of
from photonloop.simulator.parameters import ChipParameters
from photonloop.simulator.physics import adc, crosstalk, dac, heater, laser, photodiode
from photonloop.simulator.physics.fabrication import StageTruth, fabricate
from photonloop.simulator.physics.mesh import TOPOLOGIES, Mesh, couplers, schedule
from photonloop.simulator.physics.weight_bank import WeightBank


@dataclass(frozen=True)
class Stage:
    """A mesh or weight bank with its heaters and detectors, including faults.

    Parameters
    ----------
    description
        Description of the stage for the controller, with nominal values.
    index
        Number of the stage.
    layout, truth, levels
        Mesh or weight bank, its true values and its signal levels.
    segments
        Positions of its waveguide segments and heaters, for thermal crosstalk.
    unheated_rad_per_w
        Phase per received power of a segment without a heater [rad/W].
    order
        The interferometers in the order in which the kernels compute them (`mesh.schedule`); empty for a weight bank.
    wiring, rings, heaters, readout
        Arguments of the kernels. `wiring` is empty for a weight bank, and `rings` is None for a mesh.
    """

    description: StageDescription
    index: int
    layout: Mesh | WeightBank
    truth: StageTruth
    levels: StageLevels
    segments: crosstalk.Segments
    unheated_rad_per_w: float
    order: NDArray[np.int64]
    wiring: kernels.MeshWiring
    rings: kernels.Rings | None
    heaters: kernels.Heaters
    readout: kernels.ReadoutChain

    @property
    def mesh(self) -> Mesh:
        """The mesh; raises TypeError if the stage is a weight bank."""
        if isinstance(self.layout, Mesh):
            return self.layout
        raise TypeError(f"stage {self.description.name} is a weight bank, which has no interferometers")

    @property
    def upstream(self) -> range:
        """Numbers of the stages that light passes before this one: none for a weight bank."""
        return range(self.index if self.rings is None else 0)

    @property
    def elements(self) -> int:
        """Number of interferometers or rings."""
        return self.wiring.tops.size if self.rings is None else self.layout.channels

    @property
    def channels(self) -> slice:
        """The stage's channels in a drive of the whole device."""
        return slice(self.description.first_channel, self.description.first_channel + self.description.channels)


def build_stages(parameters: ChipParameters) -> tuple[Stage, ...]:
    """Return the stages of a chip, without faults."""
    if parameters.mesh.topology == "weight_bank":
        return tuple(_build_bank(parameters, index) for index in range(parameters.stages))
    mesh = TOPOLOGIES[parameters.mesh.topology](parameters.ports)
    return tuple(_build_mesh(parameters, mesh, index, level) for index, level in enumerate(levels(parameters, mesh)))


def _build_mesh(parameters: ChipParameters, mesh: Mesh, index: int, levels: StageLevels) -> Stage:
    n, channels = mesh.interferometers, mesh.channels
    truth = fabricate(parameters, mesh, index)
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
        geometry=mesh_geometry(mesh, parameters.crosstalk),
    )
    order = schedule(mesh)
    segments = crosstalk.mesh_segments(mesh, parameters.crosstalk)
    unheated = _unheated_rad_per_w(parameters)
    alone = np.flatnonzero(mesh.attenuates[order])
    return Stage(
        description=description,
        index=index,
        layout=mesh,
        truth=truth,
        levels=levels,
        segments=segments,
        unheated_rad_per_w=unheated,
        order=order,
        wiring=kernels.MeshWiring(
            # An attenuator on the last mode is computed as the lower mode of the last two.
            tops=np.minimum(mesh.top[order], mesh.ports - 2),
            theta=mesh.theta[order],
            phi=n + mesh.phi[order],
            couplers=couplers(mesh, truth.coupler_error_rad, truth.loss_db)[order].astype(np.float32),
            attenuators=np.stack((alone, (mesh.top[order][alone] > mesh.ports - 2).astype(np.int64)), axis=1),
        ),
        rings=None,
        heaters=_heaters(
            parameters,
            truth,
            segments,
            heat_map(segments, mesh, parameters.crosstalk, unheated),
            parameters.loss.shifter_db,
        ),
        # Behind the mesh, light passes one more shifter, of which only the loss affects readings.
        readout=_readout(parameters, truth, levels, parameters.loss.shifter_db if mesh.gammas else 0.0),
    )


def _build_bank(parameters: ChipParameters, index: int) -> Stage:
    bank = WeightBank(parameters.ports, parameters.mesh.outputs or parameters.ports)
    truth, own_levels = fabricate(parameters, bank, index), bank_levels(parameters)
    segments = crosstalk.bank_segments(bank, parameters.crosstalk)
    heat = heat_map(segments, None, parameters.crosstalk, 0.0)
    none = np.empty(0, np.int64)
    rings, heaters = (
        kernel_rings(ring_of(parameters), bank.inputs, truth.bus_rad),
        _heaters(parameters, truth, segments, heat, 0.0),
    )
    heaters = heaters._replace(curve_scale=heaters.curve_scale * kernels.phase_scale(rings))
    return Stage(
        description=StageDescription(
            name=f"bank{index}" if parameters.stages > 1 else "bank",
            topology="weight_bank",
            ports=bank.inputs,
            first_channel=index * bank.channels,
            channels=bank.channels,
            groups=bank.groups,
            tap_ports=bank.outputs,
            geometry=bank_geometry(bank, parameters.crosstalk),
        ),
        index=index,
        layout=bank,
        truth=truth,
        levels=own_levels,
        segments=segments,
        unheated_rad_per_w=0.0,
        order=none,
        wiring=kernels.MeshWiring(none, none, none, np.empty((0, 4), np.float32), np.empty((0, 2), np.int64)),
        rings=rings,
        heaters=heaters,
        readout=_readout(parameters, truth, own_levels, 0.0),
    )


def ground_bounds(segments: crosstalk.Segments) -> NDArray[np.int64]:
    """Return the first channel of each half column, and the number of channels: these heaters share a ground conductor.

    Each half column has one ground bus with one pad, as the heaters of a column are usually wired. The two heaters of
    an interferometer belong to different half columns.
    """
    x = segments.heaters[:, 0]
    return np.concatenate(([0], np.flatnonzero(np.diff(x)) + 1, [x.size])).astype(np.int64)


def _unheated_rad_per_w(parameters: ChipParameters) -> float:
    share = float(crosstalk.share_at(parameters.crosstalk.mode_pitch_m, parameters.crosstalk))
    return heater.unheated_rad_per_w(parameters.heater.pi_power_w, share)


def _chunk_bounds(channels: int, grounds: NDArray[np.int64], ground_ohm: float) -> NDArray[np.int64]:
    """Return the first channel of every chunk, and the number of channels. A shared ground lies within one chunk."""
    bounds = np.append(np.arange(0, channels, kernels.CHUNK), channels)
    return grounds[np.searchsorted(grounds, bounds)] if ground_ohm > 0 else bounds


def _heaters(
    parameters: ChipParameters, truth: StageTruth, segments: crosstalk.Segments, heat: kernels.HeatMap, shifter_db: float
) -> kernels.Heaters:
    bow = twist = np.empty(0)
    if parameters.dac.inl_lsb > 0:
        bow, twist = dac.inl_coefficients(parameters.dac, truth.inl_shape)
    curvature, ground_ohm, grounds = parameters.heater.curvature, parameters.heater.ground_ohm, ground_bounds(segments)
    return kernels.Heaters(
        lsb_v=dac.lsb_v(parameters.dac),
        range_v=parameters.dac.range_v,
        bow=bow,
        twist=twist,
        gain=np.empty(0),
        added_v=np.empty(0),
        noise_v=parameters.dac.noise_v,
        conductance_s=1.0 / truth.resistance_ohm,
        ground_ohm=ground_ohm,
        grounds=grounds,
        chunks=_chunk_bounds(truth.pi_power_w.size, grounds, ground_ohm).astype(np.int64),
        self_heating=parameters.heater.self_heating,
        inverse_pi_w=1.0 / truth.pi_power_w,
        rewired=np.empty((0, 2), np.int64),
        forced=np.empty(0, np.int64),
        forced_v=np.empty(0),
        inverse_arm_w=1.0 / truth.arm_pi_power_w,
        heat=heat,
        curvature=curvature,
        curve_scale=1.0 / (1.0 + curvature),
        field=np.float32(10.0 ** (-shifter_db / 20.0)),
    )


def _readout(parameters: ChipParameters, truth: StageTruth, levels: StageLevels, loss_db: float) -> kernels.ReadoutChain:
    """Return the detectors of a stage; `loss_db` is the loss directly in front of them."""
    diode = parameters.photodiode
    kept = float(np.float32(photodiode.kept_share(diode, parameters.sample_s)))
    excess = photodiode.white_excess(kept)
    converter_a = adc.noise_a(parameters.adc, levels.code_a)
    offset_a = truth.zero_lsb * levels.code_a
    has_offset = bool(offset_a.any())
    return kernels.ReadoutChain(
        ampere=np.repeat(levels.ampere * 10.0 ** (-loss_db / 10.0) * truth.responsivity, kernels.LANES).astype(np.float32),
        dark_a=np.full(truth.responsivity.size * kernels.LANES, diode.dark_a, np.float32),
        rin=np.float32(laser.rin_sigma(parameters.laser, diode.bandwidth_hz) * excess**0.5),
        inverse_saturation=np.float32(1.0 / diode.saturation_a if diode.saturation_a > 0 else 0.0),
        thermal_a2=np.float32(levels.thermal_a2 * excess + (0.0 if kept > 0 else converter_a**2)),
        shot_a=np.float32(levels.shot_a * excess),
        gain=np.ones(offset_a.size * kernels.LANES * has_offset, np.float32),
        offset_a=np.repeat(offset_a, kernels.LANES * has_offset).astype(np.float32),
        full_scale_a=np.float32(levels.full_scale_a if levels.saturates else 0.0),
        code_a=np.float32(levels.code_a),
        kept=np.float32(kept),
        first_scale=np.float32(excess**-0.5),
        converter_a=np.float32(converter_a if kept > 0 else 0.0),
    )
