"""Checks of what a driver is asked for, before anything is written: channels, voltages, limits."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from typing import TypeVar

from photonloop.drivers.instrument import ChannelLimits, UnconfirmedError
from photonloop.drivers.transports.transport import Transport
from photonloop.protocols.errors import DeviceError

Message = TypeVar("Message")

BACKSTOP = 5.0
"""How many times faster than the bench's ramps an instrument's own slew is set."""


def check_channels(name: str, channels: Sequence[int], count: int) -> None:
    """Refuse channels that are not there; `name` is the instrument's."""
    for channel in channels:
        if not 0 <= channel < count:
            raise DeviceError("bad_request", f"{name} has channels 0 to {count - 1}, not {channel}", channel=channel)


def check_volts(name: str, volts: Mapping[int, float], limits: Sequence[ChannelLimits]) -> None:
    """Refuse the first voltage that is no number or beyond the limits of its channel; nothing is written then."""
    check_channels(name, tuple(volts), len(limits))
    for channel, value in volts.items():
        limit = limits[channel]
        if not math.isfinite(value):
            raise DeviceError("bad_request", f"{name}: channel {channel} cannot be set to {value} V", channel=channel)
        if not limit.min_v <= value <= limit.max_v:
            raise DeviceError(
                "limit",
                f"{name}: channel {channel} cannot be set to {value:.6g} V, its limits are {limit.min_v:.6g} V and "
                f"{limit.max_v:.6g} V",
                channel=channel,
            )


def tightened(name: str, channel: int, hardware: ChannelLimits, wanted: ChannelLimits) -> ChannelLimits:
    """Return `hardware` tightened by `wanted`; `DeviceError` "limit" where it is asked for more than the hardware can.

    The slew stays that of the hardware: whoever holds the drive ramps. An instrument that can be slowed is told so by `slowed`.
    """
    if not (math.isfinite(wanted.min_v) and math.isfinite(wanted.max_v)) or wanted.min_v > wanted.max_v:
        raise DeviceError("limit", f"{name}: channel {channel}: no voltage lies between {wanted.min_v} V and {wanted.max_v} V")
    if wanted.min_v < hardware.min_v or wanted.max_v > hardware.max_v:
        raise DeviceError(
            "limit",
            f"{name}: channel {channel} cannot be limited to {wanted.min_v:.6g} … {wanted.max_v:.6g} V, "
            f"the hardware reaches from {hardware.min_v:.6g} to {hardware.max_v:.6g} V",
            channel=channel,
        )
    for field, unit in (("max_a", "A"), ("max_w", "W"), ("slew_v_per_s", "V/s")):
        most, asked = getattr(hardware, field), getattr(wanted, field)
        if asked < 0 or not math.isfinite(asked) or (most > 0 and asked > most):
            raise DeviceError(
                "limit",
                f"{name}: channel {channel}: {field} cannot be {asked:.6g} {unit}, the hardware's limit is {most:.6g} {unit}",
                channel=channel,
            )
    return replace(
        hardware,
        min_v=wanted.min_v,
        max_v=wanted.max_v,
        max_a=wanted.max_a or hardware.max_a,
        max_w=wanted.max_w or hardware.max_w,
    )


def slowed(limits: ChannelLimits, wanted_v_per_s: float, slowest_v_per_s: float = 0.0) -> ChannelLimits:
    """Return `limits` of an instrument that slews by itself, told to keep a bench that ramps at `wanted_v_per_s` [V/s] in check.

    Ramps are the bench's. The instrument's own slew stands behind them, for a bench that fails, and so is several times faster:
    one as slow as the ramp would drag behind every step, and readings be taken before the outputs have arrived.
    """
    if wanted_v_per_s <= 0:
        return limits
    own_v_per_s = max(BACKSTOP * wanted_v_per_s, slowest_v_per_s)
    return replace(limits, slew_v_per_s=min(own_v_per_s, limits.slew_v_per_s or own_v_per_s))


def send_all(messages: Iterable[Message], send: Callable[[Message], object], give_up_after: int = 3) -> None:
    """Send every message even where some fail, and raise the first failure at the end.

    After `give_up_after` failures in a row the instrument is taken for dead.
    """
    first_error: DeviceError | None = None
    in_a_row = 0
    for message in messages:
        try:
            send(message)
            in_a_row = 0
        except DeviceError as error:
            first_error = first_error or error
            in_a_row += 1
            if in_a_row == give_up_after:
                break
    if first_error is not None:
        raise first_error


def try_until_confirmed(
    transport: Transport, attempts: Iterable[Callable[[], object]], last_resort: Sequence[str], what: str
) -> None:
    """Call one attempt after the other until one does not fail; send `last_resort` where answers are the trouble.

    Parameters
    ----------
    transport
        The way to the instrument.
    attempts
        What brings it to its safe state and makes sure.
    unheard
        Plain, absolute commands for the same, a message each. Sent after the first attempt that failed for want of an answer, so
        that heaters are not kept waiting while the others are tried, and again at the end.
    what
        What they say, as a person calls it: "0 V", "off".

    Raises
    ------
    UnconfirmedError
        Every attempt failed, but the commands have left.
    DeviceError
        The first failure, where the instrument itself refused, or not even that could be sent.
    """
    first: DeviceError | None = None
    silent: DeviceError | None = None
    for attempt in attempts:
        try:
            attempt()
        except DeviceError as error:
            first = first or error
            if silent is None and error.code == "transport":
                silent = error
                with suppress(DeviceError):
                    transport.send_without_reply(last_resort)
        else:
            return
    if silent is not None:
        try:
            transport.send_without_reply(last_resort)
        except DeviceError:
            raise silent from None
        told = f"{silent.detail}; {what} was sent to it all the same, and nothing confirms it"
        raise UnconfirmedError("transport", told, retryable=True, outcome="unknown") from silent
    if first is not None:
        raise first
