"""Commands of instruments that a small table describes: text with a few named places, checked before it is used.

set = "VOLT {volts},(@{channel})"          one command a channel, joined
query_volts = "VOLT? (@{channels})"        one command for all, answered with commas
query_volts = "SOUR{channel}:VOLT?"        one command a channel, joined, answered with semicolons
"""

from __future__ import annotations

import string
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from photonloop.drivers.helpers import scpi
from photonloop.drivers.transports.transport import Transport
from photonloop.protocols.config import ConfigError, read_toml, suggestion

TABLE_FOLDER = Path(__file__).parents[1] / "tables"


def checked(template: str, allowed: set[str], needed: set[str] | None = None) -> str:
    """Return `template` where its places are among `allowed` and each has one of `needed`; ValueError else."""
    try:
        fields = [
            (name, spec, conversion) for _, name, spec, conversion in string.Formatter().parse(template) if name is not None
        ]
    except ValueError as error:
        raise ValueError(f"{template!r} is no template: {error}") from None
    for name, spec, conversion in fields:
        if name not in allowed or spec or conversion:
            raise ValueError(f"{template!r} has the place {{{name}}}; only {_listed(allowed)} are known, without further signs")
    if needed and not needed & {name for name, _, _ in fields}:
        raise ValueError(f"{template!r} lacks {_listed(needed)}")
    return template


def commands(template: str, numbers: Sequence[int], values: Sequence[float], place: str) -> list[str]:
    """Return one command a channel, `values` put at `place`."""
    return [
        template.format(channel=number, **{place: scpi.decimal(value)}) for number, value in zip(numbers, values, strict=True)
    ]


def queries(template: str, numbers: Sequence[int]) -> list[str]:
    """Return what asks for `numbers`: one command for all where the template has {channels}, else one a channel."""
    if "{channels}" in template:
        return [template.format(channels=",".join(map(str, numbers)))]
    return [template.format(channel=number) for number in numbers]


def answers(template: str, count: int) -> int:
    """Return how many answers, separated by semicolons, the questions after `count` channels get where they are joined."""
    return 1 if "{channels}" in template else count


def numbers_in(template: str, answer: str, count: int) -> NDArray[np.float64]:
    """Return the numbers of `count` channels in a joined answer, shape (count,)."""
    return scpi.numbers(answer, count, "," if "{channels}" in template else ";")


def query_numbers(
    transport: Transport, template: str, numbers: Sequence[int], *, joins: bool, wait_s: float = 0.0
) -> NDArray[np.float64]:
    """Return one number a channel, shape (channels,): in one exchange where the instrument takes joined commands."""
    count, words = len(numbers), queries(template, numbers)
    if joins or len(words) == 1:
        message = scpi.joined(words) if joins else words[0]
        return transport.query(message, lambda lines: numbers_in(template, lines[0], count), wait_s=wait_s)
    return np.array([transport.query(word, lambda lines: scpi.number(lines[0]), wait_s=wait_s) for word in words])


def with_table(settings: dict[str, Any], folder: Path) -> dict[str, Any]:
    """Return `settings` put over the table that its key `table` names: a file beside the station, or a table shipped here.

    Raises
    ------
    ConfigError
        There is no such table, or it is not TOML.
    """
    if "table" not in settings:
        return settings
    name = settings["table"]
    if not isinstance(name, str):
        raise ConfigError(f"table is {name!r}, but should be the path of a TOML file or the name of a table that comes along")
    if name.endswith(".toml"):
        path = folder / name
    else:
        shipped = {path.stem: path for path in TABLE_FOLDER.glob("*.toml")}
        if name not in shipped:
            raise ConfigError(f"there is no table {name!r} among those that come along{suggestion(name, list(shipped))}")
        path = shipped[name]
    own = {key: value for key, value in settings.items() if key != "table"}
    return {**read_toml(path, "instrument table"), **own}


def _listed(names: set[str]) -> str:
    return " or ".join(f"{{{name}}}" for name in sorted(names))
