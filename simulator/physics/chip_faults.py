"""Faults of a chip: which part fails and when, as given in a chip file.

    [[faults]]
    kind = "dead_heater"            # the wire is open: no current, no heat
    channel = 17                    # channel number of the whole device
    at_s = 3600.0                   # time on the chip's clock; 0, the default, is from the start

    kind = "stuck_channel"          # channel, volts: the source outputs this voltage regardless of its setpoint
    kind = "open_detector"          # stage, port: no photocurrent and no dark current, only the amplifier's noise
    kind = "broken_coupler"         # stage, column, top, coupler (1 or 2), angle_rad: at 0 all light stays in its arm
    kind = "laser_off"
    kind = "swapped_heaters"        # channel, other: the wires of two heaters of a stage are exchanged
    kind = "swapped_inputs"         # port, other: the fibres of two inputs are exchanged where they enter the mesh
    kind = "dying_heater"           # channel, tau_s: the resistance grows as e^{(t - at_s)/tau_s}
    kind = "drifting_detector"      # stage, port, tau_s: the responsivity decays as e^{-(t - at_s)/tau_s}

A voltage source keeps its step, nonlinearity and stuck voltage if its wire goes to another heater. An input keeps the
errors of its modulator, and drifts as the port that its fibre enters. A dying heater at a fixed voltage has less
current and less power. A drifting detector keeps its dark current and its noise.

The description of a device does not contain faults. Its status contains only quantities that laboratory instruments
measure.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Annotated, Literal, Self

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, model_validator

from photonloop.protocols.config import ConfigError
from photonloop.protocols.device import StageDescription

_Index = Annotated[int, Field(ge=0)]

_GRADUAL = ("dying_heater", "drifting_detector")

_NEEDED: dict[str, tuple[str, ...]] = {
    "dead_heater": ("channel",),
    "stuck_channel": ("channel", "volts"),
    "open_detector": ("stage", "port"),
    "broken_coupler": ("stage", "column", "top"),
    "laser_off": (),
    "swapped_heaters": ("channel", "other"),
    "swapped_inputs": ("port", "other"),
    "dying_heater": ("channel", "tau_s"),
    "drifting_detector": ("stage", "port", "tau_s"),
}
_ALLOWED = {kind: {"kind", "at_s", *needed} for kind, needed in _NEEDED.items()}
_ALLOWED["broken_coupler"] |= {"coupler", "angle_rad"}


class FaultParameters(BaseModel):
    """One fault of a chip file."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    kind: Literal[
        "dead_heater",
        "stuck_channel",
        "open_detector",
        "broken_coupler",
        "laser_off",
        "swapped_heaters",
        "swapped_inputs",
        "dying_heater",
        "drifting_detector",
    ]
    at_s: Annotated[float, Field(ge=0, allow_inf_nan=False)] = 0.0
    """Time at which the fault occurs, on the chip's clock [s]."""
    stage: _Index | None = None
    """Number of the stage."""
    channel: _Index | None = None
    """Channel number, counted over the whole device."""
    port: _Index | None = None
    """Number of the detector in its stage, or of the input port."""
    other: _Index | None = None
    """Number of the second channel or input port of an exchange."""
    column: _Index | None = None
    """Column of the interferometer."""
    top: _Index | None = None
    """Upper mode of the interferometer."""
    coupler: Literal[1, 2] = 1
    """Which coupler of the interferometer: 1 is the one at its input, 2 the one at its output."""
    volts: Annotated[float, Field(ge=0, le=1000)] | None = None
    """Output voltage of a stuck source [V]."""
    angle_rad: Annotated[float, Field(ge=0, le=math.pi / 2)] = 0.0
    """Angle of the broken coupler [rad]; π/4 is 50:50."""
    tau_s: Annotated[float, Field(gt=0, le=1e9)] | None = None
    """Time in which a dying heater's resistance grows, or a drifting detector's responsivity decays, by e [s]."""

    @model_validator(mode="after")
    def _states_what_it_needs(self) -> Self:
        missing = [name for name in _NEEDED[self.kind] if getattr(self, name) is None]
        if missing:
            raise ValueError(f"{self.kind} needs {' and '.join(missing)}")
        extra = sorted(self.model_fields_set - _ALLOWED[self.kind])
        if extra:
            raise ValueError(f"{self.kind} does not take {extra[0]}")
        one = self.channel if self.kind == "swapped_heaters" else self.port
        if self.other is not None and self.other == one:
            raise ValueError(f"{self.kind} exchanges {one} with itself: other must be another number")
        return self

    @property
    def is_gradual(self) -> bool:
        """Whether the effect of the fault grows with time."""
        return self.kind in _GRADUAL

    def share_left(self, time_s: float) -> float:
        """Return e^{-(t - at_s)/tau_s} of a gradual fault at `time_s`; 1 before it begins, and for other faults."""
        return 1.0 if self.tau_s is None else math.exp(-max(time_s - self.at_s, 0.0) / self.tau_s)


def exchanged(count: int, faults: Sequence[FaultParameters], kind: str, first: int = 0) -> NDArray[np.int64]:
    """Return which of `count` sources or fibres is connected to each heater or port after all exchanges of `kind`.

    int64, shape (count,). `first` is the number of the first channel of a stage. Exchanges of other channels are
    ignored.
    """
    order = np.arange(count)
    for fault in faults:
        one, other = fault.channel if fault.kind == "swapped_heaters" else fault.port, fault.other
        if fault.kind == kind and one is not None and other is not None and 0 <= one - first < count:
            order[[one - first, other - first]] = order[[other - first, one - first]]
    return order


def in_order(faults: Sequence[FaultParameters]) -> tuple[FaultParameters, ...]:
    """Return the faults in the order in which they occur."""
    return tuple(sorted(faults, key=lambda fault: fault.at_s))


def check_faults(faults: Sequence[FaultParameters], stages: Sequence[StageDescription]) -> None:
    """Check that every fault belongs to a part that the chip has.

    Raises
    ------
    ConfigError
        For the first fault of a missing part. The message names the fault, the part, and the parts that exist.
    """
    channels = sum(stage.channels for stage in stages)
    for number, fault in enumerate(faults):
        where = f"faults.{number} ({fault.kind})"
        if fault.channel is not None:
            _check(f"{where}: channel", fault.channel, channels, "the chip has channels")
        if fault.kind == "swapped_heaters" and fault.other is not None and fault.channel is not None:
            _check(f"{where}: other", fault.other, channels, "the chip has channels")
            _check_same_stage(where, fault.channel, fault.other, stages)
        if fault.kind == "swapped_inputs" and fault.port is not None and fault.other is not None:
            _check(f"{where}: port", fault.port, stages[0].ports, "the chip has inputs")
            _check(f"{where}: other", fault.other, stages[0].ports, "the chip has inputs")
        if fault.stage is None:
            continue
        _check(f"{where}: stage", fault.stage, len(stages), "the chip has stages")
        here = stages[fault.stage]
        if fault.port is not None:
            _check(f"{where}: port", fault.port, here.tap_ports, f"stage {fault.stage} has detectors")
        if fault.kind == "broken_coupler" and all(row[:2] != (fault.column, fault.top) for row in here.layout):
            raise ConfigError(
                f"{where}: stage {fault.stage}, a {here.topology} mesh of {here.ports} ports, has no interferometer in column "
                f"{fault.column} on modes {fault.top} and {(fault.top or 0) + 1}"
            )


def _check_same_stage(where: str, channel: int, other: int, stages: Sequence[StageDescription]) -> None:
    one, two = (next(k for k, s in enumerate(stages) if c < s.first_channel + s.channels) for c in (channel, other))
    if one != two:
        raise ConfigError(
            f"{where}: channel {channel} belongs to stage {one} and channel {other} to stage {two}; "
            "exchange channels of the same stage"
        )


def _check(what: str, value: int, count: int, there_are: str) -> None:
    if value >= count:
        raise ConfigError(f"{what} is {value}, but {there_are} 0 to {count - 1}")
