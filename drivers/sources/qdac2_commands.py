"""Command texts of the QDAC-II. Channels are counted from 0 here, from 1 in the instrument."""

from __future__ import annotations

from collections.abc import Sequence


def channel_list(channels: Sequence[int]) -> str:
    """Return channels as the instrument's list of them, with neighbours as a range: (@1:3,7)."""
    parts: list[list[int]] = []
    for number in (channel + 1 for channel in channels):
        if parts and number == parts[-1][-1] + 1:
            parts[-1] = [parts[-1][0], number]
        else:
            parts.append([number])
    return f"(@{','.join(':'.join(map(str, part)) for part in parts)})"


def fixed_mode_commands(channels: Sequence[int]) -> list[str]:
    """Return the commands that end lists: the channels are in fixed mode then and ignore triggers."""
    listed = channel_list(channels)
    return [f"sour:dc:init:cont off,{listed}", f"sour:dc:abor {listed}", f"sour:volt:mode fix,{listed}"]


def zero_commands(channel: int) -> list[str]:
    """Return the commands that bring one channel to 0 V in any mode, without a channel list."""
    number = channel + 1
    return [f"sour{number}:dc:init:cont off", f"sour{number}:dc:abor", f"sour{number}:volt:mode fix", f"sour{number}:volt 0"]


def split_answers(lines: list[str], count: int) -> list[str]:
    """Return the answers to `count` joined queries; ValueError if there are more or fewer."""
    answers = [answer.strip() for answer in lines[0].split(";")]
    if len(answers) != count:
        raise ValueError(f"{len(answers)} values instead of {count}")
    return answers
