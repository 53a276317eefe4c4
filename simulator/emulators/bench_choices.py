"""The instruments of a virtual bench, and the choice of what each is used for. This module imports nothing heavy."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from photonloop.protocols.config import ConfigError, suggestion

SOURCES = ("qontrol", "qdac2", "scpi-source")
READOUTS = ("labjack-t7", "keysight-daq970a", "scpi-readout")
LASERS = ("santec-tsl570", "scpi-laser")
METER = "pm100d"
SWITCH = "scpi-switch"
SERIAL = frozenset({"qontrol"})
"""Instruments that are on a serial line by default. The others are on TCP."""


@dataclass(frozen=True)
class BenchChoices:
    """The instrument for each task on the bench. None: the first one that has enough channels for the chip."""

    heaters: str | None = None
    modulators: str | None = None
    detectors: str | None = None
    laser: str | None = None
    laser_command_set: Literal["legacy", "scpi"] = "legacy"
    """Command set to which the TSL-570 is set at power-up."""
    serial: frozenset[str] = SERIAL
    """Instruments on a serial line. Any instrument with a text protocol can be; Modbus TCP needs a socket."""
    inputs: Literal["modulators", "switch"] = "modulators"
    """What is in front of the input ports: one modulator each, or an optical switch that lights one of them."""


def check_choices(choices: BenchChoices) -> None:
    """Check that each instrument exists and can do its task.

    Raises
    ------
    ConfigError
        An instrument that is not on the bench or is of the wrong kind; the message suggests the nearest name.
        A source of modulators although there are none.
    """
    if choices.inputs == "switch" and choices.modulators is not None:
        raise ConfigError(f"modulators is {choices.modulators!r}, but with inputs 'switch' there are no modulators")
    for role, name, known in (
        ("heaters", choices.heaters, SOURCES),
        ("modulators", choices.modulators, SOURCES),
        ("detectors", choices.detectors, READOUTS),
        ("laser", choices.laser, LASERS),
    ):
        if name is not None and name not in known:
            raise ConfigError(f"{role}: there is no {name!r} on the bench{suggestion(name, list(known))}")
