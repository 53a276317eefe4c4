"""The two sides stay in step whatever the instrument does: every case is a transcript, no time passes."""

from __future__ import annotations

import pytest
from support.replays import WHO, replayed

from photonloop.drivers.transports.recording import Event
from photonloop.drivers.transports.text import Dialect
from photonloop.protocols.errors import DeviceError

DIALECT = Dialect(timeout_s=1.0, is_unsolicited=lambda line: line.startswith("E"))


def test_a_question_and_its_answer():
    with replayed([WHO, ("READ?", "0.31")], DIALECT) as transport:
        assert transport.query_line("READ?") == "0.31"


def test_a_late_answer_is_never_taken_for_the_next():
    lines = [
        WHO,
        ("READ?", None),  # silence: the answer is on its way, late
        (None, "0.31"),  # there it is, before anything else is sent
        WHO,  # in step again
        ("READ?", "0.32"),
    ]
    with replayed(lines, DIALECT) as transport:
        assert transport.query_line("READ?") == "0.32"


def test_an_answer_that_comes_while_getting_into_step_is_thrown_away():
    lines = [WHO, ("READ?", None), ("*IDN?", "0.31\nACME,M1,7,1.0"), ("READ?", "0.32")]
    with replayed(lines, DIALECT) as transport:
        assert transport.query_line("READ?") == "0.32"


def test_an_answer_that_was_never_waited_for_is_thrown_away():
    with replayed([WHO, ("READ?", "0.31"), (None, "0.99"), WHO, ("READ?", "0.32")], DIALECT) as transport:
        assert transport.query_line("READ?") == "0.31"
        assert transport.query_line("READ?") == "0.32"


def test_an_interrupted_question_leaves_no_answer_behind():
    def interrupt(_: list[str]) -> str:
        raise KeyboardInterrupt

    with replayed([WHO, ("READ?", "0.31"), WHO, ("READ?", "0.32")], DIALECT) as transport:
        with pytest.raises(KeyboardInterrupt):
            transport.query("READ?", interrupt)
        assert transport.query_line("READ?") == "0.32"


def test_what_is_sent_unheard_is_sent_twice_and_followed_by_getting_into_step():
    lines = [WHO, ("V1 0", ""), ("V2 0", ""), ("V1 0", ""), ("V2 0", "OK\nOK"), WHO, ("READ?", "0.32")]
    with replayed(lines, DIALECT) as transport:
        transport.send_without_reply(["V1 0", "V2 0"])
        assert transport.query_line("READ?") == "0.32"


def test_an_instrument_that_was_found_again_to_be_sent_something_unheard_is_set_up_before_the_next_word():
    lines = [WHO, Event("broken", b"reset by peer"), ("V1 0", ""), ("V1 0", ""), WHO, ("LIMIT 5", ""), ("READ?", "0.32")]
    with replayed(lines, DIALECT) as transport:
        transport.on_reconnect(lambda: transport.write("LIMIT 5"))
        transport.send_without_reply(["V1 0"])
        assert transport.query_line("READ?") == "0.32"


def test_what_cannot_even_be_sent_unheard_is_told():
    lines = [WHO, Event("broken", b"reset by peer"), Event("broken", b"connection refused")]
    with replayed(lines, DIALECT) as transport, pytest.raises(DeviceError, match="connection refused") as caught:
        transport.send_without_reply(["V1 0"])
    assert (caught.value.code, caught.value.outcome) == ("transport", "not_applied")


def test_silence_is_told_after_the_repeats():
    with replayed([WHO, ("READ?", None), WHO, ("READ?", None)], DIALECT) as transport, pytest.raises(DeviceError) as caught:
        transport.query_line("READ?")
    error = caught.value
    assert (error.code, error.retryable, error.outcome) == ("transport", True, "not_applied")
    assert error.detail == "replay did not answer 'READ?' within 1 s"


def test_a_truncated_answer_is_told_as_it_came():
    with replayed([WHO, ("READ?", b"0.3"), ("*IDN?", "1\nACME,M1,7,1.0"), ("READ?", b"0.3")], DIALECT) as transport:
        with pytest.raises(DeviceError, match=r"did not answer 'READ\?' within 1 s, only '0\.3' came"):
            transport.query_line("READ?")


def test_garbage_is_repeated_and_then_told():
    def number(lines: list[str]) -> float:
        return float(lines[0])

    garbage = b"\xff\xfe#!\n"
    with replayed([WHO, ("READ?", garbage), WHO, ("READ?", "0.32")], DIALECT) as transport:
        assert transport.query("READ?", number) == 0.32
    with replayed([WHO, ("READ?", "hello"), WHO, ("READ?", "hello")], DIALECT) as transport:
        with pytest.raises(DeviceError, match="answered 'hello' to 'READ[?]', which makes no sense"):
            transport.query("READ?", number)


def test_a_harmful_repeat_is_not_sent():
    with replayed([WHO, ("TRIG;ERR?", None)], DIALECT) as transport, pytest.raises(DeviceError) as caught:
        transport.query("TRIG;ERR?", lambda lines: lines[0], mutates=True, retries=0)
    assert caught.value.outcome == "unknown"


def test_what_comes_unasked_is_kept_and_not_taken_for_an_answer():
    with replayed([WHO, (None, "E1"), ("READ?", "E2\n0.31")], DIALECT) as transport:
        assert transport.query_line("READ?") == "0.31"
        assert transport.pop_unsolicited() == ["E1", "E2"]
        assert transport.pop_unsolicited() == []


def test_a_complaint_in_place_of_an_answer_is_not_repeated():
    with replayed([WHO, ("V 99", "E7")], DIALECT) as transport:
        with pytest.raises(DeviceError):
            transport.query("V 99", lambda lines: lines[0], mutates=True)
        assert transport.pop_unsolicited() == ["E7"]


def test_a_peer_that_has_gone_is_found_before_a_byte_is_sent():
    lines = [WHO, Event("broken", b"it has closed the connection"), WHO, ("READ?", "0.32")]
    with replayed(lines, DIALECT) as transport:
        assert transport.query_line("READ?") == "0.32"


def test_a_command_is_not_sent_into_an_instrument_that_was_lost_and_found():
    lines = [WHO, Event("broken", b"reset by peer"), WHO, ("LIMITS", ""), ("V 1;ERR?", "0")]
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
    lines = [WHO, Event("broken", b"reset by peer"), Event("broken", b"nobody answers there")]
    with replayed(lines, DIALECT) as transport:
        with pytest.raises(DeviceError, match="replay is gone: nobody answers there, before 'READ[?]'"):
            transport.query_line("READ?")


def test_another_instrument_at_the_same_address_is_refused():
    lines = [WHO, Event("broken", b"reset by peer"), ("*IDN?", "ACME,M1,8,1.0")]
    with replayed(lines, DIALECT) as transport, pytest.raises(DeviceError, match="another instrument now") as caught:
        transport.query_line("READ?")
    assert caught.value.code == "device"
    assert not caught.value.retryable


def test_a_known_answer_in_doubt_reopens_a_socket():
    """After two silences in a row, a late *IDN? answer could be either; a new connection has none."""
    lines = [WHO, ("READ?", None), ("*IDN?", None), WHO, ("READ?", "0.32")]
    with replayed(lines, DIALECT) as transport:
        with pytest.raises(DeviceError, match="asked to get back into step"):
            transport.query_line("READ?")
        assert transport.query_line("READ?") == "0.32"


def test_a_known_answer_in_doubt_is_waited_for_on_a_serial_line():
    """The first answer is thrown away as late; of two answers to the second question, none is left for the next."""
    lines = [WHO, ("READ?", None), ("*IDN?", None), (None, "ACME,M1,7,1.0"), Event("silence"), WHO, ("READ?", "0.32")]
    with replayed(lines, DIALECT, serial=True) as transport:
        with pytest.raises(DeviceError):
            transport.query_line("READ?")
        assert transport.query_line("READ?") == "0.32"
    lines = [
        WHO,
        ("READ?", None),
        ("*IDN?", None),
        Event("silence"),
        ("*IDN?", "ACME,M1,7,1.0\nACME,M1,7,1.0"),
        ("READ?", "0.32"),
    ]
    with replayed(lines, DIALECT, serial=True) as transport:
        with pytest.raises(DeviceError):
            transport.query_line("READ?")
        assert transport.query_line("READ?") == "0.32"


def test_nobody_there_is_told_with_what_to_look_at():
    with pytest.raises(DeviceError, match="did not answer '[*]IDN[?]', 3 times within 1 s each: is it the right address"):
        with replayed([("*IDN?", None)] * 3, DIALECT):
            pass


def test_the_greeting_survives_what_was_left_on_the_line():
    with replayed([("*IDN?", "0.31\nACME,M1,7,1.0"), ("READ?", "0.32")], DIALECT) as transport:
        assert transport.query_line("READ?") == "0.32"


def test_identity_is_asked_anew():
    with replayed([WHO, WHO], DIALECT) as transport:
        assert transport.identity() == "ACME,M1,7,1.0"


def test_an_answer_without_end_is_given_up():
    flood = Event("got", b"x" * (2 << 20))
    with replayed([WHO, ("READ?", ""), flood, WHO, ("READ?", "0.32")], DIALECT) as transport:
        assert transport.query_line("READ?") == "0.32"


def test_everything_until_quiet():
    with replayed([WHO, ("LIST?", "a\nb\nc"), Event("silence")], DIALECT) as transport:
        assert transport.query("LIST?", lambda lines: lines, lines=0) == ["a", "b", "c"]
