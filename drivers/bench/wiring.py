"""Combine a station file with its opened instruments: channels of each source, limits, and the device description.

    limits of a channel  =  hardware  ∩  station file  ∩  device string          (the tightest of those that are given)

Pure computation with the properties of the instruments. No instrument is called.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from photonloop.drivers.instrument import ChannelLimits, DriveSource, Instrument, Laser, Readout
from photonloop.drivers.station import encoding_curve as curves
from photonloop.drivers.station.schema import Channel, LimitsTable, StageTable, Station
from photonloop.protocols.config import ConfigError
from photonloop.protocols.device import (
    DeviceDescription,
    DriveDescription,
    LimitsDescription,
    ReadoutDescription,
    StageDescription,
)

_KINDS: dict[type, str] = {DriveSource: "a drive source", Readout: "a readout", Laser: "a laser"}


@dataclass(frozen=True)
class Bank:
    """Channels of one source that drive heaters or input modulators.

    Parameters
    ----------
    instrument, channels
        The source and its channels.
    members
        The numbers of the heaters or input ports on these channels, in the same order.
    limits
        By channel; written into the instrument if it has limits of its own.
    """

    instrument: str
    channels: tuple[int, ...]
    members: NDArray[np.int64]
    limits: Mapping[int, ChannelLimits]


@dataclass(frozen=True)
class Tap:
    """Detectors of one stage on one readout.

    Parameters
    ----------
    instrument, channels
        The readout and its channels.
    ports
        Their columns in the readings of the stage.
    ampere_per_unit, full_scale_a, trip_a
        One per detector. `trip_a` is infinite for a detector without a bound.
    trips
        Whether any detector has a bound `trip_a`.
    """

    instrument: str
    channels: tuple[int, ...]
    ports: NDArray[np.int64]
    ampere_per_unit: NDArray[np.float64]
    full_scale_a: NDArray[np.float64]
    trip_a: NDArray[np.float64]
    trips: bool


@dataclass(frozen=True)
class Wiring:
    """The whole bench as data: the station, its description, and the channels of each source and readout."""

    station: Station
    description: DeviceDescription
    heaters: tuple[Bank, ...]
    inputs: tuple[Bank, ...]
    taps: tuple[tuple[Tap, ...], ...]
    """The taps of each stage, one per readout."""

    def input_volts(self, amplitudes: NDArray[np.floating]) -> NDArray[np.float64]:
        """Return modulator drives [V] for field amplitudes, both of shape (samples, input ports)."""
        port_curves = self.station.inputs.curve
        if len(port_curves) == 1:
            return curves.drive_for_amplitudes(port_curves[0], amplitudes)
        return np.stack(
            [curves.drive_for_amplitudes(curve, amplitudes[:, port]) for port, curve in enumerate(port_curves)], axis=1
        )


def wire(
    station: Station,
    instruments: Mapping[str, Instrument],
    limits: LimitsTable | None = None,
    serials: Mapping[str, str] | None = None,
) -> Wiring:
    """Return the wiring of a bench.

    Parameters
    ----------
    station
        The station file.
    instruments
        The opened instruments, by name.
    limits
        Limits in the device string, which tighten those of station file and hardware.
    serials
        The identity of each instrument, for the description.

    Raises
    ------
    ConfigError
        An instrument is of the wrong kind or lacks a channel, or a curve or unit does not fit it.
    """
    bounds = (station.limits, limits or LimitsTable())
    heater_limits = [
        _heater_limits(bounds, stage, number, _source(instruments, channel, f"heater {number} of stage {stage.name}"))
        for stage in station.stages
        for number, channel in enumerate(station.heaters(stage))
    ]
    heaters = _banks([channel for stage in station.stages for channel in station.heaters(stage)], heater_limits)
    inputs = _banks(station.modulators(), _input_limits(station, instruments))
    taps = tuple(_taps(station, stage, instruments) for stage in station.stages)
    _check_light(station, instruments)
    description = _describe(station, instruments, bounds, heater_limits, taps, serials or {})
    return Wiring(station, description, heaters, inputs, taps)


def _describe(
    station: Station,
    instruments: Mapping[str, Instrument],
    bounds: tuple[LimitsTable, ...],
    heater_limits: list[ChannelLimits],
    taps: tuple[tuple[Tap, ...], ...],
    serials: Mapping[str, str],
) -> DeviceDescription:
    read_s = max(sum(_readout(instruments, tap.instrument).sample_s for tap in stage_taps) for stage_taps in taps)
    return DeviceDescription(
        name=station.name,
        kind="bench",
        serials=dict(serials),
        input_ports=len(station.inputs.channels),
        phases_settable=False,
        stages=_describe_stages(station),
        drive=_describe_drive(station, heater_limits),
        readout=ReadoutDescription(
            full_scale=tuple(min(float(tap.full_scale_a.min()) for tap in stage_taps) for stage_taps in taps),
            sample_s=station.inputs.settle_s + read_s,
        ),
        limits=LimitsDescription(
            voltage_v=tuple(limit.max_v for limit in heater_limits),
            current_a=tuple(limit.max_a for limit in heater_limits),
            power_w=tuple(limit.max_w for limit in heater_limits),
            total_power_w=_least(bound.total_w for bound in bounds),
            slew_v_per_s=_least(limit.slew_v_per_s for limit in heater_limits),
            **station.capacity.model_dump(),
        ),
        clock="real",
    )


def _describe_stages(station: Station) -> tuple[StageDescription, ...]:
    stages: list[StageDescription] = []
    first = 0
    for stage in station.stages:
        count = len(stage.heaters.channels)
        stages.append(
            StageDescription(
                name=stage.name,
                topology=stage.topology,
                ports=stage.ports,
                first_channel=first,
                channels=count,
                groups=stage.heaters.groups or {"phase": (0, count)},
                layout=stage.layout,
                tap_ports=len(stage.detectors.channels),
                nonlinearity=stage.nonlinearity,
            )
        )
        first += count
    return tuple(stages)


def _describe_drive(station: Station, heater_limits: list[ChannelLimits]) -> DriveDescription:
    """Return the drive of all heaters, with the resolution of the coarsest converter."""
    coarsest = max(heater_limits, key=lambda limit: _span_v(limit) / (2**limit.bits - 1) if limit.bits else 0.0)
    return DriveDescription(
        min_v=0.0,
        max_v=max(limit.max_v for limit in heater_limits),
        bits=coarsest.bits,
        range_v=_span_v(coarsest) if coarsest.bits else 0.0,
        settle_s=station.settle_s,
        resistance_ohm=station.heater.resistance_ohm,
        pi_power_w=station.heater.pi_power_w,
    )


# ---- limits ---------------------------------------------------------------------------------------------------


def _heater_limits(bounds: tuple[LimitsTable, ...], stage: StageTable, number: int, hardware: ChannelLimits) -> ChannelLimits:
    if hardware.min_v > 0 or hardware.max_v <= 0:
        raise ConfigError(
            f"heater {number} of stage {stage.name}: its channel runs from {hardware.min_v:g} to {hardware.max_v:g} V, "
            "but a heater must be able to be set to 0 V"
        )
    own = {key: _one_of(getattr(stage.heaters, key), number) for key in ("max_v", "max_a", "max_w")}
    return replace(
        hardware,
        min_v=0.0,
        max_v=_least((hardware.max_v, own["max_v"], *(bound.max_v for bound in bounds))),
        max_a=_least((hardware.max_a, own["max_a"], *(bound.max_a for bound in bounds))),
        max_w=_least((hardware.max_w, own["max_w"], *(bound.max_w for bound in bounds))),
        # The range of the converter stays that of the hardware, even if little of it is used.
        range_v=_span_v(hardware),
        slew_v_per_s=_least((hardware.slew_v_per_s, *(bound.slew_v_per_s for bound in bounds))),
    )


def _input_limits(station: Station, instruments: Mapping[str, Instrument]) -> list[ChannelLimits]:
    limits: list[ChannelLimits] = []
    port_curves = station.inputs.curve
    for port, channel in enumerate(station.modulators()):
        hardware = _source(instruments, channel, f"input {port}")
        allowed = replace(
            hardware, max_v=_least((hardware.max_v, _one_of(station.inputs.max_v, port))), range_v=_span_v(hardware)
        )
        low, high = curves.range_v(port_curves[port if len(port_curves) > 1 else 0])
        if low < allowed.min_v or high > allowed.max_v:
            raise ConfigError(
                f"inputs: the curve of port {port} runs from {low:g} to {high:g} V, "
                f"but channel {channel} allows {allowed.min_v:g} to {allowed.max_v:g} V"
            )
        if not allowed.min_v <= 0.0 <= allowed.max_v:
            raise ConfigError(f"inputs: channel {channel} cannot be set to 0 V, the safe voltage of a modulator")
        limits.append(allowed)
    return limits


def _least(values: Iterable[float | None]) -> float:
    """Return the least of the limits that are given; 0, meaning no limit, if none is."""
    return min((value for value in values if value), default=0.0)


def _one_of(values: Sequence[float], number: int) -> float | None:
    return (values[number] if len(values) > 1 else values[0]) if values else None


def _span_v(limits: ChannelLimits) -> float:
    return limits.range_v or limits.max_v - limits.min_v


# ---- instruments and their channels --------------------------------------------------------------------------


def _banks(channels: Sequence[Channel], limits: Sequence[ChannelLimits]) -> tuple[Bank, ...]:
    """Return `channels` grouped by instrument; their positions in the list are the members."""
    return tuple(
        Bank(
            instrument=name,
            channels=tuple(channels[k].number for k in members),
            members=np.array(members, np.int64),
            limits={channels[k].number: limits[k] for k in members},
        )
        for name, members in _by_instrument(channels).items()
    )


def _taps(station: Station, stage: StageTable, instruments: Mapping[str, Instrument]) -> tuple[Tap, ...]:
    channels, table = station.detectors(stage), stage.detectors
    taps: list[Tap] = []
    for name, ports in _by_instrument(channels).items():
        readout = _readout(instruments, name)
        for port in ports:
            _check_number(channels[port], readout.channels, f"detector {port} of stage {stage.name}")
        if readout.unit != "A" and not table.ampere_per_unit:
            raise ConfigError(f"detectors of stage {stage.name}: {name} reads in {readout.unit}, so ampere_per_unit is needed")
        ampere = np.array([_one_of(table.ampere_per_unit, port) or 1.0 for port in ports])
        full_scale_a = np.array([_one_of(table.full_scale_a, port) or 0.0 for port in ports])
        hardware_a = readout.full_scale * ampere if readout.full_scale > 0 else np.full(len(ports), np.inf)
        full_scale_a = np.where(full_scale_a > 0, np.minimum(full_scale_a, hardware_a), hardware_a)
        if np.isinf(full_scale_a).any():
            raise ConfigError(f"detectors of stage {stage.name}: {name} has no known full scale: set full_scale_a")
        trip_a = np.array([_one_of(table.trip_a, port) or np.inf for port in ports])
        taps.append(
            Tap(
                instrument=name,
                channels=tuple(channels[port].number for port in ports),
                ports=np.array(ports, np.int64),
                ampere_per_unit=ampere,
                full_scale_a=full_scale_a,
                trip_a=trip_a,
                trips=bool(np.isfinite(trip_a).any()),
            )
        )
    return tuple(taps)


def _check_light(station: Station, instruments: Mapping[str, Instrument]) -> None:
    if station.laser is not None:
        _of_kind(instruments, station.laser.instrument, Laser, "laser")
    for monitor in station.monitors:
        readout = _readout(instruments, monitor.instrument)
        _check_number(Channel(monitor.instrument, monitor.channel), readout.channels, f"monitor {monitor.name}")


def _source(instruments: Mapping[str, Instrument], channel: Channel, user: str) -> ChannelLimits:
    """Return the limits of the hardware for `channel`, which drives `user`."""
    source = instruments[channel.instrument]
    if not isinstance(source, DriveSource):
        raise _wrong_kind(channel.instrument, source, DriveSource, user)
    _check_number(channel, source.channels, user)
    return source.limits(channel.number)


def _readout(instruments: Mapping[str, Instrument], name: str) -> Readout:
    readout = instruments[name]
    if not isinstance(readout, Readout):
        raise _wrong_kind(name, readout, Readout, "detectors and monitors")
    return readout


def _of_kind(instruments: Mapping[str, Instrument], name: str, kind: type, user: str) -> None:
    if not isinstance(instruments[name], kind):
        raise _wrong_kind(name, instruments[name], kind, user)


def _wrong_kind(name: str, instrument: Instrument, wanted: type, user: str) -> ConfigError:
    found = next((words for kind, words in _KINDS.items() if isinstance(instrument, kind)), "of an unknown kind")
    return ConfigError(f"{user}: {name} is {found}, expected {_KINDS[wanted]}")


def _check_number(channel: Channel, count: int, user: str) -> None:
    if channel.number >= count:
        raise ConfigError(
            f"{user}: channel {channel.number} of {channel.instrument} does not exist, its channels are 0 to {count - 1}"
        )


def _by_instrument(channels: Sequence[Channel]) -> dict[str, list[int]]:
    places: dict[str, list[int]] = {}
    for place, channel in enumerate(channels):
        places.setdefault(channel.instrument, []).append(place)
    return places
