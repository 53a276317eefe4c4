"""Checks of a station file that involve more than one table: names, references, channel counts, limits.

`photonloop.drivers.station.schema` checks each table by itself.
"""

from __future__ import annotations

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
        used += [(f"heaters of stage {stage.name}", channel.instrument) for channel in station.heaters(stage)]
        used += [(f"detectors of stage {stage.name}", channel.instrument) for channel in station.detectors(stage)]
    used += [("inputs", channel.instrument) for channel in station.modulators()]
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


def _input_problems(station: Station) -> Iterator[str]:
    inputs, count = station.inputs, len(station.inputs.channels)
    yield from _miscounted("inputs", "max_v", inputs.max_v, count)
    if len(inputs.curve) not in {1, count}:
        yield f"inputs: curve is a list of {len(inputs.curve)}, expected one curve for all or one for each of {count} ports"
    first = station.stages[0]
    if count > first.ports:
        yield f"inputs: {count} channels, but stage {first.name} has {first.ports} ports"


def _channels_mapped_twice(station: Station) -> Iterator[str]:
    driven: dict[Channel, str] = {}
    read: dict[Channel, str] = {}
    for stage in station.stages:
        for number, channel in enumerate(station.heaters(stage)):
            yield from _taken(driven, channel, f"heater {number} of stage {stage.name}")
        for port, channel in enumerate(station.detectors(stage)):
            yield from _taken(read, channel, f"detector {port} of stage {stage.name}")
    for port, channel in enumerate(station.modulators()):
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
