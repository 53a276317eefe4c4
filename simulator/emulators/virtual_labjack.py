"""Emulated LabJack T7: 14 analog inputs, 2 outputs, Modbus TCP with several registers per request.

    request   transaction (2)  0 (2)  length (2)  unit (1)  function (1)  address (2)  count (2)  …
    answer    transaction (2)  0 (2)  length (2)  unit (1)  function (1)  bytes (1)  data …       big-endian throughout

Source: the maker's public register map. It does not give the following, which is assumed: the reading of an input
beyond its range (-9999), and the time of a reading by resolution index.
"""

from __future__ import annotations

import struct
from collections.abc import Callable

from photonloop.simulator.emulators.emulator import Framing, TimedReply, to_step
from photonloop.simulator.emulators.laboratory import ReadVolts

INPUTS, OUTPUTS = 14, 2
RANGES_V = (10.0, 1.0, 0.1, 0.01)
OVERLOAD = -9999.0
DAC_FULL_V = 5.0
_SAMPLE_S = (1.1e-3, 0.04e-3, 0.06e-3, 0.1e-3, 0.16e-3, 0.3e-3, 0.55e-3, 1.1e-3, 1.1e-3)
"""Time per input [s] for resolution index 0 to 8. Index 0 means 8."""

BAD_FUNCTION, BAD_ADDRESS, BAD_VALUE, DEVICE_FAILURE = 1, 2, 3, 4
_READ, _READ_INPUT, _WRITE = 3, 4, 16


class _ModbusError(Exception):
    def __init__(self, code: int) -> None:
        super().__init__(f"Modbus exception {code}")
        self.code = code


class VirtualLabJackT7:
    """An `Emulator` of a T7.

    Parameters
    ----------
    read
        Measures the voltages at the inputs.
    serial
        Serial number.
    """

    def __init__(self, read: ReadVolts, serial: int = 470010123) -> None:
        self._read = read
        self._serial = serial
        self.reset()

    @property
    def framing(self) -> Framing:
        """Modbus TCP: the header contains the length of the message."""
        return _messages

    def handle(self, message: bytes, *, unread: bool = False) -> TimedReply:
        """Carry out one request."""
        del unread
        function = message[7]
        try:
            data, takes_s = self._carry_out(function, message[8:])
        except _ModbusError as error:
            return TimedReply(_answer(message, bytes([function | 0x80, error.code])), 0.6e-3)
        return TimedReply(_answer(message, bytes([function]) + data), 0.6e-3 + takes_s)

    def refuse(self, message: bytes, code: int, channel: int) -> bytes:
        """Answer with exception `code` and do not carry out the request."""
        del channel
        return _answer(message, bytes([message[7] | 0x80, code]))

    def report_error(self, code: int, channel: int) -> bytes:
        """Send nothing: a Modbus server only answers requests."""
        del code, channel
        return b""

    def reset(self) -> bytes:
        """Set settings and outputs to their values at power-up."""
        self._range_v = [RANGES_V[0]] * INPUTS
        self._resolution = [0] * INPUTS
        self._settling_us = [0.0] * INPUTS
        self._negative = [199] * INPUTS
        self._dac_v = [0.0] * OUTPUTS
        return b""

    def _carry_out(self, function: int, body: bytes) -> tuple[bytes, float]:
        if function in {_READ, _READ_INPUT}:
            if len(body) != 4:
                raise _ModbusError(BAD_VALUE)
            address, count = struct.unpack(">HH", body)
            if not 1 <= count <= 125:
                raise _ModbusError(BAD_VALUE)
            data, takes_s = self._registers(address, count)
            return bytes([len(data)]) + data, takes_s
        if function == _WRITE:
            if len(body) < 5 or len(body) != 5 + body[4] or body[4] != 2 * struct.unpack(">H", body[2:4])[0]:
                raise _ModbusError(BAD_VALUE)
            self._write(struct.unpack(">H", body[:2])[0], body[5:])
            return body[:4], 0.0
        raise _ModbusError(BAD_FUNCTION)

    def _registers(self, address: int, count: int) -> tuple[bytes, float]:
        if address < 2 * INPUTS:
            if address % 2 or count % 2 or address + count > 2 * INPUTS:
                raise _ModbusError(BAD_ADDRESS)
            inputs = range(address // 2, (address + count) // 2)
            values = self._read(inputs)
            shown = [self._converted(i, float(v)) for i, v in zip(inputs, values, strict=True)]
            takes_s = sum(_SAMPLE_S[self._resolution[i]] + 1e-6 * self._settling_us[i] for i in inputs)
            return struct.pack(f">{len(shown)}f", *shown), takes_s
        data = b""
        while len(data) < 2 * count:
            data += self._register(address + len(data) // 2)
        if len(data) != 2 * count:
            raise _ModbusError(BAD_ADDRESS)
        return data, 0.0

    def _register(self, address: int) -> bytes:
        """Return the value at an address, two or four bytes."""
        for first, values, width in self._tables():
            if first <= address < first + width * len(values) and (address - first) % width == 0:
                value = values[(address - first) // width]
                return struct.pack(">f", value) if width == 2 else struct.pack(">H", value)
        single = {
            43900: struct.pack(">f", self._range_v[0] if len(set(self._range_v)) == 1 else OVERLOAD),
            43903: struct.pack(">H", self._resolution[0] if len(set(self._resolution)) == 1 else 0xFFFF),
            55100: bytes.fromhex("00112233"),
            60000: struct.pack(">f", 7.0),
            60002: struct.pack(">f", 1.35),
            60004: struct.pack(">f", 1.0292),
            60028: struct.pack(">I", self._serial),
        }
        if address not in single:
            raise _ModbusError(BAD_ADDRESS)
        return single[address]

    def _tables(self) -> tuple[tuple[int, list, int], ...]:
        """Return the settings that are arrays: first register, values, registers per value."""
        return (
            (1000, self._dac_v, 2),
            (40000, self._range_v, 2),
            (41000, self._negative, 1),
            (41500, self._resolution, 1),
            (42000, self._settling_us, 2),
        )

    def _write(self, address: int, data: bytes) -> None:
        """Write values. All of them are checked before the first is written."""
        todo: list[Callable[[], None]] = []
        while data:
            wide = self._width(address) == 2
            if len(data) < (4 if wide else 2):
                raise _ModbusError(BAD_ADDRESS)
            value = struct.unpack(">f", data[:4])[0] if wide else struct.unpack(">H", data[:2])[0]
            todo.append(self._setter(address, value))
            address += 2 if wide else 1
            data = data[4 if wide else 2 :]
        for act in todo:
            act()

    def _width(self, address: int) -> int:
        return 2 if address < 41000 or 42000 <= address < 43902 else 1

    def _setter(self, address: int, value: float) -> Callable[[], None]:
        if address == 43900:
            span_v = _span_v(value)
            return lambda: self._range_v.__setitem__(slice(None), [span_v] * INPUTS)
        if address == 43903:
            _check(0 <= value <= 8)
            return lambda: self._resolution.__setitem__(slice(None), [int(value)] * INPUTS)
        for first, values, width in self._tables():
            index = (address - first) // width
            if not (0 <= index < len(values) and (address - first) % width == 0):
                continue
            if first == 1000:
                _check(0.0 <= value <= DAC_FULL_V)
                value = to_step(value, DAC_FULL_V / 4095)
            elif first == 40000:
                value = _span_v(value)
            elif first == 41500:
                _check(0 <= value <= 8)
            elif first == 41000:
                _check(value == 199)
            else:
                _check(0.0 <= value <= 50_000.0)
            return lambda: values.__setitem__(index, value)
        raise _ModbusError(BAD_ADDRESS)

    def _converted(self, index: int, volts: float) -> float:
        """Convert a voltage as the 16-bit converter does; its range extends 5 % beyond the nominal one."""
        span_v = self._range_v[index]
        if abs(volts) > 1.05 * span_v:
            return OVERLOAD
        return to_step(volts, 2 * 1.05 * span_v / 65535)


def _span_v(value: float) -> float:
    """Return the smallest range that includes `value`."""
    _check(0.0 <= value <= RANGES_V[0])
    return min(v for v in RANGES_V if v >= value)


def _check(is_good: bool) -> None:
    if not is_good:
        raise _ModbusError(BAD_VALUE)


def _answer(request: bytes, body: bytes) -> bytes:
    return request[:4] + struct.pack(">HB", len(body) + 1, request[6]) + body


def _messages(buffer: bytearray) -> list[bytes]:
    """Remove and return whole requests. Bytes that are not Modbus TCP are discarded, as the real unit does."""
    found = []
    while len(buffer) >= 8:
        protocol, length = struct.unpack(">HH", buffer[2:6])
        if protocol != 0 or not 2 <= length <= 1034:
            buffer.clear()
            break
        if len(buffer) < 6 + length:
            break
        found.append(bytes(buffer[: 6 + length]))
        del buffer[: 6 + length]
    return found
