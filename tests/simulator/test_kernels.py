"""Compiled kernels against double precision."""

from __future__ import annotations

import itertools
import threading
from collections.abc import Callable

import numpy as np
import pytest
from numba import TypingError
from scipy import stats

from photonloop.protocols.device import DeviceDescription
from photonloop.protocols.errors import DeviceError
from photonloop.protocols.limits import check_settings, highest_drive_v
from photonloop.simulator import kernels
from photonloop.simulator.engine.chip import Chip
from photonloop.simulator.engine.heat_map import no_heat_map
from photonloop.simulator.engine.workers import Workers
from photonloop.simulator.parameters import load_chip
from photonloop.simulator.physics.mesh import Mesh, clements, couplers, reck, schedule, transfer_matrix


def heaters_of(scale: np.ndarray, lsb_v: float = 0.0) -> kernels.Heaters:
    """Heaters whose phase is `scale` half turns per volt squared, without other effects."""
    return kernels.Heaters(
        lsb_v=lsb_v,
        range_v=12.0,
        bow=np.empty(0),
        twist=np.empty(0),
        gain=np.empty(0),
        added_v=np.empty(0),
        noise_v=0.0,
        conductance_s=np.ones(scale.size),
        ground_ohm=0.0,
        grounds=np.array([0, scale.size]),
        chunks=np.append(np.arange(0, scale.size, kernels.CHUNK), scale.size),
        self_heating=0.0,
        inverse_pi_w=scale,
        rewired=np.empty((0, 2), np.int64),
        forced=np.empty(0, np.int64),
        forced_v=np.empty(0),
        inverse_arm_w=scale,
        heat=no_heat_map(),
        curvature=0.0,
        curve_scale=1.0,
        field=np.float32(1.0),
    )


def phasors_of(volts: np.ndarray, lsb_v: float, offset: np.ndarray, scale: np.ndarray) -> np.ndarray:
    """cos and sin of the phases at `volts`, from both kernels."""
    heaters = heaters_of(scale, lsb_v)
    power, none, out = np.empty(volts.size), np.empty(0, np.float32), np.empty((2, volts.size), np.float32)
    for chunk in range(heaters.chunks.size - 1):
        kernels.powers(heaters, volts, chunk, np.uint64(0), np.empty((0, kernels.LANES), np.float32), power)
        kernels.phasors(heaters, power, offset, none, none, chunk, out)
    return out


def kernel_matrix(mesh: Mesh, phases: tuple[np.ndarray, np.ndarray], error: np.ndarray, loss_db: np.ndarray) -> np.ndarray:
    """Matrix of the mesh without output screen: the compiled sweep of the identity matrix."""
    order = schedule(mesh)
    half_turns = np.concatenate(phases) / np.pi
    phasor = phasors_of(np.zeros(half_turns.size), 0.0, half_turns, np.zeros(half_turns.size))
    matrices = np.empty((order.size, 8), np.float32)
    folded = couplers(mesh, error, loss_db)[order].astype(np.float32)
    kernels.coefficients(phasor, order, order + mesh.interferometers, folded, matrices)
    identity = np.eye(mesh.ports, dtype=np.float32)[:, :, np.newaxis].copy()
    blocks = np.empty((-(-mesh.ports // kernels.LANES), mesh.ports, 2, kernels.LANES), np.float32)
    kernels.gather(identity, np.arange(mesh.ports), blocks)
    for block in blocks:
        kernels.sweep(block, mesh.top[order], matrices)
    out = np.empty((mesh.ports, mesh.ports, 2), np.float32)
    kernels.scatter(blocks, np.arange(mesh.ports), out)
    return (out[..., 0] + 1j * out[..., 1]).T


@pytest.mark.parametrize("build", [clements, reck])
@pytest.mark.parametrize("n", [2, 3, 16, 45])
def test_sweep_agrees_with_the_double_precision_matrix(build: Callable[[int], Mesh], n: int) -> None:
    mesh = build(n)
    rng = np.random.default_rng(n)
    phases = rng.uniform(-20, 20, mesh.interferometers), rng.uniform(-20, 20, mesh.interferometers)
    error = rng.normal(0, 0.05, (mesh.interferometers, 2))
    loss_db = rng.uniform(0, 0.3, mesh.interferometers)
    expected = transfer_matrix(mesh, *phases, [], error, loss_db)
    np.testing.assert_allclose(kernel_matrix(mesh, phases, error, loss_db), expected, atol=3e-6)


@pytest.mark.parametrize("build", [clements, reck])
def test_every_causal_order_gives_bitwise_equal_fields(build: Callable[[int], Mesh]) -> None:
    """The order of the interferometers changes the speed of the sweep, not the fields."""
    mesh = build(37)
    rng = np.random.default_rng(4)
    matrices = rng.normal(0, 0.5, (mesh.interferometers, 8)).astype(np.float32)
    fields = rng.normal(size=(mesh.ports, 2, kernels.LANES)).astype(np.float32)
    found = []
    for order in (np.arange(mesh.interferometers), schedule(mesh), schedule(mesh, 5), np.lexsort((-mesh.top, mesh.column))):
        block = fields.copy()
        kernels.sweep(block, mesh.top[order], matrices[order])
        found.append(block)
    assert np.isfinite(found[0]).all()
    for other in found[1:]:
        np.testing.assert_array_equal(found[0], other)


@pytest.mark.parametrize("build", [clements, reck])
def test_the_schedule_mostly_keeps_a_mode_in_registers(build: Callable[[int], Mesh]) -> None:
    """Most interferometers share a mode with the previous one, which makes the sweep fast."""
    mesh = build(256)
    top = mesh.top[schedule(mesh)]
    assert np.count_nonzero(np.diff(top) == -1) > 0.9 * mesh.interferometers


def test_blocks_in_another_layout_are_refused() -> None:
    """The sweep computes addresses itself, so it needs contiguous rows of lanes."""
    block = np.zeros((4, 2, 2 * kernels.LANES), np.float32)[:, :, ::2]
    with pytest.raises(TypingError, match="contiguous float32"):
        kernels.sweep(block, np.array([0]), np.zeros((1, 8), np.float32))


def test_phasors_follow_quantised_voltages() -> None:
    rng = np.random.default_rng(0)
    lsb_v, channels = 12 / 65535, 20000  # three chunks
    volts, offset = rng.uniform(0, 10.8, channels), rng.uniform(0, 2, channels)
    scale = rng.uniform(0.9, 1.1, channels) / (770 * 0.023)
    out = phasors_of(volts, lsb_v, offset, scale)
    phase = np.pi * (offset + np.rint(volts / lsb_v).astype(int).astype(float) ** 2 * lsb_v**2 * scale)
    np.testing.assert_allclose(out, [np.cos(phase), np.sin(phase)], atol=4e-7)
    # A change by less than half a step has no effect.
    code = np.array([30000.0])
    found = []
    for volt in (code * lsb_v, (code + 0.49) * lsb_v, (code + 0.51) * lsb_v):
        found.append(phasors_of(volt, lsb_v, np.zeros(1), np.full(1, 1 / (770 * 0.023))))
    np.testing.assert_array_equal(found[0], found[1])
    assert not np.array_equal(found[0], found[2])


def test_normals_are_standard_normal_and_independent() -> None:
    count = 4096
    first = np.empty((count, kernels.LANES), np.float32)
    second = np.empty_like(first)
    kernels.normals(np.uint64(kernels.stream_start(np.uint64(7), 1, 0)), first)
    kernels.normals(np.uint64(kernels.stream_start(np.uint64(7), 1, 1)), second)
    flat = first.ravel().astype(float)
    assert stats.kstest(flat, "norm").pvalue > 1e-3
    assert stats.kurtosis(flat) == pytest.approx(0, abs=6 * np.sqrt(24 / flat.size))
    bound = 5 / np.sqrt(flat.size)
    for other in (second.ravel(), np.roll(flat, 1), np.roll(flat, kernels.LANES), np.roll(flat, 2 * kernels.LANES)):
        assert abs(np.mean(flat * other)) < bound
        assert abs(np.corrcoef(flat**2, other.astype(float) ** 2)[0, 1]) < bound
    again = np.empty_like(first)
    kernels.normals(np.uint64(kernels.stream_start(np.uint64(7), 1, 0)), again)
    np.testing.assert_array_equal(first, again)


def test_normals_have_normal_tails() -> None:
    out = np.empty((2**16, kernels.LANES), np.float32)
    kernels.normals(np.uint64(12345), out)
    assert np.isfinite(out).all()
    for deviations in (2.0, 3.0, 4.0):
        expected = 2 * stats.norm.sf(deviations) * out.size
        assert abs(np.count_nonzero(np.abs(out) > deviations) - expected) < 5 * np.sqrt(expected)


@pytest.mark.parametrize("workers", [1, 2, 3, 4])
@pytest.mark.parametrize("items", [1, 2, 7, 1000])
def test_every_item_is_claimed_once(workers: int, items: int) -> None:
    control = kernels.new_control(workers)
    claimed: list[list[int]] = [[] for _ in range(workers)]
    ready = threading.Barrier(workers)

    def work(worker: int) -> None:
        claim = np.zeros(2, np.int64)
        ready.wait()
        while (item := kernels.next_item(control, items, worker, claim)) >= 0:
            claimed[worker].append(item)

    threads = [threading.Thread(target=work, args=(k,)) for k in range(workers)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(itertools.chain(*claimed)) == list(range(items))


def test_one_worker_finishes_a_job_alone() -> None:
    """Worker 0 alone claims the items of all workers."""
    control, claim = kernels.new_control(3), np.zeros(2, np.int64)
    claimed = []
    while (item := kernels.next_item(control, 10, 0, claim)) >= 0:
        claimed.append(item)
    assert sorted(claimed) == list(range(10))


def test_a_failing_helper_is_reported() -> None:
    workers = Workers(2)
    job = workers.new_job(10, 1e9)

    def kernel(worker: int) -> None:
        if worker == 1:
            raise MemoryError("no room")

    with pytest.raises(RuntimeError, match="helper"):
        workers.run(job, kernel)
    workers.close()


@pytest.fixture(scope="module")
def description() -> DeviceDescription:
    chip = Chip(load_chip("soi", ports=4, stages=2), threads=1)
    chip.close()
    return chip.describe()


def test_the_fast_check_agrees_with_the_limits(description: DeviceDescription) -> None:
    """The compiled check accepts exactly the drives that the full check accepts."""
    here = description.stages[1]
    ceiling = highest_drive_v(description, here.first_channel, here.channels)
    total_v2 = description.limits.total_power_w * description.drive.resistance_ohm
    rng = np.random.default_rng(3)
    verdicts = set()
    for trial in range(400):
        held = np.zeros(description.channels)
        held[: here.first_channel] = rng.uniform(0, 6)
        drives = rng.uniform(0, rng.choice([1, 5, 6.7, 6.85]), (2, here.channels))
        if trial % 5 == 0:
            drives[rng.integers(2), rng.integers(here.channels)] = rng.choice([np.nan, np.inf, -np.inf, -1e-9, 0.0, 6.9])
        quick = bool(kernels.within_limits(drives, description.drive.min_v, ceiling, float(held @ held), total_v2))
        try:
            check_settings(description, here.name, drives, held)
            slow = True
        except DeviceError:
            slow = False
        assert quick == slow
        verdicts.add(quick)
    assert verdicts == {True, False}
