"""The laser: relative intensity noise (applied in `kernels.detect`) and slow power drift (`engine.ambient`)."""

from __future__ import annotations

import math

from photonloop.simulator.parameters import LaserParameters


def rin_sigma(laser: LaserParameters, bandwidth_hz: float) -> float:
    """Return the relative standard deviation of the power in `bandwidth_hz`, √(10^(RIN/10) · B), or 0 without RIN."""
    return math.sqrt(10.0 ** (laser.rin_db_per_hz / 10.0) * bandwidth_hz) if laser.rin_db_per_hz < 0 else 0.0


def drifted_power(deviation: float) -> float:
    """Return the power relative to nominal: e^x for a deviation x, which is always positive."""
    return math.exp(deviation)
