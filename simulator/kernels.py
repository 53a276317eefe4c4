"""The hot loops of the chip, compiled: volts to coefficients, light through a mesh, light to photocurrents.

Light is carried in single precision, sixteen samples at a time:

    block[port][re | im][lane]     lane = 16 samples side by side = one AVX-512 register, two of AVX2, a cache line

so that every interferometer is the same 2 × 2 product for all lanes and a block of 64 ports (8 KiB) never leaves the
first-level cache. Work is counted in *items*, one block of one setting each; threads claim items from one another's ranges
(`next_item`), and no result depends on who computed it: coefficients are a function of the setting, and noise is a function
of a counter, not of a stream (`normals`).

All compiled functions live in this file: numba's disk cache does not notice a change in another one.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from llvmlite import ir
from numba import njit, types
from numba.core import cgutils, errors
from numba.extending import intrinsic, models, register_model

LANES = 16
"""Samples of a block."""

FLOPS_PER_BLOCK = 28 * LANES
"""Operations of one interferometer on one block."""

_AHEAD = 32
"""Interferometers between asking for a phasor and using it: about the time a line takes from the third-level cache."""

_entry: Any = njit(cache=True, nogil=True, fastmath=True)
# A function that stays a function is compiled once a caller, each copy rounding in its own way, and which copy a process gets
# depends on whether it has just compiled or loads from disk. Inlined by force, a reading is the same bits in every process.
_inlined: Any = njit(cache=True, nogil=True, fastmath=True, forceinline=True)
# Fast mathematics lets the compiler choose the order of sums; without it, the source does.
_as_written: Any = njit(cache=True, nogil=True, forceinline=True)
_aware_of_nan: Any = njit(cache=True, nogil=True, fastmath={"reassoc", "contract", "nsz"})

_F = np.float32
_HALF = _F(0.5)
_ONE = _F(1.0)
_TWO = _F(2.0)
_SQRT_2 = _F(np.sqrt(2.0))
_LN_2 = _F(np.log(2.0))

# sin(πx)/x in powers of x², interpolated at Chebyshev nodes on |x| ≤ 1/2: error 3e-11 before rounding.
_S0, _S1, _S2, _S3, _S4, _S5 = (
    _F(c) for c in (3.1415926534, -5.1677127597, 2.5501633226, -0.5992521919, 0.0820503467, -0.0070283018)
)
# ln(1 + f)/f in powers of f, interpolated at Chebyshev nodes on √½ ≤ 1 + f ≤ √2: error 7e-8.
_L0, _L1, _L2, _L3, _L4, _L5, _L6, _L7 = (
    _F(c) for c in (0.99999997, -0.50000375, 0.33334606, -0.24968907, 0.19913348, -0.17278206, 0.16126248, -0.09895351)
)


# --- Sixteen samples in registers -----------------------------------------------------------------------------------------

# Loops over lanes become vector instructions by the compiler's own judgement, but it cannot keep a row of an array in registers
# from one turn of a loop to the next. The sweep needs just that, so it says what it means: a type for one row of lanes.


class _Lanes(types.Type):
    """LANES single-precision numbers in vector registers, of whatever width the machine has."""

    def __init__(self) -> None:
        super().__init__(name="lanes")


_LANES_TYPE = _Lanes()
_VECTOR = ir.VectorType(ir.FloatType(), LANES)


class _LanesModel(models.PrimitiveModel):
    def __init__(self, manager: Any, kind: Any) -> None:
        super().__init__(manager, kind, _VECTOR)


register_model(_Lanes)(_LanesModel)


def _row_pointer(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
    """Return where block[port, part] begins, for arguments (block, port, part, …)."""
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
        # The sign goes with the lanes, where it is part of the instruction; with the factor it would cost one more a row.
        return _multiply_add(builder, _in_every_lane(builder, arguments[1]), builder.fneg(arguments[2]), arguments[0])

    return _LANES_TYPE(_LANES_TYPE, types.float32, _LANES_TYPE), generate


load_lanes: Any = intrinsic(_load_typed)
"""(block, port, part) → the lanes at block[port, part], one register of them or as many as it takes."""

store_lanes: Any = intrinsic(_store_typed)
"""(block, port, part, lanes): write them back."""

times: Any = intrinsic(_times_typed)
"""(factor, lanes) → factor · lanes."""

plus_times: Any = intrinsic(_plus_typed)
"""(addend, factor, lanes) → addend + factor · lanes, rounded once where the machine has fused multiply-adds."""

minus_times: Any = intrinsic(_minus_typed)
"""(addend, factor, lanes) → addend - factor · lanes, likewise."""


# --- Fetching ahead -------------------------------------------------------------------------------------------------------


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
"""(array, row, column): ask for array[row, column] to be in the cache soon."""


# --- Sharing work ---------------------------------------------------------------------------------------------------------


def _fetch_add_typed(_context: Any, array: Any, _index: Any, _value: Any) -> Any:

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        structure = context.make_array(signature.args[0])(context, builder, arguments[0])
        pointer = cgutils.get_item_pointer(context, builder, signature.args[0], structure, [arguments[1]], wraparound=False)
        return builder.atomic_rmw("add", pointer, arguments[2], "seq_cst")

    return types.int64(array, types.intp, types.int64), generate


_fetch_add: Any = intrinsic(_fetch_add_typed)
"""(array, index, value): add `value` to array[index] atomically and return what was there before."""


CONTROL_STRIDE = 16
"""Counters lie two cache lines apart, so that threads do not slow each other by writing side by side."""

STOPPED = 1 << 62
"""Written into a claims counter by another thread, it leaves nothing to claim: that is how an evaluation is cancelled."""


def new_control(workers: int) -> np.ndarray:
    """Return the shared counters of one job: per worker [claimed, claimed from behind], then [finished]."""
    return np.zeros((2 * workers + 1) * CONTROL_STRIDE, np.int64)


@_inlined
def next_item(control, total, worker, place):
    """Return the next item of `worker`, or -1 where nothing is left.

    Every worker owns one contiguous range of the items 0 … total - 1 and takes it from the front; once it is done it takes
    from the back of the others' ranges. A claim is counted before its place is chosen, so front and back never meet.
    `place`, int64 (2,), is the worker's own: [whose range, next at the front].
    """
    workers = (control.size // CONTROL_STRIDE) // 2
    while place[0] < workers:
        owner = (worker + place[0]) % workers
        first = total * owner // workers
        last = total * (owner + 1) // workers
        claimed = 2 * owner * CONTROL_STRIDE
        if _fetch_add(control, claimed, 1) < last - first:
            if owner == worker:
                place[1] += 1
                return first + place[1] - 1
            return last - 1 - _fetch_add(control, claimed + CONTROL_STRIDE, 1)
        place[0] += 1
    return -1


@_inlined
def finish_item(control):
    """Count one more item as finished."""
    _fetch_add(control, control.size - CONTROL_STRIDE, 1)


@_entry
def finished(control, total, patience):
    """Return how many items are finished, after looking at most `patience` times for `total`."""
    done = 0
    for _ in range(patience):
        done = _fetch_add(control, control.size - CONTROL_STRIDE, 0)
        if done >= total:
            break
    return done


# --- Elementary functions that the compiler turns into vector instructions ------------------------------------------------


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
    """Return sin(πx) for |x| ≤ 1, to relative precision also for small x."""
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


# --- Random numbers -------------------------------------------------------------------------------------------------------

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
    """Fill `out`, float32 (even number, LANES), with standard normals number 0, 1, … of the stream at `start`.

    SplitMix64 by counter, then Box and Muller: two normals from each 64-bit word. Tails end at 6.6 deviations.
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


# --- Volts to coefficients ------------------------------------------------------------------------------------------------


@_aware_of_nan
def within(drives, lowest_v, ceiling_v, power_of_others_v2, highest_v2):
    """Return whether every drive is in [lowest_v, ceiling_v] and every setting's sum of squares is in bounds; NaN is not.

    A quick yes; a no is for `protocols.limits` to explain. Compiled without the part of fast mathematics that assumes NaN away.
    """
    good = True
    for s in range(drives.shape[0]):
        for c in range(drives.shape[1]):
            v = drives[s, c]
            good &= (v >= lowest_v) & (v <= ceiling_v[c])
        if highest_v2 > 0.0:
            total = power_of_others_v2
            for c in range(drives.shape[1]):
                total += drives[s, c] * drives[s, c]
            good &= total <= highest_v2
    return good


@_inlined
def phasors(drive_v, step_v, offset, scale, out):
    """Write cos and sin of every heater's phase into `out`, float32 (2, channels).

    DAC step [V] (0: continuous), then power and phase in half turns: offset + scale·V², with scale = 1/(R·P_π). The phase
    is kept and reduced in double precision: at several turns single precision alone would cost 1e-6 rad.
    """
    if step_v > 0.0:
        inverse = 1.0 / step_v
        for c in range(drive_v.size):
            v = np.floor(drive_v[c] * inverse + 0.5) * step_v
            h = offset[c] + v * v * scale[c]
            r = np.float32(h - 2.0 * np.floor(h * 0.5 + 0.5))
            out[0, c] = _cos_half_turns(r)
            out[1, c] = _sin_half_turns(r)
    else:
        for c in range(drive_v.size):
            v = drive_v[c]
            h = offset[c] + v * v * scale[c]
            r = np.float32(h - 2.0 * np.floor(h * 0.5 + 0.5))
            out[0, c] = _cos_half_turns(r)
            out[1, c] = _sin_half_turns(r)


@_inlined
def coefficients(phasor, theta, phi, couplers, out):
    """Write each interferometer's 2 × 2 matrix into `out`, float32 (interferometers, 8), row by row as re, im.

    `couplers`, float32 (interferometers, 4): cos·cos, sin·sin, cos₂·sin₁, sin₂·cos₁ of the two couplers' angles times the
    field that survives the loss; with them   M = B₂ · diag(e^{iθ}, 1) · B₁ · diag(e^{iφ}, 1),   B = [[cos, i sin], [i sin, cos]].
    """
    last = theta.size - 1
    for k in range(theta.size):
        # The sweep's order jumps between columns, and the phasors of a large mesh lie outside the second-level cache.
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


# --- Light through a mesh -------------------------------------------------------------------------------------------------


@_entry
def gather(source, rows, blocks):
    """Lay the rows of `source`, float32 (rows, ports, 1 or 2: re, im), out as blocks; lanes without a sample stay dark."""
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


@_as_written
def sweep(block, tops, matrices):
    """Send one block through a mesh in place: per interferometer one 2 × 2 product of modes top and top + 1.

    The upper mode stays in registers: where the next interferometer couples it to the mode above, as they do along the
    chains of `mesh.schedule`, only one mode is loaded and one stored. Any other order costs time, not correctness.
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
        # The held mode comes last in every sum: what does not wait for it is done while the one before is finished.
        store_lanes(block, held, 0, minus_times(plus_times(minus_times(times(cr, xr), ci, xi), dr, yr), di, yi))
        store_lanes(block, held, 1, plus_times(plus_times(plus_times(times(cr, xi), ci, xr), dr, yi), di, yr))
        upper_r = minus_times(plus_times(minus_times(times(ar, xr), ai, xi), br, yr), bi, yi)
        upper_i = plus_times(plus_times(plus_times(times(ar, xi), ai, xr), br, yi), bi, yr)
        held, yr, yi = top, upper_r, upper_i
    store_lanes(block, held, 0, yr)
    store_lanes(block, held, 1, yi)


@_inlined
def leave_stage(field, screen, electro_optic, half_gain, cos_bias, sin_bias, amplitude, factor):
    """Take one block from the end of a mesh to the next one: phase screen, share that passes the tap, nonlinearity.

    `screen`, float32 (2, ports): cos and sin of γ. With `electro_optic` (Williamson 2020) the field is multiplied
    by amplitude · exp(-ia) · cos a,   a = π·half_gain·|E|² + half the bias; else by `amplitude` alone. The bias comes as its cos
    and sin: added to the angle, it would drown weak light, which is all there is at later stages, in rounding. `factor`,
    float32 (2, LANES), is scratch.
    """
    for p in range(field.shape[0]):
        cg, sg = screen[0, p], screen[1, p]
        # In three short loops, because the compiler turns only those into vector instructions.
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
    """Send `blocks` through one held stage in place; an item is a block."""
    factor = np.empty((2, LANES), np.float32)
    place = np.zeros(2, np.int64)
    while True:
        item = next_item(control, total, worker, place)
        if item < 0:
            break
        sweep(blocks[item], tops, matrices)
        leave_stage(blocks[item], screen, electro_optic, half_gain, cos_bias, sin_bias, amplitude, factor)
        finish_item(control)


@_entry
def scatter(blocks, rows, target):
    """Write blocks back as rows of `target`, float32 (rows, ports, 2)."""
    for b in range(blocks.shape[0]):
        block = blocks[b]
        for lane in range(min(LANES, rows.size - b * LANES)):
            row = target[rows[b * LANES + lane]]
            for p in range(target.shape[1]):
                row[p, 0] = block[p, 0, lane]
                row[p, 1] = block[p, 1, lane]


# --- Light to photocurrents -----------------------------------------------------------------------------------------------


@_inlined
def _clip(field, count, full_scale_a):
    """Limit the currents in the real parts of `field`; return whether one of the first `count` lanes was at the limit."""
    peak = field[0, 1]
    for lane in range(LANES):
        peak[lane] = _F(0.0)
    for p in range(field.shape[0]):
        for lane in range(LANES):
            peak[lane] = max(peak[lane], field[p, 0, lane])
            field[p, 0, lane] = min(field[p, 0, lane], full_scale_a)
    clipped = False
    for lane in range(count):
        clipped |= peak[lane] >= full_scale_a
    return clipped


@_inlined
def detect(field, noise, ampere, dark_a, thermal_a2, shot_a, full_scale_a, code_a, out, first):
    """Write the readings of one block into rows first … of `out`, float32 (samples, ports); return whether any saturated.

    current = ampere·|E|² + dark; noise of variance thermal_a2 + shot_a·current; then the converter: codes of `code_a` from 0
    (0: continuous), at most `full_scale_a` (0: never saturates). `field` is used up.
    """
    ports = field.shape[0]
    count = min(LANES, out.shape[0] - first)
    noisy = thermal_a2 > _F(0.0) or shot_a > _F(0.0)
    saturated = False
    for p in range(ports):
        for lane in range(LANES):
            xr = field[p, 0, lane]
            xi = field[p, 1, lane]
            current = ampere * (xr * xr + xi * xi) + dark_a
            if noisy:
                current += np.sqrt(thermal_a2 + shot_a * current) * noise[p, lane]
            field[p, 0, lane] = current
    if full_scale_a > _F(0.0):
        saturated = _clip(field, count, full_scale_a)
    if code_a > _F(0.0):
        inverse = _ONE / code_a
        for p in range(ports):
            for lane in range(LANES):
                field[p, 0, lane] = max(np.floor(field[p, 0, lane] * inverse + _HALF), _F(0.0)) * code_a
    for lane in range(count):
        for p in range(ports):
            out[first + lane, p] = field[p, 0, lane]
    return saturated


@_entry
def read_settings(
    worker, control, total, blocks, drives, step_v, offset, scale, tops, theta, phi, couplers, phasor, matrices, field, noise,
    key, evaluation, readout, saturated, out,
):  # fmt: skip
    """Read every item, one block of one setting: drives (S, channels) → out, float32 (S, samples, ports).

    `phasor`, `matrices`, `field` and `noise` are the worker's own scratch; `readout` is [ampere, dark_a, thermal_a2,
    shot_a, full_scale_a, code_a], see `detect`. Workers that see a setting saturate all write the same 1 into `saturated`.
    """
    place = np.zeros(2, np.int64)
    count = blocks.shape[0]
    ready = -1
    while True:
        item = next_item(control, total, worker, place)
        if item < 0:
            break
        setting = item // count
        block = item % count
        if setting != ready:
            phasors(drives[setting], step_v, offset, scale, phasor)
            coefficients(phasor, theta, phi, couplers, matrices)
            ready = setting
        field[:] = blocks[block]
        sweep(field, tops, matrices)
        if readout[2] > _F(0.0) or readout[3] > _F(0.0):
            normals(stream_start(key, evaluation, item), noise)
        if detect(
            field, noise, readout[0], readout[1], readout[2], readout[3], readout[4], readout[5], out[setting], block * LANES
        ):
            saturated[setting] = 1
        finish_item(control)
