"""Emulated Keysight DAQ970A (34970A command set): one voltmeter behind a scanner, three cards of twenty inputs.

The inputs' channel numbers are 100 · slot + position: 101 to 120, 201 to 220, 301 to 320.

Source: the maker's command reference. It does not give the following, which is assumed: the noise (3·10⁻⁶ of the range
at one power-line cycle, divided by the square root of the number of cycles), and the times per channel.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, fields

import numpy as np

from photonloop.simulator.emulators.emulator import to_step
from photonloop.simulator.emulators.laboratory import ReadVolts
from photonloop.simulator.emulators.scpi_engine import Call, Command, ErrorQueue, ScpiInstrument, ScpiProfile, plain_error
from photonloop.simulator.emulators.scpi_parser import ScpiError, boolean, channel_list, choice, number

SLOTS, PLACES = 3, 20
INPUTS = SLOTS * PLACES
RANGES_V = (0.1, 1.0, 10.0, 100.0, 300.0)
OVERLOAD = 9.9e37
CYCLE_S = 0.02
"""One power-line cycle at 50 Hz."""
CYCLES = (0.02, 0.2, 1, 2, 10, 20, 100, 200)

_VOLTS = {"V": 1.0, "MV": 1e-3}


@dataclass
class _Settings:
    scan: tuple[int, ...] = ()
    range_v: float = 10.0
    is_auto: bool = True
    cycles: float = 1
    trigger: str = "IMMEDIATE"
    with_channels: bool = False
    waits: bool = False
    readings: tuple[float, ...] | None = None


class _Scanner:
    """The state of the voltmeter and its scanner, and the functions of the commands."""

    def __init__(self, read: ReadVolts, rng: np.random.Generator) -> None:
        self.settings = _Settings()
        self._read = read
        self._rng = rng

    def restore(self) -> None:
        for item in fields(_Settings):
            setattr(self.settings, item.name, item.default)

    def take_scan(self, channels: Sequence[int]) -> None:
        for channel in channels:
            _input(channel)
        self.settings.scan, self.settings.readings, self.settings.waits = tuple(channels), None, False

    def configure(self, call: Call) -> None:
        rest = call.arguments
        if not rest or not rest[-1].startswith("("):
            raise ScpiError(-109)
        channels = channel_list(rest[-1])
        span = rest[0].upper() if len(rest) > 1 else "AUTO"
        if span in {"AUTO", "DEF"}:
            self.settings.is_auto = True
        else:
            self.set_range(span)
        self.settings.trigger, self.settings.with_channels, self.settings.cycles = "IMMEDIATE", False, 1
        self.take_scan(channels)

    def set_range(self, text: str) -> None:
        volts = number(text, low=0.0, high=RANGES_V[-1], default=10.0, units=_VOLTS)
        self.settings.range_v, self.settings.is_auto = next(r for r in RANGES_V if r >= volts), False

    def set_cycles(self, call: Call) -> None:
        wanted = number(call.argument(), low=CYCLES[0], high=CYCLES[-1], default=1)
        self.settings.cycles = next(c for c in CYCLES if c >= wanted)

    def set_auto(self, call: Call) -> None:
        self.settings.is_auto = boolean(call.argument())

    def set_trigger(self, call: Call) -> None:
        self.settings.trigger = choice(call.argument(), ("IMMediate", "BUS"))

    def set_format(self, call: Call) -> None:
        self.settings.with_channels = boolean(call.argument())

    def start(self, _: Call) -> None:
        if not self.settings.scan:
            raise ScpiError(-221)
        if self.settings.waits:
            raise ScpiError(-213)
        self.settings.readings = None
        if self.settings.trigger == "IMMEDIATE":
            self._run_scan()
        else:
            self.settings.waits = True

    def trigger(self, _: Call) -> None:
        if not self.settings.waits:
            raise ScpiError(-211)
        self.settings.waits = False
        self._run_scan()

    def abort(self, _: Call) -> None:
        self.settings.waits = False

    def fetch(self, _: Call) -> str:
        if self.settings.readings is None:
            raise ScpiError(-230)
        pairs = zip(self.settings.scan, self.settings.readings, strict=True)
        name = self.settings.with_channels
        return ",".join(f"{value:+.8E},{channel}" if name else f"{value:+.8E}" for channel, value in pairs)

    def read_now(self, call: Call) -> str:
        if not self.settings.scan:
            raise ScpiError(-221)
        if self.settings.trigger == "BUS":
            raise ScpiError(-214)  # the trigger cannot come: the bus waits for the answer
        self._run_scan()
        return self.fetch(call)

    def measure(self, call: Call) -> str:
        self.configure(call)
        return self.read_now(call)

    def scanning_s(self, _: Call) -> float:
        return len(self.settings.scan) * (self.settings.cycles * CYCLE_S + 2e-3)

    def ask_scan(self, _: Call) -> str:
        text = f"(@{','.join(map(str, self.settings.scan))})"
        return f"#{len(str(len(text)))}{len(text)}{text}"

    def _run_scan(self) -> None:
        self.settings.readings = tuple(map(self._reading, self._read([_input(c) for c in self.settings.scan])))

    def _reading(self, volts: float) -> float:
        span_v = self.settings.range_v
        if self.settings.is_auto:
            span_v = next((r for r in RANGES_V if 1.2 * r >= abs(volts)), RANGES_V[-1])
        if abs(volts) > 1.2 * span_v:
            return math.copysign(OVERLOAD, volts)
        noise_v = 3e-6 * span_v / math.sqrt(self.settings.cycles) * float(self._rng.standard_normal())
        return to_step(volts + noise_v, 1e-7 * span_v)


def keysight(read: ReadVolts, rng: np.random.Generator, *, serial: str = "MY58000123") -> ScpiInstrument:
    """Return a DAQ970A.

    Parameters
    ----------
    read
        Measures the voltages at inputs, which are counted from 0.
    rng
        Random numbers for the voltmeter's noise.
    serial
        Serial number.
    """
    meter = _Scanner(read, rng)
    settings = meter.settings
    volts = "[SENSe:]VOLTage[:DC]"
    scanning = meter.scanning_s
    commands = [
        Command("CONFigure:VOLTage[:DC]", meter.configure, max_arguments=3),
        Command("MEASure:VOLTage[:DC]", query=meter.measure, takes_s=scanning, max_arguments=3),
        Command("ROUTe:SCAN", lambda c: meter.take_scan(channel_list(c.argument())), meter.ask_scan),
        Command("ROUTe:SCAN:SIZE", query=lambda _: f"+{len(settings.scan)}"),
        Command(f"{volts}:RANGe", lambda c: meter.set_range(c.argument()), lambda _: f"{settings.range_v:+.8E}", max_arguments=2),
        Command(f"{volts}:RANGe:AUTO", meter.set_auto, lambda _: str(int(settings.is_auto)), max_arguments=2),
        Command(f"{volts}:NPLCycles", meter.set_cycles, lambda _: f"{settings.cycles:+.8E}", max_arguments=2),
        Command("TRIGger:SOURce", meter.set_trigger, lambda _: "BUS" if settings.trigger == "BUS" else "IMM"),
        Command("FORMat:READing:CHANnel", meter.set_format, lambda _: str(int(settings.with_channels))),
        Command("INITiate[:IMMediate]", meter.start, takes_s=scanning),
        Command("*TRG", meter.trigger, takes_s=scanning),
        Command("FETCh", query=meter.fetch),
        Command("READ", query=meter.read_now, takes_s=scanning),
        Command("ABORt", meter.abort),
        Command("SYSTem:CTYPe", query=_card),
        Command("SYSTem:VERSion", query=lambda _: "1994.0"),
    ]
    identity = f"Keysight Technologies,DAQ970A,{serial},A.03.01-01.00-03.01-00.02-02-00"
    return ScpiInstrument(ScpiProfile(identity, plain_error, exchange_s=1e-3), commands, meter.restore, ErrorQueue(20))


def channel_name(index: int) -> int:
    """Return the channel number of an input counted from 0."""
    slot, place = divmod(index, PLACES)
    return 100 * (slot + 1) + place + 1


def _input(channel: int) -> int:
    """Return the input, counted from 0, of a channel number; ScpiError -222 if there is none."""
    slot, place = divmod(channel, 100)
    if not (1 <= slot <= SLOTS and 1 <= place <= PLACES):
        raise ScpiError(-222)
    return (slot - 1) * PLACES + place - 1


def _card(call: Call) -> str:
    slot = number(call.argument(), low=100, high=100 * SLOTS)
    if slot % 100:
        raise ScpiError(-224)
    return "Keysight Technologies,DAQM901A,MY58010001,04.01"
