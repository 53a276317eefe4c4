from __future__ import annotations

import json
import struct

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from photonloop.protocols.errors import DeviceError
from photonloop.protocols.wire import messages
from photonloop.protocols.wire.messages import ArraySpec, Reply, Request

DTYPES = ["<f4", "<f8", "<c8", "<c16", "|u1", "<u4", "<i4", "<i8"]


def header(**fields: object) -> bytes:
    return json.dumps({"op": "status", "id": 1, "client_id": "s", **fields}).encode()


def refusal(frame: bytes) -> str:
    with pytest.raises(DeviceError) as caught:
        messages.decode_request(frame)
    assert caught.value.code == "bad_request"
    assert caught.value.outcome == "not_applied"
    return caught.value.detail


@given(hnp.arrays(st.sampled_from([np.dtype(code) for code in DTYPES]), hnp.array_shapes(min_dims=0, max_dims=4, min_side=0)))
def test_arrays_are_unchanged_by_encoding_and_decoding(array: np.ndarray) -> None:
    specs, ready = messages.array_specs({"x": array})
    request = Request(op="evaluate", id=3, client_id="s", seq=1, arrays=specs)
    frames = [bytes(frame) for frame in messages.encode(request, ready)]
    assert frames[0] == b"PLP\x03"
    back = messages.decode_arrays(messages.decode_request(frames[1]).arrays, frames[2:])["x"]
    assert back.dtype == array.dtype
    assert back.shape == array.shape
    assert back.tobytes() == array.tobytes()
    assert not back.flags.writeable


def test_frames_are_little_endian_in_c_order_for_any_memory_layout() -> None:
    values = np.array([[1.0, 2.0, 3.0], [4.0, 5.0, 6.0]])
    for array in (values, np.asfortranarray(values), values.astype(">f8"), np.repeat(values, 2, axis=1)[:, ::2]):
        specs, ready = messages.array_specs({"x": array})
        assert specs[0] == ArraySpec(name="x", dtype="f8", shape=(2, 3))
        frame = messages.encode(Reply(id=1, epoch="e", state="done", arrays=specs), ready)[2]
        assert bytes(frame) == struct.pack("<6d", 1, 2, 3, 4, 5, 6)


def test_arrays_are_aligned_views_of_their_frames() -> None:
    data = bytearray(np.arange(9, dtype="<f8").tobytes())
    view = messages.as_array(memoryview(data)[:64].toreadonly(), "f8", (8,))
    data[:8] = np.float64(7.0).tobytes()
    assert view[0] == 7.0
    odd = messages.as_array(memoryview(b"x" + bytes(data))[1:], "f8", (9,))
    assert odd.flags.aligned
    assert odd[8] == 8.0


@pytest.mark.parametrize("dtype", [np.float16, np.int16, np.bool_, np.object_, np.longdouble, "U3", "M8[s]"])
def test_other_dtypes_are_refused(dtype: object) -> None:
    with pytest.raises(DeviceError, match="x has type"):
        messages.array_specs({"x": np.zeros(3, dtype)})  # pyright: ignore[reportArgumentType, reportCallIssue]


@pytest.mark.parametrize("dtype", ["O", "V8", "f2", "U4", "|O", ">f8", "", 8])
def test_headers_with_other_dtypes_are_refused(dtype: object) -> None:
    assert "arrays.0.dtype" in refusal(header(arrays=[{"name": "x", "dtype": dtype, "shape": [1]}]))


@pytest.mark.parametrize("shape", [[-1], [1, -2], [2**41], [1, 1, 1, 1, 1], [1.5], ["3"], 3, [10**400]])
def test_headers_with_invalid_shapes_are_refused(shape: object) -> None:
    assert "arrays.0.shape" in refusal(header(arrays=[{"name": "x", "dtype": "f4", "shape": shape}]))


@pytest.mark.parametrize(
    ("frame", "word"),
    [
        (b"\xff\xfe", "header"),
        (b"", "header"),
        (b"[]", "header"),
        (b"[" * 5000, "recursion"),
        (b'{"op":' * 5000, "recursion"),
        (header(op="shutdown"), "op"),
        (header(id="1"), "id"),
        (header(id=True), "id"),
        (header(id=-1), "id"),
        (header(id=2**60), "id"),
        (header(client_id=""), "client_id"),
        (header(client_id="s" * 65), "client_id"),
        (header(seq=-1), "seq"),
        (header(deadline="soon"), "deadline"),
        (header(deadline=float("nan")), "deadline"),
        (header(deadline=float("inf")), "deadline"),
        (header(more=1), "more"),
        (header(arrays=[{"name": "x", "dtype": "f4", "shape": [1]}] * 9), "arrays"),
        (header(body={"x": "y" * 70000}), "65536"),
    ],
)
def test_the_error_for_an_invalid_header_names_the_field(frame: bytes, word: str) -> None:
    assert word in refusal(frame)


def test_frames_must_match_the_header_in_number_and_size() -> None:
    spec = ArraySpec(name="x", dtype="f4", shape=(2, 3))
    for specs, frames, word in (
        ([spec], [], "announces 1 arrays, but the message has 0"),
        ([], [b""], "announces 0"),
        ([spec], [b"\0" * 23], "takes 24 bytes, but its frame has 23"),
        ([spec], [b"\0" * 25], "takes 24 bytes, but its frame has 25"),
        ([spec, spec], [b"\0" * 24] * 2, "twice"),
        ([ArraySpec(name="x", dtype="f4", shape=(2**40, 2**40, 2**40, 2**40))], [b"\0" * 24], "its frame has 24"),
        ([ArraySpec(name="x", dtype="f4", shape=(0, 2**40, 2**40))], [b""], "no array"),
    ):
        with pytest.raises(DeviceError, match=word):
            messages.decode_arrays(specs, frames)


def test_the_prefix_has_magic_and_version() -> None:
    messages.check_prefix(b"PLP\x03")
    sentence = "has protocol version 1, but this side has version 3: install the same version of photonloop on both sides"
    with pytest.raises(DeviceError, match=sentence) as caught:
        messages.check_prefix(b"PLP\x01")
    assert caught.value.code == "version"
    for frame in (b"", b"PLP", b"PLP\x03\x00", b"HTTP"):
        with pytest.raises(ValueError, match="not a photonloop"):
            messages.check_prefix(frame)


def test_the_error_for_an_invalid_body_names_the_field() -> None:
    body = messages.decode_body(messages.LoadInputsBody, {"name": "a", "dtype": "f4", "shape": [2, 3], "offset": 0})
    assert body.nbytes == 24
    for model, data, word in (
        (messages.LoadInputsBody, {"name": "a", "dtype": "f4", "shape": [2, "3"], "offset": 0}, "shape"),
        (messages.EvaluateBody, {}, "stage"),
        (messages.EvaluateBody, {"stage": 1}, "stage"),
        (messages.EvaluateBody, {"stage": "a", "extra": 1}, "extra"),
        (messages.AcquireBody, {"lease_key": "k", "ttl_s": 0.0}, "ttl_s"),
        (messages.AcquireBody, {"lease_key": "k", "ttl_s": 1e9}, "ttl_s"),
        (messages.AcquireBody, {"lease_key": "", "ttl_s": 1.0}, "lease_key"),
        (messages.EmptyBody, {"x": 1}, "x"),
    ):
        with pytest.raises(DeviceError, match=word):
            messages.decode_body(model, data)
