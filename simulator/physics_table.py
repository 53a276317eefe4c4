"""The table of a chip's physics: every parameter with value, unit, bounds, meaning and source.

The source of a value is the comment beside it in the preset or chip file. The unit is taken from the parameter's name,
and meaning and bounds from its declaration in `parameters`.
"""

from __future__ import annotations

import json
import tomllib
from pathlib import Path
from typing import Any, NamedTuple

from pydantic import BaseModel
from pydantic.fields import FieldInfo

from photonloop.protocols.config import read_toml
from photonloop.simulator.engine.feasibility import Feasibility
from photonloop.simulator.parameters import PRESET_FOLDER, ChipParameters, is_file

_UNITS = {
    "db_per_hz": "dB/Hz",
    "a_per_w": "A/W",
    "v_per_s": "V/s",
    "rad_per_k": "rad/K",
    "rad_per_pm": "rad/pm",
    "rad_per_nm": "rad/nm",
    "k_per_w": "K/W",
    "rad": "rad",
    "ohm": "Ω",
    "lsb": "LSB",
    "nm": "nm",
    "bits": "bit",
    "db": "dB",
    "hz": "Hz",
    "pm": "pm",
    "v": "V",
    "w": "W",
    "a": "A",
    "k": "K",
    "m": "m",
    "s": "s",
}


class ParameterRow(NamedTuple):
    """One row of the table; `value` is None if the effect is absent."""

    effect: str
    parameter: str
    value: float | int | bool | str | None
    unit: str
    bounds: str
    meaning: str
    source: str


def physics_table(source: str, chip: ChipParameters) -> list[ParameterRow]:
    """Return the table of `chip`, loaded from `source` (a preset's name or a chip file's path)."""
    sources = value_sources(source)
    rows = []
    for name, field in type(chip).model_fields.items():
        part = getattr(chip, name)
        if isinstance(part, BaseModel):
            rows += _part_rows(name, part, sources)
        elif name == "faults":
            rows += [_fault_row(number, fault) for number, fault in enumerate(chip.faults)]
        elif name != "name":
            value_source = sources.get(name, "given at start" if part != field.default else "default")
            rows.append(ParameterRow("chip", name, part, "", _bounds(field), _meaning(field), value_source))
    return rows


def value_sources(source: str) -> dict[str, str]:
    """Return the source of every value of a preset or chip file, by dotted key. A file overrides its preset."""
    if not is_file(source):
        return comments((PRESET_FOLDER / f"{source}.toml").read_text(encoding="utf-8"), f"preset {source}")
    path = Path(source)
    base = read_toml(path, "chip file").get("preset")
    below = value_sources(base) if isinstance(base, str) else {}
    return {**below, **comments(path.read_text(encoding="utf-8"), f"chip file {path.name}")}


def comments(text: str, otherwise: str) -> dict[str, str]:
    """Return the comment beside every key of a TOML text, by dotted key, or `otherwise` if it has none.

    The comment beside an inline table (`dac = { bits = 8 }`) applies to all its keys.
    """
    table, found, tables = "", {}, tomllib.loads(text)
    for line in text.splitlines():
        code, source = _split_comment(line)
        if code.startswith("["):
            table = code.strip("[] ") + "."
        elif "=" in code:
            key = ".".join(part.strip().strip("\"'") for part in code.partition("=")[0].split("."))
            for name in _names(tables, table + key):
                found[name] = source or otherwise
    return found


def as_json(rows: list[ParameterRow], chip: ChipParameters, feasibility: Feasibility | None = None) -> str:
    """Return the table as one JSON object, with the chip's feasibility and warnings if `feasibility` is given."""
    table: dict[str, Any] = {"chip": chip.name, "physics": [row._asdict() for row in rows]}
    if feasibility is not None:
        table |= {"feasibility": feasibility.as_dict(), "warnings": feasibility.warnings}
    return json.dumps(table, ensure_ascii=False)


def feasibility_text(feasibility: Feasibility) -> str:
    """Return the feasibility of a chip and its warnings as lines of plain text."""
    heat, light = feasibility.heat, feasibility.light
    lines = [
        f"At random phases the heaters take {heat.power_w:.3g} W and {heat.current_a:.3g} A, {heat.density_w_per_cm2:.3g} W/cm²."
    ]
    if light is not None:
        lines.append(f"The last stage gets {light.mean_a:.3g} A per detector, after a loss of {light.loss_db:.3g} dB.")
    return "\n".join((*lines, *(f"warning: {warning}" for warning in feasibility.warnings)))


def as_text(rows: list[ParameterRow]) -> str:
    """Return the table as lines of plain text."""
    head = ("effect", "parameter", "value", "unit", "source")
    cells = [head, *((row.effect, row.parameter, shown(row), row.unit, row.source) for row in rows)]
    widths = [max(len(line[column]) for line in cells) for column in range(4)]
    return "\n".join("  ".join((*(c.ljust(w) for c, w in zip(line, widths, strict=False)), line[4])).rstrip() for line in cells)


def shown(row: ParameterRow) -> str:
    """Return the value of a row as text."""
    if row.value is None:
        return "absent"
    return f"{row.value:.6g}" if isinstance(row.value, float) else str(row.value)


def _part_rows(name: str, part: BaseModel, sources: dict[str, str]) -> list[ParameterRow]:
    if not any(key.startswith(f"{name}.") for key in sources):
        return [ParameterRow(name, "", None, "", "", (type(part).__doc__ or "").partition("\n")[0], "")]
    rows = []
    for key, field in type(part).model_fields.items():
        value = getattr(part, key)
        source = sources.get(f"{name}.{key}")
        if source is None and value == 0 and field.default == 0:
            rows.append(ParameterRow(name, key, None, _unit(key), _bounds(field), _meaning(field), ""))
        elif not key.startswith("max_") or source is not None:
            rows.append(ParameterRow(name, key, value, _unit(key), _bounds(field), _meaning(field), source or "default"))
    return rows


def _fault_row(number: int, fault: BaseModel) -> ParameterRow:
    what = fault.model_dump(exclude_defaults=True)
    kind = what.pop("kind")
    words = ", ".join(f"{key} {value:g}" for key, value in what.items())
    return ParameterRow("faults", f"faults.{number}", f"{kind} {words}".strip(), "", "", "", "chip file")


def _names(tables: dict[str, Any], key: str) -> list[str]:
    """Return `key`, or the keys in it if it is a table."""
    value: Any = tables
    for part in key.split("."):
        value = value.get(part) if isinstance(value, dict) else None
    return [f"{key}.{name}" for name in value] if isinstance(value, dict) else [key]


def _split_comment(line: str) -> tuple[str, str]:
    """Return the code and the comment of a line. A # within quotes does not start a comment."""
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
    """Return the bounds of a field as an interval, for example "[0, 1)", or "" if it has none."""
    low, high = "(-∞", "∞)"
    for mark in field.metadata:
        low = next((f"{sign}{getattr(mark, name):g}" for name, sign in (("ge", "["), ("gt", "(")) if hasattr(mark, name)), low)
        high = next((f"{getattr(mark, name):g}{sign}" for name, sign in (("le", "]"), ("lt", ")")) if hasattr(mark, name)), high)
    return "" if (low, high) == ("(-∞", "∞)") else f"{low}, {high}"
