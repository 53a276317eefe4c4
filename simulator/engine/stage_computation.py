"""From voltages to heater powers and to the matrices of a stage, computed by all workers together."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from photonloop.protocols.device import Drive
from photonloop.simulator import kernels
from photonloop.simulator.engine.ambient import Ambient, Moment
from photonloop.simulator.engine.heat_map import heat_scratch
from photonloop.simulator.engine.kernel_arrays import new_scratch
from photonloop.simulator.engine.rings import rings_at
from photonloop.simulator.engine.stage import Stage
from photonloop.simulator.engine.workers import KernelJob, Run, Workers
from photonloop.simulator.parameters import ChipParameters

SHARED_CHANNELS = 2**15
"""Least number of channels for which all workers share the work on a setting's matrices: a mesh of 181 modes."""

_FLOPS_PER_CHANNEL = 50.0
"""Estimated operations per channel of a job, which decide whether workers share it."""

_FLOPS_PER_SEGMENT = 60.0
"""Estimated operations per segment of thermal crosstalk, which decide whether workers share it."""


class StageComputation:
    """Computes heater powers and matrices of the stages of one chip.

    Parameters
    ----------
    parameters, stages
        Parameters and stages of the chip, without faults.
    ambient
        Slow processes of the chip.
    workers
        Worker threads.
    """

    def __init__(self, parameters: ChipParameters, stages: tuple[Stage, ...], ambient: Ambient, workers: Workers) -> None:
        self._parameters = parameters
        self._ambient = ambient
        self._workers = workers
        self.scratch = [new_scratch(stages[0]) for _ in range(workers.count)]
        """Temporary arrays of each worker."""
        self.shares_settings = stages[0].description.channels >= SHARED_CHANNELS
        """Whether all workers share the matrices of a setting."""
        self._shared_heat: kernels.HeatScratch | None = None

    def find_powers(
        self, drives: Drive, heaters: kernels.Heaters, counters: kernels.NoiseCounters, out: NDArray[np.float64], run: Run
    ) -> None:
        """Write the power of each heater [W] at `drives` [V] to `out`, shape (settings, channels) both."""
        job = self._chunk_job(*out.shape)

        def kernel(worker: int) -> None:
            deviates = self.scratch[worker].source
            kernels.find_powers(worker, job.control, job.items, drives, heaters, counters, deviates, out)

        run(job, kernel)

    def find_matrices(
        self,
        here: Stage,
        power_w: NDArray[np.float64],
        offset: NDArray[np.float64],
        moment: Moment,
        phasor: NDArray[np.float32],
        matrices: NDArray[np.float32],
        run: Run,
    ) -> None:
        """Write the phasors of all shifters to `phasor`, and the matrices of all elements to `matrices`.

        `power_w` [W] is before crosstalk, (settings, channels), and `offset` is in half turns.
        """
        received, pushed = self._find_heat(here, power_w, run)
        phases = self._chunk_job(*power_w.shape)

        def find_phasors(worker: int) -> None:
            kernels.find_phasors(worker, phases.control, phases.items, power_w, offset, here.heaters, received, pushed, phasor)

        run(phases, find_phasors)
        products = self._chunk_job(*matrices.shape[:2])
        find, parts = kernels.find_matrices, here.wiring
        if here.rings is not None:
            find, parts = kernels.find_ring_shares, rings_at(here.rings, self._parameters, self._ambient, moment)

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
        if not self.shares_settings:
            job = self._workers.new_job(power_w.shape[0], power_w.shape[0] * _FLOPS_PER_SEGMENT * rows * heat.width)

            def kernel(worker: int) -> None:
                kernels.find_heat(worker, job.control, job.items, heat, self.scratch[worker].heat, power_w, received, pushed)

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
