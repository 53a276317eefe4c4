"""Exchanges with an instrument, kept in a file and played back as a test.

A recording is JSON lines, one event a line, times in seconds since the recording began:

    {"s": 0.0123, "to": "heaters", "event": "sent", "data": "READ?\\n"}
    {"s": 0.0131, "to": "heaters", "event": "got", "data": "0.31\\n"}
    {"s": 0.5142, "to": "heaters", "event": "silence", "data": ""}

`data` holds one character a byte (Latin-1), so that text can be read and bytes survive. Silences are part of it: a replay runs
through the same timeouts, repeats and clearing that the recording went through, in no time.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Literal

from photonloop.drivers.transports.connection import Connection
from photonloop.drivers.transports.modbus import ModbusTransport
from photonloop.drivers.transports.text import Dialect, TextTransport, start_text
from photonloop.drivers.transports.transport import ConnectionLost, Stream, T
from photonloop.drivers.transports.transport_clock import SteppedClock, SystemClock, TransportClock
from photonloop.protocols.config import ConfigError

Kind = Literal["sent", "got", "silence", "broken", "opened", "closed"]


@dataclass(frozen=True)
class Event:
    """One thing that happened on a wire: bytes sent or got, a silence, a failure, an opening, an end."""

    kind: Kind
    data: bytes = b""


@dataclass(frozen=True)
class Recorder:
    """Writes events of any number of instruments to one open file, each line flushed.

    Parameters
    ----------
    file
        Text file open for writing; the caller closes it.
    clock
        For the times.
    """

    file: IO[str]
    clock: TransportClock = field(default_factory=SystemClock)

    def note(self, instrument: str, event: Event) -> None:
        """Write one event."""
        line = {
            "s": round(self.clock.now_s(), 6),
            "to": instrument,
            "event": event.kind,
            "data": event.data.decode("latin-1"),
        }
        self.file.write(json.dumps(line, ensure_ascii=False) + "\n")
        self.file.flush()


def recorded(opener: Callable[[], Stream], instrument: str, recorder: Recorder) -> Callable[[], Stream]:
    """Return an opener like `opener` whose wires tell `recorder` everything."""

    def open_recorded() -> Stream:
        try:
            wire = opener()
        except ConnectionLost as error:
            recorder.note(instrument, Event("broken", error.reason.encode("latin-1", "replace")))
            raise
        recorder.note(instrument, Event("opened"))
        return _RecordedStream(wire, instrument, recorder)

    return open_recorded


class _RecordedStream:
    def __init__(self, wire: Stream, instrument: str, recorder: Recorder) -> None:
        self._wire = wire
        self._instrument = instrument
        self._recorder = recorder
        self.fresh_when_reopened = wire.fresh_when_reopened
        self.keeps_messages = wire.keeps_messages

    def send(self, data: bytes) -> None:
        self._guarded(lambda: self._wire.send(data))
        self._note("sent", data)

    def receive(self, timeout_s: float, count: int) -> bytes:
        got = self._guarded(lambda: self._wire.receive(timeout_s, count))
        self._note("got" if got else "silence", got)
        return got

    def waiting(self) -> bytes:
        got = self._guarded(self._wire.waiting)
        if got:
            self._note("got", got)
        return got

    def clear(self) -> None:
        # What is thrown away is part of the story, so it is read rather than cleared, where it can be read at all.
        while self.waiting():
            pass
        self._guarded(self._wire.clear)

    def close(self) -> None:
        self._wire.close()
        self._note("closed")

    def _note(self, kind: Kind, data: bytes = b"") -> None:
        self._recorder.note(self._instrument, Event(kind, data))

    def _guarded(self, act: Callable[[], T]) -> T:
        try:
            return act()
        except ConnectionLost as error:
            self._note("broken", error.reason.encode("latin-1", "replace"))
            raise


def read_recording(path: Path, instrument: str) -> list[Event]:
    """Return what a recording holds of one instrument.

    Raises
    ------
    ConfigError
        The file cannot be read, a line is no event, or there is none of that instrument.
    """
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"recording {path} cannot be read: {error}") from None
    events, others = [], set[str]()
    for number, line in enumerate(lines, 1):
        try:
            entry = json.loads(line)
            event = Event(entry["event"], entry["data"].encode("latin-1"))
            others.add(entry["to"])
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise ConfigError(f"recording {path}, line {number} is no event: {error}") from None
        if entry["to"] == instrument:
            events.append(event)
    if not events:
        raise ConfigError(f"recording {path} holds nothing of {instrument!r}; it holds: {', '.join(sorted(others)) or 'nothing'}")
    return events


TranscriptLine = tuple[str | bytes | None, str | bytes | None]
"""(sent, answered) of a transcript: None for nothing sent, or nothing answered until the timeout."""


def transcript(lines: Iterable[TranscriptLine], write_termination: str = "\n", read_termination: str = "\n") -> list[Event]:
    """Return pairs of (sent, answered) as events; text gets its terminators, bytes are taken as they are.

    `("READ?", "0.31")` an exchange · `("READ?", None)` the instrument stays silent · `("V 1", "")` a command without an answer ·
    `(None, "E01:02")` something said unasked.
    """
    events: list[Event] = []
    for sent, got in lines:
        if sent is not None:
            events.append(Event("sent", sent.encode() + write_termination.encode() if isinstance(sent, str) else sent))
        if got is None:
            events.append(Event("silence"))
        elif got:
            whole = "".join(line + read_termination for line in got.split("\n")).encode() if isinstance(got, str) else got
            events.append(Event("got", whole))
    return events


class ReplayStream:
    """A wire that plays a recording or a transcript, and says what a driver does differently. Made by `replay_…`.

    Parameters
    ----------
    events
        What is to happen, in order.
    clock
        Moved on by every silence.
    """

    keeps_messages = False

    def __init__(self, events: Sequence[Event], clock: SteppedClock, *, fresh_when_reopened: bool = True) -> None:
        self._events = list(events)
        self._clock = clock
        self._at = 0
        self._waited_at = self._rest_at = -1
        self.fresh_when_reopened = fresh_when_reopened

    def send(self, data: bytes) -> None:
        """Compare with what the transcript expects."""
        event = self._next()
        if event is not None and event.kind == "broken":
            self._at += 1
            raise ConnectionLost(event.data.decode("latin-1"), sent=False)
        if event is None:
            raise AssertionError(f"the driver sent {data!r} after the end of the transcript\n{self._hint()}{self._so_far()}")
        if event.kind in {"got", "silence"}:
            raise AssertionError(
                f"the driver sent {data!r} before reading {event.data!r}: is the answer to the last command not asked for, or is "
                f"the line in the transcript answered where the instrument would stay quiet? {self._so_far()}"
            )
        if event.data != data:
            raise AssertionError(
                f"the driver sent     {data!r}\nthe transcript has  {event.data!r}\n{self._hint()}{self._so_far()}"
            )
        self._at += 1

    def receive(self, timeout_s: float, count: int) -> bytes:
        """Return what the transcript has next, nothing where it is silent."""
        event = self._next()
        if event is None or event.kind == "sent":
            # A driver may listen to a quiet line; it costs it the timeout, as in the lab.
            self._clock.pause(timeout_s)
            self._waited_at = self._at
            return b""
        self._at += 1
        if event.kind == "broken":
            raise ConnectionLost(event.data.decode("latin-1"))
        if event.kind == "silence":
            self._clock.pause(timeout_s)
            return b""
        if len(event.data) > count:
            self._at -= 1
            self._events[self._at] = Event("got", event.data[count:])
            self._rest_at = self._at
        return event.data[:count]

    def waiting(self) -> bytes:
        """Return what the instrument said unasked."""
        event = self._next()
        if event is None or event.kind != "got":
            return b""
        self._at += 1
        return event.data

    def clear(self) -> None:
        """Throw away what the instrument said."""
        while self.waiting():
            pass

    def close(self) -> None:
        """Nothing to let go of."""

    def reopen(self) -> ReplayStream:
        """Be found again, with the transcript where it stands; the unread rest of an answer is gone."""
        if self._rest_at == self._at:
            self._at += 1
        event = self._next()
        if event is not None and event.kind == "broken":
            self._at += 1
            raise ConnectionLost(event.data.decode("latin-1"), sent=False)
        return self

    def check_finished(self) -> None:
        """Raise AssertionError where the transcript has more than the driver did."""
        event = self._next()
        if event is not None and event.kind == "sent":
            raise AssertionError(f"the driver never sent {event.data!r}: {self._so_far()}")
        if event is not None and event.kind == "got":
            raise AssertionError(f"the driver never read {event.data!r}: {self._so_far()}")

    def _next(self) -> Event | None:
        while self._at < len(self._events) and self._events[self._at].kind in {"opened", "closed"}:
            self._at += 1
        return self._events[self._at] if self._at < len(self._events) else None

    def _hint(self) -> str:
        if self._waited_at != self._at:
            return ""
        return (
            "it had waited in vain for an answer to the line before: is the answer missing in the transcript? Write None where "
            "the instrument is meant to be silent\n"
        )

    def _so_far(self) -> str:
        before = [f"  {event.kind:8}{event.data!r}" for event in self._events[max(0, self._at - 6) : self._at]]
        return "before that:\n" + "\n".join(before) if before else "nothing came before that"


def replay_text(
    events: Sequence[Event], dialect: Dialect, *, fresh_when_reopened: bool = True
) -> tuple[TextTransport, ReplayStream]:
    """Return a transport that talks to `events`, its greeting included, and the wire to ask whether all of them happened."""
    connection, wire, clock = _replay(events, fresh_when_reopened)
    return start_text("replay", connection, dialect, clock), wire


def replay_modbus(events: Sequence[Event], *, timeout_s: float = 1.0) -> tuple[ModbusTransport, ReplayStream]:
    """Return a Modbus transport that talks to `events`, and the wire to ask whether all of them happened."""
    connection, wire, clock = _replay(events, fresh_when_reopened=True)
    return ModbusTransport("replay", connection, clock, timeout_s=timeout_s), wire


def _replay(events: Sequence[Event], fresh_when_reopened: bool) -> tuple[Connection, ReplayStream, SteppedClock]:
    clock = SteppedClock()
    wire = ReplayStream(events, clock, fresh_when_reopened=fresh_when_reopened)
    return Connection(wire.reopen, wire, clock), wire, clock
