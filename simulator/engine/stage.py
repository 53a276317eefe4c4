"""One stage in the layout of the kernels: wiring, true values and levels as flat arrays.

The channels of a mesh are all θ, then all φ, then all γ. Each group is in the order of the mesh (by column, then by top
mode), with attenuators after the interferometers. The channels of a weight bank are its rings, row by row. Meshes are
in series, weight banks in parallel.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from photonloop.protocols.device import StageDescription
from photonloop.simulator import kernels
from photonloop.simulator.engine.levels import StageLevels, bank_levels, levels
from photonloop.simulator.engine.rings import kernel_rings, ring_of
from photonloop.simulator.parameters import ChipParameters
from photonloop.simulator.physics import adc, crosstalk, dac, heater, laser, photodiode
from photonloop.simulator.physics.chip_faults import FaultParameters, exchanged
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
    pairs
        Thermal crosstalk between its heaters.
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
    )
    order = schedule(mesh)
    pairs = crosstalk.pairs(crosstalk.lattice(mesh), parameters.crosstalk)
    alone = np.flatnonzero(mesh.attenuates[order])
    return Stage(
        description=description,
        index=index,
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


def _build_bank(parameters: ChipParameters, index: int) -> Stage:
    bank = WeightBank(parameters.ports, parameters.mesh.outputs or parameters.ports)
    truth, own_levels = fabricate(parameters, bank, index), bank_levels(parameters)
    pairs = crosstalk.pairs(crosstalk.bank_lattice(bank), parameters.crosstalk)
    none = np.empty(0, np.int64)
    rings, heaters = kernel_rings(ring_of(parameters), bank.inputs, truth.bus_rad), _heaters(parameters, truth, pairs, 0.0)
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
        ),
        index=index,
        layout=bank,
        truth=truth,
        levels=own_levels,
        pairs=pairs,
        order=none,
        wiring=kernels.MeshWiring(none, none, none, np.empty((0, 4), np.float32), np.empty((0, 2), np.int64)),
        rings=rings,
        heaters=heaters,
        readout=_readout(parameters, truth, own_levels, 0.0),
    )


def with_faults(
    stage: Stage, index: int, parameters: ChipParameters, faults: Sequence[FaultParameters], wavelength_pm: float = 0.0
) -> Stage:
    """Return stage number `index` with `faults` and with its couplers at a wavelength.

    Gradual faults are as at their beginning (`aged`). If several faults affect the same part, the last one counts,
    but an open wire has no current whatever its source does.

    Parameters
    ----------
    wavelength_pm
        Laser wavelength minus the design wavelength [pm].
    """
    truth = stage.truth
    error = truth.coupler_error_rad + parameters.coupler.slope_rad_per_nm * 1e-3 * wavelength_pm
    ampere, dark_a = stage.readout.ampere.copy(), stage.readout.dark_a.copy()
    for fault in faults:
        if fault.stage != index:
            continue
        if fault.kind == "open_detector" and fault.port is not None:
            ampere[_lanes(fault.port)] = dark_a[_lanes(fault.port)] = 0.0
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
        heaters=_faulty_heaters(stage, faults),
        readout=stage.readout._replace(ampere=ampere, dark_a=dark_a),
    )


def aged(stage: Stage, index: int, faults: Sequence[FaultParameters], time_s: float) -> Stage:
    """Return stage number `index`, which has its other faults already, with gradual faults as at `time_s`."""
    weak = dict(zip(stage.heaters.weak.tolist(), stage.heaters.weak_share.tolist(), strict=True))
    ampere, responsivity = stage.readout.ampere.copy(), stage.truth.responsivity.copy()
    for fault in faults:
        share = fault.share_left(time_s)
        if fault.kind == "dying_heater" and fault.channel is not None:
            channel = fault.channel - stage.description.first_channel
            if 0 <= channel < stage.description.channels:
                weak[channel] = weak.get(channel, 1.0) * share
        if fault.kind == "drifting_detector" and fault.stage == index and fault.port is not None:
            ampere[_lanes(fault.port)] *= np.float32(share)
            responsivity[fault.port] *= share
    return replace(
        stage,
        truth=replace(stage.truth, responsivity=responsivity),
        heaters=_weakened(stage.heaters, weak),
        readout=stage.readout._replace(ampere=ampere),
    )


def _faulty_heaters(stage: Stage, faults: Sequence[FaultParameters]) -> kernels.Heaters:
    """Return the heaters of a stage with exchanged wires, stuck sources and open wires."""
    first, channels = stage.description.first_channel, stage.description.channels
    here = [fault for fault in faults if fault.channel is not None and 0 <= fault.channel - first < channels]
    source_of = exchanged(channels, here, "swapped_heaters", first)
    heater_of = np.argsort(source_of)
    stuck_v = {int(heater_of[(f.channel or 0) - first]): f.volts or 0.0 for f in here if f.kind == "stuck_channel"}
    moved = np.flatnonzero(source_of != np.arange(channels))
    heaters = stage.heaters._replace(
        rewired=np.stack((moved, source_of[moved]), axis=1),
        forced=np.array(list(stuck_v), np.int64),
        forced_v=np.array(list(stuck_v.values()), np.float64),
    )
    return _weakened(heaters, {(f.channel or 0) - first: 0.0 for f in here if f.kind == "dead_heater"})


def _weakened(heaters: kernels.Heaters, share: dict[int, float]) -> kernels.Heaters:
    return heaters._replace(weak=np.array(list(share), np.int64), weak_share=np.array(list(share.values()), np.float64))


def _lanes(port: int) -> slice:
    return slice(port * kernels.LANES, (port + 1) * kernels.LANES)


def source_of(stage: Stage) -> NDArray[np.int64]:
    """Return the channel whose voltage source drives each heater, shape (channels,)."""
    sources = np.arange(stage.description.channels)
    sources[stage.heaters.rewired[:, 0]] = stage.heaters.rewired[:, 1]
    return sources


def conductance_shares(stage: Stage) -> NDArray[np.float64]:
    """Return the conductance of each cold heater relative to 1/R₀, shape (channels,): 1 without a fault."""
    shares = np.ones(stage.description.channels)
    shares[stage.heaters.weak] = stage.heaters.weak_share
    return shares


def stage_power_w(parameters: ChipParameters, stage: Stage, volts: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the settled power [W] of each heater at `volts` [V] before crosstalk, (…, channels), double precision.

    The noise of the sources is not included.
    """
    source_v = dac.quantised_v(volts, dac.lsb_v(parameters.dac))
    if parameters.dac.inl_lsb > 0:
        source_v = dac.output_v(source_v, parameters.dac.range_v, *dac.inl_coefficients(parameters.dac, stage.truth.inl_shape))
    if stage.heaters.gain.size > 0:
        source_v = dac.changed_v(source_v, stage.heaters.gain, stage.heaters.added_v)
    heater_v = source_v[..., source_of(stage)]
    heater_v[..., stage.heaters.forced] = stage.heaters.forced_v
    own = parameters.heater
    shares = conductance_shares(stage)
    return heater.power_w(heater_v * np.sqrt(shares), own.resistance_ohm, stage.truth.pi_power_w, own.self_heating)


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
        gain=np.empty(0),
        added_v=np.empty(0),
        noise_v=parameters.dac.noise_v,
        conductance_s=1.0 / parameters.heater.resistance_ohm,
        self_heating=parameters.heater.self_heating,
        inverse_pi_w=1.0 / truth.pi_power_w,
        rewired=np.empty((0, 2), np.int64),
        forced=np.empty(0, np.int64),
        forced_v=np.empty(0),
        weak=np.empty(0, np.int64),
        weak_share=np.empty(0),
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
    kept = float(np.float32(photodiode.kept_share(diode, parameters.clock.sample_s)))
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
