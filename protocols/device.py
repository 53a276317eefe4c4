"""The device contract: volts in, detector readings out.

This file is the specification for authors of drivers. A *device* is any object that satisfies `PhotonicDevice`: the
virtual chip in its own process, a bench of real instruments, or a client of either over a network. A device has no
notion of phases, labels or losses. No gradient, internal field or true parameter is part of the contract.

          drives (S, channels)                                  readings (S, B, tap ports)
    ──────────────┬──────────────────────┬─────────────────────────────▲───────
                  ▼                      ▼                             │
    inputs ──▶ [ mesh 1 ]──tap──▶ f ──▶ [ mesh 2 ]──tap──▶ ...    photocurrents at
    (B, ports)  stage 0      │           stage 1      │           the stage's tap

Vocabulary
----------
stage     one programmable mesh with a tap of detectors behind it
channel   one output of a drive source, such as a heater. Channels are numbered over the whole device, and a stage
          has one slice of them
drive     the setpoints of channels [V], always absolute
setting   one drive of one stage in an `evaluate`
reading   one photocurrent [A], or in the unit `ReadoutDescription.unit`
held      the drive between evaluations: the one that `apply` set last
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field

PROTOCOL_VERSION = 3
"""Increased whenever a message of the wire protocol or a field of the models below changes its meaning."""

FLAG_SATURATED = 1
"""The detector or its converter was at full scale during the setting: some of its readings are lower bounds."""

FLAG_UNSETTLED = 2
"""The setting was read before its settle time had passed; set for all detectors."""

MAX_WAIT_S = 7 * 86_400.0
"""Longest `PhotonicDevice.wait` [s]."""

STEADY_S = 1e9
"""Value of `DeviceDescription.phases_steady_s` for inputs whose phases do not drift [s]."""

Drive = NDArray[np.float64]
"""Voltages [V]; shape (channels,) or (settings, channels)."""

Inputs = NDArray[np.float32] | NDArray[np.float64] | NDArray[np.complex64] | NDArray[np.complex128]
"""Field amplitudes, magnitude in [0, 1], shape (samples, input ports); complex only if `phases_settable`."""

PerChannel = float | tuple[float, ...]
"""One number for all channels, or a tuple with one number per channel of the whole device."""

_Positive = Annotated[float, Field(gt=0)]
_NotNegative = Annotated[float, Field(ge=0)]
_Count = Annotated[int, Field(ge=1)]


class _Model(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class StageGeometry(_Model):
    """Nominal positions of the heaters and waveguides of a stage on the chip [m]: x along the light, y across it.

    Waveguides are straight: mode k is at y = mode_y_m[k] along the whole stage. A phase shifter has two arms, on the
    modes of its interferometer, at the same x. Heat acts on every waveguide nearby, also on bare ones.

        x:    phi_x_m[0]  theta_x_m[0]  phi_x_m[1]  theta_x_m[1]  …  gamma_x_m
        y 0   ──[φ]─────────[θ]───────────────────────────────────────[γ]──
        y 1   ────────────────────────────[φ]─────────[θ]─────────────[γ]──
    """

    mode_y_m: tuple[float, ...]
    """y of each mode; of each row of a weight bank."""
    phi_x_m: tuple[float, ...] = ()
    """x of the heaters of φ of each column; empty for a weight bank."""
    theta_x_m: tuple[float, ...] = ()
    """x of the heaters of θ of each column; empty for a weight bank."""
    gamma_x_m: float | None = None
    """x of the heaters of the output phases γ, if there are any."""
    ring_x_m: tuple[float, ...] = ()
    """x of the rings of each row, by number of the input, for a weight bank."""
    heated_arm: Literal["upper", "lower"] = "upper"
    """The arm of an interferometer on which its heaters lie."""


class StageDescription(_Model):
    """One mesh and the tap behind it."""

    name: str
    topology: str
    """Arrangement of the interferometers, such as "clements"; "unknown" if it is not known. "weight_bank" is not a
    mesh: channel n · ports + m is the ring that weights input m for reading n, and only the power of an input
    matters."""
    ports: _Count
    """Modes of the mesh; inputs of a weight bank."""
    first_channel: Annotated[int, Field(ge=0)]
    """The stage has channels first_channel … first_channel + channels - 1 of the device."""
    channels: _Count
    groups: dict[str, tuple[int, int]]
    """Named kinds of phase shifters, as [start, stop) within the stage: theta, phi, gamma; attenuator_theta,
    attenuator_phi if there are attenuators; ring of a weight bank. They cover every channel once."""
    layout: tuple[tuple[int, int, int, int], ...] = ()
    """One row per interferometer: column, top mode, θ channel, φ channel (channels within the stage). A row whose θ
    channel is in the group attenuator_theta acts on its top mode only. For drawing and calibration; empty if
    unknown."""
    tap_ports: _Count
    """Detectors behind the mesh: the last axis of its readings."""
    nonlinearity: Literal["none", "electro-optic"] = "none"
    """Nonlinearity after the tap, in front of the next stage."""
    geometry: StageGeometry | None = None
    """Positions of heaters and waveguides, for a model of thermal crosstalk. If None, they are not known, and a model
    can only assume crosstalk between neighbours of the layout."""


class DriveDescription(_Model):
    """Range and resolution of the drive sources, and the heaters' nominal values."""

    unit: Literal["V"] = "V"
    min_v: float
    max_v: float
    bits: Annotated[int, Field(ge=0, le=32)] = 0
    """Resolution over [0, range_v]; 0: continuous."""
    range_v: _NotNegative = 0.0
    """Full scale of the converter; 0: same as max_v."""
    settle_s: _NotNegative
    """Time from a new drive to valid readings."""
    resistance_ohm: _Positive
    """Nominal heater resistance: a drive V gives a heater power of about V²/resistance_ohm."""
    pi_power_w: _Positive
    """Nominal heater power for a phase of π. Individual heaters differ by the fabrication spread."""
    noise_v: _NotNegative | None = None
    """Nominal standard deviation of a voltage between repeated settings [V]; None: unknown."""
    time_constant_s: _NotNegative | None = None
    """Nominal thermal time constant of a heater [s]; None: unknown."""

    @property
    def lsb_v(self) -> float:
        """Smallest change of a drive [V]; 0 if the source is continuous."""
        return (self.range_v or self.max_v) / (2**self.bits - 1) if self.bits else 0.0


class ReadoutDescription(_Model):
    """Unit, range and resolution of the readings."""

    unit: str = "A"
    full_scale: tuple[float, ...]
    """Reading at which a detector saturates, one per stage."""
    signed: bool = False
    """True if readings range from -full_scale to full_scale: differences of two photocurrents, as in a weight bank."""
    bits: Annotated[int, Field(ge=0, le=32)] = 0
    """0: continuous."""
    sample_s: _NotNegative
    """Time to read one sample."""
    noise: tuple[float, ...] | None = None
    """Nominal standard deviation of a reading without light, one per stage; None: unknown."""
    bandwidth_hz: _NotNegative | None = None
    """Nominal noise bandwidth of a detector and its amplifier [Hz]; None: unknown."""


class LimitsDescription(_Model):
    """Limits of the device. A request that exceeds any of them is refused as a whole. 0 means no limit of that kind."""

    voltage_v: PerChannel
    current_a: PerChannel = 0.0
    power_w: PerChannel = 0.0
    total_power_w: _NotNegative = 0.0
    slew_v_per_s: _NotNegative = 0.0
    """Fastest change of a drive; a device ramps to respect it, which is included in `time_s`."""
    max_batch: _Count
    """Samples of one `evaluate`."""
    max_settings: _Count
    """Settings of one `evaluate`."""
    max_readings: _Count
    """Readings of one `evaluate`, settings × samples × tap ports."""
    max_loaded_bytes: _Count
    """Loaded inputs, all names together, in bytes as they were sent."""


class DeviceDescription(_Model):
    """Description of a device that is available before the first request."""

    name: str
    kind: Literal["simulator", "bench"]
    serials: dict[str, str] = {}
    """Serial numbers or identities of the parts; the simulator gives preset and seed."""
    input_ports: _Count
    inputs_at_once: Literal["many", "one"] = "many"
    """one: an optical 1×N switch, so at most one input of a sample may be lit. Enough to calibrate, not to train."""
    phases_settable: bool
    """True if inputs may be complex."""
    phases_steady_s: _NotNegative | None = None
    """Nominal time in which the phase of an input changes by 0.1 rad (root mean square) relative to the others [s];
    STEADY_S if phases do not drift; None: unknown."""
    light_switch: bool = False
    """True if `set_light` can switch the light."""
    reads_back: bool = False
    """True if `readback` measures voltages or currents of at least one channel."""
    stages: Annotated[tuple[StageDescription, ...], Field(min_length=1)]
    drive: DriveDescription
    readout: ReadoutDescription
    limits: LimitsDescription
    clock: Literal["virtual", "real"]
    """virtual: timestamps advance by the time that the operation would take in a lab."""
    warnings: tuple[str, ...] = ()
    """Sentences for the user, for example that the heaters of a chip cannot be cooled. Nothing is refused for them."""

    @property
    def channels(self) -> int:
        """Channels of the whole device."""
        return sum(stage.channels for stage in self.stages)

    def stage_index(self, name: str) -> int:
        """Return the index of the stage called `name`; KeyError if there is none."""
        for index, stage in enumerate(self.stages):
            if stage.name == name:
                return index
        raise KeyError(name)


class Fault(_Model):
    """A latched fault. It stays until it is cleared by name."""

    name: str
    detail: str
    lease_key: str = ""
    """Lease key of the writer that caused it by losing its lease, and that alone may clear it automatically."""


class DeviceStatus(_Model):
    """Status of a device, as an instrument shows it on its front panel. Cheap to read at any time, from any thread."""

    clock_s: float
    """The device's clock, as in `Readings.time_s`."""
    safe: bool
    """True in the safe state: the held drive is the safe drive, and the light is off if the device can switch it."""
    light: bool | None = None
    """Whether the light is on; None if the device cannot switch it."""
    busy: bool = False
    heater_power_w: _NotNegative
    """Nominal electrical power of the held drive."""
    evaluations: Annotated[int, Field(ge=0)]
    """Settings read since the device was opened."""
    faults: tuple[Fault, ...] = ()
    health: dict[str, str | float] = {}
    """Further monitored quantities, by name."""
    leased_to: str = ""
    """Label of the client that holds the lease; empty if there is none, or if the device is in the same process."""


@dataclass(frozen=True)
class LoadedRows:
    """Inputs by reference: rows of an array that was loaded with `load_inputs`.

    Parameters
    ----------
    name
        Name given to `load_inputs`.
    rows
        Row numbers, shape (samples,), any order, repeats allowed.
    """

    name: str
    rows: NDArray[np.int64]


@dataclass(frozen=True)
class Readings:
    """The result of `evaluate`.

    Parameters
    ----------
    values
        Photocurrents [unit of the readout], shape (settings, samples, tap ports).
    time_s
        Device clock [s] at the first sample of each setting, shape (settings,).
    flags
        Bitwise or of FLAG_* per setting and detector, shape (settings, tap ports); 0 if there is nothing to report.
    """

    values: NDArray[np.float32]
    time_s: NDArray[np.float64]
    flags: NDArray[np.uint32]


@dataclass(frozen=True)
class Readback:
    """Measured voltages and currents of all channels of a device.

    Parameters
    ----------
    volts
        Measured voltages [V], shape (channels,); NaN for a channel that is not measured.
    amperes
        Measured currents [A], shape (channels,); NaN for a channel that is not measured. A heater that is driven but
        draws no current is open.
    """

    volts: NDArray[np.float64]
    amperes: NDArray[np.float64]


@runtime_checkable
class PhotonicDevice(Protocol):
    """A photonic chip with its drive sources and detectors, real or virtual.

    One thread calls `apply`, `load_inputs`, `evaluate`, `set_light`, `wait` and `readback`. Any thread may call
    `status`, `cancel` and `safe` at any time, also while an evaluation runs. For errors of the caller or the hardware,
    every method raises `DeviceError` and nothing else.

    `status` and `cancel` must return without waiting. A device that cannot guarantee this, because it is reached over a
    network, has an attribute `may_wait` that is True.
    """

    def describe(self) -> DeviceDescription:
        """Return the description.

        It does not change while the device is open. No input or output after the first call.
        """
        ...

    def apply(self, drive: Drive) -> None:
        """Hold these voltages, shape (channels of the device,).

        Setpoints are absolute, so a repeated call is harmless. On return the whole drive is held. A `DeviceError` with
        outcome "not_applied" means that nothing has changed. Changes faster than the slew limit are ramped, not
        refused.
        """
        ...

    def load_inputs(self, name: str, inputs: Inputs) -> None:
        """Keep `inputs`, shape (samples, input ports), under `name`, in place of an older array of that name."""
        ...

    def evaluate(self, drives: Drive, inputs: Inputs | LoadedRows, stage: str) -> Readings:
        """Read the tap of one stage for every sample at every setting.

        `drives` has shape (settings, channels of the stage); all other stages keep the held drive. For each setting in
        order: apply, settle, then read all samples. Afterwards the held drive is restored, so a repeated evaluation is
        harmless. Shape, NaN, range and the limits of every setting are checked before any voltage changes.

        If the light is off because the device was opened or made safe, it is switched on first, and its warm-up time is
        respected. If it is off because of `set_light(False)`, it stays off, and the readings are dark readings.

        Raises `DeviceError` "interlock" with outcome "not_applied" if `cancel` or `safe` stopped it between settings.
        """
        ...

    def set_light(self, on: bool) -> None:
        """Switch the laser, or open or close its shutter, and wait until the light is on and warm, or off.

        After `set_light(False)` the light stays off until `set_light(True)` or `safe`. Raises `DeviceError`
        "bad_request" if the device has no light switch (`DeviceDescription.light_switch`), and "interlock" if `cancel`
        or `safe` stopped the wait.
        """
        ...

    def wait(self, seconds: float) -> None:
        """Let time pass on the device's clock: a virtual clock moves on at once, and a bench waits.

        The drive is held. Raises `DeviceError` "interlock" if `cancel` or `safe` ended the wait early, and
        "bad_request" unless 0 ≤ seconds ≤ MAX_WAIT_S.
        """
        ...

    def readback(self) -> Readback:
        """Measure the voltage and current of every channel at the held drive, as far as the sources can."""
        ...

    def status(self) -> DeviceStatus:
        """Return the current status. Does not wait for an evaluation."""
        ...

    def cancel(self) -> None:
        """Stop a running evaluation at its next setting, or a `wait`. Returns at once. No effect if nothing runs."""
        ...

    def safe(self) -> None:
        """Stop a running evaluation or `wait`, switch the light off, and bring every channel to the safe drive.

        If one channel fails, all others must still be made safe.
        """
        ...

    def clear_fault(self, name: str) -> None:
        """Clear the latched fault called `name`; `DeviceError` "bad_request" if it is not latched."""
        ...

    def close(self) -> None:
        """Make the device safe and release its resources. Closing twice is harmless."""
        ...


def may_wait(device: PhotonicDevice) -> bool:
    """Return whether `status` and `cancel` of this device may wait; if so, call them in another thread."""
    return getattr(device, "may_wait", False) is True
