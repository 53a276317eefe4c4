"""Readings that come before the heat has settled.

The first samples of a setting see the phases of their own instant, at the beginning of their sample time; so they are swept one
by one until nothing of any change is left (`thermal.SETTLED`). Stages before the one that is read may still be on their way
back from the last evaluation, or to a new held drive: they count too.

    setting ──▶ settle ──▶ │ sample 0 │ sample 1 │ … │ sample K │ ═══ all others together, settled ═══
                             one look    one look       ▲ last one with anything left to see
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from photonloop.protocols.device import FLAG_UNSETTLED, Drive
from photonloop.simulator import kernels
from photonloop.simulator.engine.ambient import Ambient, Moment
from photonloop.simulator.engine.pipeline import Exposure, Held, Optics, Pipeline, Run, plan_of
from photonloop.simulator.parameters import ChipParameters
from photonloop.simulator.physics.thermal import UNSETTLED_RAD, Heat, power_at, redirected, settles_within


class LaggingHeat:
    """What the heaters of every stage have been through.

    Parameters
    ----------
    parameters
        Of the chip.
    pipeline, ambient
        Of the same chip.
    channels
        Phase shifters of each stage.
    """

    def __init__(self, parameters: ChipParameters, pipeline: Pipeline, ambient: Ambient, channels: tuple[int, ...]) -> None:
        self._parameters = parameters
        self._pipeline = pipeline
        self._ambient = ambient
        self._settle_s, self._sample_s = parameters.clock.settle_s, parameters.clock.sample_s
        self._heats = [Heat(0.0, np.zeros(size), np.zeros(size)) for size in channels]
        self._known: tuple[tuple[int, ...], int] = ((-1,) * len(channels), -1)

    def follow(self, held: Held, time_s: float, run: Run) -> None:
        """Turn each stage's heat toward the held drive, where that has changed since the last call or something broke."""
        moment = self._ambient.moment(time_s)
        versions, faults = self._known
        for k, stage in enumerate(self._pipeline.stages(moment)):
            if held.versions[k] == versions[k] and moment.faults == faults:
                continue
            target_w = self._pipeline.powers(k, held.volts[np.newaxis, stage.channels], moment, run)[0]
            since_s = max(held.since_s if held.versions[k] != versions[k] else time_s, self._heats[k].at_s)
            self._heats[k] = redirected(self._heats[k], since_s, target_w, self._parameters.heater)
        self._known = (held.versions, moment.faults)

    def read(
        self,
        index: int,
        volts: Drive,
        exposure: Exposure,
        time_s: NDArray[np.float64],
        back_s: float,
        flags: NDArray[np.uint32],
        out: NDArray[np.float32],
        run: Run,
    ) -> None:
        """Read settings one after the other, first at `time_s` (settings,) and so on; the held drive is back at `back_s`.

        Where it is stopped, heat is as if the evaluation had never begun: no time has passed.
        """
        heats, heater = list(self._heats), self._parameters.heater
        samples = exposure.rows.size
        for s, start_s in enumerate(time_s.tolist()):
            moment = self._ambient.moment(start_s)
            target_w = self._pipeline.powers(index, volts[s : s + 1], moment, run)[0]
            heats[index] = redirected(heats[index], max(start_s - self._settle_s, heats[index].at_s), target_w, heater)
            if self._is_early(heats[: index + 1], start_s, moment):
                flags[s] |= FLAG_UNSETTLED
            early = self._early_samples(heats[: index + 1], start_s, samples)
            noise = s * 2 * samples
            if early:
                self._read_early(index, heats, exposure, start_s, early, s, noise, moment, flags, out, run)
            if early < samples:
                rest = Exposure(exposure.held, exposure.name, exposure.source, exposure.rows[early:], exposure.draw)
                part, at = out[s : s + 1, early:], flags[s : s + 1]
                self._pipeline.read(index, volts[s : s + 1], rest, moment, noise + samples, at, part, run)
        held_w = self._heats[index].target_w
        heats[index] = redirected(heats[index], max(back_s, heats[index].at_s), held_w, heater)
        self._heats = heats

    def _is_early(self, heats: list[Heat], time_s: float, moment: Moment) -> bool:
        """Return whether any phase before the detectors is further from its end than `UNSETTLED_RAD`."""
        heater = self._parameters.heater
        return any(
            np.max(np.abs(power_at(heat, time_s, heater) - heat.target_w) * stage.heaters.inverse_pi_w) * np.pi > UNSETTLED_RAD
            for heat, stage in zip(heats, self._pipeline.stages(moment), strict=False)
        )

    def _early_samples(self, heats: list[Heat], start_s: float, samples: int) -> int:
        """Return how many samples of a setting, first read at `start_s`, come before everything has settled."""
        changing = [heat.at_s for heat in heats if not np.array_equal(heat.power_w, heat.target_w)]
        if not changing:
            return 0
        left_s = max(changing) + settles_within(self._parameters.heater) - start_s
        if left_s <= 0:
            return 0
        return samples if self._sample_s == 0 else min(samples, math.ceil(left_s / self._sample_s))

    def _read_early(
        self,
        index: int,
        heats: list[Heat],
        exposure: Exposure,
        start_s: float,
        early: int,
        setting: int,
        noise: int,
        moment: Moment,
        flags: NDArray[np.uint32],
        out: NDArray[np.float32],
        run: Run,
    ) -> None:
        """Read the first `early` samples of a setting, each with the phases of its own instant; a few at a time for memory."""
        pipeline = self._pipeline
        here = pipeline.stages(moment)[index]
        for first in range(0, early, kernels.LANES):
            looks = np.arange(first, min(first + kernels.LANES, early))
            instants_s = (start_s + looks * self._sample_s).tolist()
            optics = [self._optics_at(k, heats[k], instants_s, moment, run) for k in range(index + 1)]
            before = [[stage[n] for stage in optics[:index]] for n in range(looks.size)]
            light = [self._light_at(look, exposure, before[n], moment, run) for n, look in enumerate(looks.tolist())]
            blocks = np.concatenate(light)
            matrices = np.stack([each.matrices for each in optics[index]])
            plan = plan_of(range(looks.size), range(looks.size), setting, looks, out.shape[1])
            plan[:, 4], plan[:, 5] = 1, noise + looks
            pipeline.read_plan(here, blocks, plan, matrices, exposure.draw, moment, flags, out, run)

    def _optics_at(self, index: int, heat: Heat, instants_s: list[float], moment: Moment, run: Run) -> list[Optics]:
        power_w = np.stack([power_at(heat, instant_s, self._parameters.heater) for instant_s in instants_s])
        return self._pipeline.optics(index, power_w, moment, run)

    def _light_at(self, look: int, exposure: Exposure, before: list[Optics], moment: Moment, run: Run) -> NDArray[np.float32]:
        """Return one sample as a block, behind the stages whose optics at its instant are `before`."""
        block = self._pipeline.entering(0, exposure, exposure.rows[look : look + 1], moment, run)
        for k, optics in enumerate(before):
            block = self._pipeline.pass_on(k, block, optics, moment, run)
        return block
