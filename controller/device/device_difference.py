"""Whether a device is the one that was there before: the same, another chip that the variables fit, or neither.

Variables are nominal heater phases of one chip. On a device of other ports, drives or limits they mean something else, or are
refused; on another chip of the same shape they mean the same and reach less, until learning has gone on there.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Any

from photonloop.protocols.device import DeviceDescription

_SHAPE = ("input_ports", "stages.*", "drive.*", "limits.*")
"""What decides over the meaning of variables and over what may be sent."""

_NOT_SHAPE = ("stages.*.name", "drive.bits", "drive.range_v", "drive.settle_s", "limits.slew_v_per_s", "limits.max_*")
"""Of these, what does not: how finely, how fast, in what portions."""

_NO_MATTER = ("clock",)
"""The same chip served in real time is the same chip."""

_LONGEST = 40


@dataclass(frozen=True)
class Difference:
    """How a device differs from the one that was there before.

    Parameters
    ----------
    fits
        True where variables mean the same on both.
    told
        The first difference, for people: "limits.voltage_v is 8.0 and was 10.8".
    """

    fits: bool
    told: str


def difference(before: DeviceDescription, now: DeviceDescription) -> Difference | None:
    """Return how `now` differs from `before`, the gravest first; None where it is the same device."""
    found = [
        Difference(fits=not _is_shape(path), told=told)
        for path, told in _differences("", before.model_dump(), now.model_dump())
        if path not in _NO_MATTER
    ]
    return min(found, key=lambda each: each.fits, default=None)


def _is_shape(path: str) -> bool:
    def among(patterns: tuple[str, ...]) -> bool:
        return any(fnmatchcase(path, pattern) for pattern in patterns)

    return among(_SHAPE) and not among(_NOT_SHAPE)


def _differences(path: str, before: Any, now: Any) -> Iterator[tuple[str, str]]:
    if isinstance(before, dict) and isinstance(now, dict):
        for key in dict.fromkeys((*before, *now)):
            yield from _differences(f"{path}.{key}" if path else str(key), before.get(key), now.get(key))
    elif path == "stages" and len(before) == len(now):
        for number, (old, new) in enumerate(zip(before, now, strict=True)):
            yield from _differences(f"{path}.{number}", old, new)
    elif path == "stages":
        yield f"{path}.*", f"it has {len(now)} stages and had {len(before)}"
    elif before != now:
        words = [_words(value) for value in (now, before)]
        short = max(map(len, words)) <= _LONGEST
        yield path, f"{path} is {words[0]} and was {words[1]}" if short else f"{path} is not what it was"


def _words(value: Any) -> str:
    return "absent" if value is None else str(value)
