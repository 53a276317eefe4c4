"""Instruments of no make in particular: a multichannel source, a readout, a laser, in the most common SCPI.

They stand for whatever a small table of commands in `station.toml` describes:

    source    VOLT 1.5,(@3)    VOLT? (@1:8)    MEAS:CURR? (@1:8)    VOLT:PROT 6,(@1:8)    CURR:LIM 0.02,(@1:8)
    readout   MEAS:VOLT? (@1:8)
    laser     POW 10 MW    POW?    WAV 1550 NM    WAV?    OUTP ON    OUTP?
    all       *IDN?    *RST    *CLS    SYST:ERR?

Channels are counted from 1. A source channel above its protection refuses (-222); one that draws more than its current limit is
held to the voltage that draws so much.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np

from photonloop.simulator.emulators.emulator import truncated
from photonloop.simulator.emulators.laboratory import CENTRE_NM, LaserLight, Load, Read
from photonloop.simulator.emulators.scpi_engine import Call, Command, ErrorQueue, Manners, ScpiInstrument, plain_error
from photonloop.simulator.emulators.scpi_parser import ScpiError, boolean, channel_list, number

SOURCE_V, SOURCE_A, SOURCE_STEP_V = 15.0, 0.05, 1e-3
READOUT_V, READOUT_STEP_V = 10.0, 20.0 / 65535
LASER_W, LASER_STEP_W, LASER_STEP_NM = 0.02, 1e-6, 1e-3
LASER_NM = (1500.0, 1600.0)

_MOST = 1024


def scpi_source(loads: Sequence[Load], *, serial: str = "SRC001") -> ScpiInstrument:
    """Return a source with one channel a load, 0 to 15 V in steps of 1 mV, 50 mA."""
    count = len(loads)
    volts, top_v, top_a = np.zeros(count), np.full(count, SOURCE_V), np.full(count, SOURCE_A)

    def restore() -> None:
        top_v[:], top_a[:] = SOURCE_V, SOURCE_A
        for index in range(count):
            hold(index, 0.0)

    def hold(index: int, wanted_v: float) -> None:
        volts[index] = min(wanted_v, top_a[index] * loads[index].resistance_ohm)
        loads[index].hold(float(volts[index]))

    def split(call: Call) -> tuple[list[int], tuple[str, ...]]:
        if not call.arguments or not call.arguments[-1].startswith("("):
            raise ScpiError(-109)
        return _indexes(call.arguments[-1], count), call.arguments[:-1]

    def level(call: Call) -> None:
        indexes, rest = split(call)
        if len(rest) not in {1, len(indexes)}:
            raise ScpiError(-109)
        wanted = [truncated(number(text, low=0.0, high=SOURCE_V, units={"V": 1.0}), SOURCE_STEP_V) for text in rest]
        wanted = wanted * (len(indexes) // len(wanted))
        if any(value > top_v[index] + 1e-9 for index, value in zip(indexes, wanted, strict=True)):
            raise ScpiError(-222)
        for index, value in zip(indexes, wanted, strict=True):
            hold(index, value)

    def limit(top: np.ndarray, most: float, units: dict[str, float]) -> Callable[[Call], None]:
        def tell(call: Call) -> None:
            indexes, rest = split(call)
            if len(rest) != 1:
                raise ScpiError(-109)
            top[indexes] = number(rest[0], low=0.0, high=most, units=units)

        return tell

    def ask(values: Callable[[int], float]) -> Callable[[Call], str]:
        return lambda call: ",".join(f"{values(i):+.6E}" for i in split(call)[0])

    amps, millis = {"A": 1.0, "MA": 1e-3}, {"V": 1.0, "MV": 1e-3}
    commands = [
        Command("[SOURce:]VOLTage[:LEVel]", level, ask(lambda i: volts[i]), most=_MOST),
        Command("[SOURce:]VOLTage:PROTection", limit(top_v, SOURCE_V, millis), ask(lambda i: top_v[i]), most=2),
        Command("[SOURce:]CURRent:LIMit", limit(top_a, SOURCE_A, amps), ask(lambda i: top_a[i]), most=2),
        Command("MEASure:CURRent", ask=ask(lambda i: truncated(loads[i].current_a(volts[i]), 1e-6)), takes_s=5e-3),
        Command("SYSTem:CHANnel[:COUNt]", ask=lambda _: str(count)),
    ]
    return ScpiInstrument(_manners("SOURCE-16", serial), commands, restore, ErrorQueue(8))


def scpi_readout(read: Read, inputs: int, *, serial: str = "DAQ001") -> ScpiInstrument:
    """Return a readout of `inputs` channels, ±10 V, 16 bits, one conversion for all of them at once."""

    def convert(volts: float) -> float:
        return math.copysign(9.9e37, volts) if abs(volts) > READOUT_V else truncated(volts, READOUT_STEP_V)

    def measure(call: Call) -> str:
        return ",".join(f"{convert(float(v)):+.6E}" for v in read(_indexes(call.argument(), inputs)))

    commands = [
        Command("MEASure:VOLTage[:DC]", ask=measure, takes_s=1e-3),
        Command("SYSTem:CHANnel[:COUNt]", ask=lambda _: str(inputs)),
    ]
    return ScpiInstrument(_manners("READOUT-16", serial), commands, lambda: None, ErrorQueue(8))


@dataclass
class _Holder:
    light: LaserLight


def scpi_laser(set_light: Callable[[LaserLight], None], *, serial: str = "LAS001") -> ScpiInstrument:
    """Return a laser, 20 mW, 1500 to 1600 nm, that tells `set_light` about its light."""
    holder = _Holder(LaserLight(1e-3, CENTRE_NM))

    def become(light: LaserLight) -> None:
        holder.light = light
        set_light(light)

    def power(call: Call) -> None:
        watts = number(call.argument(), low=0.0, high=LASER_W, units={"W": 1.0, "MW": 1e-3, "UW": 1e-6})
        become(replace(holder.light, power_w=truncated(watts, LASER_STEP_W)))

    def wavelength(call: Call) -> None:
        nm = number(call.argument(), low=LASER_NM[0], high=LASER_NM[1], units={"NM": 1.0, "M": 1e9})
        become(replace(holder.light, wavelength_nm=truncated(nm, LASER_STEP_NM)))

    def output(call: Call) -> None:
        become(replace(holder.light, is_on=boolean(call.argument())))

    commands = [
        Command("[SOURce:]POWer[:LEVel]", power, lambda _: f"{holder.light.power_w:.6E}"),
        Command("[SOURce:]WAVelength", wavelength, lambda _: f"{holder.light.wavelength_nm:.3f}"),
        Command("OUTPut[:STATe]", output, lambda _: str(int(holder.light.is_on))),
    ]
    return ScpiInstrument(_manners("LASER-1550", serial), commands, lambda: become(LaserLight(1e-3, CENTRE_NM)), ErrorQueue(8))


def _manners(model: str, serial: str) -> Manners:
    return Manners(f"PHOTONLOOP,{model},{serial},1.0", plain_error, exchange_s=0.5e-3)


def _indexes(text: str, count: int) -> list[int]:
    """Return channels counted from 0; ScpiError -222 for one that is not there."""
    channels = channel_list(text)
    if not all(1 <= channel <= count for channel in channels):
        raise ScpiError(-222)
    return [channel - 1 for channel in channels]
