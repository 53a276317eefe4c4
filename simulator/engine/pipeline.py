"""From settings and inputs to readings: the computations of a chip, shared among worker threads.

The matrices of a stage are computed in one of two ways. For a small mesh, each worker computes them for itself, one
setting after the other, so that they stay in its cache. For a large mesh (`SHARED_CHANNELS`), all workers first compute
the matrices of a few settings together, chunk by chunk, and then share the blocks of samples. The choice depends on the
mesh alone, so readings never depend on the number of workers.

The matrices at the held drive, and the fields of loaded inputs behind stages at the held drive, are cached for one
`Moment`. They are computed again after a step of the slow processes or a fault.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from photonloop.protocols.device import Drive
from photonloop.simulator import kernels
from photonloop.simulator.engine.ambient import Ambient, Moment
from photonloop.simulator.engine.field_cache import FieldCache
from photonloop.simulator.engine.heat_map import heat_scratch
from photonloop.simulator.engine.kernel_arrays import Source, gathered, new_scratch, read_only, reading_plan
from photonloop.simulator.engine.stage import Stage, with_faults
from photonloop.simulator.engine.workers import KernelJob, Workers
from photonloop.simulator.parameters import ChipParameters
from photonloop.simulator.physics.fabrication import noise_key

Run = Callable[[KernelJob, Callable[[int], object]], None]
"""Runs a job on all workers; raises `DeviceError` if it was cancelled."""

SHARED_CHANNELS = 2**15
"""Least number of channels for which all workers share the work on a setting's matrices: a mesh of 181 modes."""

_FLOPS_PER_CHANNEL = 50.0
"""Estimated operations per channel of a job, which decide whether workers share it."""

_FLOPS_PER_SEGMENT = 60.0
"""Estimated operations per segment of thermal crosstalk, which decide whether workers share it."""

_ITEMS = 8
"""Least number of blocks that the workers share in a large mesh: settings with fewer samples are grouped."""


@dataclass(frozen=True)
class HeldDrive:
    """The held drive and values derived from it.

    Parameters
    ----------
    volts
        Voltages of all channels [V], shape (channels,).
    versions
        Number of changes of each stage's part of the drive so far.
    stage_v2
        Sum of the squared voltages of each stage [V²].
    power_w
        Nominal power of all heaters together [W].
    since_s
        Time on the chip's clock at which the voltages were reached [s].
    """

    volts: Drive
    versions: tuple[int, ...]
    stage_v2: tuple[float, ...]
    power_w: float
    since_s: float


@dataclass(frozen=True)
class InputBatch:
    """The inputs of one evaluation, common to all its settings.

    Parameters
    ----------
    held
        Held drive of the stages that are not read.
    name
        Name of the loaded inputs, or "" if the inputs came with the evaluation.
    source, rows
        All fields, and the rows of them that are read.
    noise_number
        Number of the evaluation, from which its noise is drawn.
    """

    held: HeldDrive
    name: str
    source: Source
    rows: NDArray[np.int64]
    noise_number: int


@dataclass(frozen=True)
class StageMatrices:
    """Transfer matrices of a stage's elements at one set of phases.

    Parameters
    ----------
    matrices
        float32 (interferometers, 8), see `kernels.coefficients`; of a weight bank (rings, 8), see
        `kernels.ring_shares`.
    screen
        Phasors of the output phase shifters, float32 (2, ports).
    """

    matrices: NDArray[np.float32]
    screen: NDArray[np.float32]


class Pipeline:
    """The computations of one chip, with its caches.

    Parameters
    ----------
    parameters, stages
        Parameters and stages of the chip, without faults.
    ambient
        Slow processes and faults of the chip.
    workers
        Worker threads.
    """

    def __init__(self, parameters: ChipParameters, stages: tuple[Stage, ...], ambient: Ambient, workers: Workers) -> None:
        self._parameters = parameters
        self._intact_stages = stages
        self._ambient = ambient
        self._workers = workers
        self._noise_key = noise_key(parameters.seed)
        self._scratch = [new_scratch(stages[0]) for _ in range(workers.count)]
        self._shares_settings = stages[0].description.channels >= SHARED_CHANNELS
        self._shared_heat: kernels.HeatScratch | None = None
        self._buffers: dict[str, NDArray] = {}
        self._faulty_stages: tuple[int, tuple[Stage, ...]] = (0, stages)
        self._offsets: dict[int, tuple[tuple[int, float], NDArray[np.float64]]] = {}
        self._heating: tuple[tuple[tuple[int, ...], int], float] = ((), -1), 0.0
        self._optics: dict[int, tuple[tuple[tuple[int, ...], Moment], StageMatrices]] = {}
        self._remembered = FieldCache(parameters.limits.max_remembered_bytes)

    def forget(self, name: str) -> None:
        """Remove the loaded inputs `name` from the cache."""
        self._remembered.forget(name)

    def stages(self, moment: Moment) -> tuple[Stage, ...]:
        """Return the stages with the faults that have occurred by `moment`. May be called from any thread."""
        broken = self._faulty_stages
        if broken[0] != moment.faults:
            struck = self._ambient.faults_at(moment)
            stages = tuple(with_faults(stage, k, self._parameters, struck) for k, stage in enumerate(self._intact_stages))
            broken = self._faulty_stages = (moment.faults, stages)
        return broken[1]

    def offset(self, index: int, held: HeldDrive, moment: Moment, run: Run) -> NDArray[np.float64]:
        """Return the phases of a stage with unheated shifters at `moment` [half turns], shape (channels,).

        The chip is warmed by the heaters at the held drive.
        """
        heating_k = self.heating_k(held, moment, run)
        known, offset = self._offsets.get(index, ((-1, 0.0), np.empty(0)))
        if known != (moment.step, heating_k):
            truth = self._intact_stages[index].truth
            added_rad = self._ambient.offset_rad(index, moment, truth.imbalance, heating_k)
            offset = (truth.offset_rad if added_rad is None else truth.offset_rad + added_rad) / np.pi
            self._offsets[index] = ((moment.step, heating_k), offset)
        return offset

    def heating_k(self, held: HeldDrive, moment: Moment, run: Run) -> float:
        """Return the rise of the chip's temperature [K] due to the settled heaters at the held drive."""
        per_w = self._parameters.temperature.heating_k_per_w
        if per_w == 0:
            return 0.0
        key = held.versions, moment.faults
        if self._heating[0] != key:
            drives = (held.volts[np.newaxis, stage.channels] for stage in self._intact_stages)
            power_w = sum(float(self.powers(k, volts, moment, run).sum()) for k, volts in enumerate(drives))
            self._heating = key, per_w * power_w
        return self._heating[1]

    def powers(self, index: int, volts: Drive, moment: Moment, run: Run) -> NDArray[np.float64]:
        """Return the power of each heater [W] at `volts`, shape (settings, channels) both."""
        heaters, drives = self.stages(moment)[index].heaters, read_only(volts)
        out = np.empty(volts.shape)
        self._find_powers(drives, heaters, out, run)
        return out

    def stage_matrices(
        self, index: int, power_w: NDArray[np.float64], held: HeldDrive, moment: Moment, run: Run
    ) -> list[StageMatrices]:
        """Return the matrices of a stage for each row of heater powers before crosstalk [W], (rows, channels)."""
        here = self.stages(moment)[index]
        phasor = np.empty((power_w.shape[0], 2, power_w.shape[1]), np.float32)
        matrices = np.empty((power_w.shape[0], here.elements, 8), np.float32)
        self._find_matrices(here, power_w, self.offset(index, held, moment, run), phasor, matrices, run)
        start = here.description.channels - (here.mesh.gammas if here.rings is None else 0)
        return [StageMatrices(m, p[:, start:].copy()) for m, p in zip(matrices, phasor, strict=True)]

    def read(
        self,
        index: int,
        volts: Drive,
        batch: InputBatch,
        moment: Moment,
        first_noise: int,
        saturated: NDArray[np.uint32],
        out: NDArray[np.float32],
        run: Run,
    ) -> None:
        """Read settled settings at one moment: `volts` (settings, channels) → `out` (settings, samples, ports)."""
        here, offset = self.stages(moment)[index], self.offset(index, batch.held, moment, run)
        blocks = gathered(*self._entering(index, batch, batch.rows, moment, run))
        if self._shares_settings:
            self._read_together(here, volts, offset, blocks, batch, moment, first_noise, saturated, out, run)
            return
        laser_power = np.float32(self._ambient.laser_power(moment))
        items = volts.shape[0] * blocks.shape[0]
        job = self._workers.new_job(items, items * here.elements * kernels.FLOPS_PER_BLOCK, is_reading=True)
        drives = read_only(volts)
        read, parts = (kernels.detect_settings, here.wiring) if here.rings is None else (kernels.read_bank, here.rings)

        def kernel(worker: int) -> None:
            read(
                worker, job.control, items, blocks, drives, offset, here.heaters, parts, here.readout, laser_power,
                self._scratch[worker], self._noise_key, batch.noise_number, first_noise, saturated, out,
            )  # fmt: skip

        run(job, kernel)

    def _read_together(
        self,
        here: Stage,
        volts: Drive,
        offset: NDArray[np.float64],
        blocks: NDArray[np.float32],
        batch: InputBatch,
        moment: Moment,
        first_noise: int,
        saturated: NDArray[np.uint32],
        out: NDArray[np.float32],
        run: Run,
    ) -> None:
        """Read the settings of a large mesh, a few at a time; all workers share each of them."""
        count, channels = blocks.shape[0], volts.shape[1]
        at_once = min(volts.shape[0], -(-_ITEMS // count))
        try:
            power = self._buffer("power", (at_once, channels), np.float64)
            phasor = self._buffer("phasor", (at_once, 2, channels), np.float32)
            matrices = self._buffer("matrices", (at_once, here.elements, 8), np.float32)
            for first in range(0, volts.shape[0], at_once):
                here_volts = read_only(volts[first : first + at_once])
                settings = here_volts.shape[0]
                self._find_powers(here_volts, here.heaters, power[:settings], run)
                self._find_matrices(here, power[:settings], offset, phasor[:settings], matrices[:settings], run)
                setting, block = (part.ravel() for part in np.divmod(np.arange(settings * count), count))
                plan = reading_plan(block, setting, first + setting, block * kernels.LANES, out.shape[1])
                plan[:, 5] = first_noise + plan[:, 2] * count + block
                self.read_plan(here, blocks, plan, matrices, batch.noise_number, moment, saturated, out, run)
        except BaseException:
            self._buffers.clear()  # a helper thread may still be writing into them
            raise

    def read_plan(
        self,
        here: Stage,
        blocks: NDArray[np.float32],
        plan: NDArray[np.int64],
        matrices: NDArray[np.float32],
        noise_number: int,
        moment: Moment,
        saturated: NDArray[np.uint32],
        out: NDArray[np.float32],
        run: Run,
    ) -> None:
        """Read blocks through given matrices; `plan` as in `kernels.read_prepared`."""
        laser_power = np.float32(self._ambient.laser_power(moment))
        items = plan.shape[0]
        job = self._workers.new_job(items, items * here.elements * kernels.FLOPS_PER_BLOCK, is_reading=True)
        read, parts = (
            (kernels.read_prepared, here.wiring.tops) if here.rings is None else (kernels.read_bank_prepared, here.rings)
        )

        def kernel(worker: int) -> None:
            read(
                worker, job.control, items, blocks, plan, matrices, parts, here.readout, laser_power,
                self._scratch[worker], self._noise_key, noise_number, saturated, out,
            )  # fmt: skip

        run(job, kernel)

    def entering(self, index: int, batch: InputBatch, rows: NDArray[np.int64], moment: Moment, run: Run) -> NDArray[np.float32]:
        """Return blocks of the fields of `rows` of the inputs at the input of stage `index`, after settled stages."""
        return gathered(*self._entering(index, batch, rows, moment, run))

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
        key = self._versions(held, range(index, index + 1)), moment
        found = self._optics.get(index)
        if found is None or found[0] != key:
            volts = held.volts[np.newaxis, self._intact_stages[index].channels]
            found = (key, self.stage_matrices(index, self.powers(index, volts, moment, run), held, moment, run)[0])
            self._optics[index] = found
        return found[1]

    def _versions(self, held: HeldDrive, stages: range) -> tuple[int, ...]:
        """Return the versions of the held drives on which `stages` depend: all of them if heaters warm the chip."""
        warms = self._parameters.temperature.heating_k_per_w > 0
        return held.versions if warms else held.versions[stages.start : stages.stop]

    def _entering(
        self, index: int, batch: InputBatch, rows: NDArray[np.int64], moment: Moment, run: Run
    ) -> tuple[Source, NDArray[np.int64]]:
        """Return fields that enter stage `index`, and the rows of them that correspond to `rows` of the chip's inputs.

        Each row of loaded inputs is propagated through the earlier stages once, and cached until the held drive of one
        of them, a slow process or a fault changes them.
        """
        source, name = batch.source, batch.name
        if index == 0:
            return source, rows
        versions = (*self._versions(batch.held, range(index)), *moment)
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
        blocks = gathered(*self._entering(index, batch, rows, moment, run))
        return self.pass_on(index, blocks, self.held_matrices(index, batch.held, moment, run), moment, run)

    def _find_powers(self, drives: Drive, heaters: kernels.Heaters, out: NDArray[np.float64], run: Run) -> None:
        job = self._chunk_job(*out.shape)

        def kernel(worker: int) -> None:
            kernels.find_powers(worker, job.control, job.items, drives, heaters, out)

        run(job, kernel)

    def _find_matrices(
        self,
        here: Stage,
        power_w: NDArray[np.float64],
        offset: NDArray[np.float64],
        phasor: NDArray[np.float32],
        matrices: NDArray[np.float32],
        run: Run,
    ) -> None:
        received, pushed = self._find_heat(here, power_w, run)
        phases = self._chunk_job(*power_w.shape)

        def find_phasors(worker: int) -> None:
            kernels.find_phasors(worker, phases.control, phases.items, power_w, offset, here.heaters, received, pushed, phasor)

        run(phases, find_phasors)
        products = self._chunk_job(*matrices.shape[:2])
        find, parts = (kernels.find_matrices, here.wiring) if here.rings is None else (kernels.find_ring_shares, here.rings)

        def find_matrices(worker: int) -> None:
            find(worker, products.control, products.items, phasor, parts, matrices)

        run(products, find_matrices)

    def _find_heat(self, here: Stage, power_w: NDArray[np.float64], run: Run) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Return what thermal crosstalk adds to each channel: received power [W] and pushed phase [half turns].

        Both are of shape (settings, channels). In a large mesh the workers share each setting.
        """
        heat = here.heaters.heat
        rows = heat.rows.shape[0]
        received, pushed = (np.zeros((power_w.shape[0], power_w.shape[1] if rows else 0), np.float32) for _ in range(2))
        if not rows:
            return received, pushed
        if not self._shares_settings:
            job = self._workers.new_job(power_w.shape[0], power_w.shape[0] * _FLOPS_PER_SEGMENT * rows * heat.width)

            def kernel(worker: int) -> None:
                kernels.find_heat(worker, job.control, job.items, heat, self._scratch[worker].heat, power_w, received, pushed)

            run(job, kernel)
            return received, pushed
        parts = 1, heat.feed_bounds.size - 1, heat.nodes[0], heat.nodes[0], rows, 1
        try:
            for setting, own_w in enumerate(power_w):
                for step, count in enumerate(parts):
                    self._share_heat(step, count, here, own_w, received[setting], pushed[setting], run)
        except BaseException:
            self._shared_heat = None  # a helper thread may still be writing into it
            raise
        return received, pushed

    def _share_heat(
        self,
        step: int,
        count: int,
        here: Stage,
        power_w: NDArray[np.float64],
        received: NDArray[np.float32],
        pushed: NDArray[np.float32],
        run: Run,
    ) -> None:
        """Carry out one step of `kernels.share_heat`, on `count` half columns, nodes or rows."""
        heat = here.heaters.heat
        if self._shared_heat is None:
            self._shared_heat = heat_scratch(heat, here.description.channels)
        scratch = self._shared_heat
        items = max(0, -(-count // kernels.HEAT_SHARE))
        job = self._workers.new_job(items, _FLOPS_PER_SEGMENT * count * heat.width)

        def kernel(worker: int) -> None:
            kernels.share_heat(worker, job.control, job.items, step, heat, scratch, power_w, received, pushed)

        if items:
            run(job, kernel)

    def _chunk_job(self, settings: int, size: int) -> KernelJob:
        return self._workers.new_job(settings * -(-size // kernels.CHUNK), _FLOPS_PER_CHANNEL * settings * size)

    def _buffer(self, name: str, shape: tuple[int, ...], dtype: type) -> NDArray:
        """Return a reusable array: allocating tens of MB takes as long as filling them."""
        found = self._buffers.get(name)
        if found is None or found.shape[0] < shape[0] or found.shape[1:] != shape[1:]:
            found = self._buffers[name] = np.empty(shape, dtype)
        return found
