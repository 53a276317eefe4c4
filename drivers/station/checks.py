"""Checks of a station file that involve more than one table: names, references, channel counts, limits.

`photonloop.drivers.station.schema` checks each table by itself.
"""

from __future__ import annotations

import math
from collections.abc import Iterator

from photonloop.drivers.station.schema import Channel, StageTable, Station
from photonloop.drivers.transports.instrument_address import same_place
from photonloop.protocols.config import suggestion


def problems(station: Station) -> Iterator[str]:
    """Yield one sentence per problem, the most likely cause of others first."""
    names = [instrument.name for instrument in station.instruments]
    yield from (f"instrument {name!r} is listed twice" for name in _repeated(names))
    yield from _addresses_shared(station)
    stages = [stage.name for stage in station.stages]
    yield from (f"stage {name!r} is listed twice" for name in _repeated(stages))
    monitors = [monitor.name for monitor in station.monitors]
    yield from (f"monitor {name!r} is listed twice" for name in _repeated(monitors))
    yield from _instruments_missing(station, names)
    for stage in station.stages:
        yield from _stage_problems(station, stage)
    yield from _input_problems(station)
    yield from _channels_mapped_twice(station)
    yield from _limits_inconsistent(station)
    for monitor in station.monitors:
        if monitor.min is None and monitor.max is None:
            yield f"monitor {monitor.name} has neither min nor max, so it has no bound: set one of them"
        elif monitor.min is not None and monitor.max is not None and monitor.min >= monitor.max:
            yield f"monitor {monitor.name}: min {monitor.min:g} is not below max {monitor.max:g}"


def _addresses_shared(station: Station) -> Iterator[str]:
    """Refuse one instrument under two names: one of its channels could be used twice, with different limits."""
    names: dict[str, str] = {}
    for table in station.instruments:
        other = names.setdefault(same_place(table.address), table.name)
        if other != table.name:
            yield f"instruments {other!r} and {table.name!r} are both at {table.address.strip()}: list one, with all its channels"


def _instruments_missing(station: Station, names: list[str]) -> Iterator[str]:
    used: list[tuple[str, str]] = []
    for stage in station.stages:
        used += [(f"heaters of stage {stage.name}", one.instrument) for heater in station.heaters(stage) for one in heater]
        used += [(f"detectors of stage {stage.name}", channel.instrument) for channel in station.detectors(stage)]
    used += [("inputs", channel.instrument) for channel in station.input_channels()]
    used += [("laser", station.laser.instrument)] if station.laser is not None else []
    used += [(f"monitor {monitor.name}", monitor.instrument) for monitor in station.monitors]
    for user, name in used:
        if not name:
            yield f'{user}: a channel is a plain number, but no instrument is named: set instrument, or write "instrument:number"'
        elif name not in names:
            yield f"{user}: instrument {name!r} is not listed under [[instruments]]" + suggestion(name, names)


def _stage_problems(station: Station, stage: StageTable) -> Iterator[str]:
    heaters, detectors = stage.heaters, stage.detectors
    count, taps = len(heaters.channels), len(detectors.channels)
    for key in ("max_v", "max_a", "max_w"):
        yield from _miscounted(f"heaters of stage {stage.name}", key, getattr(heaters, key), count)
    for key in ("ampere_per_unit", "full_scale_a", "trip_a"):
        yield from _miscounted(f"detectors of stage {stage.name}", key, getattr(detectors, key), taps)
    bank = stage.topology == "weight_bank"  # its detectors are not the modes of a mesh
    if taps > stage.ports and not bank:
        yield f"detectors of stage {stage.name}: {taps} channels, but the stage has {stage.ports} ports"
    if taps < stage.ports and not bank and stage.topology != "unknown":
        missing = stage.ports - taps
        yield f"detectors of stage {stage.name}: {taps} channels, so {missing} of its {stage.ports} ports lack a detector"
    covered = sorted(n for start, stop in heaters.groups.values() for n in range(start, stop))
    if heaters.groups and covered != list(range(count)):
        wrong = next((n for n in range(count) if covered.count(n) != 1), count)
        found = f"heater {wrong} is in {covered.count(wrong)} groups" if wrong < count else f"they exceed heater {count - 1}"
        yield f"groups of stage {stage.name} must cover each of its {count} heaters once, but {found}"
    for row in stage.layout:
        column, top, *shifters = row
        if column < 0 or not 0 <= top < stage.ports - 1 or not all(0 <= n < count for n in shifters):
            yield f"layout of stage {stage.name}: {list(row)} is not [column, top mode, heater of θ, heater of φ] of this stage"
    for number, (first, *others) in enumerate(station.heaters(stage)):
        if any(other.instrument != first.instrument for other in others):
            yield f"heater {number} of stage {stage.name}: {first} and {others[0]} must be on one source to drive it together"
    yield from _geometry_problems(stage)


def _geometry_problems(stage: StageTable) -> Iterator[str]:
    geometry, ports = stage.geometry, stage.ports
    if geometry is None:
        return
    columns = 1 + max((row[0] for row in stage.layout), default=-1)
    bank = stage.topology == "weight_bank"
    of_mesh = () if bank else (("phi_x_m", columns, "column"), ("theta_x_m", columns, "column"))
    taps = len(stage.detectors.channels)
    of_bank = (("ring_x_m", ports, "input"),) if bank else ()
    for key, count, each in (("mode_y_m", taps if bank else ports, "row" if bank else "mode"), *of_mesh, *of_bank):
        values = getattr(geometry, key)
        if count and len(values) != count:
            yield f"geometry of stage {stage.name}: {key} has {len(values)} values, expected {count}, one per {each}"
    flat = (*geometry.mode_y_m, *geometry.phi_x_m, *geometry.theta_x_m, *geometry.ring_x_m, geometry.gamma_x_m or 0.0)
    if not all(map(math.isfinite, flat)):
        yield f"geometry of stage {stage.name} has a position that is not finite: give metres"


def _input_problems(station: Station) -> Iterator[str]:
    inputs, count = station.inputs, station.inputs.ports
    yield from _miscounted("inputs", "max_v", inputs.max_v, count)
    if inputs.kind == "modulators" and len(inputs.curve) not in {1, count}:
        yield f"inputs: curve is a list of {len(inputs.curve)}, expected one curve for all or one for each of {count} ports"
    first = station.stages[0]
    if count > first.ports:
        yield f"inputs: {count} channels, but stage {first.name} has {first.ports} ports"
    switches = {channel.instrument for channel in station.input_channels()} if inputs.kind == "switch" else set()
    if len(switches) > 1:
        yield f"inputs: one switch is needed, but channels are on {' and '.join(sorted(switches))}"


def _channels_mapped_twice(station: Station) -> Iterator[str]:
    driven: dict[Channel, str] = {}
    read: dict[Channel, str] = {}
    for stage in station.stages:
        for number, heater in enumerate(station.heaters(stage)):
            for channel in heater:
                yield from _taken(driven, channel, f"heater {number} of stage {stage.name}")
        for port, channel in enumerate(station.detectors(stage)):
            yield from _taken(read, channel, f"detector {port} of stage {stage.name}")
    for port, channel in enumerate(station.input_channels()):
        yield from _taken(driven, channel, f"input {port}")
    for monitor in station.monitors:
        yield from _taken(read, Channel(monitor.instrument, monitor.channel), f"monitor {monitor.name}")


def _taken(users: dict[Channel, str], channel: Channel, user: str) -> Iterator[str]:
    if channel in users:
        yield f"channel {channel.number} of {channel.instrument} is mapped twice: to {users[channel]} and to {user}"
    users[channel] = user


def _limits_inconsistent(station: Station) -> Iterator[str]:
    limits = station.limits
    if limits.max_w is not None and limits.total_w is not None and limits.total_w < limits.max_w:
        yield f"limits.total_w {limits.total_w:g} W is less than max_w {limits.max_w:g} W of one heater"
    for stage in station.stages:
        for key in ("max_v", "max_a", "max_w"):
            overall, own = getattr(limits, key), getattr(stage.heaters, key)
            if overall is not None and own and max(own) > overall:
                yield f"heaters of stage {stage.name}: {key} {max(own):g} is above limits.{key} {overall:g}"
    if station.laser is not None and station.laser.max_power_w is not None and station.laser.max_power_w < station.laser.power_w:
        yield f"laser.max_power_w {station.laser.max_power_w:g} W is below power_w {station.laser.power_w:g} W"


def _miscounted(table: str, key: str, values: tuple[float, ...], count: int) -> Iterator[str]:
    if len(values) not in {0, 1, count}:
        yield f"{table}: {key} is a list of {len(values)}, expected one number or one for each of {count} channels"


def _repeated(names: list[str]) -> list[str]:
    return sorted({name for name in names if names.count(name) > 1})
