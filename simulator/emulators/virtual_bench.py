"""Wire the virtual instruments to one chip.

Every kind of instrument is on the bench. One source drives the heaters and one the input modulators (or one source
drives both), and one laser lights the chip. An optical switch may be in place of the modulators. Every readout reads
the detectors as far as it has inputs. The power meter reads 1 % of the laser's power. Instruments that were not chosen
run as well, but are connected to nothing.
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
from photonloop.simulator.emulators.bench_choices import LASERS, METER, READOUTS, SOURCES, SWITCH, BenchChoices, check_choices
from photonloop.simulator.emulators.emulator import Emulator
from photonloop.simulator.emulators.laboratory import Laboratory, LaserLight, Load, ReadVolts
from photonloop.simulator.emulators.units import Unit
from photonloop.simulator.parameters import ChipParameters

SOURCE_CHANNELS = {"qontrol": 4096, "qdac2": virtual_qdac2.CHANNELS, "scpi-source": 1024}
READOUT_INPUTS = {"labjack-t7": virtual_labjack.INPUTS, "keysight-daq970a": virtual_keysight.INPUTS, "scpi-readout": 1024}

_SPARE_CHANNELS = 8
"""Channels of a source that has as many as needed and was not chosen."""

# Positions of the random generators below the chip's seed. Never renumber them: seeds would give other numbers.
_METER, _VOLTMETER, _GARBAGE = 0, 1, 2


@dataclass(frozen=True)
class VirtualWiring:
    """The instrument for each task, and its channels (counted from 0 in each instrument).

    Parameters
    ----------
    heaters, modulators, detectors, laser
        Names of instruments; `modulators` is empty if an optical switch lights the ports.
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
    """A wired bench, without sockets and serial lines."""

    laboratory: Laboratory
    wiring: VirtualWiring
    units: Mapping[str, Unit]
    channels: Mapping[str, int]
    """Number of channels of the instruments that can have any number of them."""
    serial: frozenset[str]
    """Instruments on a serial line."""


def assign_channels(heaters: int, modulators: int, detectors: int, choices: BenchChoices) -> VirtualWiring:
    """Assign instruments to a chip with the given numbers of heaters, input ports and detectors.

    Raises
    ------
    ConfigError
        An instrument that is not on the bench, or one with too few channels.
    """
    check_choices(choices)
    source = choices.heaters or SOURCES[0]
    if choices.inputs == "switch":
        modulators = 0
    second = choices.modulators or ("qdac2" if modulators <= virtual_qdac2.CHANNELS else "scpi-source")
    large_enough = next(name for name in READOUTS if detectors <= READOUT_INPUTS[name] or name == READOUTS[-1])
    readout = choices.detectors or large_enough
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
        heaters=source,
        modulators=second if modulators else "",
        detectors=readout,
        laser=laser,
        heater_channels=tuple(range(heaters)),
        modulator_channels=tuple(range(first, first + modulators)),
        detector_channels=tuple(range(detectors)),
    )


def build(
    parameters: ChipParameters,
    choices: BenchChoices | None = None,
    *,
    speed: float = 0.0,
    stamped: bool = False,
    clock: Callable[[], float] = time.monotonic,
) -> VirtualBench:
    """Return the virtual bench of a chip.

    Parameters
    ----------
    parameters
        The chip (`load_chip`). The instruments' own noise is drawn from its seed as well.
    choices
        The instrument for each task.
    speed
        Factor on the instruments' response times: 1 as in the lab, 0 no delay.
    stamped
        Detectors show the number of the measurement instead of light (`Laboratory`).
    clock
        Returns wall time [s].

    Raises
    ------
    ConfigError
        An instrument that is not on the bench, or one with too few channels.
    """
    choices = choices or BenchChoices()
    laboratory = Laboratory(parameters, stamped=stamped, has_switch=choices.inputs == "switch")
    try:
        wiring = assign_channels(laboratory.heater_v.size, laboratory.modulator_v.size, laboratory.detectors, choices)
    except ConfigError:
        laboratory.close()
        raise
    loads = _loads(laboratory, wiring)
    readout_inputs = max(laboratory.detectors, _SPARE_CHANNELS)
    emulators = {
        **_sources(laboratory, loads, clock),
        **_readouts(laboratory, parameters, readout_inputs),
        **_lasers(laboratory, wiring, choices, speed, clock),
        SWITCH: generic_scpi.scpi_switch(laboratory.set_switch, laboratory.modulator_v.size),
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
    channels = {
        "scpi-source": len(loads["scpi-source"]),
        "scpi-readout": readout_inputs,
        SWITCH: laboratory.modulator_v.size,
    }
    return VirtualBench(laboratory, wiring, units, channels, choices.serial)


def _sources(laboratory: Laboratory, loads: Mapping[str, list[Load]], clock: Callable[[], float]) -> dict[str, Emulator]:
    outputs = virtual_qdac2.QdacChannels(loads["qdac2"], clock)
    laboratory.before_measuring.append(outputs.update)
    return {
        "qontrol": virtual_qontrol.QontrolChain(loads["qontrol"]),
        "qdac2": virtual_qdac2.qdac2(outputs),
        "scpi-source": generic_scpi.scpi_source(loads["scpi-source"]),
    }


def _readouts(laboratory: Laboratory, parameters: ChipParameters, generic_inputs: int) -> dict[str, Emulator]:
    """Return the readouts; `generic_inputs` is the number of inputs of the generic one."""
    inputs = {name: _inputs(laboratory, READOUT_INPUTS[name]) for name in READOUTS}
    return {
        "labjack-t7": virtual_labjack.VirtualLabJackT7(inputs["labjack-t7"]),
        "keysight-daq970a": virtual_keysight.keysight(inputs["keysight-daq970a"], _generator(parameters, _VOLTMETER)),
        "scpi-readout": generic_scpi.scpi_readout(inputs["scpi-readout"], generic_inputs),
    }


def _lasers(
    laboratory: Laboratory, wiring: VirtualWiring, choices: BenchChoices, speed: float, clock: Callable[[], float]
) -> dict[str, Emulator]:
    def no_chip(_: LaserLight) -> None:
        """Discard the light of a laser that is connected to nothing."""

    def fibre(name: str) -> Callable[[LaserLight], None]:
        return laboratory.set_light if name == wiring.laser else no_chip

    is_scpi = choices.laser_command_set == "scpi"
    return {
        "santec-tsl570": virtual_santec.santec(fibre("santec-tsl570"), speed=speed, is_scpi=is_scpi, clock=clock),
        "scpi-laser": generic_scpi.scpi_laser(fibre("scpi-laser")),
    }


def _loads(laboratory: Laboratory, wiring: VirtualWiring) -> dict[str, list[Load]]:
    """Return the loads of the channels of each source."""
    loads: dict[str, list[Load]] = {name: [] for name in SOURCES}
    loads[wiring.heaters] += [laboratory.heater(channel) for channel in range(laboratory.heater_v.size)]
    if wiring.modulators:
        loads[wiring.modulators] += [laboratory.modulator(port) for port in range(laboratory.modulator_v.size)]
    for name in ("qontrol", "scpi-source"):
        loads[name] = loads[name] or [Load()] * _SPARE_CHANNELS
    return loads


def _inputs(laboratory: Laboratory, count: int) -> ReadVolts:
    """Return the function that reads a readout's inputs: the detectors first, 0 V at the other inputs."""

    def read(inputs: Sequence[int]) -> NDArray[np.float64]:
        volts = np.zeros(len(inputs))
        wired = [i for i, wanted in enumerate(inputs) if wanted < min(count, laboratory.detectors)]
        volts[wired] = laboratory.detector_v([inputs[i] for i in wired])
        return volts

    return read


def _generator(parameters: ChipParameters, place: int) -> np.random.Generator:
    return np.random.default_rng(np.random.SeedSequence(parameters.seed, spawn_key=(2, place)))
