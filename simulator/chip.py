"""The virtual chip: a `PhotonicDevice` whose hardware is arithmetic.

    drive ─▶ DAC step ─▶ V²/R ─▶ phase ─▶ mesh (coupler errors, loss) ─▶ tap ─▶ nonlinearity ─▶ next stage
                                                                          └▶ photodiode, noise ─▶ ADC ─▶ reading

State has one owner, this class: the held drive (replaced whole, never written into), the staged inputs, and what is remembered of
both. The physics is in the modules of their names, the speed in `kernels`.
"""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from protocols.device import (
    DeviceDescription,
    DeviceStatus,
    Drive,
    DriveDescription,
    Inputs,
    LimitsDescription,
    Readings,
    ReadoutDescription,
    StagedRows,
)
from protocols.errors import DeviceError
from protocols.limits import (
    check_held_drive,
    check_inputs,
    check_settings,
    check_size,
    check_staged_rows,
    heater_power_w,
    highest_drive_v,
)
from simulator import kernels
from simulator.clock import Clock
from simulator.fabrication import noise_key
from simulator.heater import dac_step_v
from simulator.levels import levels
from simulator.mesh import TOPOLOGIES
from simulator.parameters import ChipParameters
from simulator.remembered import RememberedFields
from simulator.stage import Stage, build_stage
from simulator.workers import Job, Workers, default_count

Source = NDArray[np.float32]
"""Fields, shape (rows, ports, 1 or 2): real part and, where there is one, imaginary part."""

_Run = Callable[[Job, Callable[[int], object]], None]


@dataclass(frozen=True)
class _Held:
    """The held drive and what follows from it at once; `versions` counts the changes of each stage's part."""

    volts: Drive
    versions: tuple[int, ...]
    stage_v2: tuple[float, ...]
    power_w: float


@dataclass(frozen=True)
class _Scratch:
    """What one worker writes while it works on a stage."""

    phasor: NDArray[np.float32]
    matrices: NDArray[np.float32]
    field: NDArray[np.float32]
    noise: NDArray[np.float32]


@dataclass(frozen=True)
class _HeldOptics:
    """Matrices and output screen of a stage at the held drive of `version`."""

    version: int
    matrices: NDArray[np.float32]
    screen: NDArray[np.float32]


class Chip:
    """A virtual chip.

    Parameters
    ----------
    parameters
        What it is made of (`load_chip`).
    threads
        Workers that share an evaluation; None: one a processor, four at most. Readings don't depend on it.
    realtime
        Operations take the wall time they would take in a lab; otherwise only the clock moves.
    """

    def __init__(self, parameters: ChipParameters, *, threads: int | None = None, realtime: bool = False) -> None:
        self.parameters = parameters
        mesh = TOPOLOGIES[parameters.mesh.topology](parameters.ports)
        self.stages = tuple(build_stage(parameters, mesh, index, level) for index, level in enumerate(levels(parameters, mesh)))
        self._description = _describe(parameters, self.stages, realtime)
        self._ceiling_v = [
            highest_drive_v(self._description, s.description.first_channel, s.description.channels) for s in self.stages
        ]
        self._step_v = dac_step_v(parameters.dac.bits, parameters.dac.range_v)
        self._workers = Workers(default_count() if threads is None else threads)
        self._scratch = [_scratch(self.stages[0]) for _ in range(self._workers.count)]
        self._noise_key = noise_key(parameters.seed)
        self._lock = threading.Lock()
        """Guards the few lines that replace the held drive or count stops; never kept while anything is computed."""
        self._realtime = realtime
        self._reset()
        self._compile()
        self._reset()

    def _reset(self) -> None:
        dark = np.zeros(self._description.channels)
        self._held = _Held(dark, (0,) * len(self.stages), (0.0,) * len(self.stages), 0.0)
        self._optics: dict[int, _HeldOptics] = {}
        self._staged: dict[str, Source] = {}
        self._remembered = RememberedFields(self.parameters.limits.max_remembered_bytes)
        self._clock = Clock(self._realtime)
        self._evaluations = 0
        self._draws = 0
        self._stops = self._safes = 0
        self._job: Job | None = None
        self._busy = False
        self._closed = False

    def _compile(self) -> None:
        """Run every kernel once, so that no later request waits for a compiler or the disk cache."""
        last = self.stages[-1].description
        self.evaluate(np.zeros((1, last.channels)), np.ones((1, self.parameters.ports), np.float32), last.name)

    # ---- the contract -----------------------------------------------------------------------------------------------

    def describe(self) -> DeviceDescription:
        """Return nominal values; the true ones stay in `stages[k].truth`."""
        return self._description

    def apply(self, drive: Drive) -> None:
        """Hold these voltages; the clock advances by the ramp and one settle time."""
        self._check_open()
        safes = self._safes
        volts = check_held_drive(self._description, drive).copy()
        duration_s = self._ramp_s(self._held.volts, volts) + self._description.drive.settle_s
        new = self._next_held(volts)
        with self._lock:
            if self._safes == safes:
                self._held = new
        self._clock.advance(duration_s, lambda: self._safes != safes)
        if self._safes != safes:
            raise DeviceError(
                "interlock", "safe was called while the drive was being applied: the chip holds the safe drive", outcome="unknown"
            )

    def stage_inputs(self, name: str, inputs: Inputs) -> None:
        """Keep `inputs` under `name`."""
        self._check_open()
        source = _source(check_inputs(self._description, inputs), copy=True)
        others = sum(kept.nbytes for known, kept in self._staged.items() if known != name)
        if (total := others + source.nbytes) > self._description.limits.max_staged_bytes:
            raise DeviceError(
                "limit",
                f"inputs {name!r} would bring the staged inputs to {total} bytes, "
                f"more than max_staged_bytes {self._description.limits.max_staged_bytes}",
            )
        self._remembered.forget(name)
        self._staged[name] = source

    def evaluate(self, drives: Drive, inputs: Inputs | StagedRows, stage: str) -> Readings:
        """Read every sample at every setting; see `PhotonicDevice.evaluate`."""
        self._check_open()
        stops = self._stops
        held = self._held
        index, volts = self._checked_settings(stage, drives, held)
        if isinstance(inputs, StagedRows):
            rows = check_staged_rows(inputs, {name: kept.shape[0] for name, kept in self._staged.items()})
            name, source = inputs.name, self._staged[inputs.name]
        else:
            name, source = "", _source(check_inputs(self._description, inputs), copy=False)
            rows = np.arange(source.shape[0])
        check_size(self._description, stage, volts.shape[0], rows.size)
        self._busy = True
        try:
            return self._evaluate(self.stages[index], index, volts, held, name, source, rows, stops)
        finally:
            self._job = None
            self._busy = False

    def status(self) -> DeviceStatus:
        """Return what a front panel would show. Takes no lock."""
        held = self._held
        return DeviceStatus(
            clock_s=self._clock.now_s(),
            safe=held.power_w == 0.0,
            busy=self._busy,
            heater_power_w=held.power_w,
            evaluations=self._evaluations,
        )

    def cancel(self) -> None:
        """Stop a running evaluation."""
        with self._lock:
            self._stops += 1
        self._stop_job()

    def safe(self) -> None:
        """Hold zero volts everywhere, stopping a running evaluation."""
        with self._lock:
            self._stops += 1
            self._safes += 1
            self._held = self._next_held(np.zeros(self._description.channels))
        self._stop_job()

    def clear_fault(self, name: str) -> None:
        """Refuse: the chip itself latches no faults."""
        raise DeviceError("bad_request", f"fault {name!r} is not latched here")

    def close(self) -> None:
        """Make the chip safe and end its threads."""
        self.safe()
        self._closed = True
        self._workers.close()

    # ---- inside -----------------------------------------------------------------------------------------------------

    def held_drive(self) -> Drive:
        """Return a copy of the held drive [V], shape (channels,). In-process only; no part of the contract."""
        return self._held.volts.copy()

    def let_pass(self, duration_s: float) -> None:
        """Let time pass [s] with everything held. In-process only; no part of the contract."""
        self._clock.advance(duration_s, lambda: False)

    def _evaluate(
        self,
        here: Stage,
        index: int,
        volts: Drive,
        held: _Held,
        name: str,
        source: Source,
        rows: NDArray[np.int64],
        stops: int,
    ) -> Readings:
        def run(job: Job, kernel: Callable[[int], object]) -> None:
            self._job = job
            if self._stops != stops:
                job.stop()
            if not self._workers.run(job, kernel):
                raise _stopped()

        settings, samples = volts.shape[0], rows.size
        source, rows = self._entering(index, held, name, source, rows, run)
        blocks = _gathered(source, rows)
        values = np.empty((settings, samples, self.parameters.ports), np.float32)
        flags = np.zeros(settings, np.uint32)
        items = settings * blocks.shape[0]
        job = self._workers.new_job(items, items * here.tops.size * kernels.FLOPS_PER_BLOCK)
        self._draws += 1
        draw = self._draws

        def kernel(worker: int) -> None:
            own = self._scratch[worker]
            kernels.read_settings(
                worker, job.control, items, blocks,
                volts, self._step_v, here.offset, here.scale, here.tops, here.theta, here.phi, here.couplers,
                own.phasor, own.matrices, own.field, own.noise,
                self._noise_key, draw, here.readout, flags, values,
            )  # fmt: skip

        run(job, kernel)
        time_s, duration_s = self._times(volts, held.volts[here.channels], samples)
        if not self._clock.advance(duration_s, lambda: self._stops != stops):
            raise _stopped()
        self._evaluations += settings
        return Readings(values, time_s, flags)

    def _entering(
        self, index: int, held: _Held, name: str, source: Source, rows: NDArray[np.int64], run: _Run
    ) -> tuple[Source, NDArray[np.int64]]:
        """Return fields that enter stage `index`, and which rows of them stand for `rows` of the chip's inputs `source`.

        Of staged inputs every row passes the stages before only once, until one of their held drives changes.
        """
        if index == 0:
            return source, rows
        known = self._remembered.fields(name, index, source.shape, held.versions[:index]) if name else None
        if known is None:
            new = np.empty((rows.size, source.shape[1], 2), np.float32)
            kernels.scatter(self._passed(index - 1, held, name, source, rows, run), np.arange(rows.size), new)
            return new, np.arange(rows.size)
        is_here = known.is_known[rows]
        if not is_here.all():
            missing = np.unique(rows[~is_here])
            kernels.scatter(self._passed(index - 1, held, name, source, missing, run), missing, known.field)
            known.is_known[missing] = True
        return known.field, rows

    def _passed(
        self, index: int, held: _Held, name: str, source: Source, rows: NDArray[np.int64], run: _Run
    ) -> NDArray[np.float32]:
        """Return blocks of the light behind stage `index`, its tap and its nonlinearity, at the held drive."""
        here, nonlinearity = self.stages[index], self.parameters.nonlinearity
        blocks = _gathered(*self._entering(index, held, name, source, rows, run))
        optics = self._held_optics(index, held)
        electro_optic = nonlinearity.kind == "electro-optic"
        share = here.levels.passed * (1.0 - nonlinearity.detected_fraction if electro_optic else 1.0)
        # g belongs to the light behind the tap, the kernel sees it before.
        half_gain = np.float32(0.5 * here.levels.gain_rad * here.levels.passed / np.pi)
        bias = 0.5 * nonlinearity.bias_rad
        job = self._workers.new_job(blocks.shape[0], blocks.shape[0] * here.tops.size * kernels.FLOPS_PER_BLOCK)

        def kernel(worker: int) -> None:
            kernels.propagate(
                worker, job.control, job.items, blocks, here.tops, optics.matrices, optics.screen,
                electro_optic, half_gain, np.float32(np.cos(bias)), np.float32(np.sin(bias)), np.float32(np.sqrt(share)),
            )  # fmt: skip

        run(job, kernel)
        return blocks

    def _held_optics(self, index: int, held: _Held) -> _HeldOptics:
        found = self._optics.get(index)
        if found is None or found.version != held.versions[index]:
            here = self.stages[index]
            phasor = np.empty_like(self._scratch[0].phasor)
            matrices = np.empty_like(self._scratch[0].matrices)
            volts = _read_only(held.volts[here.channels])
            kernels.phasors(volts, self._step_v, here.offset, here.scale, phasor)
            kernels.coefficients(phasor, here.theta, here.phi, here.couplers, matrices)
            start, stop = here.description.groups["gamma"]
            found = _HeldOptics(held.versions[index], matrices, phasor[:, start:stop].copy())
            self._optics[index] = found
        return found

    def _checked_settings(self, stage: str, drives: object, held: _Held) -> tuple[int, Drive]:
        """Return the stage's number and its settings, float64 and read-only.

        A quick pass over good drives; whatever is not plainly good goes through `protocols.limits`, which finds the words.
        """
        description = self._description
        index = next((i for i, s in enumerate(self.stages) if s.description.name == stage), -1)
        limits = description.limits
        if (
            index >= 0
            and isinstance(drives, np.ndarray)
            and drives.dtype == np.float64
            and drives.ndim == 2
            and drives.flags.c_contiguous
            and drives.flags.aligned
            and drives.shape[1] == self.stages[index].description.channels
            and 0 < drives.shape[0] <= limits.max_settings
        ):
            volts = _read_only(drives)
            others_v2 = sum(held.stage_v2) - held.stage_v2[index]
            highest_v2 = limits.total_power_w * description.drive.resistance_ohm
            if kernels.within(volts, description.drive.min_v, self._ceiling_v[index], others_v2, highest_v2):
                return index, volts
        volts = check_settings(description, stage, drives, held.volts)
        return description.stage_index(stage), _read_only(np.require(volts, requirements=["C", "A"]))

    def _next_held(self, volts: Drive) -> _Held:
        old = self._held
        versions = tuple(
            version + (not np.array_equal(old.volts[s.channels], volts[s.channels]))
            for s, version in zip(self.stages, old.versions, strict=True)
        )
        squares = tuple(float(np.dot(volts[s.channels], volts[s.channels])) for s in self.stages)
        return _Held(volts, versions, squares, heater_power_w(self._description, volts))

    def _times(self, volts: Drive, held: Drive, samples: int) -> tuple[NDArray[np.float64], float]:
        """Return when each setting is first read, and how long all of them take [s] with the way back to the held drive."""
        settle_s, read_s = self._description.drive.settle_s, samples * self._description.readout.sample_s
        settings = volts.shape[0]
        before = np.arange(1, settings + 1) * settle_s + np.arange(settings) * read_s
        ramps_s = 0.0
        if self._description.limits.slew_v_per_s > 0:
            path = np.vstack([held, volts, held])
            ramps = np.cumsum([self._ramp_s(a, b) for a, b in pairwise(path)])
            before += ramps[:-1]
            ramps_s = float(ramps[-1])
        return self._clock.now_s() + before, settings * (settle_s + read_s) + ramps_s

    def _ramp_s(self, start: Drive, end: Drive) -> float:
        slew = self._description.limits.slew_v_per_s
        return float(np.max(np.abs(end - start))) / slew if slew > 0 else 0.0

    def _stop_job(self) -> None:
        job = self._job
        if job is not None:
            job.stop()
        self._clock.wake()

    def _check_open(self) -> None:
        if self._closed:
            raise DeviceError("device", "the chip is closed")


def _describe(parameters: ChipParameters, stages: tuple[Stage, ...], realtime: bool) -> DeviceDescription:
    limits, channels = parameters.limits, sum(s.description.channels for s in stages)
    return DeviceDescription(
        name=parameters.name,
        kind="simulator",
        serials={"chip": parameters.name, "seed": str(parameters.seed), "parameters": _digest(parameters)},
        input_ports=parameters.ports,
        phases_settable=parameters.laser.phases_settable,
        stages=tuple(s.description for s in stages),
        drive=DriveDescription(
            min_v=0.0,
            max_v=parameters.dac.max_v,
            bits=parameters.dac.bits,
            range_v=parameters.dac.range_v,
            settle_s=parameters.clock.settle_s,
            resistance_ohm=parameters.heater.resistance_ohm,
            pi_power_w=parameters.heater.pi_power_w,
        ),
        readout=ReadoutDescription(
            full_scale=tuple(s.levels.full_scale_a for s in stages),
            bits=parameters.adc.bits,
            sample_s=parameters.clock.sample_s,
        ),
        limits=LimitsDescription(
            voltage_v=parameters.dac.max_v,
            current_a=limits.current_a,
            power_w=limits.power_w,
            total_power_w=limits.mean_power_w * channels,
            slew_v_per_s=limits.slew_v_per_s,
            max_batch=limits.max_batch,
            max_settings=limits.max_settings,
            max_readings=limits.max_readings,
            max_staged_bytes=limits.max_staged_bytes,
        ),
        clock="real" if realtime else "virtual",
    )


def _digest(parameters: ChipParameters) -> str:
    """Return what an edited chip file changes: a short digest of all parameters that are not at their defaults."""
    return hashlib.sha256(parameters.model_dump_json(exclude_defaults=True).encode()).hexdigest()[:12]


def _scratch(stage: Stage) -> _Scratch:
    ports = stage.mesh.ports
    return _Scratch(
        phasor=np.empty((2, stage.description.channels), np.float32),
        matrices=np.empty((stage.tops.size, 8), np.float32),
        field=np.empty((ports, 2, kernels.LANES), np.float32),
        noise=np.empty((ports + ports % 2, kernels.LANES), np.float32),
    )


def _source(inputs: Inputs, *, copy: bool) -> Source:
    """Return inputs as the kernels read them: float32 (rows, ports, 1), or 2 where they have phases."""
    is_complex = inputs.dtype.kind == "c"
    plain = np.array(inputs, np.complex64 if is_complex else np.float32, order="C", copy=True if copy else None)
    return plain.view(np.float32).reshape(*plain.shape, 2 if is_complex else 1)


def _gathered(source: Source, rows: NDArray[np.int64]) -> NDArray[np.float32]:
    blocks = np.empty((-(-rows.size // kernels.LANES), source.shape[1], 2, kernels.LANES), np.float32)
    kernels.gather(_read_only(source), _read_only(rows), blocks)
    return blocks


def _read_only(array: NDArray) -> NDArray:
    """Return a read-only view: compiled kernels know one type of array, whoever owns it."""
    view = array.view()
    view.flags.writeable = False
    return view


def _stopped() -> DeviceError:
    return DeviceError("interlock", "the evaluation was stopped between settings: nothing of it is held")
