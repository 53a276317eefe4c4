"""Encoding curves: the drive of an input modulator for a field amplitude.

    amplitude a ∈ [0, 1] ──▶ curve ──▶ volts          a = 1: the modulator transmits all light of its port

Curves are tables of the station file, one for all input ports or one per port.
"""

from __future__ import annotations

from typing import Annotated, Literal, Self

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, model_validator

_Finite = Annotated[float, Field(allow_inf_nan=False)]
_Points = Annotated[tuple[_Finite, ...], Field(min_length=2)]


class _Curve(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class MachZehnderCurve(_Curve):
    """A Mach-Zehnder intensity modulator: a = |sin(π (V - dark_v) / 2 V_π)|, so V = dark_v + 2 V_π asin(a) / π."""

    kind: Literal["mach-zehnder"]
    v_pi: Annotated[float, Field(gt=0, le=1000)]
    """Voltage from minimum to maximum transmission [V]."""
    dark_v: _Finite = 0.0
    """Voltage of minimum transmission [V]."""


class TableCurve(_Curve):
    """A measured curve, interpolated linearly.

    Amplitudes are normalised: 0 at minimum transmission, 1 at maximum.
    """

    kind: Literal["table"]
    amplitudes: _Points
    """Field amplitudes, increasing from 0 to 1."""
    volts: _Points
    """Voltages [V] at these amplitudes, strictly increasing or strictly decreasing."""

    @model_validator(mode="after")
    def _is_a_curve(self) -> Self:
        if len(self.amplitudes) != len(self.volts):
            raise ValueError(f"has {len(self.amplitudes)} amplitudes for {len(self.volts)} volts")
        _check_monotonic("amplitudes", self.amplitudes, may_fall=False)
        _check_monotonic("volts", self.volts, may_fall=True)
        if (self.amplitudes[0], self.amplitudes[-1]) != (0.0, 1.0):
            raise ValueError(f"amplitudes run from {self.amplitudes[0]:g} to {self.amplitudes[-1]:g}, but must run from 0 to 1")
        return self


Curve = Annotated[MachZehnderCurve | TableCurve, Field(discriminator="kind")]


def drive_for_amplitudes(curve: MachZehnderCurve | TableCurve, amplitudes: NDArray[np.floating]) -> NDArray[np.float64]:
    """Return the drive [V] for field `amplitudes` in [0, 1], of the same shape."""
    # Inputs that passed the checks may exceed 1 by a rounding error, and asin is not defined there.
    bounded = np.minimum(np.asarray(amplitudes, np.float64), 1.0)
    if isinstance(curve, MachZehnderCurve):
        return curve.dark_v + 2.0 * curve.v_pi / np.pi * np.arcsin(bounded)
    return np.interp(bounded, curve.amplitudes, curve.volts)


def range_v(curve: MachZehnderCurve | TableCurve) -> tuple[float, float]:
    """Return the lowest and the highest voltage of the curve."""
    ends = drive_for_amplitudes(curve, np.array([0.0, 1.0]))
    return float(ends.min()), float(ends.max())


def dark_v(curve: MachZehnderCurve | TableCurve) -> float:
    """Return the voltage of amplitude 0."""
    return float(drive_for_amplitudes(curve, np.array([0.0]))[0])


def _check_monotonic(name: str, points: tuple[float, ...], *, may_fall: bool) -> None:
    steps = np.diff(points)
    if (steps > 0).all() or (may_fall and (steps < 0).all()):
        return
    falls = may_fall and points[-1] < points[0]
    wrong = int(np.argmax(steps >= 0 if falls else steps <= 0))
    direction = "rise or fall throughout" if may_fall else "rise throughout"
    raise ValueError(f"{name} must {direction}, but {points[wrong]:g} is followed by {points[wrong + 1]:g}")
