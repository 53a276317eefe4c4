"""Chips for tests: presets with some parameters changed."""

from __future__ import annotations

from typing import Any

from photonloop.simulator.engine.chip import Chip
from photonloop.simulator.parameters import ChipParameters, load_chip

QUIET: dict[str, dict[str, Any]] = {
    "dac": {"noise_v": 0.0},
    "photodiode": {"bandwidth_hz": 0.0},
    "adc": {"bits": 0, "headroom": 0.0, "gain_drift_sigma": 0.0},
}
"""No noise and no ADC, so that readings can be compared exactly."""


def parameters_of(preset: str, parts: dict[str, dict[str, Any]], *, quiet: bool = True, **whole: Any) -> ChipParameters:
    """Return a validated preset with fields changed; `quiet` applies QUIET, `whole` has ports, stages, …"""
    tables = load_chip(preset).model_dump()
    for change in (QUIET if quiet else {}, parts):
        for name, fields in change.items():
            tables[name].update(fields)
    return ChipParameters.model_validate({**tables, **whole})


def chip_of(preset: str, parts: dict[str, dict[str, Any]], *, quiet: bool = True, threads: int = 1, **whole: Any) -> Chip:
    """Return the chip of `parameters_of`."""
    return Chip(parameters_of(preset, parts, quiet=quiet, **whole), threads=threads)
