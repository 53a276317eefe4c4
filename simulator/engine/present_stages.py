"""The stages of a chip at a moment: with the faults so far, and with the slow changes of sources and converters."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from photonloop.simulator import kernels
from photonloop.simulator.engine.ambient import Ambient, Moment
from photonloop.simulator.engine.stage import Stage, with_faults
from photonloop.simulator.parameters import ChipParameters


class PresentStages:
    """The stages of one chip as a function of time; the last result is cached.

    Parameters
    ----------
    parameters, stages
        Parameters and stages of the chip, without faults.
    ambient
        Slow processes and faults of the chip.
    """

    def __init__(self, parameters: ChipParameters, stages: tuple[Stage, ...], ambient: Ambient) -> None:
        self._parameters = parameters
        self._ambient = ambient
        self.intact = stages
        self._faulty: tuple[int, tuple[Stage, ...]] = (0, stages)
        self._present: tuple[tuple[int, ...], tuple[Stage, ...]] = ((), stages)

    def with_faults(self, moment: Moment) -> tuple[Stage, ...]:
        """Return the stages with the faults that have occurred by `moment`. May be called from any thread."""
        found = self._faulty
        if found[0] != moment.faults:
            struck = self._ambient.faults_at(moment)
            stages = tuple(with_faults(stage, k, self._parameters, struck) for k, stage in enumerate(self.intact))
            found = self._faulty = (moment.faults, stages)
        return found[1]

    def at(self, moment: Moment) -> tuple[Stage, ...]:
        """Return the stages at `moment`, with faults and with the slow changes of sources and converters."""
        key = (moment.faults, moment.sources, moment.detectors)
        if self._present[0] != key:
            stages = tuple(self._changed(stage, k, moment) for k, stage in enumerate(self.with_faults(moment)))
            self._present = (key, stages)
        return self._present[1]

    def _changed(self, stage: Stage, index: int, moment: Moment) -> Stage:
        sources, converters = self._ambient.source_changes(index, moment), self._ambient.converter_changes(index, moment)
        if sources is not None:
            stage = replace(stage, heaters=stage.heaters._replace(gain=sources.gain, added_v=sources.added))
        if converters is not None:
            added_a = (stage.truth.zero_lsb + converters.added) * stage.levels.code_a
            stage = replace(stage, readout=stage.readout._replace(gain=_per_lane(converters.gain), offset_a=_per_lane(added_a)))
        return stage


def _per_lane(values: NDArray[np.float64]) -> NDArray[np.float32]:
    return np.repeat(values, kernels.LANES).astype(np.float32)
