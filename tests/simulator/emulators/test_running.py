"""A running virtual bench, over real sockets and a real serial line, with clients in plain Python."""

from __future__ import annotations

import json
import os
import select
import socket
import struct
import time
import tomllib
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from photonloop.simulator.emulators.running import RunningBench, running
from photonloop.simulator.parameters import load_chip


@pytest.fixture(scope="module")
def bench() -> Iterator[RunningBench]:
    with running(load_chip("soi", ports=4, stages=1, seed=3)) as made:
        yield made


@pytest.fixture(autouse=True)
def without_faults(bench: RunningBench) -> Iterator[None]:
    yield
    bench.call(lambda: [unit.faults.clear() for unit in bench.bench.units.values()])


class TcpClient:
    """A client of one instrument over TCP."""

    def __init__(self, bench: RunningBench, name: str, end: bytes = b"\n", timeout_s: float = 5.0) -> None:
        host, port = bench.addresses.instruments[name].split("::")[1:3]
        self.socket = socket.create_connection((host, int(port)), timeout_s)
        self.end = end
        self.received = b""

    def close(self) -> None:
        self.socket.close()

    def send(self, text: str) -> None:
        self.socket.sendall(text.encode() + self.end)

    def receive(self) -> bytes:
        while self.end not in self.received:
            more = self.socket.recv(65536)
            if not more:
                raise ConnectionResetError
            self.received += more
        line, _, self.received = self.received.partition(self.end)
        return line

    def query(self, text: str) -> str:
        self.send(text)
        return self.receive().decode()


class SerialClient:
    """A client of the serial line."""

    def __init__(self, bench: RunningBench) -> None:
        self.path = bench.addresses.instruments["qontrol"].removeprefix("ASRL").removesuffix("::INSTR")
        self.file = os.open(self.path, os.O_RDWR | os.O_NOCTTY)

    def close(self) -> None:
        os.close(self.file)

    def send(self, text: str) -> None:
        os.write(self.file, text.encode() + b"\n")

    def receive(self, timeout_s: float = 5.0) -> str:
        data = b""
        while not data.endswith(b"\n"):
            ready, _, _ = select.select([self.file], [], [], timeout_s)
            if not ready:
                raise TimeoutError
            data += os.read(self.file, 1)
        return data.decode().strip()

    def query(self, text: str) -> str:
        self.send(text)
        return self.receive()


def test_every_instrument_answers_at_its_address(bench: RunningBench) -> None:
    identities = {}
    for name in bench.addresses.instruments:
        if name in {"qontrol", "labjack-t7"}:
            continue
        with closing(TcpClient(bench, name, b"\r" if name == "santec-tsl570" else b"\n")) as client:
            identities[name] = client.query("*IDN?").split(",")[1].strip()
    assert identities == {
        "qdac2": "QDAC-II",
        "scpi-source": "SOURCE-16",
        "keysight-daq970a": "DAQ970A",
        "scpi-readout": "READOUT-16",
        "santec-tsl570": "TSL-570",
        "scpi-laser": "LASER-1550",
        "scpi-switch": "SWITCH-1XN",
        "pm100d": "PM100D",
    }
    with closing(SerialClient(bench)) as line:
        assert line.query("id?") == "Q8iv-0040"
        assert [line.query("nupall?"), line.receive()] == ["Q8iv-0040:0", "Q8iv-0041:1"]


def read_labjack(client: TcpClient, transaction: int) -> tuple[float, ...]:
    client.socket.sendall(struct.pack(">HHHBBHH", transaction, 0, 6, 1, 3, 0, 8))
    header = client.socket.recv(9, socket.MSG_WAITALL)
    assert struct.unpack(">H", header[:2]) == (transaction,)
    return struct.unpack(">4f", client.socket.recv(16, socket.MSG_WAITALL))


def test_a_heater_set_over_serial_changes_the_readings_of_another_instrument(bench: RunningBench) -> None:
    with (
        closing(SerialClient(bench)) as heaters,
        closing(TcpClient(bench, "qdac2")) as inputs,
        closing(TcpClient(bench, "santec-tsl570", b"\r")) as laser,
        closing(TcpClient(bench, "labjack-t7")) as daq,
    ):
        assert laser.query(":POW 13.01;:POW:STAT 1;:POW:STAT?") == "1"
        assert inputs.query("sour1:volt 4;:sour2:volt 2;:syst:err:all?") == '0, "No error"'
        before = read_labjack(daq, 1)
        assert max(before) > 0.05
        again = read_labjack(daq, 2)
        assert again == pytest.approx(before, abs=0.01)
        assert heaters.query("VVEC0=4,4,4,4,4,4,4,4") == "OK"
        changed = read_labjack(daq, 3)
        assert max(abs(a - b) for a, b in zip(changed, before, strict=True)) > 0.05
        assert heaters.query("VVEC0=0,0,0,0,0,0,0,0") == "OK"
        assert read_labjack(daq, 4) == pytest.approx(before, abs=0.01)
        laser.query(":POW:STAT 0;:POW:STAT?")
        assert read_labjack(daq, 5) == pytest.approx([0.0] * 4, abs=0.01)


def test_a_late_answer_comes_after_the_clients_timeout(bench: RunningBench) -> None:
    bench.inject("scpi-source", "late", delay_s=1.0)
    with closing(TcpClient(bench, "scpi-source", timeout_s=0.1)) as client:
        client.send("VOLT? (@1)")
        with pytest.raises(TimeoutError):
            client.receive()
        client.socket.settimeout(5.0)
        assert client.query("*IDN?") == "+0.000000E+00"  # the stale answer
        assert client.receive().startswith(b"PHOTONLOOP")


def test_silence_and_garbage_over_tcp(bench: RunningBench) -> None:
    with closing(TcpClient(bench, "keysight-daq970a", timeout_s=0.2)) as client:
        bench.inject("keysight-daq970a", "silence")
        client.send("*IDN?")
        with pytest.raises(TimeoutError):
            client.receive()
        client.socket.settimeout(5.0)
        bench.inject("keysight-daq970a", "garbage")
        client.send("*IDN?")
        with pytest.raises(UnicodeDecodeError):
            client.receive().decode("ascii")
        assert client.query("*IDN?").startswith("Keysight")


def test_clients_can_connect_again_after_a_disconnect(bench: RunningBench) -> None:
    with closing(TcpClient(bench, "qdac2")) as client:
        assert client.query("sour3:volt 1;volt?") == "1"
        bench.inject("qdac2", "disconnect", now=True)
        with pytest.raises(ConnectionResetError):
            client.receive()
    with closing(TcpClient(bench, "qdac2")) as client:
        assert client.query("sour3:volt?") == "1"  # only the connection was lost
        bench.inject("qdac2", "reset")
        client.send("sour3:volt?")
        with pytest.raises(ConnectionResetError):
            client.receive()
    with closing(TcpClient(bench, "qdac2")) as client:
        assert client.query("sour3:volt?") == "0"


def test_an_unplugged_serial_line_comes_back_under_its_name(bench: RunningBench) -> None:
    with closing(SerialClient(bench)) as line:
        assert line.query("v0=1") == "OK"
        bench.inject("qontrol", "disconnect", now=True)
        with pytest.raises(OSError, match=r"Input/output error"):
            while os.read(line.file, 100) == b"":
                raise OSError(5, "Input/output error")  # an end of file means the same
    with closing(SerialClient(bench)) as line:
        assert line.query("v0?") == "+0.999954 V"
        bench.inject("qontrol", "reset", now=True)
        assert [line.receive(), line.receive()] == ["E90:00", "E90:08"]
        bench.inject("qontrol", "error", code=2, channel=3, now=True)
        assert line.receive() == "E02:03"


def test_a_serial_path_can_be_opened_as_soon_as_the_old_line_is_closed(
    bench: RunningBench, monkeypatch: pytest.MonkeyPatch
) -> None:
    close = os.close
    found: list[bool] = []
    with closing(SerialClient(bench)) as line:
        path = Path(line.path)

        def close_and_look(file: int) -> None:
            close(file)
            found.append(path.exists())

        monkeypatch.setattr(os, "close", close_and_look)
        bench.inject("qontrol", "disconnect", now=True)
        monkeypatch.undo()
    assert found == [True, True]  # both ends of the old terminal were closed, and the path led to the new one by then


def test_an_unread_serial_line_does_not_block_the_bench(bench: RunningBench) -> None:
    with closing(SerialClient(bench)) as line:
        for _ in range(40):
            os.write(line.file, b"vipall?\n" * 5)
        time.sleep(0.1)
    with closing(TcpClient(bench, "qdac2")) as client:
        assert client.query("*IDN?").startswith("QDevil")  # the bench still answers
    with closing(SerialClient(bench)) as line:
        select.select([line.file], [], [], 1.0)
        while select.select([line.file], [], [], 0.1)[0]:
            os.read(line.file, 65536)
        assert line.query("id?") == "Q8iv-0040"


def test_the_control_port(bench: RunningBench) -> None:
    host, port = bench.addresses.control.split(":")
    with socket.create_connection((host, int(port)), 5.0) as control, control.makefile("rw", encoding="utf-8") as file:

        def do(**request: object) -> dict[str, object]:
            file.write(json.dumps(request) + "\n")
            file.flush()
            return json.loads(file.readline())

        assert do(do="inject", instrument="scpi-laser", fault={"kind": "error", "code": -310, "now": True}) == {"ok": True}
        with closing(TcpClient(bench, "scpi-laser")) as laser:
            assert laser.query("SYST:ERR?") == '-310,"System error"'
        state = do(do="state")
        assert state["ok"] is True
        assert isinstance(state["measurements"], int)
        assert do(do="log", since=state["measurements"]) == {"ok": True, "log": []}
        with closing(TcpClient(bench, "scpi-readout")) as readout:
            readout.query("MEAS:VOLT? (@1:4)")
        log = do(do="log", since=state["measurements"])["log"]
        assert isinstance(log, list)
        assert [entry["sequence"] for entry in log] == [state["measurements"] + 1]
        assert do(do="inject", instrument="labjak", fault={"kind": "late"})["error"] == (
            "there is no instrument 'labjak' on the bench; did you mean 'labjack-t7'?"
        )
        assert "fault: kind is 'slow'" in str(do(do="inject", instrument="pm100d", fault={"kind": "slow"})["error"])
        assert "cannot happen now" in str(do(do="inject", instrument="pm100d", fault={"kind": "late", "now": True})["error"])
        assert do(do="dance")["error"] == "do is 'dance', expected inject, clear, state or log"
        assert do(do="log", since="x")["ok"] is False
        file.write("{\n")
        file.flush()
        assert json.loads(file.readline())["ok"] is False
        assert do(do="clear") == {"ok": True}


def test_the_station_file_describes_the_bench(bench: RunningBench) -> None:
    station = tomllib.loads(bench.addresses.station.read_text(encoding="utf-8"))
    assert [i["name"] for i in station["instruments"]] == ["qontrol", "qdac2", "labjack-t7", "santec-tsl570"]
    (stage,) = station["stages"]
    assert stage["heaters"]["channels"] == list(range(16))
    assert stage["heaters"]["groups"] == {"theta": [0, 6], "phi": [6, 12], "gamma": [12, 16]}
    assert len(stage["layout"]) == 6
    assert stage["detectors"]["full_scale_a"] == pytest.approx(bench.bench.laboratory.full_scale_a[0])
    assert station["inputs"]["curve"] == {"kind": "mach-zehnder", "v_pi": 4.0}
    assert station["limits"]["max_v"] == 10.8
    assert station["laser"]["power_w"] == 0.02


def test_many_queries_are_answered_in_order(bench: RunningBench) -> None:
    with closing(TcpClient(bench, "qdac2")) as client:
        assert [client.query(f"sour1:volt {k % 3};volt?") for k in range(200)] == [str(k % 3) for k in range(200)]
