"""Emulated readouts: messages and answers."""

from __future__ import annotations

import struct
from collections.abc import Sequence

import numpy as np
import pytest
from numpy.typing import NDArray

from photonloop.simulator.emulators import generic_scpi
from photonloop.simulator.emulators.laboratory import LaserLight
from photonloop.simulator.emulators.scpi_engine import ScpiInstrument
from photonloop.simulator.emulators.virtual_keysight import keysight
from photonloop.simulator.emulators.virtual_labjack import OVERLOAD, VirtualLabJackT7
from photonloop.simulator.emulators.virtual_pm100d import pm100d


class Inputs:
    """Voltages at the inputs, and the number of times that they were measured."""

    def __init__(self, *volts: float) -> None:
        self.volts = np.array(volts)
        self.measurements = 0

    def __call__(self, inputs: Sequence[int]) -> NDArray[np.float64]:
        self.measurements += 1
        return np.array([self.volts[i] if i < self.volts.size else 0.0 for i in inputs])


def send(device: ScpiInstrument, text: str) -> str:
    return device.handle(text.encode()).data.decode()


# ---- LabJack ---------------------------------------------------------------------------------------------------------


def request(device: VirtualLabJackT7, body: bytes, transaction: int = 7) -> bytes:
    """Send one request; check the header of the answer, and return its function and data."""
    request = struct.pack(">HHHB", transaction, 0, len(body) + 1, 1) + body
    answer = device.handle(request).data
    assert struct.unpack(">HHHB", answer[:7]) == (transaction, 0, len(answer) - 6, 1)
    return answer[7:]


def read_registers(device: VirtualLabJackT7, address: int, count: int, form: str) -> tuple[float, ...]:
    answer = request(device, struct.pack(">BHH", 3, address, count))
    assert answer[:2] == bytes([3, 2 * count]), f"exception {answer[1]}"
    return struct.unpack(form, answer[2:])


def write_registers(device: VirtualLabJackT7, address: int, data: bytes) -> bytes:
    return request(device, struct.pack(">BHHB", 16, address, len(data) // 2, len(data)) + data)


def test_labjack_reads_all_inputs_in_one_request_and_one_measurement() -> None:
    inputs = Inputs(0.5, -1.25, 9.5)
    device = VirtualLabJackT7(inputs)
    values = read_registers(device, 0, 28, ">14f")
    assert values[:4] == pytest.approx((0.5, -1.25, 9.5, 0.0), abs=21.0 / 65535 / 2)
    assert inputs.measurements == 1
    assert read_registers(device, 2, 2, ">f")[0] == values[1]


def test_labjack_ranges_resolution_and_overload() -> None:
    device = VirtualLabJackT7(Inputs(0.5, 1.06))
    assert write_registers(device, 43900, struct.pack(">f", 1.0)) == struct.pack(">BHH", 16, 43900, 2)
    values = read_registers(device, 0, 4, ">2f")
    assert values == (pytest.approx(0.5, abs=2.1 / 65535 / 2), OVERLOAD)
    write_registers(device, 40002, struct.pack(">f", 3.0))  # the smallest range that includes it
    assert read_registers(device, 40000, 4, ">2f") == (1.0, 10.0)
    assert read_registers(device, 43900, 2, ">f") == (-9999.0,)  # not the same for all inputs
    write_registers(device, 43903, struct.pack(">H", 2))
    assert read_registers(device, 41500, 14, ">14H") == (2,) * 14
    assert device.handle(struct.pack(">HHHBBHH", 1, 0, 6, 1, 3, 0, 28)).takes_s < 2e-3
    device.reset()
    assert read_registers(device, 40000, 2, ">f") == (10.0,)


def test_labjack_identity_and_outputs() -> None:
    device = VirtualLabJackT7(Inputs(), serial=470012345)
    assert read_registers(device, 60000, 2, ">f") == (7.0,)
    assert read_registers(device, 60028, 2, ">I") == (470012345,)
    assert read_registers(device, 55100, 2, ">I") == (0x00112233,)
    write_registers(device, 1000, struct.pack(">2f", 1.0, 5.0))
    assert read_registers(device, 1000, 4, ">2f") == pytest.approx((1.0, 5.0), abs=5.0 / 4095)


@pytest.mark.parametrize(
    ("body", "code"),
    [
        (struct.pack(">BHH", 3, 1, 2), 2),  # half of a value
        (struct.pack(">BHH", 3, 26, 4), 2),  # beyond the last input
        (struct.pack(">BHH", 3, 9999, 2), 2),
        (struct.pack(">BHH", 3, 0, 0), 3),
        (struct.pack(">BHH", 3, 0, 200), 3),
        (struct.pack(">BHHB", 16, 40000, 2, 2) + b"\0\0", 3),  # count and bytes disagree
        (struct.pack(">BHHBf", 16, 40000, 2, 4, 11.0), 3),
        (struct.pack(">BHHBff", 16, 1000, 4, 8, 1.0, 6.0), 3),
        (struct.pack(">BHHBf", 16, 0, 2, 4, 1.0), 2),  # inputs cannot be written
        (b"\x2b\x0e", 1),
    ],
)
def test_labjack_refuses_with_an_exception(body: bytes, code: int) -> None:
    device = VirtualLabJackT7(Inputs())
    assert request(device, body) == bytes([body[0] | 0x80, code])
    assert read_registers(device, 1000, 4, ">2f") == (0.0, 0.0)  # a refused write changes nothing


def test_labjack_messages_may_come_in_pieces_and_together() -> None:
    device = VirtualLabJackT7(Inputs())
    whole = struct.pack(">HHHBBHH", 1, 0, 6, 1, 3, 0, 2)
    buffer = bytearray(whole[:5])
    assert device.framing(buffer) == []
    buffer += whole[5:] + whole + whole[:3]
    assert device.framing(buffer) == [whole, whole]
    assert bytes(buffer) == whole[:3]
    noise = bytearray(b"GET / HTTP/1.1\r\n")
    assert device.framing(noise) == []
    assert not noise


# ---- Keysight --------------------------------------------------------------------------------------------------------


def scanner(*volts: float) -> tuple[ScpiInstrument, Inputs]:
    inputs = Inputs(*volts)
    return keysight(inputs, np.random.default_rng(0)), inputs


def test_keysight_scans_a_list_in_order() -> None:
    device, inputs = scanner(1.0, 2.0, 3.0)
    assert send(device, "CONF:VOLT:DC 10,(@103,101);:ROUT:SCAN:SIZE?") == "+2\n"
    values = [float(text) for text in send(device, "READ?").split(",")]
    assert values == pytest.approx([3.0, 1.0], abs=3e-4)
    assert inputs.measurements == 1
    again = [float(text) for text in send(device, "READ?").split(",")]
    assert again != values  # new noise in every measurement
    send(device, "FORM:READ:CHAN ON")
    assert send(device, "READ?").strip().split(",")[1::2] == ["103", "101"]
    send(device, "CONF:VOLT:DC (@101)")
    assert len(send(device, "READ?").split(",")) == 1  # CONF resets the format too
    assert send(device, "ROUT:SCAN?") == "#16(@101)\n"


def test_keysight_waits_for_a_bus_trigger() -> None:
    device, inputs = scanner(1.0)
    send(device, "CONF:VOLT:DC 10,(@101);:TRIG:SOUR BUS")
    assert send(device, "READ?") == ""
    assert send(device, "SYST:ERR?") == '-214,"Trigger deadlock"\n'
    assert send(device, "FETC?") == ""
    assert send(device, "SYST:ERR?") == '-230,"Data corrupt or stale"\n'
    send(device, "INIT")
    inputs.volts[0] = 2.0
    assert inputs.measurements == 0
    send(device, "*TRG")
    assert float(send(device, "FETC?")) == pytest.approx(2.0, abs=3e-4)
    send(device, "*TRG")
    assert send(device, "SYST:ERR?").startswith("-211")
    send(device, "INIT;:INIT")
    assert send(device, "SYST:ERR?").startswith("-213")
    send(device, "ABOR;:INIT")
    assert send(device, "SYST:ERR?").startswith("+0")


@pytest.mark.parametrize(
    ("text", "code"),
    [("CONF:VOLT:DC 10,(@121)", -222), ("CONF:VOLT:DC 10", -109), ("READ?", -221), ("CONF:VOLT:DC 1000,(@101)", -222)],
)
def test_keysight_refuses_wrong_commands(text: str, code: int) -> None:
    device, _ = scanner(1.0)
    assert send(device, text) == ""
    assert send(device, "SYST:ERR?").startswith(str(code))


def test_keysight_overload_and_time() -> None:
    device, _ = scanner(1.3, -1.3)
    send(device, "CONF:VOLT:DC 1,(@101:102)")
    assert send(device, "READ?") == "+9.90000000E+37,-9.90000000E+37\n"
    send(device, "VOLT:NPLC 10")
    assert device.handle(b"READ?").takes_s == pytest.approx(2 * 0.2, rel=0.05)


# ---- PM100D ----------------------------------------------------------------------------------------------------------


def meter(light: LaserLight) -> ScpiInstrument:
    return pm100d(lambda: light, np.random.default_rng(0))


def test_pm100d_measures_watts_at_the_wavelength_that_is_set() -> None:
    device = meter(LaserLight(1e-4, 1550.0, True))
    assert send(device, "SENS:CORR:WAV 1550;WAV?") == "1.550000E+03\n"
    assert float(send(device, "READ?")) == pytest.approx(1e-4, rel=1e-3)
    assert send(device, "SENS:CORR:WAV 1310 nm;:SYST:ERR?") == '+0,"No error"\n'
    assert float(send(device, "MEAS:POW?")) == pytest.approx(1e-4 * 1550 / 1310, rel=1e-3)
    assert send(device, "SENS:CORR:WAV 3000;:SYST:ERR?") == '-222,"Data out of range"\n'


def test_pm100d_needs_a_colon_between_subsystems() -> None:
    device = meter(LaserLight(1e-4, 1550.0, True))
    assert send(device, "SENS:POW:RANG 1e-3;AVER:COUN 10") == ""
    assert send(device, "SYST:ERR?") == '-113,"Undefined header"\n'
    send(device, "SENS:POW:RANG 1e-3;:SENS:AVER:COUN 10")
    assert send(device, "SYST:ERR?;:SENS:AVER?") == '+0,"No error";10\n'


def test_pm100d_ranges_overload_zero_and_time() -> None:
    device = meter(LaserLight(1e-4, 1310.0, True))
    send(device, "SENS:POW:RANG 1e-5")
    assert send(device, "READ?") == "9.900000E+37\n"
    assert send(device, "SENS:POW:RANG?;RANG:AUTO?") == "5.000000E-05;0\n"
    send(device, "SENS:POW:RANG:AUTO ON;:SENS:AVER:COUN 100")
    assert device.handle(b"READ?").takes_s == pytest.approx(0.3, rel=0.02)
    dark = meter(LaserLight(0.0, 1310.0, False))
    send(dark, "SENS:AVER:COUN 1000")
    assert float(send(dark, "READ?")) == pytest.approx(2e-9, abs=3e-10)
    send(dark, "SENS:CORR:COLL:ZERO")
    assert float(send(dark, "CORR:COLL:ZERO:MAGN?")) == pytest.approx(2e-9, abs=3e-10)
    assert float(send(dark, "READ?")) == pytest.approx(0.0, abs=3e-10)


def test_the_generic_readout() -> None:
    inputs = Inputs(1.0, 10.5)
    device = generic_scpi.scpi_readout(inputs, 4)
    values = [float(text) for text in send(device, "MEAS:VOLT? (@1:3)").split(",")]
    assert values == [pytest.approx(1.0, abs=20 / 65535), 9.9e37, 0.0]
    assert inputs.measurements == 1
    assert send(device, "MEAS:VOLT? (@5);:SYST:ERR?") == '-222,"Data out of range"\n'
