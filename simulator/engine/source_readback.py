"""Voltages and currents of the heaters, as sources that measure their outputs report them."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from photonloop.protocols.device import Readback
from photonloop.simulator.engine.heater_operation import heater_operation, source_of, source_output_v
from photonloop.simulator.engine.stage import Stage
from photonloop.simulator.parameters import ChipParameters
from photonloop.simulator.physics.chip_faults import FaultParameters


def measured_outputs(
    parameters: ChipParameters,
    stages: Sequence[Stage],
    volts: NDArray[np.float64],
    faults: Sequence[FaultParameters],
    generator: np.random.Generator,
) -> Readback:
    """Return the measured output of every channel.

    Voltages are those of the sources, without the noise of a setting. Currents have the noise `dac.readback_noise_a`.
    All are NaN if the sources do not measure.

    Parameters
    ----------
    parameters, stages
        Parameters of the chip, and its stages with the faults that have occurred.
    volts
        The held drive [V], shape (channels,).
    faults
        The faults that have occurred, in order. A stuck channel shows the voltage at which it is stuck.
    generator
        Random numbers of the noise of this measurement.
    """
    if not parameters.dac.reads_back:
        return Readback(np.full(volts.size, np.nan), np.full(volts.size, np.nan))
    outputs_v = np.concatenate([source_output_v(parameters, stage, volts[stage.channels]) for stage in stages])
    for fault in faults:
        if fault.kind == "stuck_channel":
            outputs_v[fault.channel] = fault.volts
    currents_a = np.concatenate([_source_currents_a(parameters, stage, volts[stage.channels]) for stage in stages])
    if parameters.dac.readback_noise_a > 0:
        currents_a += parameters.dac.readback_noise_a * generator.standard_normal(currents_a.size)
    return Readback(outputs_v, currents_a)


def _source_currents_a(parameters: ChipParameters, stage: Stage, volts: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the settled current [A] of each source of a stage at `volts` [V], shape (channels,), with its faults."""
    currents_a = np.empty(volts.size)
    currents_a[source_of(stage)] = heater_operation(parameters, stage, volts).current_a
    return currents_a
