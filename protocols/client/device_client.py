"""A device on the far side of a socket, used like one in the same process.

A `DeviceClient` is a `PhotonicDevice`. What it adds is what a network needs: a lease to be taken before writing and renewed
in the background, a `reconnect` after the server was restarted, and `submit`, which lets the caller think while light flies.
"""

from __future__ import annotations

import itertools
import secrets
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType

import numpy as np
import zmq
from pydantic import JsonValue, ValidationError

from photonloop.protocols.client import array_conversion
from photonloop.protocols.client.connection import Answer, ServerConnection
from photonloop.protocols.device import DeviceDescription, DeviceStatus, Drive, Inputs, LoadedRows, Readings
from photonloop.protocols.errors import DeviceError
from photonloop.protocols.wire import messages
from photonloop.protocols.wire.messages import MOST_PENDING, SAFE_FAILED, AnyArray, Frames, Op, Request
from photonloop.protocols.wire.server_address import check_address, on_this_machine
from photonloop.protocols.wire.sharing import ClientSharedBuffer, Slot, largest_buffer_bytes

_NO_DEADLINE: frozenset[Op] = frozenset({"safe", "status", "describe", "renew", "cancel", "release"})
"""What is never too late: a clock that drifts must not keep a device from being made safe."""

_SAFE_POLL_S = 0.02
_SAFE_PATIENCE_S = 120.0


@dataclass(frozen=True)
class ClientOptions:
    """How a client waits.

    Parameters
    ----------
    timeout_s
        Time for a server to be reached and to answer the first hello.
    silence_s
        A server that says nothing for this long while it has a request is given up; one at work says so twice a second.
    deadline_s
        Time for an `acquire`, `apply`, `load_inputs`, `clear_fault` or evaluation, however long: past it the server does
        not start it, and stops a running evaluation. What stops, reads or renews has no deadline.
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
    """Return a client of the device server at `address`, connected and described, without a lease.

    Parameters
    ----------
    address
        `tcp://HOST:PORT` or `ipc://PATH`.
    label
        Tells other people who holds the device.
    lease_key
        Names the writer over restarts: whoever comes back with the same key takes the lease over. Random where None.
    timeout_s
        Time for the server to be reached and to answer.
    keys
        Folder with `client.key_secret` and `server.key`, as `photonloop.protocols.wire.keys.add_client` makes it.

    Raises
    ------
    DeviceError
        "transport" where nobody answers, "bad_request" for a bad address or missing keys, "version".
    """
    options = ClientOptions(timeout_s=timeout_s) if options is None else options
    client = DeviceClient(address, label=label, lease_key=lease_key or secrets.token_hex(8), keys=keys, options=options)
    try:
        client.reconnect()
    except BaseException:
        client.close()
        raise
    return client


class PendingReadings:
    """An evaluation under way; `result` waits for it."""

    def __init__(
        self,
        client: DeviceClient,
        channel: ServerConnection,
        request: Request,
        frames: Frames,
        sharing: ClientSharedBuffer,
        slot: Slot | None,
    ) -> None:
        self._client = client
        self._sharing, self._slot = sharing, slot
        self._channel = channel
        self._request = request
        self._frames = frames
        self._readings: Readings | None = None
        self._error: DeviceError | None = None

    def result(self) -> Readings:
        """Return the readings, waiting where they are not there yet; raises as `PhotonicDevice.evaluate` does."""
        self._client._collect_up_to(self)
        if self._readings is not None:
            return self._readings
        raise self._error or _closed_meanwhile()

    def _collect(self) -> None:
        if self._readings is not None or self._error is not None:
            return
        buffer = self._slot.buffer if self._slot is not None else None
        try:
            self._readings = array_conversion.readings(self._channel.wait(self._request, self._frames, buffer))
        except DeviceError as error:
            self._error = self._error or error
            if error.code == "transport":
                self._sharing.forget()
        self._sharing.free(self._slot)

    def _abandon(self) -> None:
        self._error = _closed_meanwhile()


class DeviceClient:
    """A `PhotonicDevice` that lives behind a server; made by `connect`.

    `apply`, `load_inputs`, `evaluate` and `submit` belong to one thread. `status`, `cancel`, `safe`, `acquire`, `release`
    and `clear_fault` may be called from any: they travel on a socket of their own.
    """

    may_wait = True
    """See `PhotonicDevice`: everything waits for the server, and for as long as `silence_s` where it says nothing."""

    def __init__(self, address: str, *, label: str, lease_key: str, keys: Path | None, options: ClientOptions) -> None:
        self.address = check_address(address, to_bind=False)
        self.label = label
        self.lease_key = lease_key
        self.lost: str | None = None
        """Why the lease is gone, where it was lost and not released."""
        self._keys = keys
        self._options = options
        self._client_id = secrets.token_hex(16)
        self._ids = itertools.count(1)
        self._seqs = itertools.count(1)
        self._epoch = ""
        self._server_ahead_s = 0.0
        self._max_message_bytes = 0
        self._description: DeviceDescription | None = None
        self._context: zmq.Context | None = None
        self._main: ServerConnection | None = None
        self._side: ServerConnection | None = None
        self._pending: list[PendingReadings] = []
        self._sharing = self._new_sharing()
        self._leased = False
        self._renewing: threading.Thread | None = None
        self._released = threading.Event()

    # ---- the connection ---------------------------------------------------------------------------------------------

    def reconnect(self) -> None:
        """Say hello again, to the same server or to the one that came after it.

        After a restart of the server nothing is held, loaded or leased any more; the caller does all three again.
        Raises as `connect` does.
        """
        self._stop_renewing()
        self._leased = False
        self._disconnect()
        context = zmq.Context()
        self._context = context
        silence_s = self._options.silence_s
        self._main = ServerConnection(context, self.address, self._keys, silence_s)
        self._side = ServerConnection(context, self.address, self._keys, silence_s)
        self._epoch = ""
        asked_s = time.monotonic()
        timeout_s = self._options.timeout_s
        hello = self._request("hello", {"label": self.label}, deadline_s=None)
        try:
            answer = self._main.ask(hello, messages.encode(hello), within_s=timeout_s)
        except DeviceError as error:
            if error.code != "transport":
                raise
            detail = f"no device server answers at {self.address} within {timeout_s:g} s"
            if self._keys is not None:
                detail += f", or it does not accept the keys in {self._keys}"
            raise DeviceError("transport", detail, retryable=True) from None
        answered_s = time.monotonic()
        body = answer.header.body
        self._epoch = answer.header.epoch
        self._note_clock(answer, asked_s, answered_s)
        self._max_message_bytes = int(_number(body, "max_message_bytes"))
        self._sharing = self._new_sharing()
        described = self._ask(self._main, "describe")
        try:
            self._description = DeviceDescription.model_validate_json(described.arrays["description"].tobytes())
        except (KeyError, ValidationError) as error:
            raise DeviceError("transport", f"the device server at {self.address} describes nonsense: {error}") from None

    def close(self) -> None:
        """Release the lease if this client holds it, which makes the device safe, and close the sockets."""
        if self._context is None:
            return
        try:
            self.release()
        except DeviceError:
            pass  # the server is gone; its lease ends by itself, and with it the device is made safe
        finally:
            self._stop_renewing()
            self._disconnect()

    def __enter__(self) -> DeviceClient:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None) -> None:
        self.close()

    # ---- the lease --------------------------------------------------------------------------------------------------

    def acquire(self, ttl_s: float = 5.0) -> None:
        """Become the one writer, and stay it by renewing in the background until `release` or `close`.

        Should this process die, the server makes the device safe `ttl_s` later.

        Raises
        ------
        DeviceError
            "lease" where another writer holds the device.
        """
        self._stop_renewing()
        body: dict[str, JsonValue] = {"lease_key": self.lease_key, "label": self.label, "ttl_s": ttl_s}
        self._ask(self._side, "acquire", body, command=True)
        self.lost = None
        self._sharing.forget()  # the server has, whether the lease was another's meanwhile or not
        self._leased = True
        self._released.clear()
        self._renewing = threading.Thread(target=self._renew, args=(ttl_s,), name="photonloop-lease", daemon=True)
        self._renewing.start()

    def release(self) -> None:
        """Stop being the writer; the device is made safe, without a fault. Does nothing without a lease."""
        self._stop_renewing()
        leased, self._leased = self._leased and self.lost is None, False
        if leased:
            self._ask(self._side, "release", command=True)

    def _renew(self, ttl_s: float) -> None:
        renewed_s = time.monotonic()
        while not self._released.wait(ttl_s / 3):
            asked_s = time.monotonic()
            try:
                answer = self._ask(self._side, "renew")
                renewed_s = asked_s
                self._note_clock(answer, asked_s, time.monotonic())
            except DeviceError as error:
                if error.code == "lease" or time.monotonic() - renewed_s > ttl_s:
                    self.lost = error.detail
                    return

    def _stop_renewing(self) -> None:
        self._released.set()
        if self._renewing is not None and self._renewing is not threading.current_thread():
            self._renewing.join()
        self._renewing = None

    # ---- the device -------------------------------------------------------------------------------------------------

    def describe(self) -> DeviceDescription:
        """See `PhotonicDevice.describe`; fetched once, on connecting."""
        if self._description is None:
            raise _not_connected(self.address)
        return self._description

    def apply(self, drive: Drive) -> None:
        """See `PhotonicDevice.apply`."""
        self._none_pending()
        self._ask(self._main, "apply", arrays={"drive": array_conversion.volts(drive, "drive")}, command=True)

    def load_inputs(self, name: str, inputs: Inputs) -> None:
        """See `PhotonicDevice.load_inputs`. Arrays beyond the server's largest message travel in pieces."""
        self._none_pending()
        array = array_conversion.amplitudes(inputs)
        limit = self.describe().limits.max_loaded_bytes
        if array.nbytes > limit:
            raise DeviceError("limit", f"inputs {name!r} take {array.nbytes} bytes, more than max_loaded_bytes {limit}")
        (spec,), (travelling,) = messages.array_specs({"inputs": array})
        data = travelling.reshape(-1).view(np.uint8)
        step = self._max_message_bytes
        for offset in range(0, max(1, len(data)), step):
            body: dict[str, JsonValue] = {"name": name, "dtype": spec.dtype, "shape": list(spec.shape), "offset": offset}
            self._ask(self._main, "load_inputs", body, {"chunk": data[offset : offset + step]}, command=True)

    def evaluate(self, drives: Drive, inputs: Inputs | LoadedRows, stage: str) -> Readings:
        """See `PhotonicDevice.evaluate`."""
        return self.submit(drives, inputs, stage).result()

    def submit(self, drives: Drive, inputs: Inputs | LoadedRows, stage: str) -> PendingReadings:
        """Start an evaluation and return at once; a second may follow before the first one's `result`, no other write.

        Leave `drives` and `inputs` unchanged until then: a retry sends them again.

        Raises
        ------
        DeviceError
            As `evaluate` for what this side can see; what the server refuses is raised by `result`.
        """
        if len(self._pending) >= MOST_PENDING:
            raise DeviceError("bad_request", f"{MOST_PENDING} evaluations are pending already: ask for the first one's result")
        channel = self._main
        if channel is None:
            raise _not_connected(self.address)
        arrays: dict[str, AnyArray] = {"drives": array_conversion.volts(drives, "drives")}
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
            places = {} if slot is None else {"drives": slot.at}
            request, frames = self._encode("evaluate", body, arrays, command=True, places=places)
            pending = PendingReadings(self, channel, request, frames, self._sharing, slot)
            channel.post(request, frames)
        except BaseException:
            self._sharing.forget()  # interrupted, it may have left all the same, and be answered into a slot that was freed
            raise
        self._pending.append(pending)
        return pending

    def status(self) -> DeviceStatus:
        """See `PhotonicDevice.status`."""
        return self._status()[0]

    def cancel(self) -> None:
        """See `PhotonicDevice.cancel`; only the holder of the lease may. Stops all evaluations that are pending."""
        self._ask(self._side, "cancel", command=True)

    def safe(self) -> None:
        """See `PhotonicDevice.safe`; anybody may, with or without the lease. Returns when the device is safe.

        All pending evaluations are stopped, and none is accepted before the next `apply`. Where another client writes,
        the server latches the fault "made_safe" besides, which the writer must clear by name.

        Raises
        ------
        DeviceError
            "device" where the device did not become safe.
        """
        answer = self._ask(self._side, "safe")
        if answer.header.body.get("in_effect") is True:
            return
        until_s = time.monotonic() + _SAFE_PATIENCE_S
        while time.monotonic() < until_s:
            time.sleep(_SAFE_POLL_S)
            status, is_pending = self._status()
            if not is_pending:
                for fault in status.faults:
                    if fault.name == SAFE_FAILED:
                        raise DeviceError("device", fault.detail, outcome="unknown")
                return
        raise DeviceError("device", f"the device is not safe after {_SAFE_PATIENCE_S:g} s", outcome="unknown")

    def clear_fault(self, name: str) -> None:
        """See `PhotonicDevice.clear_fault`."""
        self._ask(self._side, "clear_fault", {"name": name}, command=True)

    # ---- asking -----------------------------------------------------------------------------------------------------

    def _slot(self, drives: AnyArray, samples: AnyArray | None, stage: str) -> Slot | None:
        """Return shared memory for an evaluation, or None; whatever is wrong with the request is for the server to say."""
        ports = next((s.tap_ports for s in self.describe().stages if s.name == stage), 0)
        if not self._leased or drives.ndim != 2 or samples is None or not samples.ndim or drives.nbytes > self._max_message_bytes:
            return None
        return self._sharing.take(drives.nbytes, 4 * len(drives) * len(samples) * ports)

    def _new_sharing(self) -> ClientSharedBuffer:
        allowed = self._keys is None and on_this_machine(self.address)
        return ClientSharedBuffer(self._share, allowed=allowed, most_bytes=largest_buffer_bytes(self._max_message_bytes))

    def _share(self, body: dict[str, JsonValue]) -> Mapping[str, JsonValue]:
        return self._ask(self._main, "share", body).header.body

    def _status(self) -> tuple[DeviceStatus, bool]:
        body = self._ask(self._side, "status").header.body
        try:
            return DeviceStatus.model_validate(body.get("status")), body.get("safe_pending") is True
        except ValidationError as error:
            raise DeviceError("transport", f"the device server at {self.address} answered nonsense: {error}") from None

    def _ask(
        self,
        channel: ServerConnection | None,
        op: Op,
        body: dict[str, JsonValue] | None = None,
        arrays: Mapping[str, AnyArray] | None = None,
        *,
        command: bool = False,
    ) -> Answer:
        if channel is None:
            raise _not_connected(self.address)
        request, frames = self._encode(op, body or {}, arrays or {}, command=command)
        return channel.ask(request, frames)

    def _encode(
        self,
        op: Op,
        body: dict[str, JsonValue],
        arrays: Mapping[str, AnyArray],
        *,
        command: bool,
        places: Mapping[str, int] | None = None,
    ) -> tuple[Request, Frames]:
        specs, travelling = messages.array_specs(arrays, places)
        for spec in specs:
            if spec.nbytes > self._max_message_bytes:
                raise DeviceError(
                    "limit",
                    f"{spec.name} takes {spec.nbytes} bytes, over the server's largest message {self._max_message_bytes}",
                )
        deadline_s = None if op in _NO_DEADLINE else self._options.deadline_s
        request = self._request(op, body, specs, command=command, deadline_s=deadline_s)
        return request, messages.encode(request, travelling)

    def _request(
        self,
        op: Op,
        body: dict[str, JsonValue],
        specs: tuple[messages.ArraySpec, ...] = (),
        *,
        command: bool = False,
        deadline_s: float | None,
    ) -> Request:
        try:
            return Request(
                op=op,
                id=next(self._ids),
                client_id=self._client_id,
                seq=next(self._seqs) if command else 0,
                epoch=self._epoch,
                deadline=None if deadline_s is None else time.monotonic() + self._server_ahead_s + deadline_s,
                arrays=specs,
                body=body,
            )
        except ValidationError as error:
            raise DeviceError("bad_request", f"{op}: {error.errors()[0]['msg']}") from None

    def _none_pending(self) -> None:
        if self._pending:
            raise DeviceError("bad_request", "an evaluation is still pending: ask for its result first")

    def _collect_up_to(self, pending: PendingReadings) -> None:
        """Wait for `pending` and for those before it, in the order in which the server answers."""
        while pending in self._pending:
            first = self._pending[0]
            first._collect()
            # Only now: who interrupts the wait may ask again. Another thread may have closed the connection meanwhile.
            if first in self._pending:
                self._pending.remove(first)

    def _note_clock(self, answer: Answer, asked_s: float, answered_s: float) -> None:
        """Reckon the server's clock from an answer that tells it."""
        self._server_ahead_s = _number(answer.header.body, "now_s") - (asked_s + answered_s) / 2

    def _disconnect(self) -> None:
        for pending in self._pending:
            pending._abandon()
        self._pending.clear()
        for channel in (self._main, self._side):
            if channel is not None:
                channel.close()
        if self._context is not None:
            self._context.term()
        self._main = self._side = self._context = None


def _number(body: Mapping[str, JsonValue], name: str) -> float:
    value = body.get(name)
    if not isinstance(value, int | float):
        raise DeviceError("transport", f"the device server's answer lacks {name}")
    return float(value)


def _closed_meanwhile() -> DeviceError:
    detail = "the connection was closed while this evaluation was pending"
    return DeviceError("transport", detail, retryable=True, outcome="unknown")


def _not_connected(address: str) -> DeviceError:
    return DeviceError("transport", f"not connected to {address}", retryable=True)
