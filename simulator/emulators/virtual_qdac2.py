"""QDevil QDAC-II: 24 voltage sources, ±10 V, SCPI over TCP.

Source: the maker's public drivers and simulation tables. Not known from there, and taken as follows: that outputs stop at 10 mA,
that a full error queue holds 16, the number of digits in answers, that a voltage set while a list is in use waits for
VOLT:MODE FIX, and that an output in fixed mode which still waits for a trigger goes to VOLT:TRIG upon it, 0 V unless told.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from photonloop.simulator.emulators.emulator import to_step
from photonloop.simulator.emulators.laboratory import Load
from photonloop.simulator.emulators.scpi_engine import Call, Command, ErrorQueue, Manners, ScpiInstrument
from photonloop.simulator.emulators.scpi_parser import ScpiError, boolean, channel_list, choice, error_text, number

CHANNELS = 24
RANGE_V = {"HIGH": 10.0, "LOW": 2.0}
STEP_V = 20.0 / 2**25
MOST_A = 0.010
MOST_POINTS = 65536
TRIGGERS = ("IMMediate", "BUS", "HOLD", *(f"INT{k}" for k in range(1, 17)), *(f"EXT{k}" for k in range(1, 6)))


@dataclass
class QdacChannel:
    """One output as set.

    `level_v` is what FIXED mode holds, `next_v` what it holds after a trigger, `volts` what stands at the terminal now.
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
    """All outputs and what they drive.

    Parameters
    ----------
    loads
        What the first outputs drive; the others are open.
    clock
        Seconds, for slews and lists: these are times that the user sets, so no speed of the bench scales them.
    """

    def __init__(self, loads: Sequence[Load], clock: Callable[[], float] = time.monotonic) -> None:
        if len(loads) > CHANNELS:
            raise ValueError(f"{len(loads)} loads are more than a QDAC-II drives, {CHANNELS}")
        self.loads = [*loads, *[Load()] * (CHANNELS - len(loads))]
        self.clock = clock
        self.all: list[QdacChannel] = []
        self._moving: set[int] = set()
        self.reset()

    def reset(self) -> None:
        """Zero volts, settings as at power-up."""
        self.all = [QdacChannel() for _ in range(CHANNELS)]
        self._moving.clear()
        for index in range(CHANNELS):
            self._put(index, 0.0)

    def set_level(self, index: int, volts: float) -> None:
        """Set what FIXED mode holds; ScpiError -222 beyond the range."""
        output = self.all[index]
        if abs(volts) > RANGE_V[output.span] + 1e-12:
            raise ScpiError(-222)
        output.level_v = to_step(volts, STEP_V)
        if output.mode == "FIXED":
            self.go(index)

    def go(self, index: int) -> None:
        """Move to the level, at once or at the slew that is set."""
        output = self.all[index]
        if math.isinf(output.slew_v_per_s):
            self._put(index, output.level_v)
            self._moving.discard(index)
        else:
            if index not in self._moving:
                output.slewed_s = self.clock()
            self._moving.add(index)

    def start(self, index: int) -> None:
        """Begin a list, or go on to its next point."""
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
        """Give a trigger to whoever waits for it."""
        for index, output in enumerate(self.all):
            if output.trigger == trigger and (output.is_armed or output.continuous):
                output.is_armed = False
                if output.mode == "FIXED":
                    self.set_level(index, output.next_v)
                self.start(index)

    def stop(self, index: int) -> None:
        """Stay where it is."""
        self.update()
        self.all[index].since_s = None
        self._moving.discard(index)

    def abort(self, index: int) -> None:
        """Stop, and wait for no trigger unless that is continuous."""
        self.stop(index)
        self.all[index].is_armed = False

    def update(self) -> None:
        """Bring every output that slews or plays a list to where it is by now."""
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
        """Return what flows now [A]."""
        self.update()
        return self.loads[index].current_a(self.all[index].volts)

    def _put(self, index: int, volts: float) -> None:
        most_v = MOST_A * self.loads[index].resistance_ohm
        self.all[index].volts = max(-most_v, min(most_v, volts))
        self.loads[index].hold(self.all[index].volts)


class _Panel:
    """What the commands do to the outputs. Settings name their output by a number or by a list of channels."""

    def __init__(self, outputs: QdacChannels) -> None:
        self._outputs = outputs

    def tell(self, function: Callable[[int, str], object]) -> Callable[[Call], None]:
        """Return a setting of one value."""

        def run(call: Call) -> None:
            indexes, rest = _channels(call)
            if len(rest) != 1:
                raise ScpiError(-109 if not rest else -108)
            for index in indexes:
                function(index, rest[0])

        return run

    def put(self, name: str, read: Callable[[str], object]) -> Callable[[Call], None]:
        """Return a setting that is only kept."""
        return self.tell(lambda index, text: setattr(self._outputs.all[index], name, read(text)))

    def check(self, read: Callable[[str], object]) -> Callable[[Call], None]:
        """Return a setting of the current meters, which are exact here: checked, and nothing else."""
        return self.tell(lambda _, text: read(text))

    def act(self, function: Callable[[int], None]) -> Callable[[Call], None]:
        """Return a command without a value."""

        def run(call: Call) -> None:
            for index in _channels(call)[0]:
                function(index)

        return run

    def ask(self, show: Callable[[QdacChannel], str]) -> Callable[[Call], str]:
        """Return a query."""

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
                if len(found) > MOST_POINTS or any(abs(value) > RANGE_V[output.span] + 1e-12 for value in values):
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
    """Return a QDAC-II around `outputs`."""
    panel = _Panel(outputs)
    tell, put, act, ask = panel.tell, panel.put, panel.act, panel.ask
    errors = ErrorQueue(16)
    source = "SOURce#"
    commands = [
        Command(f"{source}:VOLTage[:LEVel]", tell(lambda i, t: outputs.set_level(i, number(t))), ask(_shown("level_v")), most=2),
        Command(f"{source}:VOLTage:LAST", ask=ask(_shown("volts"))),
        Command(
            f"{source}:VOLTage:TRIGgered", put("next_v", lambda t: number(t, low=-10.0, high=10.0)), ask(_shown("next_v")), most=2
        ),
        Command(f"{source}:VOLTage:MODE", tell(panel.mode), ask(lambda o: "LIST" if o.mode == "LIST" else "FIX"), most=2),
        Command(f"{source}:VOLTage:SLEW", put("slew_v_per_s", _slew), ask(_shown("slew_v_per_s")), most=2),
        Command(f"{source}:RANGe", tell(panel.span), ask(lambda o: o.span), most=2),
        Command(f"{source}:LIST:VOLTage", panel.points(append=False), ask(_list), most=MOST_POINTS),
        Command(f"{source}:LIST:VOLTage:APPend", panel.points(append=True), most=MOST_POINTS),
        Command(f"{source}:LIST:POINts", ask=ask(lambda o: str(len(o.points)))),
        Command(f"{source}:LIST:DWELl", put("dwell_s", lambda t: number(t, low=1e-6, high=3600)), ask(_shown("dwell_s")), most=2),
        Command(
            f"{source}:LIST:TMODe",
            put("stepwise", lambda t: choice(t, ("AUTO", "STEPped")) == "STEPPED"),
            ask(lambda o: "STEPPED" if o.stepwise else "AUTO"),
            most=2,
        ),
        Command(f"{source}:LIST:COUNt", put("count", lambda t: number(t, low=1)), ask(_shown("count")), most=2),
        Command(f"{source}:DC:TRIGger:SOURce", put("trigger", lambda t: choice(t, TRIGGERS)), ask(lambda o: o.trigger), most=2),
        Command(f"{source}:DC:INITiate", act(panel.initiate)),
        Command(f"{source}:DC:INITiate:CONTinuous", put("continuous", boolean), ask(lambda o: str(int(o.continuous))), most=2),
        Command(f"{source}:DC:ABORt", act(outputs.abort)),
        Command("TINTernal", lambda c: outputs.fire(f"INT{int(number(c.argument(), low=1, high=16))}")),
        Command("*TRG", lambda _: outputs.fire("BUS")),
        Command("ABORt", panel.abort),
        Command("READ#", ask=panel.amps, takes_s=0.02),  # one power-line cycle
        Command("SENSe#:RANGe", panel.check(lambda t: choice(t, ("LOW", "HIGH"))), most=2),
        Command("SENSe#:NPLCycles", panel.check(lambda t: number(t, low=1, high=100)), most=2),
        Command("SYSTem:ERRor:ALL", ask=lambda _: ",".join(_worded(code) for code in errors.take_all())),
        Command("SYSTem:ERRor:COUNt", ask=lambda _: str(len(errors))),
    ]
    manners = Manners(f"QDevil, QDAC-II, {serial}, 13-1.57", _worded, exchange_s=0.5e-3)
    return ScpiInstrument(manners, commands, outputs.reset, errors)


def _worded(code: int) -> str:
    return f'{code}, "{error_text(code)}"'


def _channels(call: Call) -> tuple[list[int], tuple[str, ...]]:
    """Return the outputs that a command is for, counted from 0, and its other arguments."""
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
