"""Encoding of a server's replies as frames."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from pydantic import BaseModel, JsonValue, ValidationError

from photonloop.protocols.device import DeviceStatus, Fault, Readback, Readings
from photonloop.protocols.errors import DeviceError
from photonloop.protocols.server.lease import Lease
from photonloop.protocols.wire import messages
from photonloop.protocols.wire.messages import AnyArray, Frames, Reply, Request


@dataclass(frozen=True)
class ReplyEncoder:
    """Encodes the replies of the server with this epoch."""

    epoch: str

    def done(
        self,
        request: Request,
        body: dict[str, JsonValue] | None = None,
        arrays: Mapping[str, AnyArray] | None = None,
        places: Mapping[str, int] | None = None,
    ) -> Frames:
        """Return the reply "done"; arrays named in `places` are in shared memory, at these bytes."""
        specs, ready = messages.array_specs(arrays or {}, places)
        if not body:
            return messages.encode_done(request, self.epoch, specs, ready)
        return messages.encode(
            Reply(id=request.id, op=request.op, epoch=self.epoch, state="done", arrays=specs, body=body), ready
        )

    def working(self, request: Request) -> Frames:
        """Return the reply "working": the request is in progress."""
        return messages.encode(Reply(id=request.id, op=request.op, epoch=self.epoch, state="working"))

    def error(self, request_id: int, op: str, error: DeviceError) -> Frames:
        """Return the reply "error"."""
        return messages.encode(Reply(id=request_id, op=op, epoch=self.epoch, state="error", error=error.body()))


def outcome_arrays(outcome: object) -> dict[str, AnyArray]:
    """Return the arrays of the reply to `evaluate` or `readback`, by name; none for the results of other requests."""
    if isinstance(outcome, Readings):
        return {
            "values": np.asarray(outcome.values, np.float32),
            "time_s": np.asarray(outcome.time_s, np.float64),
            "flags": np.asarray(outcome.flags, np.uint32),
        }
    if isinstance(outcome, Readback):
        return {"volts": np.asarray(outcome.volts, np.float64), "amperes": np.asarray(outcome.amperes, np.float64)}
    return {}


def with_server_state(status: DeviceStatus, faults: Sequence[Fault], lease: Lease | None, pending: bool) -> DeviceStatus:
    """Return the device's status combined with the server's faults, its lease, and whether requests are pending.

    The device counts as safe only while nothing is pending. Health values that are not finite become strings, because
    JSON has no NaN.
    """
    busy = status.busy or pending
    health = {name: v if isinstance(v, str) or math.isfinite(v) else str(v) for name, v in status.health.items()}
    return status.model_copy(
        update={
            "busy": busy,
            "safe": status.safe and not busy,
            "faults": (*faults, *status.faults),
            "leased_to": lease.label or lease.key if lease else "",
            "health": health,
        }
    )


class _AnyId(BaseModel):
    id: int = 0


def some_id(frame: messages.Buffer) -> int:
    """Return the id in a header that cannot be decoded otherwise; 0 if there is none."""
    if len(frame) > messages.MAX_REQUEST_HEADER_BYTES:
        return 0
    try:
        return _AnyId.model_validate_json(bytes(frame)).id
    except ValidationError:
        return 0
