"""Emulated instruments with their connections, response times and injected faults. Sockets are in `servers`.

A `Unit` is one instrument of the bench together with all of its connections. A `ClientConnection` is one of these
connections. It returns `ConnectionAction` values: bytes to be sent at a given time, or an order to break the
connection.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np

from photonloop.simulator.emulators.emulator import Emulator, TimedReply
from photonloop.simulator.emulators.unit_faults import PendingFaults, UnitFault

MAX_MESSAGE_BYTES = 1 << 20
"""A client that sends more than this without ending a message is disconnected."""


@dataclass(frozen=True)
class ConnectionAction:
    """Task of a server on a connection: send `data` at `at_s` of the unit's clock, or break the connection at once."""

    data: bytes = b""
    at_s: float = 0.0
    breaks: bool = False


@dataclass
class UnitCounters:
    """What an instrument has received and answered so far."""

    messages: int = 0
    answers: int = 0
    connections: int = 0
    faults: dict[str, int] = field(default_factory=dict)
    """Faults that messages have met, by kind."""
    working_s: float = 0.0
    """Wall time spent on messages, including the physics of measurements."""


class Unit:
    """One instrument of the bench.

    Parameters
    ----------
    name
        Its name in `station.toml` and on the control port.
    emulator
        The instrument.
    speed
        Factor on its response times: 1 as in the lab, 0 no delay.
    survives_reset
        Whether connections survive a loss of power: true of a USB adapter, false of a network socket.
    rng
        Random numbers for garbage.
    let_pass
        Called for every message with the time that the real instrument takes for it [s], at any speed.
    clock
        Returns wall time [s].
    """

    def __init__(
        self,
        name: str,
        emulator: Emulator,
        *,
        speed: float = 0.0,
        survives_reset: bool = False,
        rng: np.random.Generator,
        let_pass: Callable[[float], None] = lambda _: None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.name = name
        self.emulator = emulator
        self.faults = PendingFaults()
        self.counters = UnitCounters()
        self.connections: list[ClientConnection] = []
        self.clock = clock
        self._speed = speed
        self._survives_reset = survives_reset
        self._rng = rng
        self._let_pass = let_pass
        self._free_s = 0.0

    def connect(self, perform: Callable[[ConnectionAction], None]) -> ClientConnection:
        """Return a new connection. `perform` carries out actions that no message of this client caused."""
        connection = ClientConnection(self, perform)
        self.connections.append(connection)
        self.counters.connections += 1
        return connection

    def inject(self, fault: UnitFault) -> None:
        """Schedule a fault, or let it happen at once if it is marked `now`.

        Raises
        ------
        ValueError
            The fault is marked `now`, but its kind can only happen to a message.
        """
        if not fault.now:
            self.faults.add(fault)
        elif fault.kind in {"disconnect", "reset", "error"}:
            for connection, action in self._unit_fault(fault):
                connection.perform(action)
        else:
            raise ValueError(f"fault {fault.kind} cannot happen now, because it needs a message: leave out now")

    def handle(self, connection: ClientConnection, message: bytes, *, unread: bool) -> tuple[list[ConnectionAction], bool]:
        """Return the actions that a message causes on `connection`, and whether an unread answer is discarded."""
        self.counters.messages += 1
        began_s = time.perf_counter()
        try:
            return self._handled(connection, message, unread=unread)
        finally:
            self.counters.working_s += time.perf_counter() - began_s

    def _handled(self, connection: ClientConnection, message: bytes, *, unread: bool) -> tuple[list[ConnectionAction], bool]:
        fault = self.faults.take(message)
        if fault is None:
            reply = self.emulator.handle(message, unread=unread)
            return self._answered(reply, 0.0), reply.interrupts
        self.counters.faults[fault.kind] = self.counters.faults.get(fault.kind, 0) + 1
        if fault.kind == "silence":
            return [], False
        if fault.kind == "error":
            return self._answered(TimedReply(self.emulator.refuse(message, fault.code, fault.channel)), 0.0), False
        if fault.kind in {"disconnect", "reset"}:
            here: list[ConnectionAction] = []
            for other, action in self._unit_fault(fault):
                if other is connection:
                    here.append(action)
                else:
                    other.perform(action)
            return here, False
        reply = self.emulator.handle(message, unread=unread)
        if fault.kind == "garbage":
            reply = TimedReply(self._garbled(reply.data), reply.takes_s, reply.interrupts)
        return self._answered(reply, fault.delay_s if fault.kind == "late" else 0.0), reply.interrupts

    def _answered(self, reply: TimedReply, delay_s: float) -> list[ConnectionAction]:
        now_s = self.clock()
        self._let_pass(reply.takes_s)
        self._free_s = max(self._free_s, now_s) + self._speed * reply.takes_s
        if not reply.data:
            return []
        self.counters.answers += 1
        return [ConnectionAction(reply.data, max(self._free_s, now_s + delay_s))]

    def _unit_fault(self, fault: UnitFault) -> list[tuple[ClientConnection, ConnectionAction]]:
        """Let a fault of the whole instrument happen; return the action for each connection."""
        if fault.kind == "error":
            unsolicited = self.emulator.report_error(fault.code, fault.channel)
        elif fault.kind == "reset":
            unsolicited = self.emulator.reset()
        else:
            unsolicited = b""
        connections = list(self.connections)
        if fault.kind == "error" or (fault.kind == "reset" and self._survives_reset):
            return [(connection, ConnectionAction(unsolicited, self.clock())) for connection in connections if unsolicited]
        self.connections.clear()
        return [(connection, ConnectionAction(breaks=True)) for connection in connections]

    def _garbled(self, data: bytes) -> bytes:
        """Return as many random bytes, with the terminator of `data` kept: a line disturbed by interference."""
        body = data.rstrip(b"\r\n")
        noise = bytes(self._rng.integers(128, 256, len(body), np.uint8))
        return noise + data[len(body) :]


class ClientConnection:
    """One connection to an instrument."""

    def __init__(self, unit: Unit, perform: Callable[[ConnectionAction], None]) -> None:
        self.perform = perform
        self._unit = unit
        self._buffer = bytearray()

    def receive(self, data: bytes, *, unread: bool = False) -> tuple[list[ConnectionAction], bool]:
        """Return the actions that `data` causes, and whether answers that have not been sent yet are discarded.

        `unread` is whether there are such answers.
        """
        self._buffer += data
        actions: list[ConnectionAction] = []
        discards = False
        for message in self._unit.emulator.framing(self._buffer):
            new, interrupts = self._unit.handle(self, message, unread=unread or bool(actions))
            if interrupts:
                actions, discards = [], True
            actions += new
            if any(action.breaks for action in new):
                break
        if len(self._buffer) > MAX_MESSAGE_BYTES:
            actions.append(ConnectionAction(breaks=True))
        return actions, discards

    def close(self) -> None:
        """Remove the connection from its unit."""
        if self in self._unit.connections:
            self._unit.connections.remove(self)
