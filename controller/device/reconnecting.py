"""A device that may die and come back: loaded inputs, held drive and the request in flight survive it.

A session speaks to its device through a `ReconnectingDevice`. When the way to the device breaks, the link opens it again (an
embedded simulator is started anew, a remote server waited for), puts loaded inputs and held drive back and repeats the
request. That is harmless: drives are absolute, and an evaluation leaves nothing behind.

It does not do so for ever: a device that breaks at the same request again and again, and one that another session has taken
over, are for a person.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from contextlib import suppress
from itertools import chain, islice
from typing import Protocol, TypeVar

from photonloop.controller.device.device_difference import difference
from photonloop.controller.device.processes import OpenDevice
from photonloop.controller.device.waiting import pauses, wait_for_device
from photonloop.controller.stopping import Stop
from photonloop.protocols.device import DeviceDescription, Drive, Inputs, LoadedRows, PhotonicDevice, Readings
from photonloop.protocols.errors import DeviceError

Answer = TypeVar("Answer")
Request = tuple[Drive, LoadedRows, str]

BROKEN = frozenset({"transport", "lease", "deadline"})
"""Codes after which a fresh connection may help. All else is for a person: a limit, a latched fault, dead hardware."""

MOST_BREAKS = 8
"""A device that came back so often and broke again, with no answer in between, is given up."""


class Pending(Protocol):
    """An evaluation under way."""

    def result(self) -> Readings:
        """Wait for the readings."""
        ...


class ReconnectingDevice:
    """The session's way to its device.

    `load_inputs`, `apply` and `evaluate` look whether the user wants to stop before they send anything: they either carry out
    what they are asked, or raise `SessionStopped` with the device as it was. `start` and `finish` don't; whoever uses them
    has a step to finish and looks for himself.

    Parameters
    ----------
    opener
        Opens the device, as its writer; called again whenever it is lost.
    stop
        Says whether the user wants to stop, which also ends any wait.
    lost, found
        Told one sentence when the device is lost, and when it is back.
    still
        Told now and then, while the device is waited for, for how long and why.
    """

    def __init__(
        self,
        opener: Callable[[], OpenDevice],
        *,
        stop: Stop | None = None,
        lost: Callable[[str], None] = lambda _: None,
        found: Callable[[str], None] = lambda _: None,
        still: Callable[[str], None] = lambda _: None,
    ) -> None:
        self._opener, self._lost, self._found, self._still = opener, lost, found, still
        self._stop = stop or Stop()
        self._loaded: dict[str, Inputs] = {}
        self._held: Drive | None = None
        self._open = opener()
        self.description: DeviceDescription = self._open.device.describe()
        self._requests: deque[tuple[Request, Pending | None]] = deque()
        self._is_open = True

    def load_inputs(self, name: str, inputs: Inputs) -> None:
        """Stage `inputs` under `name`, now and after every loss."""
        self._stop.check()
        self._loaded[name] = inputs
        self._persist(lambda device: device.load_inputs(name, inputs))

    def apply(self, drive: Drive) -> None:
        """Hold `drive`, now and after every loss."""
        self._stop.check()
        self._held = drive.copy()
        self._persist(lambda device: device.apply(drive))

    def evaluate(self, drives: Drive, rows: LoadedRows, load_inputs: str) -> Readings:
        """Return the readings of `drives`, whatever happens to the device meanwhile."""
        self._stop.check()
        return self._persist(lambda device: device.evaluate(drives, rows, load_inputs))

    def start(self, drives: Drive, rows: LoadedRows, load_inputs: str) -> None:
        """Send an evaluation off; `finish` has its readings. A second one may be sent before the first is finished.

        A device without `submit` is asked only in `finish`.
        """
        submit = getattr(self._open.device, "submit", None)
        pending: Pending | None = None
        if submit is not None:
            try:
                pending = submit(drives, rows, load_inputs)
            except DeviceError as error:
                if error.code not in BROKEN:
                    raise  # else `finish` sends it again, and recovers if it must
        self._requests.append(((drives, rows, load_inputs), pending))

    @property
    def under_way(self) -> int:
        """Evaluations started and not finished."""
        return len(self._requests)

    def finish(self) -> Readings:
        """Return the readings of the oldest evaluation that `start` sent off."""
        request, pending = self._requests.popleft()

        def first_or_again(device: PhotonicDevice) -> Readings:
            nonlocal pending
            taken, pending = pending, None
            return taken.result() if taken is not None else device.evaluate(*request)

        return self._persist(first_or_again)

    def cancel(self) -> None:
        """Give up what `start` sent off: the device stops at its next setting, and the readings are thrown away."""
        dropped = [pending for _, pending in self._requests if pending is not None]
        self._requests.clear()
        with suppress(DeviceError):  # a device that is gone does nothing any more
            if dropped:
                self._open.device.cancel()
        for pending in dropped:
            with suppress(DeviceError):
                pending.result()

    def close(self) -> None:
        """Make the device safe and let go of it; what is under way is stopped and thrown away."""
        self._open.close()

    def _persist(self, action: Callable[[PhotonicDevice], Answer]) -> Answer:
        """Return what `action` answers, on a fresh connection where the present one breaks.

        Raises
        ------
        SessionStopped
            The device broke, and the user wants to stop.
        DeviceError
            What a fresh connection does not help against: the device broke `MOST_BREAKS` times in a row, somebody else holds
            it, another one came back in its place, or it said anything but that it broke.
        """
        told = ""
        for pause_s in chain((0.0,), islice(pauses(), MOST_BREAKS - 1)):
            try:
                self._reopen()
                answer = action(self._open.device)
            except DeviceError as error:
                if error.code not in BROKEN:
                    raise
                if error.detail != told:
                    self._lost(f"device lost: {error.detail}")
                    told = error.detail
                self._let_go(error)
                self._stop.pause(pause_s)
            else:
                if told:
                    self._found("device back, loaded inputs and held drive restored")
                return answer
        raise DeviceError("transport", f"the device was lost {MOST_BREAKS} times in a row: {told}", outcome="unknown")

    def _let_go(self, cause: DeviceError) -> None:
        """Close a connection that broke; raise `DeviceError` where another session has the device now."""
        self._requests = deque((request, None) for request, _ in self._requests)  # what was under way is gone with it
        if cause.code == "lease":
            if not self._is_open:
                raise cause  # from opening it again: says who holds it
            if holder := self._holder():
                raise DeviceError(
                    "lease", f"another session ({holder!r}) has taken the device over: this one stops where it is"
                ) from None
        self._open.close()
        self._is_open = False

    def _holder(self) -> str:
        """Return who holds the lease now, by name; empty where nobody does, or nobody knows."""
        try:
            return self._open.device.status().leased_to
        except DeviceError:
            return ""

    def _reopen(self) -> None:
        """Have the device as it was before it broke; nothing where it did not."""
        if self._is_open:
            return
        self._open = wait_for_device(self._opener, self._stop, self._still)
        self._is_open = True
        if (other := difference(self.description, self._open.device.describe())) is not None:
            raise DeviceError("device", f"the device that came back is another one: {other.told}")
        for name, inputs in self._loaded.items():
            self._open.device.load_inputs(name, inputs)
        if self._held is not None:
            self._open.device.apply(self._held)
