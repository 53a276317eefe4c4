"""The QDAC-II as a drive source with every channel in fixed mode. See `qdac2` for the instrument."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NoReturn

import numpy as np
from numpy.typing import NDArray

from photonloop.drivers.helpers import scpi
from photonloop.drivers.helpers.channel_checks import (
    check_channels,
    check_volts,
    send_all,
    slowed,
    tightened,
    try_until_confirmed,
)
from photonloop.drivers.instrument import ChannelLimits, Identity
from photonloop.drivers.sources.qdac2_commands import channel_list, fixed_mode_commands, zero_commands
from photonloop.drivers.transports.interfaces import Transport
from photonloop.protocols.errors import DeviceError

ERROR_QUERY = "syst:err:all?"

MAX_SLEW_V_PER_S = 2e7
_MIN_SLEW_V_PER_S = 0.01
_TOLERANCE_V = 1e-3
"""A setpoint that reads back further away was not set by this driver."""


class Qdac2:
    """A `DriveSource` that `ReadsVolts` (its setpoints) and `ReadsAmps`. Made by `open_qdac2`."""

    def __init__(self, transport: Transport, range_v: float, held: NDArray[np.float64]) -> None:
        self._transport = transport
        self._hardware = ChannelLimits(-range_v, range_v, range_v=2 * range_v, slew_v_per_s=MAX_SLEW_V_PER_S)
        self._limits = [self._hardware] * len(held)
        self._written_limits: dict[int, ChannelLimits] = {}
        self._held = held
        self._maybe_in_list_mode: set[int] = set()
        """Channels that must be put into fixed mode before they are set."""
        transport.on_reconnect(lambda: self._restore_and_raise("was lost and reconnected"))

    @property
    def channels(self) -> int:
        """Number of channels in use."""
        return len(self._limits)

    def identify(self) -> Identity:
        """Query *IDN?."""
        return scpi.identity(self._transport.identity())

    def limits(self, channel: int) -> ChannelLimits:
        """Return the limits of `channel`."""
        check_channels(self._transport.name, [channel], self.channels)
        return self._limits[channel]

    def set_limits(self, limits: Mapping[int, ChannelLimits]) -> None:
        """Write the slew rates of the named channels (`slowed`); this driver checks the voltages."""
        check_channels(self._transport.name, tuple(limits), self.channels)
        tight = {
            c: slowed(tightened(self._transport.name, c, self._hardware, limit), limit.slew_v_per_s, _MIN_SLEW_V_PER_S)
            for c, limit in limits.items()
        }
        self._write_slews(tight)
        self._written_limits.update(tight)
        for channel, limit in tight.items():
            self._limits[channel] = limit

    def set_volts(self, volts: Mapping[int, float]) -> None:
        """Set the named channels in one message."""
        check_volts(self._transport.name, volts, self._limits)
        if volts:
            self._set(volts)

    def read_volts(self, channels: Sequence[int]) -> NDArray[np.float64]:
        """Return the setpoints [V] from the instrument, shape (channels,), in one exchange."""
        check_channels(self._transport.name, channels, self.channels)
        return self._read_setpoints(channels)

    def read_amps(self, channels: Sequence[int]) -> NDArray[np.float64]:
        """Return measured currents [A], shape (channels,), in one exchange."""
        check_channels(self._transport.name, channels, self.channels)
        numbers = ",".join(str(channel + 1) for channel in channels)
        return self._transport.query(f"read? (@{numbers})", lambda lines: scpi.numbers(lines[0], len(channels)))

    def check(self) -> None:
        """Raise the errors in the queue, and compare every setpoint with the one that was set last."""
        scpi.raise_errors(self._transport, ERROR_QUERY)
        if fixed := self._fixed_channels():
            self._compare(fixed, self._read_setpoints(fixed), self._held[fixed])

    def safe(self) -> None:
        """Set every channel to 0 V.

        Tries all channels in one message, the same again, one by one, and at last without waiting for replies.
        """
        zeros = dict.fromkeys(range(self.channels), 0.0)
        self._maybe_in_list_mode.update(zeros)

        def all_at_once() -> None:
            self._set(zeros)

        def one_by_one() -> None:
            send_all([{channel: 0.0} for channel in zeros], self._set)

        last_resort = [scpi.joined(zero_commands(channel)) for channel in zeros]
        try_until_confirmed(self._transport, [all_at_once, all_at_once, one_by_one], last_resort, "0 V")

    def close(self) -> None:
        """Close the transport; the outputs stay as they are."""
        self._transport.close()

    def _set(self, volts: Mapping[int, float]) -> None:
        in_list_mode = sorted(self._maybe_in_list_mode & set(volts))
        commands = fixed_mode_commands(in_list_mode) if in_list_mode else []
        commands += [f"sour{channel + 1}:volt {scpi.decimal(value)}" for channel, value in volts.items()]
        expected = self._held.copy()
        expected[list(volts)] = list(volts.values())
        fixed = sorted({*self._fixed_channels(), *volts})
        commands += [f"sour:volt? {channel_list(fixed)}", ERROR_QUERY]
        setpoints, error = self._transport.query(
            scpi.joined(commands), lambda lines: parse_volts_and_error(lines, len(fixed)), mutates=True
        )
        self._maybe_in_list_mode.difference_update(volts)
        self._held = expected
        if error:
            self._held[fixed] = setpoints
            raise DeviceError(
                "device", f"{self._transport.name} reported an error when voltages were set: {error}", outcome="unknown"
            )
        self._compare(fixed, setpoints, self._held[fixed])

    def _fixed_channels(self) -> list[int]:
        """Return the channels known to be in fixed mode."""
        return [channel for channel in range(self.channels) if channel not in self._maybe_in_list_mode]

    def _read_setpoints(self, channels: Sequence[int]) -> NDArray[np.float64]:
        """Return the setpoints of fixed mode [V], shape (channels,)."""
        return self._transport.query(f"sour:volt? {channel_list(channels)}", lambda lines: scpi.numbers(lines[0], len(channels)))

    def _compare(self, channels: Sequence[int], volts: NDArray[np.float64], expected: NDArray[np.float64]) -> None:
        """Raise if a channel is not at its expected voltage."""
        differs = np.abs(volts - expected) > _TOLERANCE_V
        if differs.any():
            index = int(np.argmax(differs))
            channel = channels[index]
            self._restore_and_raise(
                f"holds channel {channel} at {volts[index]:.6g} V although it was set to {expected[index]:.6g} V, "
                "so it was restarted or set by someone else",
                channel,
            )

    def _write_slews(self, limits: Mapping[int, ChannelLimits]) -> None:
        commands = [f"sour{c + 1}:volt:slew {scpi.decimal(limit.slew_v_per_s)}" for c, limit in limits.items()]
        if commands:
            scpi.set_and_check(self._transport, commands, ERROR_QUERY)

    def _adopt_setpoints(self) -> None:
        """Take the instrument's setpoints as the held drive."""
        self._held = self._read_setpoints(range(self.channels))

    def _restore_and_raise(self, reason: str, channel: int | None = None) -> NoReturn:
        """Write the limits again after a restart, adopt the instrument's setpoints, and raise."""
        self._write_slews(self._written_limits)
        self._adopt_setpoints()
        raise DeviceError(
            "device",
            f"{self._transport.name} {reason}: its limits have been written again, every channel must be set again",
            retryable=True,
            outcome="unknown",
            channel=channel,
        )


def parse_volts_and_error(lines: list[str], count: int) -> tuple[NDArray[np.float64], str]:
    """Return `count` voltages, shape (count,), and the error ("" if none) from the answer to both queries joined."""
    volts, _, error = lines[0].partition(";")
    return scpi.numbers(volts, count), scpi.parse_error(error)
