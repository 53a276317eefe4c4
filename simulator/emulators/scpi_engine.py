"""Emulated SCPI instruments: a table of commands, an error queue, and the answers.

An instrument is defined by data: its commands with the functions that carry them out, the wording of its errors, and
the terminator of its lines. Its state belongs to those functions.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from photonloop.simulator.emulators.emulator import Framing, TimedReply, lines
from photonloop.simulator.emulators.scpi_parser import (
    Header,
    ScpiError,
    error_text,
    parse_header,
    spellings,
    split_arguments,
    split_commands,
)


@dataclass(frozen=True)
class Call:
    """A received command: the numbers in its header, one per "#" of the pattern (-1: not given), and its arguments."""

    numbers: tuple[int, ...]
    arguments: tuple[str, ...]

    def argument(self, index: int = 0) -> str:
        """Return an argument; raise ScpiError -109 if it is missing."""
        if index >= len(self.arguments):
            raise ScpiError(-109)
        return self.arguments[index]


@dataclass(frozen=True)
class Command:
    """A command of an instrument, its query, or both.

    Parameters
    ----------
    pattern
        The header as manuals write it (`scpi_parser.spellings`).
    execute, query
        Functions that carry out the command and answer the query. Both may raise ScpiError. None: there is no such
        command.
    takes_s
        Time that the real instrument takes [s], or a function that returns it for a call.
    max_arguments
        Highest number of arguments.
    """

    pattern: str
    execute: Callable[[Call], None] | None = None
    query: Callable[[Call], str] | None = None
    takes_s: float | Callable[[Call], float] = 0.0
    max_arguments: int = 1


@dataclass(frozen=True)
class ScpiProfile:
    """Properties of an instrument that all of its commands share.

    Parameters
    ----------
    identity
        Answer to *IDN?.
    format_error
        Returns the answer to SYST:ERR? for an error code.
    terminator
        Last byte of every line, in both directions.
    single_query
        Whether a query that comes before the last answer was read discards that answer (error -410).
    exchange_s
        Time that every message takes [s].
    """

    identity: str
    format_error: Callable[[int], str]
    terminator: bytes = b"\n"
    single_query: bool = False
    exchange_s: float = 0.0


class ErrorQueue:
    """The error queue of an instrument, oldest error first.

    Parameters
    ----------
    depth
        Capacity. If the queue is full, its last error becomes "Queue overflow".
    """

    def __init__(self, depth: int) -> None:
        self._codes: deque[int] = deque()
        self._depth = depth

    def __len__(self) -> int:
        return len(self._codes)

    def put(self, code: int) -> None:
        """Add an error."""
        if len(self._codes) >= self._depth:
            self._codes[-1] = -350
        else:
            self._codes.append(code)

    def take(self) -> int:
        """Remove and return the oldest error; 0 if there is none."""
        return self._codes.popleft() if self._codes else 0

    def take_all(self) -> list[int]:
        """Remove and return all errors; a single 0 if there are none."""
        found = list(self._codes) or [0]
        self._codes.clear()
        return found

    def clear(self) -> None:
        """Remove all errors."""
        self._codes.clear()


@dataclass(frozen=True)
class _Resolved:
    """A header looked up in the command table: its function, its channel numbers, and the path of the next header."""

    command: Command
    function: Callable[[Call], str | None]
    numbers: tuple[int, ...]
    path: Header


_ROOT = Header((), ())
_MAX_RESOLVED = 8192


class ScpiInstrument:
    """An `Emulator` with an SCPI command set.

    Parameters
    ----------
    profile
        Its identity, error format, terminator and timing.
    commands
        Its commands. *IDN?, *RST, *CLS, *OPC, *OPC?, *WAI, *ESR?, *STB?, *TST? and SYST:ERR? are there already; a
        command of the same name replaces them.
    restore
        Sets its settings and outputs to their values at power-up. *RST calls it too.
    errors
        Its error queue.
    """

    def __init__(
        self, profile: ScpiProfile, commands: Sequence[Command], restore: Callable[[], None], errors: ErrorQueue
    ) -> None:
        self._errors = errors
        self._profile = profile
        self._framing = lines(profile.terminator)
        self._restore = restore
        self._events = 0
        self._table: dict[tuple[str, ...], tuple[Command, tuple[int, ...]]] = {}
        self._resolved: dict[tuple[str, Header], _Resolved] = {}
        for command in [*self._common(), *commands]:
            for words, numbered in spellings(command.pattern).items():
                self._table[words] = command, numbered
        restore()

    @property
    def framing(self) -> Framing:
        """Lines that end with the profile's terminator."""
        return self._framing

    def handle(self, message: bytes, *, unread: bool = False) -> TimedReply:
        """Carry out one line: one or more commands, separated by ";"."""
        answers: list[str] = []
        takes_s, interrupts = self._profile.exchange_s, False
        try:
            text = message.decode("ascii").strip()
        except UnicodeDecodeError:
            self.note(-102)
            return TimedReply(takes_s=takes_s)
        if self._profile.single_query and unread and "?" in text:
            self.note(-410)
            interrupts = True
        path = _ROOT
        for part in split_commands(text):
            words, _, rest = part.strip().partition(" ")
            if not words:
                continue
            try:
                resolved = self._resolved.get((words, path)) or self._resolve(words, path)
                path = resolved.path
                arguments = split_arguments(rest)
                if len(arguments) > resolved.command.max_arguments:
                    raise ScpiError(-108)
                call = Call(resolved.numbers, arguments)
                answer = resolved.function(call)
                if answer is not None:
                    answers.append(answer)
                duration = resolved.command.takes_s
                takes_s += duration(call) if callable(duration) else duration
            except ScpiError as error:
                self.note(error.code)
                if -200 < error.code <= -100:  # a syntax error ends the line
                    break
        end = self._profile.terminator
        return TimedReply((";".join(answers)).encode("ascii") + end if answers else b"", takes_s, interrupts)

    def refuse(self, message: bytes, code: int, channel: int) -> bytes:
        """Put `code` into the error queue; send no answer."""
        del message
        return self.report_error(code, channel)

    def report_error(self, code: int, channel: int) -> bytes:
        """Put `code` into the error queue: SCPI instruments send nothing unsolicited."""
        del channel
        self.note(code)
        return b""

    def reset(self) -> bytes:
        """Restore the power-up state and empty the error queue."""
        self._errors.clear()
        self._events = 128  # power on
        self._restore()
        return b""

    def note(self, code: int) -> None:
        """Put an error into the queue and into the event register (IEEE 488.2)."""
        self._events |= 32 if -200 < code <= -100 else 16 if -300 < code <= -200 else 4 if code <= -400 else 8
        self._errors.put(code)

    def _resolve(self, words: str, path: Header) -> _Resolved:
        """Look up the header `words` after `path`, and cache it: sessions repeat the same commands."""
        header = parse_header(words.removesuffix("?"))
        if not words.startswith((":", "*")):
            header = Header(path.mnemonics + header.mnemonics, path.suffixes + header.suffixes)
        command, numbered = self._table.get(header.mnemonics, (None, ()))
        if command is None:
            raise ScpiError(-113)
        if any(suffix >= 0 and i not in numbered for i, suffix in enumerate(header.suffixes)):
            raise ScpiError(-114)
        function = command.query if words.endswith("?") else command.execute
        if function is None:
            raise ScpiError(-113)
        # Common commands do not change the path.
        after = path if words.startswith("*") else Header(header.mnemonics[:-1], header.suffixes[:-1])
        resolved = _Resolved(command, function, tuple(header.suffixes[i] for i in numbered), after)
        if len(self._resolved) < _MAX_RESOLVED:
            self._resolved[words, path] = resolved
        return resolved

    def _common(self) -> list[Command]:
        return [
            Command("*IDN", query=lambda _: self._profile.identity),
            Command("*RST", lambda _: self._restore()),
            Command("*CLS", lambda _: self._clear()),
            Command("*OPC", lambda _: None, lambda _: "1"),
            Command("*WAI", lambda _: None),
            Command("*ESR", query=lambda _: str(self._take_events())),
            Command("*STB", query=lambda _: str(4 if self._errors else 0)),
            Command("*TST", query=lambda _: "0"),
            Command("SYSTem:ERRor[:NEXT]", query=lambda _: self._profile.format_error(self._errors.take())),
        ]

    def _clear(self) -> None:
        self._errors.clear()
        self._events = 0

    def _take_events(self) -> int:
        events, self._events = self._events, 0
        return events


def plain_error(code: int) -> str:
    """Format an error as most instruments do: +0,"No error"."""
    return f'{code:+d},"{error_text(code)}"'
