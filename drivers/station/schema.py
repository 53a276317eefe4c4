"""The station file: which instrument channel is which heater, input modulator or detector of the chip, and what none may exceed.

    [[instruments]] heaters ──┬── [stages.heaters]    channels = [0, 1, …]      in the order of the stage's drive
    [[instruments]] daq     ──┼── [stages.detectors]  channels = [0, 1, …]      in the order of the tap's ports
    [[instruments]] source  ──┼── [inputs]            channels = [0, 1, …]      in the order of the input ports
    [[instruments]] laser   ──┴── [laser]

Channels are numbered from 0 as the instrument's driver counts them. Where several instruments share a row, a channel is
written "instrument:number", as in `channels = ["meter1:0", "meter2:0"]`. `load_station` reads and checks a file alone; what the
instruments themselves allow is met in `photonloop.drivers.bench.wiring`.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

from photonloop.drivers.station.encoding_curve import Curve
from photonloop.drivers.transports.instrument_address import same_place
from photonloop.protocols.config import ConfigError, read_toml, suggestion, validate

_Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]
_NotNegative = Annotated[float, Field(ge=0, allow_inf_nan=False)]
_Finite = Annotated[float, Field(allow_inf_nan=False)]
_Count = Annotated[int, Field(ge=1)]
_Name = Annotated[str, Field(pattern=r"^[A-Za-z][A-Za-z0-9_.-]*$", max_length=40)]


@dataclass(frozen=True)
class Channel:
    """One channel of one instrument."""

    instrument: str
    number: int

    def __str__(self) -> str:
        return f"{self.instrument}:{self.number}"


def _as_channels(value: Any) -> Any:
    """Return the entries of a `channels` list, refusing what is neither a number nor "instrument:number"."""
    if not isinstance(value, list | tuple) or not value:
        raise ValueError("must be a list of at least one channel")
    for entry in value:
        if isinstance(entry, int) and not isinstance(entry, bool) and entry >= 0:
            continue
        if isinstance(entry, str):
            name, _, number = entry.rpartition(":")
            if name and number.isdecimal():
                continue
        raise ValueError(f'holds {entry!r}, expected numbers from 0 or "instrument:number"')
    return tuple(value)


def _as_many(value: Any) -> Any:
    return value if isinstance(value, list | tuple) else [value]


_Channels = Annotated[tuple[int | str, ...], BeforeValidator(_as_channels)]
_PerChannel = Annotated[tuple[_Positive, ...], BeforeValidator(_as_many)]
"""One number for all, or a list with one a channel."""


class _Table(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class LimitsTable(_Table):
    """What no channel, and the chip as a whole, may exceed; absent: only what the instruments allow."""

    max_v: _Positive | None = None
    max_a: _Positive | None = None
    max_w: _Positive | None = None
    """Of one heater [W]."""
    total_w: _Positive | None = None
    """Of all heaters together [W]."""
    slew_v_per_s: _Positive | None = None
    """Fastest change of a heater's voltage; changes are ramped."""


class CapacityTable(_Table):
    """How much one request may ask for."""

    max_batch: _Count = 2**12
    max_settings: _Count = 2**10
    max_readings: _Count = 2**22
    max_loaded_bytes: _Count = 2**28


class InstrumentTable(_Table):
    """One instrument: a driver and where to find it."""

    name: _Name
    driver: str
    address: Annotated[str, Field(min_length=1)]
    """VISA resource name, as the driver takes it."""
    serial: str = ""
    """Serial number that it must answer; empty: any."""
    library: str = "@py"
    """VISA library: "@py" for pyvisa-py, "@ivi" or a path for another."""
    timeout_s: _NotNegative = 0.0
    """How long one answer may take [s]; 0: as its driver says."""
    settings: dict[str, Any] = {}
    """Whatever else its driver wants to know."""


class HeatersTable(_Table):
    """The heaters of a stage, in the order of its drive."""

    instrument: str = ""
    """Whose channels plain numbers are."""
    channels: _Channels
    groups: dict[str, tuple[int, int]] = {}
    """Kinds of phase shifters as [start, stop) within the stage, covering every heater once; absent: all are called "phase"."""
    max_v: _PerChannel = ()
    max_a: _PerChannel = ()
    max_w: _PerChannel = ()


class DetectorsTable(_Table):
    """The detectors of a stage's tap, in the order of its ports."""

    instrument: str = ""
    channels: _Channels
    ampere_per_unit: _PerChannel = ()
    """Photocurrent for one unit of the readout: 1 / (amplifier gain in V/A) for volts, responsivity in A/W for watts.
    Needed unless the readout answers amperes."""
    full_scale_a: _PerChannel = ()
    """Photocurrent at which a detector saturates; absent: the readout's own full scale."""
    trip_a: _PerChannel = ()
    """Photocurrent that must never be: beyond it the laser goes off, the bench becomes safe and latches `over_power`."""


class StageTable(_Table):
    """One mesh with its heaters and the detectors behind it."""

    name: _Name
    topology: str = "unknown"
    ports: Annotated[int, Field(ge=1, le=4096)]
    nonlinearity: Literal["none", "electro-optic"] = "none"
    layout: tuple[tuple[int, int, int, int], ...] = ()
    """One row an interferometer: column, top mode, heater of θ, heater of φ; absent where nobody drew the chip."""
    heaters: HeatersTable
    detectors: DetectorsTable


class InputsTable(_Table):
    """The input modulators, in the order of the input ports."""

    instrument: str = ""
    channels: _Channels
    curve: Annotated[tuple[Curve, ...], BeforeValidator(_as_many)]
    """One curve for all ports, or a list with one a port."""
    settle_s: _NotNegative = 0.0
    """From a new input to readings that may be trusted [s]."""
    max_v: _PerChannel = ()
    """Highest voltage a modulator may ever get; absent: what the instrument allows."""


class LaserTable(_Table):
    """The light."""

    instrument: str
    power_w: _Positive
    wavelength_nm: Annotated[float, Field(ge=200, le=20_000)] | None = None
    warm_s: _NotNegative = 0.0
    """From switching on to light that may be trusted [s]."""
    max_power_w: _Positive | None = None
    """Measured power beyond which the bench becomes safe and latches `over_power`."""
    keep_on: bool = False
    """Leave the light on when the bench is closed in order; a fault puts it out all the same."""


class HeaterTable(_Table):
    """Nominal values of all heaters."""

    resistance_ohm: _Positive
    pi_power_w: _Positive


class MonitorTable(_Table):
    """A quantity that is watched: beyond its bounds the bench becomes safe and latches a fault of its name."""

    name: _Name
    instrument: str
    channel: Annotated[int, Field(ge=0)]
    scale: _Finite = 1.0
    """Shown value = scale × reading + offset."""
    offset: _Finite = 0.0
    unit: str = ""
    min: _Finite | None = None
    max: _Finite | None = None


class Station(_Table):
    """A bench as its file states it."""

    name: Annotated[str, Field(min_length=1, max_length=80)]
    settle_s: Annotated[float, Field(ge=0, le=3600)]
    """From a new heater drive to readings that may be trusted [s]."""
    watch_s: Annotated[float, Field(gt=0, le=3600)] = 1.0
    """While the chip is driven, currents and monitors are read this often [s], at the next setting."""
    limits: LimitsTable = LimitsTable()
    capacity: CapacityTable = CapacityTable()
    heater: HeaterTable
    instruments: Annotated[tuple[InstrumentTable, ...], Field(min_length=1)]
    stages: Annotated[tuple[StageTable, ...], Field(min_length=1, max_length=64)]
    inputs: InputsTable
    laser: LaserTable | None = None
    monitors: tuple[MonitorTable, ...] = ()

    def heaters(self, stage: StageTable) -> tuple[Channel, ...]:
        """Return the channels of a stage's heaters."""
        return _resolved(stage.heaters.channels, stage.heaters.instrument)

    def detectors(self, stage: StageTable) -> tuple[Channel, ...]:
        """Return the channels of a stage's detectors."""
        return _resolved(stage.detectors.channels, stage.detectors.instrument)

    def modulators(self) -> tuple[Channel, ...]:
        """Return the channels of the input modulators."""
        return _resolved(self.inputs.channels, self.inputs.instrument)


def load_station(path: Path) -> Station:
    """Return the station in the file at `path`.

    Raises
    ------
    ConfigError
        One sentence on the first thing that does not fit.
    """
    where = f"station {path}"
    station = validate(Station, read_toml(path, "station file"), where)
    problem = next(_problems(station), None)
    if problem is not None:
        raise ConfigError(f"{where}: {problem}")
    return station


def load_reference(reference: str) -> tuple[Path, Station, LimitsTable]:
    """Return path, station and session limits of `station.toml?max_v=5&total_w=0.2`: what follows `lab:` in a device string.

    What stands behind the question mark are limits of this session, which tighten those of the file and of the instruments,
    and can never loosen them.

    Raises
    ------
    ConfigError
        As `load_station`, and for a limit that is not one.
    """
    text, _, query_line = reference.partition("?")
    limits: dict[str, float] = {}
    for part in query_line.split("&") if query_line else []:
        key, _, value = part.partition("=")
        try:
            limits[key] = float(value)
        except ValueError:
            raise ConfigError(f"lab:{reference}: limit {part!r} is not of the form max_v=5") from None
    if not text:
        raise ConfigError(f"device 'lab:{reference}' names no station file, as in lab:station.toml")
    path = Path(text).expanduser()
    return path, load_station(path), validate(LimitsTable, limits, f"lab:{reference}")


# ---- what a model cannot say of itself: how the tables fit one another ---------------------------------------------------


def _problems(station: Station) -> Iterator[str]:
    """Yield a sentence for everything that does not fit, what explains the most first."""
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
            yield f"monitor {monitor.name} has neither min nor max, so it could never say stop"
        elif monitor.min is not None and monitor.max is not None and monitor.min >= monitor.max:
            yield f"monitor {monitor.name}: min {monitor.min:g} is not below max {monitor.max:g}"


def _addresses_shared(station: Station) -> Iterator[str]:
    """One instrument under two names: a channel could be heater and modulator, and each past the limits of the other."""
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
    bank = stage.topology == "weight_bank"  # its outputs are no modes of a mesh
    if taps > stage.ports and not bank:
        yield f"detectors of stage {stage.name}: {taps} channels, but the stage has {stage.ports} ports"
    if taps < stage.ports and not bank and stage.topology != "unknown":
        missing = stage.ports - taps
        yield f"detectors of stage {stage.name}: {taps} channels, so {missing} of its {stage.ports} ports lack a detector"
    covered = sorted(n for start, stop in heaters.groups.values() for n in range(start, stop))
    if heaters.groups and covered != list(range(count)):
        wrong = next((n for n in range(count) if covered.count(n) != 1), count)
        told = f"heater {wrong} is in {covered.count(wrong)} groups" if wrong < count else f"they reach beyond heater {count - 1}"
        yield f"groups of stage {stage.name} must cover each of its {count} heaters once, but {told}"
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


def _miscounted(where: str, key: str, values: tuple[float, ...], count: int) -> Iterator[str]:
    if len(values) not in {0, 1, count}:
        yield f"{where}: {key} is a list of {len(values)}, expected one number or one for each of {count} channels"


def _repeated(names: list[str]) -> list[str]:
    return sorted({name for name in names if names.count(name) > 1})


def _resolved(entries: tuple[int | str, ...], instrument: str) -> tuple[Channel, ...]:
    channels: list[Channel] = []
    for entry in entries:
        if isinstance(entry, int):
            channels.append(Channel(instrument, entry))
        else:
            name, _, number = entry.rpartition(":")
            channels.append(Channel(name, int(number)))
    return tuple(channels)
