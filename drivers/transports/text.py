"""Lines of text to and from an instrument, always synchronised.

Both sides are synchronised if no answer to an earlier query is still on its way from the instrument. That holds after a
query has been answered in full, but not between sending a query and receiving its full answer. So a timeout, an
interruption from the keyboard or a partial answer leaves them unsynchronised, and the next exchange resynchronises them
first:

    query "READ?"      timeout                              not synchronised
    (READ? repeated)   send "*IDN?", whose answer is known  ◀── "0.31" comes late: discarded
                                                            ◀── the known answer: synchronised
                       send "READ?"                         ◀── "0.32": the answer to this query

An instrument answers in order. So once the known answer has arrived, every earlier answer has arrived or never will. If
the known answer itself does not arrive, two late copies of it could not be distinguished. Then a socket is closed and
reopened, and a serial port is read until nothing has arrived for a whole timeout.
"""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Callable, Sequence
from typing import NoReturn

from photonloop.drivers.transports.connection import Connection
from photonloop.drivers.transports.dialect import Dialect
from photonloop.drivers.transports.interfaces import ConnectionLost, ReadTimeout, T
from photonloop.drivers.transports.reconfiguration import Reconfiguration
from photonloop.drivers.transports.transport_clock import TransportClock
from photonloop.protocols.errors import DeviceError, Outcome

_FIRST_TRIES = 3

_MAX_UNSOLICITED = 256
"""Unsolicited lines kept until `pop_unsolicited`."""


def start_text(name: str, connection: Connection, dialect: Dialect, clock: TransportClock) -> TextTransport:
    """Return a transport over `connection` after the instrument has identified itself.

    Raises
    ------
    DeviceError
        "transport" if it does not answer, or if no answer matches `dialect.id_pattern`.
    """
    transport = TextTransport(name, connection, dialect, clock)
    transport.learn_identity()
    return transport


class TextTransport:
    """A `Transport` over lines; see the module's docstring. Made by `start_text`."""

    def __init__(self, name: str, connection: Connection, dialect: Dialect, clock: TransportClock) -> None:
        self._name = name
        self._connection = connection
        self._dialect = dialect
        self._clock = clock
        self._identity = ""
        self._unsolicited: deque[str] = deque(maxlen=_MAX_UNSOLICITED)
        self._synchronised = False
        self._late_identity_possible = False
        self._reconfiguration = Reconfiguration()

    @property
    def name(self) -> str:
        """Name and address of the instrument, for error messages."""
        return self._name

    @property
    def timeout_s(self) -> float:
        """Time allowed for one answer."""
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
        """Send `command` and return the parsed answer; see `Transport.query`.

        Takes at most 3 · (retries + 1) timeouts, plus as many times `wait_s`, plus the time to reopen a lost
        connection.
        """
        tries = 1 + (self._dialect.retries if retries is None else retries)
        sent = found_lost = False
        while True:
            self._get_ready(command, mutates, sent)
            received: list[str] = []
            unsolicited, sent_before = len(self._unsolicited), sent
            try:
                self._synchronised, sent = False, True
                self._connection.send(self._encoded(command))
                self._read(received, lines, self._dialect.timeout_s + wait_s)
                value = parse(received)
            except (ReadTimeout, ConnectionLost, ValueError) as error:
                if isinstance(error, ConnectionLost) and not error.sent:
                    sent = sent_before
                    if not found_lost:
                        found_lost = True  # no byte was sent, so this does not count as a try, even if retries is 0
                        continue
                tries -= 1
                # An instrument that reported an error instead of answering would do so again.
                if tries == 0 or len(self._unsolicited) > unsolicited:
                    self._raise_failure(command, received, error, mutates=mutates and sent, wait_s=wait_s)
                continue
            except DeviceError:
                self._synchronised = True  # the answer was complete; the driver rejects what it reports
                raise
            self._synchronised = True
            return value

    def query_line(self, command: str) -> str:
        """Return the one-line answer to `command`, which must not change the instrument."""
        return self.query(command, lambda lines: lines[0])

    def write(self, command: str) -> None:
        """Send `command`, which has no answer."""
        for last in (False, True):
            self._get_ready(command, mutates=True, sent=False)
            try:
                self._connection.send(self._encoded(command))
            except ConnectionLost as error:
                if last or error.sent:
                    self._raise_failure(command, [], error, mutates=error.sent)
            else:
                return

    def send_without_reply(self, commands: Sequence[str]) -> None:
        """Send absolute commands twice without waiting for answers; see `Transport`.

        Takes at most one opening and one write.
        """
        # Twice: the instrument may take the first one as the end of an incomplete line, or it may be lost, as answers
        # are.
        lines = [self._encoded(command) for command in (*commands, *commands)]
        self._synchronised = False
        for last in (False, True):
            try:
                if self._connection.lost:
                    self._reconfiguration.require()
                    self._connection.reopen()
                for line in lines:
                    self._connection.send(line)
            except ConnectionLost as error:
                if last or error.sent:
                    self._raise_failure(commands[0], [], error, mutates=error.sent)
            else:
                return

    def identity(self) -> str:
        """Send the identification query and return its answer; this resynchronises both sides."""
        self._synchronised = False
        for left in reversed(range(1 + self._dialect.retries)):
            try:
                self._get_ready(self._dialect.id_query, mutates=False, sent=False)
            except DeviceError as error:
                if error.code != "transport" or not left:
                    raise
            else:
                break
        return self._identity

    def pop_unsolicited(self) -> list[str]:
        """Return and forget the unsolicited lines that have arrived, oldest first."""
        self._take_unsolicited()
        lines = list(self._unsolicited)
        self._unsolicited.clear()
        return lines

    def on_reconnect(self, configure: Callable[[], None]) -> None:
        """Call `configure` whenever the instrument was lost and reconnected, before anything else is sent."""
        self._reconfiguration.set_configure(configure)

    def close(self) -> None:
        """Close the connection. Closing twice is harmless."""
        self._connection.close()

    def learn_identity(self) -> None:
        """Send the identification query for the first time, and keep its answer for resynchronising."""
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
                        self._identity, self._synchronised = line, True
                        return
                    last = line
                    if dialect.is_unsolicited(line):
                        self._unsolicited.append(line)
            except ConnectionLost as error:
                raise DeviceError("transport", f"{self._name}: connection lost: {error.reason}", retryable=True) from None
            except ValueError as error:
                last = str(error)
            except ReadTimeout as error:
                last = _printable(error.received) if error.received else last
        failure = f"answered {last!r} to" if last else "did not answer"
        raise DeviceError(
            "transport",
            f"{self._name} {failure} {dialect.id_query!r}, {_FIRST_TRIES} times within {dialect.timeout_s:g} s each: "
            "check the address, and that the instrument is switched on",
            retryable=True,
        )

    def _get_ready(self, command: str, mutates: bool, sent: bool) -> None:
        """Reopen, resynchronise and reconfigure as needed.

        `sent`: an earlier try of `command` may have reached the instrument.
        """
        reopened = self._restore_connection(command, "unknown" if mutates and sent else "not_applied")
        if self._reconfiguration.running:
            if reopened:  # configuring must not start again within itself, without an end
                raise DeviceError(
                    "transport",
                    f"{self._name} was lost again while it was being configured, before {_shortened(command)!r}",
                    retryable=True,
                    outcome="unknown",
                )
            return
        if reopened or self._reconfiguration.due:
            self._reconfiguration.run()
            if mutates:
                raise DeviceError(
                    "device",
                    f"{self._name} was lost and reconnected before {_shortened(command)!r}: "
                    "it may have been restarted, so everything must be set again",
                    retryable=True,
                    outcome="unknown",
                )

    def _restore_connection(self, command: str, outcome: Outcome) -> bool:
        """Reopen a lost connection and resynchronise, before `command`; return whether it was reopened."""
        try:
            self._take_unsolicited()
            reopened = self._connection.lost or (self._late_identity_possible and self._connection.fresh_when_reopened)
            if reopened:
                self._reconfiguration.require()
                self._connection.reopen()
                self._synchronised = self._late_identity_possible = False
            if not self._synchronised:
                self._resynchronise(fresh=reopened and self._connection.fresh_when_reopened)
        except ConnectionLost as error:
            raise DeviceError(
                "transport",
                f"{self._name}: connection lost before {_shortened(command)!r}: {error.reason}",
                retryable=True,
                outcome=outcome,
            ) from None
        except ReadTimeout as error:
            partial = f", it sent only {_printable(error.received)!r}" if error.received else ""
            raise DeviceError(
                "transport",
                f"{self._name} did not answer {self._dialect.id_query!r} within {self._dialect.timeout_s:g} s{partial} "
                f"when it was resynchronised before {_shortened(command)!r}",
                retryable=True,
                outcome=outcome,
            ) from None
        return reopened

    def _resynchronise(self, *, fresh: bool) -> None:
        """Send the identification query and read until its known answer.

        On a `fresh` connection no other answer can be late.
        """
        dialect = self._dialect
        if self._late_identity_possible:
            self._connection.discard_until_quiet(dialect.timeout_s, 5 * dialect.timeout_s)
        self._connection.clear()
        was_possible, self._late_identity_possible = self._late_identity_possible, True
        self._connection.send(self._encoded(dialect.id_query))
        deadline_s = self._clock.now_s() + dialect.timeout_s
        while True:
            try:
                line = self._next_line(deadline_s)
            except ValueError:
                continue  # an invalid line is a late one as well; the deadline still holds
            if line == self._identity:
                break
            if dialect.is_unsolicited(line):
                self._unsolicited.append(line)
            elif fresh and re.fullmatch(dialect.id_pattern, line):
                raise DeviceError(
                    "device",
                    f"{self._name} is a different instrument now: it answers {line!r} to {dialect.id_query!r} "
                    f"instead of {self._identity!r}",
                    outcome="unknown",
                )
        if was_possible:
            self._connection.discard_until_quiet(dialect.timeout_s / 4, dialect.timeout_s)
        self._late_identity_possible, self._synchronised = False, True

    def _read(self, received: list[str], count: int, timeout_s: float) -> None:
        """Append lines to `received` until there are `count`; for 0, until none arrives for a tenth of the timeout."""
        deadline_s = self._clock.now_s() + timeout_s
        while not count or len(received) < count:
            quiet_s = self._clock.now_s() + self._dialect.timeout_s / 10
            try:
                line = self._next_line(deadline_s if count or not received else min(deadline_s, quiet_s))
            except ReadTimeout as error:
                if received and not count and not error.received:
                    return
                raise
            if self._dialect.is_unsolicited(line):
                self._unsolicited.append(line)
                # An error report may replace the answer, so the rest of the answer is given only a short time.
                deadline_s = min(deadline_s, self._clock.now_s() + self._dialect.timeout_s / 10)
            else:
                received.append(line)

    def _next_line(self, deadline_s: float) -> str:
        # A line that arrived in time is used even if this process reads it late, but an endless flow of lines must end.
        if self._clock.now_s() > deadline_s + self._dialect.timeout_s:
            raise ReadTimeout
        return self._decoded(self._connection.read_line(self._dialect.read_termination.encode(), deadline_s))

    def _take_unsolicited(self) -> None:
        """Keep the lines that arrived since the last answer.

        One that is not known to be unsolicited means: not synchronised.
        """
        while self._connection.has_unread():
            try:
                line = self._next_line(self._clock.now_s() + self._dialect.timeout_s / 10)
            except (ReadTimeout, ValueError, ConnectionLost):
                self._synchronised = False
                return
            self._synchronised = self._synchronised and (self._dialect.is_unsolicited(line) or not line)
            if line:
                self._unsolicited.append(line)

    def _encoded(self, command: str) -> bytes:
        return (command + self._dialect.write_termination).encode("ascii")

    def _decoded(self, line: bytes) -> str:
        try:
            return line.decode("ascii").strip(" \r\n\t\0")
        except UnicodeDecodeError:
            raise ValueError(f"{_printable(line)!r} is not text") from None

    def _raise_failure(
        self, command: str, received: list[str], error: Exception, *, mutates: bool, wait_s: float = 0.0
    ) -> NoReturn:
        if isinstance(error, ConnectionLost):
            detail = f"{self._name}: connection lost at {_shortened(command)!r}: {error.reason}"
        elif isinstance(error, ReadTimeout):
            parts = ", ".join([*map(repr, received), *([repr(_printable(error.received))] if error.received else [])])
            partial = f", it sent only {_shortened(parts)}" if parts else ""
            detail = f"{self._name} did not answer {_shortened(command)!r} within {self._dialect.timeout_s + wait_s:g} s{partial}"
        else:
            answer = f"answered {_shortened(', '.join(received))!r}" if received else "sent an answer"
            detail = f"{self._name} {answer} to {_shortened(command)!r}, which is invalid: {error}"
        raise DeviceError("transport", detail, retryable=True, outcome="unknown" if mutates else "not_applied") from None


def _printable(data: bytes) -> str:
    return _shortened(data.decode("ascii", "backslashreplace"))


def _shortened(text: str) -> str:
    return text if len(text) <= 80 else f"{text[:60]}… ({len(text)} characters)"
