"""The device contract: volts in, detector readings out.

This file is what the author of a driver reads. A *device* is anything that satisfies `PhotonicDevice`: the virtual chip in
its own process, a bench of real instruments, a client that reaches either over a network. It knows nothing of phases,
labels or losses; no gradient, no internal field and no true parameter crosses this line.

          drives (S, channels)                                  readings (S, B, tap ports)
    ──────────────┬──────────────────────┬─────────────────────────────▲───────
                  ▼                      ▼                             │
    inputs ──▶ [ mesh 1 ]──tap──▶ f ──▶ [ mesh 2 ]──tap──▶ ...    photocurrents at
    (B, ports)  stage 0      │           stage 1      │           the stage's tap

Vocabulary
----------
stage     one programmable mesh with a tap of detectors behind it
channel   one heater; channels are numbered over the whole device, and a stage owns one slice of them
drive     the voltages of channels [V], always absolute
setting   one drive of one stage, as probed by `evaluate`
reading   one photocurrent [A] (or whatever `ReadoutDescription.unit` says)
held      the drive that stands between requests: what `apply` set last
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field

PROTOCOL_VERSION = 2
"""Increased whenever a message of the wire protocol or a field of the models below changes its meaning."""

FLAG_SATURATED = 1
"""A detector or its converter was at full scale during the setting: some readings are lower bounds."""

FLAG_UNSETTLED = 2
"""The setting was read before its settle time had passed."""

Drive = NDArray[np.float64]
"""Voltages [V]; shape (channels,) or (settings, channels)."""

Inputs = NDArray[np.float32] | NDArray[np.float64] | NDArray[np.complex64] | NDArray[np.complex128]
"""Field amplitudes, magnitude in [0, 1], shape (samples, input ports); complex only where `phases_settable`."""

PerChannel = float | tuple[float, ...]
"""One number for every channel, or a tuple with one number a channel of the whole device."""

_Positive = Annotated[float, Field(gt=0)]
_NotNegative = Annotated[float, Field(ge=0)]
_Count = Annotated[int, Field(ge=1)]


class _Model(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class StageDescription(_Model):
    """One mesh and the tap behind it."""

    name: str
    topology: str
    """How the mesh is wired: "clements" and so on; "unknown" where nobody says. "weight_bank" is no mesh: channel
    n · ports + m is the ring that weighs input m for reading n, and only the power of an input counts."""
    ports: _Count
    """Modes of the mesh; inputs of a weight bank."""
    first_channel: Annotated[int, Field(ge=0)]
    """The stage owns channels first_channel … first_channel + channels - 1 of the device."""
    channels: _Count
    groups: dict[str, tuple[int, int]]
    """Named kinds of phase shifters, as [start, stop) within the stage: theta, phi, gamma; attenuator_theta, attenuator_phi
    where there are attenuators; ring of a weight bank. They cover every channel once."""
    layout: tuple[tuple[int, int, int, int], ...] = ()
    """One row an interferometer: column, top mode, θ channel, φ channel (channels within the stage). A row whose θ channel is
    in the group attenuator_theta sits on its top mode alone. For drawing and calibration; empty where unknown."""
    tap_ports: _Count
    """Detectors behind the mesh: the last axis of its readings."""
    nonlinearity: Literal["none", "electro-optic"] = "none"
    """What the light passes after the tap, on its way to the next stage."""


class DriveDescription(_Model):
    """What the drive sources can do, and the heaters' nominal values."""

    unit: Literal["V"] = "V"
    min_v: float
    max_v: float
    bits: Annotated[int, Field(ge=0, le=32)] = 0
    """Resolution over [0, range_v]; 0: continuous."""
    range_v: _NotNegative = 0.0
    """Full scale of the converter; 0: same as max_v."""
    settle_s: _NotNegative
    """Time from a new drive to readings that may be trusted."""
    resistance_ohm: _Positive
    """Nominal heater resistance: drive V heats by about V²/resistance_ohm."""
    pi_power_w: _Positive
    """Nominal heater power for a phase of π. A single heater's own value differs by the fabrication spread."""

    @property
    def step_v(self) -> float:
        """Smallest change of a drive [V]; 0 where the source is continuous."""
        full_scale_v = self.range_v or self.max_v
        return full_scale_v / (2**self.bits - 1) if self.bits else 0.0


class ReadoutDescription(_Model):
    """What the detectors answer."""

    unit: str = "A"
    full_scale: tuple[float, ...]
    """Reading at which a detector of the stage saturates, one a stage."""
    signed: bool = False
    """True where readings run from -full_scale to full_scale: differences of two photocurrents, as of a weight bank."""
    bits: Annotated[int, Field(ge=0, le=32)] = 0
    """0: continuous."""
    sample_s: _NotNegative
    """Time to read one sample."""


class LimitsDescription(_Model):
    """What must never be exceeded. A request beyond any of these is refused whole; 0 means no limit of that kind."""

    voltage_v: PerChannel
    current_a: PerChannel = 0.0
    power_w: PerChannel = 0.0
    total_power_w: _NotNegative = 0.0
    slew_v_per_s: _NotNegative = 0.0
    """Fastest change of a drive; a device ramps to keep it, and says so in `time_s`."""
    max_batch: _Count
    """Samples of one `evaluate`."""
    max_settings: _Count
    """Settings of one `evaluate`."""
    max_readings: _Count
    """Readings of one `evaluate`, settings × samples × tap ports."""
    max_loaded_bytes: _Count
    """Inputs loaded at once, all names together, in bytes as they were sent."""


class DeviceDescription(_Model):
    """Everything a controller may know of a device before the first light."""

    name: str
    kind: Literal["simulator", "bench"]
    serials: dict[str, str] = {}
    """Serial numbers or identities of the parts; the simulator names preset and seed."""
    input_ports: _Count
    phases_settable: bool
    """True where inputs may be complex."""
    stages: Annotated[tuple[StageDescription, ...], Field(min_length=1)]
    drive: DriveDescription
    readout: ReadoutDescription
    limits: LimitsDescription
    clock: Literal["virtual", "real"]
    """virtual: timestamps advance by what the operation would have taken in a lab."""

    @property
    def channels(self) -> int:
        """Channels of the whole device."""
        return sum(stage.channels for stage in self.stages)

    def stage_index(self, name: str) -> int:
        """Return the index of the stage called `name`; KeyError where there is none."""
        for index, stage in enumerate(self.stages):
            if stage.name == name:
                return index
        raise KeyError(name)


class Fault(_Model):
    """Something that went wrong and stays until a person, or the program that caused it, clears it by name."""

    name: str
    detail: str
    lease_key: str = ""
    """The lease key of the writer whose death caused it; only that writer's successor may clear it unasked."""


class DeviceStatus(_Model):
    """What an instrument would show on its front panel. Cheap to read at any time, from any thread."""

    clock_s: float
    """The device's clock, as in `Readings.time_s`."""
    safe: bool
    """True while the held drive is the safe drive."""
    busy: bool = False
    heater_power_w: _NotNegative
    """Nominal electrical power of the held drive."""
    evaluations: Annotated[int, Field(ge=0)]
    """Settings read since the device was opened."""
    faults: tuple[Fault, ...] = ()
    health: dict[str, str | float] = {}
    """Further gauges, by name."""
    leased_to: str = ""
    """Label of the present writer; empty where nobody writes, or where leases do not apply (in-process)."""


@dataclass(frozen=True)
class LoadedRows:
    """Inputs by reference: rows of an array that `load_inputs` left on the device.

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
    """What `evaluate` answers.

    Parameters
    ----------
    values
        Photocurrents [unit of the readout], shape (settings, samples, tap ports).
    time_s
        Device clock when each setting was first read, shape (settings,).
    flags
        Bitwise or of FLAG_*, shape (settings,); 0 where all is well.
    """

    values: NDArray[np.float32]
    time_s: NDArray[np.float64]
    flags: NDArray[np.uint32]


@runtime_checkable
class PhotonicDevice(Protocol):
    """A chip, or what stands for one.

    One thread calls `apply`, `load_inputs` and `evaluate`; `status`, `cancel` and `safe` may be called from any thread
    at any time, also while an evaluation runs. Every method raises `DeviceError` and nothing else for whatever the outside
    world does wrong.

    A device that cannot keep the promise that `status` and `cancel` do not wait, because it is asked over a network, says so
    by an attribute `may_wait` that is True.
    """

    def describe(self) -> DeviceDescription:
        """Return what the device is. Never changes while the device is open; no input or output after the first call."""
        ...

    def apply(self, drive: Drive) -> None:
        """Hold these voltages, shape (channels of the device,).

        Absolute, so a repeat is harmless. Either the whole drive is held on return, or `DeviceError` with
        outcome "not_applied" means that nothing has changed. Slews faster than the limit are ramped, never refused.
        """
        ...

    def load_inputs(self, name: str, inputs: Inputs) -> None:
        """Keep `inputs`, shape (samples, input ports), on the device under `name`, replacing an older array of that name."""
        ...

    def evaluate(self, drives: Drive, inputs: Inputs | LoadedRows, stage: str) -> Readings:
        """Shine every sample through every setting of one stage and read that stage's tap.

        drives has shape (settings, channels of the stage); all other stages keep the held drive. For each setting in
        order: apply, settle, then read all samples. Afterwards the held drive is back, so an evaluation that is sent twice
        changes nothing. Everything is checked before the first volt moves: shape, NaN, range, limits of every setting.

        Raises `DeviceError` "interlock" with outcome "not_applied" where `cancel` or `safe` stopped it between settings.
        """
        ...

    def status(self) -> DeviceStatus:
        """Return the state of the device as known now. Never waits for an evaluation."""
        ...

    def cancel(self) -> None:
        """Stop a running evaluation at its next setting. Returns at once; without a running evaluation it does nothing."""
        ...

    def safe(self) -> None:
        """Bring every channel to the safe drive, stopping a running evaluation. Must succeed where anything can."""
        ...

    def clear_fault(self, name: str) -> None:
        """Forget the latched fault called `name`; `DeviceError` "bad_request" where there is none of that name."""
        ...

    def close(self) -> None:
        """Make the device safe and let go of it. Closing twice is harmless."""
        ...


def may_wait(device: PhotonicDevice) -> bool:
    """Return whether `status` and `cancel` of this device may take time, so that who must not wait calls them elsewhere."""
    return getattr(device, "may_wait", False) is True
