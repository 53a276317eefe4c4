"""The table of events of the report."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace

from photonloop.controller.report.display_text import duration_text, percent_text, thousands_text, time_text
from photonloop.controller.report.page_summary import layer_results
from photonloop.controller.report.run_contents import Event, RunContents, float_or_nan

_MAX_ROWS = 200

_LABELS = {
    "start": "started",
    "resume": "resumed",
    "stopped": "stopped",
    "warning": "warning",
    "device_lost": "device lost",
    "device_back": "device back",
    "layer_done": "layer trained",
    "result": "finished",
}

_FIELD_NAMES = {"data": "data SHA-256", "experiment": "experiment SHA-256"}

# Versions have their own table and clipped values their own sentence. A report may be shared, so it has no lease key.
_HIDDEN_FIELDS = frozenset({"event", "time", "versions", "lease_key", "clipped"})

_SHA256 = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True)
class EventRow:
    """Consecutive events with the same text, `count` of them; `time` is that of the first."""

    time: str
    label: str
    text: str
    count: int


@dataclass(frozen=True)
class EventTable:
    """The last rows of the table; `omitted` is the number of rows before them."""

    rows: tuple[EventRow, ...]
    omitted: int


def event_table(contents: RunContents) -> EventTable:
    """Return the events of the run except its epochs and probe steps."""
    rows: list[EventRow] = []
    for event in contents.of_kind(*_LABELS):
        row = EventRow(time_text(event.get("time", "")), _LABELS[event["event"]], _text(contents, event), 1)
        if rows and (rows[-1].label, rows[-1].text) == (row.label, row.text):
            rows[-1] = replace(rows[-1], count=rows[-1].count + 1)
        else:
            rows.append(row)
    omitted = max(len(rows) - _MAX_ROWS, 0)
    return EventTable(tuple(rows[omitted:]), omitted)


def _text(contents: RunContents, event: Event) -> str:
    if event["event"] == "layer_done":
        layer = event.get("layer")
        name = contents.layer_name(layer) if isinstance(layer, int) else str(event.get("name", ""))
        return f"{name}, test accuracy {percent_text(event.get('test_accuracy'))}"
    if event["event"] == "result":
        by_vote = " by vote" if len(layer_results(event)) > 1 else ""
        return f"test accuracy{by_vote} {percent_text(event.get('test_accuracy'))} after {duration_text(event.get('wall_s'))}"
    if "message" in event:
        return str(event["message"])
    fields = [f"{_FIELD_NAMES.get(key, key)} {_shortened(value)}" for key, value in event.items() if key not in _HIDDEN_FIELDS]
    if float_or_nan(event.get("clipped")) > 0:
        fields.append(f"{thousands_text(event['clipped'])} test values were outside the training range and were limited to it")
    return ", ".join(fields)


def _shortened(value: object) -> str:
    """Return `value` as text, a SHA-256 digest by its first 12 digits."""
    text = str(value)
    return f"{text[:12]}…" if _SHA256.fullmatch(text) else text
