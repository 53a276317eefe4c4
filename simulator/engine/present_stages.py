"""The stages of a chip at a moment: their faults, the angles of their couplers, and the phases of unheated shifters."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from photonloop.simulator.engine.ambient import Ambient, Moment
from photonloop.simulator.engine.stage import Stage, aged, with_faults
from photonloop.simulator.parameters import ChipParameters

_COUPLER_STEPS = 2**8
"""Steps of the wavelength between two computations of the couplers, in which it moves by 18 % of its deviation."""


class PresentStages:
    """Stages and phase offsets as functions of the moment. The last results are cached.

    Parameters
    ----------
    parameters, stages
        Parameters and stages of the chip, without faults.
    ambient
        Slow processes and faults of the chip.
    """

    def __init__(self, parameters: ChipParameters, stages: tuple[Stage, ...], ambient: Ambient) -> None:
        self._parameters = parameters
        self._intact_stages = stages
        self._ambient = ambient
        self._faulty_stages: tuple[tuple[int, ...] | None, tuple[Stage, ...]] = (None, stages)
        self._aged_stages: tuple[tuple[int, ...] | None, tuple[Stage, ...]] = (None, stages)
        self._offsets: dict[int, tuple[tuple[int, ...], NDArray[np.float64]]] = {}

    def stages(self, moment: Moment) -> tuple[Stage, ...]:
        """Return the stages with their couplers and faults at `moment`."""
        key = (*self._couplers_key(moment), moment.ageing)
        known = self._aged_stages
        if known[0] != key:
            stages, struck = self._stages_before_ageing(moment), self._ambient.faults_at(moment)
            if any(fault.is_gradual for fault in struck):
                time_s = self._ambient.ageing_s(moment)
                stages = tuple(aged(stage, k, struck, time_s) for k, stage in enumerate(stages))
            known = self._aged_stages = (key, stages)
        return known[1]

    def _stages_before_ageing(self, moment: Moment) -> tuple[Stage, ...]:
        key, known = self._couplers_key(moment), self._faulty_stages
        if known[0] != key:
            stages, struck = self._intact_stages, self._ambient.faults_at(moment)
            has_slope = self._parameters.coupler.slope_rad_per_nm > 0
            wavelength_pm = self._ambient.wavelength_pm(_coarse(moment)) if has_slope else 0.0
            if struck or wavelength_pm != 0.0:
                own = self._parameters
                stages = tuple(with_faults(stage, k, own, struck, wavelength_pm) for k, stage in enumerate(stages))
            known = self._faulty_stages = (key, stages)
        return known[1]

    def _couplers_key(self, moment: Moment) -> tuple[int, int]:
        """Return the parts of a moment on which couplers depend."""
        return moment.faults, _coarse(moment).wavelength if self._parameters.coupler.slope_rad_per_nm > 0 else 0

    def offset(self, index: int, moment: Moment) -> NDArray[np.float64]:
        """Return the phases of a stage with unheated shifters at `moment` [half turns], shape (channels,)."""
        step, offset = self._offsets.get(index, ((), np.empty(0)))
        if step != (moment.phases, moment.wavelength):
            truth = self._intact_stages[index].truth
            added_rad = self._ambient.offset_rad(index, moment, truth.imbalance)
            offset = (truth.offset_rad if added_rad is None else truth.offset_rad + added_rad) / np.pi
            self._offsets[index] = ((moment.phases, moment.wavelength), offset)
        return offset


def _coarse(moment: Moment) -> Moment:
    """Return the moment whose wavelength the couplers have at `moment`."""
    return moment._replace(wavelength=moment.wavelength // _COUPLER_STEPS * _COUPLER_STEPS)
