"""Limits of heaters and of the source channels that drive them, from hardware, station file and device string."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace

from photonloop.drivers.instrument import ChannelLimits
from photonloop.drivers.station.schema import LimitsTable, StageTable
from photonloop.protocols.config import ConfigError


def of_heater(bounds: Sequence[LimitsTable], stage: StageTable, number: int, hardware: ChannelLimits) -> ChannelLimits:
    """Return the limits of heater `number` of a stage on `hardware`, tightened by all `bounds` and its own table.

    Raises
    ------
    ConfigError
        Its channel cannot be set to 0 V.
    """
    if hardware.min_v > 0 or hardware.max_v <= 0:
        raise ConfigError(
            f"heater {number} of stage {stage.name}: its channel runs from {hardware.min_v:g} to {hardware.max_v:g} V, "
            "but a heater must be able to be set to 0 V"
        )
    own = {key: one_of(getattr(stage.heaters, key), number) for key in ("max_v", "max_a", "max_w")}
    return replace(
        hardware,
        min_v=0.0,
        max_v=least((hardware.max_v, own["max_v"], *(bound.max_v for bound in bounds))),
        max_a=least((hardware.max_a, own["max_a"], *(bound.max_a for bound in bounds))),
        max_w=least((hardware.max_w, own["max_w"], *(bound.max_w for bound in bounds))),
        # The range of the converter stays that of the hardware, even if little of it is used.
        range_v=span_v(hardware),
        slew_v_per_s=least((hardware.slew_v_per_s, *(bound.slew_v_per_s for bound in bounds))),
    )


def together(channels: Sequence[ChannelLimits]) -> ChannelLimits:
    """Return the limits of `channels` that drive one load together: the tightest voltages, the sum of the currents.

    The channels share the current equally, so the tightest limit of one of them counts for each.
    """
    if len(channels) == 1:
        return channels[0]
    count = len(channels)
    return ChannelLimits(
        min_v=max(channel.min_v for channel in channels),
        max_v=min(channel.max_v for channel in channels),
        max_a=count * least(channel.max_a for channel in channels),
        max_w=count * least(channel.max_w for channel in channels),
        bits=min(channel.bits for channel in channels),
        range_v=max(span_v(channel) for channel in channels),
        slew_v_per_s=least(channel.slew_v_per_s for channel in channels),
    )


def share(limits: ChannelLimits, count: int) -> ChannelLimits:
    """Return the limits of one of `count` channels that drive a load with `limits` together."""
    return limits if count == 1 else replace(limits, max_a=limits.max_a / count, max_w=limits.max_w / count)


def least(values: Iterable[float | None]) -> float:
    """Return the least of the limits that are given; 0, meaning no limit, if none is."""
    return min((value for value in values if value), default=0.0)


def one_of(values: Sequence[float], number: int) -> float | None:
    """Return the value of channel `number` in a list with one value for all channels, or one per channel, or none."""
    return (values[number] if len(values) > 1 else values[0]) if values else None


def span_v(limits: ChannelLimits) -> float:
    """Return the range of the converter [V]."""
    return limits.range_v or limits.max_v - limits.min_v
