"""LabJack T7 over Modbus TCP: frames as bytes, and a misbehaving server on a real socket."""

from __future__ import annotations

import socket
import struct
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import numpy as np
import pytest

from photonloop.drivers.instrument import Readout
from photonloop.drivers.readouts.labjack_t7 import LabJackSettings, LabJackT7, open_labjack
from photonloop.drivers.transports.connection_settings import ConnectionSettings, open_modbus
from photonloop.drivers.transports.modbus import ModbusTransport
from photonloop.drivers.transports.recording import Event, replay_modbus
from photonloop.protocols.errors import DeviceError


def request(number: int, function: int, register: int, count: int, data: bytes = b"") -> bytes:
    body = struct.pack(">BBHH", 1, function, register, count) + (bytes([len(data)]) + data if data else b"")
    return struct.pack(">HHH", number, 0, len(body)) + body


def answer(number: int, function: int, data: bytes) -> bytes:
    return struct.pack(">HHH", number, 0, 2 + len(data)) + bytes([1, function]) + data


def floats(*values: float) -> bytes:
    return struct.pack(f">{len(values)}f", *values)


def asked(number: int, register: int, data: bytes) -> list[Event]:
    return [
        Event("sent", request(number, 3, register, len(data) // 2)),
        Event("received", answer(number, 3, bytes([len(data)]) + data)),
    ]


def wrote(number: int, register: int, data: bytes) -> list[Event]:
    count = len(data) // 2
    return [
        Event("sent", request(number, 16, register, count, data)),
        Event("received", answer(number, 16, struct.pack(">HH", register, count))),
    ]


def set_up(first: int) -> list[Event]:
    return [
        *wrote(first, 40000, floats(*[10.0] * 14)),
        *wrote(first + 1, 41500, bytes(28)),
        *wrote(first + 2, 42000, floats(*[0.0] * 14)),
    ]


OPENING = [*asked(1, 60000, floats(7.0)), *set_up(2)]


@contextmanager
def labjack(events: list[Event]) -> Iterator[LabJackT7]:
    transport, stream = replay_modbus([*OPENING, *events])
    yield open_labjack(transport, LabJackSettings())
    stream.check_finished()


def test_all_channels_in_one_request():
    with labjack(asked(5, 0, floats(*[0.125 * n for n in range(14)]))) as readout:
        assert isinstance(readout, Readout)
        np.testing.assert_allclose(readout.read(range(14)), [0.125 * n for n in range(14)])


def test_channels_in_any_order_from_the_block_between():
    with labjack(asked(5, 6, floats(3.0, 4.0, 5.0))) as readout:
        assert readout.read([5, 3]).tolist() == [5.0, 3.0]


def test_identity():
    with labjack([*asked(5, 60028, struct.pack(">I", 470010123)), *asked(6, 60004, floats(1.03125))]) as readout:
        assert str(readout.identify()) == "LabJack T7 serial 470010123 firmware 1.0312"


def test_overload_is_infinite():
    with labjack(asked(5, 0, floats(-9999.0, 10.6, -10.6, 10.2))) as readout:
        assert readout.read([0, 1, 2, 3])[:3].tolist() == [np.inf, np.inf, -np.inf]


def test_an_answer_to_an_earlier_request_is_discarded():
    late = answer(5, 3, bytes([4]) + floats(1.0))
    events = [
        Event("sent", request(5, 3, 0, 2)),
        Event("timeout"),
        Event("sent", request(6, 3, 0, 2)),
        Event("received", late + answer(6, 3, bytes([4]) + floats(2.0))),
    ]
    with labjack(events) as readout:
        assert readout.read([0]).tolist() == [2.0]


def test_a_refusal_is_an_error():
    events = [Event("sent", request(5, 3, 0, 2)), Event("received", answer(5, 0x83, bytes([2])))]
    with labjack(events) as readout:
        with pytest.raises(DeviceError, match="refused to read 2 registers from 0: no such register") as caught:
            readout.read([0])
        assert caught.value.code == "device"


@pytest.mark.parametrize(
    "garbage",
    [b"\xff" * 12, answer(5, 4, bytes([4]) + floats(1.0)), answer(5, 3, bytes([2]) + b"\0\0")],
    ids=["noise", "another function", "too short"],
)
def test_an_invalid_answer_leads_to_a_new_connection(garbage: bytes):
    events = [Event("sent", request(5, 3, 0, 2)), Event("received", garbage), *set_up(6), *asked(9, 0, floats(2.0))]
    with labjack(events) as readout:
        assert readout.read([0]).tolist() == [2.0]


def test_an_incomplete_frame_leads_to_a_new_connection():
    whole = answer(5, 3, bytes([4]) + floats(1.0))
    events = [
        Event("sent", request(5, 3, 0, 2)),
        Event("received", whole[:9]),
        Event("timeout"),
        *set_up(6),
        *asked(9, 0, floats(2.0)),
    ]
    with labjack(events) as readout:
        assert readout.read([0]).tolist() == [2.0]


def test_nan_readings_are_an_error():
    with labjack(asked(5, 0, floats(float("nan")))) as readout, pytest.raises(DeviceError, match="NaN or infinite"):
        readout.read([0])


def test_a_restarted_unit_has_lost_its_ranges():
    events = [*asked(5, 40000, floats(*[1.0] * 14)), *set_up(6), *asked(9, 40000, floats(*[10.0] * 14))]
    with labjack(events) as readout:
        with pytest.raises(DeviceError, match="had lost its ranges"):
            readout.check()
        readout.check()


def test_a_different_instrument_at_the_address_is_refused():
    transport, _ = replay_modbus(asked(1, 60000, floats(4.0)))
    with pytest.raises(DeviceError, match="is not a LabJack T7: its product number is 4"):
        open_labjack(transport, LabJackSettings())


@contextmanager
def modbus_peer(delays: dict[int, float], closes_at: int = 0) -> Iterator[str]:
    """Answer request n with the number n, after `delays[n]`; close the connection instead of answer `closes_at`."""
    listener = socket.create_server(("127.0.0.1", 0))
    listener.settimeout(0.05)
    stop = threading.Event()

    def serve() -> None:
        count = 0
        while not stop.is_set():
            try:
                connection, _ = listener.accept()
            except TimeoutError:
                continue
            connection.settimeout(0.05)
            with connection:
                while not stop.is_set():
                    try:
                        frame = connection.recv(12)
                    except TimeoutError:
                        continue
                    count += 1
                    if not frame or count == closes_at:
                        break
                    time.sleep(delays.get(count, 0.0))
                    connection.sendall(answer(struct.unpack(">H", frame[:2])[0], 3, bytes([4]) + floats(float(count))))

    thread = threading.Thread(target=serve, daemon=True)
    thread.start()
    yield f"TCPIP::127.0.0.1::{listener.getsockname()[1]}::SOCKET"
    stop.set()
    thread.join(5)
    listener.close()


def opened(address: str) -> ModbusTransport:
    return open_modbus(ConnectionSettings(address, name="daq", timeout_s=0.15))


@pytest.mark.parametrize("delay_s", [0.2, 0.35, 0.6])
def test_no_stale_reading_is_ever_used(delay_s: float):
    """Readings carry the number of their request: each must be newer than any request sent before the call."""
    with modbus_peer({2: delay_s, 5: delay_s}) as address:
        transport = opened(address)
        readings: list[float] = []
        while len(readings) < 8:
            before = transport._number
            try:
                reading = transport.read_floats(0, 1)[0]
            except DeviceError as error:
                assert error.code == "transport"
                continue
            assert reading > before
            readings.append(reading)
        transport.close()


def test_a_closed_connection_is_reopened():
    with modbus_peer({}, closes_at=2) as address:
        transport = opened(address)
        calls: list[Callable[[], None]] = []
        transport.on_reconnect(lambda: calls.append(lambda: None))
        assert transport.read_floats(0, 1)[0] == 1.0
        assert transport.read_floats(0, 1)[0] == 3.0
        assert len(calls) == 1
        transport.close()
