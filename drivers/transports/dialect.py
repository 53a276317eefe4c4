"""How an instrument communicates: line ends, timeout, identification, unsolicited lines."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True)
class Dialect:
    """Line ends, timing and identification of an instrument.

    Parameters
    ----------
    write_termination, read_termination
        Line ends of commands and of answers.
    timeout_s
        Time allowed for one answer.
    retries
        Number of repetitions of a query after a timeout or an invalid answer.
    id_query
        A query that changes nothing and whose answer never changes.
    id_pattern
        Regular expression that the whole answer to `id_query` matches.
    is_unsolicited
        Returns whether a line is one that may come at any time without being an answer.
    baud
        Baud rate of serial ports: 8 bits, no parity, one stop bit.
    """

    write_termination: str = "\n"
    read_termination: str = "\n"
    timeout_s: float = 2.0
    retries: int = 1
    id_query: str = "*IDN?"
    id_pattern: str = r"[^,]+,[^,]+,.+"
    is_unsolicited: Callable[[str], bool] = lambda _line: False
    baud: int = 115200
