"""Compare the device of a run with the one that it continues on.

A run's variables are nominal heater phases of one chip. If ports, drives or limits differ, variables have another
meaning on the other device, or are refused. On another chip of the same shape they have the same meaning, but accuracy
is lower until the run has been trained further there.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Any

from photonloop.protocols.device import DeviceDescription

_SHAPE = ("input_ports", "stages.*", "drive.*", "limits.*")
"""Fields that decide what variables mean and which drives the device accepts."""

_NOT_SHAPE = (
    "stages.*.name",
    "stages.*.geometry*",
    "drive.bits",
    "drive.range_v",
    "drive.settle_s",
    "drive.noise_v",
    "drive.time_constant_s",
    "limits.slew_v_per_s",
    "limits.max_*",
)
"""Exceptions from `_SHAPE`: names, positions, resolution, noise, speed and sizes of requests."""

_IGNORED = ("clock", "inputs_at_once", "light_switch", "reads_back")
"""Abilities of the instruments around a chip. A chip that is served in real time is the same chip."""

_UNKNOWN = (
    "phases_steady_s",
    "stages.*.geometry",
    "drive.noise_v",
    "drive.time_constant_s",
    "readout.noise",
    "readout.bandwidth_hz",
)
"""Fields that an earlier description may lack; they are compared only if it has them."""

_CHIP = ("name", "kind", "serials.*", "input_ports", "stages.*", "drive.resistance_ohm", "drive.pi_power_w", "readout.unit")
"""Fields by which a chip and the instruments around it are recognised, whatever their limits, noise and speed."""

_LONGEST_VALUE = 40
"""Characters of a value that a message quotes."""


@dataclass(frozen=True)
class Difference:
    """How a device differs from an earlier one.

    Parameters
    ----------
    same_shape
        True if variables have the same meaning on both.
    detail
        The first difference, as in "limits.voltage_v is 8.0 and was 10.8".
    """

    same_shape: bool
    detail: str


def chip_difference(before: DeviceDescription, now: DeviceDescription) -> Difference | None:
    """Return how the chip of `now` differs from that of `before`, or None if it is the same one.

    Limits, noise and speed are not compared, so the same chip may be used within other limits.
    """
    return _first(each for each in _compared(before, now) if _matches(each[0], _CHIP))


def difference(before: DeviceDescription, now: DeviceDescription) -> Difference | None:
    """Return how `now` differs from `before`, or None if it is the same device. A difference of shape is preferred.

    Fields that were unknown before are not compared. So a run that was recorded by an earlier version, whose
    description has fewer fields, continues on the same device.
    """
    return _first(each for each in _compared(before, now) if each[0] not in _IGNORED)


def _compared(before: DeviceDescription, now: DeviceDescription) -> Iterator[tuple[str, str]]:
    return _differences("", before.model_dump(), now.model_dump())


def _first(found: Iterable[tuple[str, str]]) -> Difference | None:
    """Return the first difference; one of shape is preferred."""
    differences = (Difference(same_shape=not _is_shape(path), detail=detail) for path, detail in found)
    return min(differences, key=lambda each: each.same_shape, default=None)


def _is_shape(path: str) -> bool:
    return _matches(path, _SHAPE) and not _matches(path, _NOT_SHAPE)


def _matches(path: str, patterns: tuple[str, ...]) -> bool:
    return any(fnmatchcase(path, pattern) for pattern in patterns)


def _differences(path: str, before: Any, now: Any) -> Iterator[tuple[str, str]]:
    if isinstance(before, dict) and isinstance(now, dict):
        for key in dict.fromkeys((*before, *now)):
            yield from _differences(f"{path}.{key}" if path else str(key), before.get(key), now.get(key))
    elif path == "stages" and len(before) == len(now):
        for number, (old, new) in enumerate(zip(before, now, strict=True)):
            yield from _differences(f"{path}.{number}", old, new)
    elif path == "stages":
        yield f"{path}.*", f"it has {len(now)} stages and had {len(before)}"
    elif before != now and not (before is None and _matches(path, _UNKNOWN)):
        values = [_text(value) for value in (now, before)]
        short = max(map(len, values)) <= _LONGEST_VALUE
        yield path, f"{path} is {values[0]} and was {values[1]}" if short else f"{path} has changed"


def _text(value: Any) -> str:
    return "absent" if value is None else str(value)
