"""Connections and faults of emulated instruments without sockets: the answers and their times."""

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


class ManualClock:
    """A clock that a test sets."""

    now_s = 100.0

    def __call__(self) -> float:
        return self.now_s


class Client:
    """The client's end of a connection."""

    def __init__(self, unit: Unit) -> None:
        self.unsolicited: list[ConnectionAction] = []
        self.connection: ClientConnection = unit.connect(self.unsolicited.append)

    def send(self, text: str) -> list[ConnectionAction]:
        return self.connection.receive(text.encode())[0]


def unit(*, serial: bool = False, speed: float = 0.0) -> tuple[Unit, ManualClock, dict[int, float]]:
    volts: dict[int, float] = {}
    loads = [Load(lambda v, i=i: volts.__setitem__(i, v), 770.0) for i in range(8)]
    emulator = QontrolChain(loads) if serial else scpi_source(loads)
    clock = ManualClock()
    made = Unit("it", emulator, speed=speed, survives_reset=serial, rng=np.random.default_rng(0), clock=clock)
    return made, clock, volts


def test_answers_are_sent_after_the_time_that_the_instrument_takes() -> None:
    here, clock, _ = unit(serial=True, speed=2.0)
    client = Client(here)
    first, second = client.send("v0=1\nv1?\n")
    line_s = 10 / 115200
    assert first.at_s == pytest.approx(clock.now_s + 2 * line_s * (5 + 3))
    assert second.at_s == pytest.approx(first.at_s + 2 * line_s * (4 + len(second.data)))
    free, _, _ = unit(serial=True)
    assert Client(free).send("v0=1\n")[0].at_s == 100.0


def test_messages_may_come_in_pieces() -> None:
    here, _, _ = unit()
    client = Client(here)
    assert client.send("VOL") == []
    assert [action.data for action in client.send("T 1,(@1)\nVOLT? (@1)\n*ID")] == [b"+1.000000E+00\n"]
    assert client.send("N?\n")[0].data.startswith(b"PHOTONLOOP")


def test_silence_means_that_messages_are_neither_carried_out_nor_answered() -> None:
    here, _, volts = unit()
    client = Client(here)
    here.inject(UnitFault(kind="silence", count=2))
    assert client.send("VOLT 1,(@1);:VOLT? (@1)\n") == client.send("*IDN?\n") == []
    assert volts[0] == 0.0
    assert client.send("VOLT? (@1)\n")[0].data == b"+0.000000E+00\n"
    assert here.counters.faults == {"silence": 2}


def test_a_late_message_is_carried_out_at_once_and_answered_later() -> None:
    here, clock, volts = unit()
    client = Client(here)
    here.inject(UnitFault(kind="late", delay_s=0.5))
    (late,) = client.send("VOLT 1,(@1);:VOLT? (@1)\n")
    assert (late.data, late.at_s, volts[0]) == (b"+1.000000E+00\n", clock.now_s + 0.5, 1.0)


def test_garbage_has_the_length_of_the_answer_and_no_valid_character() -> None:
    here, _, volts = unit()
    client = Client(here)
    here.inject(UnitFault(kind="garbage"))
    (noise,) = client.send("VOLT 1,(@1);:VOLT? (@1)\n")
    assert volts[0] == 1.0
    assert (len(noise.data), noise.data[-1:]) == (14, b"\n")
    assert all(byte >= 128 for byte in noise.data[:-1])
    assert client.send("VOLT? (@1)\n")[0].data == b"+1.000000E+00\n"


def test_disconnect_and_reset_break_every_connection_of_a_socket() -> None:
    for kind in ("disconnect", "reset"):
        here, _, volts = unit()
        client, other = Client(here), Client(here)
        client.send("VOLT 2,(@1)\n")
        here.inject(UnitFault(kind=kind, match="(@2)"))
        assert client.send("VOLT? (@1)\n") != []
        assert client.send("VOLT 1,(@2)\n") == [ConnectionAction(breaks=True)]
        assert other.unsolicited == [ConnectionAction(breaks=True)]
        assert volts == {**dict.fromkeys(range(8), 0.0), 0: 2.0 if kind == "disconnect" else 0.0}
        assert here.connections == []
        assert Client(here).send("VOLT? (@2)\n")[0].data == b"+0.000000E+00\n"


def test_a_serial_line_survives_a_reset_and_reports_it() -> None:
    here, clock, volts = unit(serial=True)
    client = Client(here)
    client.send("v0=3\nvmax0=5\n")
    here.inject(UnitFault(kind="reset"))
    assert client.send("v0=4\n") == [ConnectionAction(b"E90:00\n", clock.now_s)]
    assert volts[0] == 0.0
    assert client.send("v0=6\n")[0].data == b"OK\n"  # the limit is at full scale again
    here.inject(UnitFault(kind="reset", now=True))
    assert client.unsolicited == [ConnectionAction(b"E90:00\n", clock.now_s)]


def test_unsolicited_errors_and_errors_instead_of_an_answer() -> None:
    here, clock, volts = unit(serial=True)
    client = Client(here)
    here.inject(UnitFault(kind="error", code=2, channel=5, now=True))
    assert client.unsolicited == [ConnectionAction(b"E02:05\n", clock.now_s)]
    here.inject(UnitFault(kind="error", code=15))
    assert client.send("v0=1\n")[0].data == b"E15:00\n"
    assert volts[0] == 0.0
    scpi, _, _ = unit()
    other = Client(scpi)
    scpi.inject(UnitFault(kind="error", code=-240, now=True))
    assert other.unsolicited == []
    assert other.send("SYST:ERR?\n")[0].data == b'-240,"Hardware error"\n'


def test_an_unread_answer_is_discarded() -> None:
    meter = Unit("meter", pm100d(lambda: LaserLight(1e-3, 1550.0, True), np.random.default_rng(0)), rng=np.random.default_rng(0))
    client = Client(meter)
    actions, discards = client.connection.receive(b"READ?\n*IDN?\n")
    assert [action.data[:8] for action in actions] == [b"Thorlabs"]
    assert discards
    _, discards = client.connection.receive(b"READ?\n", unread=True)
    assert discards
    assert client.connection.receive(b"SYST:ERR?\n")[0][0].data == b'-410,"Query INTERRUPTED"\n'


def test_a_fault_waits_for_a_matching_message() -> None:
    faults = PendingFaults()
    faults.add(UnitFault(kind="silence", match="read", after=1, count=2))
    faults.add(UnitFault(kind="late"))
    kinds = [getattr(faults.take(text), "kind", None) for text in (b"X", b"READ?", b"READ?", b"read?", b"READ?")]
    assert kinds == ["late", None, "silence", "silence", None]
    assert len(faults) == 0


def test_faults_that_need_a_message_cannot_happen_now() -> None:
    here, _, _ = unit()
    with pytest.raises(ValueError, match="fault late cannot happen now"):
        here.inject(UnitFault(kind="late", now=True))


def test_a_client_that_never_ends_its_message_is_disconnected() -> None:
    here, _, _ = unit()
    assert Client(here).send("x" * (1 << 20) + "y") == [ConnectionAction(breaks=True)]


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
def test_no_bytes_make_an_instrument_fail(parts: list[bytes]) -> None:
    for name, here in BENCH.units.items():
        connection = here.connect(lambda _: None)
        connection.receive(b"".join(parts) + b"\n\r")
        connection.close()
        assert here.counters.messages >= 0, name
    assert np.isfinite(BENCH.laboratory.heater_v).all()
    assert np.isfinite(BENCH.laboratory.modulator_v).all()
    BENCH.laboratory.measure(0)


BENCH = build(load_chip("ideal", ports=2, stages=1))
