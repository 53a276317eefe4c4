"""Lines of text to and from an instrument, always in step.

In step means: nothing is on its way from the instrument that belongs to an earlier question. Both sides are in step after a
question is answered in full. They are out of step from the moment a question is sent until then, so that a silence, an
interruption from the keyboard or a half-read answer leaves them out of step, and the next exchange first brings them back:

    ask "READ?"        silence                              out of step
    (READ? again)      send "*IDN?", whose answer is known  ◀── "0.31" comes late: thrown away
                                                            ◀── the known answer: in step
                       send "READ?"                         ◀── "0.32": the answer to this question

An instrument answers in order, so once the known answer is there, every earlier one has come or never will. Where the known
answer itself does not come, two late copies of it could be told apart no more: a socket is then closed and opened anew, a serial
line is listened to until it has been quiet for a whole timeout.
"""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NoReturn

from photonloop.drivers.transports.connection import Connection
from photonloop.drivers.transports.reconfiguration import Reconfiguration
from photonloop.drivers.transports.transport import ConnectionLost, ReadTimeout, T
from photonloop.drivers.transports.transport_clock import TransportClock
from photonloop.protocols.errors import DeviceError

_FIRST_TRIES = 3

_REMEMBERED = 256
"""Lines that came unasked and were not yet taken."""


@dataclass(frozen=True)
class Dialect:
    """How an instrument wants to be spoken to.

    Parameters
    ----------
    ends_sent, ends_got
        Terminators of lines there and back.
    timeout_s
        How long one answer may take.
    repeats
        How often a question is repeated after silence or nonsense.
    who
        A question that changes nothing and whose answer never changes.
    known_by
        Pattern that the whole answer to `id_query` matches.
    unasked
        True for a line that may come at any time without being an answer to anything.
    baud
        Of serial lines, 8 bits, no parity, one stop bit.
    """

    write_termination: str = "\n"
    read_termination: str = "\n"
    timeout_s: float = 2.0
    retries: int = 1
    id_query: str = "*IDN?"
    id_pattern: str = r"[^,]+,[^,]+,.+"
    is_unsolicited: Callable[[str], bool] = lambda _line: False
    baud: int = 115200


def start_text(name: str, connection: Connection, dialect: Dialect, clock: TransportClock) -> TextTransport:
    """Return a transport over `connection` once the instrument has said who it is.

    Raises
    ------
    DeviceError
        "transport" where it says nothing, or nothing that fits `dialect.id_pattern`.
    """
    transport = TextTransport(name, connection, dialect, clock)
    transport.greet()
    return transport


class TextTransport:
    """A `Transport` over lines; see the module's docstring. Made by `start_text`."""

    def __init__(self, name: str, connection: Connection, dialect: Dialect, clock: TransportClock) -> None:
        self._name = name
        self._connection = connection
        self._dialect = dialect
        self._clock = clock
        self._known = ""
        self._unsolicited: deque[str] = deque(maxlen=_REMEMBERED)
        self._in_step = False
        self._id_in_doubt = False
        self._reconfiguration = Reconfiguration()

    @property
    def name(self) -> str:
        """Name and address of the instrument, as errors call it."""
        return self._name

    @property
    def timeout_s(self) -> float:
        """How long one answer may take."""
        return self._dialect.timeout_s

    def query(
        self,
        command: str,
        parse: Callable[[list[str]], T],
        *,
        lines: int = 1,
        mutates: bool = False,
        retries: int | None = None,
        wait_s: float = 0.0,
    ) -> T:
        """Send `command` and return what `parse` makes of the answer; see `contract.Transport`.

        Takes at most 3 · (repeats + 1) timeouts, plus as many times `wait_s`, plus opening times where the way was lost.
        """
        tries = 1 + (self._dialect.retries if retries is None else retries)
        sent = found_dead = False
        while True:
            self._get_ready(command, mutates, sent)
            got: list[str] = []
            complaints, sent_before = len(self._unsolicited), sent
            try:
                self._in_step, sent = False, True
                self._connection.send(self._encoded(command))
                self._read(got, lines, self._dialect.timeout_s + wait_s)
                value = parse(got)
            except (ReadTimeout, ConnectionLost, ValueError) as error:
                if isinstance(error, ConnectionLost) and not error.sent:
                    sent = sent_before
                    if not found_dead:
                        found_dead = True  # before a byte left: that try was none, however harmful a repeat may be
                        continue
                tries -= 1
                # An instrument that complained instead of answering would complain again.
                if tries == 0 or len(self._unsolicited) > complaints:
                    self._fail(command, got, error, mutates=mutates and sent, wait_s=wait_s)
                continue
            except DeviceError:
                self._in_step = True  # understood, and not liked
                raise
            self._in_step = True
            return value

    def query_line(self, command: str) -> str:
        """Return the one-line answer to `command`, which changes nothing."""
        return self.query(command, lambda lines: lines[0])

    def write(self, command: str) -> None:
        """Send `command`, to which there is no answer."""
        for found_dead in (False, True):
            self._get_ready(command, mutates=True, sent=False)
            try:
                self._connection.send(self._encoded(command))
            except ConnectionLost as error:
                if found_dead or error.sent:
                    self._fail(command, [], error, mutates=error.sent)
            else:
                return

    def send_without_reply(self, commands: Sequence[str]) -> None:
        """Send absolute commands, twice, and wait for nothing; see `contract.Transport`. Takes an opening and a write at most."""
        # Twice, since the first may be taken for the end of a line that was cut off, or be lost where answers are lost as well.
        lines = [self._encoded(command) for command in (*commands, *commands)]
        self._in_step = False
        for found_dead in (False, True):
            try:
                if self._connection.lost:
                    self._reconfiguration.found_again()
                    self._connection.reopen()
                for line in lines:
                    self._connection.send(line)
            except ConnectionLost as error:
                if found_dead or error.sent:
                    self._fail(commands[0], [], error, mutates=error.sent)
            else:
                return

    def identity(self) -> str:
        """Ask who is there and return the answer, which brings both sides into step as well."""
        self._in_step = False
        for left in reversed(range(1 + self._dialect.retries)):
            try:
                self._get_ready(self._dialect.id_query, mutates=False, sent=False)
            except DeviceError as error:
                if error.code != "transport" or not left:
                    raise
            else:
                break
        return self._known

    def pop_unsolicited(self) -> list[str]:
        """Return, once, the lines that came without being asked for, oldest first."""
        self._sort_waiting()
        taken = list(self._unsolicited)
        self._unsolicited.clear()
        return taken

    def on_reconnect(self, configure: Callable[[], None]) -> None:
        """Call `configure` whenever the instrument was lost and found again, before anything else is sent."""
        self._reconfiguration.use(configure)

    def close(self) -> None:
        """Let go of the instrument. Closing twice is harmless."""
        self._connection.close()

    def greet(self) -> None:
        """Ask who is there for the first time, and keep the answer to know the instrument by."""
        dialect = self._dialect
        last = ""
        for _ in range(_FIRST_TRIES):
            try:
                self._connection.clear()
                self._connection.send(self._encoded(dialect.id_query))
                deadline_s = self._clock.now_s() + dialect.timeout_s
                while True:
                    line = self._next_line(deadline_s)
                    if not dialect.is_unsolicited(line) and re.fullmatch(dialect.id_pattern, line):
                        self._known, self._in_step = line, True
                        return
                    last = line
                    if dialect.is_unsolicited(line):
                        self._unsolicited.append(line)
            except ConnectionLost as error:
                raise DeviceError("transport", f"{self._name} is gone: {error.reason}", retryable=True) from None
            except ValueError as error:
                last = str(error)
            except ReadTimeout as error:
                last = _shown(error.got) if error.got else last
        said = f"answered {last!r} to" if last else "did not answer"
        raise DeviceError(
            "transport",
            f"{self._name} {said} {dialect.id_query!r}, {_FIRST_TRIES} times within {dialect.timeout_s:g} s each: "
            "is it the right address, and is the instrument switched on?",
            retryable=True,
        )

    def _get_ready(self, command: str, mutates: bool, sent: bool) -> None:
        """Bring both sides into step. `sent` says that an earlier try of `command` may have reached the instrument."""
        outcome = "unknown" if mutates and sent else "not_applied"
        try:
            self._sort_waiting()
            found_again = self._connection.lost or (self._id_in_doubt and self._connection.fresh_when_reopened)
            if found_again:
                self._reconfiguration.found_again()
                self._connection.reopen()
                self._in_step = self._id_in_doubt = False
            if not self._in_step:
                self._get_in_step(fresh=found_again and self._connection.fresh_when_reopened)
        except ConnectionLost as error:
            raise DeviceError(
                "transport",
                f"{self._name} is gone: {error.reason}, before {_short(command)!r}",
                retryable=True,
                outcome=outcome,
            ) from None
        except ReadTimeout as error:
            only = f", only {_shown(error.got)!r} came" if error.got else ""
            raise DeviceError(
                "transport",
                f"{self._name} did not answer {self._dialect.id_query!r} within {self._dialect.timeout_s:g} s{only}, "
                f"asked to get back into step before {_short(command)!r}",
                retryable=True,
                outcome=outcome,
            ) from None
        if self._reconfiguration.running:
            if found_again:  # or it would be set up within being set up, without an end
                raise DeviceError(
                    "transport",
                    f"{self._name} was lost again while it was being set up, before {_short(command)!r}",
                    retryable=True,
                    outcome="unknown",
                )
            return
        if found_again or self._reconfiguration.due:
            self._reconfiguration.run()
            if mutates:
                raise DeviceError(
                    "device",
                    f"{self._name} was lost and has been opened again before {_short(command)!r}: "
                    "it may have been restarted, so everything must be set again",
                    retryable=True,
                    outcome="unknown",
                )

    def _get_in_step(self, *, fresh: bool) -> None:
        """Ask who is there until the known answer comes. On a `fresh` connection another one cannot be late."""
        dialect = self._dialect
        if self._id_in_doubt:
            self._connection.quiet(dialect.timeout_s, 5 * dialect.timeout_s)
        self._connection.clear()
        doubted, self._id_in_doubt = self._id_in_doubt, True
        self._connection.send(self._encoded(dialect.id_query))
        deadline_s = self._clock.now_s() + dialect.timeout_s
        while True:
            try:
                line = self._next_line(deadline_s)
            except ValueError:
                continue  # garbage is late as well; the deadline still holds
            if line == self._known:
                break
            if dialect.is_unsolicited(line):
                self._unsolicited.append(line)
            elif fresh and re.fullmatch(dialect.id_pattern, line):
                raise DeviceError(
                    "device",
                    f"{self._name} is another instrument now: it answers {line!r} to {dialect.id_query!r}, it was {self._known!r}",
                    outcome="unknown",
                )
        if doubted:
            self._connection.quiet(dialect.timeout_s / 4, dialect.timeout_s)
        self._id_in_doubt, self._in_step = False, True

    def _read(self, got: list[str], count: int, timeout_s: float) -> None:
        """Append lines to `got` until there are `count`, or for 0 until the instrument is quiet."""
        deadline_s = self._clock.now_s() + timeout_s
        while not count or len(got) < count:
            quiet_s = self._clock.now_s() + self._dialect.timeout_s / 10
            try:
                line = self._next_line(deadline_s if count or not got else min(deadline_s, quiet_s))
            except ReadTimeout as error:
                if got and not count and not error.got:
                    return
                raise
            if self._dialect.is_unsolicited(line):
                self._unsolicited.append(line)
                # A complaint may stand in the answer's place: whatever else is on its way is waited for only shortly.
                deadline_s = min(deadline_s, self._clock.now_s() + self._dialect.timeout_s / 10)
            else:
                got.append(line)

    def _next_line(self, deadline_s: float) -> str:
        # What arrived in time is taken even when this process was late to look, but a flood must end as well.
        if self._clock.now_s() > deadline_s + self._dialect.timeout_s:
            raise ReadTimeout
        return self._text(self._connection.line(self._dialect.read_termination.encode(), deadline_s))

    def _sort_waiting(self) -> None:
        """Take what has come since the last answer. A line that nobody asked for and nobody knows means: out of step."""
        while self._connection.has_waiting():
            try:
                line = self._next_line(self._clock.now_s() + self._dialect.timeout_s / 10)
            except (ReadTimeout, ValueError, ConnectionLost):
                self._in_step = False
                return
            self._in_step = self._in_step and (self._dialect.is_unsolicited(line) or not line)
            if line:
                self._unsolicited.append(line)

    def _encoded(self, command: str) -> bytes:
        return (command + self._dialect.write_termination).encode("ascii")

    def _text(self, line: bytes) -> str:
        try:
            return line.decode("ascii").strip(" \r\n\t\0")
        except UnicodeDecodeError:
            raise ValueError(f"{_shown(line)!r} is not text") from None

    def _fail(self, command: str, got: list[str], error: Exception, *, mutates: bool, wait_s: float = 0.0) -> NoReturn:
        if isinstance(error, ConnectionLost):
            detail = f"{self._name} is gone: {error.reason}, at {_short(command)!r}"
        elif isinstance(error, ReadTimeout):
            came = ", ".join([*map(repr, got), *([repr(_shown(error.got))] if error.got else [])])
            only = f", only {_short(came)} came" if came else ""
            detail = f"{self._name} did not answer {_short(command)!r} within {self._dialect.timeout_s + wait_s:g} s{only}"
        else:
            answered = f"answered {_short(', '.join(got))!r}" if got else "sent an answer"
            detail = f"{self._name} {answered} to {_short(command)!r}, which makes no sense: {error}"
        raise DeviceError("transport", detail, retryable=True, outcome="unknown" if mutates else "not_applied") from None


def _shown(data: bytes) -> str:
    return _short(data.decode("ascii", "backslashreplace"))


def _short(text: str) -> str:
    return text if len(text) <= 80 else f"{text[:60]}… ({len(text)} characters)"
