"""Checks of channels, voltages and limits before anything is sent, and ways to send what must not fail."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from typing import TypeVar

from photonloop.drivers.instrument import ChannelLimits, UnconfirmedError
from photonloop.drivers.transports.interfaces import Transport
from photonloop.protocols.errors import DeviceError

Message = TypeVar("Message")

BACKSTOP = 5.0
"""Ratio of an instrument's own slew rate to that of the bench's ramps."""


def check_channels(name: str, channels: Sequence[int], count: int) -> None:
    """Raise "bad_request" if a channel does not exist; `name` is that of the instrument."""
    for channel in channels:
        if not 0 <= channel < count:
            raise DeviceError(
                "bad_request", f"{name} has no channel {channel}; its channels are 0 to {count - 1}", channel=channel
            )


def check_volts(name: str, volts: Mapping[int, float], limits: Sequence[ChannelLimits]) -> None:
    """Raise for the first voltage that is not finite ("bad_request") or outside the limits of its channel ("limit")."""
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
    """Return `hardware` tightened by `wanted`.

    The slew rate stays that of the hardware, since the bench makes the ramps. If the instrument has a slew rate of its
    own that can be set, use `slowed` on the result.

    Raises
    ------
    DeviceError
        "limit" if `wanted` exceeds the hardware.
    """
    if not (math.isfinite(wanted.min_v) and math.isfinite(wanted.max_v)) or wanted.min_v > wanted.max_v:
        raise DeviceError(
            "limit",
            f"{name}: channel {channel}: min_v {wanted.min_v} V must not be above max_v {wanted.max_v} V, "
            "and both must be finite",
        )
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
    """Return `limits` with a slew rate for the instrument itself, under a bench that ramps at `wanted_v_per_s` [V/s].

    The bench makes the ramps; the instrument's own slew rate is a second safeguard in case the bench fails. It is
    `BACKSTOP` times faster: if it were as slow as the ramp, the outputs would lag behind every step, and readings would
    be taken before they settle.
    """
    if wanted_v_per_s <= 0:
        return limits
    own_v_per_s = max(BACKSTOP * wanted_v_per_s, slowest_v_per_s)
    return replace(limits, slew_v_per_s=min(own_v_per_s, limits.slew_v_per_s or own_v_per_s))


def send_all(messages: Iterable[Message], send: Callable[[Message], object], give_up_after: int = 3) -> None:
    """Send every message even if some fail, then raise the first failure.

    Stops early after `give_up_after` failures in a row.
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
    """Call `attempts` in turn until one succeeds; send `last_resort` if no answer confirms the safe state.

    Parameters
    ----------
    transport
        Transport to the instrument.
    attempts
        Functions that bring the instrument to its safe state and confirm it.
    last_resort
        Plain, absolute commands for the same, one message each, sent without waiting for replies. They are sent after
        the first attempt that failed for lack of an answer, so that heaters are switched off before further attempts,
        and again at the end.
    what
        What the commands set, for error texts: "0 V", "off".

    Raises
    ------
    UnconfirmedError
        Every attempt failed, but `last_resort` was sent.
    DeviceError
        The first failure if the instrument refused; the first transport failure if `last_resort` could not be sent
        either.
    """
    first: DeviceError | None = None
    unanswered: DeviceError | None = None
    for attempt in attempts:
        try:
            attempt()
        except DeviceError as error:
            first = first or error
            if unanswered is None and error.code == "transport":
                unanswered = error
                with suppress(DeviceError):
                    transport.send_without_reply(last_resort)
        else:
            return
    if unanswered is not None:
        try:
            transport.send_without_reply(last_resort)
        except DeviceError:
            raise unanswered from None
        detail = f"{unanswered.detail}; {what} was sent to it without confirmation"
        raise UnconfirmedError("transport", detail, retryable=True, outcome="unknown") from unanswered
    if first is not None:
        raise first
