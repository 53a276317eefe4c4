"""Conversion of powers between W and dBm."""

from __future__ import annotations

import math


def dbm_of(power_w: float) -> float:
    """Return `power_w` [W] in dBm; it must be positive."""
    return 10.0 * math.log10(power_w / 1e-3)


def watts_of(power_dbm: float) -> float:
    """Return `power_dbm` [dBm] in W."""
    return 1e-3 * 10.0 ** (power_dbm / 10.0)
