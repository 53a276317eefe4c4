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

from dataclasses import dataclass
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

from photonloop.drivers.station.encoding_curve import Curve

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


def _resolved(entries: tuple[int | str, ...], instrument: str) -> tuple[Channel, ...]:
    channels: list[Channel] = []
    for entry in entries:
        if isinstance(entry, int):
            channels.append(Channel(instrument, entry))
        else:
            name, _, number = entry.rpartition(":")
            channels.append(Channel(name, int(number)))
    return tuple(channels)
