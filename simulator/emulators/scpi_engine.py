"""The one SCPI instrument there is: a table of commands, an error queue, an answer.

An instrument is data: its commands with the functions that carry them out, how it words errors, how its lines end. Its state
lives with those functions.
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
    """A command as received: numbers behind its mnemonics where the pattern has "#" (-1: none given), and its arguments."""

    numbers: tuple[int, ...]
    arguments: tuple[str, ...]

    def argument(self, index: int = 0) -> str:
        """Return an argument; ScpiError -109 where it is missing."""
        if index >= len(self.arguments):
            raise ScpiError(-109)
        return self.arguments[index]


@dataclass(frozen=True)
class Command:
    """One command.

    Parameters
    ----------
    pattern
        As in manuals (`scpi.spellings`).
    tell, ask
        What carries out the command and what answers the query; None: there is none. Both may raise ScpiError.
    takes_s
        Time that the real instrument takes [s], or a function that returns it for a call.
    most
        Arguments it takes at most.
    """

    pattern: str
    tell: Callable[[Call], None] | None = None
    ask: Callable[[Call], str] | None = None
    takes_s: float | Callable[[Call], float] = 0.0
    most: int = 1


@dataclass(frozen=True)
class Manners:
    """How an instrument of a make behaves.

    Parameters
    ----------
    identity
        Answer to *IDN?.
    error
        Wording of one error for SYST:ERR?.
    terminator
        End of every line, both ways.
    one_query
        A query that comes before the last answer was read throws that answer away (error -410).
    exchange_s
        Time for any message [s].
    """

    identity: str
    error: Callable[[int], str]
    terminator: bytes = b"\n"
    one_query: bool = False
    exchange_s: float = 0.0


class ErrorQueue:
    """Errors that wait to be asked for, oldest first.

    Parameters
    ----------
    depth
        How many it holds; in a full one the last becomes "Queue overflow".
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
        """Return the oldest error and forget it; 0 where there is none."""
        return self._codes.popleft() if self._codes else 0

    def take_all(self) -> list[int]:
        """Return all errors and forget them; one 0 where there is none."""
        found = list(self._codes) or [0]
        self._codes.clear()
        return found

    def clear(self) -> None:
        """Forget all."""
        self._codes.clear()


@dataclass(frozen=True)
class _Meant:
    """What a header means where it stands: the function, the numbers it is called with, the path for whatever follows."""

    command: Command
    function: Callable[[Call], str | None]
    numbers: tuple[int, ...]
    path: Header


_ROOT = Header((), ())
_REMEMBERED = 8192


class ScpiInstrument:
    """An `Emulator` that speaks SCPI.

    Parameters
    ----------
    manners
        How it behaves.
    commands
        What it can do, besides *IDN?, *RST, *CLS, *OPC, *OPC?, *WAI, *ESR?, *STB?, *TST? and SYST:ERR?, which a command of the
        same name replaces.
    restore
        Brings its settings and outputs to what they are at power-up; *RST does the same.
    errors
        Its error queue.
    """

    def __init__(self, manners: Manners, commands: Sequence[Command], restore: Callable[[], None], errors: ErrorQueue) -> None:
        self._errors = errors
        self._manners = manners
        self._framing = lines(manners.terminator)
        self._restore = restore
        self._events = 0
        self._table: dict[tuple[str, ...], tuple[Command, tuple[int, ...]]] = {}
        self._known: dict[tuple[str, Header], _Meant] = {}
        for command in [*self._common(), *commands]:
            for words, numbered in spellings(command.pattern).items():
                self._table[words] = command, numbered
        restore()

    @property
    def framing(self) -> Framing:
        """Lines."""
        return self._framing

    def handle(self, message: bytes, *, unread: bool = False) -> TimedReply:
        """Carry out one line of commands joined by ";"."""
        answers: list[str] = []
        takes_s, interrupts = self._manners.exchange_s, False
        try:
            text = message.decode("ascii").strip()
        except UnicodeDecodeError:
            self.note(-102)
            return TimedReply(takes_s=takes_s)
        if self._manners.one_query and unread and "?" in text:
            self.note(-410)
            interrupts = True
        path = _ROOT
        for part in split_commands(text):
            words, _, rest = part.strip().partition(" ")
            if not words:
                continue
            try:
                meant = self._known.get((words, path)) or self._learned(words, path)
                path = meant.path
                arguments = split_arguments(rest)
                if len(arguments) > meant.command.most:
                    raise ScpiError(-108)
                call = Call(meant.numbers, arguments)
                answer = meant.function(call)
                if answer is not None:
                    answers.append(answer)
                duration = meant.command.takes_s
                takes_s += duration(call) if callable(duration) else duration
            except ScpiError as error:
                self.note(error.code)
                if -200 < error.code <= -100:  # what cannot be read spoils the rest of the line
                    break
        end = self._manners.terminator
        return TimedReply((";".join(answers)).encode("ascii") + end if answers else b"", takes_s, interrupts)

    def refuse(self, message: bytes, code: int, channel: int) -> bytes:
        """Queue `code` in place of an answer."""
        del message
        return self.complain(code, channel)

    def complain(self, code: int, channel: int) -> bytes:
        """Queue `code`: SCPI instruments say nothing unasked."""
        del channel
        self.note(code)
        return b""

    def reset(self) -> bytes:
        """Forget settings and errors, as power lost and found."""
        self._errors.clear()
        self._events = 128  # power on
        self._restore()
        return b""

    def note(self, code: int) -> None:
        """Put an error into the queue and into the event register (IEEE 488.2)."""
        self._events |= 32 if -200 < code <= -100 else 16 if -300 < code <= -200 else 4 if code <= -400 else 8
        self._errors.put(code)

    def _learned(self, words: str, path: Header) -> _Meant:
        """Return what `words` mean behind `path`, and remember it: sessions say the same things over and over."""
        header = parse_header(words.removesuffix("?"))
        if not words.startswith((":", "*")):
            header = Header(path.mnemonics + header.mnemonics, path.suffixes + header.suffixes)
        command, numbered = self._table.get(header.mnemonics, (None, ()))
        if command is None:
            raise ScpiError(-113)
        if any(suffix >= 0 and i not in numbered for i, suffix in enumerate(header.suffixes)):
            raise ScpiError(-114)
        function = command.ask if words.endswith("?") else command.tell
        if function is None:
            raise ScpiError(-113)
        # Common commands leave the path as it is.
        after = path if words.startswith("*") else Header(header.mnemonics[:-1], header.suffixes[:-1])
        meant = _Meant(command, function, tuple(header.suffixes[i] for i in numbered), after)
        if len(self._known) < _REMEMBERED:
            self._known[words, path] = meant
        return meant

    def _common(self) -> list[Command]:
        return [
            Command("*IDN", ask=lambda _: self._manners.identity),
            Command("*RST", lambda _: self._restore()),
            Command("*CLS", lambda _: self._clear()),
            Command("*OPC", lambda _: None, lambda _: "1"),
            Command("*WAI", lambda _: None),
            Command("*ESR", ask=lambda _: str(self._take_events())),
            Command("*STB", ask=lambda _: str(4 if self._errors else 0)),
            Command("*TST", ask=lambda _: "0"),
            Command("SYSTem:ERRor[:NEXT]", ask=lambda _: self._manners.error(self._errors.take())),
        ]

    def _clear(self) -> None:
        self._errors.clear()
        self._events = 0

    def _take_events(self) -> int:
        events, self._events = self._events, 0
        return events


def plain_error(code: int) -> str:
    """Word an error as most instruments do: +0,"No error"."""
    return f'{code:+d},"{error_text(code)}"'
