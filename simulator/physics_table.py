"""The table of a chip's physics: every parameter with value, unit, bounds, meaning and source.

The source of a value is the comment beside it in the preset or chip file that states it; there is no second list to go stale.
Units are in the names of the parameters, meanings and bounds in their declaration.
"""

from __future__ import annotations

import json
import tomllib
from pathlib import Path
from typing import Any, NamedTuple

from pydantic import BaseModel
from pydantic.fields import FieldInfo

from photonloop.protocols.config import read_toml
from photonloop.simulator.parameters import PRESET_FOLDER, ChipParameters, is_file

_UNITS = {
    "db_per_hz": "dB/Hz",
    "a_per_w": "A/W",
    "v_per_s": "V/s",
    "rad_per_k": "rad/K",
    "rad": "rad",
    "ohm": "Ω",
    "lsb": "LSB",
    "bits": "bit",
    "db": "dB",
    "hz": "Hz",
    "v": "V",
    "w": "W",
    "a": "A",
    "k": "K",
    "m": "m",
    "s": "s",
}


class ParameterRow(NamedTuple):
    """One line of the table; `value` is None where the whole effect is absent."""

    effect: str
    parameter: str
    value: float | int | bool | str | None
    unit: str
    bounds: str
    meaning: str
    source: str


def physics_table(source: str, chip: ChipParameters) -> list[ParameterRow]:
    """Return the table of `chip`, loaded from `source` (a preset's name or a chip file's path)."""
    told = stated(source)
    rows = []
    for name, field in type(chip).model_fields.items():
        part = getattr(chip, name)
        if isinstance(part, BaseModel):
            rows += _part_rows(name, part, told)
        elif name == "faults":
            rows += [_fault_row(number, fault) for number, fault in enumerate(chip.faults)]
        elif name != "name":
            said = told.get(name, "chosen at the start" if part != field.default else "default")
            rows.append(ParameterRow("chip", name, part, "", _bounds(field), _meaning(field), said))
    return rows


def stated(source: str) -> dict[str, str]:
    """Return the source of every key that a preset or chip file states, by its dotted name; a file goes over its preset."""
    if not is_file(source):
        return comments((PRESET_FOLDER / f"{source}.toml").read_text(encoding="utf-8"), f"preset {source}")
    path = Path(source)
    base = read_toml(path, "chip file").get("preset")
    below = stated(base) if isinstance(base, str) else {}
    return {**below, **comments(path.read_text(encoding="utf-8"), f"chip file {path.name}")}


def comments(text: str, otherwise: str) -> dict[str, str]:
    """Return the comment beside every key of a TOML text by its dotted name; `otherwise` where there is none.

    What stands beside a table on one line (`dac = { bits = 8 }`) counts for all its keys.
    """
    table, found, tables = "", {}, tomllib.loads(text)
    for line in text.splitlines():
        code, said = _split_comment(line)
        if code.startswith("["):
            table = code.strip("[] ") + "."
        elif "=" in code:
            key = ".".join(part.strip().strip("\"'") for part in code.partition("=")[0].split("."))
            for name in _names(tables, table + key):
                found[name] = said or otherwise
    return found


def as_json(rows: list[ParameterRow], chip: ChipParameters) -> str:
    """Return the table as one JSON object."""
    return json.dumps({"chip": chip.name, "physics": [row._asdict() for row in rows]}, ensure_ascii=False)


def as_text(rows: list[ParameterRow]) -> str:
    """Return the table as lines of plain text."""
    head = ("effect", "parameter", "value", "unit", "source")
    cells = [head, *((row.effect, row.parameter, shown(row), row.unit, row.source) for row in rows)]
    widths = [max(len(line[column]) for line in cells) for column in range(4)]
    return "\n".join("  ".join((*(c.ljust(w) for c, w in zip(line, widths, strict=False)), line[4])).rstrip() for line in cells)


def shown(row: ParameterRow) -> str:
    """Return the value of a row as a person reads it."""
    if row.value is None:
        return "absent"
    return f"{row.value:.6g}" if isinstance(row.value, float) else str(row.value)


def _part_rows(name: str, part: BaseModel, told: dict[str, str]) -> list[ParameterRow]:
    if not any(key.startswith(f"{name}.") for key in told):
        return [ParameterRow(name, "", None, "", "", (type(part).__doc__ or "").partition("\n")[0], "")]
    rows = []
    for key, field in type(part).model_fields.items():
        value = getattr(part, key)
        said = told.get(f"{name}.{key}")
        if said is None and value == 0 and field.default == 0:
            rows.append(ParameterRow(name, key, None, _unit(key), _bounds(field), _meaning(field), ""))
        elif not key.startswith("max_") or said is not None:
            rows.append(ParameterRow(name, key, value, _unit(key), _bounds(field), _meaning(field), said or "default"))
    return rows


def _fault_row(number: int, fault: BaseModel) -> ParameterRow:
    what = fault.model_dump(exclude_defaults=True)
    kind = what.pop("kind")
    words = ", ".join(f"{key} {value:g}" for key, value in what.items())
    return ParameterRow("faults", f"faults.{number}", f"{kind} {words}".strip(), "", "", "", "chip file")


def _names(tables: dict[str, Any], key: str) -> list[str]:
    """Return `key`, or the keys of the table that it stands for."""
    value: Any = tables
    for part in key.split("."):
        value = value.get(part) if isinstance(value, dict) else None
    return [f"{key}.{name}" for name in value] if isinstance(value, dict) else [key]


def _split_comment(line: str) -> tuple[str, str]:
    """Return the code of a line and its comment; a # within quotes is none."""
    quote = ""
    for at, letter in enumerate(line):
        if quote:
            quote = "" if letter == quote else quote
        elif letter in "\"'":
            quote = letter
        elif letter == "#":
            return line[:at].strip(), line[at + 1 :].strip()
    return line.strip(), ""


def _unit(key: str) -> str:
    return next((unit for suffix, unit in _UNITS.items() if key == suffix or key.endswith(f"_{suffix}")), "")


def _meaning(field: FieldInfo) -> str:
    return " ".join((field.description or "").split())


def _bounds(field: FieldInfo) -> str:
    """Return the bounds of a field as an interval, "[0, 1)" say; nothing where it has none."""
    low, high = "(-∞", "∞)"
    for mark in field.metadata:
        low = next((f"{sign}{getattr(mark, name):g}" for name, sign in (("ge", "["), ("gt", "(")) if hasattr(mark, name)), low)
        high = next((f"{getattr(mark, name):g}{sign}" for name, sign in (("le", "]"), ("lt", ")")) if hasattr(mark, name)), high)
    return "" if (low, high) == ("(-∞", "∞)") else f"{low}, {high}"
