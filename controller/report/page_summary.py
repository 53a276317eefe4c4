"""The top of the report, with the main results, and its last section, with the settings of the run."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from photonloop.controller.report.display_text import duration_text, percent_text, thousands_text, time_text
from photonloop.controller.report.run_contents import Event, RunContents
from photonloop.protocols.device import DeviceDescription


@dataclass(frozen=True)
class UnfinishedRun:
    """How far an unfinished run came: the last finished epoch and its layer, counted from 1; None if there is none."""

    folder: Path
    last_epoch: tuple[int, int] | None


@dataclass(frozen=True)
class Summary:
    """Title, origin and main results of a run; `tiles` are (name, value)."""

    title: str
    origin: str
    unfinished: UnfinishedRun | None
    remarks: tuple[str, ...]
    tiles: tuple[tuple[str, str], ...]


@dataclass(frozen=True)
class RunSettings:
    """The experiment file, and rows of (name, value) about the device and the software."""

    experiment: str
    device: tuple[tuple[str, str], ...]
    versions: tuple[tuple[str, str], ...]


def layer_results(result: Event) -> list[Event]:
    """Return the results of the layers of a "result" event."""
    layers = result.get("layers")
    return [layer for layer in layers if isinstance(layer, dict)] if isinstance(layers, list) else []


def summary(contents: RunContents) -> Summary:
    """Return the top of the report."""
    return Summary(
        title=contents.name,
        origin=_origin(contents),
        unfinished=None if contents.result else _unfinished(contents),
        remarks=contents.remarks,
        tiles=tuple(_tiles(contents)),
    )


def run_settings(contents: RunContents) -> RunSettings:
    """Return experiment, device and versions."""
    versions = next((event["versions"] for event in contents.of_kind("resume", "start")[::-1] if "versions" in event), None)
    return RunSettings(
        experiment=contents.experiment.strip(),
        device=device_rows(contents.device) if contents.device is not None else (),
        versions=tuple((str(k), str(v)) for k, v in versions.items()) if isinstance(versions, dict) else (),
    )


def device_identity(device: DeviceDescription) -> str:
    """Return the name of a device and its serial numbers."""
    serials = ", ".join(f"{name} {value}" for name, value in device.serials.items() if value != device.name)
    return device.name + (f" ({serials})" if serials else "")


def device_rows(device: DeviceDescription) -> tuple[tuple[str, str], ...]:
    """Return rows of (name, value) about a device."""
    drive, readout, limits = device.drive, device.readout, device.limits
    resolution = f"{drive.bits} bit, {1e6 * drive.lsb_v:.3g} µV per step" if drive.bits else "continuous"
    heater = f"{drive.resistance_ohm:g} Ω, {1e3 * drive.pi_power_w:.4g} mW for π, settles in {1e6 * drive.settle_s:.4g} µs"
    return (
        ("kind", device.kind),
        ("input ports", f"{device.input_ports}, {'amplitude and phase' if device.phases_settable else 'amplitude only'}"),
        *(
            (f"stage {s.name}", f"{s.topology}, {s.ports} ports, {s.channels} heaters, {s.tap_ports} detectors")
            for s in device.stages
        ),
        ("drive", f"{drive.min_v:g} to {drive.max_v:g} V, {resolution}"),
        ("heater", heater),
        ("readout", f"{f'{readout.bits} bit' if readout.bits else 'continuous'}, {1e6 * readout.sample_s:.4g} µs per sample"),
        ("total power", f"at most {limits.total_power_w:g} W" if limits.total_power_w else "no limit"),
        ("clock", device.clock),
        *device.serials.items(),
    )


def _tiles(contents: RunContents) -> list[tuple[str, str]]:
    result, epochs = contents.result, contents.of_kind("epoch")
    latest: Event = result or (epochs[-1] if epochs else {})
    if result:
        layers = layer_results(result)
        by_vote = len(layers) > 1
        tiles = [("Test accuracy by vote" if by_vote else "Test accuracy", percent_text(result.get("test_accuracy")))]
        if by_vote:
            tiles += [(f"Layer {k + 1} alone", percent_text(layer.get("test_accuracy"))) for k, layer in enumerate(layers)]
    else:
        done = {event["layer"]: event for event in contents.of_kind("layer_done") if isinstance(event.get("layer"), int)}
        tiles = [
            (f"Test accuracy, layer {layer + 1}", percent_text(event.get("test_accuracy")))
            for layer, event in sorted(done.items())
        ]
    tiles.append(("Evaluations", thousands_text(latest.get("evaluations"))))
    tiles.append(("Wall time", duration_text(latest.get("wall_s"))))
    return tiles


def _origin(contents: RunContents) -> str:
    """Return the device, its address, the seed and the time of the start, as far as they are known."""
    parts = []
    starts = contents.of_kind("start")
    if contents.device is not None:
        parts.append(device_identity(contents.device))
    if starts:
        if "device" in starts[0]:
            parts.append(f"device {starts[0]['device']}")
        if "seed" in starts[0]:
            parts.append(f"experiment seed {starts[0]['seed']}")
        parts.append(time_text(starts[0].get("time", "")))
    return " · ".join(part for part in parts if part)


def _unfinished(contents: RunContents) -> UnfinishedRun:
    if not contents.epochs:
        return UnfinishedRun(contents.folder, None)
    layer = max(contents.epochs)
    return UnfinishedRun(contents.folder, (contents.epochs[layer][-1].epoch, layer + 1))
