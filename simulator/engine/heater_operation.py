"""Settled operation of the heaters of a stage at given voltages: the double-precision reference of `kernels.powers`."""

from __future__ import annotations

from itertools import pairwise
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from photonloop.simulator.engine.stage import Stage
from photonloop.simulator.parameters import ChipParameters
from photonloop.simulator.physics import dac, heater


def source_of(stage: Stage) -> NDArray[np.int64]:
    """Return the channel whose voltage source drives each heater, shape (channels,)."""
    sources = np.arange(stage.description.channels)
    sources[stage.heaters.rewired[:, 0]] = stage.heaters.rewired[:, 1]
    return sources


def source_output_v(parameters: ChipParameters, stage: Stage, volts: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the output [V] of each source at the setpoints `volts` [V], (…, channels), without noise and faults."""
    source_v = dac.quantised_v(volts, dac.lsb_v(parameters.dac))
    if parameters.dac.inl_lsb > 0:
        source_v = dac.output_v(source_v, parameters.dac.range_v, *dac.inl_coefficients(parameters.dac, stage.truth.inl_shape))
    if stage.heaters.gain.size > 0:
        source_v = dac.changed_v(source_v, stage.heaters.gain, stage.heaters.added_v)
    return source_v


def stage_power_w(parameters: ChipParameters, stage: Stage, volts: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the settled power [W] of each heater at `volts` [V] before crosstalk, (…, channels), double precision.

    The noise of the sources is not included.
    """
    return heater_operation(parameters, stage, volts).power_w


class HeaterOperation(NamedTuple):
    """Settled voltage across each heater [V], its power [W] and its current [A], shape (…, channels)."""

    across_v: NDArray[np.float64]
    power_w: NDArray[np.float64]
    current_a: NDArray[np.float64]


def heater_operation(parameters: ChipParameters, stage: Stage, volts: NDArray[np.float64]) -> HeaterOperation:
    """Return voltage, power and current of each heater at `volts` [V], (…, channels), in double precision.

    The noise of the sources is not included.
    """
    source_v = source_output_v(parameters, stage, volts)
    own, pi_power_w = parameters.heater, stage.truth.pi_power_w
    across_v = np.array(source_v[..., source_of(stage)], np.float64)
    across_v[..., stage.heaters.forced] = stage.heaters.forced_v
    with np.errstate(divide="ignore"):  # a dead heater has no conductance
        resistance_ohm = 1.0 / stage.heaters.conductance_s
    if own.ground_ohm > 0:
        for start, stop in pairwise(stage.heaters.grounds.tolist()):
            here = slice(start, stop)
            across_v[..., here] -= heater.ground_v(
                across_v[..., here], resistance_ohm[here], pi_power_w[here], own.ground_ohm, own.self_heating
            )[..., np.newaxis]
    power_w = heater.power_w(across_v, resistance_ohm, pi_power_w, own.self_heating)
    current_a = across_v / (resistance_ohm * (1.0 + own.self_heating * power_w / pi_power_w))
    return HeaterOperation(across_v, power_w, current_a)
