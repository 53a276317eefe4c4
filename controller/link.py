"""A device that may die and come back: staged inputs, held drive and the request in flight survive it.

A session speaks to its device through a `DeviceLink`. When the way to the device breaks, the link opens it again (an
embedded simulator is started anew, a remote server waited for), puts staged inputs and held drive back and repeats the
request. That is harmless: drives are absolute, and an evaluation leaves nothing behind.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Protocol, TypeVar

from controller.devices import OpenDevice, wait_for_device
from protocols.device import DeviceDescription, Drive, Inputs, PhotonicDevice, Readings, StagedRows
from protocols.errors import DeviceError

Answer = TypeVar("Answer")
Request = tuple[Drive, StagedRows, str]

BROKEN = frozenset({"transport", "lease", "deadline"})
"""Codes after which a fresh connection may help. All else is for a person: a limit, a latched fault, dead hardware."""


class Pending(Protocol):
    """An evaluation under way."""

    def result(self) -> Readings:
        """Wait for the readings."""
        ...


class DeviceLink:
    """The session's way to its device.

    Parameters
    ----------
    opener
        Opens the device, as its writer; called again whenever it is lost.
    stopped
        Says whether the user wants to stop, which ends any wait.
    lost, found
        Told one sentence when the device is lost, and when it is back.
    """

    def __init__(
        self,
        opener: Callable[[], OpenDevice],
        *,
        stopped: Callable[[], bool] = lambda: False,
        lost: Callable[[str], None] = lambda _: None,
        found: Callable[[str], None] = lambda _: None,
    ) -> None:
        self._opener, self._stopped, self._lost, self._found = opener, stopped, lost, found
        self._staged: dict[str, Inputs] = {}
        self._held: Drive | None = None
        self._open = opener()
        self.description: DeviceDescription = self._open.device.describe()
        self._requests: deque[tuple[Request, Pending | None]] = deque()

    def stage(self, name: str, inputs: Inputs) -> None:
        """Stage `inputs` under `name`, now and after every loss."""
        self._staged[name] = inputs
        self._persist(lambda device: device.stage_inputs(name, inputs))

    def hold(self, drive: Drive) -> None:
        """Hold `drive`, now and after every loss."""
        self._held = drive.copy()
        self._persist(lambda device: device.apply(drive))

    def evaluate(self, drives: Drive, rows: StagedRows, stage: str) -> Readings:
        """Return the readings of `drives`, whatever happens to the device meanwhile."""
        return self._persist(lambda device: device.evaluate(drives, rows, stage))

    def start(self, drives: Drive, rows: StagedRows, stage: str) -> None:
        """Send an evaluation off; `finish` has its readings. A second one may be sent before the first is finished.

        A device without `submit` is asked only in `finish`.
        """
        submit = getattr(self._open.device, "submit", None)
        pending: Pending | None = None
        if submit is not None:
            try:
                pending = submit(drives, rows, stage)
            except DeviceError as error:
                if error.code not in BROKEN:
                    raise  # else `finish` sends it again, and recovers if it must
        self._requests.append(((drives, rows, stage), pending))

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

    def close(self) -> None:
        """Make the device safe and let go of it."""
        self._open.close()

    def _persist(self, action: Callable[[PhotonicDevice], Answer]) -> Answer:
        """Return what `action` answers, on a fresh connection where the present one breaks."""
        while True:
            try:
                return action(self._open.device)
            except DeviceError as error:
                if error.code not in BROKEN:
                    raise
                self._recover(error)

    def _recover(self, cause: DeviceError) -> None:
        self._lost(f"device lost: {cause.detail}")
        self._requests = deque((request, None) for request, _ in self._requests)  # what was under way is gone with it
        self._open.close()
        while True:
            self._open = wait_for_device(self._opener, self._stopped, self._lost)
            try:
                self._restore()
            except DeviceError as error:
                self._open.close()
                if error.code not in BROKEN or self._stopped():
                    raise
                self._lost(f"device lost again: {error.detail}")
            else:
                self._found("device back, staged inputs and held drive restored")
                return

    def _restore(self) -> None:
        description = self._open.device.describe()
        if _shape(description) != _shape(self.description):
            raise DeviceError(
                "device", f"the device that came back is another one: {_told(description)}, not {_told(self.description)}"
            )
        for name, inputs in self._staged.items():
            self._open.device.stage_inputs(name, inputs)
        if self._held is not None:
            self._open.device.apply(self._held)


def _shape(description: DeviceDescription) -> tuple[object, ...]:
    return (
        tuple(sorted(description.serials.items())),
        description.input_ports,
        tuple((s.name, s.topology, s.channels, s.tap_ports) for s in description.stages),
    )


def _told(description: DeviceDescription) -> str:
    stages = ", ".join(f"{stage.name} of {stage.ports} ports" for stage in description.stages)
    serials = " ".join(f"{name} {serial}" for name, serial in description.serials.items())
    return f"{description.name} ({serials}) with {description.input_ports} inputs and stages {stages}"
