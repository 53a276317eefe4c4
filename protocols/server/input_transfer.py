"""Arrays that arrive in pieces, put together without trusting what the first piece claims."""

from __future__ import annotations

from dataclasses import dataclass

from photonloop.protocols.errors import DeviceError
from photonloop.protocols.wire.messages import AnyArray, Buffer, LoadInputsBody, as_array


@dataclass
class Transfer:
    """An array of which a part has arrived; `data` grows with what really came."""

    client_id: str
    body: LoadInputsBody
    data: bytearray


def add_chunk(
    transfer: Transfer | None, client_id: str, body: LoadInputsBody, chunk: Buffer, max_bytes: int
) -> tuple[Transfer | None, AnyArray | None]:
    """Take one chunk; return the transfer that is still open, or the whole array.

    A chunk at offset 0 starts over. An array of a single chunk stays where it is, on the memory of `chunk`.

    Raises
    ------
    DeviceError
        "limit" for an array larger than `max_bytes`, "bad_request" for a chunk that does not continue the transfer.
    """
    total = body.nbytes
    if total > max_bytes:
        raise DeviceError("limit", f"inputs {body.name!r} take {total} bytes, more than max_loaded_bytes {max_bytes}")
    if body.offset + len(chunk) > total:
        raise DeviceError("bad_request", f"inputs {body.name!r} take {total} bytes, the chunk at {body.offset} has {len(chunk)}")
    if body.offset == 0:
        if len(chunk) == total:
            return None, as_array(chunk, body.dtype, body.shape)
        transfer = Transfer(client_id, body, bytearray())
    elif transfer is None or transfer.client_id != client_id or _whole(transfer.body) != _whole(body):
        raise DeviceError("bad_request", f"inputs {body.name!r}: a chunk at {body.offset} came without the ones before it")
    elif body.offset != len(transfer.data):
        raise DeviceError(
            "bad_request",
            f"inputs {body.name!r}: a chunk at {body.offset} came, the next one starts at {len(transfer.data)}",
        )
    transfer.data += chunk
    if len(transfer.data) < total:
        return transfer, None
    return None, as_array(transfer.data, body.dtype, body.shape)


def _whole(body: LoadInputsBody) -> tuple[object, ...]:
    return body.name, body.dtype, body.shape
