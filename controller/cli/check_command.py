"""`photonloop check`: identify a station's instruments, and check wiring and limits, without driving anything."""

from __future__ import annotations

import argparse
from dataclasses import asdict
from functools import partial

from rich.console import Console
from rich.table import Column, Table

from photonloop.controller.cli.describe_command import limit_rows
from photonloop.controller.cli.printing import print_json
from photonloop.controller.device.address import parse_device_string
from photonloop.drivers.bench.bench_opening import check_table, open_table
from photonloop.drivers.bench.survey import Survey, planned, survey
from photonloop.drivers.station.loading import load_reference
from photonloop.drivers.station.schema import LimitsTable, Station
from photonloop.protocols.config import ConfigError
from photonloop.protocols.device import DeviceDescription
from photonloop.protocols.errors import DeviceError


def run(args: argparse.Namespace) -> int:
    """Query all instruments of a station, or none with `--dry-run`, and print one table."""
    address = parse_device_string(args.device)
    if address.kind != "lab":
        raise ConfigError(
            f"device is {args.device!r}, but only a station, lab:station.toml, has instruments to check: use photonloop describe"
        )
    path, station, string_limits = load_reference(address.station_reference)
    if args.dry_run:
        found = planned(station, partial(check_table, path.parent))
    else:
        found = survey(station, partial(open_table, path.parent), string_limits)
    if args.json:
        print_json(_answer(args.device, station, found, dry_run=args.dry_run))
    else:
        _print(args.device, station, string_limits, found, dry_run=args.dry_run)
    if not found.problems:
        return 0
    first, *others = found.problems
    raise DeviceError("device", first + (f" (and {len(others)} more problems)" if others else ""))


def _answer(device: str, station: Station, found: Survey, *, dry_run: bool) -> dict[str, object]:
    return {
        "device": device,
        "station": station.name,
        "dry_run": dry_run,
        "ok": not found.problems,
        "problems": list(found.problems),
        "instruments": [
            asdict(row) | {"used_for": {what: list(numbers) for what, numbers in row.used_for}} for row in found.rows
        ],
        "description": found.description.model_dump(mode="json") if found.description is not None else None,
    }


def _print(device: str, station: Station, string_limits: LimitsTable, found: Survey, *, dry_run: bool) -> None:
    console = Console(highlight=False, markup=False)
    console.print(f"{device}: {station.name}, {_counted(station)}")
    columns = ("instrument", "used for") if dry_run else ("instrument", "identity", "used for", "allows", "reads", "")
    table = Table(*(Column(name, overflow="fold") for name in columns))
    for row in found.rows:
        cells = {
            "instrument": f"{row.name}\n{row.driver}\n{row.address}",
            "identity": row.identity or "none",
            "used for": "\n".join(_use(what, numbers) for what, numbers in row.used_for) or "nothing",
            "allows": "\n".join(filter(None, [f"{row.channels} channels" if row.channels else "", row.allows])),
            "reads": row.reads,
            "": row.problem or "ok",
        }
        table.add_row(*(cells[name] for name in columns))
    console.print(table)
    figures = Table("", "", show_header=False)
    rows = _bench_rows(found.description) if found.description is not None else _given_rows(station, string_limits)
    for name, value in rows:
        figures.add_row(name, value)
    console.print(figures)


def _counted(station: Station) -> str:
    stages = len(station.stages)
    heaters = sum(len(stage.heaters.channels) for stage in station.stages)
    detectors = sum(len(stage.detectors.channels) for stage in station.stages)
    mesh = f"{stages} stage{'s' if stages > 1 else ''}, {heaters} heaters"
    return f"{mesh}, {station.inputs.ports} inputs, {detectors} detectors"


def _use(what: str, numbers: tuple[int, ...]) -> str:
    return f"{what}: {_ranges(numbers)}" if numbers else what


def _ranges(numbers: tuple[int, ...]) -> str:
    """Return channel numbers as ranges, as in "0…7, 12"."""
    runs: list[list[int]] = []
    for number in numbers:
        if runs and number == runs[-1][1] + 1:
            runs[-1][1] = number
        else:
            runs.append([number, number])
    return ", ".join(f"{first}" if first == last else f"{first}…{last}" for first, last in runs)


def _bench_rows(description: DeviceDescription) -> list[tuple[str, str]]:
    return [("limits", "of instruments, station and session together"), *limit_rows(description)]


def _given_rows(station: Station, string_limits: LimitsTable) -> list[tuple[str, str]]:
    rows = [("limits", "as given; the limits of the instruments are not known yet")]
    for name, limits in (("station", station.limits), ("session", string_limits)):
        given = ", ".join(f"{key} {value:g}" for key, value in limits.model_dump().items() if value is not None)
        rows.append((name, given or "none"))
    return rows
