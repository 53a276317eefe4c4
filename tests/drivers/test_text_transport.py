"""Text transports stay synchronised whatever the instrument does. Every case is a transcript; no time passes."""

from __future__ import annotations

import pytest
from support.replays import IDENTITY, replayed

from photonloop.drivers.transports.dialect import Dialect
from photonloop.drivers.transports.recording import Event
from photonloop.protocols.errors import DeviceError

DIALECT = Dialect(timeout_s=1.0, is_unsolicited=lambda line: line.startswith("E"))


def test_a_query_and_its_answer():
    with replayed([IDENTITY, ("READ?", "0.31")], DIALECT) as transport:
        assert transport.query_line("READ?") == "0.31"


def test_a_late_answer_is_never_taken_for_the_next_one():
    lines = [
        IDENTITY,
        ("READ?", None),  # timeout: the answer is late
        (None, "0.31"),  # it arrives before anything else is sent
        IDENTITY,  # synchronised again
        ("READ?", "0.32"),
    ]
    with replayed(lines, DIALECT) as transport:
        assert transport.query_line("READ?") == "0.32"


def test_an_answer_that_comes_while_resynchronising_is_discarded():
    lines = [IDENTITY, ("READ?", None), ("*IDN?", "0.31\nACME,M1,7,1.0"), ("READ?", "0.32")]
    with replayed(lines, DIALECT) as transport:
        assert transport.query_line("READ?") == "0.32"


def test_an_unexpected_answer_is_discarded():
    with replayed([IDENTITY, ("READ?", "0.31"), (None, "0.99"), IDENTITY, ("READ?", "0.32")], DIALECT) as transport:
        assert transport.query_line("READ?") == "0.31"
        assert transport.query_line("READ?") == "0.32"


def test_the_answer_to_an_interrupted_query_is_not_used():
    def interrupt(_: list[str]) -> str:
        raise KeyboardInterrupt

    with replayed([IDENTITY, ("READ?", "0.31"), IDENTITY, ("READ?", "0.32")], DIALECT) as transport:
        with pytest.raises(KeyboardInterrupt):
            transport.query("READ?", interrupt)
        assert transport.query_line("READ?") == "0.32"


def test_commands_without_reply_are_sent_twice_and_followed_by_resynchronising():
    lines = [IDENTITY, ("V1 0", ""), ("V2 0", ""), ("V1 0", ""), ("V2 0", "OK\nOK"), IDENTITY, ("READ?", "0.32")]
    with replayed(lines, DIALECT) as transport:
        transport.send_without_reply(["V1 0", "V2 0"])
        assert transport.query_line("READ?") == "0.32"


def test_an_instrument_reconnected_for_commands_without_reply_is_configured_before_the_next_query():
    lines = [IDENTITY, Event("lost", b"reset by peer"), ("V1 0", ""), ("V1 0", ""), IDENTITY, ("LIMIT 5", ""), ("READ?", "0.32")]
    with replayed(lines, DIALECT) as transport:
        transport.on_reconnect(lambda: transport.write("LIMIT 5"))
        transport.send_without_reply(["V1 0"])
        assert transport.query_line("READ?") == "0.32"


def test_commands_without_reply_that_cannot_be_sent_are_an_error():
    lines = [IDENTITY, Event("lost", b"reset by peer"), Event("lost", b"connection refused")]
    with replayed(lines, DIALECT) as transport, pytest.raises(DeviceError, match="connection refused") as caught:
        transport.send_without_reply(["V1 0"])
    assert (caught.value.code, caught.value.outcome) == ("transport", "not_applied")


def test_a_timeout_is_an_error_after_the_retries():
    with (
        replayed([IDENTITY, ("READ?", None), IDENTITY, ("READ?", None)], DIALECT) as transport,
        pytest.raises(DeviceError) as caught,
    ):
        transport.query_line("READ?")
    error = caught.value
    assert (error.code, error.retryable, error.outcome) == ("transport", True, "not_applied")
    assert error.detail == "replay did not answer 'READ?' within 1 s"


def test_a_truncated_answer_is_reported_as_received():
    with replayed([IDENTITY, ("READ?", b"0.3"), ("*IDN?", "1\nACME,M1,7,1.0"), ("READ?", b"0.3")], DIALECT) as transport:
        with pytest.raises(DeviceError, match=r"did not answer 'READ\?' within 1 s, it sent only '0\.3'"):
            transport.query_line("READ?")


def test_an_invalid_answer_is_queried_again_and_then_an_error():
    def number(lines: list[str]) -> float:
        return float(lines[0])

    garbage = b"\xff\xfe#!\n"
    with replayed([IDENTITY, ("READ?", garbage), IDENTITY, ("READ?", "0.32")], DIALECT) as transport:
        assert transport.query("READ?", number) == 0.32
    with replayed([IDENTITY, ("READ?", "hello"), IDENTITY, ("READ?", "hello")], DIALECT) as transport:
        with pytest.raises(DeviceError, match="answered 'hello' to 'READ[?]', which is invalid"):
            transport.query("READ?", number)


def test_a_command_without_retries_is_sent_once():
    with replayed([IDENTITY, ("TRIG;ERR?", None)], DIALECT) as transport, pytest.raises(DeviceError) as caught:
        transport.query("TRIG;ERR?", lambda lines: lines[0], mutates=True, retries=0)
    assert caught.value.outcome == "unknown"


def test_unsolicited_lines_are_kept_and_not_taken_for_answers():
    with replayed([IDENTITY, (None, "E1"), ("READ?", "E2\n0.31")], DIALECT) as transport:
        assert transport.query_line("READ?") == "0.31"
        assert transport.pop_unsolicited() == ["E1", "E2"]
        assert transport.pop_unsolicited() == []


def test_a_command_answered_by_an_unsolicited_error_is_not_repeated():
    with replayed([IDENTITY, ("V 99", "E7")], DIALECT) as transport:
        with pytest.raises(DeviceError):
            transport.query("V 99", lambda lines: lines[0], mutates=True)
        assert transport.pop_unsolicited() == ["E7"]


def test_a_closed_connection_is_detected_before_a_byte_is_sent():
    lines = [IDENTITY, Event("lost", b"the instrument closed the connection"), IDENTITY, ("READ?", "0.32")]
    with replayed(lines, DIALECT) as transport:
        assert transport.query_line("READ?") == "0.32"


def test_a_command_is_not_sent_to_an_instrument_that_was_reconnected():
    lines = [IDENTITY, Event("lost", b"reset by peer"), IDENTITY, ("LIMITS", ""), ("V 1;ERR?", "0")]
    configured = []
    with replayed(lines, DIALECT) as transport:

        def configure() -> None:
            configured.append(True)
            transport.write("LIMITS")

        transport.on_reconnect(configure)
        with pytest.raises(DeviceError) as caught:
            transport.query("V 1;ERR?", lambda lines: lines[0], mutates=True)
        assert configured == [True]
        assert (caught.value.code, caught.value.retryable, caught.value.outcome) == ("device", True, "unknown")
        assert transport.query("V 1;ERR?", lambda lines: lines[0], mutates=True) == "0"


def test_a_refused_reconnection_is_one_sentence():
    lines = [IDENTITY, Event("lost", b"reset by peer"), Event("lost", b"connection refused")]
    with replayed(lines, DIALECT) as transport:
        with pytest.raises(DeviceError, match="replay: connection lost before 'READ[?]': connection refused"):
            transport.query_line("READ?")


def test_a_different_instrument_at_the_same_address_is_refused():
    lines = [IDENTITY, Event("lost", b"reset by peer"), ("*IDN?", "ACME,M1,8,1.0")]
    with replayed(lines, DIALECT) as transport, pytest.raises(DeviceError, match="is a different instrument now") as caught:
        transport.query_line("READ?")
    assert caught.value.code == "device"
    assert not caught.value.retryable


def test_a_possibly_late_identity_reopens_a_socket():
    """After two timeouts in a row, a late *IDN? answer could belong to either query; a new connection has none."""
    lines = [IDENTITY, ("READ?", None), ("*IDN?", None), IDENTITY, ("READ?", "0.32")]
    with replayed(lines, DIALECT) as transport:
        with pytest.raises(DeviceError, match="when it was resynchronised"):
            transport.query_line("READ?")
        assert transport.query_line("READ?") == "0.32"


def test_a_possibly_late_identity_is_waited_for_on_a_serial_port():
    """The first answer is discarded as late; both answers to the second query are read."""
    lines = [IDENTITY, ("READ?", None), ("*IDN?", None), (None, "ACME,M1,7,1.0"), Event("timeout"), IDENTITY, ("READ?", "0.32")]
    with replayed(lines, DIALECT, serial=True) as transport:
        with pytest.raises(DeviceError):
            transport.query_line("READ?")
        assert transport.query_line("READ?") == "0.32"
    lines = [
        IDENTITY,
        ("READ?", None),
        ("*IDN?", None),
        Event("timeout"),
        ("*IDN?", "ACME,M1,7,1.0\nACME,M1,7,1.0"),
        ("READ?", "0.32"),
    ]
    with replayed(lines, DIALECT, serial=True) as transport:
        with pytest.raises(DeviceError):
            transport.query_line("READ?")
        assert transport.query_line("READ?") == "0.32"


def test_no_answer_at_opening_is_an_error_with_advice():
    with pytest.raises(DeviceError, match="did not answer '[*]IDN[?]', 3 times within 1 s each: check the address"):
        with replayed([("*IDN?", None)] * 3, DIALECT):
            pass


def test_identification_ignores_earlier_answers():
    with replayed([("*IDN?", "0.31\nACME,M1,7,1.0"), ("READ?", "0.32")], DIALECT) as transport:
        assert transport.query_line("READ?") == "0.32"


def test_identity_is_queried_each_time():
    with replayed([IDENTITY, IDENTITY], DIALECT) as transport:
        assert transport.identity() == "ACME,M1,7,1.0"


def test_an_answer_without_line_end_is_invalid():
    flood = Event("received", b"x" * (2 << 20))
    with replayed([IDENTITY, ("READ?", ""), flood, IDENTITY, ("READ?", "0.32")], DIALECT) as transport:
        assert transport.query_line("READ?") == "0.32"


def test_all_lines_until_none_arrives():
    with replayed([IDENTITY, ("LIST?", "a\nb\nc"), Event("timeout")], DIALECT) as transport:
        assert transport.query("LIST?", lambda lines: lines, lines=0) == ["a", "b", "c"]
