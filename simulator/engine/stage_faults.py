"""A stage with its faults: exchanged and open wires, stuck sources, broken couplers and detectors, gradual faults."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from photonloop.simulator import kernels
from photonloop.simulator.engine.stage import Stage
from photonloop.simulator.parameters import ChipParameters
from photonloop.simulator.physics.chip_faults import FaultParameters, exchanged
from photonloop.simulator.physics.mesh import Mesh, couplers


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
    conductance_s = stage.heaters.conductance_s.copy()
    ampere, responsivity = stage.readout.ampere.copy(), stage.truth.responsivity.copy()
    for fault in faults:
        share = fault.share_left(time_s)
        if fault.kind == "dying_heater" and fault.channel is not None:
            channel = fault.channel - stage.description.first_channel
            if 0 <= channel < stage.description.channels:
                conductance_s[channel] *= share
        if fault.kind == "drifting_detector" and fault.stage == index and fault.port is not None:
            ampere[_lanes(fault.port)] *= np.float32(share)
            responsivity[fault.port] *= share
    return replace(
        stage,
        truth=replace(stage.truth, responsivity=responsivity),
        heaters=stage.heaters._replace(conductance_s=conductance_s),
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
    conductance_s = stage.heaters.conductance_s.copy()
    conductance_s[[(f.channel or 0) - first for f in here if f.kind == "dead_heater"]] = 0.0
    return stage.heaters._replace(
        conductance_s=conductance_s,
        rewired=np.stack((moved, source_of[moved]), axis=1),
        forced=np.array(list(stuck_v), np.int64),
        forced_v=np.array(list(stuck_v.values()), np.float64),
    )


def _lanes(port: int) -> slice:
    return slice(port * kernels.LANES, (port + 1) * kernels.LANES)
