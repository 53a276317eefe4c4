"""Connections and faults, without sockets: what a client would get, and when."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from photonloop.simulator.emulators.generic_scpi import scpi_source
from photonloop.simulator.emulators.laboratory import LaserLight, Load
from photonloop.simulator.emulators.unit_faults import PendingFaults, UnitFault
from photonloop.simulator.emulators.units import ClientConnection, ConnectionAction, Unit
from photonloop.simulator.emulators.virtual_bench import build
from photonloop.simulator.emulators.virtual_pm100d import pm100d
from photonloop.simulator.emulators.virtual_qontrol import QontrolChain
from photonloop.simulator.parameters import load_chip


class Watch:
    now_s = 100.0

    def __call__(self) -> float:
        return self.now_s


class Client:
    """The other end of a link."""

    def __init__(self, unit: Unit) -> None:
        self.is_unsolicited: list[ConnectionAction] = []
        self.link: ClientConnection = unit.connect(self.is_unsolicited.append)

    def says(self, text: str) -> list[ConnectionAction]:
        return self.link.receive(text.encode())[0]


def unit(*, serial: bool = False, speed: float = 0.0) -> tuple[Unit, Watch, dict[int, float]]:
    volts: dict[int, float] = {}
    loads = [Load(lambda v, i=i: volts.__setitem__(i, v), 770.0) for i in range(8)]
    emulator = QontrolChain(loads) if serial else scpi_source(loads)
    watch = Watch()
    made = Unit("it", emulator, speed=speed, survives_reset=serial, rng=np.random.default_rng(0), clock=watch)
    return made, watch, volts


def test_answers_leave_after_the_time_that_the_instrument_takes() -> None:
    here, watch, _ = unit(serial=True, speed=2.0)
    client = Client(here)
    first, second = client.says("v0=1\nv1?\n")
    line_s = 10 / 115200
    assert first.at_s == pytest.approx(watch.now_s + 2 * line_s * (5 + 3))
    assert second.at_s == pytest.approx(first.at_s + 2 * line_s * (4 + len(second.data)))
    free, _, _ = unit(serial=True)
    assert Client(free).says("v0=1\n")[0].at_s == 100.0


def test_messages_may_come_in_pieces() -> None:
    here, _, _ = unit()
    client = Client(here)
    assert client.says("VOL") == []
    assert [action.data for action in client.says("T 1,(@1)\nVOLT? (@1)\n*ID")] == [b"+1.000000E+00\n"]
    assert client.says("N?\n")[0].data.startswith(b"PHOTONLOOP")


def test_silence_neither_carries_out_nor_answers() -> None:
    here, _, volts = unit()
    client = Client(here)
    here.inject(UnitFault(kind="silence", count=2))
    assert client.says("VOLT 1,(@1);:VOLT? (@1)\n") == client.says("*IDN?\n") == []
    assert volts[0] == 0.0
    assert client.says("VOLT? (@1)\n")[0].data == b"+0.000000E+00\n"
    assert here.counters.faults == {"silence": 2}


def test_late_is_carried_out_at_once_and_answered_later_in_order() -> None:
    here, watch, volts = unit()
    client = Client(here)
    here.inject(UnitFault(kind="late", delay_s=0.5))
    (late,) = client.says("VOLT 1,(@1);:VOLT? (@1)\n")
    assert (late.data, late.at_s, volts[0]) == (b"+1.000000E+00\n", watch.now_s + 0.5, 1.0)


def test_garbage_has_the_length_of_the_answer_and_is_none() -> None:
    here, _, volts = unit()
    client = Client(here)
    here.inject(UnitFault(kind="garbage"))
    (noise,) = client.says("VOLT 1,(@1);:VOLT? (@1)\n")
    assert volts[0] == 1.0
    assert (len(noise.data), noise.data[-1:]) == (14, b"\n")
    assert all(byte >= 128 for byte in noise.data[:-1])
    assert client.says("VOLT? (@1)\n")[0].data == b"+1.000000E+00\n"


def test_disconnect_and_reset_break_every_connection_of_a_socket() -> None:
    for kind in ("disconnect", "reset"):
        here, _, volts = unit()
        client, other = Client(here), Client(here)
        client.says("VOLT 2,(@1)\n")
        here.inject(UnitFault(kind=kind, match="(@2)"))
        assert client.says("VOLT? (@1)\n") != []
        assert client.says("VOLT 1,(@2)\n") == [ConnectionAction(breaks=True)]
        assert other.is_unsolicited == [ConnectionAction(breaks=True)]
        assert volts == {**dict.fromkeys(range(8), 0.0), 0: 2.0 if kind == "disconnect" else 0.0}
        assert here.connections == []
        assert Client(here).says("VOLT? (@2)\n")[0].data == b"+0.000000E+00\n"


def test_a_serial_line_lives_through_a_reset_and_hears_of_it() -> None:
    here, watch, volts = unit(serial=True)
    client = Client(here)
    client.says("v0=3\nvmax0=5\n")
    here.inject(UnitFault(kind="reset"))
    assert client.says("v0=4\n") == [ConnectionAction(b"E90:00\n", watch.now_s)]
    assert volts[0] == 0.0
    assert client.says("v0=6\n")[0].data == b"OK\n"  # the limit is forgotten
    here.inject(UnitFault(kind="reset", now=True))
    assert client.is_unsolicited == [ConnectionAction(b"E90:00\n", watch.now_s)]


def test_errors_unasked_and_in_place_of_an_answer() -> None:
    here, watch, volts = unit(serial=True)
    client = Client(here)
    here.inject(UnitFault(kind="error", code=2, channel=5, now=True))
    assert client.is_unsolicited == [ConnectionAction(b"E02:05\n", watch.now_s)]
    here.inject(UnitFault(kind="error", code=15))
    assert client.says("v0=1\n")[0].data == b"E15:00\n"
    assert volts[0] == 0.0
    scpi, _, _ = unit()
    other = Client(scpi)
    scpi.inject(UnitFault(kind="error", code=-240, now=True))
    assert other.is_unsolicited == []
    assert other.says("SYST:ERR?\n")[0].data == b'-240,"Hardware error"\n'


def test_an_answer_thrown_away_unread() -> None:
    meter = Unit("meter", pm100d(lambda: LaserLight(1e-3, 1550.0, True), np.random.default_rng(0)), rng=np.random.default_rng(0))
    client = Client(meter)
    actions, drops = client.link.receive(b"READ?\n*IDN?\n")
    assert [action.data[:8] for action in actions] == [b"Thorlabs"]
    assert drops
    _, drops = client.link.receive(b"READ?\n", unread=True)
    assert drops
    assert client.link.receive(b"SYST:ERR?\n")[0][0].data == b'-410,"Query INTERRUPTED"\n'


def test_faults_wait_for_their_message() -> None:
    plan = PendingFaults()
    plan.add(UnitFault(kind="silence", match="read", after=1, count=2))
    plan.add(UnitFault(kind="late"))
    struck = [getattr(plan.take(text), "kind", None) for text in (b"X", b"READ?", b"READ?", b"read?", b"READ?")]
    assert struck == ["late", None, "silence", "silence", None]
    assert len(plan) == 0


def test_only_what_strikes_by_itself_can_strike_now() -> None:
    here, _, _ = unit()
    with pytest.raises(ValueError, match="fault late needs a message"):
        here.inject(UnitFault(kind="late", now=True))


def test_a_client_without_end_is_let_go() -> None:
    here, _, _ = unit()
    assert Client(here).says("x" * (1 << 20) + "y") == [ConnectionAction(breaks=True)]


WORDS = st.sampled_from(
    [
        b"v0=", b"VVEC0=", b"nan", b"1e999", b"sour1:volt ", b"-1", b"?", b";", b":", b"(@", b"1:9", b")", b"READ?", b"*RST",
        b"CONF:VOLT:DC ", b"MEAS:VOLT? ", b":POW ", b"WAV ", b"MAX", b"INF", b",", b'"', b"list:volt ", b"\0", b" ", b"999999999",
        b"\x00\x01\x00\x00\x00\x06\x01\x03\x00\x00\x00\x08", b"sens1:nplc ", b"tint ", b"SYST:CTYP? ", b"e5", b"MW", b"\xff",
        b"ROUT:SCAN ",
    ]
)  # fmt: skip


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.one_of(WORDS, st.binary(max_size=6), st.sampled_from([b"\n", b"\r"])), max_size=12))
def test_no_bytes_bring_an_instrument_down(parts: list[bytes]) -> None:
    for name, here in BENCH.units.items():
        link = here.connect(lambda _: None)
        link.receive(b"".join(parts) + b"\n\r")
        link.close()
        assert here.counters.messages >= 0, name
    assert np.isfinite(BENCH.laboratory.heater_v).all()
    assert np.isfinite(BENCH.laboratory.modulator_v).all()
    BENCH.laboratory.measure(0)


BENCH = build(load_chip("ideal", ports=2, stages=1))
