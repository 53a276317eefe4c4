"""A device that may fail and come back during a session: loaded inputs, held drive and pending requests are restored.

A session uses its device through a `ReconnectingDevice`. If the connection breaks, it opens the device again: it starts
an embedded simulator anew, or waits for a server. Then it loads the inputs again, applies the held drive and repeats
the request. That is harmless, because drives are absolute and an evaluation does not change the device.

It gives up if the device breaks at the same request several times, or if another session has taken the device over.
The user must resolve these cases.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from contextlib import suppress
from itertools import chain, islice
from typing import Protocol, TypeVar, runtime_checkable

from photonloop.controller.device.device_difference import difference
from photonloop.controller.device.open_device import OpenDevice
from photonloop.controller.device.waiting import pauses, wait_for_device
from photonloop.controller.stopping import Stop
from photonloop.protocols.device import (
    DeviceDescription,
    DeviceStatus,
    Drive,
    Inputs,
    LoadedRows,
    PhotonicDevice,
    Readback,
    Readings,
)
from photonloop.protocols.errors import DeviceError
from photonloop.protocols.limits import check_wait

Answer = TypeVar("Answer")
Request = tuple[Drive, LoadedRows, str]

RECOVERABLE = frozenset({"transport", "lease", "deadline"})
"""Error codes after which a new connection may help. It does not help against a limit, a fault or broken hardware."""

WAIT_SLICE_S = 1.0
"""Longest part of a wait on a device in real time [s]: after a part, a stop takes effect; a lost part is repeated."""

MOST_BREAKS = 8
"""Failures in a row, with no answer in between, after which a device is given up."""


class Pending(Protocol):
    """An evaluation in progress."""

    def result(self) -> Readings:
        """Wait for the readings and return them."""
        ...


@runtime_checkable
class SubmittingDevice(Protocol):
    """A device that starts an evaluation without waiting for its readings, as `DeviceClient` does."""

    def submit(self, drives: Drive, inputs: Inputs | LoadedRows, stage: str) -> Pending:
        """Send an evaluation and return at once."""
        ...


class ReconnectingDevice:
    """The device of a session, which is opened again whenever its connection breaks.

    All methods except `start`, `finish`, `cancel` and `close` check whether the user wants to stop before they send
    anything: they either carry out the request, or raise `SessionStopped` and leave the device as it was. `start` and
    `finish` do not check, because their caller has an update to finish; the caller checks between updates.

    Parameters
    ----------
    opener
        Opens the device with its lease; called again whenever the device is lost.
    stop
        Reports whether the user wants to stop; it also ends every wait.
    on_lost, on_restored
        Called with one sentence when the device is lost, and when it is back.
    on_waiting
        Called at growing intervals during a wait for the device, with one sentence: the duration of the wait, and the
        reason.
    """

    def __init__(
        self,
        opener: Callable[[], OpenDevice],
        *,
        stop: Stop | None = None,
        on_lost: Callable[[str], None] = lambda _: None,
        on_restored: Callable[[str], None] = lambda _: None,
        on_waiting: Callable[[str], None] = lambda _: None,
    ) -> None:
        self._opener, self._on_lost, self._on_restored, self._on_waiting = opener, on_lost, on_restored, on_waiting
        self._stop = stop or Stop()
        self._loaded: dict[str, Inputs] = {}
        self._held: Drive | None = None
        self._stays_dark = False
        self._open = opener()
        self.description: DeviceDescription = self._open.device.describe()
        self._requests: deque[tuple[Request, Pending | None]] = deque()
        self._is_open = True

    def load_inputs(self, name: str, inputs: Inputs) -> None:
        """Load `inputs` under `name`, now and after every reconnection."""
        self._stop.check()
        self._loaded[name] = inputs
        self._retry(lambda device: device.load_inputs(name, inputs))

    def apply(self, drive: Drive) -> None:
        """Hold `drive`, now and after every reconnection."""
        self._stop.check()
        self._held = drive.copy()
        self._retry(lambda device: device.apply(drive))

    def evaluate(self, drives: Drive, rows: LoadedRows, stage: str) -> Readings:
        """Return the readings of `drives` on `stage`; repeat the request if the device is lost meanwhile."""
        self._stop.check()
        return self._retry(lambda device: device.evaluate(drives, rows, stage))

    def set_light(self, on: bool) -> None:
        """Switch the light; it is switched off again after a reconnection if it was switched off here."""
        self._stop.check()
        self._stays_dark = not on
        self._retry(lambda device: device.set_light(on))

    def wait(self, seconds: float) -> None:
        """Let at least `seconds` pass on the device's clock.

        A device in real time waits in parts of at most `WAIT_SLICE_S`. If it is lost meanwhile, only the part in
        progress is repeated.
        """
        left_s = check_wait(seconds)
        while True:
            self._stop.check()
            part_s = min(left_s, WAIT_SLICE_S) if self.description.clock == "real" else left_s
            self._retry(lambda device, part_s=part_s: device.wait(part_s))
            left_s -= part_s
            if left_s <= 0:
                return

    def readback(self) -> Readback:
        """Return the measured voltages and currents at the held drive."""
        self._stop.check()
        return self._retry(lambda device: device.readback())

    def status(self) -> DeviceStatus:
        """Return the present status."""
        self._stop.check()
        return self._retry(lambda device: device.status())

    def start(self, drives: Drive, rows: LoadedRows, stage: str) -> None:
        """Send an evaluation; `finish` returns its readings. A second one may be sent before the first is finished.

        If the device has no `submit`, the evaluation is sent in `finish`.
        """
        pending: Pending | None = None
        if isinstance(self._open.device, SubmittingDevice):
            try:
                pending = self._open.device.submit(drives, rows, stage)
            except DeviceError as error:
                if error.code not in RECOVERABLE:
                    raise  # any other error is left to `finish`, which sends the evaluation again
        self._requests.append(((drives, rows, stage), pending))

    @property
    def under_way(self) -> int:
        """Number of evaluations that are started and not finished."""
        return len(self._requests)

    def finish(self) -> Readings:
        """Return the readings of the oldest evaluation that `start` sent."""
        request, pending = self._requests.popleft()

        def wait_or_evaluate(device: PhotonicDevice) -> Readings:
            nonlocal pending
            first, pending = pending, None
            return first.result() if first is not None else device.evaluate(*request)

        return self._retry(wait_or_evaluate)

    def cancel(self) -> None:
        """Cancel all evaluations that `start` sent. The device stops at its next setting; readings are discarded."""
        cancelled = [pending for _, pending in self._requests if pending is not None]
        self._requests.clear()
        with suppress(DeviceError):  # a lost device has nothing left to cancel
            if cancelled:
                self._open.device.cancel()
        for pending in cancelled:
            with suppress(DeviceError):
                pending.result()

    def close(self) -> None:
        """Make the device safe and close it; evaluations in progress are cancelled and discarded."""
        self._open.close()

    def _retry(self, action: Callable[[PhotonicDevice], Answer]) -> Answer:
        """Return the result of `action`; repeat it on a new connection if the present one breaks.

        Raises
        ------
        SessionStopped
            The connection broke, and the user wants to stop.
        DeviceError
            The device was lost `MOST_BREAKS` times in a row, another session holds it, another device is found in its
            place, or it reported an error that a new connection cannot resolve.
        """
        reported = ""
        for pause_s in chain((0.0,), islice(pauses(), MOST_BREAKS - 1)):
            try:
                self._reopen()
                answer = action(self._open.device)
            except DeviceError as error:
                if error.code not in RECOVERABLE:
                    raise
                if error.detail != reported:
                    self._on_lost(f"device lost: {error.detail}")
                    reported = error.detail
                self._disconnect(error)
                self._stop.pause(pause_s)
            else:
                if reported:
                    self._on_restored("device back, loaded inputs and held drive restored")
                return answer
        raise DeviceError("transport", f"the device was lost {MOST_BREAKS} times in a row: {reported}", outcome="unknown")

    def _disconnect(self, cause: DeviceError) -> None:
        """Close a broken connection; raise `DeviceError` if another session holds the device now."""
        # Evaluations in progress are lost with the connection; `finish` repeats them.
        self._requests = deque((request, None) for request, _ in self._requests)
        if cause.code == "lease":
            if not self._is_open:
                raise cause  # from opening it again: the sentence names the holder
            if holder := self._lease_holder():
                raise DeviceError(
                    "lease", f"another session ({holder!r}) has taken over the device: this session stops after its last update"
                ) from None
        self._open.close()
        self._is_open = False

    def _lease_holder(self) -> str:
        """Return the label of the lease's holder; empty if there is none, or if the device does not answer."""
        try:
            return self._open.device.status().leased_to
        except DeviceError:
            return ""

    def _reopen(self) -> None:
        """Open the device again and restore its inputs and held drive; do nothing if the connection is open."""
        if self._is_open:
            return
        self._open = wait_for_device(self._opener, self._stop, self._on_waiting)
        self._is_open = True
        if (other := difference(self.description, self._open.device.describe())) is not None:
            raise DeviceError("device", f"the device is another one after reconnecting: {other.detail}")
        for name, inputs in self._loaded.items():
            self._open.device.load_inputs(name, inputs)
        if self._held is not None:
            self._open.device.apply(self._held)
        if self._stays_dark:
            self._open.device.set_light(False)
