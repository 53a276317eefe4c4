"""Drivers against transcripts: exactly what they send, with the given answers."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TypeVar

from photonloop.drivers.transports.dialect import Dialect
from photonloop.drivers.transports.interfaces import Transport
from photonloop.drivers.transports.recording import Event, TranscriptPair, replay_text, transcript
from photonloop.drivers.transports.text import TextTransport

S = TypeVar("S")
Made = TypeVar("Made")

IDENTITY = ("*IDN?", "ACME,M1,7,1.0")
"""The identification that every text transport begins with."""


@contextmanager
def replayed(lines: Sequence[TranscriptPair | Event], dialect: Dialect, *, serial: bool = False) -> Iterator[TextTransport]:
    """Yield a transport that replays `lines`, then check that all of them were used."""
    events: list[Event] = []
    for line in lines:
        events += [line] if isinstance(line, Event) else transcript([line], dialect.write_termination, dialect.read_termination)
    transport, stream = replay_text(events, dialect, fresh_when_reopened=not serial)
    yield transport
    stream.check_finished()


@contextmanager
def driven(
    opener: Callable[[Transport, S], Made],
    settings: S,
    dialect: Dialect,
    lines: Sequence[TranscriptPair | Event],
    *,
    serial: bool = False,
) -> Iterator[Made]:
    """Yield the instrument that `opener` opens over a transport that replays `lines`."""
    with replayed(lines, dialect, serial=serial) as transport:
        yield opener(transport, settings)
