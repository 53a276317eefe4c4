"""The instruments of a bench: protocols of drive sources, readouts, lasers and optical switches, and their obligations.

This is the file to read before writing a driver. A driver is a function that opens an instrument and returns an object
that implements one of the protocols below (`photonloop.drivers.registry` registers it). Constructors of instrument
classes never communicate. Channels are numbered from 0, whatever the front panel shows; each driver documents its
numbering.

        DriveSource                                       Readout
    set_volts({0: 1.2, 5: 3.0}) ──▶ heaters, modulators    detectors ──▶ read([0, 1, 2]) -> [0.31, 0.02, 0.17]

Obligations of every method
---------------------------
- A driver needs no lock and starts no thread: the bench calls an instrument from one thread at a time.
- A method returns or raises `DeviceError` within the time that its transport allows: `Transport.timeout_s`, several
  times over if a query is repeated. It never waits without a limit.
- For every failure outside the program it raises `DeviceError` and nothing else. The detail is one plain sentence that
  names the instrument, the command and the answer. The code is one of:
      "transport"    no answer, or an answer that cannot be parsed; the connection has been resynchronised, so that
                     a late reply is never taken for the reply to another query
      "device"       the instrument reports an error, has reported one since the last call, or has been restarted
      "limit"        the value is beyond the limits of the instrument or those that `set_limits` wrote; nothing was
                     written
      "bad_request"  the channel does not exist, or the value is NaN or infinite; nothing was written
- `outcome` is "not_applied" only if no byte of the command can have reached the instrument, or if the command changes
  nothing. The bench does not rely on it for calls that change settings: if one of those fails, all channels of the
  source are unknown, and making safe writes 0 V to each of them
  (`photonloop.drivers.bench.instrument_handle.InstrumentHandle.mutate`).
- `retryable` is true only if the same call may be repeated at once and can do no harm.
- Setpoints are absolute.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from photonloop.protocols.errors import DeviceError


class UnconfirmedError(DeviceError):
    """The command to go to 0 V, or to switch the light off, was sent, but the instrument did not confirm it."""


@dataclass(frozen=True)
class Identity:
    """The identity that an instrument reports. A field is empty if the instrument does not report it."""

    vendor: str
    model: str
    serial: str = ""
    firmware: str = ""

    def __str__(self) -> str:
        parts = (self.vendor, self.model, self.serial and f"serial {self.serial}", self.firmware and f"firmware {self.firmware}")
        return " ".join(part for part in parts if part)


@dataclass(frozen=True)
class ChannelLimits:
    """Limits of one channel of a drive source; 0 means no limit of that kind, or an unknown one.

    Parameters
    ----------
    min_v, max_v
        Lowest and highest drive [V].
    max_a
        Highest current [A].
    max_w
        Highest power into the load [W].
    bits
        Resolution over `range_v`; 0: continuous or unknown.
    range_v
        Range of the converter, from lowest to highest code [V]; 0: max_v - min_v.
    slew_v_per_s
        Fastest change [V/s]. In the result of `DriveSource.limits`: the slew of the instrument itself; readings wait
        until the output has arrived. In the argument of `DriveSource.set_limits`: the slew of the ramps that the bench
        makes.
    """

    min_v: float
    max_v: float
    max_a: float = 0.0
    max_w: float = 0.0
    bits: int = 0
    range_v: float = 0.0
    slew_v_per_s: float = 0.0


@runtime_checkable
class Instrument(Protocol):
    """The methods of every instrument."""

    def identify(self) -> Identity:
        """Query the identity of the instrument. Changes nothing."""
        ...

    def check(self) -> None:
        """Raise `DeviceError` "device" if the instrument has reported an error since the last call, queried or
        unsolicited.

        The error is cleared: a second call raises only if there is another error.
        """
        ...

    def close(self) -> None:
        """Close the connection without changing any output; call `safe` first. Closing twice is harmless."""
        ...


@runtime_checkable
class DriveSource(Instrument, Protocol):
    """A multichannel voltage source: heaters, input modulators.

    After a restart (power loss, reset) an instrument is at its power-up voltages and has lost its limits. A driver that
    detects a restart writes the limits of `set_limits` again, then raises "device" with outcome "unknown" and retryable
    true. The caller then writes every channel again, changed or not.
    """

    @property
    def channels(self) -> int:
        """Number of channels; they are numbered 0 … channels - 1."""
        ...

    def limits(self, channel: int) -> ChannelLimits:
        """Return the limits of the hardware for `channel`, tightened by `set_limits`. No communication."""
        ...

    def set_limits(self, limits: Mapping[int, ChannelLimits]) -> None:
        """Write limits into the instrument, as far as it has its own, and keep them to write them again after a
        restart.

        Limits can only be tightened: raises "limit" if one is wider than the hardware allows. `set_volts` checks them
        too, also if the instrument has no limits of its own. The slew of the instrument itself is set well above that
        of the ramps (`photonloop.drivers.helpers.channel_checks.slowed`).
        """
        ...

    def set_volts(self, volts: Mapping[int, float]) -> None:
        """Set the given channels to absolute voltages [V] and leave the others, in one exchange if the instrument can.

        Every value is checked before the first is written. On return the instrument has accepted the values, which the
        driver has verified by querying its errors. The caller is responsible for slew and settling.
        """
        ...

    def safe(self) -> None:
        """Bring every channel to 0 V by every available means; raise only after all have been tried.

        If the source does not answer, or its answers cannot be parsed, 0 V is sent nevertheless without waiting for a
        reply (`photonloop.drivers.helpers.channel_checks.try_until_confirmed`), and `UnconfirmedError` is raised.
        """
        ...


@runtime_checkable
class ReadsVolts(Protocol):
    """A drive source that reads back the voltages of its channels, set or measured; its driver documents which."""

    def read_volts(self, channels: Sequence[int]) -> NDArray[np.float64]:
        """Return voltages [V], shape (channels,), in the order of `channels`, in one exchange."""
        ...


@runtime_checkable
class MeasuresVolts(Protocol):
    """A drive source that measures the voltages at its outputs. An echo of setpoints is no measurement."""

    def measure_volts(self, channels: Sequence[int]) -> NDArray[np.float64]:
        """Return measured voltages [V], shape (channels,), in the order of `channels`, in one exchange."""
        ...


@runtime_checkable
class ReadsAmps(Protocol):
    """A drive source that measures the currents it drives."""

    def read_amps(self, channels: Sequence[int]) -> NDArray[np.float64]:
        """Return currents [A], shape (channels,), in the order of `channels`, in one exchange."""
        ...


@runtime_checkable
class StepsThroughList(Protocol):
    """A drive source that loads a list of settings and goes to each one on command.

    The bench then sends the settings of an evaluation once, and one short command per setting. `set_volts` of any
    channel in the list, and `safe`, end the list. Channels that these calls do not set keep the voltage of the last
    step.
    """

    def load_steps(self, channels: Sequence[int], volts: NDArray[np.float64]) -> int:
        """Load the first rows of `volts`, shape (steps, channels) [V], and return how many were loaded.

        The driver loads as many as fit into one exchange. Every step is checked like `set_volts` before anything is
        sent. The outputs do not change, which the driver verifies. Returns 0 if the source cannot step through lists at
        present; the caller then uses `set_volts`. A list that was loaded before is discarded.
        """
        ...

    def go_to_step(self, step: int) -> None:
        """Bring all channels of the list to the loaded step `step`, counted from 0; on return they are known to be
        there.

        The step number is absolute. If a source only has a "next step" command and its answer is lost, the driver sets
        the voltages of the step with `set_volts`, which ends the list in the source.
        """
        ...


@runtime_checkable
class Readout(Instrument, Protocol):
    """Detectors with their converters."""

    @property
    def channels(self) -> int:
        """Number of channels; they are numbered 0 … channels - 1."""
        ...

    @property
    def unit(self) -> str:
        """Unit of the readings: "A", "V" or "W"."""
        ...

    @property
    def full_scale(self) -> float:
        """Reading at which a channel saturates; 0: unknown."""
        ...

    @property
    def sample_s(self) -> float:
        """Approximate time of one `read` of all channels [s], without the round trip."""
        ...

    def read(self, channels: Sequence[int]) -> NDArray[np.float64]:
        """Measure now and return readings [unit], shape (channels,), in the order of `channels`, in one exchange.

        Every reading was measured after the call began. A measurement that was running or buffered before is never
        returned. If the instrument reports an overload, the reading is ±infinity, never a finite number.
        """
        ...


@runtime_checkable
class Laser(Instrument, Protocol):
    """A tunable laser.

    After a restart a laser may be off and have other settings. A driver that detects a restart raises "device" with
    outcome "unknown" and retryable true. The caller then sets power and wavelength and switches the light on again.
    """

    def on(self) -> None:
        """Switch the light on; returns once the instrument has accepted the command, not once the light is stable."""
        ...

    def off(self) -> None:
        """Switch the light off, by every available means."""
        ...

    def is_on(self) -> bool:
        """Return whether the instrument reports that the light is on."""
        ...

    def set_power_w(self, power_w: float) -> None:
        """Set the output power [W]; raises "limit" beyond the limits of the instrument or its settings."""
        ...

    def power_w(self) -> float:
        """Return the measured output power [W], or the setpoint if the instrument does not measure it."""
        ...

    def set_wavelength_nm(self, wavelength_nm: float) -> None:
        """Set the wavelength in vacuum [nm]; raises "limit" beyond the limits of the instrument or its settings."""
        ...

    def wavelength_nm(self) -> float:
        """Return the wavelength that the instrument reports [nm]."""
        ...


@runtime_checkable
class OpticalSwitch(Instrument, Protocol):
    """An optical 1×N switch: its light leaves at one channel at a time.

    After a restart a switch may be at any channel. A driver that detects a restart raises "device" with outcome
    "unknown" and retryable true. The caller then selects a channel again.
    """

    @property
    def channels(self) -> int:
        """Number of channels; they are numbered 0 … channels - 1."""
        ...

    @property
    def has_dark(self) -> bool:
        """Whether the switch can block its light at all channels."""
        ...

    def select(self, channel: int | None) -> None:
        """Direct the light to `channel`, or to none of them (None).

        On return the instrument has accepted the channel. The caller is responsible for settling. Raises "bad_request"
        for None if there is no dark position.
        """
        ...

    def selected(self) -> int | None:
        """Return the channel that the instrument reports; None if it is dark."""
        ...
