"""From settings and inputs to readings: the computations of a chip, shared among worker threads.

The matrices of a stage are computed in one of two ways. For a small mesh, each worker computes them for itself, one
setting after the other, so that they stay in its cache. For a large mesh (`SHARED_CHANNELS`), all workers first compute
the matrices of a few settings together, chunk by chunk, and then share the blocks of samples. The choice depends on the
mesh alone, so readings never depend on the number of workers.

The matrices at the held drive, and the fields of loaded inputs behind stages at the held drive, are cached. They are
computed again after a fault, or after a step of a slow process that changes them (`_optics_key`, `_fields_key`).

If the amplifiers of the detectors have memory, `read` gives the currents in front of them, and `convert` computes the
readings once all samples of a setting are there.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from photonloop.protocols.device import Drive
from photonloop.simulator import kernels
from photonloop.simulator.engine.ambient import Ambient, Moment
from photonloop.simulator.engine.evaluation import HeldDrive, InputBatch, StageMatrices
from photonloop.simulator.engine.field_cache import FieldCache
from photonloop.simulator.engine.kernel_arrays import Source, gathered, read_only, reading_plan, scaled
from photonloop.simulator.engine.present_stages import PresentStages
from photonloop.simulator.engine.rings import input_powers, rings_at
from photonloop.simulator.engine.stage import Stage
from photonloop.simulator.engine.stage_computation import StageComputation
from photonloop.simulator.engine.workers import Run, Workers
from photonloop.simulator.parameters import ChipParameters
from photonloop.simulator.physics.fabrication import converter_noise_key, held_noise_key, noise_key, source_noise_key
from photonloop.simulator.physics.modulator import InputTruth

_FLOPS_PER_READING = 40.0
"""Estimated operations per reading of `convert`."""

_ITEMS = 8
"""Least number of blocks that the workers share in a large mesh: settings with fewer samples are grouped."""


class Pipeline:
    """The computations of one chip, with its caches.

    Parameters
    ----------
    parameters, stages, inputs
        Parameters, stages and inputs of the chip, without faults.
    ambient
        Slow processes and faults of the chip.
    workers
        Worker threads.
    """

    def __init__(
        self, parameters: ChipParameters, stages: tuple[Stage, ...], inputs: InputTruth, ambient: Ambient, workers: Workers
    ) -> None:
        self._parameters = parameters
        self._inputs = inputs
        self._present = PresentStages(parameters, stages, ambient)
        self._ambient = ambient
        self._workers = workers
        seed = parameters.seed
        self._noise_keys = noise_key(seed), source_noise_key(seed), converter_noise_key(seed)
        self._held_noise_key = held_noise_key(seed)
        self._computation = StageComputation(parameters, stages, ambient, workers)
        self._buffers: dict[str, NDArray] = {}
        self._optics: dict[int, tuple[tuple[int, ...], StageMatrices]] = {}
        self._heating: tuple[tuple[tuple[int, ...], int, int, int] | None, float] = None, 0.0
        self._factors: tuple[tuple[float, ...] | None, NDArray[np.complex128] | None] = None, None
        self._remembered = FieldCache(parameters.limits.max_remembered_bytes)

    def forget(self, name: str) -> None:
        """Remove the loaded inputs `name` from the cache."""
        self._remembered.forget(name)

    def stages(self, moment: Moment) -> tuple[Stage, ...]:
        """Return the stages at `moment`: with faults, couplers, and the slow changes of sources and converters."""
        return self._present.stages(moment)

    def offset(self, index: int, held: HeldDrive, moment: Moment, run: Run) -> NDArray[np.float64]:
        """Return the phases of a stage with unheated shifters at `moment` [half turns], shape (channels,).

        The chip is warmed by the heaters at the held drive.
        """
        return self._present.offset(index, moment, self.heating_k(held, moment, run))

    def heating_k(self, held: HeldDrive, moment: Moment, run: Run) -> float:
        """Return the rise of the chip's temperature [K] due to the settled heaters at the held drive."""
        per_w = self._parameters.temperature.heating_k_per_w
        if per_w == 0:
            return 0.0
        key = held.versions, moment.sources, moment.ageing, moment.faults
        if self._heating[0] != key:
            stages = range(len(self.stages(moment)))
            self._heating = key, per_w * sum(float(self.held_powers(k, held, moment, run).sum()) for k in stages)
        return self._heating[1]

    def setting_powers(
        self, index: int, volts: Drive, moment: Moment, evaluation: int, first_setting: int, run: Run
    ) -> NDArray[np.float64]:
        """Return the power of each heater [W] at settings from number `first_setting` on, (settings, channels)."""
        out = np.empty(volts.shape)
        counters = self._counters(evaluation, 0, first_setting)
        self._computation.find_powers(read_only(volts), self.stages(moment)[index].heaters, counters, out, run)
        return out

    def held_powers(self, index: int, held: HeldDrive, moment: Moment, run: Run) -> NDArray[np.float64]:
        """Return the power of each heater [W] of a stage at the held drive, shape (channels,).

        The noise of the sources is drawn once for each version of the held drive.
        """
        here = self.stages(moment)[index]
        out = np.empty((1, here.description.channels))
        counters = self._counters(index, 0, held.versions[index])._replace(sources=self._held_noise_key)
        self._computation.find_powers(read_only(held.volts[np.newaxis, here.channels]), here.heaters, counters, out, run)
        return out[0]

    def stage_matrices(
        self, index: int, power_w: NDArray[np.float64], held: HeldDrive, moment: Moment, run: Run
    ) -> list[StageMatrices]:
        """Return the matrices of a stage for each row of heater powers before crosstalk [W], (rows, channels)."""
        here = self.stages(moment)[index]
        phasor = np.empty((power_w.shape[0], 2, power_w.shape[1]), np.float32)
        matrices = np.empty((power_w.shape[0], here.elements, 8), np.float32)
        offset = self.offset(index, held, moment, run)
        self._computation.find_matrices(here, power_w, offset, moment, phasor, matrices, run)
        start = here.description.channels - (here.mesh.gammas if here.rings is None else 0)
        return [StageMatrices(m, p[:, start:].copy()) for m, p in zip(matrices, phasor, strict=True)]

    def read(
        self,
        index: int,
        volts: Drive,
        batch: InputBatch,
        moments: Sequence[Moment],
        counters: kernels.NoiseCounters,
        first_sample: int,
        flags: NDArray[np.uint32],
        out: NDArray[np.float32],
        run: Run,
    ) -> None:
        """Read settings at `moments` of `ambient.settings_together`: `volts` → `out` (settings, samples, ports).

        Samples before `first_sample` are not read. `flags` has shape (settings, ports).
        """
        moment = moments[0]
        here, offset = self.stages(moment)[index], self.offset(index, batch.held, moment, run)
        blocks, first_block = self._entering_at(index, batch, moments, run)
        if self._computation.shares_settings:
            self._read_together(here, volts, offset, blocks, first_block, moment, counters, first_sample, flags, out, run)
            return
        items = volts.shape[0] * -(-(out.shape[1] - first_sample) // kernels.LANES)
        job = self._workers.new_job(items, items * here.elements * kernels.FLOPS_PER_BLOCK, is_reading=True)
        drives = read_only(volts)
        read, parts, laser_power = kernels.detect_settings, here.wiring, np.float32(self._ambient.laser_power(moment))
        if here.rings is not None:
            read, parts = kernels.read_bank, rings_at(here.rings, self._parameters, self._ambient, moment)
            laser_power = input_powers(self._ambient, moment)

        def kernel(worker: int) -> None:
            read(
                worker, job.control, items, blocks, first_block, drives, offset, here.heaters, parts, here.readout,
                laser_power, self._computation.scratch[worker], counters, first_sample, flags, out,
            )  # fmt: skip

        run(job, kernel)

    def _read_together(
        self,
        here: Stage,
        volts: Drive,
        offset: NDArray[np.float64],
        blocks: NDArray[np.float32],
        first_block: NDArray[np.int64],
        moment: Moment,
        counters: kernels.NoiseCounters,
        first_sample: int,
        flags: NDArray[np.uint32],
        out: NDArray[np.float32],
        run: Run,
    ) -> None:
        """Read the settings of a large mesh, a few at a time; all workers share each of them."""
        count, channels = -(-(out.shape[1] - first_sample) // kernels.LANES), volts.shape[1]
        at_once = min(volts.shape[0], -(-_ITEMS // count))
        try:
            power = self._buffer("power", (at_once, channels), np.float64)
            phasor = self._buffer("phasor", (at_once, 2, channels), np.float32)
            matrices = self._buffer("matrices", (at_once, here.elements, 8), np.float32)
            for first in range(0, volts.shape[0], at_once):
                here_volts = read_only(volts[first : first + at_once])
                settings = here_volts.shape[0]
                part = counters._replace(first_setting=counters.first_setting + first)
                self._computation.find_powers(here_volts, here.heaters, part, power[:settings], run)
                self._computation.find_matrices(
                    here, power[:settings], offset, moment, phasor[:settings], matrices[:settings], run
                )
                setting, block = np.divmod(np.arange(settings * count), count)
                lit = first_block[first + setting] + block
                plan = reading_plan(lit, setting, first + setting, first_sample + block * kernels.LANES, out.shape[1])
                plan[:, 5] = counters.first_item + plan[:, 2] * count + block
                self.read_plan(here, blocks, plan, matrices, moment, counters, flags, out, run)
        except BaseException:
            self._buffers.clear()  # a helper thread may still be writing into them
            raise

    def read_plan(
        self,
        here: Stage,
        blocks: NDArray[np.float32],
        plan: NDArray[np.int64],
        matrices: NDArray[np.float32],
        moment: Moment,
        counters: kernels.NoiseCounters,
        flags: NDArray[np.uint32],
        out: NDArray[np.float32],
        run: Run,
    ) -> None:
        """Read blocks through given matrices; `plan` as in `kernels.read_prepared`."""
        items = plan.shape[0]
        job = self._workers.new_job(items, items * here.elements * kernels.FLOPS_PER_BLOCK, is_reading=True)
        read, parts, laser_power = kernels.read_prepared, here.wiring.tops, np.float32(self._ambient.laser_power(moment))
        if here.rings is not None:
            read, parts, laser_power = kernels.read_bank_prepared, here.rings, input_powers(self._ambient, moment)

        def kernel(worker: int) -> None:
            read(
                worker, job.control, items, blocks, plan, matrices, parts, here.readout, laser_power,
                self._computation.scratch[worker], counters, flags, out,
            )  # fmt: skip

        run(job, kernel)

    def convert(
        self,
        index: int,
        moment: Moment,
        counters: kernels.NoiseCounters,
        flags: NDArray[np.uint32],
        out: NDArray[np.float32],
        run: Run,
    ) -> None:
        """Replace the currents of whole settings by readings, if the amplifiers of the detectors have memory."""
        here = self.stages(moment)[index]
        if here.readout.kept == 0:
            return
        job = self._workers.new_job(out.shape[0], _FLOPS_PER_READING * out.size, is_reading=True)

        def kernel(worker: int) -> None:
            scratch = self._computation.scratch[worker]
            kernels.convert_settings(
                worker, job.control, job.items, here.readout, here.rings is not None, scratch, counters, flags, out
            )

        run(job, kernel)

    def noise_counters(self, batch: InputBatch, first_item: int, first_setting: int) -> kernels.NoiseCounters:
        """Return where the noise of a job of an evaluation begins."""
        return self._counters(batch.noise_number, first_item, first_setting)

    def _counters(self, evaluation: int, first_item: int, first_setting: int) -> kernels.NoiseCounters:
        return kernels.NoiseCounters(*self._noise_keys, evaluation, first_item, first_setting)

    def entering(self, index: int, batch: InputBatch, rows: NDArray[np.int64], moment: Moment, run: Run) -> NDArray[np.float32]:
        """Return blocks of the fields of `rows` of the inputs at the input of stage `index`, after settled stages."""
        if not self.stages(moment)[index].upstream:
            return self._lit(batch, rows, [moment], run)
        return gathered(*self._remembered_fields(index, batch, rows, moment, run))

    def pass_on(
        self, index: int, blocks: NDArray[np.float32], optics: StageMatrices, moment: Moment, run: Run
    ) -> NDArray[np.float32]:
        """Propagate blocks through stage `index`, its tap and its nonlinearity, in place; return them.

        Fields are relative to the present laser power, so the laser power enters the nonlinearity here.
        """
        here, nonlinearity = self.stages(moment)[index], self._parameters.nonlinearity
        electro_optic = nonlinearity.kind == "electro-optic"
        share = here.levels.passed * (1.0 - nonlinearity.detected_fraction if electro_optic else 1.0)
        # g refers to the power behind the output shifters and the tap, but the kernel gets the field before them.
        behind = here.levels.passed * (float(here.heaters.field) ** 2 if here.mesh.gammas else 1.0)
        gain_rad = here.levels.gain_rad * behind * self._ambient.laser_power(moment)
        half_gain = np.float32(0.5 * gain_rad / np.pi)
        bias = 0.5 * nonlinearity.bias_rad
        job = self._workers.new_job(blocks.shape[0], blocks.shape[0] * here.wiring.tops.size * kernels.FLOPS_PER_BLOCK)

        def kernel(worker: int) -> None:
            kernels.propagate(
                worker, job.control, job.items, blocks, here.wiring.tops, optics.matrices, optics.screen,
                electro_optic, half_gain, np.float32(np.cos(bias)), np.float32(np.sin(bias)), np.float32(np.sqrt(share)),
            )  # fmt: skip

        run(job, kernel)
        return blocks

    def held_matrices(self, index: int, held: HeldDrive, moment: Moment, run: Run) -> StageMatrices:
        """Return the matrices of a stage that has settled at the held drive."""
        key = (*self._versions(held, range(index, index + 1)), *_optics_key(moment))
        found = self._optics.get(index)
        if found is None or found[0] != key:
            power_w = self.held_powers(index, held, moment, run)
            found = (key, self.stage_matrices(index, power_w[np.newaxis], held, moment, run)[0])
            self._optics[index] = found
        return found[1]

    def _versions(self, held: HeldDrive, stages: range) -> tuple[int, ...]:
        """Return the versions of the held drives on which `stages` depend: all of them if heaters warm the chip."""
        warms = self._parameters.temperature.heating_k_per_w > 0
        return held.versions if warms else held.versions[stages.start : stages.stop]

    def _lit(self, batch: InputBatch, rows: NDArray[np.int64], moments: Sequence[Moment], run: Run) -> NDArray[np.float32]:
        """Return blocks of the fields that enter the chip at each moment: those of the first, then of the second, …"""
        blocks, order = gathered(batch.source, rows), self._ambient.input_order(moments[0])
        if order is not None:
            blocks = np.ascontiguousarray(blocks[:, order])
        factors = self._input_factors(batch.held, moments, run)
        return blocks if factors is None else scaled(blocks, factors)

    def _input_factors(self, held: HeldDrive, moments: Sequence[Moment], run: Run) -> NDArray[np.complex128] | None:
        """Return `Ambient.input_factors` at moments that differ in the inputs only. The last ones are cached."""
        heating_k, first = self.heating_k(held, moments[0], run), moments[0]
        key = first.phases, first.wavelength, heating_k, *(moment.inputs for moment in moments)
        if self._factors[0] != key:
            self._factors = key, self._ambient.input_factors(moments, self._inputs.path_m, heating_k)
        return self._factors[1]

    def _entering_at(
        self, index: int, batch: InputBatch, moments: Sequence[Moment], run: Run
    ) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
        """Return blocks of fields that enter stage `index` and each moment's first one; not cached if inputs differ."""
        if moments[0].inputs == moments[-1].inputs:
            return self.entering(index, batch, batch.rows, moments[0], run), np.zeros(len(moments), np.int64)
        is_new = np.diff([moment.inputs for moment in moments], prepend=-1) != 0
        distinct = [moments[k] for k in np.flatnonzero(is_new).tolist()]
        blocks = self._lit(batch, batch.rows, distinct, run)
        for k in self.stages(moments[0])[index].upstream:
            self.pass_on(k, blocks, self.held_matrices(k, batch.held, moments[0], run), moments[0], run)
        return blocks, (np.cumsum(is_new) - 1) * (blocks.shape[0] // len(distinct))

    def _remembered_fields(
        self, index: int, batch: InputBatch, rows: NDArray[np.int64], moment: Moment, run: Run
    ) -> tuple[Source, NDArray[np.int64]]:
        """Return fields that enter stage `index` ≥ 1, and the rows of them that correspond to `rows` of the inputs.

        Each row of loaded inputs is propagated through the earlier stages once, and cached until the held drive of one
        of them, a slow process or a fault changes them.
        """
        source, name = batch.source, batch.name
        versions = (*self._versions(batch.held, range(index)), *_fields_key(moment))
        known = self._remembered.fields(name, index, source.shape, versions) if name else None
        if known is None:
            new = np.empty((rows.size, source.shape[1], 2), np.float32)
            kernels.scatter(self._passed(index - 1, batch, rows, moment, run), np.arange(rows.size), new)
            return new, np.arange(rows.size)
        is_here = known.is_known[rows]
        if not is_here.all():
            missing = np.unique(rows[~is_here])
            kernels.scatter(self._passed(index - 1, batch, missing, moment, run), missing, known.field)
            known.is_known[missing] = True
        return known.field, rows

    def _passed(self, index: int, batch: InputBatch, rows: NDArray[np.int64], moment: Moment, run: Run) -> NDArray[np.float32]:
        """Return blocks of the fields behind stage `index`, its tap and its nonlinearity, at the held drive."""
        blocks = self.entering(index, batch, rows, moment, run)
        return self.pass_on(index, blocks, self.held_matrices(index, batch.held, moment, run), moment, run)

    def _buffer(self, name: str, shape: tuple[int, ...], dtype: type) -> NDArray:
        """Return a reusable array: allocating tens of MB takes as long as filling them."""
        found = self._buffers.get(name)
        if found is None or found.shape[0] < shape[0] or found.shape[1:] != shape[1:]:
            found = self._buffers[name] = np.empty(shape, dtype)
        return found


def _optics_key(moment: Moment) -> tuple[int, ...]:
    """Return the parts of a moment on which the matrices of a stage at a given drive depend."""
    return moment.phases, moment.wavelength, moment.sources, moment.ageing, moment.faults


def _fields_key(moment: Moment) -> tuple[int, ...]:
    """Return the parts of a moment on which fields behind a stage depend. The laser power acts on the nonlinearity."""
    return *_optics_key(moment), moment.laser, moment.inputs
