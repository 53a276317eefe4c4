"""What all voltage sources of a chip deliver together."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from photonloop.protocols.device import Drive
from photonloop.simulator.engine.ambient import Ambient, Moment
from photonloop.simulator.engine.heater_operation import heater_operation
from photonloop.simulator.engine.stage import Stage
from photonloop.simulator.engine.stage_faults import aged, with_faults
from photonloop.simulator.parameters import ChipParameters


class Supply(NamedTuple):
    """Total current [A] of all voltage sources, and total power of all heaters [W]."""

    current_a: float
    power_w: float


def supply_at(parameters: ChipParameters, intact: Sequence[Stage], ambient: Ambient, moment: Moment, volts: Drive) -> Supply:
    """Return what the sources deliver at `volts` [V], (channels,), with the faults at `moment`. Uses no cache."""
    faults, time_s = ambient.faults_at(moment), ambient.ageing_s(moment)
    current_a = power_w = 0.0
    for k, stage in enumerate(intact):
        present = aged(with_faults(stage, k, parameters, faults), k, faults, time_s) if faults else stage
        operation = heater_operation(parameters, present, volts[stage.channels])
        current_a += float(np.sum(operation.current_a))
        power_w += float(np.sum(operation.power_w))
    return Supply(current_a, power_w)
