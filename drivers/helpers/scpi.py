"""Words of SCPI (SCPI-99, IEEE 488.2) that several instruments share."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

import numpy as np
from numpy.typing import NDArray

from photonloop.drivers.instrument import Identity
from photonloop.drivers.transports.transport import Transport
from photonloop.protocols.errors import DeviceError

_INFINITY = 9.9e37
"""SCPI's infinity: how an overload is reported."""

_LONGEST_QUEUE = 64
"""Errors read from one queue before giving up on its end."""


def joined(commands: Iterable[str]) -> str:
    """Return commands as one message; the colon sends the instrument back to the root after each semicolon."""
    return ";".join(command if command.startswith((":", "*")) else f":{command}" for command in commands)


def identity(answer: str) -> Identity:
    """Return the answer to *IDN? taken apart."""
    vendor, model, serial, firmware, *_ = [*(part.strip() for part in answer.split(",")), "", "", "", ""]
    return Identity(vendor, model, serial, firmware)


def number(text: str) -> float:
    """Return a number, SCPI's 9.9E37 as infinity; ValueError for anything else, NaN included."""
    value = float(text)
    if math.isnan(value) or abs(value) >= 9.91e37:  # 9.91E37 is SCPI's NaN
        raise ValueError(f"{text!r} is not a number")
    return math.copysign(math.inf, value) if abs(value) >= _INFINITY else value


def numbers(text: str, count: int, separator: str = ",") -> NDArray[np.float64]:
    """Return `count` numbers, shape (count,); ValueError where there are more, fewer or others."""
    parts = text.split(separator)
    if len(parts) != count:
        raise ValueError(f"{len(parts)} values where {count} are due")
    return np.array([number(part) for part in parts])


def decimal(value: float) -> str:
    """Return `value` as instruments read it: nine digits, no locale, no negative zero."""
    return f"{value + 0.0:.9g}"


def complaint(answer: str) -> str:
    """Return what SYST:ERR? answered where it is an error, empty where there is none; ValueError where it is neither."""
    code, _, _ = answer.partition(",")
    return "" if int(code) == 0 else answer.strip()


def set_and_check(transport: Transport, commands: Sequence[str], error_query: str, *, wait_s: float = 0.0) -> None:
    """Send absolute settings and the question for errors as one message.

    Raises
    ------
    DeviceError
        "device" where the instrument complains: some of the settings may have been taken.
    """
    text = transport.query(joined([*commands, error_query]), lambda lines: complaint(lines[0]), mutates=True, wait_s=wait_s)
    if text:
        # The rest of the queue belongs to these commands as well, and must not be taken for complaints of the next.
        texts = [text, *_queue(transport, error_query)]
        raise DeviceError(
            "device",
            f"{transport.name} complained after {shortened(commands)!r}: {'; '.join(texts)}",
            outcome="unknown",
        )


def raise_complaints(transport: Transport, error_query: str) -> None:
    """Empty the queue of errors and raise all there was as one "device" error."""
    if texts := _queue(transport, error_query):
        raise DeviceError("device", f"{transport.name} complains: {'; '.join(texts)}", retryable=True, outcome="unknown")


def forget_complaints(transport: Transport, error_query: str) -> list[str]:
    """Empty the queue of errors and return what was in it: somebody else's, before this driver came."""
    return _queue(transport, error_query)


def _queue(transport: Transport, error_query: str) -> list[str]:
    texts: list[str] = []
    while len(texts) < _LONGEST_QUEUE:
        # Not repeated after a silence: an error that was told and lost on the way is gone, and its loss is told instead.
        text = transport.query(error_query, lambda lines: complaint(lines[0]), retries=0)
        if not text:
            break
        texts.append(text)
    return texts


def shortened(commands: Sequence[str]) -> str:
    """Return commands as a person wants to read them in an error."""
    text = joined(commands)
    return text if len(text) <= 80 else f"{text[:60]}… ({len(commands)} commands)"
