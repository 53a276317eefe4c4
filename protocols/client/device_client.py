"""Client of a device server: a device in another process, used like one in the same process.

A `DeviceClient` is a `PhotonicDevice`. It adds the write lease, which it renews in the background, `reconnect` after a
restart of the server, and `submit`, which starts an evaluation without waiting for its readings.
"""

from __future__ import annotations

import secrets
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType

import numpy as np
import zmq
from pydantic import JsonValue, ValidationError

from photonloop.protocols.client import array_conversion
from photonloop.protocols.client.lease_keeper import LeaseKeeper
from photonloop.protocols.client.pending_readings import PendingQueue, PendingReadings
from photonloop.protocols.client.request_encoder import RequestEncoder
from photonloop.protocols.client.server_connection import Answer, ServerConnection
from photonloop.protocols.client.shared_buffer_slots import ClientSharedBuffer, Slot
from photonloop.protocols.device import DeviceDescription, DeviceStatus, Drive, Inputs, LoadedRows, Readback, Readings
from photonloop.protocols.errors import DeviceError
from photonloop.protocols.limits import check_wait
from photonloop.protocols.wire import messages
from photonloop.protocols.wire.messages import SAFE_FAILED, AnyArray, Op, largest_buffer_bytes
from photonloop.protocols.wire.server_address import check_server_address, on_this_machine

_SAFE_POLL_S = 0.02
_SAFE_TIMEOUT_S = 120.0


@dataclass(frozen=True)
class ClientOptions:
    """Timeouts of a client.

    Parameters
    ----------
    timeout_s
        Time within which a server must be reached and reply to `hello`.
    silence_s
        Time without any message after which a server that has a request counts as dead. A server that works
        on a request sends a message twice a second.
    deadline_s
        Time for a request that needs the device. After it the server does not start the request, and stops a running
        evaluation. A `wait` must start within this time and may last longer. Requests that stop the device, read its
        status or renew the lease have no deadline.
    """

    timeout_s: float = 2.0
    silence_s: float = 5.0
    deadline_s: float = 3600.0


def connect(
    address: str,
    *,
    label: str = "photonloop",
    lease_key: str | None = None,
    timeout_s: float = 2.0,
    keys: Path | None = None,
    options: ClientOptions | None = None,
) -> DeviceClient:
    """Return a client that is connected to the device server at `address`, without a lease.

    Parameters
    ----------
    address
        `tcp://HOST:PORT` or `ipc://PATH`.
    label
        Name of this writer, shown to other users of the device.
    lease_key
        Identifies the writer across restarts: a client with the same key takes the lease over. Random if None.
    timeout_s
        Time within which the server must be reached and reply. Ignored if `options` is given.
    keys
        Folder with `client.key_secret` and `server.key`, as created by `photonloop.protocols.wire.keys.add_client`.

    Raises
    ------
    DeviceError
        "transport" if no server replies, "bad_request" for a bad address or missing keys, "version" if the server has
        another protocol version.
    """
    options = ClientOptions(timeout_s=timeout_s) if options is None else options
    client = DeviceClient(address, label=label, lease_key=lease_key or secrets.token_hex(8), keys=keys, options=options)
    try:
        client.reconnect()
    except BaseException:
        client.close()
        raise
    return client


class DeviceClient:
    """A `PhotonicDevice` behind a server; created by `connect`.

    One thread calls `apply`, `load_inputs`, `evaluate`, `submit`, `set_light`, `wait` and `readback`. Any thread may
    call `status`, `cancel`, `safe`, `acquire`, `release` and `clear_fault`: these use a second socket.
    """

    may_wait = True
    """See `PhotonicDevice`: every method waits for the server, up to `silence_s` if the server is silent."""

    def __init__(self, address: str, *, label: str, lease_key: str, keys: Path | None, options: ClientOptions) -> None:
        self.address = check_server_address(address, to_bind=False)
        self.label = label
        self.lease_key = lease_key
        self._keys = keys
        self._options = options
        self._encoder = RequestEncoder(options.deadline_s)
        self._description: DeviceDescription | None = None
        self._context: zmq.Context | None = None
        self._main: ServerConnection | None = None
        self._side: ServerConnection | None = None
        self._pending = PendingQueue()
        self._shared = self._new_shared_buffer()
        self._lease = LeaseKeeper(self._ask_for_lease, lease_key, label)

    @property
    def lost(self) -> str | None:
        """Why the lease was lost; None while it is held, and after `release`."""
        return self._lease.lost

    # ---- the connection ---------------------------------------------------------------------------------------------

    def reconnect(self) -> None:
        """Connect again, to the same server or to its successor.

        After a restart of the server no drive is held, no inputs are loaded and no lease is held: the caller must
        acquire, load and apply again. Raises as `connect` does.
        """
        self._lease.forget()
        self._disconnect()
        context = zmq.Context()
        self._context = context
        silence_s = self._options.silence_s
        self._main = ServerConnection(context, self.address, self._keys, silence_s)
        self._side = ServerConnection(context, self.address, self._keys, silence_s)
        self._say_hello(self._main)
        self._shared = self._new_shared_buffer()
        described = self._ask(self._main, "describe")
        try:
            self._description = DeviceDescription.model_validate_json(described.arrays["description"].tobytes())
        except (KeyError, ValidationError) as error:
            raise DeviceError("transport", f"the device server at {self.address} sent an invalid description: {error}") from None

    def close(self) -> None:
        """Release the lease if this client holds it, which makes the device safe, and close the sockets."""
        if self._context is None:
            return
        try:
            self.release()
        except DeviceError:
            pass  # the server is gone; the lease will run out, and the device is then made safe
        finally:
            self._lease.stop_renewing()
            self._disconnect()

    def __enter__(self) -> DeviceClient:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None) -> None:
        self.close()

    # ---- the lease --------------------------------------------------------------------------------------------------

    def acquire(self, ttl_s: float = 5.0) -> None:
        """Acquire the write lease, and renew it in the background until `release` or `close`.

        If this process dies, the server makes the device safe `ttl_s` later.

        Raises
        ------
        DeviceError
            "lease" if another writer holds the device.
        """
        self._lease.acquire(ttl_s)
        self._shared.forget()  # the server no longer shares it if another client held the lease in between

    def release(self) -> None:
        """Release the lease. The device is made safe, without a fault. No effect without a lease."""
        self._lease.release()

    # ---- the device -------------------------------------------------------------------------------------------------

    def describe(self) -> DeviceDescription:
        """See `PhotonicDevice.describe`; fetched when the client connects."""
        if self._description is None:
            raise self._not_connected()
        return self._description

    def apply(self, drive: Drive) -> None:
        """See `PhotonicDevice.apply`."""
        self._pending.check_empty()
        self._ask(self._main, "apply", arrays={"drive": array_conversion.to_drive_array(drive, "drive")})

    def load_inputs(self, name: str, inputs: Inputs) -> None:
        """See `PhotonicDevice.load_inputs`. An array larger than the server's largest message is sent in pieces."""
        self._pending.check_empty()
        array = array_conversion.amplitudes(inputs)
        limit = self.describe().limits.max_loaded_bytes
        if array.nbytes > limit:
            raise DeviceError("limit", f"inputs {name!r} take {array.nbytes} bytes, more than max_loaded_bytes {limit}")
        (spec,), (sent,) = messages.array_specs({"inputs": array})
        data = sent.reshape(-1).view(np.uint8)
        step = self._encoder.max_message_bytes
        for offset in range(0, max(1, len(data)), step):
            body: dict[str, JsonValue] = {"name": name, "dtype": spec.dtype, "shape": list(spec.shape), "offset": offset}
            self._ask(self._main, "load_inputs", body, {"chunk": data[offset : offset + step]})

    def evaluate(self, drives: Drive, inputs: Inputs | LoadedRows, stage: str) -> Readings:
        """See `PhotonicDevice.evaluate`."""
        return self.submit(drives, inputs, stage).result()

    def submit(self, drives: Drive, inputs: Inputs | LoadedRows, stage: str) -> PendingReadings:
        """Start an evaluation and return at once. A second one may be submitted before the first one's `result`.

        No other write is allowed while an evaluation is pending. Do not change `drives` and `inputs` before `result`: a
        retry sends them again.

        Raises
        ------
        DeviceError
            As `evaluate` for errors that this side can detect. `result` raises what the server refuses.
        """
        self._pending.check_room()
        connection = self._main
        if connection is None:
            raise self._not_connected()
        arrays: dict[str, AnyArray] = {"drives": array_conversion.to_drive_array(drives, "drives")}
        body: dict[str, JsonValue] = {"stage": stage}
        if isinstance(inputs, LoadedRows):
            body["loaded"] = inputs.name
            arrays["rows"] = array_conversion.rows(inputs.rows)
        else:
            arrays["inputs"] = array_conversion.amplitudes(inputs)
        slot = self._slot(arrays["drives"], arrays.get("rows", arrays.get("inputs")), stage)
        try:
            if slot is not None:
                slot.write(arrays["drives"])
                body |= slot.body()
            request, frames = self._encoder.encode("evaluate", body, arrays, {} if slot is None else {"drives": slot.at})
            pending = PendingReadings(self._pending, connection, request, frames, self._shared, slot)
            connection.post(request, frames)
        except BaseException:
            self._shared.forget()  # the request may have been sent all the same: its reply must not use a slot that is free
            raise
        self._pending.add(pending)
        return pending

    def set_light(self, on: bool) -> None:
        """See `PhotonicDevice.set_light`."""
        self._pending.check_empty()
        self._ask(self._main, "set_light", {"on": bool(on)})

    def wait(self, seconds: float) -> None:
        """See `PhotonicDevice.wait`. The lease is renewed in the background, so a wait may last for hours.

        Raises
        ------
        DeviceError
            Also "transport" with the outcome "unknown" if the connection is lost for more than a second. The server
            may then still wait; if the lease runs out, it stops waiting and makes the device safe.
        """
        checked_s = check_wait(seconds)
        self._pending.check_empty()
        self._ask(self._main, "wait", {"seconds": checked_s})

    def readback(self) -> Readback:
        """See `PhotonicDevice.readback`. Needs the lease, because it uses the instruments."""
        self._pending.check_empty()
        return array_conversion.to_readback(self._ask(self._main, "readback"), self.describe().channels)

    def status(self) -> DeviceStatus:
        """See `PhotonicDevice.status`."""
        return self._status()[0]

    def cancel(self) -> None:
        """See `PhotonicDevice.cancel`. Stops all pending evaluations or a `wait`; only the holder of the lease may."""
        self._ask(self._side, "cancel")

    def safe(self) -> None:
        """See `PhotonicDevice.safe`. Needs no lease. Returns when the device is safe.

        All pending evaluations are stopped, and none is accepted before the next `apply`. If another client holds the
        lease, the server also latches the fault "made_safe", which the holder must clear by name.

        Raises
        ------
        DeviceError
            "device" if the device did not become safe.
        """
        answer = self._ask(self._side, "safe")
        if answer.header.body.get("in_effect") is True:
            return
        until_s = time.monotonic() + _SAFE_TIMEOUT_S
        while time.monotonic() < until_s:
            time.sleep(_SAFE_POLL_S)
            status, is_pending = self._status()
            if not is_pending:
                for fault in status.faults:
                    if fault.name == SAFE_FAILED:
                        raise DeviceError("device", fault.detail, outcome="unknown")
                return
        raise DeviceError("device", f"the device is not safe after {_SAFE_TIMEOUT_S:g} s", outcome="unknown")

    def clear_fault(self, name: str) -> None:
        """See `PhotonicDevice.clear_fault`."""
        self._ask(self._side, "clear_fault", {"name": name})

    # ---- requests ---------------------------------------------------------------------------------------------------

    def _say_hello(self, connection: ServerConnection) -> None:
        timeout_s = self._options.timeout_s
        asked_s = time.monotonic()
        request, frames = self._encoder.hello(self.label)
        try:
            answer = connection.ask(request, frames, within_s=timeout_s)
        except DeviceError as error:
            if error.code != "transport":
                raise
            detail = f"no device server answers at {self.address} within {timeout_s:g} s"
            if self._keys is not None:
                detail += f", or it does not accept the keys in {self._keys}"
            raise DeviceError("transport", detail, retryable=True) from None
        self._encoder.note_hello(answer.header, asked_s, time.monotonic())

    def _slot(self, drives: AnyArray, samples: AnyArray | None, stage: str) -> Slot | None:
        """Return shared memory for an evaluation, or None. A malformed request gets none: the server refuses it."""
        ports = next((s.tap_ports for s in self.describe().stages if s.name == stage), 0)
        if not self._lease.acquired or drives.ndim != 2 or drives.nbytes > self._encoder.max_message_bytes:
            return None
        if samples is None or not samples.ndim:
            return None
        return self._shared.take(drives.nbytes, 4 * len(drives) * len(samples) * ports)

    def _new_shared_buffer(self) -> ClientSharedBuffer:
        allowed = self._keys is None and on_this_machine(self.address)
        most_bytes = largest_buffer_bytes(self._encoder.max_message_bytes)
        return ClientSharedBuffer(self._ask_to_share, allowed=allowed, most_bytes=most_bytes)

    def _ask_to_share(self, body: dict[str, JsonValue]) -> Mapping[str, JsonValue]:
        return self._ask(self._main, "share", body).header.body

    def _ask_for_lease(self, op: Op, body: dict[str, JsonValue]) -> Mapping[str, JsonValue]:
        asked_s = time.monotonic()
        answer = self._ask(self._side, op, body).header.body
        if op == "renew":
            self._encoder.note_clock(answer, asked_s, time.monotonic())
        return answer

    def _status(self) -> tuple[DeviceStatus, bool]:
        body = self._ask(self._side, "status").header.body
        try:
            return DeviceStatus.model_validate(body.get("status")), body.get("safe_pending") is True
        except ValidationError as error:
            raise DeviceError("transport", f"the device server at {self.address} sent an invalid status: {error}") from None

    def _ask(
        self,
        connection: ServerConnection | None,
        op: Op,
        body: dict[str, JsonValue] | None = None,
        arrays: Mapping[str, AnyArray] | None = None,
    ) -> Answer:
        if connection is None:
            raise self._not_connected()
        request, frames = self._encoder.encode(op, body or {}, arrays or {})
        return connection.ask(request, frames)

    def _disconnect(self) -> None:
        self._pending.abandon()
        for connection in (self._main, self._side):
            if connection is not None:
                connection.close()
        if self._context is not None:
            self._context.term()
        self._main = self._side = self._context = None

    def _not_connected(self) -> DeviceError:
        return DeviceError("transport", f"not connected to {self.address}", retryable=True)
