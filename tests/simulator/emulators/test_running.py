"""A running bench, over real sockets and a real serial line, as plain Python sees them."""

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


class Tcp:
    """A client of one instrument."""

    def __init__(self, bench: RunningBench, name: str, end: bytes = b"\n", timeout_s: float = 5.0) -> None:
        host, port = bench.addresses.instruments[name].split("::")[1:3]
        self.socket = socket.create_connection((host, int(port)), timeout_s)
        self.end = end
        self.heard = b""

    def close(self) -> None:
        self.socket.close()

    def tell(self, text: str) -> None:
        self.socket.sendall(text.encode() + self.end)

    def hear(self) -> bytes:
        while self.end not in self.heard:
            more = self.socket.recv(65536)
            if not more:
                raise ConnectionResetError
            self.heard += more
        line, _, self.heard = self.heard.partition(self.end)
        return line

    def ask(self, text: str) -> str:
        self.tell(text)
        return self.hear().decode()


class Serial:
    """A client of the serial line."""

    def __init__(self, bench: RunningBench) -> None:
        self.path = bench.addresses.instruments["qontrol"].removeprefix("ASRL").removesuffix("::INSTR")
        self.file = os.open(self.path, os.O_RDWR | os.O_NOCTTY)

    def close(self) -> None:
        os.close(self.file)

    def tell(self, text: str) -> None:
        os.write(self.file, text.encode() + b"\n")

    def hear(self, timeout_s: float = 5.0) -> str:
        data = b""
        while not data.endswith(b"\n"):
            ready, _, _ = select.select([self.file], [], [], timeout_s)
            if not ready:
                raise TimeoutError
            data += os.read(self.file, 1)
        return data.decode().strip()

    def ask(self, text: str) -> str:
        self.tell(text)
        return self.hear()


def test_every_instrument_answers_at_its_address(bench: RunningBench) -> None:
    identities = {}
    for name in bench.addresses.instruments:
        if name in {"qontrol", "labjack-t7"}:
            continue
        with closing(Tcp(bench, name, b"\r" if name == "santec-tsl570" else b"\n")) as client:
            identities[name] = client.ask("*IDN?").split(",")[1].strip()
    assert identities == {
        "qdac2": "QDAC-II",
        "scpi-source": "SOURCE-16",
        "keysight-daq970a": "DAQ970A",
        "scpi-readout": "READOUT-16",
        "santec-tsl570": "TSL-570",
        "scpi-laser": "LASER-1550",
        "pm100d": "PM100D",
    }
    with closing(Serial(bench)) as line:
        assert line.ask("id?") == "Q8iv-0040"
        assert [line.ask("nupall?"), line.hear()] == ["Q8iv-0040:0", "Q8iv-0041:1"]


def read_labjack(client: Tcp, transaction: int) -> tuple[float, ...]:
    client.socket.sendall(struct.pack(">HHHBBHH", transaction, 0, 6, 1, 3, 0, 8))
    header = client.socket.recv(9, socket.MSG_WAITALL)
    assert struct.unpack(">H", header[:2]) == (transaction,)
    return struct.unpack(">4f", client.socket.recv(16, socket.MSG_WAITALL))


def test_a_heater_turned_over_serial_changes_what_another_instrument_reads(bench: RunningBench) -> None:
    with (
        closing(Serial(bench)) as heaters,
        closing(Tcp(bench, "qdac2")) as inputs,
        closing(Tcp(bench, "santec-tsl570", b"\r")) as laser,
        closing(Tcp(bench, "labjack-t7")) as daq,
    ):
        assert laser.ask(":POW 13.01;:POW:STAT 1;:POW:STAT?") == "1"
        assert inputs.ask("sour1:volt 4;:sour2:volt 2;:syst:err:all?") == '0, "No error"'
        before = read_labjack(daq, 1)
        assert max(before) > 0.05
        again = read_labjack(daq, 2)
        assert again == pytest.approx(before, abs=0.01)
        assert heaters.ask("VVEC0=4,4,4,4,4,4,4,4") == "OK"
        turned = read_labjack(daq, 3)
        assert max(abs(a - b) for a, b in zip(turned, before, strict=True)) > 0.05
        assert heaters.ask("VVEC0=0,0,0,0,0,0,0,0") == "OK"
        assert read_labjack(daq, 4) == pytest.approx(before, abs=0.01)
        laser.ask(":POW:STAT 0;:POW:STAT?")
        assert read_labjack(daq, 5) == pytest.approx([0.0] * 4, abs=0.01)


def test_a_late_answer_comes_after_the_client_has_given_up(bench: RunningBench) -> None:
    bench.inject("scpi-source", "late", delay_s=0.3)
    with closing(Tcp(bench, "scpi-source", timeout_s=0.1)) as client:
        client.tell("VOLT? (@1)")
        with pytest.raises(TimeoutError):
            client.hear()
        client.socket.settimeout(5.0)
        assert client.ask("*IDN?") == "+0.000000E+00"  # the stale answer, which a careful client throws away
        assert client.hear().startswith(b"PHOTONLOOP")


def test_silence_and_garbage(bench: RunningBench) -> None:
    with closing(Tcp(bench, "keysight-daq970a", timeout_s=0.2)) as client:
        bench.inject("keysight-daq970a", "silence")
        client.tell("*IDN?")
        with pytest.raises(TimeoutError):
            client.hear()
        client.socket.settimeout(5.0)
        bench.inject("keysight-daq970a", "garbage")
        client.tell("*IDN?")
        with pytest.raises(UnicodeDecodeError):
            client.hear().decode("ascii")
        assert client.ask("*IDN?").startswith("Keysight")


def test_disconnect_now_and_back_again(bench: RunningBench) -> None:
    with closing(Tcp(bench, "qdac2")) as client:
        assert client.ask("sour3:volt 1;volt?") == "1"
        bench.inject("qdac2", "disconnect", now=True)
        with pytest.raises(ConnectionResetError):
            client.hear()
    with closing(Tcp(bench, "qdac2")) as client:
        assert client.ask("sour3:volt?") == "1"  # only the connection was lost
        bench.inject("qdac2", "reset")
        client.tell("sour3:volt?")
        with pytest.raises(ConnectionResetError):
            client.hear()
    with closing(Tcp(bench, "qdac2")) as client:
        assert client.ask("sour3:volt?") == "0"


def test_the_serial_line_is_pulled_out_and_comes_back_under_its_name(bench: RunningBench) -> None:
    with closing(Serial(bench)) as line:
        assert line.ask("v0=1") == "OK"
        bench.inject("qontrol", "disconnect", now=True)
        with pytest.raises(OSError, match=r"Input/output error"):
            while os.read(line.file, 100) == b"":
                raise OSError(5, "Input/output error")  # an end of file says the same
    with closing(Serial(bench)) as line:
        assert line.ask("v0?") == "+0.999954 V"
        bench.inject("qontrol", "reset", now=True)
        assert [line.hear(), line.hear()] == ["E90:00", "E90:08"]
        bench.inject("qontrol", "error", code=2, channel=3, now=True)
        assert line.hear() == "E02:03"


def test_a_serial_path_can_be_opened_as_soon_as_the_old_line_is_closed(
    bench: RunningBench, monkeypatch: pytest.MonkeyPatch
) -> None:
    close = os.close
    found: list[bool] = []
    with closing(Serial(bench)) as line:
        path = Path(line.path)

        def close_and_look(file: int) -> None:
            close(file)
            found.append(path.exists())

        monkeypatch.setattr(os, "close", close_and_look)
        bench.inject("qontrol", "disconnect", now=True)
        monkeypatch.undo()
    assert found == [True, True]  # both ends of the old terminal were closed, and the path led to the new one by then


def test_nobody_reads_the_serial_line(bench: RunningBench) -> None:
    with closing(Serial(bench)) as line:
        for _ in range(40):
            os.write(line.file, b"vipall?\n" * 5)
        time.sleep(0.1)
    with closing(Tcp(bench, "qdac2")) as client:
        assert client.ask("*IDN?").startswith("QDevil")  # the bench goes on
    with closing(Serial(bench)) as line:
        select.select([line.file], [], [], 1.0)
        while select.select([line.file], [], [], 0.1)[0]:
            os.read(line.file, 65536)
        assert line.ask("id?") == "Q8iv-0040"


def test_the_control_port(bench: RunningBench) -> None:
    host, port = bench.addresses.control.split(":")
    with socket.create_connection((host, int(port)), 5.0) as control, control.makefile("rw", encoding="utf-8") as file:

        def do(**request: object) -> dict[str, object]:
            file.write(json.dumps(request) + "\n")
            file.flush()
            return json.loads(file.readline())

        assert do(do="inject", instrument="scpi-laser", fault={"kind": "error", "code": -310, "now": True}) == {"ok": True}
        with closing(Tcp(bench, "scpi-laser")) as laser:
            assert laser.ask("SYST:ERR?") == '-310,"System error"'
        state = do(do="state")
        assert state["ok"] is True
        assert isinstance(state["measurements"], int)
        assert do(do="log", since=state["measurements"]) == {"ok": True, "log": []}
        with closing(Tcp(bench, "scpi-readout")) as readout:
            readout.ask("MEAS:VOLT? (@1:4)")
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


def test_the_station_file_says_what_is_there(bench: RunningBench) -> None:
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


def test_a_fast_enough_conversation(bench: RunningBench) -> None:
    """No hidden waiting: a few hundred round trips a second at the very least, on whatever machine."""
    with closing(Tcp(bench, "qdac2")) as client:
        client.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        start_s = time.monotonic()
        for k in range(200):
            client.ask(f"sour1:volt {k % 3};volt?")
        assert time.monotonic() - start_s < 2.0
