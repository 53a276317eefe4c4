"""Assemble inputs that arrive in chunks. Memory is allocated for received bytes only, not for the announced size."""

from __future__ import annotations

from dataclasses import dataclass

from photonloop.protocols.errors import DeviceError
from photonloop.protocols.wire.messages import AnyArray, Buffer, LoadInputsBody, as_array


@dataclass
class Transfer:
    """An array that has arrived in part; `data` holds the bytes received so far."""

    client_id: str
    body: LoadInputsBody
    data: bytearray


def add_chunk(
    transfer: Transfer | None, client_id: str, body: LoadInputsBody, chunk: Buffer, max_bytes: int
) -> tuple[Transfer | None, AnyArray | None]:
    """Add one chunk. Return the transfer if it is still incomplete, or the whole array.

    A chunk at offset 0 starts a new transfer. An array of one chunk is not copied: it uses the memory of `chunk`.

    Raises
    ------
    DeviceError
        "limit" for an array larger than `max_bytes`, "bad_request" for a chunk that does not continue the transfer.
    """
    total = body.nbytes
    if total > max_bytes:
        raise DeviceError("limit", f"inputs {body.name!r} take {total} bytes, more than max_loaded_bytes {max_bytes}")
    if body.offset + len(chunk) > total:
        raise DeviceError(
            "bad_request", f"inputs {body.name!r} take {total} bytes, but the chunk at {body.offset} has {len(chunk)}"
        )
    if body.offset == 0:
        if len(chunk) == total:
            return None, as_array(chunk, body.dtype, body.shape)
        transfer = Transfer(client_id, body, bytearray())
    elif transfer is None or transfer.client_id != client_id or _whole(transfer.body) != _whole(body):
        raise DeviceError("bad_request", f"inputs {body.name!r}: the chunk at {body.offset} arrived without those before it")
    elif body.offset != len(transfer.data):
        raise DeviceError(
            "bad_request",
            f"inputs {body.name!r}: the chunk at {body.offset} arrived, but the next one starts at {len(transfer.data)}",
        )
    transfer.data += chunk
    if len(transfer.data) < total:
        return transfer, None
    return None, as_array(transfer.data, body.dtype, body.shape)


def _whole(body: LoadInputsBody) -> tuple[object, ...]:
    return body.name, body.dtype, body.shape
