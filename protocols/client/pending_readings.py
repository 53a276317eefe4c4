"""Evaluations that a client has sent and whose readings have not been returned yet."""

from __future__ import annotations

from photonloop.protocols.client import array_conversion
from photonloop.protocols.client.server_connection import ServerConnection
from photonloop.protocols.client.shared_buffer_slots import ClientSharedBuffer, Slot
from photonloop.protocols.device import Readings
from photonloop.protocols.errors import DeviceError
from photonloop.protocols.wire.messages import MOST_PENDING, Frames, Request


class PendingReadings:
    """A pending evaluation; `result` waits for its readings."""

    def __init__(
        self,
        queue: PendingQueue,
        connection: ServerConnection,
        request: Request,
        frames: Frames,
        shared: ClientSharedBuffer,
        slot: Slot | None,
    ) -> None:
        self._queue = queue
        self._connection = connection
        self._request = request
        self._frames = frames
        self._shared, self._slot = shared, slot
        self._readings: Readings | None = None
        self._error: DeviceError | None = None

    def result(self) -> Readings:
        """Return the readings, and wait for them if necessary; raises as `PhotonicDevice.evaluate` does."""
        self._queue.collect_up_to(self)
        if self._readings is not None:
            return self._readings
        raise self._error or _closed()

    def collect(self) -> None:
        """Wait for the reply and keep the readings, or the error."""
        if self._readings is not None or self._error is not None:
            return
        buffer = self._slot.buffer if self._slot is not None else None
        try:
            self._readings = array_conversion.to_readings(self._connection.wait(self._request, self._frames, buffer))
        except DeviceError as error:
            self._error = self._error or error
            if error.code == "transport":
                self._shared.forget()
        self._shared.free(self._slot)

    def abandon(self) -> None:
        """Let `result` raise: the connection was closed."""
        self._error = _closed()


class PendingQueue:
    """The pending evaluations of a client, in the order in which the server replies."""

    def __init__(self) -> None:
        self._pending: list[PendingReadings] = []

    def check_room(self) -> None:
        """Check that one more evaluation may be sent; `DeviceError` "bad_request" otherwise."""
        if len(self._pending) >= MOST_PENDING:
            raise DeviceError("bad_request", f"{MOST_PENDING} evaluations are pending already: ask for the first one's result")

    def check_empty(self) -> None:
        """Check that no evaluation is pending; `DeviceError` "bad_request" otherwise."""
        if self._pending:
            raise DeviceError("bad_request", "an evaluation is still pending: ask for its result first")

    def add(self, pending: PendingReadings) -> None:
        """Append an evaluation that was sent."""
        self._pending.append(pending)

    def collect_up_to(self, pending: PendingReadings) -> None:
        """Wait for `pending` and for those before it."""
        while pending in self._pending:
            first = self._pending[0]
            first.collect()
            # Removed only now, so that `result` can be called again after a KeyboardInterrupt. Another thread may have
            # closed the connection meanwhile.
            if first in self._pending:
                self._pending.remove(first)

    def abandon(self) -> None:
        """Abandon all pending evaluations."""
        for pending in self._pending:
            pending.abandon()
        self._pending.clear()


def _closed() -> DeviceError:
    detail = "the connection was closed while this evaluation was pending"
    return DeviceError("transport", detail, retryable=True, outcome="unknown")
