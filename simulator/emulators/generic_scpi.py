"""Emulated generic instruments in common SCPI: a multichannel source, a readout, a laser and an optical switch.

They represent the instruments that a table of commands in `station.toml` describes:

    source    VOLT 1.5,(@3)    VOLT? (@1:8)    MEAS:CURR? (@1:8)    VOLT:PROT 6,(@1:8)    CURR:LIM 0.02,(@1:8)
    readout   MEAS:VOLT? (@1:8)
    switch    ROUT:CHAN 3    ROUT:CHAN?    0 blocks the light
    laser     POW 10 MW    POW?    WAV 1550 NM    WAV?    OUTP ON    OUTP?
    all       *IDN?    *RST    *CLS    SYST:ERR?

Channels are counted from 1. A voltage above the protection of its channel is refused (-222). A channel that would draw
more than its current limit is held at the voltage at which it draws that current.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np

from photonloop.simulator.emulators.emulator import truncated
from photonloop.simulator.emulators.laboratory import CENTRE_NM, LaserLight, Load, ReadVolts
from photonloop.simulator.emulators.scpi_engine import Call, Command, ErrorQueue, ScpiInstrument, ScpiProfile, plain_error
from photonloop.simulator.emulators.scpi_parser import ScpiError, boolean, channel_list, number

SOURCE_V, SOURCE_A, SOURCE_STEP_V = 15.0, 0.05, 1e-3
READOUT_V, READOUT_STEP_V = 10.0, 20.0 / 65535
LASER_W, LASER_STEP_W, LASER_STEP_NM = 0.02, 1e-6, 1e-3
LASER_NM = (1500.0, 1600.0)

SWITCH_S = 0.01
"""Time of an optical switch from a command to light at the new channel [s]; an estimate for MEMS switches."""

_MAX_ARGUMENTS = 1024


def scpi_source(loads: Sequence[Load], *, serial: str = "SRC001") -> ScpiInstrument:
    """Return a source with one channel per load, 0 to 15 V in steps of 1 mV, 50 mA."""
    count = len(loads)
    volts, max_v, max_a = np.zeros(count), np.full(count, SOURCE_V), np.full(count, SOURCE_A)

    def restore() -> None:
        max_v[:], max_a[:] = SOURCE_V, SOURCE_A
        for index in range(count):
            hold(index, 0.0)

    def hold(index: int, wanted_v: float) -> None:
        volts[index] = min(wanted_v, max_a[index] * loads[index].resistance_ohm)
        loads[index].hold(float(volts[index]))

    def split(call: Call) -> tuple[list[int], tuple[str, ...]]:
        if not call.arguments or not call.arguments[-1].startswith("("):
            raise ScpiError(-109)
        return _indexes(call.arguments[-1], count), call.arguments[:-1]

    def set_level(call: Call) -> None:
        indexes, rest = split(call)
        if len(rest) not in {1, len(indexes)}:
            raise ScpiError(-109)
        wanted = [truncated(number(text, low=0.0, high=SOURCE_V, units={"V": 1.0}), SOURCE_STEP_V) for text in rest]
        wanted = wanted * (len(indexes) // len(wanted))
        if any(value > max_v[index] + 1e-9 for index, value in zip(indexes, wanted, strict=True)):
            raise ScpiError(-222)
        for index, value in zip(indexes, wanted, strict=True):
            hold(index, value)

    def limit(limits: np.ndarray, highest: float, units: dict[str, float]) -> Callable[[Call], None]:
        def execute(call: Call) -> None:
            indexes, rest = split(call)
            if len(rest) != 1:
                raise ScpiError(-109)
            limits[indexes] = number(rest[0], low=0.0, high=highest, units=units)

        return execute

    def query(values: Callable[[int], float]) -> Callable[[Call], str]:
        return lambda call: ",".join(f"{values(i):+.6E}" for i in split(call)[0])

    amps, millis = {"A": 1.0, "MA": 1e-3}, {"V": 1.0, "MV": 1e-3}
    commands = [
        Command("[SOURce:]VOLTage[:LEVel]", set_level, query(lambda i: volts[i]), max_arguments=_MAX_ARGUMENTS),
        Command("[SOURce:]VOLTage:PROTection", limit(max_v, SOURCE_V, millis), query(lambda i: max_v[i]), max_arguments=2),
        Command("[SOURce:]CURRent:LIMit", limit(max_a, SOURCE_A, amps), query(lambda i: max_a[i]), max_arguments=2),
        Command("MEASure:CURRent", query=query(lambda i: truncated(loads[i].current_a(volts[i]), 1e-6)), takes_s=5e-3),
        Command("SYSTem:CHANnel[:COUNt]", query=lambda _: str(count)),
    ]
    return ScpiInstrument(_profile("SOURCE-16", serial), commands, restore, ErrorQueue(8))


def scpi_readout(read: ReadVolts, inputs: int, *, serial: str = "DAQ001") -> ScpiInstrument:
    """Return a readout of `inputs` channels, ±10 V, 16 bits, which are all converted at the same time."""

    def convert(volts: float) -> float:
        return math.copysign(9.9e37, volts) if abs(volts) > READOUT_V else truncated(volts, READOUT_STEP_V)

    def measure(call: Call) -> str:
        return ",".join(f"{convert(float(v)):+.6E}" for v in read(_indexes(call.argument(), inputs)))

    commands = [
        Command("MEASure:VOLTage[:DC]", query=measure, takes_s=1e-3),
        Command("SYSTem:CHANnel[:COUNt]", query=lambda _: str(inputs)),
    ]
    return ScpiInstrument(_profile("READOUT-16", serial), commands, lambda: None, ErrorQueue(8))


@dataclass
class _Output:
    light: LaserLight


def scpi_laser(set_light: Callable[[LaserLight], None], *, serial: str = "LAS001") -> ScpiInstrument:
    """Return a laser, 20 mW, 1500 to 1600 nm, that calls `set_light` whenever its light changes."""
    output_state = _Output(LaserLight(1e-3, CENTRE_NM))

    def change(light: LaserLight) -> None:
        output_state.light = light
        set_light(light)

    def power(call: Call) -> None:
        watts = number(call.argument(), low=0.0, high=LASER_W, units={"W": 1.0, "MW": 1e-3, "UW": 1e-6})
        change(replace(output_state.light, power_w=truncated(watts, LASER_STEP_W)))

    def wavelength(call: Call) -> None:
        nm = number(call.argument(), low=LASER_NM[0], high=LASER_NM[1], units={"NM": 1.0, "M": 1e9})
        change(replace(output_state.light, wavelength_nm=truncated(nm, LASER_STEP_NM)))

    def output(call: Call) -> None:
        change(replace(output_state.light, is_on=boolean(call.argument())))

    commands = [
        Command("[SOURce:]POWer[:LEVel]", power, lambda _: f"{output_state.light.power_w:.6E}"),
        Command("[SOURce:]WAVelength", wavelength, lambda _: f"{output_state.light.wavelength_nm:.3f}"),
        Command("OUTPut[:STATe]", output, lambda _: str(int(output_state.light.is_on))),
    ]
    return ScpiInstrument(_profile("LASER-1550", serial), commands, lambda: change(LaserLight(1e-3, CENTRE_NM)), ErrorQueue(8))


def scpi_switch(light_port: Callable[[int | None], None], channels: int, *, serial: str = "SWI001") -> ScpiInstrument:
    """Return an optical 1×N switch that calls `light_port` with its channel, None if it is dark, as at power-up."""
    position = [0]

    def move(channel: int) -> None:
        position[0] = channel
        light_port(channel - 1 if channel else None)

    def select(call: Call) -> None:
        wanted = number(call.argument(), low=0.0, high=float(channels), units={})
        if wanted != int(wanted):
            raise ScpiError(-222)
        move(int(wanted))

    commands = [
        Command("ROUTe:CHANnel", select, lambda _: str(position[0]), takes_s=lambda call: SWITCH_S if call.arguments else 0.0)
    ]
    return ScpiInstrument(_profile("SWITCH-1XN", serial), commands, lambda: move(0), ErrorQueue(8))


def _profile(model: str, serial: str) -> ScpiProfile:
    return ScpiProfile(f"PHOTONLOOP,{model},{serial},1.0", plain_error, exchange_s=0.5e-3)


def _indexes(text: str, count: int) -> list[int]:
    """Return channels counted from 0; ScpiError -222 if there is no such channel."""
    channels = channel_list(text)
    if not all(1 <= channel <= count for channel in channels):
        raise ScpiError(-222)
    return [channel - 1 for channel in channels]
