"""Transports over real sockets and pseudo-terminals, with a misbehaving instrument."""

from __future__ import annotations

import itertools
import os
import pty
import socket
import tty
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager

import pytest
from support.fake_device import wait_until
from support.misbehaving_peer import CLOSE, RESET, Late, Peer, React, Reaction, pty_peer, tcp_peer

from photonloop.drivers.transports.connection import Connection
from photonloop.drivers.transports.connection_settings import ConnectionSettings, open_text
from photonloop.drivers.transports.dialect import Dialect
from photonloop.drivers.transports.serial_port import open_serial
from photonloop.drivers.transports.text import TextTransport
from photonloop.drivers.transports.transport_clock import SystemClock
from photonloop.drivers.transports.visa import VisaMessages, VisaSocket, open_visa
from photonloop.protocols.errors import DeviceError

IDENTITY = b"ACME,M1,7,1.0\n"
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


def counting(faults: Mapping[int, Callable[[bytes], Reaction]]) -> React:
    """Answer READ? with 1, 2, 3, …, the n-th changed by `faults[n]`."""
    count = itertools.count(1)

    def react(line: bytes) -> Reaction:
        if line == b"*IDN?":
            return IDENTITY
        number = next(count)
        answer = b"%d\n" % number
        return faults[number](answer) if number in faults else answer

    return react


def test_queries_and_answers(medium: Medium):
    with medium(counting({})) as peer, opened(peer) as transport:
        assert [transport.query_line("READ?") for _ in range(5)] == ["1", "2", "3", "4", "5"]


@pytest.mark.parametrize("delay_s", [1.2 * TIMEOUT_S, 1.9 * TIMEOUT_S, 2.5 * TIMEOUT_S, 4 * TIMEOUT_S])
def test_no_stale_answer_is_ever_used(medium: Medium, delay_s: float):
    """Answers carry the number of their query; one that is not newer than the last one is stale."""
    faults = {3: lambda answer: Late(answer, delay_s), 6: lambda answer: Late(answer, delay_s)}
    with medium(counting(faults)) as peer, opened(peer) as transport:
        answers: list[int] = []
        asked: list[int] = []
        while len(answers) < 8:
            before = sum(line == b"READ?" for line in peer.received)
            try:
                answers.append(int(transport.query_line("READ?")))
                asked.append(before)
            except DeviceError as error:
                assert error.code == "transport"
                assert error.retryable
        # An answer must belong to a query sent after the call began: its number is above those sent before.
        assert all(answer > before for answer, before in zip(answers, asked, strict=True))
        assert answers == sorted(set(answers))


@pytest.mark.parametrize("delay_s", [0.0, 0.5 * TIMEOUT_S, 1.9 * TIMEOUT_S])
def test_commands_without_reply_arrive_and_their_answers_are_never_used(medium: Medium, delay_s: float):
    readings = counting({})

    def react(line: bytes) -> Reaction:
        return Late(b"7\n", delay_s / 4) if line.startswith(b"V") else readings(line)

    with medium(react) as peer, opened(peer) as transport:
        assert transport.query_line("READ?") == "1"
        transport.send_without_reply(["V1 0", "V2 0"])
        while True:
            try:
                assert transport.query_line("READ?") == "2"
                break
            except DeviceError as error:  # no answer is in time for a while, but none is mistaken for another
                assert error.code == "transport"
        assert [line for line in peer.received if line.startswith(b"V")] == [b"V1 0", b"V2 0"] * 2


def test_a_closed_connection_is_reopened_for_commands_without_reply():
    answers = iter([CLOSE])
    with tcp_peer(lambda line: next(answers, None) if line == b"READ?" else IDENTITY) as peer, opened(peer) as transport:
        transport.write("READ?")
        wait_until(lambda: peer.disconnections == 1)
        transport.send_without_reply(["V1 0"])
        wait_until(lambda: peer.received[-2:] == [b"V1 0"] * 2)
        assert peer.connections == 2


def test_an_instrument_that_accepts_no_bytes_is_an_error():
    with socket.create_server(("127.0.0.1", 0)) as listener:
        host, port = listener.getsockname()
        stream = open_visa(f"TCPIP::{host}::{port}::SOCKET", timeout_s=TIMEOUT_S, read_termination="\n")
        transport = TextTransport("meter", Connection(lambda: stream, stream, SystemClock()), DIALECT, SystemClock())
        with pytest.raises(DeviceError, match="accepted no more bytes") as caught:
            transport.send_without_reply(["V1 " + "0" * 1_000_000] * 20)
        assert caught.value.outcome == "unknown"
        transport.close()


def test_clearing_a_serial_port_does_not_discard_sent_bytes():
    master, slave = pty.openpty()
    tty.setraw(slave)
    stream = open_serial(os.ttyname(slave), baud=115200, timeout_s=TIMEOUT_S)
    stream.send(b"V1 0\n")
    os.write(master, b"stale\n")
    stream.clear()
    assert stream.read_available() == b""
    assert os.read(master, 100) == b"V1 0\n"
    stream.close()
    os.close(slave)
    os.close(master)


def test_a_query_without_answer_times_out(medium: Medium):
    with medium(lambda line: IDENTITY if line == b"*IDN?" else None) as peer, opened(peer) as transport:
        with pytest.raises(DeviceError, match="did not answer 'READ[?]' within 0.15 s"):
            transport.query_line("READ?")


def test_an_invalid_answer_is_queried_again(medium: Medium):
    with medium(counting({2: lambda _: b"\xff\x00\xfe"})) as peer, opened(peer) as transport:
        assert transport.query_line("READ?") == "1"
        assert transport.query_line("READ?") == "3"


def test_unsolicited_lines_are_kept(medium: Medium):
    dialect = Dialect(timeout_s=TIMEOUT_S, is_unsolicited=lambda line: line.startswith("E"))
    with medium(counting({2: lambda answer: b"E01:02\n" + answer})) as peer, opened(peer, dialect) as transport:
        transport.query_line("READ?")
        peer.send(b"E90:00\n")
        assert transport.query_line("READ?") == "2"
        assert transport.pop_unsolicited() == ["E90:00", "E01:02"]


@pytest.mark.parametrize("end", [CLOSE, RESET])
def test_a_closed_connection_is_detected_and_reopened(end: str):
    with tcp_peer(counting({2: lambda _: end})) as peer, opened(peer) as transport:
        assert transport.query_line("READ?") == "1"
        assert transport.query_line("READ?") == "3"  # the second was lost with the connection
        assert peer.connections == 2


def test_a_write_to_a_closed_connection_fails():
    with tcp_peer(counting({1: lambda answer: CLOSE})) as peer, opened(peer) as transport:
        transport.write("GO")
        wait_until(lambda: peer.disconnections == 1)
        with pytest.raises(DeviceError, match="was lost and reconnected") as caught:
            transport.write("GO ON")
        assert caught.value.outcome == "unknown"
        assert b"GO ON" not in peer.received


def test_an_unplugged_port_is_an_error():
    with pty_peer(counting({})) as peer, opened(peer) as transport:
        transport.query_line("READ?")
        peer.unplug()
        with pytest.raises(DeviceError, match="connection lost") as caught:
            transport.query_line("READ?")
        assert caught.value.code == "transport"


def test_an_instrument_is_reconnected_when_it_is_back():
    with tcp_peer(counting({})) as peer:
        transport = open_text(ConnectionSettings(peer.address), DIALECT)
        assert transport.query_line("READ?") == "1"
        port = int(peer.address.split("::")[2])
    for _ in range(3):
        with pytest.raises(DeviceError, match="connection lost") as caught:
            transport.query_line("READ?")
        assert (caught.value.code, caught.value.retryable) == ("transport", True)
        assert transport.pop_unsolicited() == []
    with tcp_peer(counting({}), port=port):
        assert transport.query_line("READ?") == "1"
        transport.close()


def test_no_instrument_at_the_address():
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    with pytest.raises(DeviceError, match="no connection \\(connection refused\\)"):
        open_text(ConnectionSettings(f"TCPIP::127.0.0.1::{port}::SOCKET", name="meter"), DIALECT)
    with pytest.raises(DeviceError, match="/dev/ttyNONE cannot be opened"):
        open_text(ConnectionSettings("ASRL/dev/ttyNONE::INSTR"), DIALECT)
    with pytest.raises(DeviceError, match="cannot be opened"):
        open_text(ConnectionSettings("nonsense"), DIALECT)


def test_a_serial_port_is_opened_exclusively():
    with pty_peer(counting({})) as peer, opened(peer), pytest.raises(DeviceError, match="cannot be opened"):
        open_text(ConnectionSettings(peer.address), DIALECT)


def test_nagles_algorithm_is_off():
    with tcp_peer(counting({})) as peer:
        stream = open_visa(peer.address, timeout_s=1.0, read_termination="\n")
        assert isinstance(stream, VisaSocket)
        assert stream._raw_socket.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY) == 1
        assert stream._raw_socket.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE) == 1
        stream.close()
        stream.close()


def test_other_visa_libraries_are_used_through_visa_alone(monkeypatch: pytest.MonkeyPatch):
    """The code for libraries whose sockets are not accessible, on pyvisa-py with its sockets hidden."""
    monkeypatch.setattr("photonloop.drivers.transports.visa._raw_socket_of", lambda resource: None)
    with tcp_peer(counting({2: lambda answer: Late(answer, 2.5 * TIMEOUT_S)})) as peer, opened(peer) as transport:
        assert isinstance(transport._connection._stream, VisaMessages)
        assert transport.query_line("READ?") == "1"
        assert int(transport.query_line("READ?")) > 2


def test_long_answers_arrive_whole(medium: Medium):
    long = ",".join(str(number) for number in range(30_000))
    with medium(lambda line: IDENTITY if line == b"*IDN?" else long.encode() + b"\n") as peer:
        with opened(peer, Dialect(timeout_s=3.0)) as transport:
            assert transport.query_line("READ?") == long
