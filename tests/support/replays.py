"""Drivers against transcripts: what is sent, what is answered, and nothing else."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TypeVar

from photonloop.drivers.transports.recording import Event, TranscriptLine, replay_text, transcript
from photonloop.drivers.transports.text import Dialect, TextTransport
from photonloop.drivers.transports.transport import Transport

S = TypeVar("S")
Made = TypeVar("Made")

WHO = ("*IDN?", "ACME,M1,7,1.0")
"""The greeting that every transport in text begins with."""


@contextmanager
def replayed(lines: Sequence[TranscriptLine | Event], dialect: Dialect, *, serial: bool = False) -> Iterator[TextTransport]:
    """Yield a transport that plays `lines`, and make sure that all of them were played."""
    events: list[Event] = []
    for line in lines:
        events += [line] if isinstance(line, Event) else transcript([line], dialect.write_termination, dialect.read_termination)
    transport, wire = replay_text(events, dialect, fresh_when_reopened=not serial)
    yield transport
    wire.check_finished()


@contextmanager
def driven(
    opener: Callable[[Transport, S], Made],
    settings: S,
    dialect: Dialect,
    lines: Sequence[TranscriptLine | Event],
    *,
    serial: bool = False,
) -> Iterator[Made]:
    """Yield what `opener` makes of a transport that plays `lines`."""
    with replayed(lines, dialect, serial=serial) as transport:
        yield opener(transport, settings)
