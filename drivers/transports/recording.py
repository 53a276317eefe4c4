"""Recordings of exchanges with an instrument, in a file, and replays of them as tests.

A recording is a file of JSON lines, one event per line, with times in seconds of the recorder's clock:

    {"s": 0.0123, "to": "heaters", "event": "sent", "data": "READ?\\n"}
    {"s": 0.0131, "to": "heaters", "event": "received", "data": "0.31\\n"}
    {"s": 0.5142, "to": "heaters", "event": "timeout", "data": ""}

`data` holds one character per byte (Latin-1), so that text is readable and any bytes are kept. Timeouts are recorded
too: a replay goes through the same timeouts, retries and resynchronisation as the recording, without waiting.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Literal

from photonloop.drivers.transports.connection import Connection
from photonloop.drivers.transports.dialect import Dialect
from photonloop.drivers.transports.interfaces import ConnectionLost, Stream, T
from photonloop.drivers.transports.modbus import ModbusTransport
from photonloop.drivers.transports.text import TextTransport, start_text
from photonloop.drivers.transports.transport_clock import SteppedClock, SystemClock, TransportClock
from photonloop.protocols.config import ConfigError

EventKind = Literal["sent", "received", "timeout", "lost", "opened", "closed"]


@dataclass(frozen=True)
class Event:
    """One event on a stream; `data` holds the bytes sent or received, or the reason why the connection was lost."""

    kind: EventKind
    data: bytes = b""


@dataclass(frozen=True)
class Recorder:
    """Writes events of any number of instruments to one open file, and flushes every line.

    Parameters
    ----------
    file
        Text file open for writing; the caller closes it.
    clock
        For the times of events.
    """

    file: IO[str]
    clock: TransportClock = field(default_factory=SystemClock)

    def write(self, instrument: str, event: Event) -> None:
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
    """Return an opener like `opener` whose streams record every event with `recorder`."""

    def open_recorded() -> Stream:
        try:
            stream = opener()
        except ConnectionLost as error:
            recorder.write(instrument, Event("lost", error.reason.encode("latin-1", "replace")))
            raise
        recorder.write(instrument, Event("opened"))
        return _RecordedStream(stream, instrument, recorder)

    return open_recorded


class _RecordedStream:
    """A `Stream` that records every event."""

    def __init__(self, stream: Stream, instrument: str, recorder: Recorder) -> None:
        self._stream = stream
        self._instrument = instrument
        self._recorder = recorder
        self.fresh_when_reopened = stream.fresh_when_reopened
        self.keeps_messages = stream.keeps_messages

    def send(self, data: bytes) -> None:
        self._guarded(lambda: self._stream.send(data))
        self._record("sent", data)

    def receive(self, timeout_s: float, count: int) -> bytes:
        data = self._guarded(lambda: self._stream.receive(timeout_s, count))
        self._record("received" if data else "timeout", data)
        return data

    def read_available(self) -> bytes:
        data = self._guarded(self._stream.read_available)
        if data:
            self._record("received", data)
        return data

    def clear(self) -> None:
        # A replay needs the discarded bytes as well, so they are read first, as far as the stream allows.
        while self.read_available():
            pass
        self._guarded(self._stream.clear)

    def close(self) -> None:
        self._stream.close()
        self._record("closed")

    def _record(self, kind: EventKind, data: bytes = b"") -> None:
        self._recorder.write(self._instrument, Event(kind, data))

    def _guarded(self, act: Callable[[], T]) -> T:
        try:
            return act()
        except ConnectionLost as error:
            self._record("lost", error.reason.encode("latin-1", "replace"))
            raise


def read_recording(path: Path, instrument: str) -> list[Event]:
    """Return the events of one instrument in a recording.

    Raises
    ------
    ConfigError
        The file cannot be read, a line is not an event, or there is no event of that instrument.
    """
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"recording {path} cannot be read: {error}") from None
    events, names = [], set[str]()
    for number, line in enumerate(lines, 1):
        try:
            entry = json.loads(line)
            event = Event(entry["event"], entry["data"].encode("latin-1"))
            names.add(entry["to"])
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise ConfigError(f"recording {path}, line {number} is not an event: {error}") from None
        if entry["to"] == instrument:
            events.append(event)
    if not events:
        raise ConfigError(
            f"recording {path} has no events of {instrument!r}; it has those of: {', '.join(sorted(names)) or 'no instrument'}"
        )
    return events


TranscriptPair = tuple[str | bytes | None, str | bytes | None]
"""(sent, answered): None for nothing sent, or for no answer before the timeout."""


def transcript(pairs: Iterable[TranscriptPair], write_termination: str = "\n", read_termination: str = "\n") -> list[Event]:
    """Return pairs of (sent, answered) as events. Line ends are added to text; bytes are used unchanged.

    `("READ?", "0.31")` an exchange · `("READ?", None)` no answer before the timeout · `("V 1", "")` a command that has
    no answer · `(None, "E01:02")` an unsolicited line.
    """
    events: list[Event] = []
    for sent, answer in pairs:
        if sent is not None:
            events.append(Event("sent", sent.encode() + write_termination.encode() if isinstance(sent, str) else sent))
        if answer is None:
            events.append(Event("timeout"))
        elif isinstance(answer, str) and answer:
            events.append(Event("received", "".join(line + read_termination for line in answer.split("\n")).encode()))
        elif isinstance(answer, bytes) and answer:
            events.append(Event("received", answer))
    return events


class ReplayStream:
    """A `Stream` that replays events and reports what a driver does differently. Made by `replay_…`.

    Parameters
    ----------
    events
        Expected events, in order.
    clock
        Advanced by every timeout.
    """

    keeps_messages = False

    def __init__(self, events: Sequence[Event], clock: SteppedClock, *, fresh_when_reopened: bool = True) -> None:
        self._events = list(events)
        self._clock = clock
        self._position = 0
        self._timeout_position = self._rest_position = -1
        self.fresh_when_reopened = fresh_when_reopened

    def send(self, data: bytes) -> None:
        """Compare `data` with the next event of the transcript."""
        event = self._next()
        if event is not None and event.kind == "lost":
            self._position += 1
            raise ConnectionLost(event.data.decode("latin-1"), sent=False)
        if event is None:
            raise AssertionError(f"the driver sent {data!r} after the end of the transcript\n{self._hint()}{self._so_far()}")
        if event.kind in {"received", "timeout"}:
            raise AssertionError(
                f"the driver sent {data!r} before reading {event.data!r}: either the driver does not read the answer to the last "
                f"command, or the transcript answers a command that has no answer. {self._so_far()}"
            )
        if event.data != data:
            raise AssertionError(
                f"the driver sent     {data!r}\nthe transcript has  {event.data!r}\n{self._hint()}{self._so_far()}"
            )
        self._position += 1

    def receive(self, timeout_s: float, count: int) -> bytes:
        """Return the bytes that come next in the transcript; none for a timeout."""
        event = self._next()
        if event is None or event.kind == "sent":
            # A driver may wait although nothing comes; it takes the timeout, as with an instrument.
            self._clock.pause(timeout_s)
            self._timeout_position = self._position
            return b""
        self._position += 1
        if event.kind == "lost":
            raise ConnectionLost(event.data.decode("latin-1"))
        if event.kind == "timeout":
            self._clock.pause(timeout_s)
            return b""
        if len(event.data) > count:
            self._position -= 1
            self._events[self._position] = Event("received", event.data[count:])
            self._rest_position = self._position
        return event.data[:count]

    def read_available(self) -> bytes:
        """Return the bytes that come next in the transcript without a command."""
        event = self._next()
        if event is None or event.kind != "received":
            return b""
        self._position += 1
        return event.data

    def clear(self) -> None:
        """Discard the bytes that come next in the transcript."""
        while self.read_available():
            pass

    def close(self) -> None:
        """Do nothing."""

    def reopen(self) -> ReplayStream:
        """Reopen the stream at the current position of the transcript; the unread rest of an answer is lost."""
        if self._rest_position == self._position:
            self._position += 1
        event = self._next()
        if event is not None and event.kind == "lost":
            self._position += 1
            raise ConnectionLost(event.data.decode("latin-1"), sent=False)
        return self

    def check_finished(self) -> None:
        """Raise AssertionError if the transcript has events that did not happen."""
        event = self._next()
        if event is not None and event.kind == "sent":
            raise AssertionError(f"the driver never sent {event.data!r}: {self._so_far()}")
        if event is not None and event.kind == "received":
            raise AssertionError(f"the driver never read {event.data!r}: {self._so_far()}")

    def _next(self) -> Event | None:
        while self._position < len(self._events) and self._events[self._position].kind in {"opened", "closed"}:
            self._position += 1
        return self._events[self._position] if self._position < len(self._events) else None

    def _hint(self) -> str:
        if self._timeout_position != self._position:
            return ""
        return (
            "it got no answer to the last command before its timeout: the answer may be missing in the transcript. Write None if "
            "no answer is meant to come\n"
        )

    def _so_far(self) -> str:
        before = [f"  {event.kind:10}{event.data!r}" for event in self._events[max(0, self._position - 6) : self._position]]
        return "before that:\n" + "\n".join(before) if before else "nothing came before that"


def replay_text(
    events: Sequence[Event], dialect: Dialect, *, fresh_when_reopened: bool = True
) -> tuple[TextTransport, ReplayStream]:
    """Return a transport over a replay of `events`, identification included, and the stream, for `check_finished`."""
    connection, stream, clock = _replay(events, fresh_when_reopened)
    return start_text("replay", connection, dialect, clock), stream


def replay_modbus(events: Sequence[Event], *, timeout_s: float = 1.0) -> tuple[ModbusTransport, ReplayStream]:
    """Return a Modbus transport over a replay of `events`, and the stream, for `check_finished`."""
    connection, stream, clock = _replay(events, fresh_when_reopened=True)
    return ModbusTransport("replay", connection, clock, timeout_s=timeout_s), stream


def _replay(events: Sequence[Event], fresh_when_reopened: bool) -> tuple[Connection, ReplayStream, SteppedClock]:
    clock = SteppedClock()
    stream = ReplayStream(events, clock, fresh_when_reopened=fresh_when_reopened)
    return Connection(stream.reopen, stream, clock), stream, clock
