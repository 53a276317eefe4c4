"""Which instrument is wired to what: one virtual bench, from a chip and a few choices.

Every kind of instrument stands on the bench. One source drives the heaters and one the input modulators (or one both), one laser
lights the chip; every readout sees the detectors, as far as its inputs go, and the power meter sees 1 % of the laser. Sources and
the laser that were not chosen work too, into nothing.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from photonloop.protocols.config import ConfigError
from photonloop.simulator.emulators import (
    generic_scpi,
    virtual_keysight,
    virtual_labjack,
    virtual_pm100d,
    virtual_qdac2,
    virtual_qontrol,
    virtual_santec,
)
from photonloop.simulator.emulators.bench_choices import LASERS, METER, READOUTS, SOURCES, Choices, check
from photonloop.simulator.emulators.emulator import Emulator
from photonloop.simulator.emulators.laboratory import Laboratory, LaserLight, Load, Read
from photonloop.simulator.emulators.links import Unit
from photonloop.simulator.parameters import ChipParameters

SOURCE_CHANNELS = {"qontrol": 4096, "qdac2": virtual_qdac2.CHANNELS, "scpi-source": 1024}
READOUT_INPUTS = {"labjack-t7": virtual_labjack.INPUTS, "keysight-daq970a": virtual_keysight.INPUTS, "scpi-readout": 1024}

_SPARE_CHANNELS = 8
"""Channels of a source whose number is free and that nobody chose."""

# Places in the tree of seeds, below that of the chip's seed; never renumber.
_METER, _VOLTMETER, _GARBAGE = 0, 1, 2


@dataclass(frozen=True)
class VirtualWiring:
    """Who does what, and by which channels (each counted from 0 in its own instrument).

    Parameters
    ----------
    heaters, modulators, detectors, laser
        Names of instruments.
    heater_channels, modulator_channels
        Channel of the source for each heater of the chip and each input port.
    detector_channels
        Input of the readout for each detector, stage by stage.
    """

    heaters: str
    modulators: str
    detectors: str
    laser: str
    heater_channels: tuple[int, ...]
    modulator_channels: tuple[int, ...]
    detector_channels: tuple[int, ...]


@dataclass(frozen=True)
class VirtualBench:
    """A wired bench, not connected to anything outside yet."""

    laboratory: Laboratory
    wiring: VirtualWiring
    units: Mapping[str, Unit]
    channels: Mapping[str, int]
    """Channels of the instruments whose number is not fixed by their make."""
    serial: frozenset[str]
    """Instruments on a serial line."""


def wire(heaters: int, modulators: int, detectors: int, choices: Choices) -> VirtualWiring:
    """Return who does what on the bench of a chip of so many heaters, input ports and detectors.

    Raises
    ------
    ConfigError
        One sentence: an instrument that there is not, or one with too few channels.
    """
    check(choices)
    source = choices.heaters or SOURCES[0]
    second = choices.modulators or ("qdac2" if modulators <= virtual_qdac2.CHANNELS else "scpi-source")
    fitting = next(name for name in READOUTS if detectors <= READOUT_INPUTS[name] or name == READOUTS[-1])
    readout = choices.detectors or fitting
    laser = choices.laser or LASERS[0]
    first = heaters if second == source else 0
    for name, wanted, what in (
        (source, heaters + (modulators if second == source else 0), "heaters" if second != source else "heaters and modulators"),
        (second, first + modulators, "modulators"),
    ):
        if wanted > SOURCE_CHANNELS[name]:
            raise ConfigError(f"{what} need {wanted} channels, more than {name} has ({SOURCE_CHANNELS[name]})")
    if detectors > READOUT_INPUTS[readout]:
        raise ConfigError(f"detectors need {detectors} inputs, more than {readout} has ({READOUT_INPUTS[readout]})")
    return VirtualWiring(
        source, second, readout, laser, tuple(range(heaters)), tuple(range(first, first + modulators)), tuple(range(detectors))
    )


def build(
    parameters: ChipParameters,
    choices: Choices | None = None,
    *,
    speed: float = 0.0,
    stamped: bool = False,
    clock: Callable[[], float] = time.monotonic,
) -> VirtualBench:
    """Return the bench of a chip.

    Parameters
    ----------
    parameters
        The chip (`load_chip`); its seed also draws the instruments' own noise.
    choices
        Who does what.
    speed
        Factor on the instruments' response times: 1 as in the lab, 0 no waiting.
    stamped
        Detectors show sequence numbers in place of light (`Laboratory`).
    clock
        Seconds of wall time.
    """
    choices = choices or Choices()
    laboratory = Laboratory(parameters, stamped=stamped)
    try:
        wiring = wire(laboratory.heater_v.size, laboratory.modulator_v.size, laboratory.detectors, choices)
    except ConfigError:
        laboratory.close()
        raise
    loads = _loads(laboratory, wiring)
    outputs = virtual_qdac2.QdacChannels(loads["qdac2"], clock)
    laboratory.before_measuring.append(outputs.update)
    inputs = {name: _inputs(laboratory, READOUT_INPUTS[name]) for name in READOUTS}
    spare = max(laboratory.detectors, _SPARE_CHANNELS)

    def dark(_: LaserLight) -> None:
        """The light of a laser that is wired to nothing."""

    def light_of(name: str) -> Callable[[LaserLight], None]:
        return laboratory.set_light if name == wiring.laser else dark

    emulators: dict[str, Emulator] = {
        "qontrol": virtual_qontrol.QontrolChain(loads["qontrol"]),
        "qdac2": virtual_qdac2.qdac2(outputs),
        "scpi-source": generic_scpi.scpi_source(loads["scpi-source"]),
        "labjack-t7": virtual_labjack.VirtualLabJackT7(inputs["labjack-t7"]),
        "keysight-daq970a": virtual_keysight.keysight(inputs["keysight-daq970a"], _generator(parameters, _VOLTMETER)),
        "scpi-readout": generic_scpi.scpi_readout(inputs["scpi-readout"], spare),
        "santec-tsl570": virtual_santec.santec(
            light_of("santec-tsl570"), speed=speed, is_scpi=choices.laser_command_set == "scpi", clock=clock
        ),
        "scpi-laser": generic_scpi.scpi_laser(light_of("scpi-laser")),
        METER: virtual_pm100d.pm100d(laboratory.monitor, _generator(parameters, _METER)),
    }
    garbage = _generator(parameters, _GARBAGE)
    units = {
        name: Unit(
            name,
            emulator,
            speed=speed,
            survives_reset=name in choices.serial,
            rng=garbage,
            let_pass=laboratory.let_pass,
            clock=clock,
        )
        for name, emulator in emulators.items()
    }
    return VirtualBench(
        laboratory, wiring, units, {"scpi-source": len(loads["scpi-source"]), "scpi-readout": spare}, choices.serial
    )


def _loads(laboratory: Laboratory, wiring: VirtualWiring) -> dict[str, list[Load]]:
    """Return what the channels of every source drive."""
    loads: dict[str, list[Load]] = {name: [] for name in SOURCES}
    loads[wiring.heaters] += [laboratory.heater(channel) for channel in range(laboratory.heater_v.size)]
    loads[wiring.modulators] += [laboratory.modulator(port) for port in range(laboratory.modulator_v.size)]
    for name in ("qontrol", "scpi-source"):
        loads[name] = loads[name] or [Load()] * _SPARE_CHANNELS
    return loads


def _inputs(laboratory: Laboratory, count: int) -> Read:
    """Return what reads a readout's inputs: detectors from the first on, nothing at the others."""

    def read(inputs: Sequence[int]) -> NDArray[np.float64]:
        volts = np.zeros(len(inputs))
        wired = [i for i, wanted in enumerate(inputs) if wanted < min(count, laboratory.detectors)]
        volts[wired] = laboratory.detector_v([inputs[i] for i in wired])
        return volts

    return read


def _generator(parameters: ChipParameters, place: int) -> np.random.Generator:
    return np.random.default_rng(np.random.SeedSequence(parameters.seed, spawn_key=(2, place)))
