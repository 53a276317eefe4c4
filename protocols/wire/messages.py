"""Messages as frames: what crosses the socket between a client and a device server.

    frame 0   b"PLP" + one byte, the protocol version
    frame 1   header, UTF-8 JSON: a `Request` or a `Reply`
    frame 2…  one frame an array, in the order of the header's `arrays`: raw little-endian numbers in C order; none for an
              array that says `at`, which lies in memory that both sides see (`photonloop.protocols.wire.shared_buffer`)

This file knows bytes and arrays; it knows no sockets. `docs/protocol.md` describes the same for other languages.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Annotated, Any, Literal, TypeVar

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, JsonValue, ValidationError

from photonloop.protocols.device import PROTOCOL_VERSION
from photonloop.protocols.errors import DeviceError, ErrorBody
from photonloop.protocols.wire.shared_buffer import SharedBuffer

MAGIC = b"PLP"
PREFIX = MAGIC + bytes([PROTOCOL_VERSION])

MAX_REQUEST_HEADER_BYTES = 64 * 1024
MAX_REPLY_HEADER_BYTES = 1024 * 1024
MAX_ARRAYS = 8
MAX_DIMENSIONS = 4
MAX_LENGTH = 2**40
"""Longest axis of an array. Only a sanity bound: the frame itself says how many bytes there are."""

SAFE_FAILED = "safe_failed"
"""Name of the fault that a server latches when the device could not be made safe."""

MADE_SAFE = "made_safe"
"""Name of the fault that a server latches when a client without the lease made the device safe under its writer."""

MOST_PENDING = 2
"""Evaluations of a client that may be pending at once: one that the device carries out, and one that waits for it."""

DTypeCode = Literal["f4", "f8", "c8", "c16", "u1", "u4", "i4", "i8"]
_DTYPES: dict[str, np.dtype] = {code: np.dtype("<" + code) for code in DTypeCode.__args__}
_CODES: dict[np.dtype, DTypeCode] = {np.dtype("<" + code): code for code in DTypeCode.__args__}

Op = Literal[
    "hello",
    "describe",
    "status",
    "acquire",
    "renew",
    "release",
    "apply",
    "load_inputs",
    "evaluate",
    "cancel",
    "safe",
    "clear_fault",
    "share",
]

OPS: tuple[Op, ...] = Op.__args__

COMMANDS: frozenset[Op] = frozenset({"acquire", "release", "apply", "load_inputs", "evaluate", "cancel", "clear_fault"})
"""Operations that are numbered (`Request.seq`), so that a repeated one is carried out only once."""

Buffer = bytes | memoryview
Frames = Sequence[Buffer]
AnyArray = NDArray[Any]


class _Message(BaseModel):
    model_config = ConfigDict(frozen=True, strict=True, extra="forbid", allow_inf_nan=False)


_Shape = Annotated[tuple[Annotated[int, Field(ge=0, le=MAX_LENGTH)], ...], Field(max_length=MAX_DIMENSIONS)]
_Header = TypeVar("_Header", bound=_Message)


class ArraySpec(_Message):
    """What one array frame holds, or one part of shared memory."""

    name: Annotated[str, Field(min_length=1, max_length=32)]
    dtype: DTypeCode
    shape: _Shape
    at: Annotated[int, Field(ge=0, lt=2**53)] | None = None
    """Byte of the shared memory where the array begins; None: it has a frame."""

    @property
    def nbytes(self) -> int:
        """Bytes the frame must have."""
        return math.prod(self.shape) * _DTYPES[self.dtype].itemsize


Arrays = Annotated[tuple[ArraySpec, ...], Field(max_length=MAX_ARRAYS)]


class Request(_Message):
    """Header of a message from client to server."""

    op: Op
    id: Annotated[int, Field(ge=0, lt=2**53)]
    """Chosen by the client and echoed in every reply to this request; a retry keeps it."""
    client_id: Annotated[str, Field(min_length=1, max_length=64)]
    """Random name of the client, the same on all its sockets."""
    seq: Annotated[int, Field(ge=0, lt=2**53)] = 0
    """Number of the command within the session, from 1; the same number is never carried out twice. 0 for mere questions."""
    epoch: Annotated[str, Field(max_length=64)] = ""
    """The server's epoch as `hello` told it; empty in `hello` itself."""
    deadline: float | None = None
    """Server's clock [s] after which the request must not start, nor an evaluation go on."""
    arrays: Arrays = ()
    body: dict[str, JsonValue] = {}


class Reply(_Message):
    """Header of a message from server to client."""

    id: int
    op: str = ""
    epoch: str
    state: Literal["done", "working", "error"]
    """working: the request is in progress and another reply will come."""
    error: ErrorBody | None = None
    arrays: Arrays = ()
    body: dict[str, JsonValue] = {}


class HelloBody(_Message):
    """Body of `hello`."""

    label: Annotated[str, Field(max_length=200)] = ""


class AcquireBody(_Message):
    """Body of `acquire`."""

    lease_key: Annotated[str, Field(min_length=1, max_length=200)]
    label: Annotated[str, Field(max_length=200)] = ""
    ttl_s: Annotated[float, Field(ge=0.05, le=3600.0)]


class LoadInputsBody(_Message):
    """Body of `load_inputs`: where the chunk that travels with it belongs."""

    name: Annotated[str, Field(min_length=1, max_length=200)]
    dtype: DTypeCode
    shape: Annotated[_Shape, Field(strict=False)]
    offset: Annotated[int, Field(ge=0)]
    """Bytes sent before this chunk."""

    @property
    def nbytes(self) -> int:
        """Bytes of the whole array."""
        return math.prod(self.shape) * _DTYPES[self.dtype].itemsize


class EvaluateBody(_Message):
    """Body of `evaluate`; with `loaded`, the array `rows` names rows of what was loaded under that name."""

    stage: Annotated[str, Field(max_length=200)]
    loaded: Annotated[str, Field(max_length=200)] | None = None
    buffer: Annotated[int, Field(ge=1, lt=2**53)] | None = None
    """Number of the shared memory that arrays of this request refer to, as `share` answered it."""
    answer_at: Annotated[int, Field(ge=0, lt=2**53)] = 0
    answer_bytes: Annotated[int, Field(ge=0, lt=2**53)] = 0
    """Where in it the values may be written; they come in a frame where they take more."""


class ShareBody(_Message):
    """Body of `share`: memory that this client has made (`photonloop.protocols.wire.shared_buffer`)."""

    pid: Annotated[int, Field(ge=1, lt=2**31)]
    fd: Annotated[int, Field(ge=0, lt=2**31)]
    name: Annotated[str, Field(pattern="^photonloop-[0-9a-f]{32}$")]
    nbytes: Annotated[int, Field(ge=1, lt=2**53)]


class ClearFaultBody(_Message):
    """Body of `clear_fault`."""

    name: Annotated[str, Field(max_length=200)]


class EmptyBody(_Message):
    """Body of an operation that takes none."""


def largest_buffer_bytes(max_message_bytes: int) -> int:
    """Return the largest size of the memory that a client and a server share: drives and readings of all pending evaluations."""
    return 2 * MOST_PENDING * max_message_bytes


def array_code(dtype: np.dtype) -> DTypeCode | None:
    """Return the wire's name of a dtype; None where it does not travel."""
    return _CODES.get(dtype) or _CODES.get(dtype.newbyteorder("<"))


def encode(header: Request | Reply, arrays: Sequence[AnyArray] = ()) -> list[Buffer]:
    """Return the frames of a message; `arrays` must be what `array_specs` described, in that order.

    The frames share memory with the arrays: leave these unchanged until the message is sent.
    """
    return [PREFIX, header.model_dump_json(exclude_defaults=True).encode(), *map(_raw, arrays)]


def encode_done(request: Request, epoch: str, specs: tuple[ArraySpec, ...], arrays: Sequence[AnyArray]) -> list[Buffer]:
    """Return the frames of the reply "done" without a body, as `encode` would: its header differs from the last in its id."""
    return [PREFIX, b'{"id":%d,%b' % (request.id, _done_but_id(request.op, epoch, specs)), *map(_raw, arrays)]


@lru_cache(maxsize=64)
def _done_but_id(op: str, epoch: str, specs: tuple[ArraySpec, ...]) -> bytes:
    header = Reply(id=0, op=op, epoch=epoch, state="done", arrays=specs)
    return header.model_dump_json(exclude_defaults=True, exclude={"id"}).encode()[1:]


def _raw(array: AnyArray) -> Buffer:
    return memoryview(array.data).cast("B") if array.size else b""


def array_specs(
    arrays: Mapping[str, AnyArray], places: Mapping[str, int] | None = None
) -> tuple[tuple[ArraySpec, ...], list[AnyArray]]:
    """Return how a header describes `arrays`, and the arrays as they travel: C order, little-endian.

    Those named in `places` lie in shared memory, at the byte given there: they are described, and do not travel.

    Raises
    ------
    DeviceError
        "bad_request" for a dtype that does not travel.
    """
    specs: list[ArraySpec] = []
    ready: list[AnyArray] = []
    for name, array in arrays.items():
        code = array_code(array.dtype)
        if code is None:
            raise DeviceError("bad_request", f"{name} has type {array.dtype}, expected one of {', '.join(_DTYPES)}")
        at = places.get(name) if places else None
        specs.append(_spec(name, code, array.shape, at))
        if at is None:
            ready.append(np.asarray(array, dtype=_DTYPES[code], order="C"))
    return tuple(specs), ready


def check_prefix(frame: Buffer) -> None:
    """Refuse a message of another protocol version.

    Raises
    ------
    ValueError
        Not a message of this protocol at all.
    DeviceError
        "version" for a message of another version.
    """
    prefix = bytes(frame[: len(PREFIX) + 1])
    if prefix == PREFIX:
        return
    if len(prefix) != len(PREFIX) or not prefix.startswith(MAGIC):
        raise ValueError("not a photonloop message")
    raise DeviceError(
        "version",
        f"the message has protocol version {prefix[-1]}, but this side has version {PROTOCOL_VERSION}: "
        "install the same version of photonloop on both sides",
    )


def decode_request(frame: Buffer) -> Request:
    """Return the header in `frame`; `DeviceError` "bad_request" where it is not one."""
    return _decode(Request, frame, MAX_REQUEST_HEADER_BYTES)


def decode_reply(frame: Buffer) -> Reply:
    """Return the header in `frame`; `DeviceError` "bad_request" where it is not one."""
    return _decode(Reply, frame, MAX_REPLY_HEADER_BYTES)


def decode_body(model: type[_Header], body: Mapping[str, JsonValue]) -> _Header:
    """Return the body of a header as `model`; `DeviceError` "bad_request" naming the field where it does not fit."""
    try:
        return model.model_validate(body)
    except ValidationError as error:
        raise DeviceError("bad_request", f"body {_first_error(error)}") from None


def decode_arrays(
    specs: Sequence[ArraySpec], frames: Sequence[Buffer], buffer: SharedBuffer | None = None
) -> dict[str, AnyArray]:
    """Return read-only arrays on the memory of `frames`, by name; nothing is allocated for what a header merely claims.

    A frame that the transport left unaligned is copied, since compiled kernels want aligned arrays. What lies in the shared
    memory of `buffer` is copied, since the other side may go on writing there.

    Raises
    ------
    DeviceError
        "bad_request" where frames and specs disagree in number or in size, two arrays share a name, or shared memory is
        referred to that is not there, or not so large.
    """
    framed = sum(spec.at is None for spec in specs)
    if framed != len(frames):
        raise DeviceError("bad_request", f"the header announces {framed} arrays, the message carries {len(frames)}")
    arrays: dict[str, AnyArray] = {}
    travelled = iter(frames)
    shared_bytes = 0
    for spec in specs:
        if spec.name in arrays:
            raise DeviceError("bad_request", f"array {spec.name!r} is there twice")
        if spec.at is not None:
            shared_bytes += spec.nbytes
            arrays[spec.name] = _shared(spec, spec.at, buffer, shared_bytes)
            continue
        frame = next(travelled)
        if len(frame) != spec.nbytes:
            raise DeviceError(
                "bad_request",
                f"array {spec.name!r} of {spec.dtype} {spec.shape} takes {spec.nbytes} bytes, its frame has {len(frame)}",
            )
        arrays[spec.name] = as_array(frame, spec.dtype, spec.shape)
    return arrays


def as_array(data: Buffer | bytearray, dtype: DTypeCode, shape: tuple[int, ...]) -> AnyArray:
    """Return `data`, which must have the right length, as a read-only aligned array."""
    if not len(data):
        try:
            array = np.empty(shape, _DTYPES[dtype])
        except ValueError:
            raise DeviceError("bad_request", f"no array has the shape {shape}") from None
    else:
        array = np.frombuffer(data, _DTYPES[dtype]).reshape(shape)
        flags = array.flags
        if not flags.aligned:
            array = array.copy()
        elif not flags.writeable:
            return array
    array.flags.writeable = False
    return array


def _shared(spec: ArraySpec, at: int, buffer: SharedBuffer | None, all_bytes: int) -> AnyArray:
    """Return a copy of what lies at byte `at` of the window; `all_bytes`: of this and all arrays of the message before it."""
    nbytes = 0 if buffer is None else buffer.nbytes
    if buffer is None or at + spec.nbytes > nbytes or all_bytes > nbytes:
        raise DeviceError(
            "bad_request", f"array {spec.name!r} of {spec.nbytes} bytes at {at} is not within the {nbytes} bytes of shared memory"
        )
    return as_array(buffer.memory[at : at + spec.nbytes], spec.dtype, spec.shape)


def write_shared(array: AnyArray, buffer: SharedBuffer, at: int) -> None:
    """Write `array`, which must have room there, to byte `at` of the window, as `decode_arrays` reads it."""
    code = array_code(array.dtype)
    assert code is not None
    target = np.frombuffer(buffer.memory, _DTYPES[code], array.size, at)
    np.copyto(target.reshape(array.shape), array)


@lru_cache(maxsize=256)
def _spec(name: str, dtype: DTypeCode, shape: tuple[int, ...], at: int | None = None) -> ArraySpec:
    return ArraySpec(name=name, dtype=dtype, shape=shape, at=at)


def _decode(model: type[_Header], frame: Buffer, max_bytes: int) -> _Header:
    if len(frame) > max_bytes:
        raise DeviceError("bad_request", f"the header has {len(frame)} bytes, more than {max_bytes}")
    try:
        return model.model_validate_json(bytes(frame))
    except ValidationError as error:
        raise DeviceError("bad_request", f"header {_first_error(error)}") from None


def _first_error(error: ValidationError) -> str:
    first = error.errors(include_url=False, include_context=False, include_input=False)[0]
    where = ".".join(str(part) for part in first["loc"]) or "as a whole"
    return f"{where[:100]}: {first['msg'][:300]}"
