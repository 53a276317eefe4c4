"""SCPI (SCPI-99, IEEE 488.2) messages that several instruments share."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

import numpy as np
from numpy.typing import NDArray

from photonloop.drivers.instrument import Identity
from photonloop.drivers.transports.interfaces import Transport
from photonloop.protocols.errors import DeviceError

_INFINITY = 9.9e37
"""SCPI's infinity: how an overload is reported."""

_MAX_ERRORS = 64
"""Errors read from one queue before this module stops reading it."""


def joined(commands: Iterable[str]) -> str:
    """Return commands as one message; the colon after each semicolon returns to the root of the command tree."""
    return ";".join(command if command.startswith((":", "*")) else f":{command}" for command in commands)


def identity(answer: str) -> Identity:
    """Return the answer to *IDN? as an `Identity`."""
    vendor, model, serial, firmware, *_ = [*(part.strip() for part in answer.split(",")), "", "", "", ""]
    return Identity(vendor, model, serial, firmware)


def number(text: str) -> float:
    """Return a number, SCPI's 9.9E37 as infinity; ValueError for anything else, NaN included."""
    value = float(text)
    if math.isnan(value) or abs(value) >= 9.91e37:  # 9.91E37 is SCPI's NaN
        raise ValueError(f"{text!r} is not a number")
    return math.copysign(math.inf, value) if abs(value) >= _INFINITY else value


def numbers(text: str, count: int, separator: str = ",") -> NDArray[np.float64]:
    """Return `count` numbers, shape (count,); ValueError if there are more or fewer, or if a value is not a number."""
    parts = text.split(separator)
    if len(parts) != count:
        raise ValueError(f"{len(parts)} values instead of {count}")
    return np.array([number(part) for part in parts])


def decimal(value: float) -> str:
    """Return `value` as instruments read it: nine digits, no locale, no negative zero."""
    return f"{value + 0.0:.9g}"


def parse_error(answer: str) -> str:
    """Return the answer to SYST:ERR? if it is an error, "" if it is "no error"; ValueError if it is neither."""
    code, _, _ = answer.partition(",")
    return "" if int(code) == 0 else answer.strip()


def set_and_check(transport: Transport, commands: Sequence[str], error_query: str, *, wait_s: float = 0.0) -> None:
    """Send absolute settings and the error query as one message.

    Raises
    ------
    DeviceError
        "device" if the instrument reports an error; some of the settings may have been applied.
    """
    text = transport.query(joined([*commands, error_query]), lambda lines: parse_error(lines[0]), mutates=True, wait_s=wait_s)
    if text:
        # The rest of the queue belongs to these commands as well. It must not be attributed to the next ones.
        texts = [text, *read_errors(transport, error_query)]
        raise DeviceError(
            "device",
            f"{transport.name} reported an error after {shortened(commands)!r}: {'; '.join(texts)}",
            outcome="unknown",
        )


def raise_errors(transport: Transport, error_query: str) -> None:
    """Empty the error queue; raise all errors that were in it as one "device" error."""
    if texts := read_errors(transport, error_query):
        raise DeviceError("device", f"{transport.name} reports an error: {'; '.join(texts)}", retryable=True, outcome="unknown")


def read_errors(transport: Transport, error_query: str) -> list[str]:
    """Empty the error queue and return the errors that were in it, oldest first."""
    texts: list[str] = []
    while len(texts) < _MAX_ERRORS:
        # Not repeated after a timeout: reading removes an error from the queue, so if the answer was lost, a repeated
        # query would hide that error. The timeout is raised instead.
        text = transport.query(error_query, lambda lines: parse_error(lines[0]), retries=0)
        if not text:
            break
        texts.append(text)
    return texts


def shortened(commands: Sequence[str]) -> str:
    """Return commands as one message, cut if it is too long for an error text."""
    text = joined(commands)
    return text if len(text) <= 80 else f"{text[:60]}… ({len(commands)} commands)"
