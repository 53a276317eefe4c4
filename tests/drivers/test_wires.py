"""Real sockets and pseudo-terminals, with an instrument that misbehaves."""

from __future__ import annotations

import itertools
import os
import pty
import socket
import time
import tty
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager

import pytest
from support.misbehaving_peer import CLOSE, RESET, Late, Peer, React, Reaction, pty_peer, tcp_peer

from photonloop.drivers.transports.connection import Connection
from photonloop.drivers.transports.connection_settings import ConnectionSettings, open_text
from photonloop.drivers.transports.serial_port import open_serial
from photonloop.drivers.transports.text import Dialect, TextTransport
from photonloop.drivers.transports.transport_clock import SystemClock
from photonloop.drivers.transports.visa import VisaMessages, VisaSocket, open_visa
from photonloop.protocols.errors import DeviceError

WHO = b"ACME,M1,7,1.0\n"
TIMEOUT_S = 0.15
DIALECT = Dialect(timeout_s=TIMEOUT_S)

Medium = Callable[[React], AbstractContextManager[Peer]]


@pytest.fixture(params=[tcp_peer, pty_peer], ids=["tcp", "serial"])
def medium(request: pytest.FixtureRequest) -> Medium:
    return request.param


@contextmanager
def opened(peer: Peer, dialect: Dialect = DIALECT) -> Iterator[TextTransport]:
    transport = open_text(ConnectionSettings(peer.address, name="meter"), dialect)
    yield transport
    transport.close()


def stamping(faults: Mapping[int, Callable[[bytes], Reaction]]) -> React:
    """Answer READ? with 1, 2, 3, … but the n-th as `faults` say."""
    count = itertools.count(1)

    def react(line: bytes) -> Reaction:
        if line == b"*IDN?":
            return WHO
        number = next(count)
        answer = b"%d\n" % number
        return faults[number](answer) if number in faults else answer

    return react


def test_questions_and_answers(medium: Medium):
    with medium(stamping({})) as peer, opened(peer) as transport:
        assert [transport.query_line("READ?") for _ in range(5)] == ["1", "2", "3", "4", "5"]


@pytest.mark.parametrize("delay_s", [1.2 * TIMEOUT_S, 1.9 * TIMEOUT_S, 2.5 * TIMEOUT_S, 4 * TIMEOUT_S])
def test_no_stale_answer_is_ever_used(medium: Medium, delay_s: float):
    """Answers carry the number of their question; one that is not newer than the last was kept from before."""
    faults = {3: lambda answer: Late(answer, delay_s), 6: lambda answer: Late(answer, delay_s)}
    with medium(stamping(faults)) as peer, opened(peer) as transport:
        answers: list[int] = []
        asked: list[int] = []
        while len(answers) < 8:
            before = sum(line == b"READ?" for line in peer.got)
            try:
                answers.append(int(transport.query_line("READ?")))
                asked.append(before)
            except DeviceError as error:
                assert error.code == "transport"
                assert error.retryable
        # An answer belongs to a question sent after the call began: its number is beyond those asked before.
        assert all(answer > before for answer, before in zip(answers, asked, strict=True))
        assert answers == sorted(set(answers))


@pytest.mark.parametrize("delay_s", [0.0, 0.5 * TIMEOUT_S, 1.9 * TIMEOUT_S])
def test_what_is_sent_unheard_arrives_and_its_answers_are_never_used(medium: Medium, delay_s: float):
    readings = stamping({})

    def react(line: bytes) -> Reaction:
        return Late(b"7\n", delay_s / 4) if line.startswith(b"V") else readings(line)

    with medium(react) as peer, opened(peer) as transport:
        assert transport.query_line("READ?") == "1"
        began_s = time.monotonic()
        transport.send_without_reply(["V1 0", "V2 0"])
        assert time.monotonic() - began_s < 0.5 * TIMEOUT_S
        while True:
            try:
                assert transport.query_line("READ?") == "2"
                break
            except DeviceError as error:  # everything in time is out of reach for a while, but nothing is mistaken
                assert error.code == "transport"
        assert [line for line in peer.got if line.startswith(b"V")] == [b"V1 0", b"V2 0"] * 2


def test_a_closed_connection_is_opened_for_what_is_sent_unheard():
    answers = iter([CLOSE])
    with tcp_peer(lambda line: next(answers, None) if line == b"READ?" else WHO) as peer, opened(peer) as transport:
        transport.write("READ?")
        time.sleep(0.1)
        transport.send_without_reply(["V1 0"])
        time.sleep(0.1)
        assert peer.got[-2:] == [b"V1 0"] * 2
        assert peer.connections == 2


def test_a_peer_that_takes_no_bytes_is_given_up_in_time():
    with socket.create_server(("127.0.0.1", 0)) as listener:
        host, port = listener.getsockname()
        wire = open_visa(f"TCPIP::{host}::{port}::SOCKET", timeout_s=TIMEOUT_S, read_termination="\n")
        transport = TextTransport("meter", Connection(lambda: wire, wire, SystemClock()), DIALECT, SystemClock())
        began_s = time.monotonic()
        with pytest.raises(DeviceError, match="it takes no more bytes") as caught:
            transport.send_without_reply(["V1 " + "0" * 1_000_000] * 20)
        assert caught.value.outcome == "unknown"
        assert time.monotonic() - began_s < 20 * TIMEOUT_S
        transport.close()


def test_a_serial_port_that_is_cleared_does_not_cut_off_what_was_sent():
    master, slave = pty.openpty()
    tty.setraw(slave)
    wire = open_serial(os.ttyname(slave), baud=115200, timeout_s=TIMEOUT_S)
    wire.send(b"V1 0\n")
    os.write(master, b"stale\n")
    wire.clear()
    assert wire.waiting() == b""
    assert os.read(master, 100) == b"V1 0\n"
    wire.close()
    os.close(slave)
    os.close(master)


def test_silence_ends_within_its_deadline(medium: Medium):
    with medium(lambda line: WHO if line == b"*IDN?" else None) as peer, opened(peer) as transport:
        start_s = time.monotonic()
        with pytest.raises(DeviceError, match="did not answer 'READ[?]' within 0.15 s"):
            transport.query_line("READ?")
        assert time.monotonic() - start_s < 6 * TIMEOUT_S + 0.5


def test_garbage_is_asked_again(medium: Medium):
    with medium(stamping({2: lambda _: b"\xff\x00\xfe"})) as peer, opened(peer) as transport:
        assert transport.query_line("READ?") == "1"
        assert transport.query_line("READ?") == "3"


def test_what_is_said_unasked_is_kept(medium: Medium):
    dialect = Dialect(timeout_s=TIMEOUT_S, is_unsolicited=lambda line: line.startswith("E"))
    with medium(stamping({2: lambda answer: b"E01:02\n" + answer})) as peer, opened(peer, dialect) as transport:
        transport.query_line("READ?")
        peer.say(b"E90:00\n")
        time.sleep(0.05)
        assert transport.query_line("READ?") == "2"
        assert transport.pop_unsolicited() == ["E90:00", "E01:02"]


@pytest.mark.parametrize("end", [CLOSE, RESET])
def test_a_closed_connection_is_found_and_opened_again(end: str):
    with tcp_peer(stamping({2: lambda _: end})) as peer, opened(peer) as transport:
        assert transport.query_line("READ?") == "1"
        assert transport.query_line("READ?") == "3"  # the second was swallowed by the end
        assert peer.connections == 2


def test_a_write_to_a_dead_peer_does_not_succeed():
    with tcp_peer(stamping({1: lambda answer: CLOSE})) as peer, opened(peer) as transport:
        transport.write("GO")
        time.sleep(0.1)  # now the other end is closed
        with pytest.raises(DeviceError, match="was lost and has been opened again") as caught:
            transport.write("GO ON")
        assert caught.value.outcome == "unknown"
        assert b"GO ON" not in peer.got


def test_a_pulled_cable_is_told():
    with pty_peer(stamping({})) as peer, opened(peer) as transport:
        transport.query_line("READ?")
        peer.hang_up()
        with pytest.raises(DeviceError, match="is gone") as caught:
            transport.query_line("READ?")
        assert caught.value.code == "transport"


def test_an_instrument_that_was_away_is_found_when_it_is_back():
    with tcp_peer(stamping({})) as peer:
        transport = open_text(ConnectionSettings(peer.address), DIALECT)
        assert transport.query_line("READ?") == "1"
        port = int(peer.address.split("::")[2])
    for _ in range(3):
        with pytest.raises(DeviceError, match="nobody answers there|is gone") as caught:
            transport.query_line("READ?")
        assert (caught.value.code, caught.value.retryable) == ("transport", True)
        assert transport.pop_unsolicited() == []
    with tcp_peer(stamping({}), port=port):
        assert transport.query_line("READ?") == "1"
        transport.close()


def test_nobody_there():
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    with pytest.raises(DeviceError, match="nobody answers there \\(connection refused\\)"):
        open_text(ConnectionSettings(f"TCPIP::127.0.0.1::{port}::SOCKET", name="meter"), DIALECT)
    with pytest.raises(DeviceError, match="/dev/ttyNONE cannot be opened"):
        open_text(ConnectionSettings("ASRL/dev/ttyNONE::INSTR"), DIALECT)
    with pytest.raises(DeviceError, match="cannot be opened"):
        open_text(ConnectionSettings("nonsense"), DIALECT)


def test_a_serial_port_is_ours_alone():
    with pty_peer(stamping({})) as peer, opened(peer), pytest.raises(DeviceError, match="cannot be opened"):
        open_text(ConnectionSettings(peer.address), DIALECT)


def test_nagle_is_off():
    with tcp_peer(stamping({})) as peer:
        wire = open_visa(peer.address, timeout_s=1.0, read_termination="\n")
        assert isinstance(wire, VisaSocket)
        assert wire._plain.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY) == 1
        assert wire._plain.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE) == 1
        wire.close()
        wire.close()


def test_other_visa_libraries_are_used_through_visa_alone(monkeypatch: pytest.MonkeyPatch):
    """The path for libraries whose sockets are out of reach, here on pyvisa-py as if its were."""
    monkeypatch.setattr("photonloop.drivers.transports.visa._socket_behind", lambda resource: None)
    with tcp_peer(stamping({2: lambda answer: Late(answer, 2.5 * TIMEOUT_S)})) as peer, opened(peer) as transport:
        assert isinstance(transport._connection._wire, VisaMessages)
        assert transport.query_line("READ?") == "1"
        assert int(transport.query_line("READ?")) > 2


def test_long_answers_arrive_whole(medium: Medium):
    long = ",".join(str(number) for number in range(30_000))
    with medium(lambda line: WHO if line == b"*IDN?" else long.encode() + b"\n") as peer:
        with opened(peer, Dialect(timeout_s=3.0)) as transport:
            assert transport.query_line("READ?") == long
