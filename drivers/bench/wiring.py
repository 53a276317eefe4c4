"""Combine a station file with its opened instruments: channels of each source, limits, and the device description.

    limits of a channel  =  hardware  ∩  station file  ∩  device string          (the tightest of those that are given)

Pure computation with the properties of the instruments. No instrument is called.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from photonloop.drivers.bench.bench_description import HardwareFacts, describe
from photonloop.drivers.bench.channel_limits import least, of_heater, one_of, share, span_v, together
from photonloop.drivers.instrument import (
    ChannelLimits,
    DriveSource,
    Instrument,
    Laser,
    MeasuresVolts,
    OpticalSwitch,
    Readout,
    ReadsAmps,
)
from photonloop.drivers.station import encoding_curve as curves
from photonloop.drivers.station.schema import Channel, LimitsTable, StageTable, Station
from photonloop.protocols.config import ConfigError
from photonloop.protocols.device import DeviceDescription

_KINDS: dict[type, str] = {
    DriveSource: "a drive source",
    Readout: "a readout",
    Laser: "a laser",
    OpticalSwitch: "an optical switch",
}


@dataclass(frozen=True)
class Bank:
    """Channels of one source that drive heaters or input modulators.

    Parameters
    ----------
    instrument, channels
        The source and its channels.
    members
        The numbers of the heaters or input ports on these channels, in the same order. A heater on two bonded channels
        is there twice.
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
    """The input modulators; empty if the inputs are of another kind."""
    switch: str
    """The instrument that switches the inputs; empty if there is none."""
    has_dark: bool
    """Whether that switch has a dark position."""
    taps: tuple[tuple[Tap, ...], ...]
    """The taps of each stage, one per readout."""


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
    heaters = [heater for stage in station.stages for heater in station.heaters(stage)]
    heater_limits = [
        of_heater(bounds, stage, number, _hardware(instruments, heater, f"heater {number} of stage {stage.name}"))
        for stage in station.stages
        for number, heater in enumerate(station.heaters(stage))
    ]
    taps = tuple(_taps(station, stage, instruments) for stage in station.stages)
    _check_light(station, instruments)
    switch = _switch(station, instruments)
    facts = HardwareFacts(
        heater_limits,
        total_power_w=least(bound.total_w for bound in bounds),
        full_scale_a=tuple(min(float(tap.full_scale_a.min()) for tap in stage_taps) for stage_taps in taps),
        read_s=max(sum(_readout(instruments, tap.instrument).sample_s for tap in stage_taps) for stage_taps in taps),
        reads_back=any(
            isinstance(instruments[channel.instrument], MeasuresVolts | ReadsAmps) for channel in station.heater_channels()
        ),
        serials=serials or {},
    )
    return Wiring(
        station,
        describe(station, facts),
        heaters=_banks(heaters, heater_limits),
        inputs=_banks([(channel,) for channel in station.modulators()], _input_limits(station, instruments)),
        switch=station.input_channels()[0].instrument if switch is not None else "",
        has_dark=switch is not None and switch.has_dark,
        taps=taps,
    )


def _input_limits(station: Station, instruments: Mapping[str, Instrument]) -> list[ChannelLimits]:
    limits: list[ChannelLimits] = []
    port_curves = station.inputs.curve
    for port, channel in enumerate(station.modulators()):
        hardware = _source(instruments, channel, f"input {port}")
        allowed = replace(hardware, max_v=least((hardware.max_v, one_of(station.inputs.max_v, port))), range_v=span_v(hardware))
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


# ---- instruments and their channels --------------------------------------------------------------------------


def _banks(loads: Sequence[tuple[Channel, ...]], limits: Sequence[ChannelLimits]) -> tuple[Bank, ...]:
    """Return the channels of all loads grouped by instrument; the numbers of the loads in the list are the members."""
    members = [member for member, load in enumerate(loads) for _ in load]
    channels = [channel for load in loads for channel in load]
    return tuple(
        Bank(
            instrument=name,
            channels=tuple(channels[k].number for k in places),
            members=np.array([members[k] for k in places], np.int64),
            limits={channels[k].number: share(limits[members[k]], len(loads[members[k]])) for k in places},
        )
        for name, places in _by_instrument(channels).items()
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
        ampere = np.array([one_of(table.ampere_per_unit, port) or 1.0 for port in ports])
        full_scale_a = np.array([one_of(table.full_scale_a, port) or 0.0 for port in ports])
        hardware_a = readout.full_scale * ampere if readout.full_scale > 0 else np.full(len(ports), np.inf)
        full_scale_a = np.where(full_scale_a > 0, np.minimum(full_scale_a, hardware_a), hardware_a)
        if np.isinf(full_scale_a).any():
            raise ConfigError(f"detectors of stage {stage.name}: {name} has no known full scale: set full_scale_a")
        trip_a = np.array([one_of(table.trip_a, port) or np.inf for port in ports])
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


def _switch(station: Station, instruments: Mapping[str, Instrument]) -> OpticalSwitch | None:
    """Return the optical switch of the inputs, checked against their channels; None if there is none."""
    if station.inputs.kind != "switch":
        return None
    name = station.input_channels()[0].instrument
    switch = instruments[name]
    if not isinstance(switch, OpticalSwitch):
        raise _wrong_kind(name, switch, OpticalSwitch, "inputs")
    for port, channel in enumerate(station.input_channels()):
        _check_number(channel, switch.channels, f"input {port}")
    return switch


def _hardware(instruments: Mapping[str, Instrument], channels: Sequence[Channel], user: str) -> ChannelLimits:
    """Return the limits of the hardware for `user`, which `channels` drive together."""
    return together([_source(instruments, channel, user) for channel in channels])


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
