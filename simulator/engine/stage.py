"""One stage in the layout of the kernels: wiring, true values and levels as flat arrays.

The channels of a mesh are all θ, then all φ, then all γ. Each group is in the order of the mesh (by column, then by top
mode), with attenuators after the interferometers. The channels of a weight bank are its rings, row by row.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from photonloop.protocols.device import StageDescription
from photonloop.simulator import kernels
from photonloop.simulator.engine.geometry import bank_geometry, mesh_geometry
from photonloop.simulator.engine.levels import StageLevels, bank_levels, levels
from photonloop.simulator.parameters import ChipParameters
from photonloop.simulator.physics import crosstalk, dac, heater, laser
from photonloop.simulator.physics.chip_faults import FaultParameters
from photonloop.simulator.physics.fabrication import StageTruth, fabricate
from photonloop.simulator.physics.mesh import TOPOLOGIES, Mesh, couplers, schedule
from photonloop.simulator.physics.weight_bank import Ring, WeightBank


@dataclass(frozen=True)
class Stage:
    """A mesh or weight bank with its heaters and detectors, including faults.

    Parameters
    ----------
    description
        Description of the stage for the controller, with nominal values.
    layout, truth, levels
        Mesh or weight bank, its true values and its signal levels.
    pairs
        Thermal crosstalk between its heaters.
    order
        The interferometers in the order in which the kernels compute them (`mesh.schedule`); empty for a weight bank.
    wiring, rings, heaters, readout
        Arguments of the kernels. `wiring` is empty for a weight bank, and `rings` is None for a mesh.
    """

    description: StageDescription
    layout: Mesh | WeightBank
    truth: StageTruth
    levels: StageLevels
    pairs: crosstalk.Pairs
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
        return (_build_bank(parameters),)
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
    pairs = crosstalk.pairs(crosstalk.lattice(mesh), parameters.crosstalk)
    alone = np.flatnonzero(mesh.attenuates[order])
    return Stage(
        description=description,
        layout=mesh,
        truth=truth,
        levels=levels,
        pairs=pairs,
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
        heaters=_heaters(parameters, truth, pairs, parameters.loss.shifter_db),
        # Behind the mesh, light passes one more shifter, of which only the loss affects readings.
        readout=_readout(parameters, truth, levels, parameters.loss.shifter_db if mesh.gammas else 0.0),
    )


def _build_bank(parameters: ChipParameters) -> Stage:
    bank = WeightBank(parameters.ports, parameters.mesh.outputs or parameters.ports)
    truth, own_levels = fabricate(parameters, bank, 0), bank_levels(parameters)
    pairs = crosstalk.pairs(crosstalk.bank_lattice(bank), parameters.crosstalk)
    ring, none = ring_of(parameters), np.empty(0, np.int64)
    return Stage(
        description=StageDescription(
            name="bank",
            topology="weight_bank",
            ports=bank.inputs,
            first_channel=0,
            channels=bank.channels,
            groups=bank.groups,
            tap_ports=bank.outputs,
            geometry=bank_geometry(bank, parameters.crosstalk),
        ),
        layout=bank,
        truth=truth,
        levels=own_levels,
        pairs=pairs,
        order=none,
        wiring=kernels.MeshWiring(none, none, none, np.empty((0, 4), np.float32), np.empty((0, 2), np.int64)),
        rings=kernels.Rings(
            inputs=bank.inputs,
            steepness_2=np.float32(ring.steepness**2),
            dropped=np.float32(ring.dropped),
            leaked=np.float32(ring.leaked),
        ),
        heaters=_heaters(parameters, truth, pairs, 0.0),
        readout=_readout(parameters, truth, own_levels, 0.0),
    )


def ring_of(parameters: ChipParameters) -> Ring:
    """Return the properties common to all rings of a weight bank."""
    return Ring(parameters.ring.finesse, parameters.ring.drop_loss_db)


def with_faults(stage: Stage, index: int, parameters: ChipParameters, faults: Sequence[FaultParameters]) -> Stage:
    """Return `stage`, number `index`, with `faults` applied. If several affect the same part, the last one counts."""
    first = stage.description.first_channel
    truth = stage.truth
    forced: dict[int, float] = {}
    error, ampere, dark_a = truth.coupler_error_rad.copy(), stage.readout.ampere.copy(), stage.readout.dark_a.copy()
    for fault in faults:
        channel = -1 if fault.channel is None else fault.channel - first
        if 0 <= channel < stage.description.channels:
            forced[channel] = _forced_w(parameters, truth, channel, fault)
        if fault.stage != index:
            continue
        if fault.kind == "open_detector" and fault.port is not None:
            lanes = slice(fault.port * kernels.LANES, (fault.port + 1) * kernels.LANES)
            ampere[lanes] = dark_a[lanes] = 0.0
        if fault.kind == "broken_coupler":
            mesh = stage.mesh
            broken = np.flatnonzero((mesh.column == fault.column) & (mesh.top == fault.top))
            error[broken, fault.coupler - 1] = fault.angle_rad - np.pi / 4
    wiring = stage.wiring
    if isinstance(stage.layout, Mesh):
        wiring = wiring._replace(couplers=couplers(stage.layout, error, truth.loss_db)[stage.order].astype(np.float32))
    return replace(
        stage,
        truth=replace(truth, coupler_error_rad=error),
        wiring=wiring,
        heaters=stage.heaters._replace(
            forced=np.array(sorted(forced), np.int64), forced_w=np.array([forced[c] for c in sorted(forced)], np.float64)
        ),
        readout=stage.readout._replace(ampere=ampere, dark_a=dark_a),
    )


def stage_power_w(parameters: ChipParameters, stage: Stage, volts: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the settled power [W] of each heater at `volts` [V] before crosstalk, (…, channels), double precision."""
    own = parameters.heater
    power_w = heater.power_w(source_v(parameters, stage, volts), own.resistance_ohm, stage.truth.pi_power_w, own.self_heating)
    power_w[..., stage.heaters.forced] = stage.heaters.forced_w
    return power_w


def source_v(parameters: ChipParameters, stage: Stage, volts: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the output voltage [V] of each source without faults at the setpoints `volts` [V], (…, channels)."""
    coded_v = dac.quantised_v(volts, dac.lsb_v(parameters.dac))
    if parameters.dac.inl_lsb == 0:
        return coded_v
    return dac.output_v(coded_v, parameters.dac.range_v, *dac.inl_coefficients(parameters.dac, stage.truth.inl_shape))


def _forced_w(parameters: ChipParameters, truth: StageTruth, channel: int, fault: FaultParameters) -> float:
    """Return the power [W] of a channel that does not follow its drive because of a fault."""
    if fault.kind == "dead_heater":
        return 0.0
    pi_power_w = truth.pi_power_w[channel : channel + 1]
    volts = np.array([fault.volts or 0.0])
    return float(heater.power_w(volts, parameters.heater.resistance_ohm, pi_power_w, parameters.heater.self_heating)[0])


def _heaters(parameters: ChipParameters, truth: StageTruth, pairs: crosstalk.Pairs, shifter_db: float) -> kernels.Heaters:
    bow = twist = np.empty(0)
    if parameters.dac.inl_lsb > 0:
        bow, twist = dac.inl_coefficients(parameters.dac, truth.inl_shape)
    runs = crosstalk.runs(pairs, truth.pi_power_w.size, kernels.CHUNK)
    curvature = parameters.heater.curvature
    return kernels.Heaters(
        lsb_v=dac.lsb_v(parameters.dac),
        range_v=parameters.dac.range_v,
        bow=bow,
        twist=twist,
        conductance_s=1.0 / parameters.heater.resistance_ohm,
        self_heating=parameters.heater.self_heating,
        inverse_pi_w=1.0 / truth.pi_power_w,
        forced=np.empty(0, np.int64),
        forced_w=np.empty(0),
        span=runs.span,
        share=runs.share,
        bounds=runs.bounds,
        curvature=curvature,
        curve_scale=1.0 / (1.0 + curvature),
        field=np.float32(10.0 ** (-shifter_db / 20.0)),
    )


def _readout(parameters: ChipParameters, truth: StageTruth, levels: StageLevels, loss_db: float) -> kernels.ReadoutChain:
    """Return the detectors of a stage; `loss_db` is the loss directly in front of them."""
    diode = parameters.photodiode
    return kernels.ReadoutChain(
        ampere=np.repeat(levels.ampere * 10.0 ** (-loss_db / 10.0) * truth.responsivity, kernels.LANES).astype(np.float32),
        dark_a=np.full(truth.responsivity.size * kernels.LANES, diode.dark_a, np.float32),
        rin=np.float32(laser.rin_sigma(parameters.laser, diode.bandwidth_hz)),
        inverse_saturation=np.float32(1.0 / diode.saturation_a if diode.saturation_a > 0 else 0.0),
        thermal_a2=np.float32(levels.thermal_a2),
        shot_a=np.float32(levels.shot_a),
        full_scale_a=np.float32(levels.full_scale_a if levels.saturates else 0.0),
        code_a=np.float32(levels.code_a),
    )
