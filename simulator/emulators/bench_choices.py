"""What stands on a virtual bench, and who may do what there. Nothing heavy is imported here."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from photonloop.protocols.config import ConfigError, suggestion

SOURCES = ("qontrol", "qdac2", "scpi-source")
READOUTS = ("labjack-t7", "keysight-daq970a", "scpi-readout")
LASERS = ("santec-tsl570", "scpi-laser")
METER = "pm100d"
SERIAL = frozenset({"qontrol"})
"""Instruments on a serial line where nothing else is chosen; the others are on TCP."""


@dataclass(frozen=True)
class Choices:
    """Who does what on the bench; None: whatever fits the chip."""

    heaters: str | None = None
    modulators: str | None = None
    detectors: str | None = None
    laser: str | None = None
    laser_command_set: Literal["legacy", "scpi"] = "legacy"
    """Command set in which the TSL-570 was left."""
    serial: frozenset[str] = SERIAL
    """Instruments on a serial line; those of any text will do, Modbus TCP needs its socket."""


def check(choices: Choices) -> None:
    """Refuse an instrument that cannot have the job it was chosen for.

    Raises
    ------
    ConfigError
        One sentence, with the nearest name.
    """
    for role, name, known in (
        ("heaters", choices.heaters, SOURCES),
        ("modulators", choices.modulators, SOURCES),
        ("detectors", choices.detectors, READOUTS),
        ("laser", choices.laser, LASERS),
    ):
        if name is not None and name not in known:
            raise ConfigError(f"{role}: there is no {name!r} on the bench{suggestion(name, list(known))}")
