"""Encoding curves: which voltage at an input modulator lets which field amplitude through.

    amplitude a ∈ [0, 1] ──▶ curve ──▶ volts          a = 1 is the port's full share of the light

A curve is data of the station file; one curve serves every input port, or each port has its own.
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
    """From dark to fully bright [V]."""
    dark_v: _Finite = 0.0
    """Where it is dark [V]."""


class TableCurve(_Curve):
    """A measured curve, between whose points the voltage is interpolated linearly.

    Amplitudes are normalised: 0 at the darkest point, 1 at the brightest.
    """

    kind: Literal["table"]
    amplitudes: _Points
    """Field amplitudes, rising from 0 to 1."""
    volts: _Points
    """Voltages [V] for them, rising or falling throughout."""

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


def volts(curve: MachZehnderCurve | TableCurve, amplitudes: NDArray[np.floating]) -> NDArray[np.float64]:
    """Return the drive [V] for field `amplitudes` in [0, 1], of the same shape."""
    # Checked inputs may lie a rounding above 1, where asin has no value.
    bounded = np.minimum(np.asarray(amplitudes, np.float64), 1.0)
    if isinstance(curve, MachZehnderCurve):
        return curve.dark_v + 2.0 * curve.v_pi / np.pi * np.arcsin(bounded)
    return np.interp(bounded, curve.amplitudes, curve.volts)


def range_v(curve: MachZehnderCurve | TableCurve) -> tuple[float, float]:
    """Return the lowest and highest voltage that any amplitude asks for."""
    ends = volts(curve, np.array([0.0, 1.0]))
    return float(ends.min()), float(ends.max())


def dark_v(curve: MachZehnderCurve | TableCurve) -> float:
    """Return the voltage of amplitude 0."""
    return float(volts(curve, np.array([0.0]))[0])


def _check_monotonic(name: str, points: tuple[float, ...], *, may_fall: bool) -> None:
    steps = np.diff(points)
    if (steps > 0).all() or (may_fall and (steps < 0).all()):
        return
    falls = may_fall and points[-1] < points[0]
    wrong = int(np.argmax(steps >= 0 if falls else steps <= 0))
    direction = "rise or fall throughout" if may_fall else "rise throughout"
    raise ValueError(f"{name} must {direction}, but {points[wrong]:g} is followed by {points[wrong + 1]:g}")
