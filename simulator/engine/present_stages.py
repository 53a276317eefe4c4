"""The stages of a chip at a moment: faults, couplers, sources, converters, and the phases of unheated shifters."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from photonloop.simulator import kernels
from photonloop.simulator.engine.ambient import Ambient, Moment
from photonloop.simulator.engine.stage import Stage
from photonloop.simulator.engine.stage_faults import aged, with_faults
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
        self._changed_stages: tuple[tuple[int, ...] | None, tuple[Stage, ...]] = (None, stages)
        self._offsets: dict[int, tuple[tuple[float, ...], NDArray[np.float64]]] = {}

    def stages(self, moment: Moment) -> tuple[Stage, ...]:
        """Return the stages at `moment`: with faults, couplers, and the slow changes of sources and converters."""
        key = (*self._couplers_key(moment), moment.ageing, moment.sources, moment.detectors)
        if self._changed_stages[0] != key:
            stages = tuple(self._changed(stage, k, moment) for k, stage in enumerate(self._aged(moment)))
            self._changed_stages = (key, stages)
        return self._changed_stages[1]

    def _changed(self, stage: Stage, index: int, moment: Moment) -> Stage:
        """Return a stage with the slow changes of its sources and converters."""
        sources, converters = self._ambient.source_changes(index, moment), self._ambient.converter_changes(index, moment)
        if sources is not None:
            stage = replace(stage, heaters=stage.heaters._replace(gain=sources.gain, added_v=sources.added))
        if converters is not None:
            added_a = (stage.truth.zero_lsb + converters.added) * stage.levels.code_a
            stage = replace(stage, readout=stage.readout._replace(gain=_per_lane(converters.gain), offset_a=_per_lane(added_a)))
        return stage

    def _aged(self, moment: Moment) -> tuple[Stage, ...]:
        """Return the stages with their couplers and faults."""
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

    def offset(self, index: int, moment: Moment, heating_k: float = 0.0) -> NDArray[np.float64]:
        """Return the phases of a stage with unheated shifters at `moment` [half turns], shape (channels,).

        `heating_k` is the rise of the chip's temperature due to its heaters.

        A drift of wavelengths counts as phase of the rings, unless there is spectral crosstalk (`rings.rings_at`). Then
        the kernels take half of each phase (`kernels.Rings`).
        """
        key = moment.phases, moment.wavelength, heating_k
        known, offset = self._offsets.get(index, (None, np.empty(0)))
        if known != key:
            intact = self._intact_stages[index]
            added_rad = self._ambient.offset_rad(index, moment, intact.truth.imbalance, heating_k)
            offset_rad = intact.truth.offset_rad if added_rad is None else intact.truth.offset_rad + added_rad
            shift_rad = self._ambient.wavelength_shift_rad(moment)
            if shift_rad is not None and not self._parameters.ring.spectral_crosstalk:
                offset_rad = offset_rad + np.resize(shift_rad, offset_rad.size)  # channels are rows of rings
            offset = offset_rad / np.pi * kernels.phase_scale(intact.rings)
            self._offsets[index] = (key, offset)
        return offset


def _coarse(moment: Moment) -> Moment:
    """Return the moment whose wavelength the couplers have at `moment`."""
    return moment._replace(wavelength=moment.wavelength // _COUPLER_STEPS * _COUPLER_STEPS)


def _per_lane(values: NDArray[np.float64]) -> NDArray[np.float32]:
    return np.repeat(values, kernels.LANES).astype(np.float32)
