"""What a device server decides: who may do what, what was done already, and what to answer.

A `RequestDispatcher` takes the frames of a message and gives frames back through `send`; it knows no sockets. It runs in the socket
loop's thread, and whatever may take time it hands to the worker.

    message ──▶ header ──▶ epoch ──▶ done before? ──▶ deadline ──▶ arrays ──▶ lease ──▶ faults ──▶ job, or answer
"""

from __future__ import annotations

import logging
import math
import secrets
import time
from collections import OrderedDict
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
from pydantic import BaseModel, JsonValue, ValidationError

from photonloop.protocols.device import PROTOCOL_VERSION, DeviceStatus, Fault, LoadedRows, PhotonicDevice, Readings, may_wait
from photonloop.protocols.errors import DeviceError
from photonloop.protocols.server import lease as leases
from photonloop.protocols.server.duration_estimator import DurationEstimator
from photonloop.protocols.server.input_transfer import Transfer, add_chunk
from photonloop.protocols.server.reply_cache import GONE, ReplyCache
from photonloop.protocols.server.scheduler import Scheduler
from photonloop.protocols.server.status_poller import StatusPoller
from photonloop.protocols.server.worker import Job, carry_out
from photonloop.protocols.wire import messages
from photonloop.protocols.wire.messages import MADE_SAFE, SAFE_FAILED, AnyArray, Frames, Reply, Request
from photonloop.protocols.wire.sharing import ServerSharedBuffer, largest_buffer_bytes

log = logging.getLogger(__name__)

_COMMANDS = frozenset({"acquire", "release", "apply", "load_inputs", "evaluate", "cancel", "clear_fault"})
_LAST_SAFE_S = 5.0
_LABELS = 256

Send = Callable[[bytes, Frames], None]
"""Sends frames along a route; never waits, never raises."""


@dataclass(frozen=True)
class ServerOptions:
    """How a server behaves.

    Parameters
    ----------
    keys
        Folder of CURVE keys (`photonloop.protocols.wire.keys`); needed off loopback.
    inline_s
        Evaluations predicted to take less are carried out in the socket loop, which saves two changes of thread. Keep it
        well below the 50 ms within which `safe` must be answered; 0 always uses the worker, and so does a device that may wait.
    max_message_bytes
        Largest array a client may send in one message.
    cache_bytes
        Answers kept for retries, all sessions together.
    waiting_bytes
        Arrays of the requests that wait for the device, together; what comes beyond is refused.
    working_s
        How often a client hears that its request is in progress.
    tick_s, on_tick
        `on_tick` is called at least this often; when it returns False the server stops.
    """

    keys: Path | None = None
    inline_s: float = 0.0
    max_message_bytes: int = 64 * 2**20
    cache_bytes: int = 64 * 2**20
    waiting_bytes: int = 256 * 2**20
    working_s: float = 0.5
    tick_s: float = 0.25
    on_tick: Callable[[], bool] | None = None


class _AnyId(BaseModel):
    id: int = 0


class RequestDispatcher:
    """Answers the messages of a server in front of `device`.

    Parameters
    ----------
    send
        Takes answers to their clients.
    wake
        Called from another thread when `collect` has something to do.
    """

    def __init__(self, device: PhotonicDevice, options: ServerOptions, send: Send, wake: Callable[[], None]) -> None:
        self.epoch = secrets.token_hex(8)
        self._device = device
        self._options = options
        self._send = send
        self._description = device.describe()
        self._description_frame = np.frombuffer(self._description.model_dump_json().encode(), np.uint8)
        self._scheduler = Scheduler(device, wake, options.working_s, options.waiting_bytes)
        self._reader = StatusPoller(device, wake) if may_wait(device) else None
        self._inline_s = 0.0 if may_wait(device) else options.inline_s
        self._cache = ReplyCache(options.cache_bytes)
        self._lease: leases.Lease | None = None
        self._faults: dict[str, Fault] = {}
        self._labels: OrderedDict[str, str] = OrderedDict()
        self._must_apply = False
        self._cancelled_seq = 0
        self._transfer: Transfer | None = None
        self._shared = ServerSharedBuffer(largest_buffer_bytes(options.max_message_bytes) if options.keys is None else 0)
        self._durations = DurationEstimator()
        self._handlers: dict[str, Callable[[bytes, Request, Mapping[str, AnyArray]], None]] = {
            op: getattr(self, f"_{op}") for op in messages.OPS
        }

    @property
    def busy(self) -> bool:
        """Whether `tick` should be called every 10 ms; otherwise a few times a second will do."""
        return self._scheduler.any or (self._reader is not None and self._reader.any)

    def start(self) -> None:
        """Start the threads that talk to the device."""
        self._scheduler.start()
        if self._reader is not None:
            self._reader.start()

    def shut_down(self) -> None:
        """Stop what runs, make the device safe, answer those who wait; return within a few seconds whatever the device does."""
        self._scheduler.stop(DeviceError("transport", "the device server is stopping", retryable=True))
        self._scheduler.make_safe()
        until_s = time.monotonic() + _LAST_SAFE_S
        while self._scheduler.any and time.monotonic() < until_s:
            self.tick()
            self.collect()
            time.sleep(0.002)
        if self._scheduler.any:
            log.error("the device did not become safe within %g s of the end", _LAST_SAFE_S)
        self._scheduler.join(0.5)
        if self._reader is not None:
            self._reader.end()

    # ---- messages in and out ----------------------------------------------------------------------------------------

    def handle(self, route: bytes, frames: Frames) -> bool:
        """Take the frames of one message; return False where it is not a message of this protocol. Never raises."""
        if len(frames) < 2:
            return False
        try:
            messages.check_prefix(frames[0])
            request = messages.decode_request(frames[1])
        except ValueError:
            return False
        except DeviceError as error:
            self._send(route, self._error_frames(_some_id(frames[1]), "", error))
            return True
        try:
            if self._fresh(route, request):
                arrays = messages.decode_arrays(request.arrays, frames[2:], self._shared.buffer_of(request))
                self._handlers[request.op](route, request, arrays)
        except DeviceError as error:
            self._send(route, self._error_frames(request.id, request.op, error))
        except Exception as error:
            log.exception("device server, answering %s", request.op)
            failure = DeviceError("device", f"the server failed in {request.op}: {type(error).__name__}", outcome="unknown")
            self._send(route, self._error_frames(request.id, request.op, failure))
        return True

    def collect(self) -> None:
        """Answer those whose jobs have ended, and those whose status has been read."""
        for job, waiting, outcome in self._scheduler.collect():
            if job.op == "safe" and isinstance(outcome, DeviceError):
                self._faults[SAFE_FAILED] = Fault(name=SAFE_FAILED, detail=f"the device was not made safe: {outcome.detail}")
            if job.op == "apply" and job.stop is None and not isinstance(outcome, DeviceError):
                self._must_apply = False
            for one in waiting:
                if one.request.op == "safe" and not isinstance(outcome, DeviceError):
                    self._send(one.route, self._frames(one.request, {"in_effect": True}))
                else:
                    self._answer(one.route, one.request, outcome)
        for looking, found in self._reader.collect() if self._reader is not None else ():
            self._tell_status(looking.route, looking.request, found)

    def tick(self) -> None:
        """Do what time asks for."""
        now_s = time.monotonic()
        if leases.expired(self._lease, now_s):
            self._lose_lease()
        accepted, working = self._scheduler.tick(now_s)
        for one in accepted:
            self._send(one.route, self._frames(one.request, {"in_effect": False}))
        for one in working:
            self._send(one.route, messages.encode(Reply(id=one.request.id, op=one.request.op, epoch=self.epoch, state="working")))
        for looking, found in self._reader.give_up(now_s) if self._reader is not None else ():
            self._tell_status(looking.route, looking.request, found)

    def _fresh(self, route: bytes, request: Request) -> bool:
        """Return whether the request is to be carried out; answer it here where it was carried out before."""
        if request.op == "hello":
            return True
        if request.epoch != self.epoch:
            raise DeviceError(
                "transport", "the device server was restarted since this client said hello: connect again", retryable=True
            )
        if request.op in _COMMANDS:
            if request.seq == 0:
                raise DeviceError("bad_request", f"header seq is 0, but {request.op} needs a number of at least 1")
            if self._scheduler.attach(route, request):
                return False
            answer = self._cache.get(request.client_id, request.seq)
            if answer is GONE:
                raise DeviceError(
                    "transport", f"command {request.seq} was carried out, its answer is no longer kept", outcome="unknown"
                )
            if answer is not None:
                self._send(route, answer)
                return False
        if request.op != "safe" and request.deadline is not None and time.monotonic() >= request.deadline:
            raise DeviceError("deadline", f"the deadline of this {request.op} passed before it could start", retryable=True)
        return True

    def _frames(
        self,
        request: Request,
        body: dict[str, JsonValue] | None = None,
        arrays: Mapping[str, AnyArray] | None = None,
        places: Mapping[str, int] | None = None,
    ) -> Frames:
        specs, ready = messages.array_specs(arrays or {}, places)
        if not body:
            return messages.encode_done(request, self.epoch, specs, ready)
        return messages.encode(
            Reply(id=request.id, op=request.op, epoch=self.epoch, state="done", arrays=specs, body=body), ready
        )

    def _error_frames(self, request_id: int, op: str, error: DeviceError) -> Frames:
        return messages.encode(Reply(id=request_id, op=op, epoch=self.epoch, state="error", error=error.body()))

    def _answer(self, route: bytes, request: Request, outcome: object) -> None:
        """Send what became of a request, and keep it for retries."""
        if isinstance(outcome, DeviceError):
            frames = self._error_frames(request.id, request.op, outcome)
        elif isinstance(outcome, Readings):
            arrays = {
                "values": np.asarray(outcome.values, np.float32),
                "time_s": np.asarray(outcome.time_s, np.float64),
                "flags": np.asarray(outcome.flags, np.uint32),
            }
            frames = self._frames(request, arrays=arrays, places=self._shared.write(request, "values", arrays["values"]))
        else:
            frames = self._frames(request)
        self._send(route, frames)
        if request.seq and request.op in _COMMANDS:
            self._cache.put(request.client_id, request.seq, frames)

    # ---- the lease ----------------------------------------------------------------------------------------------------

    def _lose_lease(self) -> None:
        lost = self._lease
        assert lost is not None
        self._lease = None
        self._forget_writer()
        fault = leases.lost_fault(lost)
        self._faults[fault.name] = fault
        log.warning("%s", fault.detail)
        self._scheduler.stop(DeviceError("lease", fault.detail))
        self._scheduler.make_safe()

    def _forget_writer(self) -> None:
        """Drop what a writer left behind that whoever comes next must not go on with."""
        self._transfer = None
        self._shared.forget()

    def _must_write(self, request: Request) -> None:
        now_s = time.monotonic()
        if leases.expired(self._lease, now_s):
            self._lose_lease()
        self._lease = leases.renew(self._lease, request.client_id, now_s)

    def _must_be_clear(self) -> None:
        for fault in self._faults.values():
            raise DeviceError("interlock", f"fault {fault.name} is latched ({fault.detail}): clear it by name first")

    def _acquire(self, route: bytes, request: Request, arrays: Mapping[str, AnyArray]) -> None:
        body = messages.decode_body(messages.AcquireBody, request.body)
        now_s = time.monotonic()
        if leases.expired(self._lease, now_s):
            self._lose_lease()
        before = self._lease
        self._lease = leases.acquire(before, request.client_id, body.lease_key, body.label, body.ttl_s, now_s)
        if before is None or before.client_id != request.client_id:
            self._must_apply = False
            self._cancelled_seq = 0
        if before is not None and before.client_id != request.client_id:
            self._forget_writer()
            self._scheduler.stop(DeviceError("lease", f"{body.label!r} took the lease over with the same key"))
        self._answer(route, request, None)

    def _renew(self, route: bytes, request: Request, arrays: Mapping[str, AnyArray]) -> None:
        self._must_write(request)
        self._send(route, self._frames(request, {"now_s": time.monotonic()}))

    def _release(self, route: bytes, request: Request, arrays: Mapping[str, AnyArray]) -> None:
        self._must_write(request)
        self._lease = None
        self._forget_writer()
        self._scheduler.stop(DeviceError("lease", "the lease was released"))
        self._scheduler.make_safe(route, request)

    # ---- operations -----------------------------------------------------------------------------------------------------

    def _hello(self, route: bytes, request: Request, arrays: Mapping[str, AnyArray]) -> None:
        hello = messages.decode_body(messages.HelloBody, request.body)
        self._labels[request.client_id] = hello.label
        self._labels.move_to_end(request.client_id)
        if len(self._labels) > _LABELS:
            self._labels.popitem(last=False)
        body: dict[str, JsonValue] = {
            "protocol": PROTOCOL_VERSION,
            "now_s": time.monotonic(),
            "max_message_bytes": self._options.max_message_bytes,
        }
        self._send(route, self._frames(request, body))

    def _describe(self, route: bytes, request: Request, arrays: Mapping[str, AnyArray]) -> None:
        self._send(route, self._frames(request, arrays={"description": self._description_frame}))

    def _status(self, route: bytes, request: Request, arrays: Mapping[str, AnyArray]) -> None:
        if self._reader is None:
            self._tell_status(route, request, self._device.status())
        else:
            self._reader.ask(route, request)

    def _tell_status(self, route: bytes, request: Request, status: DeviceStatus | DeviceError) -> None:
        """Answer with the device's status and the server's own beside it."""
        if isinstance(status, DeviceError):
            self._send(route, self._error_frames(request.id, request.op, status))
            return
        held = None if leases.expired(self._lease, time.monotonic()) else self._lease
        health = {name: v if isinstance(v, str) or math.isfinite(v) else str(v) for name, v in status.health.items()}
        busy = status.busy or self._scheduler.any
        merged = status.model_copy(
            update={
                "busy": busy,
                "safe": status.safe and not busy,
                "faults": (*self._faults.values(), *status.faults),
                "leased_to": held.label or held.key if held else "",
                "health": health,
            }
        )
        body: dict[str, JsonValue] = {"status": merged.model_dump(mode="json"), "safe_pending": self._scheduler.safe_pending}
        self._send(route, self._frames(request, body))

    def _share(self, route: bytes, request: Request, arrays: Mapping[str, AnyArray]) -> None:
        self._must_write(request)
        number = self._shared.open(messages.decode_body(messages.ShareBody, request.body), request.client_id)
        self._send(route, self._frames(request, {"buffer": number}))

    def _apply(self, route: bytes, request: Request, arrays: Mapping[str, AnyArray]) -> None:
        self._must_write(request)
        self._must_be_clear()
        messages.decode_body(messages.EmptyBody, request.body)
        drive = _the_array(arrays, "drive", "apply")
        self._scheduler.submit(route, request, partial(self._device.apply, drive), drive.nbytes)

    def _load_inputs(self, route: bytes, request: Request, arrays: Mapping[str, AnyArray]) -> None:
        self._must_write(request)
        body = messages.decode_body(messages.LoadInputsBody, request.body)
        chunk = _the_array(arrays, "chunk", "load_inputs")
        if chunk.dtype != np.uint8 or chunk.ndim != 1:
            raise DeviceError("bad_request", f"chunk is {chunk.dtype} of shape {chunk.shape}, expected bytes, u1 (length,)")
        limit = self._description.limits.max_loaded_bytes
        try:
            self._transfer, whole = add_chunk(self._transfer, request.client_id, body, chunk.data, limit)
        except DeviceError:
            self._transfer = None
            raise
        if whole is None:
            self._answer(route, request, None)
        else:
            self._scheduler.submit(route, request, partial(self._device.load_inputs, body.name, whole), whole.nbytes)

    def _evaluate(self, route: bytes, request: Request, arrays: Mapping[str, AnyArray]) -> None:
        self._must_write(request)
        self._must_be_clear()
        if self._must_apply:
            raise DeviceError("interlock", "the device was made safe: apply a drive first")
        if request.seq < self._cancelled_seq:  # overtaken by the cancel that was meant for it
            raise DeviceError("interlock", "the evaluation was cancelled")
        body = messages.decode_body(messages.EvaluateBody, request.body)
        drives = _the_array(arrays, "drives", "evaluate")
        if body.loaded is None:
            inputs = rows = _the_array(arrays, "inputs", "evaluate")
        else:
            rows = _the_array(arrays, "rows", "evaluate")
            inputs = LoadedRows(body.loaded, rows)
        settings, samples = (len(array) if array.ndim else 0 for array in (drives, rows))
        call = partial(self._timed_evaluate, drives, inputs, body.stage, settings, samples)
        inline_s = self._inline_s
        if inline_s > 0 and not self._scheduler.any and self._durations.predicted_s(body.stage, settings, samples) < inline_s:
            self._answer(route, request, carry_out(Job("evaluate", call, request.deadline)))
        else:
            self._scheduler.submit(route, request, call, drives.nbytes + rows.nbytes)

    def _timed_evaluate(
        self, drives: AnyArray, inputs: AnyArray | LoadedRows, stage: str, settings: int, samples: int
    ) -> Readings:
        start_s = time.monotonic()
        readings = self._device.evaluate(drives, inputs, stage)  # pyright: ignore[reportArgumentType]  (the device checks)
        self._durations.note(stage, settings, samples, time.monotonic() - start_s)
        return readings

    def _cancel(self, route: bytes, request: Request, arrays: Mapping[str, AnyArray]) -> None:
        self._must_write(request)
        self._cancelled_seq = max(self._cancelled_seq, request.seq)
        self._scheduler.stop(DeviceError("interlock", "the evaluation was cancelled"), only="evaluate")
        self._answer(route, request, None)

    def _safe(self, route: bytes, request: Request, arrays: Mapping[str, AnyArray]) -> None:
        if leases.expired(self._lease, time.monotonic()):
            self._lose_lease()
        if self._lease is not None:
            # An evaluation still in the socket's queue would otherwise be accepted, and read a dark mesh.
            self._must_apply = True
            if request.client_id != self._lease.client_id:
                label = self._labels.get(request.client_id, "")
                by = repr(label) if label else "without a name"
                self._faults[MADE_SAFE] = Fault(name=MADE_SAFE, detail=f"the device was made safe by another client ({by})")
        self._scheduler.stop(DeviceError("interlock", "stopped, because the device was asked to become safe"))
        self._scheduler.make_safe(route, request)

    def _clear_fault(self, route: bytes, request: Request, arrays: Mapping[str, AnyArray]) -> None:
        self._must_write(request)
        body = messages.decode_body(messages.ClearFaultBody, request.body)
        if self._faults.pop(body.name, None) is not None:
            self._answer(route, request, None)
        else:
            self._scheduler.submit(route, request, partial(self._device.clear_fault, body.name))


def _the_array(arrays: Mapping[str, AnyArray], name: str, op: str) -> AnyArray:
    try:
        return arrays[name]
    except KeyError:
        raise DeviceError(
            "bad_request", f"{op} needs an array {name!r}, the message has: {', '.join(arrays) or 'none'}"
        ) from None


def _some_id(frame: messages.Buffer) -> int:
    """Return the id of an otherwise unreadable header, so that its sender learns what was wrong; 0 where there is none."""
    if len(frame) > messages.MAX_REQUEST_HEADER_BYTES:
        return 0
    try:
        return _AnyId.model_validate_json(bytes(frame)).id
    except ValidationError:
        return 0
