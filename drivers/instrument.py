"""What a bench asks of an instrument: drive sources, readouts, lasers.

This file is what the author of a driver reads. A driver is a function that opens an instrument and returns an object that
satisfies one of the protocols below; constructors never touch hardware. Channels are numbered from 0 as the driver counts
them, whatever the front panel says, and every driver states its own counting.

        DriveSource                                       Readout
    set_volts({0: 1.2, 5: 3.0}) ──▶ heaters, modulators    detectors ──▶ read([0, 1, 2]) -> [0.31, 0.02, 0.17]

Obligations of every method
---------------------------
- One thread at a time; a driver holds no lock and starts no thread.
- It returns, or raises `DeviceError`, within the time that its transport allows (`Transport.timeout_s`, a few times over where
  a query is repeated). Nothing waits for ever.
- It raises `DeviceError` and nothing else for whatever the outside world does wrong, in one plain sentence that names the
  instrument, the command and what was answered:
      "transport"    no answer, or none that can be understood; the way has been cleared, so that no late reply is ever taken
                     for another's
      "device"       the instrument itself complains, has complained since the last call, or has been restarted
      "limit"        the value is beyond what the instrument allows or has been armed with; nothing was written
      "bad_request"  no such channel, or a value that is no number; nothing was written
- `outcome` is "not_applied" only where no byte of the command can have reached the instrument, or the command changes nothing.
  The bench does not rely on it for calls that set something: if one of those fails, all channels of the source are unknown, and
  making safe writes 0 V to each of them (`Line.change`).
- `retryable` is true only where the same call may follow at once and can do no harm.
- Set-points are absolute.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from photonloop.protocols.errors import DeviceError


class UnconfirmedError(DeviceError):
    """A source was told to go to 0 V, or a laser to go dark, and nothing that can be understood says that it did."""


@dataclass(frozen=True)
class Identity:
    """Who answers at the other end. A field that an instrument does not tell is empty."""

    vendor: str
    model: str
    serial: str = ""
    firmware: str = ""

    def __str__(self) -> str:
        told = (self.vendor, self.model, self.serial and f"serial {self.serial}", self.firmware and f"firmware {self.firmware}")
        return " ".join(part for part in told if part)


@dataclass(frozen=True)
class ChannelLimits:
    """What one channel of a drive source may do; 0 means no limit of that kind, or one that nobody knows.

    Parameters
    ----------
    min_v, max_v
        Lowest and highest drive [V].
    max_a
        Highest current [A].
    max_w
        Highest power into the load [W].
    bits
        Resolution over the range; 0: continuous or unknown.
    range_v
        Span of the converter, from lowest to highest code [V]; 0: max_v - min_v.
    slew_v_per_s
        Fastest change [V/s]. Of what a driver's `limits` returns: how fast the instrument itself moves its output, and readings
        wait until it has arrived. Of what `set_limits` is given: the ramps that the bench makes.
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
    """What every instrument can do."""

    def identify(self) -> Identity:
        """Ask the instrument who it is. Changes nothing."""
        ...

    def check(self) -> None:
        """Raise `DeviceError` "device" for whatever the instrument has complained of since it was last asked, asked for or not.

        The complaint is taken: a second call is silent unless there is another one.
        """
        ...

    def close(self) -> None:
        """Let go of the instrument as it stands; call `safe` first. Closing twice is harmless."""
        ...


@runtime_checkable
class DriveSource(Instrument, Protocol):
    """A multichannel voltage source: heaters, input modulators.

    An instrument that has been restarted (power lost, reset) stands at its own power-up voltages with its limits forgotten. The
    driver that notices writes the armed limits again, then raises "device" with outcome "unknown" and retryable true:
    whoever holds a drive must write every channel again, changed or not.
    """

    @property
    def channels(self) -> int:
        """Number of channels; they are called 0 … channels - 1."""
        ...

    def limits(self, channel: int) -> ChannelLimits:
        """Return what the hardware allows for `channel`, tightened by what `set_limits` wrote into it. No input or output."""
        ...

    def set_limits(self, limits: Mapping[int, ChannelLimits]) -> None:
        """Write limits into the instrument as far as it has its own, and keep them, to be written again after a restart.

        Only ever tightens what the hardware allows; "limit" where asked for more. An instrument's own slew is set well above that
        of the bench's ramps (`channels.slowed`). `set_volts` refuses whatever lies beyond,
        also where the instrument has no limits of its own.
        """
        ...

    def set_volts(self, volts: Mapping[int, float]) -> None:
        """Set the named channels, the others stay: absolute, in one exchange where the instrument can.

        Every value is checked before the first is written. On return the instrument has taken the values (it was asked for
        errors), or `DeviceError` says what is known. Slew and settling are the caller's.
        """
        ...

    def safe(self) -> None:
        """Bring every channel to 0 V, trying everything that may help, and raise only after all was tried.

        A source that may hear but cannot be understood is sent its zeros all the same (`channels.try_until_confirmed`):
        `UnconfirmedError` then, since nobody knows.
        """
        ...


@runtime_checkable
class ReadsVolts(Protocol):
    """A drive source that can tell the voltages of its channels, as set or as measured: the driver's docstring says which."""

    def read_volts(self, channels: Sequence[int]) -> NDArray[np.float64]:
        """Return voltages [V], shape (channels,), in the order asked for, in one exchange."""
        ...


@runtime_checkable
class ReadsAmps(Protocol):
    """A drive source that measures the currents it drives."""

    def read_amps(self, channels: Sequence[int]) -> NDArray[np.float64]:
        """Return currents [A], shape (channels,), in the order asked for, in one exchange."""
        ...


@runtime_checkable
class StepsThroughList(Protocol):
    """A drive source that is told several settings at once and takes one after the other, each when it is told to.

    So a bench sends the settings of an evaluation once, and a short word for each. `set_volts` of any channel of the list, and
    `safe`, end the list: its channels stand then where they were set, or else where they were.
    """

    def load_steps(self, channels: Sequence[int], volts: NDArray[np.float64]) -> int:
        """Load the first of `volts`, shape (steps, channels), as many as are easily told at once, and return how many those are.

        Every step is checked like `set_volts` before anything is sent. No output moves, and the driver makes sure of it. 0 where
        the source cannot do it now: use `set_volts`. Whatever was loaded before is forgotten.
        """
        ...

    def go_to_step(self, step: int) -> None:
        """Bring all channels of the list to step `step` of what was loaded, counted from 0; on return they are known to be there.

        Absolute, as seen from here: where a source only knows "the next one" and its answer is lost, the driver sets the step as
        voltages in its place, which ends the list inside the source.
        """
        ...


@runtime_checkable
class Readout(Instrument, Protocol):
    """Detectors with their converters."""

    @property
    def channels(self) -> int:
        """Number of channels; they are called 0 … channels - 1."""
        ...

    @property
    def unit(self) -> str:
        """Unit of what `read` returns: "A", "V" or "W"."""
        ...

    @property
    def full_scale(self) -> float:
        """Reading at which a channel saturates; 0: unknown."""
        ...

    @property
    def sample_s(self) -> float:
        """About how long the instrument takes for one `read` of all channels [s], the way there and back not counted."""
        ...

    def read(self, channels: Sequence[int]) -> NDArray[np.float64]:
        """Measure now and return readings [unit], shape (channels,), in the order asked for, in one exchange.

        What is returned was measured after the call began; a reading that was under way or buffered before is never returned.
        An overload that the instrument reports as one is returned as ±infinity, never as a number that looks like light.
        """
        ...


@runtime_checkable
class Laser(Instrument, Protocol):
    """A tunable laser.

    A laser that has been restarted may be dark and at other settings: the driver that notices raises "device" with outcome
    "unknown" and retryable true, and whoever wants light sets power and wavelength and switches it on again.
    """

    def on(self) -> None:
        """Switch the light on; returns once the instrument has taken the command, not once the light is stable."""
        ...

    def off(self) -> None:
        """Switch the light off. Must succeed where anything can."""
        ...

    def is_on(self) -> bool:
        """Return whether the light is on, as the instrument says."""
        ...

    def set_power_w(self, power_w: float) -> None:
        """Set the output power [W]; "limit" beyond what the instrument or its settings allow."""
        ...

    def power_w(self) -> float:
        """Return the output power that the instrument measures where it does, else its set-point [W]."""
        ...

    def set_wavelength_nm(self, wavelength_nm: float) -> None:
        """Set the wavelength in vacuum [nm]; "limit" beyond what the instrument or its settings allow."""
        ...

    def wavelength_nm(self) -> float:
        """Return the wavelength that the instrument says it stands at [nm]."""
        ...
