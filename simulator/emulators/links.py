"""Between an instrument and its clients: connections, response times, faults. No socket here; `servers` brings these.

A `Unit` is one instrument on the bench with everybody who is connected to it; a `ClientLink` is one of its connections. What a link
wants done is an `Action`: bytes at a time, or the connection broken.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np

from photonloop.simulator.emulators.emulator import Emulator, TimedReply
from photonloop.simulator.emulators.unit_faults import UnitFault, UnitFaults

LONGEST_BYTES = 1 << 20
"""A client that sends more than this without ending a message has lost its way."""


@dataclass(frozen=True)
class Action:
    """What the server shall do for a link: send `data` at `at_s` of the unit's clock, or break the connection at once."""

    data: bytes = b""
    at_s: float = 0.0
    breaks: bool = False


@dataclass
class Counts:
    """What an instrument has seen."""

    messages: int = 0
    answers: int = 0
    connections: int = 0
    struck: dict[str, int] = field(default_factory=dict)
    working_s: float = 0.0
    """Wall time spent on messages, the physics of measurements with it."""


class Unit:
    """One instrument on the bench.

    Parameters
    ----------
    name
        What it is called in `station.toml` and when faults are injected.
    emulator
        The instrument.
    speed
        Factor on its response times: 1 as in the lab, 0 no waiting.
    survives_reset
        Connections live through a loss of power: true of a USB adapter, false of a network socket.
    rng
        Draws garbage.
    let_pass
        Told the time that the real instrument takes about every message [s], whatever the speed.
    clock
        Seconds of wall time.
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
        self.faults = UnitFaults()
        self.counts = Counts()
        self.links: list[ClientLink] = []
        self.clock = clock
        self._speed = speed
        self._survives_reset = survives_reset
        self._rng = rng
        self._let_pass = let_pass
        self._free_s = 0.0

    def connect(self, perform: Callable[[Action], None]) -> ClientLink:
        """Return a new connection; `perform` carries out what the instrument does unasked."""
        link = ClientLink(self, perform)
        self.links.append(link)
        self.counts.connections += 1
        return link

    def inject(self, fault: UnitFault) -> None:
        """Plan a fault, or let it strike at once.

        Raises
        ------
        ValueError
            One sentence: a fault that can only strike a message was to strike at once.
        """
        if not fault.now:
            self.faults.add(fault)
        elif fault.kind in {"disconnect", "reset", "error"}:
            for link, action in self._struck(fault):
                link.perform(action)
        else:
            raise ValueError(f"fault {fault.kind} strikes a message: it cannot strike now, while there is none")

    def handle(self, link: ClientLink, message: bytes, *, unread: bool) -> tuple[list[Action], bool]:
        """Return what a message on `link` brings about there, and whether an unread answer is thrown away."""
        self.counts.messages += 1
        began_s = time.perf_counter()
        try:
            return self._handled(link, message, unread=unread)
        finally:
            self.counts.working_s += time.perf_counter() - began_s

    def _handled(self, link: ClientLink, message: bytes, *, unread: bool) -> tuple[list[Action], bool]:
        fault = self.faults.strike(message)
        if fault is None:
            reply = self.emulator.handle(message, unread=unread)
            return self._answered(reply, 0.0), reply.interrupts
        self.counts.struck[fault.kind] = self.counts.struck.get(fault.kind, 0) + 1
        if fault.kind == "silence":
            return [], False
        if fault.kind == "error":
            return self._answered(TimedReply(self.emulator.refuse(message, fault.code, fault.channel)), 0.0), False
        if fault.kind in {"disconnect", "reset"}:
            here: list[Action] = []
            for other, action in self._struck(fault):
                if other is link:
                    here.append(action)
                else:
                    other.perform(action)
            return here, False
        reply = self.emulator.handle(message, unread=unread)
        if fault.kind == "garbage":
            reply = TimedReply(self._garbled(reply.data), reply.takes_s, reply.interrupts)
        return self._answered(reply, fault.delay_s if fault.kind == "late" else 0.0), reply.interrupts

    def _answered(self, reply: TimedReply, delay_s: float) -> list[Action]:
        now_s = self.clock()
        self._let_pass(reply.takes_s)
        self._free_s = max(self._free_s, now_s) + self._speed * reply.takes_s
        if not reply.data:
            return []
        self.counts.answers += 1
        return [Action(reply.data, max(self._free_s, now_s + delay_s))]

    def _struck(self, fault: UnitFault) -> list[tuple[ClientLink, Action]]:
        """Let a fault of the whole instrument happen; return what becomes of every connection."""
        if fault.kind == "error":
            said = self.emulator.complain(fault.code, fault.channel)
        elif fault.kind == "reset":
            said = self.emulator.reset()
        else:
            said = b""
        links = list(self.links)
        if fault.kind == "error" or (fault.kind == "reset" and self._survives_reset):
            return [(link, Action(said, self.clock())) for link in links if said]
        self.links.clear()
        return [(link, Action(breaks=True)) for link in links]

    def _garbled(self, data: bytes) -> bytes:
        """Return as many bytes of noise, with the line's end where there was one: a line hit by interference."""
        body = data.rstrip(b"\r\n")
        noise = bytes(self._rng.integers(128, 256, len(body), np.uint8))
        return noise + data[len(body) :]


class ClientLink:
    """One connection to an instrument."""

    def __init__(self, unit: Unit, perform: Callable[[Action], None]) -> None:
        self.perform = perform
        self._unit = unit
        self._buffer = bytearray()

    def receive(self, data: bytes, *, unread: bool = False) -> tuple[list[Action], bool]:
        """Return what `data` brings about, and whether answers that have not left yet are thrown away.

        `unread` says that there are such answers.
        """
        self._buffer += data
        actions: list[Action] = []
        drops = False
        for message in self._unit.emulator.framing(self._buffer):
            new, interrupts = self._unit.handle(self, message, unread=unread or bool(actions))
            if interrupts:
                actions, drops = [], True
            actions += new
            if any(action.breaks for action in new):
                break
        if len(self._buffer) > LONGEST_BYTES:
            actions.append(Action(breaks=True))
        return actions, drops

    def close(self) -> None:
        """Let go of the connection."""
        if self in self._unit.links:
            self._unit.links.remove(self)
