"""The page itself: sections of HTML, every word of a run escaped."""

from __future__ import annotations

import math
from collections.abc import Iterable
from datetime import datetime
from html import escape
from typing import Any

import numpy as np

from photonloop.controller.report import grids, mesh_drawing
from photonloop.controller.report.contents import Contents, Event, PhaseSnapshots, number
from photonloop.controller.report.curves import curves
from photonloop.controller.report.style import STYLE

_MOST_EVENTS = 200

# Told elsewhere on the page (versions), in other words (clipped), or not for a file that is mailed (a lease key).
_UNTOLD = frozenset({"event", "time", "versions", "lease_key", "clipped"})

_HAPPENED = {
    "start": "started",
    "resume": "resumed",
    "stopped": "stopped",
    "warning": "warning",
    "device_lost": "device lost",
    "device_back": "device back",
    "layer_done": "layer learned",
    "result": "finished",
}


def page(contents: Contents) -> str:
    """Return the whole report as one HTML document."""
    body = "\n".join(
        (
            _head(contents),
            _curves(contents),
            _test(contents),
            _phases(contents),
            _readings(contents),
            _steps(contents),
            _events(contents),
            _settings(contents),
        )
    )
    return (
        '<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{escape(contents.name)} · photonloop</title><style>{STYLE}</style></head>\n<body>\n{body}\n</body></html>\n"
    )


def _head(contents: Contents) -> str:
    result = contents.result
    epochs = contents.of_kind("epoch")
    latest: Event = result or (epochs[-1] if epochs else {})
    tiles = []
    if result:
        layers = _layers(result)
        voted = len(layers) > 1
        tiles.append(("Test accuracy by vote" if voted else "Test accuracy", _percent(result.get("test_accuracy"))))
        if voted:
            tiles += [(f"Layer {at + 1} alone", _percent(layer.get("test_accuracy"))) for at, layer in enumerate(layers)]
    else:
        done = {event["layer"]: event for event in contents.of_kind("layer_done") if isinstance(event.get("layer"), int)}
        tiles += [
            (f"Layer {layer + 1} on the test part", _percent(event.get("test_accuracy"))) for layer, event in sorted(done.items())
        ]
    tiles.append(("Evaluations", _thousands(latest.get("evaluations"))))
    tiles.append(("Wall time", _duration(latest.get("wall_s"))))
    cells = "".join(
        f"<div{' class=first' if result and k == 0 else ''}><dt>{escape(name)}</dt><dd>{escape(text)}</dd></div>"
        for k, (name, text) in enumerate(tiles)
    )
    remarks = list(contents.remarks)
    if not result:
        remarks.insert(0, _unfinished(contents))
    told = "".join(f'<p class="remark">{escape(remark)}</p>' for remark in remarks)
    title = f'<h1>{escape(contents.name)}</h1><p class="lead">{_subtitle(contents)}</p>'
    return f'<header>{title}</header>{told}<dl class="tiles">{cells}</dl>'


def _subtitle(contents: Contents) -> str:
    parts = []
    starts = contents.of_kind("start")
    if contents.device is not None:
        device = contents.device
        serials = ", ".join(f"{name} {value}" for name, value in device.serials.items() if value != device.name)
        parts.append(device.name + (f" ({serials})" if serials else ""))
    if starts:
        if "device" in starts[0]:
            parts.append(f"asked for as {starts[0]['device']}")
        if "seed" in starts[0]:
            parts.append(f"session seed {starts[0]['seed']}")
        parts.append(_time(starts[0])[:16])
    return " · ".join(escape(part) for part in parts if part)


def _unfinished(contents: Contents) -> str:
    where = "no epoch was finished"
    if contents.epochs:
        layer = max(contents.epochs)
        where = f"its last finished epoch is {contents.epochs[layer][-1].epoch} of layer {layer + 1}"
    return f"This run is not finished: {where}. Go on with: photonloop train --resume {contents.folder}"


def _curves(contents: Contents) -> str:
    if not contents.epochs:
        return _section("Learning curves", _note("No epoch was finished, so there are no curves yet."))
    drawn = curves(contents.epochs)
    return _section(
        "Learning curves",
        "".join(f"<figure><h3>{escape(contents.layer_name(layer))}</h3>{svg}</figure>" for layer, svg in drawn.items()),
    )


def _test(contents: Contents) -> str:
    evaluation = contents.evaluation
    if evaluation is None:
        return _section("Test part", _note("The test part was not evaluated yet, so there is no confusion matrix."))
    counts = grids.confusion_counts(evaluation.y_true, evaluation.vote, len(evaluation.classes))
    total, right = int(counts.sum()), int(np.trace(counts))
    id_query = "The vote" if len(evaluation.layer_predictions) > 1 else "The layer"
    words = f"{id_query} names {right} of {total} test samples rightly."
    if mistakes := grids.confused_most(counts, evaluation.classes):
        words += f" Most often confused: {mistakes}."
    shares = [float(np.mean(predicted == evaluation.y_true)) for predicted in evaluation.layer_predictions]
    rows = [(contents.layer_name(layer), f"{share:.1%}") for layer, share in enumerate(shares)]
    if len(shares) > 1:
        rows.append(("Vote of all layers", f"{right / total:.1%}"))
        words = f"{words} {_vote(right / total, shares)}"
    table = _table(("", "test accuracy"), [(escape(name), value) for name, value in rows])
    return _section(
        "Test part",
        f'<div class="beside"><figure>{grids.confusion(counts, evaluation.classes)}'
        "<figcaption>Counts; the last column is the share of each class that was found.</figcaption></figure>"
        f"<div>{table}<p>{escape(words)}</p></div></div>",
    )


def _vote(vote: float, shares: list[float]) -> str:
    """Return what a vote is and what it is worth against each layer alone, in plain words."""
    rule = "The vote is the class that most layers name; where they tie, the last layer chooses among them"
    if len(shares) == 2:
        rule += " (of two layers every disagreement is a tie, so that the vote is the last layer's answer)"
    worth = [f"{_points(vote - share)} layer {number + 1}" for number, share in enumerate(shares)]
    return f"{rule}: {vote:.1%} here, {', '.join(worth[:-1])} and {worth[-1]}."


def _points(difference: float) -> str:
    points = f"{abs(100 * difference):.1f}"
    if points == "0.0":
        return "as good as"
    return f"{points} points {'better' if difference > 0 else 'worse'} than"


def _phases(contents: Contents) -> str:
    title = "Phases on the mesh"
    if not contents.phases:
        return _section(title, _note("There is no checkpoint to read the phases from yet."))
    changes = [phases.after - phases.before for phases in contents.phases]
    limit_rad = mesh_drawing.change_limit_rad(changes)
    intro = (
        '<p class="note">Nominal heater phase, π × heater power / P<sub>π</sub>, wrapped to 2π; the offsets that '
        "fabrication left on the chip are not in it. Each cell is an interferometer, and light enters on the left. "
        f"Colours of the change end at ±{limit_rad:.2g} rad; 99 % of all changes are smaller.</p>"
    )
    layers = "".join(_layer_phases(contents, layer, phases, limit_rad) for layer, phases in enumerate(contents.phases))
    scales = f'<div class="panels">{mesh_drawing.phase_scale()}<span></span>{mesh_drawing.change_scale(limit_rad)}</div>'
    return _section(title, intro + scales + layers)


def _layer_phases(contents: Contents, layer: int, phases: PhaseSnapshots, limit_rad: float) -> str:
    stages = contents.device.stages if contents.device is not None else ()
    stage = stages[layer] if layer < len(stages) and stages[layer].channels == len(phases.after) else None
    phase, change = mesh_drawing.phase_paint(), mesh_drawing.change_paint(limit_rad)
    rows = []
    for drawing in mesh_drawing.drawings(stage, len(phases.after)):
        title = drawing.title
        panels = (
            (f"Before: {title}", phases.before, phase),
            (f"After: {title}", phases.after, phase),
            (f"Change: {title}", phases.after - phases.before, change),
        )
        rows.append(
            '<div class="panels">'
            + "".join(
                f"<figure><figcaption>{escape(name)}</figcaption>"
                f"{mesh_drawing.panel(drawing, values, paint, escape(name))}</figure>"
                for name, values, paint in panels
            )
            + "</div>"
        )
    return f"<h3>{escape(contents.layer_name(layer))}</h3>{''.join(rows)}{_moved(stage.groups if stage else {}, phases)}"


def _moved(groups: dict[str, tuple[int, int]], phases: PhaseSnapshots) -> str:
    change = np.abs(phases.after - phases.before)
    names = {
        "theta": "θ",
        "phi": "φ",
        "gamma": "γ",
        "attenuator_theta": "θ of attenuators",
        "attenuator_phi": "φ of attenuators",
        "ring": "rings",
    }
    told = []
    for name, (start, stop) in (groups or {"all": (0, len(change))}).items():
        if 0 <= start < stop <= len(change):
            part = change[start:stop]
            spread = f"{math.sqrt(float(np.mean(part**2))):.3g} rad root mean square, {float(part.max()):.3g} rad at most"
            told.append(f"{names.get(name, name)}: {stop - start} phases, change {spread}")
    return f'<p class="note wide">{escape(" · ".join(told))}</p>'


def _readings(contents: Contents) -> str:
    title = "Readings by class"
    evaluation = contents.evaluation
    if evaluation is None:
        return _section(title, _note("The test part was not evaluated yet, so there are no readings by class."))
    unit = contents.device.readout.unit if contents.device is not None else "A"
    layers = "".join(
        f"<figure><h3>{escape(contents.layer_name(layer))}</h3>{grids.readings(values, evaluation.classes, unit)}</figure>"
        for layer, values in enumerate(evaluation.class_readings)
    )
    intro = '<p class="note">Mean reading of every detector over the test samples of a class.</p>'
    return _section(title, intro + layers)


def _steps(contents: Contents) -> str:
    rows = []
    for event in contents.of_kind("step_chosen"):
        reasons = event.get("reasons")
        items = "".join(f"<li>{escape(str(reason))}</li>" for reason in reasons) if isinstance(reasons, list) else ""
        layer = event.get("layer")
        name = contents.layer_name(layer) if isinstance(layer, int) else ""
        steps = (f"{number(event.get(key)):.4g} rad" for key in ("step_rad", "per_phase_rad"))
        rows.append((escape(name), *(escape(step.replace("nan rad", "–")) for step in steps), f"<ul>{items}</ul>"))
    if not rows:
        return _section("Probe step", _note("No probe step was chosen yet."))
    return _section("Probe step", _table(("", "step", "per phase", "why"), rows))


def _events(contents: Contents) -> str:
    chosen = contents.of_kind(*_HAPPENED)
    rows: list[list[Any]] = []  # [time, kind, words, times]
    for event in chosen:
        kind, words = _HAPPENED[event["event"]], _words(contents, event)
        if rows and rows[-1][1:3] == [kind, words]:
            rows[-1][3] += 1
        else:
            rows.append([_time(event), kind, words, 1])
    if not rows:
        return _section("What happened", _note("Nothing was recorded."))
    left_out = max(len(rows) - _MOST_EVENTS, 0)
    note = _note(f"The first {left_out} events are left out here; metrics.jsonl holds them all.") if left_out else ""
    body = "".join(
        f'<tr><td class="time">{escape(time)}</td><td class="kind">{escape(kind)}{f" ×{times}" if times > 1 else ""}</td>'
        f"<td>{escape(words)}</td></tr>"
        for time, kind, words, times in rows[left_out:]
    )
    return _section("What happened", f"{note}<table>{body}</table>")


def _words(contents: Contents, event: Event) -> str:
    if event["event"] == "layer_done":
        layer = event.get("layer")
        name = contents.layer_name(layer) if isinstance(layer, int) else str(event.get("name", ""))
        return f"{name}, test accuracy {_percent(event.get('test_accuracy'))}"
    if event["event"] == "result":
        by = " by vote" if len(_layers(event)) > 1 else ""
        return f"test accuracy{by} {_percent(event.get('test_accuracy'))} after {_duration(event.get('wall_s'))}"
    if "message" in event:
        return str(event["message"])
    told = [f"{key} {value}" for key, value in event.items() if key not in _UNTOLD]
    if number(event.get("clipped")) > 0:
        told.append(f"{_thousands(event['clipped'])} test values lay outside the training range and were limited to it")
    return ", ".join(told)


def _settings(contents: Contents) -> str:
    experiment = (
        f"<pre>{escape(contents.experiment.strip())}</pre>"
        if contents.experiment.strip()
        else _note("experiment.toml is missing.")
    )
    versions = next((event["versions"] for event in contents.of_kind("resume", "start")[::-1] if "versions" in event), None)
    rows = [(escape(str(k)), escape(str(v))) for k, v in versions.items()] if isinstance(versions, dict) else []
    software = _table((), rows) if rows else _note("The metrics name no versions.")
    return _section(
        "Settings",
        f'<div class="pair"><div><h3>Experiment</h3>{experiment}</div>'
        f"<div><h3>Device</h3>{_device(contents)}<h3>Versions</h3>{software}</div></div>",
    )


def _device(contents: Contents) -> str:
    device = contents.device
    if device is None:
        return _note("There is no device description.")
    drive, readout, limits = device.drive, device.readout, device.limits
    resolution = f"{drive.bits} bit, {1e6 * drive.lsb_v:.3g} µV a step" if drive.bits else "continuous"
    rows = [
        ("kind", device.kind),
        ("input ports", f"{device.input_ports}, {'amplitude and phase' if device.phases_settable else 'amplitude only'}"),
        *(
            (f"stage {s.name}", f"{s.topology}, {s.ports} ports, {s.channels} heaters, {s.tap_ports} detectors")
            for s in device.stages
        ),
        ("drive", f"{drive.min_v:g} to {drive.max_v:g} V, {resolution}"),
        (
            "heater",
            f"{drive.resistance_ohm:g} Ω, {1e3 * drive.pi_power_w:.4g} mW for π, {1e6 * drive.settle_s:.4g} µs to settle",
        ),
        ("readout", f"{f'{readout.bits} bit' if readout.bits else 'continuous'}, {1e6 * readout.sample_s:.4g} µs a sample"),
        ("total power", f"{limits.total_power_w:g} W" if limits.total_power_w else "no limit"),
        ("clock", device.clock),
        *device.serials.items(),
    ]
    return _table((), [(escape(name), escape(value)) for name, value in rows])


def _section(title: str, body: str) -> str:
    return f"<section><h2>{title}</h2>{body}</section>"


def _note(sentence: str) -> str:
    return f'<p class="note">{escape(sentence)}</p>'


def _table(heads: tuple[str, ...], rows: Iterable[tuple[str, ...]]) -> str:
    """Return a table; cells are HTML already, the first of each row is its head."""
    head = "<tr>" + "".join(f"<th>{text}</th>" for text in heads) + "</tr>" if heads else ""
    body = "".join(f"<tr><th>{first}</th>{''.join(f'<td>{cell}</td>' for cell in rest)}</tr>" for first, *rest in rows)
    return f"<table>{head}{body}</table>"


def _layers(result: Event) -> list[Event]:
    layers = result.get("layers")
    return [layer for layer in layers if isinstance(layer, dict)] if isinstance(layers, list) else []


def _percent(value: object) -> str:
    share = number(value)
    return f"{share:.1%}" if math.isfinite(share) else "–"


def _thousands(value: object) -> str:
    count = number(value)
    return f"{count:,.0f}".replace(",", "\N{NARROW NO-BREAK SPACE}") if math.isfinite(count) else "–"


def _duration(value: object) -> str:
    seconds = number(value)
    if not math.isfinite(seconds):
        return "–"
    if seconds < 120:
        return f"{seconds:.3g} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 120 else f"{minutes // 60} h {minutes % 60} min"


def _time(event: Event) -> str:
    """Return the time of an event to the second, as written (the run says which zone), in plain words."""
    text = str(event.get("time", ""))
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        return text
    zone = " UTC" if moment.utcoffset() is not None and not moment.utcoffset() else ""
    return moment.strftime("%Y-%m-%d %H:%M:%S") + zone
