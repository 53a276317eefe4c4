"""Emulated Qontrol Q8iv modules on a BP8 backplane: many channels on one serial line, one command per line.

A command is `<command><channel><operator><value>`, in upper or lower case. A setpoint is answered with OK or an error.
Errors that the hardware finds are sent unsolicited as well. After power-up the limits are the full scale again, and
each module sends error 90.

Source: the maker's public interface library and command list. They do not give the following, which is assumed:

- The units after values other than VFULL and IFULL are V and mA.
- The order in VIPALL is volts, milliamperes, milliwatts.
- A setpoint beyond a limit is answered OK, is not applied, and is followed by an error at once.
- An over-current shuts the channel off.
- The modules number themselves at power-up, without NUP.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence

import numpy as np

from photonloop.simulator.emulators.emulator import Framing, TimedReply, lines, to_step
from photonloop.simulator.emulators.laboratory import Load

BAUD = 115200
MODULE_CHANNELS = 8
FULL_V, FULL_A = 12.0, 0.024
STEP_V, STEP_A = FULL_V / 65535, FULL_A / 65535

OVER_VOLTAGE, OVER_CURRENT, BAD_COMMAND, BAD_VALUE, BAD_CHANNEL, FORBIDDEN, POWERED_UP = 1, 2, 10, 11, 12, 13, 90

_COMMAND = re.compile(r"([A-Za-z]+?)(ALL|VEC)?(\d*)([=?])(.*)", re.IGNORECASE)
_NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?")


class QontrolChain:
    """An `Emulator` of Q8iv modules on a backplane.

    Parameters
    ----------
    loads
        Load of each channel. A module has eight channels.
    serial
        Serial number of the first module. The other modules have the numbers after it.
    """

    def __init__(self, loads: Sequence[Load], serial: int = 0x0040) -> None:
        self.volts = np.zeros(-(-len(loads) // MODULE_CHANNELS) * MODULE_CHANNELS)
        self._loads = [*loads, *[Load()] * (self.volts.size - len(loads))]
        self._serial = serial
        self._framing = lines(b"\n")
        self._reset()

    def _reset(self) -> None:
        self._max_v = np.full(self.volts.size, FULL_V)
        self._max_a = np.full(self.volts.size, FULL_A)
        for channel in range(self.volts.size):
            self._hold(channel, 0.0)

    @property
    def framing(self) -> Framing:
        """Lines that end with LF."""
        return self._framing

    @property
    def modules(self) -> int:
        """Number of modules in the chain."""
        return self.volts.size // MODULE_CHANNELS

    def handle(self, message: bytes, *, unread: bool = False) -> TimedReply:
        """Carry out one command. It takes the time of its bytes on the line, ten bits per byte."""
        del unread
        data = self._answer(message.decode("latin-1").strip()) if message.strip() else b""
        return TimedReply(data, (len(message) + 1 + len(data)) * 10 / BAUD)

    def refuse(self, message: bytes, code: int, channel: int) -> bytes:
        """Answer with an error and do not carry out `message`."""
        del message
        return self.report_error(code, channel)

    def report_error(self, code: int, channel: int) -> bytes:
        """Return the line that reports an error."""
        return f"E{code:02d}:{channel:02d}\n".encode()

    def reset(self) -> bytes:
        """Power up: 0 V, limits at full scale; every module sends error 90."""
        self._reset()
        return b"".join(self.report_error(POWERED_UP, module * MODULE_CHANNELS) for module in range(self.modules))

    def _answer(self, text: str) -> bytes:
        match = _COMMAND.fullmatch(text)
        if match is None:
            return self.report_error(BAD_COMMAND, 0)
        name, many, digits, operator, value = match[1].upper(), (match[2] or "").upper(), match[3], match[4], match[5].strip()
        if operator == "?":
            return self._query(name, many, digits)
        return self._execute(name, many, digits, value)

    def _query(self, name: str, many: str, digits: str) -> bytes:
        if name == "NUP" and many == "ALL":
            return _answer_lines(f"Q8iv-{self._serial + module:04X}:{module}" for module in range(self.modules))
        fixed = {
            "ID": f"Q8iv-{self._serial:04X}",
            "NUP": str(self.modules - 1),
            "NCHAN": str(MODULE_CHANNELS),
            "FIRMWARE": "Q8iv v2.12",
            "VFULL": f"{FULL_V:+.6f} V",
            "IFULL": f"{FULL_A * 1e3:+.6f} mA",
        }
        if name in fixed and not many:
            return _answer_lines([fixed[name]])
        readers: dict[str, Callable[[int], str]] = {
            "V": lambda c: f"{self.volts[c]:+.6f} V",
            "I": lambda c: f"{self._measured_a(c) * 1e3:+.6f} mA",
            "VMAX": lambda c: f"{self._max_v[c]:+.6f} V",
            "IMAX": lambda c: f"{self._max_a[c] * 1e3:+.6f} mA",
            "VIP": self._volts_amps_watts,
        }
        reader = readers.get(name)
        if reader is None or many == "VEC":
            return self.report_error(BAD_COMMAND, 0)
        if many == "ALL":
            return _answer_lines(map(reader, range(self.volts.size)))
        channel = self._channel(digits)
        if channel is None:
            return self.report_error(BAD_CHANNEL, int(digits or 0))
        return _answer_lines([reader(channel)])

    def _execute(self, name: str, many: str, digits: str, value: str) -> bytes:
        if name == "NUP" and not many:
            return b"OK\n"
        if name not in {"V", "I", "VMAX", "IMAX"}:
            return self.report_error(BAD_COMMAND, 0)
        texts = [text.strip() for text in value.split(",")]
        if not all(_NUMBER.fullmatch(text) for text in texts):
            return self.report_error(BAD_VALUE, int(digits or 0))
        values = [float(text) for text in texts]
        first = 0 if many == "ALL" else self._channel(digits)
        if first is None:
            return self.report_error(BAD_CHANNEL, int(digits or 0))
        most = MODULE_CHANNELS - first % MODULE_CHANNELS if many == "VEC" else 1
        if len(values) > most:
            return self.report_error(BAD_VALUE, first)
        if many == "ALL":
            values = values * self.volts.size
        return self._set(name, first, values)

    def _set(self, name: str, first: int, values: list[float]) -> bytes:
        """Set channels from `first` on. The module answers OK, and then reports the channels that it has not set."""
        answer = b"OK\n"
        for channel, value in enumerate(values, first):
            answer += self._set_one(name, channel, value * 1e-3 if name in {"I", "IMAX"} else value)
        return answer

    def _set_one(self, name: str, channel: int, value: float) -> bytes:
        top = {"V": self._max_v[channel], "I": self._max_a[channel], "VMAX": FULL_V, "IMAX": FULL_A}[name]
        if not 0.0 <= value <= top + 1e-9:
            return self.report_error(OVER_VOLTAGE if name in {"V", "VMAX"} else OVER_CURRENT, channel)
        if name == "VMAX":
            self._max_v[channel] = value
        elif name == "IMAX":
            self._max_a[channel] = value
        else:
            volts = value if name == "V" else min(value * self._loads[channel].resistance_ohm, FULL_V)
            self._hold(channel, to_step(volts, STEP_V))
        return self._check_current(channel)

    def _check_current(self, channel: int) -> bytes:
        """Shut a channel off if its current is too high, and return the error line."""
        if abs(self._amps(channel)) <= self._max_a[channel] + STEP_A:
            return b""
        self._hold(channel, 0.0)
        return self.report_error(OVER_CURRENT, channel)

    def _hold(self, channel: int, volts: float) -> None:
        self.volts[channel] = volts
        self._loads[channel].hold(volts)

    def _amps(self, channel: int) -> float:
        return self._loads[channel].current_a(self.volts[channel])

    def _measured_a(self, channel: int) -> float:
        return to_step(self._amps(channel), STEP_A)

    def _volts_amps_watts(self, channel: int) -> str:
        volts, amps = self.volts[channel], self._measured_a(channel)
        return f"{volts:+.6f} V, {amps * 1e3:+.6f} mA, {volts * amps * 1e3:+.6f} mW"

    def _channel(self, digits: str) -> int | None:
        return int(digits) if digits and int(digits) < self.volts.size else None


def _answer_lines(answers: Iterable[str]) -> bytes:
    return "".join(f"{answer}\n" for answer in answers).encode()
