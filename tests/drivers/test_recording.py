"""Recordings replayed as tests, and the assertion messages of a replay."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from support.misbehaving_peer import Late, Reaction, tcp_peer
from support.replays import IDENTITY, replayed

from photonloop.drivers.transports.connection_settings import ConnectionSettings, open_text
from photonloop.drivers.transports.dialect import Dialect
from photonloop.drivers.transports.recording import Recorder, read_recording, replay_text
from photonloop.drivers.transports.transport_clock import SteppedClock
from photonloop.protocols.config import ConfigError
from photonloop.protocols.errors import DeviceError

DIALECT = Dialect(timeout_s=0.15)


def test_a_recording_with_a_late_answer_is_replayed(tmp_path: Path):
    """The same timeout, the same late answer, the same resynchronisation."""
    path = tmp_path / "recording.jsonl"
    count = 0

    def react(line: bytes) -> Reaction:
        nonlocal count
        if line == b"*IDN?":
            return b"ACME,M1,7,1.0\n"
        count += 1
        return Late(b"first\n", 0.2) if count == 1 else b"second\n"

    with tcp_peer(react) as peer, path.open("w") as file:
        transport = open_text(ConnectionSettings(peer.address, name="meter", recorder=Recorder(file)), DIALECT)
        assert transport.query_line("READ?") == "second"
        transport.close()

    events = read_recording(path, "meter")
    assert [event.kind for event in events].count("timeout") >= 1
    assert b"first\n" in b"".join(event.data for event in events if event.kind == "received")
    replay, stream = replay_text(events, DIALECT)
    assert replay.query_line("READ?") == "second"
    stream.check_finished()


def test_the_file_format_and_its_errors(tmp_path: Path):
    path = tmp_path / "recording.jsonl"
    clock = SteppedClock()
    with tcp_peer(lambda line: b"ACME,M1,7,1.0\n") as peer, path.open("w") as file:
        open_text(ConnectionSettings(peer.address, name="meter", recorder=Recorder(file, clock)), DIALECT).close()
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    assert lines[0] == {"s": 0.0, "to": "meter", "event": "opened", "data": ""}
    assert {"s": 0.0, "to": "meter", "event": "sent", "data": "*IDN?\n"} in lines
    assert lines[-1]["event"] == "closed"
    with pytest.raises(ConfigError, match="has no events of 'laser'; it has those of: meter"):
        read_recording(path, "laser")
    path.write_text('{"to": "meter"}\n')
    with pytest.raises(ConfigError, match="line 1 is not an event"):
        read_recording(path, "meter")
    with pytest.raises(ConfigError, match="cannot be read"):
        read_recording(tmp_path / "none", "meter")


def test_a_replay_explains_what_differs():
    with pytest.raises(AssertionError, match="the driver sent     b'READ[?].n'\nthe transcript has  b'MEAS[?].n'"):
        with replayed([IDENTITY, ("MEAS?", "1")], DIALECT) as transport:
            transport.query_line("READ?")
    with pytest.raises(AssertionError, match="the driver never sent b'MEAS[?].n'"), replayed([IDENTITY, ("MEAS?", "1")], DIALECT):
        pass
    with pytest.raises(AssertionError, match="after the end of the transcript"), replayed([IDENTITY], DIALECT) as transport:
        transport.query_line("READ?")
    with pytest.raises(AssertionError, match="the answer may be missing in the transcript"):
        with replayed([IDENTITY, ("READ?", ""), ("NEXT?", "1")], DIALECT) as transport:
            transport.query_line("READ?")
    with pytest.raises(AssertionError, match="the driver never read b'2.n'"):
        with replayed([IDENTITY, ("READ?", "1"), (None, "2")], DIALECT) as transport:
            transport.query_line("READ?")


def test_an_intended_timeout_is_replayed():
    with pytest.raises(DeviceError), replayed([IDENTITY, ("READ?", None), IDENTITY, ("READ?", None)], DIALECT) as transport:
        transport.query_line("READ?")
