"""Words of the QDAC-II: lists of channels, what ends a list, what brings a channel to 0 V. Channels are counted from 0 here."""

from __future__ import annotations

from collections.abc import Sequence


def at(channels: Sequence[int]) -> str:
    """Return channels as the instrument's list of them, neighbours as a range: (@1:3,7)."""
    parts: list[list[int]] = []
    for number in (channel + 1 for channel in channels):
        if parts and number == parts[-1][-1] + 1:
            parts[-1] = [parts[-1][0], number]
        else:
            parts.append([number])
    return f"(@{','.join(':'.join(map(str, part)) for part in parts)})"


def stopped(channels: Sequence[int]) -> list[str]:
    """Return what ends lists: the channels are in fixed mode then, and hear no trigger."""
    where = at(channels)
    return [f"sour:dc:init:cont off,{where}", f"sour:dc:abor {where}", f"sour:volt:mode fix,{where}"]


def zero(channel: int) -> list[str]:
    """Return what brings one channel to 0 V whatever it does, without a list of channels."""
    number = channel + 1
    return [f"sour{number}:dc:init:cont off", f"sour{number}:dc:abor", f"sour{number}:volt:mode fix", f"sour{number}:volt 0"]


def words(lines: list[str], count: int) -> list[str]:
    """Return the answers to `count` joined questions; ValueError where there are more or fewer."""
    found = [word.strip() for word in lines[0].split(";")]
    if len(found) != count:
        raise ValueError(f"{len(found)} values where {count} are due")
    return found
