"""Dispatch of requests in a device server: checks, order, retries, and replies.

A `RequestDispatcher` takes the frames of a message and passes the frames of its replies to `send`. It has no sockets.
It runs in the socket loop's thread and gives everything that may take time to the worker.

    message ──▶ header ──▶ epoch ──▶ answered before? ──▶ deadline ──▶ arrays ──▶ lease ──▶ faults ──▶ job, or reply
"""

from __future__ import annotations

import logging
import secrets
import time
from collections import OrderedDict
from collections.abc import Callable, Mapping
from functools import partial

import numpy as np
from pydantic import JsonValue

from photonloop.protocols.device import PROTOCOL_VERSION, DeviceStatus, LoadedRows, PhotonicDevice, may_wait
from photonloop.protocols.errors import DeviceError
from photonloop.protocols.server.duration_estimator import DurationEstimator
from photonloop.protocols.server.input_transfer import Transfer, add_chunk
from photonloop.protocols.server.reply_cache import GONE, ReplyCache
from photonloop.protocols.server.reply_encoding import ReplyEncoder, outcome_arrays, some_id, with_server_state
from photonloop.protocols.server.scheduler import Scheduler
from photonloop.protocols.server.server_options import ServerOptions
from photonloop.protocols.server.server_shared_buffer import ServerSharedBuffer
from photonloop.protocols.server.status_poller import StatusPoller
from photonloop.protocols.server.worker import Job, carry_out
from photonloop.protocols.server.write_interlocks import WriteInterlocks
from photonloop.protocols.wire import messages
from photonloop.protocols.wire.messages import COMMANDS, SAFE_FAILED, AnyArray, Frames, Op, Request, largest_buffer_bytes

log = logging.getLogger(__name__)

_CANCELLED: dict[Op, str] = {"evaluate": "evaluation", "set_light": "set_light", "wait": "wait"}
"""Operations that `cancel` stops, and their names in errors."""
_LAST_SAFE_S = 5.0
_LABELS = 256

Send = Callable[[bytes, Frames], None]
"""Sends frames along a route. Never waits, never raises."""

Handler = Callable[[bytes, Request, Mapping[str, AnyArray]], None]
"""Handles a request: the route of the reply, the header, and the arrays by name."""


class RequestDispatcher:
    """Handles the messages of a server for `device`.

    Parameters
    ----------
    send
        Sends replies to clients.
    wake
        Called from another thread if `collect` has something to do.
    """

    def __init__(self, device: PhotonicDevice, options: ServerOptions, send: Send, wake: Callable[[], None]) -> None:
        self.epoch = secrets.token_hex(8)
        self._device = device
        self._options = options
        self._send = send
        self._replies = ReplyEncoder(self.epoch)
        self._description = device.describe()
        self._description_frame = np.frombuffer(self._description.model_dump_json().encode(), np.uint8)
        self._scheduler = Scheduler(device, wake, options.working_s, options.waiting_bytes)
        self._status_poller = StatusPoller(device, wake) if may_wait(device) else None
        self._inline_s = 0.0 if may_wait(device) else options.inline_s
        self._cache = ReplyCache(options.cache_bytes)
        self._interlocks = WriteInterlocks()
        self._labels: OrderedDict[str, str] = OrderedDict()
        self._transfer: Transfer | None = None
        self._shared = ServerSharedBuffer(largest_buffer_bytes(options.max_message_bytes) if options.keys is None else 0)
        self._durations = DurationEstimator()
        self._handlers: dict[Op, Handler] = {
            "hello": self._hello,
            "describe": self._describe,
            "status": self._status,
            "acquire": self._acquire,
            "renew": self._renew,
            "release": self._release,
            "apply": self._apply,
            "load_inputs": self._load_inputs,
            "evaluate": self._evaluate,
            "set_light": self._set_light,
            "wait": self._wait,
            "readback": self._readback,
            "cancel": self._cancel,
            "safe": self._safe,
            "clear_fault": self._clear_fault,
            "share": self._share,
        }

    @property
    def busy(self) -> bool:
        """Whether `tick` must be called every 10 ms; otherwise a few times a second are enough."""
        return self._scheduler.any or (self._status_poller is not None and self._status_poller.any)

    def start(self) -> None:
        """Start the threads that call the device."""
        self._scheduler.start()
        if self._status_poller is not None:
            self._status_poller.start()

    def shut_down(self) -> None:
        """Stop running jobs, make the device safe and reply to waiting clients.

        Returns within a few seconds, even if the device hangs.
        """
        self._scheduler.stop(DeviceError("transport", "the device server is stopping", retryable=True))
        self._scheduler.make_safe()
        until_s = time.monotonic() + _LAST_SAFE_S
        while self._scheduler.any and time.monotonic() < until_s:
            self.tick()
            self.collect()
            time.sleep(0.002)
        if self._scheduler.any:
            log.error("the device did not become safe within %g s while the server stopped", _LAST_SAFE_S)
        self._scheduler.join(0.5)
        if self._status_poller is not None:
            self._status_poller.end()

    # ---- messages in and out ----------------------------------------------------------------------------------------

    def handle(self, route: bytes, frames: Frames) -> bool:
        """Handle the frames of one message. Return False if it is not a message of this protocol. Never raises."""
        if len(frames) < 2:
            return False
        try:
            messages.check_prefix(frames[0])
            request = messages.decode_request(frames[1])
        except ValueError:
            return False
        except DeviceError as error:
            self._send(route, self._replies.error(some_id(frames[1]), "", error))
            return True
        try:
            if self._is_new(route, request):
                arrays = messages.decode_arrays(request.arrays, frames[2:], self._shared.buffer_of(request))
                self._handlers[request.op](route, request, arrays)
        except DeviceError as error:
            self._send(route, self._replies.error(request.id, request.op, error))
        except Exception as error:
            log.exception("the device server failed in %s", request.op)
            failure = DeviceError("device", f"the server failed in {request.op}: {type(error).__name__}", outcome="unknown")
            self._send(route, self._replies.error(request.id, request.op, failure))
        return True

    def collect(self) -> None:
        """Reply to clients whose jobs have ended, and to those whose status request has been answered."""
        for job, waiting, outcome in self._scheduler.collect():
            if job.op == "safe" and isinstance(outcome, DeviceError):
                detail = f"the device was not made safe: {outcome.detail}"
                self._interlocks.faults.latch(SAFE_FAILED, detail)
                self._interlocks.faults.describe(SAFE_FAILED, detail)  # the latest attempt counts
            if job.op == "apply" and job.stop is None and not isinstance(outcome, DeviceError):
                self._interlocks.note_applied()
            if job.op in {"safe", "set_light"}:
                self._durations.forget()
            for one in waiting:
                if one.request.op == "safe" and not isinstance(outcome, DeviceError):
                    self._send(one.route, self._replies.done(one.request, {"in_effect": True}))
                else:
                    self._reply(one.route, one.request, outcome)
        for asked, status in self._status_poller.collect() if self._status_poller is not None else ():
            self._reply_status(asked.route, asked.request, status)

    def tick(self) -> None:
        """Do what is due: end an expired lease, and send the replies "accepted" and "working"."""
        now_s = time.monotonic()
        self._expire_lease(now_s)
        accepted, working = self._scheduler.tick(now_s)
        for one in accepted:
            self._send(one.route, self._replies.done(one.request, {"in_effect": False}))
        for one in working:
            self._send(one.route, self._replies.working(one.request))
        for asked, status in self._status_poller.give_up(now_s) if self._status_poller is not None else ():
            self._reply_status(asked.route, asked.request, status)

    def _is_new(self, route: bytes, request: Request) -> bool:
        """Return whether the request must be carried out. If it was carried out before, send its reply again."""
        if request.op == "hello":
            return True
        if request.epoch != self.epoch:
            raise DeviceError(
                "transport", "the device server was restarted after this client connected: connect again", retryable=True
            )
        if request.op in COMMANDS:
            if request.seq == 0:
                raise DeviceError("bad_request", f"header seq is 0, but {request.op} needs a number of at least 1")
            if self._scheduler.attach(route, request):
                return False
            reply = self._cache.get(request.client_id, request.seq)
            if reply is GONE:
                raise DeviceError(
                    "transport", f"command {request.seq} was carried out, but its reply is no longer kept", outcome="unknown"
                )
            if reply is not None:
                self._send(route, reply)
                return False
        if request.op != "safe" and request.deadline is not None and time.monotonic() >= request.deadline:
            raise DeviceError("deadline", f"the deadline of this {request.op} passed before it could start", retryable=True)
        return True

    def _reply(self, route: bytes, request: Request, outcome: object) -> None:
        """Send the outcome of a request, and keep the reply to a command for retries."""
        if isinstance(outcome, DeviceError):
            frames = self._replies.error(request.id, request.op, outcome)
        else:
            arrays = outcome_arrays(outcome)
            places = self._shared.write(request, "values", arrays["values"]) if "values" in arrays else None
            frames = self._replies.done(request, arrays=arrays, places=places)
        self._send(route, frames)
        if request.seq and request.op in COMMANDS:
            self._cache.put(request.client_id, request.seq, frames)

    # ---- the lease -----------------------------------------------------------------------------------

    def _expire_lease(self, now_s: float) -> None:
        """If the lease has run out, stop all jobs and make the device safe."""
        fault = self._interlocks.expire(now_s)
        if fault is None:
            return
        self._forget_writer()
        log.warning("%s", fault.detail)
        self._scheduler.stop(DeviceError("lease", fault.detail))
        self._scheduler.make_safe()

    def _forget_writer(self) -> None:
        """Discard state of the writer that the next writer must not use."""
        self._transfer = None
        self._shared.forget()

    def _check_lease(self, request: Request) -> None:
        """Check that the client holds the lease, and renew it."""
        now_s = time.monotonic()
        self._expire_lease(now_s)
        self._interlocks.renew(request.client_id, now_s)

    def _acquire(self, route: bytes, request: Request, arrays: Mapping[str, AnyArray]) -> None:
        body = messages.decode_body(messages.AcquireBody, request.body)
        now_s = time.monotonic()
        self._expire_lease(now_s)
        if self._interlocks.acquire(request.client_id, body, now_s):
            self._forget_writer()
            self._scheduler.stop(DeviceError("lease", f"{body.label!r} took the lease over with the same key"))
        self._reply(route, request, None)

    def _renew(self, route: bytes, request: Request, arrays: Mapping[str, AnyArray]) -> None:
        self._check_lease(request)
        self._send(route, self._replies.done(request, {"now_s": time.monotonic()}))

    def _release(self, route: bytes, request: Request, arrays: Mapping[str, AnyArray]) -> None:
        self._check_lease(request)
        self._interlocks.release()
        self._forget_writer()
        self._scheduler.stop(DeviceError("lease", "the lease was released"))
        self._scheduler.make_safe(route, request)

    # ---- operations ----------------------------------------------------------------------------------

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
        self._send(route, self._replies.done(request, body))

    def _describe(self, route: bytes, request: Request, arrays: Mapping[str, AnyArray]) -> None:
        self._send(route, self._replies.done(request, arrays={"description": self._description_frame}))

    def _status(self, route: bytes, request: Request, arrays: Mapping[str, AnyArray]) -> None:
        if self._status_poller is None:
            self._reply_status(route, request, self._device.status())
        else:
            self._status_poller.ask(route, request)

    def _reply_status(self, route: bytes, request: Request, status: DeviceStatus | DeviceError) -> None:
        """Send the device's status together with the server's state."""
        if isinstance(status, DeviceError):
            self._send(route, self._replies.error(request.id, request.op, status))
            return
        lease = self._interlocks.holder(time.monotonic())
        combined = with_server_state(status, self._interlocks.faults.all(), lease, self._scheduler.any)
        body: dict[str, JsonValue] = {"status": combined.model_dump(mode="json"), "safe_pending": self._scheduler.safe_pending}
        self._send(route, self._replies.done(request, body))

    def _share(self, route: bytes, request: Request, arrays: Mapping[str, AnyArray]) -> None:
        self._check_lease(request)
        number = self._shared.open(messages.decode_body(messages.ShareBody, request.body), request.client_id)
        self._send(route, self._replies.done(request, {"buffer": number}))

    def _apply(self, route: bytes, request: Request, arrays: Mapping[str, AnyArray]) -> None:
        self._check_lease(request)
        self._interlocks.faults.check()
        messages.decode_body(messages.EmptyBody, request.body)
        drive = _the_array(arrays, "drive", "apply")
        self._scheduler.submit(route, request, partial(self._device.apply, drive), drive.nbytes)

    def _load_inputs(self, route: bytes, request: Request, arrays: Mapping[str, AnyArray]) -> None:
        self._check_lease(request)
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
            self._reply(route, request, None)
        else:
            self._scheduler.submit(route, request, partial(self._device.load_inputs, body.name, whole), whole.nbytes)

    def _evaluate(self, route: bytes, request: Request, arrays: Mapping[str, AnyArray]) -> None:
        self._check_lease(request)
        self._interlocks.check_active(request.seq)
        body = messages.decode_body(messages.EvaluateBody, request.body)
        drives = _the_array(arrays, "drives", "evaluate")
        if body.loaded is None:
            inputs = rows = _the_array(arrays, "inputs", "evaluate")
        else:
            rows = _the_array(arrays, "rows", "evaluate")
            inputs = LoadedRows(body.loaded, rows)
        settings, samples = (len(array) if array.ndim else 0 for array in (drives, rows))
        evaluate = partial(self._device.evaluate, drives, inputs, body.stage)  # pyright: ignore[reportArgumentType]
        call = partial(self._durations.measure, body.stage, settings, samples, evaluate)
        inline_s = self._inline_s
        if inline_s > 0 and not self._scheduler.any and self._durations.predicted_s(body.stage, settings, samples) < inline_s:
            self._reply(route, request, carry_out(Job("evaluate", call, request.deadline)))
        else:
            self._scheduler.submit(route, request, call, drives.nbytes + rows.nbytes)

    def _set_light(self, route: bytes, request: Request, arrays: Mapping[str, AnyArray]) -> None:
        self._check_lease(request)
        body = messages.decode_body(messages.SetLightBody, request.body)
        if body.on:
            self._interlocks.check_active(request.seq, _CANCELLED["set_light"])
        self._scheduler.submit(route, request, partial(self._device.set_light, body.on))

    def _wait(self, route: bytes, request: Request, arrays: Mapping[str, AnyArray]) -> None:
        self._check_lease(request)
        self._interlocks.check_not_cancelled(request.seq, _CANCELLED["wait"])
        body = messages.decode_body(messages.WaitBody, request.body)
        self._scheduler.submit(route, request, partial(self._device.wait, body.seconds))

    def _readback(self, route: bytes, request: Request, arrays: Mapping[str, AnyArray]) -> None:
        self._check_lease(request)
        messages.decode_body(messages.EmptyBody, request.body)
        self._scheduler.submit(route, request, self._device.readback)

    def _cancel(self, route: bytes, request: Request, arrays: Mapping[str, AnyArray]) -> None:
        self._check_lease(request)
        self._interlocks.note_cancel(request.seq)
        for op, name in _CANCELLED.items():
            self._scheduler.stop(DeviceError("interlock", f"the {name} was cancelled"), only=op)
        self._reply(route, request, None)

    def _safe(self, route: bytes, request: Request, arrays: Mapping[str, AnyArray]) -> None:
        self._expire_lease(time.monotonic())
        self._interlocks.note_safe(request.client_id, self._labels.get(request.client_id, ""))
        self._scheduler.stop(DeviceError("interlock", "stopped, because the device was asked to become safe"))
        self._scheduler.make_safe(route, request)

    def _clear_fault(self, route: bytes, request: Request, arrays: Mapping[str, AnyArray]) -> None:
        self._check_lease(request)
        body = messages.decode_body(messages.ClearFaultBody, request.body)
        if body.name in self._interlocks.faults:
            self._interlocks.faults.clear(body.name)
            self._reply(route, request, None)
        else:
            self._scheduler.submit(route, request, partial(self._device.clear_fault, body.name))


def _the_array(arrays: Mapping[str, AnyArray], name: str, op: str) -> AnyArray:
    try:
        return arrays[name]
    except KeyError:
        raise DeviceError(
            "bad_request", f"{op} needs an array {name!r}, the message has: {', '.join(arrays) or 'none'}"
        ) from None
