"""Tables of the station file: which instrument channel drives or reads which part of the chip, and all limits.

    [[instruments]] heaters ──┬── [stages.heaters]    channels = [0, 1, …]      in the order of the stage's drive
    [[instruments]] daq     ──┼── [stages.detectors]  channels = [0, 1, …]      in the order of the tap's ports
    [[instruments]] source  ──┼── [inputs]            channels = [0, 1, …]      in the order of the input ports
    [[instruments]] laser   ──┴── [laser]

Channels are numbered from 0, as the driver of the instrument counts them. If several instruments share a list, a
channel is written "instrument:number", as in `channels = ["meter1:0", "meter2:0"]`.

The models here check each table by itself. `photonloop.drivers.station.checks` checks tables against each other, and
`photonloop.drivers.bench.wiring` checks them against the opened instruments.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, model_validator

from photonloop.drivers.station.encoding_curve import Curve
from photonloop.protocols.device import StageGeometry

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


Entry = int | str
"""A channel in a station file: its number, or "instrument:number"."""


def _as_channels(value: Any) -> Any:
    """Return the entries of a `channels` list; ValueError if one is neither a number nor "instrument:number"."""
    if not isinstance(value, list | tuple) or not value:
        raise ValueError("must be a list of at least one channel")
    for entry in value:
        _check_entry(entry)
    return tuple(value)


def _as_heater_channels(value: Any) -> Any:
    """Return the entries of a `channels` list of heaters, each of which may be a list of two bonded channels."""
    if not isinstance(value, list | tuple) or not value:
        raise ValueError("must be a list of at least one channel")
    for entry in value:
        if isinstance(entry, list | tuple):
            if len(entry) != 2:
                raise ValueError(f"holds {entry!r}, expected a list of exactly two channels that drive the same heater")
            for one in entry:
                _check_entry(one)
        else:
            _check_entry(entry)
    return tuple(value)


def _check_entry(entry: Any) -> None:
    """Raise ValueError unless `entry` is a channel."""
    if isinstance(entry, int) and not isinstance(entry, bool) and entry >= 0:
        return
    if isinstance(entry, str):
        name, _, number = entry.rpartition(":")
        if name and number.isdecimal():
            return
    raise ValueError(f'holds {entry!r}, expected numbers from 0 or "instrument:number"')


def _as_many(value: Any) -> Any:
    return value if isinstance(value, list | tuple) else [value]


_Channels = Annotated[tuple[Entry, ...], BeforeValidator(_as_channels)]
_HeaterChannels = Annotated[tuple[Entry | tuple[Entry, Entry], ...], BeforeValidator(_as_heater_channels)]
_PerChannel = Annotated[tuple[_Positive, ...], BeforeValidator(_as_many)]
"""One number for all channels, or a list with one per channel."""


class _Table(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class LimitsTable(_Table):
    """Limits of every heater and of the whole chip. If a key is absent, only the limits of the instruments hold."""

    max_v: _Positive | None = None
    """Voltage of one heater [V]."""
    max_a: _Positive | None = None
    """Current of one heater [A]."""
    max_w: _Positive | None = None
    """Power of one heater [W]."""
    total_w: _Positive | None = None
    """Power of all heaters together [W]."""
    slew_v_per_s: _Positive | None = None
    """Fastest change of a heater voltage [V/s]; faster changes are ramped."""


class CapacityTable(_Table):
    """Largest size of one request."""

    max_batch: _Count = 2**12
    """Samples of one `evaluate`."""
    max_settings: _Count = 2**10
    """Settings of one `evaluate`."""
    max_readings: _Count = 2**22
    """Readings of one `evaluate`: settings × samples × detectors."""
    max_loaded_bytes: _Count = 2**28
    """Size of all loaded inputs together [bytes]."""


class InstrumentTable(_Table):
    """One instrument: its driver, address and settings."""

    name: _Name
    driver: str
    address: Annotated[str, Field(min_length=1)]
    """VISA resource name, in a form that the driver accepts."""
    serial: str = ""
    """Required serial number; empty: any."""
    library: str = "@py"
    """VISA library: "@py" for pyvisa-py, "@ivi" or a path for another one."""
    timeout_s: _NotNegative = 0.0
    """Longest time to wait for one answer [s]; 0: the default of the driver."""
    settings: dict[str, Any] = {}
    """Further settings of the driver (docs/drivers.md)."""


class HeatersTable(_Table):
    """The heaters of a stage, in the order of its drive."""

    instrument: str = ""
    """The instrument of channels that are plain numbers."""
    channels: _HeaterChannels
    """One entry per heater. A list of two channels of one source drives one heater with both, always alike: the heater
    may draw twice the current of one channel. Limits below are those of the heater."""
    groups: dict[str, tuple[int, int]] = {}
    """Kinds of phase shifters as [start, stop) within the stage; every heater is in one. Absent: one group "phase"."""
    max_v: _PerChannel = ()
    """Voltage of one heater [V]."""
    max_a: _PerChannel = ()
    """Current of one heater [A]."""
    max_w: _PerChannel = ()
    """Power of one heater [W]."""


class DetectorsTable(_Table):
    """The detectors of a stage's tap, in the order of its ports."""

    instrument: str = ""
    channels: _Channels
    ampere_per_unit: _PerChannel = ()
    """Photocurrent per unit of the readout: 1 / (amplifier gain in V/A) for volts, responsivity in A/W for watts.
    Required unless the readout reads in amperes."""
    full_scale_a: _PerChannel = ()
    """Photocurrent at which a detector saturates [A]; absent: the full scale of the readout."""
    trip_a: _PerChannel = ()
    """Bound of the photocurrent [A]. Above it, the light goes off and the bench is made safe: fault `over_power`."""
    noise_a: _NotNegative | None = None
    """Nominal standard deviation of a reading without light [A]; absent if unknown."""
    bandwidth_hz: _NotNegative | None = None
    """Nominal noise bandwidth of a detector and its amplifier [Hz]; absent if unknown."""


class StageTable(_Table):
    """One mesh with its heaters and the detectors behind it."""

    name: _Name
    topology: str = "unknown"
    ports: Annotated[int, Field(ge=1, le=4096)]
    nonlinearity: Literal["none", "electro-optic"] = "none"
    layout: tuple[tuple[int, int, int, int], ...] = ()
    """One row per interferometer: column, top mode, heater of θ, heater of φ; absent if unknown."""
    geometry: StageGeometry | None = None
    """Table [stages.geometry]: nominal positions of heaters and waveguides [m]; absent if unknown."""
    heaters: HeatersTable
    detectors: DetectorsTable


class InputsTable(_Table):
    """How light enters the input ports: one modulator per port, an optical 1×N switch, or fixed fibres."""

    kind: Literal["modulators", "switch", "fixed"] = "modulators"
    """switch: one port at a time has all the light. fixed: the amplitudes never change."""
    instrument: str = ""
    channels: _Channels = ()
    """In the order of the input ports: channels of the modulators' sources, or of the switch."""
    curve: Annotated[tuple[Curve, ...], BeforeValidator(_as_many)] = ()
    """Modulators: one curve for all ports, or a list with one per port."""
    settle_s: _NotNegative = 0.0
    """Settle time: from a new input to a valid reading [s]."""
    max_v: _PerChannel = ()
    """Modulators: highest voltage of a modulator [V]; absent: the limit of the instrument."""
    amplitudes: tuple[Annotated[float, Field(ge=0, le=1)], ...] = ()
    """Fixed inputs: the field amplitude at each input port."""
    phases_steady_s: _NotNegative | None = None
    """Nominal time in which the phase of an input changes by 0.1 rad relative to the others [s]; absent if unknown."""

    @model_validator(mode="after")
    def _has_the_keys_of_its_kind(self) -> Self:
        allowed = {"modulators": ("channels", "curve", "max_v"), "switch": ("channels",), "fixed": ("amplitudes",)}[self.kind]
        for key in ("channels", "curve", "max_v", "amplitudes"):
            given = bool(getattr(self, key))
            if given and key not in allowed:
                raise ValueError(f"{key} is given, but inputs of kind {self.kind!r} have none")
            if not given and key in allowed and key != "max_v":
                raise ValueError(f"{key} is missing: inputs of kind {self.kind!r} need it")
        return self

    @property
    def ports(self) -> int:
        """Number of input ports."""
        return len(self.amplitudes or self.channels)


class LaserTable(_Table):
    """The laser."""

    instrument: str
    power_w: _Positive
    """Output power to set [W]."""
    wavelength_nm: Annotated[float, Field(ge=200, le=20_000)] | None = None
    """Wavelength in vacuum to set [nm]; absent: left as it is."""
    warm_s: _NotNegative = 0.0
    """Warm-up time: from switching on to stable light [s]."""
    max_power_w: _Positive | None = None
    """Bound of the measured power [W]. Above it the bench is made safe, with fault `over_power`."""
    keep_on: bool = False
    """The light is not part of the safe state: once on, it stays on through `safe` and when the bench is closed, and
    needs no other warm-up meanwhile. The device then has no light switch. A fault switches it off nevertheless."""


class HeaterTable(_Table):
    """Nominal values of all heaters and their sources."""

    resistance_ohm: _Positive
    """Resistance [Ω]."""
    pi_power_w: _Positive
    """Power for a phase of π [W]."""
    time_constant_s: _NotNegative | None = None
    """Thermal time constant [s]; absent if unknown."""
    noise_v: _NotNegative | None = None
    """Standard deviation of a voltage between repeated settings [V]; absent if unknown."""


class MonitorTable(_Table):
    """A monitored quantity. Beyond its bounds the bench is made safe and latches a fault of this name."""

    name: _Name
    instrument: str
    channel: Annotated[int, Field(ge=0)]
    scale: _Finite = 1.0
    """Value = scale × reading + offset."""
    offset: _Finite = 0.0
    unit: str = ""
    min: _Finite | None = None
    max: _Finite | None = None


class Station(_Table):
    """The content of a station file."""

    name: Annotated[str, Field(min_length=1, max_length=80)]
    settle_s: Annotated[float, Field(ge=0, le=3600)]
    """Settle time: from a new heater drive to a valid reading [s]."""
    watch_s: Annotated[float, Field(gt=0, le=3600)] = 1.0
    """Interval at which errors, currents, monitors and laser are read [s]; in an evaluation, before a setting."""
    limits: LimitsTable = LimitsTable()
    capacity: CapacityTable = CapacityTable()
    heater: HeaterTable
    instruments: Annotated[tuple[InstrumentTable, ...], Field(min_length=1)]
    stages: Annotated[tuple[StageTable, ...], Field(min_length=1, max_length=64)]
    inputs: InputsTable
    laser: LaserTable | None = None
    monitors: tuple[MonitorTable, ...] = ()

    def heaters(self, stage: StageTable) -> tuple[tuple[Channel, ...], ...]:
        """Return the channels of each heater of a stage: one, or two that are bonded."""
        return tuple(
            _resolved(entry if isinstance(entry, tuple) else (entry,), stage.heaters.instrument)
            for entry in stage.heaters.channels
        )

    def heater_channels(self) -> tuple[Channel, ...]:
        """Return the channels of all heaters of all stages."""
        return tuple(channel for stage in self.stages for heater in self.heaters(stage) for channel in heater)

    def detectors(self, stage: StageTable) -> tuple[Channel, ...]:
        """Return the channels of a stage's detectors."""
        return _resolved(stage.detectors.channels, stage.detectors.instrument)

    def modulators(self) -> tuple[Channel, ...]:
        """Return the channels of the input modulators; none if the inputs are of another kind."""
        return self.input_channels() if self.inputs.kind == "modulators" else ()

    def input_channels(self) -> tuple[Channel, ...]:
        """Return the channels of the input modulators, or of the switch."""
        return _resolved(self.inputs.channels, self.inputs.instrument)


def _resolved(entries: tuple[Entry, ...], instrument: str) -> tuple[Channel, ...]:
    channels: list[Channel] = []
    for entry in entries:
        if isinstance(entry, int):
            channels.append(Channel(instrument, entry))
        else:
            name, _, number = entry.rpartition(":")
            channels.append(Channel(name, int(number)))
    return tuple(channels)
