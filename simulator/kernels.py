"""Compiled loops of the chip: voltages to coefficients, fields through a mesh, fields to photocurrents.

Fields are in single precision, in blocks of sixteen samples:

    block[port][re | im][lane]     lane = one of 16 samples; they fill an AVX-512 register, two of AVX2, or a cache line

Every interferometer is the same 2 × 2 product for all lanes, and a block of 64 ports (8 KiB) stays in the first-level
cache. Work is counted in *items*; an item is one block of one setting. Threads claim items from one another's ranges
(`next_item`). No result depends on which thread computes it, because the coefficients depend on the setting only, and
noise depends on a counter and not on the order of draws (`normals`).

All compiled functions are in this file, because numba's disk cache does not notice a change in another file.

The cache names its files by function and line number, and loads the types in a cache file before it compares dates. If
a class of this file is renamed while its functions stay at their lines, every start fails with an `AttributeError`.
Delete `simulator/__pycache__/*.nb?` then.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from llvmlite import ir
from numba import njit, types
from numba.core import cgutils, errors
from numba.extending import intrinsic, models, register_model

LANES = 16
"""Samples per block."""

FLOPS_PER_BLOCK = 28 * LANES
"""Floating-point operations of one interferometer on one block."""

_AHEAD = 32
"""Interferometers between prefetching a phasor and using it: about the latency of the third-level cache."""

CHUNK = 2048
"""Channels whose power and phase are computed together. They fit in the first-level cache; workers share chunks."""

# With error_model "numpy" a division cannot raise, so the compiler can turn it into vector instructions.
_entry: Any = njit(cache=True, nogil=True, fastmath=True, error_model="numpy")
# A function that is not inlined is compiled once per caller, and the copies may round differently. Which copy a process
# uses depends on whether it compiles or loads from disk. With forced inlining, readings are bitwise equal in every
# process.
_inlined: Any = njit(cache=True, nogil=True, fastmath=True, error_model="numpy", forceinline=True)
# With fastmath the compiler chooses the order of sums; without it, the order is that of the source.
_as_written: Any = njit(cache=True, nogil=True, error_model="numpy", forceinline=True)
_nan_safe: Any = njit(cache=True, nogil=True, fastmath={"reassoc", "contract", "nsz"}, error_model="numpy")

_F = np.float32
_HALF = _F(0.5)
_ONE = _F(1.0)
_TWO = _F(2.0)
_SQRT_2 = _F(np.sqrt(2.0))
_LN_2 = _F(np.log(2.0))

# sin(πx)/x as polynomial in x², interpolated at Chebyshev nodes on |x| ≤ 1/2: error 3e-11 before rounding.
_S0, _S1, _S2, _S3, _S4, _S5 = (
    _F(c) for c in (3.1415926534, -5.1677127597, 2.5501633226, -0.5992521919, 0.0820503467, -0.0070283018)
)
# ln(1 + f)/f as polynomial in f, interpolated at Chebyshev nodes on √½ ≤ 1 + f ≤ √2: error 7e-8.
_L0, _L1, _L2, _L3, _L4, _L5, _L6, _L7 = (
    _F(c) for c in (0.99999997, -0.50000375, 0.33334606, -0.24968907, 0.19913348, -0.17278206, 0.16126248, -0.09895351)
)


# --- Sixteen samples in registers -------------------------------------------------------------------------------------

# The compiler turns loops over lanes into vector instructions, but it cannot keep a row of an array in registers from
# one iteration of a loop to the next. The sweep needs that, so it uses a type of its own for one row of lanes.


class _Lanes(types.Type):
    """LANES single-precision numbers in vector registers, of any width that the machine has."""

    def __init__(self) -> None:
        super().__init__(name="lanes")


_LANES_TYPE = _Lanes()
_VECTOR = ir.VectorType(ir.FloatType(), LANES)


class _LanesModel(models.PrimitiveModel):
    def __init__(self, manager: Any, kind: Any) -> None:
        super().__init__(manager, kind, _VECTOR)


register_model(_Lanes)(_LanesModel)


def _row_pointer(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
    """Return the address of block[port, part], for arguments (block, port, part, …)."""
    block = context.make_array(signature.args[0])(context, builder, arguments[0])
    row = builder.add(builder.mul(arguments[1], ir.Constant(arguments[1].type, 2)), arguments[2])
    first = builder.gep(block.data, [builder.mul(row, ir.Constant(row.type, LANES))])
    return builder.bitcast(first, _VECTOR.as_pointer())


def _check_block(block: Any) -> None:
    if not (isinstance(block, types.Array) and (block.dtype, block.ndim, block.layout) == (types.float32, 3, "C")):
        raise errors.TypingError(f"a block is a contiguous float32 array (ports, 2, LANES), not {block}")


def _load_typed(_context: Any, block: Any, _port: Any, _part: Any) -> Any:
    _check_block(block)

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return builder.load(_row_pointer(context, builder, signature, arguments), align=4)

    return _LANES_TYPE(block, types.intp, types.intp), generate


def _store_typed(_context: Any, block: Any, _port: Any, _part: Any, _lanes: Any) -> Any:
    _check_block(block)

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        builder.store(arguments[3], _row_pointer(context, builder, signature, arguments), align=4)
        return context.get_dummy_value()

    return types.void(block, types.intp, types.intp, _LANES_TYPE), generate


def _check_row(row: Any) -> None:
    if not (isinstance(row, types.Array) and (row.dtype, row.ndim, row.layout) == (types.float32, 1, "C")):
        raise errors.TypingError(f"a row of lanes is a contiguous float32 array (n,), not {row}")


def _element_pointer(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
    """Return the address of row[first] as lanes, for arguments (row, first, …)."""
    row = context.make_array(signature.args[0])(context, builder, arguments[0])
    return builder.bitcast(builder.gep(row.data, [arguments[1]]), _VECTOR.as_pointer())


def _load_run_typed(_context: Any, row: Any, _first: Any) -> Any:
    _check_row(row)

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return builder.load(_element_pointer(context, builder, signature, arguments), align=4)

    return _LANES_TYPE(row, types.intp), generate


def _store_run_typed(_context: Any, row: Any, _first: Any, _lanes: Any) -> Any:
    _check_row(row)

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        builder.store(arguments[2], _element_pointer(context, builder, signature, arguments), align=4)
        return context.get_dummy_value()

    return types.void(row, types.intp, _LANES_TYPE), generate


def _at_typed(_context: Any, row: Any, _index: Any) -> Any:

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        structure = context.make_array(signature.args[0])(context, builder, arguments[0])
        return builder.load(builder.gep(structure.data, [arguments[1]]))

    return row.dtype(row, types.intp), generate


def _in_every_lane(builder: Any, number: Any) -> Any:
    nothing = ir.Constant(_VECTOR, ir.Undefined)
    first = builder.insert_element(nothing, number, ir.Constant(ir.IntType(32), 0))
    return builder.shuffle_vector(first, nothing, ir.Constant(ir.VectorType(ir.IntType(32), LANES), [0] * LANES))


def _times_typed(_context: Any, _factor: Any, _lanes: Any) -> Any:

    def generate(_context: Any, builder: Any, _signature: Any, arguments: Any) -> Any:
        return builder.fmul(_in_every_lane(builder, arguments[0]), arguments[1])

    return _LANES_TYPE(types.float32, _LANES_TYPE), generate


def _multiply_add(builder: Any, factor: Any, lanes: Any, addend: Any) -> Any:
    kind = ir.FunctionType(_VECTOR, [_VECTOR] * 3)
    fused = cgutils.get_or_insert_function(builder.module, kind, f"llvm.fmuladd.v{LANES}f32")
    return builder.call(fused, [factor, lanes, addend])


def _plus_typed(_context: Any, _addend: Any, _factor: Any, _lanes: Any) -> Any:

    def generate(_context: Any, builder: Any, _signature: Any, arguments: Any) -> Any:
        return _multiply_add(builder, _in_every_lane(builder, arguments[1]), arguments[2], arguments[0])

    return _LANES_TYPE(_LANES_TYPE, types.float32, _LANES_TYPE), generate


def _minus_typed(_context: Any, _addend: Any, _factor: Any, _lanes: Any) -> Any:

    def generate(_context: Any, builder: Any, _signature: Any, arguments: Any) -> Any:
        # Negating the lanes is part of the fused instruction; negating the factor would take one more instruction per
        # row.
        return _multiply_add(builder, _in_every_lane(builder, arguments[1]), builder.fneg(arguments[2]), arguments[0])

    return _LANES_TYPE(_LANES_TYPE, types.float32, _LANES_TYPE), generate


load_lanes: Any = intrinsic(_load_typed)
"""(block, port, part) → the lanes at block[port, part], in one or several registers."""

store_lanes: Any = intrinsic(_store_typed)
"""(block, port, part, lanes): write the lanes to block[port, part]."""

load_run: Any = intrinsic(_load_run_typed)
"""(row, first) → row[first] … row[first + LANES - 1], float32, as lanes."""

store_run: Any = intrinsic(_store_run_typed)
"""(row, first, lanes): write the lanes to row[first] …"""

at: Any = intrinsic(_at_typed)
"""(row, index) → row[index] for index ≥ 0. Inner loops are faster without the test for a negative index."""

times: Any = intrinsic(_times_typed)
"""(factor, lanes) → factor · lanes."""

plus_times: Any = intrinsic(_plus_typed)
"""(addend, factor, lanes) → addend + factor · lanes, rounded once if the machine has fused multiply-adds."""

minus_times: Any = intrinsic(_minus_typed)
"""(addend, factor, lanes) → addend - factor · lanes, rounded in the same way."""


# --- Prefetching ------------------------------------------------------------------------------------------------------


def _prefetch_typed(_context: Any, array: Any, _row: Any, _column: Any) -> Any:

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        structure = context.make_array(signature.args[0])(context, builder, arguments[0])
        pointer = cgutils.get_item_pointer(context, builder, signature.args[0], structure, arguments[1:], wraparound=False)
        address, flag = ir.IntType(8).as_pointer(), ir.IntType(32)
        kind = ir.FunctionType(ir.VoidType(), [address, flag, flag, flag])
        prefetch = cgutils.get_or_insert_function(builder.module, kind, "llvm.prefetch.p0")
        builder.call(prefetch, [builder.bitcast(pointer, address), flag(0), flag(3), flag(1)])  # to read, to keep, data
        return context.get_dummy_value()

    return types.void(array, types.intp, types.intp), generate


_prefetch: Any = intrinsic(_prefetch_typed)
"""(array, row, column): prefetch array[row, column] into the cache."""


# --- Arguments of the kernels: the parts of a stage -------------------------------------------------------------------


class HeatMap(NamedTuple):
    """Tables of thermal crosstalk for the kernels, made by `engine.heat_map`; `rows` is empty if there is none.

    Powers of heaters are on a map with one row per half column and interleave: mode y is in row y % interleave of its
    half column, at cell y // interleave. In a mesh every other mode has a heater, so rows are either full or empty.
    Between rows there are empty cells, so that a row shifted by the range of the near part is still in the map. The
    received powers are in rows of `width` cells without space between.

    Parameters
    ----------
    interleave, width
        Rows per half column; cells per row, a multiple of LANES.
    sources
        Runs of heaters, int64 (runs, 5): first channel, step of the channels, length, first cell in the map, and first
        cell in the received powers.
    rows
        Rows that receive, int64 (rows, 5): half column, first cell in the map, first and one past the last near share,
        and number of its set of weights. The last rows are the other arms of attenuators.
    near_cell, near_share
        Near shares: distance in the map and share, shape (shares,). Their number per row is a multiple of 4.
    feeds, feed_bounds
        Rows with heaters, int64 (rows with heaters, 2): first cell and number of its set of weights. Rows
        feed_bounds[x] … feed_bounds[x + 1] - 1 are those of half column x.
    nodes, padded
        Number of coarse nodes along half columns and along modes (0: there is no far part), the latter also as a
        multiple of LANES.
    gather, gather_span
        Weights from cells to nodes, float32 (sets · cells · padded,), and per set and LANES nodes the first and one
        past the last cell, int64 (sets, padded / LANES, 2).
    along, along_span
        Weights from half columns to nodes, float32 (nodes, longest span), and their first and one past the last half
        column, int64 (nodes, 2).
    back, back_first
        Weights from nodes to half columns, float32 (half columns, 4), and the first node of each.
    spread, spread_span
        Weights from nodes to cells, float32 (sets · (nodes + 1) · width,), and per set and LANES cells the first and
        one past the last node, int64 (sets, width / LANES, 2).
    far_share, far_reach
        Smooth shares, float32 ((reach along half columns + 1) · 2 · padded · LANES,): by distance in nodes along half
        columns, then by source minus first target along modes from -padded on, then by target. And the reach in nodes
        in both directions.
    columns
        Columns of interferometers, int64 (columns, 6): first channel of θ and of φ, their number, first top mode,
        whether they are attenuators, and the first row of their other arms.
    unheated
        Phase of a segment without heater per power [half turns/W].
    """

    interleave: int
    width: int
    sources: np.ndarray
    rows: np.ndarray
    near_cell: np.ndarray
    near_share: np.ndarray
    feeds: np.ndarray
    feed_bounds: np.ndarray
    nodes: tuple[int, int]
    padded: int
    gather: np.ndarray
    gather_span: np.ndarray
    along: np.ndarray
    along_span: np.ndarray
    back: np.ndarray
    back_first: np.ndarray
    spread: np.ndarray
    spread_span: np.ndarray
    far_share: np.ndarray
    far_reach: tuple[int, int]
    columns: np.ndarray
    unheated: float


class HeatScratch(NamedTuple):
    """Temporary arrays for thermal crosstalk at one setting, zero at first; float32 unless stated otherwise.

    Parameters
    ----------
    power
        Map of heater powers [W].
    halves, nodes, far
        Powers at the nodes along modes, per half column; at all nodes, with `far_reach` empty nodes on either side
        along half columns; what the nodes receive.
    across
        What the nodes along modes receive at one half column, shape (padded + LANES,).
    segments
        Received power [W] of every segment, without its own heater.
    received, pushed
        Of each channel: received power [W], and phase that other arms and the running phases add [half turns], shape
        (channels,).
    running
        Running phase of each mode [half turns], float64 (interleave · width,).
    """

    power: np.ndarray
    halves: np.ndarray
    nodes: np.ndarray
    far: np.ndarray
    across: np.ndarray
    segments: np.ndarray
    received: np.ndarray
    pushed: np.ndarray
    running: np.ndarray


class Heaters(NamedTuple):
    """Voltage sources and heaters of one stage; arrays have shape (channels,) unless another is given.

    Parameters
    ----------
    lsb_v, range_v
        Step of the DAC [V] (0: continuous) and its full scale [V].
    bow, twist
        Integral nonlinearity, see `dac.output_v`; empty if the DAC is linear.
    gain, added_v
        Slow changes of the sources: output times gain, plus added_v [V]; empty if there are none.
    noise_v
        Standard deviation of the noise of a setting [V]; 0: none.
    conductance_s
        1/R₀ [S]; less for a dying heater, 0 for a dead one.
    ground_ohm, grounds
        Resistance of the ground conductor shared by the heaters of one half column [Ω], and the first channel of each
        half column, int64 (half columns + 1,).
    chunks
        First channel of each chunk, int64 (chunks + 1,). With a shared ground no half column is in two chunks.
    self_heating, inverse_pi_w
        ρ and 1/P_π [1/W] of `heater.power_w`.
    rewired
        Heaters that are connected to the source of another channel: [heater, source], shape (heaters, 2).
    forced, forced_v
        Heaters whose voltage does not follow the drive, and that voltage [V]; shape (heaters,).
    inverse_arm_w
        1/P_arm [1/W] of `heater.arm_pi_power_w`.
    heat
        Thermal crosstalk.
    curvature, curve_scale
        η and 1/(1 + η) of `heater.phase_rad`.
    field
        Field transmission of a phase shifter.
    """

    lsb_v: float
    range_v: float
    bow: np.ndarray
    twist: np.ndarray
    gain: np.ndarray
    added_v: np.ndarray
    noise_v: float
    conductance_s: np.ndarray
    ground_ohm: float
    grounds: np.ndarray
    chunks: np.ndarray
    self_heating: float
    inverse_pi_w: np.ndarray
    rewired: np.ndarray
    forced: np.ndarray
    forced_v: np.ndarray
    inverse_arm_w: np.ndarray
    heat: HeatMap
    curvature: float
    curve_scale: float
    field: np.float32


class MeshWiring(NamedTuple):
    """The interferometers of one stage, in the order of the sweep.

    Parameters
    ----------
    tops
        Upper mode of each.
    theta, phi
        Channels of its θ and φ.
    couplers
        Products of coupler amplitudes, as in `coefficients`.
    attenuators
        Which of them are attenuators, as in `attenuate`.
    """

    tops: np.ndarray
    theta: np.ndarray
    phi: np.ndarray
    couplers: np.ndarray
    attenuators: np.ndarray


class Rings(NamedTuple):
    """The rings of a weight bank.

    Parameters
    ----------
    inputs
        Number per row.
    steepness_2, dropped, leaked
        (2F/π)², D and leak of `weight_bank.transmissions`.
    spacing
        cos and sin of πm/M, float32 (2, M); shape (2, 0) without spectral crosstalk. With it, `phasors` takes half of
        the rings' phases, because the field at a drop port turns by half of the round-trip phase.
    wavelengths
        cos and sin of (2πk/M + ψ_k)/2, same shape, with ψ_k the phase shift of wavelength k.
    couplers
        r, a, 1 - a, b, 1 - b and (1 - r²)√a of `ring_rows`.
    bus
        cos and sin of the phase of the waveguides behind each ring for wavelength 0, float32 (2, channels); shape (2,
        0) without interference.
    bus_wavelengths
        cos and sin of the difference of that phase for wavelength k, float32 (2, M); shape (2, 0) without interference.
    """

    inputs: int
    steepness_2: np.float32
    dropped: np.float32
    leaked: np.float32
    spacing: np.ndarray
    wavelengths: np.ndarray
    couplers: np.ndarray
    bus: np.ndarray
    bus_wavelengths: np.ndarray


def phase_scale(rings: Rings | None) -> float:
    """Return the share of each phase of which `phasors` computes the phasor: a half with spectral crosstalk, else 1."""
    return 1.0 if rings is None or rings.spacing.shape[1] == 0 else 0.5


class ReadoutChain(NamedTuple):
    """The detectors and converters of one stage, single precision, see `detect`.

    Parameters
    ----------
    ampere, dark_a
        Current [A] per |E|² = 1 and dark current [A] of each detector, repeated for every lane, shape (ports · LANES,).
    rin
        Relative standard deviation of the laser power, which is common to all detectors of a mesh. Each input of a
        weight bank has its own laser.
    inverse_saturation
        1/i_sat [1/A] of `photodiode.compressed_a`; 0: linear.
    thermal_a2, shot_a
        The variance of the noise is thermal_a2 + shot_a · current [A²]. It includes the noise of the converter if the
        amplifier has no memory.
    gain, offset_a
        Gain and zero offset [A] of each converter, repeated for every lane; empty if all are 1 and 0.
    full_scale_a, code_a
        Full scale of the converter [A] (0: unlimited) and its step [A] (0: continuous).
    kept
        Share of the previous sample's output that the amplifier keeps. If it is not 0, `rin`, `thermal_a2` and `shot_a`
        are those in front of the amplifier's filter, and `convert_settings` computes the readings in a second pass.
    first_scale
        Noise of a setting's first sample in front of the filter, relative to that of the other samples.
    converter_a
        Standard deviation of the converter's noise [A] in the second pass.
    """

    ampere: np.ndarray
    dark_a: np.ndarray
    rin: np.float32
    inverse_saturation: np.float32
    thermal_a2: np.float32
    shot_a: np.float32
    gain: np.ndarray
    offset_a: np.ndarray
    full_scale_a: np.float32
    code_a: np.float32
    kept: np.float32
    first_scale: np.float32
    converter_a: np.float32


class NoiseCounters(NamedTuple):
    """Where the noise of a job begins.

    Parameters
    ----------
    readings, sources, converters
        Keys of the noise of detectors, of voltage sources, and of converters behind an amplifier with memory.
    evaluation
        Number of the evaluation.
    first_item, first_setting
        Numbers, within the evaluation, of the job's first item and first setting.
    """

    readings: np.uint64
    sources: np.uint64
    converters: np.uint64
    evaluation: int
    first_item: int
    first_setting: int


class Scratch(NamedTuple):
    """Temporary arrays of one worker.

    Parameters
    ----------
    power
        Heater power before crosstalk [W], float64 (channels,).
    heat
        Temporary arrays for thermal crosstalk.
    phasor
        Phasors of the phase shifters, float32 (2, channels).
    matrices
        Matrices of the interferometers, float32 (interferometers, 8).
    field
        One block, float32 (ports, 2, LANES).
    noise
        Normal deviates, float32 (rows, LANES): one row per output, rounded up to an even number, then the rows for RIN,
        2 for a mesh, one per input rounded up to an even number for a weight bank.
    current
        Photocurrents [A], float32 (ports · LANES,).
    source
        Normal deviates for the voltage sources of a chunk, float32 (rows, LANES).
    """

    power: np.ndarray
    heat: HeatScratch
    phasor: np.ndarray
    matrices: np.ndarray
    field: np.ndarray
    noise: np.ndarray
    current: np.ndarray
    source: np.ndarray


# --- Sharing work -----------------------------------------------------------------------------------------------------


def _fetch_add_typed(_context: Any, array: Any, _index: Any, _value: Any) -> Any:

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        structure = context.make_array(signature.args[0])(context, builder, arguments[0])
        pointer = cgutils.get_item_pointer(context, builder, signature.args[0], structure, [arguments[1]], wraparound=False)
        return builder.atomic_rmw("add", pointer, arguments[2], "seq_cst")

    return types.int64(array, types.intp, types.int64), generate


_fetch_add: Any = intrinsic(_fetch_add_typed)
"""(array, index, value): atomically add `value` to array[index] and return the previous value."""


CONTROL_STRIDE = 16
"""Distance between counters: two cache lines, to avoid false sharing."""

STOPPED = 1 << 62
"""Written to a claims counter by another thread, it leaves nothing to claim. This cancels an evaluation."""


def new_control(workers: int) -> np.ndarray:
    """Return the shared counters of one job: per worker [claimed, claimed from the back], then [finished]."""
    return np.zeros((2 * workers + 1) * CONTROL_STRIDE, np.int64)


@_inlined
def next_item(control, total, worker, claim):
    """Claim the next item for `worker` and return it, or return -1 if no item is left.

    Every worker owns one contiguous range of the items 0 … total - 1 and claims its items from the front. Once its own
    range is finished, it claims items from the back of the other workers' ranges. A claim is counted before its item is
    chosen, so no item is claimed twice. `claim`, int64 (2,), belongs to the worker: [offset of the range's owner, next
    item at the front].
    """
    workers = (control.size // CONTROL_STRIDE) // 2
    while claim[0] < workers:
        owner = (worker + claim[0]) % workers
        first = total * owner // workers
        last = total * (owner + 1) // workers
        claimed = 2 * owner * CONTROL_STRIDE
        if _fetch_add(control, claimed, 1) < last - first:
            if owner == worker:
                claim[1] += 1
                return first + claim[1] - 1
            return last - 1 - _fetch_add(control, claimed + CONTROL_STRIDE, 1)
        claim[0] += 1
    return -1


@_inlined
def finish_item(control):
    """Count one more item as finished."""
    _fetch_add(control, control.size - CONTROL_STRIDE, 1)


@_entry
def finished(control, total, max_polls):
    """Return the number of finished items, as soon as it is `total` or after reading the counter `max_polls` times."""
    done = 0
    for _ in range(max_polls):
        done = _fetch_add(control, control.size - CONTROL_STRIDE, 0)
        if done >= total:
            break
    return done


# --- Elementary functions, written so that the compiler turns them into vector instructions ---------------------------


@_inlined
def _sin_quarter(x):
    """Return sin(πx) for |x| ≤ 1/2, single precision."""
    y = x * x
    return x * (_S0 + y * (_S1 + y * (_S2 + y * (_S3 + y * (_S4 + y * _S5)))))


@_inlined
def _cos_half_turns(x):
    """Return cos(πx) for |x| ≤ 1."""
    return _sin_quarter(_HALF - abs(x))


@_inlined
def _sin_half_turns(x):
    """Return sin(πx) for |x| ≤ 1; its relative error is small also for small x."""
    s = _sin_quarter(min(abs(x), _ONE - abs(x)))
    return s if x >= _F(0.0) else -s


@_inlined
def _ln(x):
    """Return the natural logarithm of a positive normal float32."""
    bits = np.float32(x).view(np.int32)
    exponent = np.int32((bits >> np.int32(23)) - np.int32(127))
    mantissa = np.int32((bits & np.int32(0x7FFFFF)) | np.int32(0x3F800000)).view(np.float32)
    high = mantissa > _SQRT_2
    f = (mantissa * _HALF if high else mantissa) - _ONE
    e = np.float32(exponent) + (_ONE if high else _F(0.0))
    return e * _LN_2 + f * (_L0 + f * (_L1 + f * (_L2 + f * (_L3 + f * (_L4 + f * (_L5 + f * (_L6 + f * _L7)))))))


# --- Random numbers ---------------------------------------------------------------------------------------------------

_GOLDEN = np.uint64(0x9E3779B97F4A7C15)
_MIX_1 = np.uint64(0xBF58476D1CE4E5B9)
_MIX_2 = np.uint64(0x94D049BB133111EB)
_S27, _S30, _S31, _S32 = np.uint64(27), np.uint64(30), np.uint64(31), np.uint64(32)


@_inlined
def _mix(z):
    """Return the output function of SplitMix64 (Steele, Lea and Flood 2014)."""
    z = (z ^ (z >> _S30)) * _MIX_1
    z = (z ^ (z >> _S27)) * _MIX_2
    return z ^ (z >> _S31)


@_inlined
def stream_start(key, evaluation, item):
    """Return the counter at which the noise of one item begins."""
    return _mix(_mix(key + np.uint64(evaluation) * _GOLDEN) + np.uint64(item) * _GOLDEN)


@_inlined
def normals(start, out):
    """Fill `out`, float32 (even number, LANES), with standard normals number 0, 1, … from the counter `start` on.

    Counter-based SplitMix64, then the Box-Muller transform: two normals from each 64-bit word. Tails end at 6.6
    standard deviations.
    """
    for pair in range(out.shape[0] // 2):
        upper = out[2 * pair]
        lower = out[2 * pair + 1]
        first = np.uint64(pair * LANES + 1)
        for lane in range(LANES):
            word = _mix(start + (first + np.uint64(lane)) * _GOLDEN)
            u = np.float32(np.int32(np.uint32(word >> _S32) >> np.uint32(1))) * _F(2.0**-31) + _F(2.0**-32)
            angle = np.float32(np.int32(np.uint32(word))) * _F(2.0**-31)
            radius = np.sqrt(np.float32(-2.0) * _ln(u))
            upper[lane] = radius * _cos_half_turns(angle)
            lower[lane] = radius * _sin_half_turns(angle)


@_entry
def fill_normals(key, number, out):
    """Fill `out`, float32 (even number, LANES), with the standard normals that belong to `number`."""
    normals(stream_start(key, 0, number), out)


@_entry
def follow_process(key, steps, steps_per_tau, sigma, level, lefts, at_left, at_right, draws, out):
    """Write an Ornstein-Uhlenbeck process at each of `steps` to `out`, float32 (steps, size).

    The compiled version of `drift.OrnsteinUhlenbeck.at`, for few processes on many steps. Row l of `lefts`, `at_left`
    and `at_right` has the interval of 2^l steps that contains the present step, and the values at its ends; rows from
    level[0] on are valid. `draws`, float32 (even number, LANES), is a temporary array.
    """
    top = lefts.size - 1
    size = out.shape[1]
    deviates = draws.reshape(draws.size)
    at = level[0]
    for k in range(steps.size):
        step = steps[k]
        while at <= top and not 0 <= step - lefts[at] < (1 << at):
            at += 1
        if at > top:
            at = top
            lefts[at] = (step >> at) << at
            normals(stream_start(key, 0, lefts[at]), draws)
            for c in range(size):
                at_left[at, c] = sigma * deviates[c]
            normals(stream_start(key, 0, lefts[at] + (1 << at)), draws)
            for c in range(size):
                at_right[at, c] = sigma * deviates[c]
        while step != lefts[at]:
            half = 1 << (at - 1)
            middle = lefts[at] + half
            decay = np.exp(-half / steps_per_tau)
            mean = np.float32(decay / (1.0 + decay * decay))
            spread = np.float32(sigma * np.sqrt(-np.expm1(-2.0 * half / steps_per_tau) / (1.0 + decay * decay)))
            normals(stream_start(key, 0, middle), draws)
            late = step >= middle
            lefts[at - 1] = middle if late else lefts[at]
            for c in range(size):
                between = mean * (at_left[at, c] + at_right[at, c]) + spread * deviates[c]
                at_left[at - 1, c] = between if late else at_left[at, c]
                at_right[at - 1, c] = at_right[at, c] if late else between
            at -= 1
        for c in range(size):
            out[k, c] = at_left[at, c]
    level[0] = at


# --- Volts to coefficients --------------------------------------------------------------------------------------------


@_nan_safe
def within_limits(drives, min_v, max_v, other_stages_v2, max_total_v2):
    """Return whether every drive is in [min_v, max_v] and every setting's sum of squares is at most `max_total_v2`.

    NaN is not within limits; the function is compiled without the part of fastmath that assumes that there is no NaN.
    If the result is False, `photonloop.protocols.limits` checks the drives again and raises the error.
    """
    good = True
    for s in range(drives.shape[0]):
        for c in range(drives.shape[1]):
            v = drives[s, c]
            good &= (v >= min_v) & (v <= max_v[c])
        if max_total_v2 > 0.0:
            total = other_stages_v2
            for c in range(drives.shape[1]):
                total += drives[s, c] * drives[s, c]
            good &= total <= max_total_v2
    return good


@_inlined
def source_voltages(heaters, volts, start, out):
    """Write the output [V] of the sources of one chunk to `out`: `volts` and `out`, float64 (channels of the chunk,).

    DAC quantisation and integral nonlinearity, slow changes. `start` is the number of the chunk's first channel.
    """
    stop = start + out.size
    if heaters.lsb_v > 0.0:
        inverse = 1.0 / heaters.lsb_v
        for c in range(out.size):
            out[c] = np.floor(volts[c] * inverse + 0.5) * heaters.lsb_v
    else:
        for c in range(out.size):
            out[c] = volts[c]
    if heaters.bow.size > 0:
        bow, twist = heaters.bow[start:stop], heaters.twist[start:stop]
        for c in range(out.size):
            v = out[c]
            out[c] = v + v * (heaters.range_v - v) * (bow[c] + twist[c] * v)
    if heaters.gain.size > 0:
        gain, added_v = heaters.gain[start:stop], heaters.added_v[start:stop]
        for c in range(out.size):
            out[c] = out[c] * gain[c] + added_v[c]


@_inlined
def _add_source_noise(heaters, start, start_of_noise, deviates, out):
    """Add the noise of the sources of one chunk to their voltages `out`. `start` is the number of its first channel.

    A chunk uses fewer counters than it has channels, so chunks of any length have different ones.
    """
    if heaters.noise_v > 0.0:
        rows = 2 * ((out.size + 2 * LANES - 1) // (2 * LANES))
        normals(start_of_noise + np.uint64(start) * _GOLDEN, deviates[:rows])
        flat = deviates.reshape(deviates.size)
        for c in range(out.size):
            out[c] += heaters.noise_v * flat[c]


@_inlined
def _source_v(heaters, drive_v, source):
    """Return the output [V] of one source without noise: DAC quantisation, integral nonlinearity, slow changes."""
    v = drive_v[source]
    if heaters.lsb_v > 0.0:
        v = np.floor(v * (1.0 / heaters.lsb_v) + 0.5) * heaters.lsb_v
    if heaters.bow.size > 0:
        v = v + v * (heaters.range_v - v) * (heaters.bow[source] + heaters.twist[source] * v)
    if heaters.gain.size > 0:
        v = v * heaters.gain[source] + heaters.added_v[source]
    return v


@_inlined
def _rewire(heaters, drive_v, start, volts):
    """Replace the voltages of heaters with exchanged wires. `volts` begins with channel `start`."""
    for r in range(heaters.rewired.shape[0]):
        c = heaters.rewired[r, 0] - start
        if 0 <= c < volts.size:
            volts[c] = _source_v(heaters, drive_v, heaters.rewired[r, 1])


@_inlined
def _force(heaters, start, volts):
    """Replace the voltages of heaters with stuck sources. `volts` begins with channel `start`."""
    for f in range(heaters.forced.size):
        c = heaters.forced[f] - start
        if 0 <= c < volts.size:
            volts[c] = heaters.forced_v[f]


@_inlined
def powers(heaters, drive_v, chunk, start_of_noise, deviates, out):
    """Write the power [W] of one chunk of heaters to `out`, float64 (channels,).

    Output of the sources, exchanged and stuck ones, shared ground, V²/R, self-heating. `drive_v`: (channels,) [V].
    `start_of_noise` is the counter of the setting's noise, and `deviates`, float32 (rows, LANES), is a temporary array
    with a deviate for each channel of the chunk. Each effect is a loop of its own over data in the cache, so an absent
    effect costs nothing.
    """
    start = heaters.chunks[chunk]
    stop = heaters.chunks[chunk + 1]
    power = out[start:stop]
    source_voltages(heaters, drive_v[start:stop], start, power)
    _rewire(heaters, drive_v, start, power)
    _add_source_noise(heaters, start, start_of_noise, deviates, power)
    _force(heaters, start, power)
    if heaters.ground_ohm > 0.0:
        _lift_grounds(heaters, start, stop, out)
    conductance_s = heaters.conductance_s[start:stop]
    for c in range(power.size):
        power[c] = power[c] * power[c] * conductance_s[c]
    if heaters.self_heating > 0.0:
        inverse_pi_w = heaters.inverse_pi_w[start:stop]
        for c in range(power.size):
            power[c] = 2.0 * power[c] / (1.0 + np.sqrt(1.0 + 4.0 * heaters.self_heating * power[c] * inverse_pi_w[c]))


@_inlined
def _lift_grounds(heaters, start, stop, volts):
    """Replace the voltages of sources start … stop - 1 by those across their heaters, see `heater.ground_v`.

    The voltage of the ground is some mV, so single precision is enough for it.
    """
    first = np.searchsorted(heaters.grounds, start)
    heating = np.float32(4.0 * heaters.self_heating)
    for g in range(first, heaters.grounds.size - 1):
        low, high = heaters.grounds[g], heaters.grounds[g + 1]
        if low >= stop:
            break
        amperes, siemens = _F(0.0), _F(0.0)
        own, conductance_s, inverse_pi_w = volts[low:high], heaters.conductance_s[low:high], heaters.inverse_pi_w[low:high]
        for c in range(own.size):
            v, hot_s, per_w = np.float32(own[c]), np.float32(conductance_s[c]), np.float32(inverse_pi_w[c])
            # 1 + ρP/P_π = (1 + √(1 + 4ρP₀/P_π))/2
            hot_s *= _TWO / (_ONE + np.sqrt(_ONE + heating * v * v * hot_s * per_w))
            amperes += v * hot_s
            siemens += hot_s
        ground_v = heaters.ground_ohm * amperes / (1.0 + heaters.ground_ohm * siemens)
        for c in range(own.size):
            own[c] -= ground_v


@_inlined
def phasors(heaters, power, offset, received, pushed, chunk, out):
    """Write cos and sin of the phases of one chunk of shifters, times the field transmission, to `out` (2, channels).

    `power` [W] and `offset` [half turns]: (channels,); `received` and `pushed` as in `HeatScratch`, not used if there
    is no crosstalk. The phase is computed and reduced in double precision. In single precision its error would be
    1e-6 rad after several turns.
    """
    start = chunk * CHUNK
    stop = min(start + CHUNK, power.size)
    count = stop - start
    own, offsets, inverse_arm_w = power[start:stop], offset[start:stop], heaters.inverse_arm_w[start:stop]
    cosine, sine = out[0, start:stop], out[1, start:stop]
    if heaters.heat.rows.shape[0] > 0:
        others, added = received[start:stop], pushed[start:stop]
        for c in range(count):
            p = (own[c] + others[c]) * inverse_arm_w[c]
            h = offsets[c] + added[c] + p * (1.0 + heaters.curvature * p) * heaters.curve_scale
            r = np.float32(h - 2.0 * np.floor(h * 0.5 + 0.5))
            cosine[c] = heaters.field * _cos_half_turns(r)
            sine[c] = heaters.field * _sin_half_turns(r)
    else:
        for c in range(count):
            p = own[c] * inverse_arm_w[c]
            h = offsets[c] + p * (1.0 + heaters.curvature * p) * heaters.curve_scale
            r = np.float32(h - 2.0 * np.floor(h * 0.5 + 0.5))
            cosine[c] = heaters.field * _cos_half_turns(r)
            sine[c] = heaters.field * _sin_half_turns(r)


@_inlined
def _chunks(channels):
    return (channels + CHUNK - 1) // CHUNK


# --- Thermal crosstalk ------------------------------------------------------------------------------------------------


@_inlined
def lay_out_powers(heat, power, heat_map):
    """Write the power of each heater, float64 (channels,) [W], to its cell of the map."""
    for s in range(heat.sources.shape[0]):
        first, step, count, cell = heat.sources[s, 0], heat.sources[s, 1], heat.sources[s, 2], heat.sources[s, 3]
        cells = heat_map[cell : cell + count]
        if step == 1:
            own = power[first : first + count]
            for i in range(count):
                cells[i] = own[i]
        else:
            for i in range(count):
                cells[i] = power[first + step * i]


@_inlined
def gather_across(heat, scratch, start, stop):
    """Distribute the powers of half columns start … stop - 1 to the nodes along modes."""
    cells = heat.gather.size // (heat.gather_span.shape[0] * heat.padded)
    for x in range(start, stop):
        for b in range(heat.padded // LANES):
            even = times(_F(0.0), load_run(heat.gather, 0))
            odd = even
            for f in range(heat.feed_bounds[x], heat.feed_bounds[x + 1]):
                first, weights = heat.feeds[f, 0], heat.feeds[f, 1]
                table = weights * cells * heat.padded + b * LANES
                for j in range(heat.gather_span[weights, b, 0], heat.gather_span[weights, b, 1], 2):
                    even = plus_times(even, at(scratch.power, first + j), load_run(heat.gather, table + j * heat.padded))
                    odd = plus_times(odd, at(scratch.power, first + j + 1), load_run(heat.gather, table + (j + 1) * heat.padded))
            store_run(scratch.halves, x * heat.padded + b * LANES, plus_times(even, _ONE, odd))


@_inlined
def gather_along(heat, scratch, start, stop):
    """Distribute the powers of the half columns to the nodes start … stop - 1 along them."""
    for node in range(start, stop):
        low, high = heat.along_span[node, 0], heat.along_span[node, 1]
        for b in range(heat.padded // LANES):
            total = times(_F(0.0), load_run(scratch.halves, b * LANES))
            for x in range(low, high):
                total = plus_times(total, heat.along[node, x - low], load_run(scratch.halves, x * heat.padded + b * LANES))
            store_run(scratch.nodes, (node + heat.far_reach[0]) * heat.padded + b * LANES, total)


@_inlined
def exchange_far(heat, scratch, sums, start, stop):
    """Compute what nodes start … stop - 1 along half columns receive from all nodes.

    Nodes at equal distances on either side are added first, because they have the same share. `sums`, float32 (padded +
    LANES,), is a temporary array.
    """
    length = heat.far_share.size // (heat.far_reach[0] + 1)
    for node in range(start, stop):
        here = (node + heat.far_reach[0]) * heat.padded
        for b in range(heat.padded // LANES):
            low = max(b * LANES - heat.far_reach[1], 0) // LANES * LANES
            high = min((b + 1) * LANES + heat.far_reach[1], heat.nodes[1])
            first = times(_F(0.0), load_run(heat.far_share, 0))
            second, third, fourth = first, first, first
            for distance in range(heat.far_reach[0] + 1):
                left, right = here - distance * heat.padded, here + distance * heat.padded
                scale = _F(0.0) if distance == 0 else _ONE
                for m in range(low, high, LANES):
                    store_run(sums, m, plus_times(load_run(scratch.nodes, left + m), scale, load_run(scratch.nodes, right + m)))
                table = distance * length + (heat.padded - b * LANES) * LANES
                for m in range(low, high, 4):
                    place = table + m * LANES
                    first = plus_times(first, at(sums, m), load_run(heat.far_share, place))
                    second = plus_times(second, at(sums, m + 1), load_run(heat.far_share, place + LANES))
                    third = plus_times(third, at(sums, m + 2), load_run(heat.far_share, place + 2 * LANES))
                    fourth = plus_times(fourth, at(sums, m + 3), load_run(heat.far_share, place + 3 * LANES))
            total = plus_times(plus_times(first, _ONE, second), _ONE, plus_times(third, _ONE, fourth))
            store_run(scratch.far, node * heat.padded + b * LANES, total)


@_inlined
def receive(heat, scratch, across, start, stop):
    """Write the received powers of rows start … stop - 1. `across`, float32 (padded + LANES,), is a temporary array.

    Two blocks of lanes are computed together, so that they share shares and weights. In a row with an odd number of
    blocks, the last one is computed twice.
    """
    latest = -1
    blocks = heat.width // LANES
    for r in range(start, stop):
        x, cell, low, high, weights = heat.rows[r, 0], heat.rows[r, 1], heat.rows[r, 2], heat.rows[r, 3], heat.rows[r, 4]
        if heat.nodes[0] > 0 and x != latest:
            node = heat.back_first[x]
            for b in range(heat.padded // LANES):
                place = node * heat.padded + b * LANES
                total = times(heat.back[x, 0], load_run(scratch.far, place))
                for n in range(1, 4):
                    total = plus_times(total, heat.back[x, n], load_run(scratch.far, place + n * heat.padded))
                store_run(across, b * LANES, total)
            latest = x
        for b in range(0, blocks, 2):
            here = b * LANES
            beside = min(b + 1, blocks - 1) * LANES
            first = times(_F(0.0), load_run(scratch.power, cell))
            second, third, fourth = first, first, first
            for t in range(low, high, 2):
                share, place = at(heat.near_share, t), cell + at(heat.near_cell, t)
                first = plus_times(first, share, load_run(scratch.power, place + here))
                second = plus_times(second, share, load_run(scratch.power, place + beside))
                share, place = at(heat.near_share, t + 1), cell + at(heat.near_cell, t + 1)
                third = plus_times(third, share, load_run(scratch.power, place + here))
                fourth = plus_times(fourth, share, load_run(scratch.power, place + beside))
            if heat.nodes[0] > 0:
                table = weights * (heat.nodes[1] + 1) * heat.width
                stop_m = max(heat.spread_span[weights, b, 1], heat.spread_span[weights, beside // LANES, 1])
                start_m = min(heat.spread_span[weights, b, 0], heat.spread_span[weights, beside // LANES, 0])
                for m in range(start_m, stop_m, 2):
                    share, place = at(across, m), table + m * heat.width
                    first = plus_times(first, share, load_run(heat.spread, place + here))
                    second = plus_times(second, share, load_run(heat.spread, place + beside))
                    share, place = at(across, m + 1), place + heat.width
                    third = plus_times(third, share, load_run(heat.spread, place + here))
                    fourth = plus_times(fourth, share, load_run(heat.spread, place + beside))
            store_run(scratch.segments, r * heat.width + here, plus_times(first, _ONE, third))
            store_run(scratch.segments, r * heat.width + beside, plus_times(second, _ONE, fourth))


@_inlined
def pick_received(heat, segments, received):
    """Copy the power received by each heater's own segment to `received`, float32 (channels,)."""
    for s in range(heat.sources.shape[0]):
        first, step, count, cell = heat.sources[s, 0], heat.sources[s, 1], heat.sources[s, 2], heat.sources[s, 4]
        cells = segments[cell : cell + count]
        if step == 1:
            own = received[first : first + count]
            for i in range(count):
                own[i] = cells[i]
        else:
            for i in range(count):
                received[first + step * i] = cells[i]


@_inlined
def _reduced(half_turns):
    """Return an equal phase in [-1, 1) half turns."""
    return half_turns - 2.0 * np.floor(half_turns * 0.5 + 0.5)


@_inlined
def _pass_beside(heat, running, segments, place, top, count):
    """Add the phases of modes outside the interferometers of one column, above and below them, to their running phases.

    `place`: first cell of the column's half columns in `segments`. The interferometers are on modes top … top +
    2 · count - 1.
    """
    width, unheated = heat.width, heat.unheated
    for side in (0, 1):
        first = place + side * width
        row = running[side * width : (side + 1) * width]
        by_first, by_second = segments[first : first + width], segments[first + 2 * width : first + 3 * width]
        for j in range((top - side + 1) // 2):
            row[j] += unheated * (by_first[j] + by_second[j])
        for j in range((top + 2 * count - side + 1) // 2, width):
            row[j] += unheated * (by_first[j] + by_second[j])


@_inlined
def _pass_interferometers(heat, running, segments, place, top, count, theta, phi, pushed):
    """Push the phases of one column of interferometers, whose first channels are `theta` and `phi`."""
    width, unheated = heat.width, heat.unheated
    upper_at = (top % 2) * width + top // 2
    lower_at = ((top + 1) % 2) * width + (top + 1) // 2
    upper, lower = running[upper_at : upper_at + count], running[lower_at : lower_at + count]
    first = place + lower_at
    by_first, by_second = segments[first : first + count], segments[first + 2 * width : first + 2 * width + count]
    at_theta, at_phi = pushed[theta : theta + count], pushed[phi : phi + count]
    for i in range(count):
        at_theta[i] = -unheated * by_second[i]
    for i in range(count):
        h = upper[i] - lower[i] - unheated * by_first[i]
        at_phi[i] = h - 2.0 * np.floor(h * 0.5 + 0.5)
    for i in range(count):
        lower[i] += unheated * (by_first[i] + by_second[i])
    for i in range(count):
        upper[i] = lower[i]


@_inlined
def _pass_attenuators(heat, running, segments, place, count, theta, phi, pushed):
    """Push the phases of one column of attenuators; `place`: first cell of their other arms in `segments`."""
    for i in range(count):
        mode = (i % 2) * heat.width + i // 2  # in rows of other arms as in rows of modes
        lower = heat.unheated * segments[place + mode]
        pushed[theta + i] = _reduced(-lower)
        pushed[phi + i] = _reduced(running[mode])
        running[mode] = lower


@_inlined
def find_running_phases(heat, scratch, pushed):
    """Write the phase that other arms and running phases add to each channel, see `running_phase`, to `pushed`.

    In half turns, at most one turn; float32 (channels,).
    """
    segments, running, width = scratch.segments, scratch.running, heat.width
    for i in range(running.size):
        running[i] = 0.0
    for k in range(heat.columns.shape[0]):
        theta, phi, count, top = heat.columns[k, 0], heat.columns[k, 1], heat.columns[k, 2], heat.columns[k, 3]
        if heat.columns[k, 4] == 1:
            _pass_attenuators(heat, running, segments, heat.columns[k, 5] * width, count, theta, phi, pushed)
        else:
            _pass_beside(heat, running, segments, 4 * k * width, top, count)
            _pass_interferometers(heat, running, segments, 4 * k * width, top, count, theta, phi, pushed)
    end = 4 * heat.columns.shape[0] * width
    for s in range(heat.sources.shape[0]):  # γ: the runs of the last half column
        first, step, cell = heat.sources[s, 0], heat.sources[s, 1], heat.sources[s, 4]
        if end <= cell < end + 2 * width:
            for i in range(heat.sources[s, 2]):
                pushed[first + step * i] = _reduced(running[cell - end + i])


@_inlined
def warm(heat, power, scratch, received, pushed):
    """Compute `received` and `pushed` of one setting, float32 (channels,), from heater powers, float64 (channels,)."""
    lay_out_powers(heat, power, scratch.power)
    if heat.nodes[0] > 0:
        gather_across(heat, scratch, 0, heat.feed_bounds.size - 1)
        gather_along(heat, scratch, 0, heat.nodes[0])
        exchange_far(heat, scratch, scratch.across, 0, heat.nodes[0])
    receive(heat, scratch, scratch.across, 0, heat.rows.shape[0])
    pick_received(heat, scratch.segments, received)
    if heat.columns.shape[0] > 0:
        find_running_phases(heat, scratch, pushed)


@_inlined
def coefficients(phasor, theta, phi, couplers, out):
    """Write each interferometer's 2 × 2 matrix to `out`, float32 (interferometers, 8), row by row as re, im.

    `couplers`, float32 (interferometers, 4): cos·cos, sin·sin, cos₂·sin₁, sin₂·cos₁ of the two couplers' angles, times
    the field transmission of the interferometer. Then

        M = B₂ · diag(e^{iθ}, 1) · B₁ · diag(e^{iφ}, 1),   B = [[cos, i sin], [i sin, cos]]

    The phasor of a lossy shifter is shorter than 1.
    """
    last = theta.size - 1
    for k in range(theta.size):
        # The sweep's order jumps between columns, and the phasors of a large mesh do not fit in the second-level cache.
        soon = min(k + _AHEAD, last)
        _prefetch(phasor, 0, theta[soon])
        _prefetch(phasor, 1, theta[soon])
        _prefetch(phasor, 0, phi[soon])
        _prefetch(phasor, 1, phi[soon])
        ct = phasor[0, theta[k]]
        st = phasor[1, theta[k]]
        cp = phasor[0, phi[k]]
        sp = phasor[1, phi[k]]
        cc, ss, cs, sc = couplers[k, 0], couplers[k, 1], couplers[k, 2], couplers[k, 3]
        ur = cc * ct - ss
        ui = cc * st
        vr = sc * ct + cs
        vi = sc * st
        out[k, 0] = ur * cp - ui * sp
        out[k, 1] = ur * sp + ui * cp
        out[k, 2] = -cs * st
        out[k, 3] = cs * ct + sc
        out[k, 4] = -(vr * sp + vi * cp)
        out[k, 5] = vr * cp - vi * sp
        out[k, 6] = cc - ss * ct
        out[k, 7] = -ss * st


@_inlined
def attenuate(attenuators, start, stop, out):
    """Replace each attenuator's matrix in `out` by diag(M₀₀, 1) or diag(1, M₀₀), with M₀₀ on the attenuator's mode.

    `attenuators`, int64 (count, 2): number of the matrix, and 0 if the mode is the upper one of its two, 1 if it is the
    lower one. Only matrices start … stop - 1 are changed.
    """
    for a in range(attenuators.shape[0]):
        k = attenuators[a, 0]
        if not start <= k < stop:
            continue
        here = 6 * attenuators[a, 1]
        re, im = out[k, 0], out[k, 1]
        for j in range(8):
            out[k, j] = _F(0.0)
        out[k, 6 - here] = _ONE
        out[k, here] = re
        out[k, here + 1] = im


# --- Fields through a mesh --------------------------------------------------------------------------------------------


@_entry
def gather(source, rows, blocks):
    """Copy `rows` of `source`, float32 (rows, ports, 1 or 2: re, im), into blocks. Lanes without a sample are 0."""
    ports = source.shape[1]
    for b in range(blocks.shape[0]):
        block = blocks[b]
        count = min(LANES, rows.size - b * LANES)
        if source.shape[2] == 1 or count < LANES:
            for p in range(ports):
                for lane in range(LANES):
                    block[p, 0, lane] = _F(0.0)
                    block[p, 1, lane] = _F(0.0)
        for lane in range(count):
            row = source[rows[b * LANES + lane]]
            if source.shape[2] == 2:
                for p in range(ports):
                    block[p, 0, lane] = row[p, 0]
                    block[p, 1, lane] = row[p, 1]
            else:
                for p in range(ports):
                    block[p, 0, lane] = row[p, 0]


@_entry
def scale_ports(blocks, factors, out):
    """Multiply the fields of each port of `blocks` by its factor, once per row of `factors`.

    `factors`: float32 (sets, ports, 2: re, im). `out`: float32 (sets · blocks, ports, 2, LANES).
    """
    count = blocks.shape[0]
    for b in range(out.shape[0]):
        block, factor = blocks[b % count], factors[b // count]
        for p in range(block.shape[0]):
            fr, fi = factor[p, 0], factor[p, 1]
            for lane in range(LANES):
                xr, xi = block[p, 0, lane], block[p, 1, lane]
                out[b, p, 0, lane] = fr * xr - fi * xi
                out[b, p, 1, lane] = fr * xi + fi * xr


@_as_written
def sweep(block, tops, matrices):
    """Propagate one block through a mesh in place: per interferometer one 2 × 2 product on modes top and top + 1.

    The upper mode stays in registers. If the next interferometer couples it to the mode above, as along the chains of
    `mesh.schedule`, only one mode is loaded and one stored. Any other causal order gives the same result, but is
    slower.
    """
    held = tops[0] + 1
    yr, yi = load_lanes(block, held, 0), load_lanes(block, held, 1)
    for k in range(tops.size):
        top = tops[k]
        if top + 1 != held:
            store_lanes(block, held, 0, yr)
            store_lanes(block, held, 1, yi)
            held = top + 1
            yr, yi = load_lanes(block, held, 0), load_lanes(block, held, 1)
        ar, ai, br, bi = matrices[k, 0], matrices[k, 1], matrices[k, 2], matrices[k, 3]
        cr, ci, dr, di = matrices[k, 4], matrices[k, 5], matrices[k, 6], matrices[k, 7]
        xr, xi = load_lanes(block, top, 0), load_lanes(block, top, 1)
        # The mode in registers comes last in every sum, so the other terms do not wait for the previous interferometer.
        store_lanes(block, held, 0, minus_times(plus_times(minus_times(times(cr, xr), ci, xi), dr, yr), di, yi))
        store_lanes(block, held, 1, plus_times(plus_times(plus_times(times(cr, xi), ci, xr), dr, yi), di, yr))
        upper_r = minus_times(plus_times(minus_times(times(ar, xr), ai, xi), br, yr), bi, yi)
        upper_i = plus_times(plus_times(plus_times(times(ar, xi), ai, xr), br, yi), bi, yr)
        held, yr, yi = top, upper_r, upper_i
    store_lanes(block, held, 0, yr)
    store_lanes(block, held, 1, yi)


@_inlined
def leave_stage(field, screen, electro_optic, half_gain, cos_bias, sin_bias, amplitude, factor):
    """Propagate one block from the end of a mesh to the next one: output phase screen, tap transmission, nonlinearity.

    `screen`, float32 (2, ports): cos and sin of γ. With `electro_optic` (Williamson 2020) the field is multiplied by
    amplitude · exp(-ia) · cos(a) with a = π·half_gain·|E|² + half the bias, otherwise by `amplitude` alone. The bias is
    given as its cos and sin: added to the angle, it would make the small angles of weak light at later stages vanish
    in rounding. `factor`, float32 (2, LANES), is a temporary array.
    """
    for p in range(field.shape[0]):
        cg, sg = screen[0, p], screen[1, p]
        # Three short loops, because the compiler does not turn one long loop into vector instructions.
        for lane in range(LANES):
            xr, xi = field[p, 0, lane], field[p, 1, lane]
            x = half_gain * (xr * xr + xi * xi)
            factor[0, lane] = x - _TWO * np.floor(x * _HALF + _HALF)
        for lane in range(LANES):
            cx, sx = _cos_half_turns(factor[0, lane]), _sin_half_turns(factor[0, lane])
            c = cx * cos_bias - sx * sin_bias
            factor[0, lane] = amplitude * c * c if electro_optic else amplitude
            factor[1, lane] = -amplitude * c * (sx * cos_bias + cx * sin_bias) if electro_optic else _F(0.0)
        for lane in range(LANES):
            xr, xi = field[p, 0, lane], field[p, 1, lane]
            gr = factor[0, lane] * cg - factor[1, lane] * sg
            gi = factor[0, lane] * sg + factor[1, lane] * cg
            field[p, 0, lane] = xr * gr - xi * gi
            field[p, 1, lane] = xr * gi + xi * gr


@_entry
def propagate(worker, control, total, blocks, tops, matrices, screen, electro_optic, half_gain, cos_bias, sin_bias, amplitude):
    """Propagate `blocks` through one stage at the held drive, in place. An item is a block."""
    factor = np.empty((2, LANES), np.float32)
    claim = np.zeros(2, np.int64)
    while True:
        item = next_item(control, total, worker, claim)
        if item < 0:
            break
        sweep(blocks[item], tops, matrices)
        leave_stage(blocks[item], screen, electro_optic, half_gain, cos_bias, sin_bias, amplitude, factor)
        finish_item(control)


@_entry
def scatter(blocks, rows, target):
    """Copy blocks to `rows` of `target`, float32 (rows, ports, 2)."""
    for b in range(blocks.shape[0]):
        block = blocks[b]
        for lane in range(min(LANES, rows.size - b * LANES)):
            row = target[rows[b * LANES + lane]]
            for p in range(target.shape[1]):
                row[p, 0] = block[p, 0, lane]
                row[p, 1] = block[p, 1, lane]


# --- Fields to photocurrents ------------------------------------------------------------------------------------------


# Each effect is one long loop over all detectors and lanes, which the compiler turns into vector instructions. It does
# not do so with nested loops over 16 lanes here.


@_inlined
def _photocurrents(readout, laser_power, field, noise, current):
    """Write photocurrents to `current`: ampere · laser_power · |E|² · (1 + RIN), diode saturation, dark current.

    The next to last row of `noise` is used for RIN.
    """
    ports = field.shape[0]
    if readout.rin > _F(0.0):
        common = noise[noise.shape[0] - 2]
        for lane in range(LANES):
            common[lane] = laser_power * (_ONE + readout.rin * common[lane])
        for p in range(ports):
            for lane in range(LANES):
                xr, xi = field[p, 0, lane], field[p, 1, lane]
                current[p * LANES + lane] = common[lane] * (xr * xr + xi * xi)
    else:
        for p in range(ports):
            for lane in range(LANES):
                xr, xi = field[p, 0, lane], field[p, 1, lane]
                current[p * LANES + lane] = laser_power * (xr * xr + xi * xi)
    for i in range(current.size):
        current[i] *= readout.ampere[i]
    if readout.inverse_saturation > _F(0.0):
        for i in range(current.size):
            current[i] /= _ONE + readout.inverse_saturation * current[i]
    for i in range(current.size):
        current[i] += readout.dark_a[i]


@_inlined
def _clip(current, count, full_scale_a, flags):
    """Limit currents to full scale, and set bit 0 of `flags` of each detector whose first `count` lanes reach it."""
    peak = _F(0.0)
    for i in range(current.size):
        peak = max(peak, current[i])
    if peak >= full_scale_a:
        for i in range(current.size):
            if i % LANES < count and current[i] >= full_scale_a:
                flags[i // LANES] |= np.uint32(1)
            current[i] = min(current[i], full_scale_a)


@_inlined
def detect(readout, laser_power, field, noise, current, count, flags, out, first):
    """Write the readings of a block's first `count` samples to `out`, float32 (samples, ports), from row `first` on.

    Photocurrent; noise of variance thermal_a2 + shot_a · current; then the converter: gain, offset, and steps of
    `code_a` from 0 to `full_scale_a`. Bit 0 of `flags`, uint32 (ports,), is set for detectors that saturate. If the
    amplifier has memory, `out` gets the currents in front of it, for `convert_settings`. `laser_power` is relative to
    nominal. `noise` is overwritten, and `current`, float32 (ports · LANES,), is a temporary array.
    """
    _photocurrents(readout, laser_power, field, noise, current)
    if readout.thermal_a2 > _F(0.0) or readout.shot_a > _F(0.0):
        deviates = noise.reshape(noise.size)
        for i in range(current.size):
            current[i] += np.sqrt(readout.thermal_a2 + readout.shot_a * current[i]) * deviates[i]
    if readout.kept == _F(0.0):
        if readout.gain.size > 0:
            for i in range(current.size):
                current[i] = current[i] * readout.gain[i] + readout.offset_a[i]
        if readout.full_scale_a > _F(0.0):
            _clip(current, count, readout.full_scale_a, flags)
        if readout.code_a > _F(0.0):
            inverse = _ONE / readout.code_a
            for i in range(current.size):
                current[i] = max(np.floor(current[i] * inverse + _HALF), _F(0.0)) * readout.code_a
    for lane in range(count):
        for p in range(field.shape[0]):
            out[first + lane, p] = current[p * LANES + lane]


@_inlined
def _setting_phasors(heaters, drive, offset, start_of_noise, scratch):
    """Compute the phasors of one setting, `drive` (channels,) [V], with settled heaters, in `scratch`."""
    for chunk in range(_chunks(scratch.power.size)):
        powers(heaters, drive, chunk, start_of_noise, scratch.source, scratch.power)
    if heaters.heat.rows.shape[0] > 0:
        warm(heaters.heat, scratch.power, scratch.heat, scratch.heat.received, scratch.heat.pushed)
    for chunk in range(_chunks(scratch.power.size)):
        phasors(heaters, scratch.power, offset, scratch.heat.received, scratch.heat.pushed, chunk, scratch.phasor)


@_inlined
def _fill_noise(readout, start, first, rin_rows, noise):
    """Fill the rows of `noise` that are used. The last `rin_rows` rows are for RIN. `first` is the first sample."""
    if readout.rin > _F(0.0):
        normals(start, noise)
    elif readout.thermal_a2 > _F(0.0) or readout.shot_a > _F(0.0):
        normals(start, noise[: noise.shape[0] - rin_rows])
    if readout.kept > _F(0.0) and first == 0:
        for r in range(noise.shape[0]):
            noise[r, 0] *= readout.first_scale


@_inlined
def _read_block(block, tops, matrices, readout, laser_power, scratch, start, count, flags, out, first):
    """Propagate one block through a mesh and detect it. `start` is the counter of its noise."""
    field, noise = scratch.field, scratch.noise
    for p in range(field.shape[0]):  # an assignment of whole arrays takes half a minute to compile
        for lane in range(LANES):
            field[p, 0, lane] = block[p, 0, lane]
            field[p, 1, lane] = block[p, 1, lane]
    sweep(field, tops, matrices)
    _fill_noise(readout, start, first, 2, noise)
    detect(readout, laser_power, field, noise, scratch.current, count, flags, out, first)


@_entry
def detect_settings(
    worker, control, total, blocks, first_block, drives, offset, heaters, wiring, readout, laser_power, scratch, counters,
    first_sample, flags, out,
):  # fmt: skip
    """Read every item, one block of one setting: drives (S, channels) [V] → out, float32 (S, samples, ports) [A].

    The first block has the samples from `first_sample` on. Each worker computes the matrices of a setting when it
    reaches the first of its blocks. `scratch` belongs to the worker. Item i uses the noise of number first_item + i.
    Bit 0 of flags[s, p] is set if a reading of detector p saturates.

    `first_block`, int64 (S,), is the number of each setting's first block: settings may share their blocks, or not.
    """
    claim = np.zeros(2, np.int64)
    count = (out.shape[1] - first_sample + LANES - 1) // LANES
    ready = -1
    while True:
        item = next_item(control, total, worker, claim)
        if item < 0:
            break
        setting = item // count
        block = item % count
        if setting != ready:
            noise = stream_start(counters.sources, counters.evaluation, counters.first_setting + setting)
            _setting_phasors(heaters, drives[setting], offset, noise, scratch)
            coefficients(scratch.phasor, wiring.theta, wiring.phi, wiring.couplers, scratch.matrices)
            attenuate(wiring.attenuators, 0, scratch.matrices.shape[0], scratch.matrices)
            ready = setting
        first = first_sample + block * LANES
        lanes = min(LANES, out.shape[1] - first)
        start = stream_start(counters.readings, counters.evaluation, counters.first_item + item)
        _read_block(
            blocks[first_block[setting] + block], wiring.tops, scratch.matrices, readout, laser_power, scratch, start, lanes,
            flags[setting], out[setting], first,
        )  # fmt: skip
        finish_item(control)


@_entry
def find_powers(worker, control, total, drives, heaters, counters, deviates, out):
    """Write the power [W] of every heater: drives (S, channels) [V] → out, float64 (S, channels).

    An item is a chunk of a setting. `deviates`, as in `powers`, belongs to the worker.
    """
    claim = np.zeros(2, np.int64)
    count = _chunks(out.shape[1])
    while True:
        item = next_item(control, total, worker, claim)
        if item < 0:
            break
        setting = item // count
        noise = stream_start(counters.sources, counters.evaluation, counters.first_setting + setting)
        powers(heaters, drives[setting], item % count, noise, deviates, out[setting])
        finish_item(control)


@_entry
def find_heat(worker, control, total, heat, scratch, power, received, pushed):
    """Write received powers and pushed phases of every setting: power (S, channels) [W] → float32 (S, channels) both.

    An item is a setting. `scratch` belongs to the worker.
    """
    claim = np.zeros(2, np.int64)
    while True:
        item = next_item(control, total, worker, claim)
        if item < 0:
            break
        warm(heat, power[item], scratch, received[item], pushed[item])
        finish_item(control)


HEAT_SHARE = 16
"""Half columns, nodes or rows per item of `share_heat`."""


@_entry
def share_heat(worker, control, total, step, heat, scratch, power, received, pushed):
    """Carry out one step of `warm` for a large mesh: power (channels,) [W] → received, pushed, float32 (channels,).

    All workers share `scratch`. Steps: 0 powers to the map, 1 to nodes along modes, 2 to all nodes, 3 nodes to nodes,
    4 to segments, 5 running phases. Steps 0 and 5 are single items. Items of the other steps are HEAT_SHARE half
    columns, nodes or rows.
    """
    claim = np.zeros(2, np.int64)
    across = np.zeros(heat.padded + LANES, np.float32)
    while True:
        item = next_item(control, total, worker, claim)
        if item < 0:
            break
        start = item * HEAT_SHARE
        if step == 0:
            lay_out_powers(heat, power, scratch.power)
        elif step == 1:
            gather_across(heat, scratch, start, min(start + HEAT_SHARE, heat.feed_bounds.size - 1))
        elif step == 2:
            gather_along(heat, scratch, start, min(start + HEAT_SHARE, heat.nodes[0]))
        elif step == 3:
            exchange_far(heat, scratch, across, start, min(start + HEAT_SHARE, heat.nodes[0]))
        elif step == 4:
            receive(heat, scratch, across, start, min(start + HEAT_SHARE, heat.rows.shape[0]))
        else:
            pick_received(heat, scratch.segments, received)
            if heat.columns.shape[0] > 0:
                find_running_phases(heat, scratch, pushed)
        finish_item(control)


@_entry
def find_phasors(worker, control, total, power, offset, heaters, received, pushed, out):
    """Write the phasor of every shifter: power (S, channels) [W] → out (S, 2, channels).

    An item is a chunk of a setting. `received` and `pushed` as from `find_heat`.
    """
    claim = np.zeros(2, np.int64)
    count = _chunks(power.shape[1])
    while True:
        item = next_item(control, total, worker, claim)
        if item < 0:
            break
        setting = item // count
        phasors(heaters, power[setting], offset, received[setting], pushed[setting], item % count, out[setting])
        finish_item(control)


@_entry
def find_matrices(worker, control, total, phasor, wiring, out):
    """Write the matrix of every interferometer: phasor (S, 2, channels) → out (S, interferometers, 8).

    An item is a chunk of a setting.
    """
    claim = np.zeros(2, np.int64)
    count = _chunks(out.shape[1])
    while True:
        item = next_item(control, total, worker, claim)
        if item < 0:
            break
        setting = item // count
        start = item % count * CHUNK
        stop = min(start + CHUNK, out.shape[1])
        theta, phi, factors = wiring.theta[start:stop], wiring.phi[start:stop], wiring.couplers[start:stop]
        coefficients(phasor[setting], theta, phi, factors, out[setting, start:stop])
        attenuate(wiring.attenuators, start, stop, out[setting])
        finish_item(control)


@_entry
def read_prepared(
    worker, control, total, blocks, plan, matrices, tops, readout, laser_power, scratch, counters, flags, out,
):  # fmt: skip
    """Read every item of a plan, with given matrices: → out, float32 (settings, samples, ports) [A].

    `plan`, int64 (items, 6), has the number of the block, of its set of matrices, of its setting, of its first sample,
    the number of samples in it, and the number of its noise.
    """
    claim = np.zeros(2, np.int64)
    while True:
        item = next_item(control, total, worker, claim)
        if item < 0:
            break
        block, matrix_set, setting = plan[item, 0], plan[item, 1], plan[item, 2]
        first, lanes, number = plan[item, 3], plan[item, 4], plan[item, 5]
        start = stream_start(counters.readings, counters.evaluation, number)
        _read_block(
            blocks[block], tops, matrices[matrix_set], readout, laser_power, scratch, start, lanes, flags[setting], out[setting],
            first,
        )  # fmt: skip
        finish_item(control)


@_inlined
def _clip_row(row, full_scale_a, is_signed, flags):
    """Limit one sample's readings of all detectors, and set bit 0 of `flags` of each detector that reaches a limit."""
    peak = _F(0.0)
    for p in range(row.size):
        peak = max(peak, abs(row[p]) if is_signed else row[p])
    if peak >= full_scale_a:
        for p in range(row.size):
            if row[p] >= full_scale_a or (is_signed and row[p] <= -full_scale_a):
                flags[p] |= np.uint32(1)
            row[p] = min(row[p], full_scale_a)
            if is_signed:
                row[p] = max(row[p], -full_scale_a)


@_inlined
def _quantise_row(row, code_a, is_signed):
    """Round one sample's readings of all detectors to steps of `code_a`, halves up; not below 0 if not `is_signed`."""
    inverse = _ONE / code_a
    for p in range(row.size):
        row[p] = np.floor(row[p] * inverse + _HALF) * code_a
    if not is_signed:
        for p in range(row.size):
            row[p] = max(row[p], _F(0.0))


@_entry
def convert_settings(worker, control, total, readout, is_signed, scratch, counters, flags, out):
    """Replace currents in front of amplifiers with memory by readings: out, float32 (settings, samples, ports) [A].

    An item is a setting. The amplifier keeps the share `kept` of its previous output, and has settled at the first
    sample. Then the converter, as in `detect`, with its own noise. `is_signed`: its range begins at -full_scale_a, not
    at 0.
    """
    claim = np.zeros(2, np.int64)
    samples, ports = out.shape[1], out.shape[2]
    gain, offset_a = scratch.current[:ports], scratch.current[ports : 2 * ports]
    output, row = scratch.current[2 * ports : 3 * ports], scratch.current[3 * ports : 4 * ports]
    deviates = scratch.noise.reshape(scratch.noise.size)
    for p in range(ports):
        gain[p] = readout.gain[p * LANES] if readout.gain.size > 0 else _ONE
        offset_a[p] = readout.offset_a[p * LANES] if readout.offset_a.size > 0 else _F(0.0)
    blocks = (samples + LANES - 1) // LANES
    rows = ports + ports % 2
    while True:
        setting = next_item(control, total, worker, claim)
        if setting < 0:
            break
        currents = out[setting]
        for p in range(ports):
            output[p] = currents[0, p]
        for t in range(samples):
            lane = t % LANES
            if lane == 0 and readout.converter_a > _F(0.0):
                number = (counters.first_setting + setting) * blocks + t // LANES
                normals(stream_start(counters.converters, counters.evaluation, number), scratch.noise[:rows])
            reading, normal = currents[t], deviates[lane * ports : (lane + 1) * ports]
            for p in range(ports):
                output[p] = reading[p] + readout.kept * (output[p] - reading[p])
                row[p] = output[p] * gain[p] + offset_a[p]
            if readout.converter_a > _F(0.0):
                for p in range(ports):
                    row[p] += readout.converter_a * normal[p]
            if readout.full_scale_a > _F(0.0):
                _clip_row(row, readout.full_scale_a, is_signed, flags[setting])
            if readout.code_a > _F(0.0):
                _quantise_row(row, readout.code_a, is_signed)
            for p in range(ports):
                reading[p] = row[p]
        finish_item(control)


# --- Weight banks -----------------------------------------------------------------------------------------------------


@_inlined
def _row_shares(phasor, rings, first_ring, start, stop, row, out):
    """Write the transmissions of wavelengths start … stop - 1 of one row with spectral crosstalk to its rows of `out`.

    `row`, float32 (3, M), is a temporary array.
    """
    dropped, passing = row[0], row[1]
    for k in range(start, stop):
        dropped[k] = _F(0.0)
        passing[k] = _ONE
    for m in range(rings.inputs):
        own_c, own_s = phasor[0, first_ring + m], phasor[1, first_ring + m]
        far_c, far_s = rings.spacing[0, m], rings.spacing[1, m]
        zero_c, zero_s = own_c * far_c + own_s * far_s, own_s * far_c - own_c * far_s  # half the phase for wavelength 0
        for k in range(start, stop):
            s = zero_s * rings.wavelengths[0, k] + zero_c * rings.wavelengths[1, k]
            x2 = rings.steepness_2 * s * s
            arriving = passing[k] / (_ONE + x2)
            dropped[k] += rings.dropped * arriving
            passing[k] = (rings.leaked + x2) * arriving
    for k in range(start, stop):
        out[first_ring + k, 0] = dropped[k]
        out[first_ring + k, 1] = passing[k]


@_inlined
def _row_interference(phasor, rings, first_ring, start, stop, row, out):
    """Write the transmissions as `_row_shares` does, from fields: light on the drop bus interferes (`ring_rows`)."""
    r, a, lost = rings.couplers[0], rings.couplers[1], rings.couplers[2]
    b, open_share, drop_field = rings.couplers[3], rings.couplers[4], rings.couplers[5]
    re, im, passing = row[0], row[1], row[2]
    for k in range(start, stop):
        re[k] = _F(0.0)
        im[k] = _F(0.0)
        passing[k] = _ONE
    for m in range(rings.inputs - 1, -1, -1):
        own_c, own_s = phasor[0, first_ring + m], phasor[1, first_ring + m]
        far_c, far_s = rings.spacing[0, m], rings.spacing[1, m]
        zero_c, zero_s = own_c * far_c + own_s * far_s, own_s * far_c - own_c * far_s
        bus_c, bus_s = rings.bus[0, first_ring + m], rings.bus[1, first_ring + m]
        for k in range(start, stop):
            wave_c, wave_s = rings.wavelengths[0, k], rings.wavelengths[1, k]
            c, s = zero_c * wave_c - zero_s * wave_s, zero_s * wave_c + zero_c * wave_s
            s2, sine = _TWO * s * s, _TWO * s * c  # 1 - cos φ and sin φ
            # 1/(1 - b e^{iφ}), then t and d
            inverse = _ONE / (open_share * open_share + _TWO * b * s2)
            vr, vi = (open_share + b * s2) * inverse, b * sine * inverse
            nr, ni = r * (lost + a * s2), -r * a * sine
            tr, ti = nr * vr - ni * vi, nr * vi + ni * vr
            dr, di = -drop_field * (c * vr - s * vi), -drop_field * (c * vi + s * vr)
            # B = R e^{iβ}
            ur = bus_c * rings.bus_wavelengths[0, k] - bus_s * rings.bus_wavelengths[1, k]
            ui = bus_s * rings.bus_wavelengths[0, k] + bus_c * rings.bus_wavelengths[1, k]
            br, bi = re[k] * ur - im[k] * ui, re[k] * ui + im[k] * ur
            # B/(1 - d B)
            qr, qi = _ONE - dr * br + di * bi, -(dr * bi + di * br)
            rounds = _ONE / (qr * qr + qi * qi)
            gr, gi = (br * qr + bi * qi) * rounds, (bi * qr - br * qi) * rounds
            t2r, t2i = tr * tr - ti * ti, _TWO * tr * ti
            re[k] = dr + t2r * gr - t2i * gi
            im[k] = di + t2r * gi + t2i * gr
            passing[k] *= (tr * tr + ti * ti) * rounds
    for k in range(start, stop):
        out[first_ring + k, 0] = re[k] * re[k] + im[k] * im[k]
        out[first_ring + k, 1] = passing[k]


@_inlined
def ring_shares(phasor, rings, start, stop, row, out):
    """Write the drop and through transmission of elements start … stop - 1 to columns 0 and 1 of `out` (elements, 8).

    Element n·M + k is wavelength k in row n. `phasor` as from `phasors`; `row`, float32 (3, M), is a temporary array.
    """
    if rings.spacing.shape[1] > 0:
        inputs = rings.inputs
        for n in range(start // inputs, (stop + inputs - 1) // inputs):
            first = n * inputs
            low, high = max(start - first, 0), min(stop - first, inputs)
            if rings.bus.shape[1] > 0:
                _row_interference(phasor, rings, first, low, high, row, out)
            else:
                _row_shares(phasor, rings, first, low, high, row, out)
        return
    for k in range(start, stop):
        # sin²(φ/2) from sin φ near resonance and from cos φ elsewhere, to avoid cancellation.
        c, s = phasor[0, k], phasor[1, k]
        x2 = rings.steepness_2 * (_HALF * s * s / (_ONE + c) if c > _F(0.0) else _HALF * (_ONE - c))
        share = _ONE / (_ONE + x2)
        out[k, 0] = rings.dropped * share
        out[k, 1] = (rings.leaked + x2) * share


@_inlined
def _row_powers(power, shares, first_ring, inputs, currents):
    """Write the power at a row's drop detector to row 0 of `currents`, and at its through detector to row 1."""
    dropped, through = currents[0], currents[1]
    for lane in range(LANES):
        dropped[lane] = _F(0.0)
        through[lane] = _F(0.0)
    for m in range(inputs):
        drop_share, through_share = shares[first_ring + m, 0], shares[first_ring + m, 1]
        for lane in range(LANES):
            dropped[lane] += drop_share * power[m, 0, lane]
            through[lane] += through_share * power[m, 0, lane]


@_inlined
def _balanced_readings(readout, row, noise, currents, count, flags):
    """Replace the powers in `currents` by the readings of a balanced pair, in row 0; set bit 0 of flags[row] if needed.

    The difference of two photocurrents, the shot noise of both and the thermal noise of one amplifier, and the gain,
    the offset and the steps of a converter from -full_scale_a to full_scale_a. If the amplifier has memory, the current
    in front of it.
    """
    ampere, dark_a = readout.ampere[row * LANES], readout.dark_a[row * LANES]
    noisy = readout.thermal_a2 > _F(0.0) or readout.shot_a > _F(0.0)
    reading, through = currents[0], currents[1]
    for lane in range(LANES):
        plus, minus = ampere * reading[lane], ampere * through[lane]
        plus /= _ONE + readout.inverse_saturation * plus
        minus /= _ONE + readout.inverse_saturation * minus
        current = plus - minus
        if noisy:
            current += np.sqrt(readout.thermal_a2 + readout.shot_a * (plus + minus + _TWO * dark_a)) * noise[row, lane]
        reading[lane] = current
    if readout.kept > _F(0.0):
        return
    if readout.gain.size > 0:
        gain, offset_a = readout.gain[row * LANES], readout.offset_a[row * LANES]
        for lane in range(LANES):
            reading[lane] = reading[lane] * gain + offset_a
    if readout.full_scale_a > _F(0.0):
        for lane in range(count):
            if abs(reading[lane]) >= readout.full_scale_a:
                flags[row] |= np.uint32(1)
        for lane in range(LANES):
            reading[lane] = min(max(reading[lane], -readout.full_scale_a), readout.full_scale_a)
    if readout.code_a > _F(0.0):
        inverse = _ONE / readout.code_a
        for lane in range(LANES):
            reading[lane] = np.floor(reading[lane] * inverse + _HALF) * readout.code_a


@_inlined
def _input_powers(block, inputs, readout, laser_power, noise, power):
    """Write the power of every input to `power`, float32 (inputs, 2, LANES), column 0.

    Each input has its own laser: `laser_power`, float32 (inputs,), is relative to nominal, and RIN is independent.
    """
    first = noise.shape[0] - inputs - inputs % 2
    for m in range(inputs):
        mean = laser_power[m]
        for lane in range(LANES):
            xr, xi = block[m, 0, lane], block[m, 1, lane]
            power[m, 0, lane] = mean * (xr * xr + xi * xi)
    if readout.rin > _F(0.0):
        for m in range(inputs):
            for lane in range(LANES):
                power[m, 0, lane] *= _ONE + readout.rin * noise[first + m, lane]


@_inlined
def _read_balanced(block, shares, inputs, readout, laser_power, scratch, currents, start, count, flags, out, first):
    """Write the readings of a block's first `count` samples to rows first … of `out`, float32 (samples, outputs).

    `currents`, float32 (2, LANES), is a temporary array. The other arguments are those of `_read_block`.
    """
    power, noise = scratch.field, scratch.noise
    _fill_noise(readout, start, first, inputs + inputs % 2, noise)
    _input_powers(block, inputs, readout, laser_power, noise, power)
    for row in range(readout.ampere.size // LANES):
        _row_powers(power, shares, row * inputs, inputs, currents)
        _balanced_readings(readout, row, noise, currents, count, flags)
        for lane in range(count):
            out[first + lane, row] = currents[0, lane]


@_entry
def read_bank(
    worker, control, total, blocks, first_block, drives, offset, heaters, rings, readout, laser_power, scratch, counters,
    first_sample, flags, out,
):  # fmt: skip
    """Read every item of a weight bank, one block of one setting, as `detect_settings` does for a mesh.

    `laser_power`, float32 (inputs,), is that of each input.
    """
    currents, row = np.empty((2, LANES), np.float32), np.empty((3, rings.inputs), np.float32)
    claim = np.zeros(2, np.int64)
    count = (out.shape[1] - first_sample + LANES - 1) // LANES
    ready = -1
    while True:
        item = next_item(control, total, worker, claim)
        if item < 0:
            break
        setting = item // count
        block = item % count
        if setting != ready:
            noise = stream_start(counters.sources, counters.evaluation, counters.first_setting + setting)
            _setting_phasors(heaters, drives[setting], offset, noise, scratch)
            ring_shares(scratch.phasor, rings, 0, scratch.matrices.shape[0], row, scratch.matrices)
            ready = setting
        first = first_sample + block * LANES
        lanes = min(LANES, out.shape[1] - first)
        start = stream_start(counters.readings, counters.evaluation, counters.first_item + item)
        _read_balanced(
            blocks[first_block[setting] + block], scratch.matrices, rings.inputs, readout, laser_power, scratch, currents, start,
            lanes, flags[setting], out[setting], first,
        )  # fmt: skip
        finish_item(control)


@_entry
def find_ring_shares(worker, control, total, phasor, rings, out):
    """Write the transmissions of every row for every wavelength: phasor (S, 2, channels) → out (S, channels, 8).

    An item is a chunk of a setting.
    """
    row = np.empty((3, rings.inputs), np.float32)
    claim = np.zeros(2, np.int64)
    count = _chunks(out.shape[1])
    while True:
        item = next_item(control, total, worker, claim)
        if item < 0:
            break
        start = item % count * CHUNK
        ring_shares(phasor[item // count], rings, start, min(start + CHUNK, out.shape[1]), row, out[item // count])
        finish_item(control)


@_entry
def read_bank_prepared(
    worker, control, total, blocks, plan, shares, rings, readout, laser_power, scratch, counters, flags, out,
):  # fmt: skip
    """Read every item of a plan, with given transmissions of rows, as `read_prepared` does for a mesh."""
    currents = np.empty((2, LANES), np.float32)
    claim = np.zeros(2, np.int64)
    while True:
        item = next_item(control, total, worker, claim)
        if item < 0:
            break
        block, matrix_set, setting = plan[item, 0], plan[item, 1], plan[item, 2]
        first, lanes, number = plan[item, 3], plan[item, 4], plan[item, 5]
        start = stream_start(counters.readings, counters.evaluation, number)
        _read_balanced(
            blocks[block], shares[matrix_set], rings.inputs, readout, laser_power, scratch, currents, start, lanes,
            flags[setting], out[setting], first,
        )  # fmt: skip
        finish_item(control)
