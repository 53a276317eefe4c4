"""Parse SCPI messages: joined commands, long and short forms, numbers with units, channel lists. Pure functions.

Source: SCPI-1999 volume 1, chapters 6 and 7, and IEEE 488.2 for common commands.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

ERRORS = {
    0: "No error",
    -100: "Command error",
    -102: "Syntax error",
    -104: "Data type error",
    -108: "Parameter not allowed",
    -109: "Missing parameter",
    -113: "Undefined header",
    -114: "Header suffix out of range",
    -131: "Invalid suffix",
    -200: "Execution error",
    -211: "Trigger ignored",
    -213: "Init ignored",
    -214: "Trigger deadlock",
    -221: "Settings conflict",
    -222: "Data out of range",
    -224: "Illegal parameter value",
    -230: "Data corrupt or stale",
    -240: "Hardware error",
    -310: "System error",
    -350: "Queue overflow",
    -363: "Input buffer overrun",
    -410: "Query INTERRUPTED",
    -420: "Query UNTERMINATED",
}


def error_text(code: int) -> str:
    """Return the standard's text for an error."""
    return ERRORS.get(code, "Device-specific error")


_NODE = re.compile(r"(\[?):?([A-Za-z]+)(#?)(\]?)")
_MNEMONIC = re.compile(r"([A-Za-z][A-Za-z_]*)(\d*)")
_NUMBER = re.compile(r"([+-]?(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?)\s*([A-Za-z]*)")


class ScpiError(Exception):
    """A command that an instrument refuses; `code` goes to its error queue."""

    def __init__(self, code: int) -> None:
        super().__init__(error_text(code))
        self.code = code


@dataclass(frozen=True)
class Header:
    """The header of a command: mnemonics in upper case without numbers, and the number after each (-1: none)."""

    mnemonics: tuple[str, ...]
    suffixes: tuple[int, ...]


def split_commands(text: str) -> list[str]:
    """Split a line into commands at each ";" outside quotation marks."""
    if '"' not in text and "'" not in text:
        return text.split(";")
    parts, quote, start = [], "", 0
    for i, character in enumerate(text):
        if quote:
            quote = "" if character == quote else quote
        elif character in "\"'":
            quote = character
        elif character == ";":
            parts.append(text[start:i])
            start = i + 1
    return [*parts, text[start:]]


def split_arguments(text: str) -> tuple[str, ...]:
    """Split the arguments of a command at commas outside parentheses and quotation marks."""
    text = text.strip()
    if not text:
        return ()
    if "(" not in text and '"' not in text and "'" not in text:
        return tuple(part.strip() for part in text.split(","))
    parts, depth, quote, start = [], 0, "", 0
    for i, character in enumerate(text):
        if quote:
            quote = "" if character == quote else quote
        elif character in "\"'":
            quote = character
        elif character in "()":
            depth += 1 if character == "(" else -1
        elif character == "," and depth == 0:
            parts.append(text[start:i].strip())
            start = i + 1
    return (*parts, text[start:].strip())


def parse_header(text: str) -> Header:
    """Parse a header such as "SOUR2:VOLT", ":SOUR2:VOLT" or "*IDN", without question mark; ScpiError -102."""
    if text.startswith("*"):
        return Header((text.upper(),), (-1,))
    mnemonics, suffixes = [], []
    for part in text.removeprefix(":").split(":"):
        match = _MNEMONIC.fullmatch(part)
        if match is None:
            raise ScpiError(-102)
        mnemonics.append(match[1].upper())
        suffixes.append(int(match[2]) if match[2] else -1)
    return Header(tuple(mnemonics), tuple(suffixes))


def spellings(pattern: str) -> dict[tuple[str, ...], tuple[int, ...]]:
    """Return every spelling of `pattern`, each with the positions of the nodes that may have a number.

    A pattern is written as in manuals, such as "[SENSe:]POWer:RANGe[:UPPer]": upper case for the short form, brackets
    around optional nodes, "#" after a node that may have a channel number ("SOURce#:VOLTage"). Common commands such as
    "*IDN" have one spelling.
    """
    if pattern.startswith("*"):
        return {(pattern.upper(),): ()}
    nodes = []
    for match in _NODE.finditer(pattern.replace(":]", "]")):
        long = match[2]
        short = "".join(itertools.takewhile(str.isupper, long))
        nodes.append(({short, long.upper()}, bool(match[3]), bool(match[1])))
    found: dict[tuple[str, ...], tuple[int, ...]] = {}
    for kept in itertools.product(*([True, False] if optional else [True] for _, _, optional in nodes)):
        here = [node for node, keep in zip(nodes, kept, strict=True) if keep]
        numbered = tuple(i for i, (_, number, _) in enumerate(here) if number)
        for words in itertools.product(*(sorted(forms) for forms, _, _ in here)):
            found.setdefault(words, numbered)
    return found


def number(
    text: str,
    *,
    low: float = float("-inf"),
    high: float = float("inf"),
    default: float | None = None,
    units: Mapping[str, float] | None = None,
) -> float:
    """Parse a number; return it in the instrument's unit.

    Parameters
    ----------
    text
        A number with an optional suffix, or MIN, MAX, DEF or INF.
    low, high
        Bounds, which MIN and MAX stand for.
    default
        The number that DEF stands for.
    units
        Factor of each suffix, in upper case.

    Raises
    ------
    ScpiError
        -104 (not a number), -131 (unknown suffix), -222 (out of bounds), -224 (MIN, MAX or DEF is not defined).
    """
    word = text.upper()
    named = {"MIN": low, "MINIMUM": low, "MAX": high, "MAXIMUM": high, "DEF": default, "DEFAULT": default}
    if word in named:
        value = named[word]
        if value is None or value in {float("-inf"), float("inf")}:
            raise ScpiError(-224)
        return value
    if word in {"INF", "INFINITY"}:
        value = float("inf")
    else:
        match = _NUMBER.fullmatch(text.strip())
        if match is None:
            raise ScpiError(-104)
        value = float(match[1])
        if match[2]:
            factor = (units or {}).get(match[2].upper())
            if factor is None:
                raise ScpiError(-131)
            value *= factor
    if not low <= value <= high:
        raise ScpiError(-222)
    return value


def boolean(text: str) -> bool:
    """Parse ON, OFF, 1 or 0; ScpiError -224 for other words."""
    value = {"ON": True, "1": True, "OFF": False, "0": False}.get(text.upper())
    if value is None:
        raise ScpiError(-224)
    return value


def choice(text: str, known: Sequence[str]) -> str:
    """Parse one of the words `known` ("BUS", "IMMediate"); return its long form in capitals. ScpiError -224 if none."""
    for word in known:
        short = "".join(itertools.takewhile(lambda c: c.isupper() or c.isdigit(), word))
        if text.upper() in {short, word.upper()}:
            return word.upper()
    raise ScpiError(-224)


def channel_list(text: str) -> tuple[int, ...]:
    """Parse a channel list such as "(@101:103,110)", keeping its order; ScpiError -102 for other texts."""
    match = re.fullmatch(r"\(\s*@\s*(.*?)\s*\)", text)
    if match is None:
        raise ScpiError(-102)
    found: list[int] = []
    for part in match[1].split(",") if match[1] else []:
        ends = [end.strip() for end in part.split(":")]
        if len(ends) > 2 or not all(end.isdecimal() for end in ends):
            raise ScpiError(-102)
        first, last = int(ends[0]), int(ends[-1])
        step = 1 if last >= first else -1
        found.extend(range(first, last + step, step))
    return tuple(found)
