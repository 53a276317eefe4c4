"""The description of a bench, from its station file and the properties of its instruments."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from photonloop.drivers.bench.channel_limits import least, span_v
from photonloop.drivers.instrument import ChannelLimits
from photonloop.drivers.station.schema import InputsTable, Station
from photonloop.protocols.device import (
    DeviceDescription,
    DriveDescription,
    LimitsDescription,
    ReadoutDescription,
    StageDescription,
)


@dataclass(frozen=True)
class HardwareFacts:
    """Properties of the opened instruments that the description contains.

    Parameters
    ----------
    heater_limits
        Limits of each heater of the device.
    total_power_w
        Limit of the total heater power [W]; 0: none.
    full_scale_a
        Reading at which the detectors of each stage saturate [A].
    read_s
        Time to read the detectors of one stage once [s].
    reads_back
        Whether a source of heaters measures voltages or currents.
    serials
        Identity of each instrument.
    """

    heater_limits: Sequence[ChannelLimits]
    total_power_w: float
    full_scale_a: tuple[float, ...]
    read_s: float
    reads_back: bool
    serials: Mapping[str, str]


def describe(station: Station, facts: HardwareFacts) -> DeviceDescription:
    """Return the description of the bench of `station`."""
    detectors = [stage.detectors for stage in station.stages]
    noise_a = [table.noise_a for table in detectors if table.noise_a is not None]
    return DeviceDescription(
        name=station.name,
        kind="bench",
        serials=dict(facts.serials),
        input_ports=station.inputs.ports,
        inputs_at_once=_inputs_at_once(station.inputs),
        phases_settable=False,
        phases_steady_s=station.inputs.phases_steady_s,
        light_switch=station.laser is not None and not station.laser.keep_on,
        reads_back=facts.reads_back,
        stages=_describe_stages(station),
        drive=_describe_drive(station, facts.heater_limits),
        readout=ReadoutDescription(
            full_scale=facts.full_scale_a,
            sample_s=station.inputs.settle_s + facts.read_s,
            noise=tuple(noise_a) if len(noise_a) == len(detectors) else None,
            bandwidth_hz=max((table.bandwidth_hz for table in detectors if table.bandwidth_hz is not None), default=None),
        ),
        limits=LimitsDescription(
            voltage_v=tuple(limit.max_v for limit in facts.heater_limits),
            current_a=tuple(limit.max_a for limit in facts.heater_limits),
            power_w=tuple(limit.max_w for limit in facts.heater_limits),
            total_power_w=facts.total_power_w,
            slew_v_per_s=least(limit.slew_v_per_s for limit in facts.heater_limits),
            **station.capacity.model_dump(),
        ),
        clock="real",
    )


def _inputs_at_once(inputs: InputsTable) -> Literal["many", "one"]:
    is_one = inputs.kind == "switch" or (inputs.kind == "fixed" and sum(value > 0 for value in inputs.amplitudes) <= 1)
    return "one" if is_one else "many"


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
                geometry=stage.geometry,
            )
        )
        first += count
    return tuple(stages)


def _describe_drive(station: Station, heater_limits: Sequence[ChannelLimits]) -> DriveDescription:
    """Return the drive of all heaters, with the resolution of the coarsest converter."""
    coarsest = max(heater_limits, key=lambda limit: span_v(limit) / (2**limit.bits - 1) if limit.bits else 0.0)
    return DriveDescription(
        min_v=0.0,
        max_v=max(limit.max_v for limit in heater_limits),
        bits=coarsest.bits,
        range_v=span_v(coarsest) if coarsest.bits else 0.0,
        settle_s=station.settle_s,
        resistance_ohm=station.heater.resistance_ohm,
        pi_power_w=station.heater.pi_power_w,
        noise_v=station.heater.noise_v,
        time_constant_s=station.heater.time_constant_s,
    )
