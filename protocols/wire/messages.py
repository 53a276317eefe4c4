"""Encoding of messages as frames, as they are sent between a client and a device server.

    frame 0   b"PLP" + one byte, the protocol version
    frame 1   header, UTF-8 JSON: a `Request` or a `Reply`
    frame 2…  one frame per array, in the order of the header's `arrays`: raw little-endian numbers in C order. An array
              with `at` has no frame: it is in shared memory (`photonloop.protocols.wire.shared_buffer`)

This module uses no sockets. `docs/protocol.md` is the specification for other languages.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Annotated, Any, Literal, TypeVar

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, JsonValue, ValidationError

from photonloop.protocols.device import MAX_WAIT_S, PROTOCOL_VERSION
from photonloop.protocols.errors import DeviceError, ErrorBody
from photonloop.protocols.wire.shared_buffer import SharedBuffer

MAGIC = b"PLP"
PREFIX = MAGIC + bytes([PROTOCOL_VERSION])

MAX_REQUEST_HEADER_BYTES = 64 * 1024
MAX_REPLY_HEADER_BYTES = 1024 * 1024
MAX_ARRAYS = 8
MAX_DIMENSIONS = 4
MAX_LENGTH = 2**40
"""Longest axis of an array. Only a sanity check: the size of an array is that of its frame."""

SAFE_FAILED = "safe_failed"
"""Name of the fault that a server latches if the device could not be made safe."""

MADE_SAFE = "made_safe"
"""Name of the fault that a server latches if a client makes the device safe while another one holds the lease."""

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
    "set_light",
    "wait",
    "readback",
    "cancel",
    "safe",
    "clear_fault",
    "share",
]

OPS: tuple[Op, ...] = Op.__args__

COMMANDS: frozenset[Op] = frozenset(OPS) - {"hello", "describe", "status", "renew", "safe", "share"}
"""Operations that are numbered (`Request.seq`), so that a repeated one is carried out only once."""

Buffer = bytes | memoryview
Frames = Sequence[Buffer]
AnyArray = NDArray[Any]


class _Message(BaseModel):
    model_config = ConfigDict(frozen=True, strict=True, extra="forbid", allow_inf_nan=False)


_Shape = Annotated[tuple[Annotated[int, Field(ge=0, le=MAX_LENGTH)], ...], Field(max_length=MAX_DIMENSIONS)]
_Header = TypeVar("_Header", bound=_Message)


class ArraySpec(_Message):
    """Description of one array, in a frame or in shared memory."""

    name: Annotated[str, Field(min_length=1, max_length=32)]
    dtype: DTypeCode
    shape: _Shape
    at: Annotated[int, Field(ge=0, lt=2**53)] | None = None
    """Byte of the shared memory at which the array begins; None if it has a frame."""

    @property
    def nbytes(self) -> int:
        """Size of the array in bytes, which its frame must have."""
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
    """Number of the command of this client, from 1; no number is carried out twice. 0 for other requests."""
    epoch: Annotated[str, Field(max_length=64)] = ""
    """The server's epoch from the reply to `hello`; empty in `hello` itself."""
    deadline: float | None = None
    """Time on the server's clock [s] after which the request must not start, and an evaluation must stop. A `wait` that
    has started may last longer."""
    arrays: Arrays = ()
    body: dict[str, JsonValue] = {}


class Reply(_Message):
    """Header of a message from server to client."""

    id: int
    op: str = ""
    epoch: str
    state: Literal["done", "working", "error"]
    """working: the request is in progress, and another reply will follow."""
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
    """Body of `load_inputs`: the whole array, and the place of the chunk in it."""

    name: Annotated[str, Field(min_length=1, max_length=200)]
    dtype: DTypeCode
    shape: Annotated[_Shape, Field(strict=False)]
    offset: Annotated[int, Field(ge=0)]
    """Number of bytes before this chunk."""

    @property
    def nbytes(self) -> int:
        """Size of the whole array in bytes."""
        return math.prod(self.shape) * _DTYPES[self.dtype].itemsize


class EvaluateBody(_Message):
    """Body of `evaluate`; with `loaded`, the array `rows` gives row numbers of the inputs loaded under that name."""

    stage: Annotated[str, Field(max_length=200)]
    loaded: Annotated[str, Field(max_length=200)] | None = None
    buffer: Annotated[int, Field(ge=1, lt=2**53)] | None = None
    """Number of the shared buffer that arrays of this request refer to, from the reply to `share`."""
    answer_at: Annotated[int, Field(ge=0, lt=2**53)] = 0
    answer_bytes: Annotated[int, Field(ge=0, lt=2**53)] = 0
    """The bytes of the buffer in which the reply may put its values; if they need more, they are sent in a frame."""


class ShareBody(_Message):
    """Body of `share`: memory that this client has created (`photonloop.protocols.wire.shared_buffer`)."""

    pid: Annotated[int, Field(ge=1, lt=2**31)]
    fd: Annotated[int, Field(ge=0, lt=2**31)]
    name: Annotated[str, Field(pattern="^photonloop-[0-9a-f]{32}$")]
    nbytes: Annotated[int, Field(ge=1, lt=2**53)]


class SetLightBody(_Message):
    """Body of `set_light`."""

    on: bool


class WaitBody(_Message):
    """Body of `wait`."""

    seconds: Annotated[float, Field(ge=0, le=MAX_WAIT_S)]


class ClearFaultBody(_Message):
    """Body of `clear_fault`."""

    name: Annotated[str, Field(max_length=200)]


class EmptyBody(_Message):
    """Body of an operation without fields."""


def largest_buffer_bytes(max_message_bytes: int) -> int:
    """Return the largest size of a shared buffer: drives and readings of all pending evaluations."""
    return 2 * MOST_PENDING * max_message_bytes


def array_code(dtype: np.dtype) -> DTypeCode | None:
    """Return the protocol's code of a dtype; None if it has none."""
    return _CODES.get(dtype) or _CODES.get(dtype.newbyteorder("<"))


def encode(header: Request | Reply, arrays: Sequence[AnyArray] = ()) -> list[Buffer]:
    """Return the frames of a message; `arrays` must be those that `array_specs` returned, in that order.

    The frames share memory with the arrays: do not change these before the message is sent.
    """
    return [PREFIX, header.model_dump_json(exclude_defaults=True).encode(), *map(_raw, arrays)]


def encode_done(request: Request, epoch: str, specs: tuple[ArraySpec, ...], arrays: Sequence[AnyArray]) -> list[Buffer]:
    """Return the same frames as `encode` for the reply "done" without a body, faster: most of the header is cached."""
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
    """Return the descriptions of `arrays` for a header, and the arrays to send: C order, little-endian.

    Arrays named in `places` are in shared memory, at the byte given there. They are described, but not sent.

    Raises
    ------
    DeviceError
        "bad_request" for a dtype that the protocol does not have.
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
    """Check the first frame of a message.

    Raises
    ------
    ValueError
        It is not a message of this protocol.
    DeviceError
        "version" if the message has another protocol version.
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
    """Return the header in `frame`; `DeviceError` "bad_request" if it is not valid."""
    return _decode(Request, frame, MAX_REQUEST_HEADER_BYTES)


def decode_reply(frame: Buffer) -> Reply:
    """Return the header in `frame`; `DeviceError` "bad_request" if it is not valid."""
    return _decode(Reply, frame, MAX_REPLY_HEADER_BYTES)


def decode_body(model: type[_Header], body: Mapping[str, JsonValue]) -> _Header:
    """Return the body of a header as `model`; `DeviceError` "bad_request" with the name of the first invalid field."""
    try:
        return model.model_validate(body)
    except ValidationError as error:
        raise DeviceError("bad_request", f"body {_first_error(error)}") from None


def decode_arrays(
    specs: Sequence[ArraySpec], frames: Sequence[Buffer], buffer: SharedBuffer | None = None
) -> dict[str, AnyArray]:
    """Return read-only views of `frames` as arrays, by name. Sizes in a header alone allocate no memory.

    A frame that is not aligned in memory is copied, because compiled kernels need aligned arrays. An array in the
    shared memory `buffer` is copied, because the other side may still write there.

    Raises
    ------
    DeviceError
        "bad_request" if frames and specs disagree in number or size, two arrays have the same name, or an array is
        outside the shared memory.
    """
    framed = sum(spec.at is None for spec in specs)
    if framed != len(frames):
        raise DeviceError("bad_request", f"the header announces {framed} arrays, but the message has {len(frames)}")
    arrays: dict[str, AnyArray] = {}
    remaining = iter(frames)
    shared_bytes = 0
    for spec in specs:
        if spec.name in arrays:
            raise DeviceError("bad_request", f"array {spec.name!r} occurs twice")
        if spec.at is not None:
            shared_bytes += spec.nbytes
            arrays[spec.name] = _shared(spec, spec.at, buffer, shared_bytes)
            continue
        frame = next(remaining)
        if len(frame) != spec.nbytes:
            raise DeviceError(
                "bad_request",
                f"array {spec.name!r} of {spec.dtype} {spec.shape} takes {spec.nbytes} bytes, but its frame has {len(frame)}",
            )
        arrays[spec.name] = as_array(frame, spec.dtype, spec.shape)
    return arrays


def as_array(data: Buffer | bytearray, dtype: DTypeCode, shape: tuple[int, ...]) -> AnyArray:
    """Return `data`, which must have the right length, as an aligned read-only array."""
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
    """Return a copy of the array at byte `at` of the buffer; `all_bytes`: size of the message's arrays so far."""
    nbytes = 0 if buffer is None else buffer.nbytes
    if buffer is None or at + spec.nbytes > nbytes or all_bytes > nbytes:
        raise DeviceError(
            "bad_request",
            f"array {spec.name!r} of {spec.nbytes} bytes at byte {at} exceeds the shared memory of {nbytes} bytes",
        )
    return as_array(buffer.memory[at : at + spec.nbytes], spec.dtype, spec.shape)


def write_shared(array: AnyArray, buffer: SharedBuffer, at: int) -> None:
    """Write `array` to byte `at` of the buffer, as `decode_arrays` reads it. The buffer must be large enough."""
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
