"""Readings that are taken before the heaters have settled.

Each of the first samples of a setting is computed with the phases at the beginning of its own sample time. Once the
remaining change is negligible (`thermal.SETTLED`), all other samples are computed together with the settled phases. The
stages that light passes before the one that is read count too: their heaters may still be returning from the last
evaluation, or changing to a new held drive.

    setting ──▶ settle ──▶ │ sample 0 │ sample 1 │ … │ sample K │ ═══ all others together, settled ═══
                            own phases  own phases      ▲ last sample before the heaters have settled
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from photonloop.protocols.device import FLAG_UNSETTLED, Drive
from photonloop.simulator import kernels
from photonloop.simulator.engine.ambient import Ambient, Moment
from photonloop.simulator.engine.evaluation import HeldDrive, InputBatch, StageMatrices
from photonloop.simulator.engine.kernel_arrays import reading_plan
from photonloop.simulator.engine.pipeline import Pipeline
from photonloop.simulator.engine.workers import Run
from photonloop.simulator.parameters import ChipParameters
from photonloop.simulator.physics.thermal import UNSETTLED_RAD, ThermalState, power_at, settles_within, shifted, with_target


class ThermalLag:
    """The thermal state of all heaters, and readings that depend on it.

    Parameters
    ----------
    parameters
        Parameters of the chip.
    pipeline, ambient
        Pipeline and slow processes of the same chip.
    channels
        Number of phase shifters of each stage.
    """

    def __init__(self, parameters: ChipParameters, pipeline: Pipeline, ambient: Ambient, channels: tuple[int, ...]) -> None:
        self._parameters = parameters
        self._pipeline = pipeline
        self._ambient = ambient
        self._settle_s, self._sample_s = parameters.clock.settle_s, parameters.sample_s
        self._states = [ThermalState(0.0, np.zeros(size), np.zeros(size)) for size in channels]
        self._seen: tuple[tuple[int, ...], Moment] = ((-1,) * len(channels), Moment(faults=-1))

    def update_targets(self, held: HeldDrive, time_s: float, run: Run) -> None:
        """Set the held drive as target of every stage whose held drive or faults have changed since the last call.

        A slow change of the sources shifts the power of every stage.
        """
        moment = self._ambient.moment(time_s)
        versions, before = self._seen
        is_as_before = (moment.faults, moment.ageing) == (before.faults, before.ageing)
        for k, state in enumerate(self._states):
            if held.versions[k] == versions[k] and is_as_before:
                if moment.sources != before.sources:
                    self._states[k] = shifted(state, self._pipeline.held_powers(k, held, moment, run))
                continue
            target_w = self._pipeline.held_powers(k, held, moment, run)
            since_s = max(held.since_s if held.versions[k] != versions[k] else time_s, state.at_s)
            self._states[k] = with_target(state, since_s, target_w, self._parameters.heater)
        self._seen = (held.versions, moment)

    def read(
        self,
        index: int,
        volts: Drive,
        batch: InputBatch,
        time_s: NDArray[np.float64],
        back_s: float,
        flags: NDArray[np.uint32],
        out: NDArray[np.float32],
        run: Run,
    ) -> None:
        """Read settings one after the other, each first at its `time_s`; the held drive is restored at `back_s`.

        Early samples leave out changes of the sources of earlier stages during the evaluation. If the evaluation is
        cancelled, the thermal state stays as it was before the evaluation.
        """
        states, heater = list(self._states), self._parameters.heater
        samples = batch.rows.size
        passed = (*self._pipeline.stages(self._ambient.moment(0.0))[index].upstream, index)
        for s, start_s in enumerate(time_s.tolist()):
            moment = self._ambient.moment(start_s)
            target_w = self._pipeline.setting_powers(index, volts[s : s + 1], moment, batch.noise_number, s, run)[0]
            states[index] = with_target(states[index], max(start_s - self._settle_s, states[index].at_s), target_w, heater)
            if any(self._is_early(k, states[k], start_s, moment) for k in passed):
                flags[s] |= FLAG_UNSETTLED
            early = self._early_samples([states[k] for k in passed], start_s, samples)
            part = slice(s, s + 1)
            if early:
                counters = self._pipeline.noise_counters(batch, s * 2 * samples, s)
                self._read_early(index, states, batch, start_s, early, moment, counters, flags[part], out[part], run)
            counters = self._pipeline.noise_counters(batch, (s * 2 + 1) * samples, s)
            if early < samples:
                rest = InputBatch(batch.held, batch.name, batch.source, batch.rows[early:], batch.noise_number)
                self._pipeline.read(index, volts[part], rest, [moment], counters, early, flags[part], out[part], run)
            self._pipeline.convert(index, moment, counters, flags[part], out[part], run)
        held_w = self._states[index].target_w
        states[index] = with_target(states[index], max(back_s, states[index].at_s), held_w, heater)
        self._states = states

    def _is_early(self, index: int, state: ThermalState, time_s: float, moment: Moment) -> bool:
        """Return whether any phase of a stage differs from its settled value by more than `UNSETTLED_RAD`."""
        left_w = np.abs(power_at(state, time_s, self._parameters.heater) - state.target_w)
        return bool(np.max(left_w * self._pipeline.stages(moment)[index].heaters.inverse_pi_w) * np.pi > UNSETTLED_RAD)

    def _early_samples(self, states: list[ThermalState], start_s: float, samples: int) -> int:
        """Return how many samples of a setting, first read at `start_s`, are read before all heaters have settled."""
        changing = [state.at_s for state in states if not np.array_equal(state.power_w, state.target_w)]
        if not changing:
            return 0
        left_s = max(changing) + settles_within(self._parameters.heater) - start_s
        if left_s <= 0:
            return 0
        return samples if self._sample_s == 0 else min(samples, math.ceil(left_s / self._sample_s))

    def _read_early(
        self,
        index: int,
        states: list[ThermalState],
        batch: InputBatch,
        start_s: float,
        early: int,
        moment: Moment,
        counters: kernels.NoiseCounters,
        flags: NDArray[np.uint32],
        out: NDArray[np.float32],
        run: Run,
    ) -> None:
        """Read the first `early` samples of a setting, each with its own phases; a few at a time, to bound memory."""
        pipeline = self._pipeline
        here = pipeline.stages(moment)[index]
        for first in range(0, early, kernels.LANES):
            numbers = np.arange(first, min(first + kernels.LANES, early))
            instants_s = (start_s + numbers * self._sample_s).tolist()
            passed = (*here.upstream, index)
            matrices_at = [self._matrices_at(k, states[k], instants_s, batch.held, moment, run) for k in passed]
            before = [[stage[n] for stage in matrices_at[:-1]] for n in range(numbers.size)]
            fields = [self._fields_at(sample, batch, before[n], moment, run) for n, sample in enumerate(numbers.tolist())]
            blocks = np.concatenate(fields)
            matrices = np.stack([each.matrices for each in matrices_at[-1]])
            plan = reading_plan(range(numbers.size), range(numbers.size), 0, numbers, out.shape[1])
            plan[:, 4], plan[:, 5] = 1, counters.first_item + numbers
            pipeline.read_plan(here, blocks, plan, matrices, moment, counters, flags, out, run)

    def _matrices_at(
        self, index: int, state: ThermalState, instants_s: list[float], held: HeldDrive, moment: Moment, run: Run
    ) -> list[StageMatrices]:
        power_w = np.stack([power_at(state, instant_s, self._parameters.heater) for instant_s in instants_s])
        return self._pipeline.stage_matrices(index, power_w, held, moment, run)

    def _fields_at(
        self, sample: int, batch: InputBatch, before: list[StageMatrices], moment: Moment, run: Run
    ) -> NDArray[np.float32]:
        """Return one sample as a block, behind the earlier stages, whose matrices at its time are `before`."""
        block = self._pipeline.entering(0, batch, batch.rows[sample : sample + 1], moment, run)
        for k, stage in enumerate(before):
            block = self._pipeline.pass_on(k, block, stage, moment, run)
        return block
