"""Commands of instruments described by a table: text with a few named placeholders, checked before use.

set = "VOLT {volts},(@{channel})"          one command per channel, joined
query_volts = "VOLT? (@{channels})"        one command for all channels, answered with commas
query_volts = "SOUR{channel}:VOLT?"        one command per channel, joined, answered with semicolons
"""

from __future__ import annotations

import string
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from photonloop.drivers.helpers import scpi
from photonloop.drivers.transports.interfaces import Transport
from photonloop.protocols.config import ConfigError, read_toml, suggestion

TABLE_FOLDER = Path(__file__).parents[1] / "tables"


def check_template(template: str, allowed: set[str], needed: set[str] | None = None) -> None:
    """Raise ValueError unless `template` uses only placeholders in `allowed`, and at least one of those in `needed`."""
    try:
        fields = [
            (name, spec, conversion) for _, name, spec, conversion in string.Formatter().parse(template) if name is not None
        ]
    except ValueError as error:
        raise ValueError(f"{template!r} is not a template: {error}") from None
    for name, spec, conversion in fields:
        if name not in allowed:
            known = f"only {_listed(allowed)} can be used here" if allowed else "none can be used here"
            raise ValueError(f"{template!r} has the placeholder {{{name}}}; {known}")
        if spec or conversion:
            raise ValueError(f"{template!r} formats the placeholder {{{name}}}; write it without a format or conversion")
    if needed and not needed & {name for name, _, _ in fields}:
        raise ValueError(f"{template!r} lacks the placeholder {_listed(needed)}")


def set_commands(template: str, numbers: Sequence[int], values: Sequence[float], placeholder: str) -> list[str]:
    """Return one command per channel, with `values` inserted at `placeholder`."""
    return [
        template.format(channel=number, **{placeholder: scpi.decimal(value)})
        for number, value in zip(numbers, values, strict=True)
    ]


def query_commands(template: str, numbers: Sequence[int]) -> list[str]:
    """Return the queries for `numbers`: one for all channels if the template has {channels}, else one per channel."""
    if "{channels}" in template:
        return [template.format(channels=",".join(map(str, numbers)))]
    return [template.format(channel=number) for number in numbers]


def answer_count(template: str, count: int) -> int:
    """Return how many answers, separated by semicolons, the joined queries for `count` channels get."""
    return 1 if "{channels}" in template else count


def parse_numbers(template: str, answer: str, count: int) -> NDArray[np.float64]:
    """Return the numbers of `count` channels in a joined answer, shape (count,)."""
    return scpi.numbers(answer, count, "," if "{channels}" in template else ";")


def query_numbers(
    transport: Transport, template: str, numbers: Sequence[int], *, joins: bool, wait_s: float = 0.0
) -> NDArray[np.float64]:
    """Return one number per channel, shape (channels,): in one exchange if the instrument takes joined commands."""
    count, commands = len(numbers), query_commands(template, numbers)
    if joins or len(commands) == 1:
        message = scpi.joined(commands) if joins else commands[0]
        return transport.query(message, lambda lines: parse_numbers(template, lines[0], count), wait_s=wait_s)
    return np.array([transport.query(command, lambda lines: scpi.number(lines[0]), wait_s=wait_s) for command in commands])


def with_table(settings: dict[str, Any], folder: Path) -> dict[str, Any]:
    """Return `settings` merged over the table named by their key `table`.

    The table is a TOML file relative to `folder`, where the station file is, or a table shipped with this package. Keys
    in `settings` take precedence.

    Raises
    ------
    ConfigError
        There is no such table, or it is not TOML.
    """
    if "table" not in settings:
        return settings
    name = settings["table"]
    if not isinstance(name, str):
        raise ConfigError(f"table is {name!r}, but should be the path of a TOML file or the name of a shipped table")
    if name.endswith(".toml"):
        path = folder / name
    else:
        shipped = {path.stem: path for path in TABLE_FOLDER.glob("*.toml")}
        if name not in shipped:
            raise ConfigError(f"there is no shipped table {name!r}{suggestion(name, list(shipped))}")
        path = shipped[name]
    own = {key: value for key, value in settings.items() if key != "table"}
    return {**read_toml(path, "instrument table"), **own}


def _listed(names: set[str]) -> str:
    return " or ".join(f"{{{name}}}" for name in sorted(names))
