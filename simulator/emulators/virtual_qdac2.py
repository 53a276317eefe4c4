"""Emulated QDevil QDAC-II: 24 voltage sources, ±10 V, SCPI over TCP.

Source: the maker's public drivers and simulation tables. They do not give the following, which is assumed: outputs are
limited to 10 mA; the error queue holds 16 errors; the number of digits in answers; a voltage set while a list is in use
takes effect at VOLT:MODE FIX; an output in fixed mode that still waits for a trigger goes to VOLT:TRIG at the trigger,
0 V by default.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from photonloop.simulator.emulators.emulator import to_step
from photonloop.simulator.emulators.laboratory import Load
from photonloop.simulator.emulators.scpi_engine import Call, Command, ErrorQueue, ScpiInstrument, ScpiProfile
from photonloop.simulator.emulators.scpi_parser import ScpiError, boolean, channel_list, choice, error_text, number

CHANNELS = 24
RANGE_V = {"HIGH": 10.0, "LOW": 2.0}
STEP_V = 20.0 / 2**25
MAX_A = 0.010
MAX_POINTS = 65536
TRIGGERS = ("IMMediate", "BUS", "HOLD", *(f"INT{k}" for k in range(1, 17)), *(f"EXT{k}" for k in range(1, 6)))


@dataclass
class QdacChannel:
    """The settings and the state of one output.

    `level_v` is the voltage in FIXED mode, `next_v` the voltage after a trigger, `volts` the present voltage at the
    terminal.
    """

    level_v: float = 0.0
    next_v: float = 0.0
    volts: float = 0.0
    mode: str = "FIXED"
    span: str = "HIGH"
    slew_v_per_s: float = math.inf
    slewed_s: float = 0.0
    trigger: str = "IMMEDIATE"
    continuous: bool = True
    is_armed: bool = False
    points: list[float] = field(default_factory=list)
    dwell_s: float = 1e-3
    stepwise: bool = False
    count: float = 1
    place: int = -1
    since_s: float | None = None


class QdacChannels:
    """All outputs and their loads.

    Parameters
    ----------
    loads
        Loads of the first outputs. The others are open.
    clock
        Returns the time [s] for slews and lists. The user sets these times, so the bench's speed does not scale them.
    """

    def __init__(self, loads: Sequence[Load], clock: Callable[[], float] = time.monotonic) -> None:
        if len(loads) > CHANNELS:
            raise ValueError(f"there are {len(loads)} loads, expected at most {CHANNELS}, the channels of a QDAC-II")
        self.loads = [*loads, *[Load()] * (CHANNELS - len(loads))]
        self.clock = clock
        self.all: list[QdacChannel] = []
        self._moving: set[int] = set()
        self.reset()

    def reset(self) -> None:
        """Set all outputs to 0 V and all settings to their values at power-up."""
        self.all = [QdacChannel() for _ in range(CHANNELS)]
        self._moving.clear()
        for index in range(CHANNELS):
            self._put(index, 0.0)

    def set_level(self, index: int, volts: float) -> None:
        """Set the voltage of FIXED mode; ScpiError -222 beyond the range."""
        output = self.all[index]
        if abs(volts) > RANGE_V[output.span] + 1e-12:
            raise ScpiError(-222)
        output.level_v = to_step(volts, STEP_V)
        if output.mode == "FIXED":
            self.go(index)

    def go(self, index: int) -> None:
        """Move to the level, at once or at the slew rate that is set."""
        output = self.all[index]
        if math.isinf(output.slew_v_per_s):
            self._put(index, output.level_v)
            self._moving.discard(index)
        else:
            if index not in self._moving:
                output.slewed_s = self.clock()
            self._moving.add(index)

    def start(self, index: int) -> None:
        """Start a list, or go to its next point."""
        output = self.all[index]
        if output.mode != "LIST" or not output.points:
            return
        if output.stepwise:
            output.place = min(output.place + 1, len(output.points) - 1)
            self._put(index, output.points[output.place])
        else:
            output.since_s = self.clock()
            self._moving.add(index)
            self.update()

    def fire(self, trigger: str) -> None:
        """Trigger all outputs that wait for `trigger`."""
        for index, output in enumerate(self.all):
            if output.trigger == trigger and (output.is_armed or output.continuous):
                output.is_armed = False
                if output.mode == "FIXED":
                    self.set_level(index, output.next_v)
                self.start(index)

    def stop(self, index: int) -> None:
        """Stop slewing or playing a list, at the present voltage."""
        self.update()
        self.all[index].since_s = None
        self._moving.discard(index)

    def abort(self, index: int) -> None:
        """Stop, and wait for no trigger any more unless triggering is continuous."""
        self.stop(index)
        self.all[index].is_armed = False

    def update(self) -> None:
        """Set every output that slews or plays a list to its voltage at the present time."""
        if not self._moving:
            return
        now_s = self.clock()
        for index in tuple(self._moving):
            output = self.all[index]
            if output.mode == "LIST" and output.since_s is not None:
                place = int((now_s - output.since_s) / output.dwell_s)
                last = output.count * len(output.points) - 1
                if place >= last:
                    self._moving.discard(index)
                    place = int(last)
                self._put(index, output.points[place % len(output.points)])
            else:
                reach_v = output.slew_v_per_s * (now_s - output.slewed_s)
                output.slewed_s = now_s
                gap_v = output.level_v - output.volts
                if abs(gap_v) <= reach_v:
                    self._moving.discard(index)
                    self._put(index, output.level_v)
                else:
                    self._put(index, output.volts + math.copysign(reach_v, gap_v))

    def current_a(self, index: int) -> float:
        """Return the present current [A]."""
        self.update()
        return self.loads[index].current_a(self.all[index].volts)

    def _put(self, index: int, volts: float) -> None:
        most_v = MAX_A * self.loads[index].resistance_ohm
        self.all[index].volts = max(-most_v, min(most_v, volts))
        self.loads[index].hold(self.all[index].volts)


class _QdacCommands:
    """The functions of the commands. A command names outputs by a number in its header or by a channel list."""

    def __init__(self, outputs: QdacChannels) -> None:
        self._outputs = outputs

    def assign(self, function: Callable[[int, str], object]) -> Callable[[Call], None]:
        """Return a command with one value: `function` is called with every output and the value."""

        def run(call: Call) -> None:
            indexes, rest = _channels(call)
            if len(rest) != 1:
                raise ScpiError(-109 if not rest else -108)
            for index in indexes:
                function(index, rest[0])

        return run

    def put(self, name: str, read: Callable[[str], object]) -> Callable[[Call], None]:
        """Return a command that stores its value in field `name` of an output."""
        return self.assign(lambda index, text: setattr(self._outputs.all[index], name, read(text)))

    def check(self, read: Callable[[str], object]) -> Callable[[Call], None]:
        """Return a command of the current meters, whose value is only checked: here they are exact."""
        return self.assign(lambda _, text: read(text))

    def act(self, function: Callable[[int], None]) -> Callable[[Call], None]:
        """Return a command without a value: `function` is called with every output."""

        def run(call: Call) -> None:
            for index in _channels(call)[0]:
                function(index)

        return run

    def query(self, show: Callable[[QdacChannel], str]) -> Callable[[Call], str]:
        """Return a query: `show` formats the answer of one output."""

        def run(call: Call) -> str:
            self._outputs.update()
            return ",".join(show(self._outputs.all[index]) for index in _channels(call)[0])

        return run

    def mode(self, index: int, text: str) -> None:
        word = choice(text, ("FIXed", "LIST"))
        self._outputs.stop(index)
        self._outputs.all[index].mode = word
        if word == "FIXED":
            self._outputs.go(index)

    def span(self, index: int, text: str) -> None:
        word = choice(text, ("HIGH", "LOW"))
        if abs(self._outputs.all[index].level_v) > RANGE_V[word]:
            raise ScpiError(-221)
        self._outputs.all[index].span = word

    def points(self, *, append: bool) -> Callable[[Call], None]:
        def run(call: Call) -> None:
            indexes, rest = _channels(call)
            values = [to_step(number(text), STEP_V) for text in rest]
            if not values:
                raise ScpiError(-109)
            for index in indexes:
                output = self._outputs.all[index]
                found = [*output.points, *values] if append else list(values)
                if len(found) > MAX_POINTS or any(abs(value) > RANGE_V[output.span] + 1e-12 for value in values):
                    raise ScpiError(-222)
                output.points, output.place, output.since_s = found, -1, None

        return run

    def initiate(self, index: int) -> None:
        output = self._outputs.all[index]
        output.is_armed = True
        if output.trigger == "IMMEDIATE":
            self._outputs.start(index)

    def abort(self, _: Call) -> None:
        for index in range(CHANNELS):
            self._outputs.abort(index)

    def amps(self, call: Call) -> str:
        return ",".join(f"{self._outputs.current_a(index):.9e}" for index in _channels(call)[0])


def qdac2(outputs: QdacChannels, *, serial: str = "A000123") -> ScpiInstrument:
    """Return a QDAC-II with the given outputs."""
    functions = _QdacCommands(outputs)
    assign, put, act, query = functions.assign, functions.put, functions.act, functions.query
    errors = ErrorQueue(16)
    source = "SOURce#"
    commands = [
        _setting(f"{source}:VOLTage[:LEVel]", assign(lambda i, t: outputs.set_level(i, number(t))), query(_shown("level_v"))),
        Command(f"{source}:VOLTage:LAST", query=query(_shown("volts"))),
        _setting(
            f"{source}:VOLTage:TRIGgered", put("next_v", lambda t: number(t, low=-10.0, high=10.0)), query(_shown("next_v"))
        ),
        _setting(f"{source}:VOLTage:MODE", assign(functions.mode), query(lambda o: "LIST" if o.mode == "LIST" else "FIX")),
        _setting(f"{source}:VOLTage:SLEW", put("slew_v_per_s", _slew), query(_shown("slew_v_per_s"))),
        _setting(f"{source}:RANGe", assign(functions.span), query(lambda o: o.span)),
        Command(f"{source}:LIST:VOLTage", functions.points(append=False), query(_list), max_arguments=MAX_POINTS),
        Command(f"{source}:LIST:VOLTage:APPend", functions.points(append=True), max_arguments=MAX_POINTS),
        Command(f"{source}:LIST:POINts", query=query(lambda o: str(len(o.points)))),
        _setting(f"{source}:LIST:DWELl", put("dwell_s", lambda t: number(t, low=1e-6, high=3600)), query(_shown("dwell_s"))),
        _setting(
            f"{source}:LIST:TMODe",
            put("stepwise", lambda t: choice(t, ("AUTO", "STEPped")) == "STEPPED"),
            query(lambda o: "STEPPED" if o.stepwise else "AUTO"),
        ),
        _setting(f"{source}:LIST:COUNt", put("count", lambda t: number(t, low=1)), query(_shown("count"))),
        _setting(f"{source}:DC:TRIGger:SOURce", put("trigger", lambda t: choice(t, TRIGGERS)), query(lambda o: o.trigger)),
        Command(f"{source}:DC:INITiate", act(functions.initiate)),
        _setting(f"{source}:DC:INITiate:CONTinuous", put("continuous", boolean), query(lambda o: str(int(o.continuous)))),
        Command(f"{source}:DC:ABORt", act(outputs.abort)),
        Command("TINTernal", lambda c: outputs.fire(f"INT{int(number(c.argument(), low=1, high=16))}")),
        Command("*TRG", lambda _: outputs.fire("BUS")),
        Command("ABORt", functions.abort),
        Command("READ#", query=functions.amps, takes_s=0.02),  # one power-line cycle
        _setting("SENSe#:RANGe", functions.check(lambda t: choice(t, ("LOW", "HIGH")))),
        _setting("SENSe#:NPLCycles", functions.check(lambda t: number(t, low=1, high=100))),
        Command("SYSTem:ERRor:ALL", query=lambda _: ",".join(_format_error(code) for code in errors.take_all())),
        Command("SYSTem:ERRor:COUNt", query=lambda _: str(len(errors))),
    ]
    profile = ScpiProfile(f"QDevil, QDAC-II, {serial}, 13-1.57", _format_error, exchange_s=0.5e-3)
    return ScpiInstrument(profile, commands, outputs.reset, errors)


def _setting(pattern: str, execute: Callable[[Call], None], query: Callable[[Call], str] | None = None) -> Command:
    """Return a command whose arguments are a value and a list of channels."""
    return Command(pattern, execute, query, max_arguments=2)


def _format_error(code: int) -> str:
    return f'{code}, "{error_text(code)}"'


def _channels(call: Call) -> tuple[list[int], tuple[str, ...]]:
    """Return the outputs that a command names, counted from 0, and its other arguments."""
    rest = call.arguments
    if rest and rest[-1].startswith("("):
        named, rest = channel_list(rest[-1]), rest[:-1]
    else:
        named = (1 if call.numbers[0] < 0 else call.numbers[0],)
    if not all(1 <= channel <= CHANNELS for channel in named):
        raise ScpiError(-114)
    return [channel - 1 for channel in named], rest


def _slew(text: str) -> float:
    return math.inf if text.upper() in {"INF", "INFINITY"} else number(text, low=0.01, high=2e7)


def _shown(name: str) -> Callable[[QdacChannel], str]:
    return lambda output: f"{getattr(output, name):.7g}".upper()


def _list(output: QdacChannel) -> str:
    return ",".join(f"{value:.7g}" for value in output.points)
