"""Emulated voltage sources: messages and answers."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import pytest

from photonloop.simulator.emulators import generic_scpi
from photonloop.simulator.emulators.laboratory import Load
from photonloop.simulator.emulators.scpi_engine import ScpiInstrument
from photonloop.simulator.emulators.virtual_qdac2 import QdacChannels, qdac2
from photonloop.simulator.emulators.virtual_qontrol import FULL_V, STEP_V, QontrolChain


@dataclass
class Loads:
    """Loads that keep the voltages applied to them."""

    count: int
    ohm: float = 770.0
    volts: dict[int, float] = field(default_factory=dict)

    def all(self) -> list[Load]:
        return [Load(lambda v, i=i: self.volts.__setitem__(i, v), self.ohm) for i in range(self.count)]


def send(device: QontrolChain | ScpiInstrument, text: str) -> str:
    return device.handle(text.encode()).data.decode()


# ---- Qontrol --------------------------------------------------------------------------------------------------------


def test_qontrol_identifies_itself() -> None:
    chain = QontrolChain(Loads(12).all())
    assert send(chain, "id?") == "Q8iv-0040\n"
    assert send(chain, "nup=0") == "OK\n"
    assert send(chain, "nupall?") == "Q8iv-0040:0\nQ8iv-0041:1\n"
    assert send(chain, "NCHAN?") == "8\n"
    assert send(chain, "vfull?") == "+12.000000 V\n"
    assert send(chain, "ifull?") == "+24.000000 mA\n"


def test_qontrol_sets_single_channels_and_vectors_over_the_whole_chain() -> None:
    loads = Loads(16)
    chain = QontrolChain(loads.all())
    assert send(chain, "v3=1.25") == "OK\n"
    assert send(chain, "VVEC8=1,2,3,4,5,6,7,8") == "OK\n"
    assert loads.volts[3] == pytest.approx(1.25, abs=STEP_V / 2)
    assert [round(loads.volts[c]) for c in range(8, 16)] == list(range(1, 9))
    assert (loads.volts[3] / STEP_V) % 1 == pytest.approx(0, abs=1e-6)  # on a step of the converter
    assert float(send(chain, "v3?").split()[0]) == pytest.approx(loads.volts[3], abs=1e-6)
    assert float(send(chain, "i8?").split()[0]) == pytest.approx(1e3 * loads.volts[8] / 770.0, abs=1e-3)
    assert len(send(chain, "vall?").splitlines()) == 16
    assert send(chain, "vipall?").splitlines()[0] == "+0.000000 V, +0.000000 mA, +0.000000 mW"


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        ("blah", "E10:00\n"),
        ("blah3=1", "E10:00\n"),
        ("v3=one", "E11:03\n"),
        ("v3=nan", "E11:03\n"),
        ("VVEC6=1,2,3", "E11:06\n"),  # beyond the module
        ("v16=1", "E12:16\n"),
        ("v16?", "E12:16\n"),
        ("v=1", "E12:00\n"),
    ],
)
def test_qontrol_answers_wrong_commands_with_its_error_codes(text: str, answer: str) -> None:
    loads = Loads(16)
    assert send(QontrolChain(loads.all()), text) == answer
    assert set(loads.volts.values()) == {0.0}


def test_qontrol_limits_voltage_and_current_and_resets_the_limits_at_power_up() -> None:
    loads = Loads(8)
    chain = QontrolChain(loads.all())
    assert send(chain, "v0=12.5") == "OK\nE01:00\n"
    assert loads.volts[0] == 0.0
    assert send(chain, "vmax0=5") == send(chain, "imax1=4") == "OK\n"
    assert send(chain, "v0=5.1") == "OK\nE01:00\n"
    assert send(chain, "v0=4.9") == "OK\n"
    assert send(chain, "v1=4") == "OK\nE02:01\n"  # 5.2 mA: the channel is shut off
    assert loads.volts[1] == 0.0
    assert send(chain, "VVEC0=6,1,1,1,1,1,1,1") == "OK\nE01:00\n"  # the other channels of the vector are set
    assert (round(loads.volts[0], 3), round(loads.volts[7], 3)) == (4.9, 1.0)
    assert chain.reset() == b"E90:00\n"
    assert set(loads.volts.values()) == {0.0}
    assert float(send(chain, "vmax0?").split()[0]) == FULL_V
    assert send(chain, "v0=5.1") == "OK\n"


def test_qontrol_takes_the_time_of_the_serial_line() -> None:
    """64 single commands take about 78 ms and 8 vectors about 46 ms, as users of such chains measure."""
    chain = QontrolChain(Loads(64).all())
    singles = sum(chain.handle(f"v{c}=1.23456".encode()).takes_s for c in range(64))
    vectors = sum(chain.handle(f"VVEC{8 * m}={','.join(['1.23456'] * 8)}".encode()).takes_s for m in range(8))
    assert singles == pytest.approx(0.078, rel=0.2)
    assert vectors == pytest.approx(0.046, rel=0.2)


# ---- QDAC-II --------------------------------------------------------------------------------------------------------


class ManualClock:
    """A clock that a test sets."""

    now_s = 0.0

    def __call__(self) -> float:
        return self.now_s


def test_qdac2_sets_channel_lists_and_reports_errors_in_its_format() -> None:
    loads = Loads(24)
    device = qdac2(QdacChannels(loads.all()))
    assert send(device, "*idn?").startswith("QDevil, QDAC-II,")
    assert send(device, "sour1:volt:mode fix;:sour1:volt 1.5;:sour24:volt -2;:sour1:volt?;:sour24:volt?") == "1.5;-2\n"
    assert (loads.volts[0], loads.volts[23]) == pytest.approx((1.5, -2.0), abs=1e-6)
    assert send(device, "sour:volt 3,(@2,5:6);:sour:volt? (@2,5:6)") == "3,3,3\n"
    assert send(device, "syst:err:all?") == '0, "No error"\n'
    assert send(device, "sour1:volt 10.1;:sour25:volt 1;:blah") == ""
    assert send(device, "syst:err:coun?") == "2\n"  # a wrong channel or header ends the line
    assert send(device, "syst:err:all?;*rst;:sour1:volt?").startswith('-222, "Data out of range",-114, "Header suffix')
    assert loads.volts[0] == 0.0


def test_qdac2_ranges() -> None:
    device = qdac2(QdacChannels(Loads(1).all()))
    assert send(device, "sour1:volt 3;:sour1:rang low;:syst:err?") == '-221, "Settings conflict"\n'
    assert send(device, "sour1:volt 1;:sour1:rang low;:sour1:volt 3;:sour1:rang?;:syst:err?") == 'LOW;-222, "Data out of range"\n'


def test_qdac2_outputs_stop_at_ten_milliamperes_and_measure_current() -> None:
    loads = Loads(1, ohm=100.0)
    device = qdac2(QdacChannels(loads.all()))
    amperes = [float(text) for text in send(device, "sour1:volt 0.5;:read? (@1,2)").split(",")]
    assert amperes == pytest.approx([5e-3, 0.0], rel=1e-5)
    send(device, "sour1:volt 3")
    assert loads.volts[0] == pytest.approx(1.0)


def test_qdac2_slews_by_the_clock() -> None:
    loads, clock = Loads(1, ohm=math.inf), ManualClock()
    outputs = QdacChannels(loads.all(), clock)
    device = qdac2(outputs)
    send(device, "sour1:volt:slew 2;:sour1:volt 3")
    assert loads.volts[0] == 0.0
    clock.now_s = 1.0
    outputs.update()
    assert loads.volts[0] == pytest.approx(2.0)
    send(device, "sour1:volt -1")  # turns round at the present voltage
    clock.now_s = 2.0
    outputs.update()
    assert loads.volts[0] == pytest.approx(0.0)
    clock.now_s = 9.0
    assert send(device, "sour1:volt:last?") == "-1\n"


def test_qdac2_plays_lists_on_one_trigger() -> None:
    loads, clock = Loads(2, ohm=math.inf), ManualClock()
    outputs = QdacChannels(loads.all(), clock)
    device = qdac2(outputs)
    for channel, values in ((1, "1,2,3"), (2, "4,5,6")):
        send(
            device,
            f"sour{channel}:dc:trig:sour int1;:sour{channel}:volt:mode list;:sour{channel}:list:volt {values};"
            f":sour{channel}:list:tmod auto;:sour{channel}:list:dwel 0.1;:sour{channel}:list:coun 1;:sour{channel}:dc:init",
        )
    assert send(device, "sour2:list:poin?;:syst:err?") == '3;0, "No error"\n'
    assert loads.volts == {0: 0.0, 1: 0.0}  # waits for its trigger
    send(device, "tint 1")
    seen = []
    for now_s in (0.01, 0.15, 0.25, 5.0):
        clock.now_s = now_s
        outputs.update()
        seen.append((round(loads.volts[0], 5), round(loads.volts[1], 5)))
    assert seen == [(1, 4), (2, 5), (3, 6), (3, 6)]
    send(device, "sour1:dc:abor;:sour1:volt:mode fix")
    assert loads.volts[0] == 0.0  # back at its level


def test_qdac2_steps_through_a_list_trigger_by_trigger() -> None:
    loads = Loads(1, ohm=math.inf)
    device = qdac2(QdacChannels(loads.all()))
    send(device, "sour1:volt:mode list;:sour1:list:volt 1,2;:sour1:list:volt:app 3;:sour1:list:tmod step;:sour1:dc:trig:sour bus")
    seen = []
    for _ in range(4):
        send(device, "*trg")
        seen.append(round(loads.volts[0], 5))
    assert seen == [1, 2, 3, 3]


def test_qdac2_in_fixed_mode_follows_a_trigger_unless_continuous_triggering_is_off() -> None:
    loads = Loads(2, ohm=math.inf)
    device = qdac2(QdacChannels(loads.all()))
    at = "(@1:2)"
    send(
        device,
        f"sour:volt 5,{at};:sour:volt:mode list,{at};:sour:list:volt 1,2,3,{at};:sour:list:tmod step,{at};"
        f":sour:dc:trig:sour int2,{at};:sour:dc:init:cont on,{at};:tint 2",
    )
    assert loads.volts == pytest.approx({0: 1.0, 1: 1.0}, abs=1e-5)
    send(device, "sour1:dc:abor;:sour1:volt:mode fix;:sour2:dc:init:cont off;:sour2:dc:abor;:sour2:volt:mode fix")
    assert loads.volts == pytest.approx({0: 5.0, 1: 5.0}, abs=1e-5)
    send(device, "sour:volt:trig 0.5,(@1:2);:tint 2")
    assert loads.volts == pytest.approx({0: 0.5, 1: 5.0}, abs=1e-5)


# ---- generic source -------------------------------------------------------------------------------------------------


def test_the_generic_source() -> None:
    loads = Loads(16)
    device = generic_scpi.scpi_source(loads.all())
    assert send(device, "VOLT 1.23456,(@3);VOLT? (@2:3)") == "+0.000000E+00,+1.234000E+00\n"  # truncated to 1 mV
    assert send(device, "VOLT 1,2,(@1,2);:MEAS:CURR? (@1,2)") == "+1.298000E-03,+2.597000E-03\n"
    assert send(device, "VOLT:PROT 5,(@1:16);:VOLT 6,(@1);:SYST:ERR?;:VOLT? (@1)") == ('-222,"Data out of range";+1.000000E+00\n')
    assert send(device, "CURR:LIM 2 MA,(@4);:VOLT 3,(@4);:VOLT? (@4)") == "+1.540000E+00\n"  # limited to 2 mA
    assert send(device, "VOLT 1,(@17);:SYST:ERR?").startswith("-222")
    assert send(device, "VOLT 1") == ""
    assert send(device, "SYST:ERR?").startswith("-109")
    device.reset()
    assert set(loads.volts.values()) == {0.0}
