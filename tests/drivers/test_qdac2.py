"""The QDAC-II driver against transcripts."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import pytest
from support.replays import driven

from photonloop.drivers.instrument import (
    ChannelLimits,
    DriveSource,
    ReadsAmps,
    ReadsVolts,
    StepsThroughList,
    UnconfirmedError,
)
from photonloop.drivers.sources.qdac2 import DIALECT, Qdac2Settings, open_qdac2
from photonloop.drivers.sources.qdac2_lists import OUTPUT_POLLS, Qdac2WithLists
from photonloop.drivers.transports.recording import Event
from photonloop.protocols.errors import DeviceError

IDENTITY = ("*IDN?", "QDevil, QDAC-II, 7, 13-1.57")
NO_ERROR = '0, "No error"'
ERRORS = ("syst:err:all?", NO_ERROR)
POINTS = ":sour:volt? (@1:3)"


def stop(channels: str) -> str:
    return f":sour:dc:init:cont off,{channels};:sour:dc:abor {channels};:sour:volt:mode fix,{channels}"


OPENING = [
    IDENTITY,
    (":syst:err:all?".removeprefix(":"), NO_ERROR),
    (":sour1:rang?;:sour2:rang?;:sour3:rang?", "HIGH;LOW;HIGH"),
    (f"{stop('(@1:3)')};:sour2:rang high;:syst:err:all?", NO_ERROR),
    (POINTS.removeprefix(":"), "0,0,0.5"),
]


def qdac(lines, settings: Qdac2Settings | None = None):
    return driven(open_qdac2, settings or Qdac2Settings(channels=3), DIALECT, [*OPENING, *lines])


def test_only_ranges_that_differ_are_written():
    with qdac([IDENTITY]) as source:
        assert all(isinstance(source, what) for what in (DriveSource, ReadsVolts, ReadsAmps))
        assert str(source.identify()) == "QDevil QDAC-II serial 7 firmware 13-1.57"
        assert source.limits(0).min_v == -10.0


def test_a_setting_its_readback_and_the_error_query_are_one_message():
    lines = [(f":sour1:volt 1.5;:sour3:volt -2.25;{POINTS};:syst:err:all?", f"1.5,0,-2.25;{NO_ERROR}")]
    with qdac(lines) as source:
        source.set_volts({0: 1.5, 2: -2.25})


def test_an_error_is_raised_and_the_actual_setpoints_are_kept():
    complaint = '-222, "Data out of range"'
    lines = [
        (f":sour1:volt 1.5;{POINTS};:syst:err:all?", f"0,0,0.5;{complaint}"),
        (f":sour2:volt 1;{POINTS};:syst:err:all?", f"0,1,0.5;{NO_ERROR}"),
    ]
    with qdac(lines) as source:
        with pytest.raises(DeviceError, match='reported an error when voltages were set: -222, "Data out of range"') as caught:
            source.set_volts({0: 1.5})
        assert (caught.value.code, caught.value.outcome) == ("device", "unknown")
        source.set_volts({1: 1.0})


def test_a_restart_is_detected_by_the_next_setting():
    slew = ":sour1:volt:slew 500;:syst:err:all?"  # faster than the ramps of the bench
    lines = [
        (slew, NO_ERROR),
        (f":sour1:volt 1.5;{POINTS};:syst:err:all?", f"1.5,0,0.5;{NO_ERROR}"),
        (f":sour2:volt 1;{POINTS};:syst:err:all?", f"0,1,0;{NO_ERROR}"),  # channels 1 and 3 have lost their setpoints
        (slew, NO_ERROR),
        (POINTS.removeprefix(":"), "0,1,0"),
        (f":sour1:volt 1.5;:sour2:volt 1;{POINTS};:syst:err:all?", f"1.5,1,0;{NO_ERROR}"),
    ]
    with qdac(lines) as source:
        source.set_limits({0: ChannelLimits(-5.0, 5.0, slew_v_per_s=100.0)})
        source.set_volts({0: 1.5})
        with pytest.raises(DeviceError, match="holds channel 0 at 0 V although it was set to 1.5 V") as caught:
            source.set_volts({1: 1.0})
        assert (caught.value.retryable, caught.value.outcome, caught.value.channel) == (True, "unknown", 0)
        source.set_volts({0: 1.5, 1: 1.0})


def test_check_raises_errors_and_compares_setpoints():
    other = '-113, "Undefined header"'
    with qdac([ERRORS, (POINTS.removeprefix(":"), "0,0,0.5"), ("syst:err:all?", other), ERRORS]) as source:
        source.check()
        with pytest.raises(DeviceError, match='reports an error: -113, "Undefined header"'):
            source.check()


def test_limits():
    with qdac([]) as source:
        with pytest.raises(DeviceError, match="slew_v_per_s cannot be 3e\\+07 V/s"):
            source.set_limits({0: ChannelLimits(0.0, 5.0, slew_v_per_s=3e7)})
        with pytest.raises(DeviceError, match="its limits are -10 V and 10 V"):
            source.set_volts({0: 10.5})
        with pytest.raises(DeviceError, match="has no channel 3; its channels are 0 to 2"):
            source.read_volts([3])


def test_the_slew_rate_in_the_instrument_is_above_that_of_the_ramps():
    """Five times that of the ramps, within the range of the instrument."""
    lines = [(f":sour1:volt:slew {v_per_s};:syst:err:all?", NO_ERROR) for v_per_s in ("1000", "0.01", "20000000")]
    with qdac(lines) as source:
        for slew_v_per_s, own_v_per_s in ((200.0, 1000.0), (0.001, 0.01), (2e7, 2e7)):
            source.set_limits({0: ChannelLimits(0.0, 5.0, slew_v_per_s=slew_v_per_s)})
            assert source.limits(0).slew_v_per_s == own_v_per_s


def test_the_low_range_is_a_limit():
    opening = [
        *OPENING[:2],
        (":sour1:rang?", "LOW"),
        (f"{stop('(@1)')};:syst:err:all?", NO_ERROR),
        ("sour:volt? (@1)", "0"),
    ]
    with driven(open_qdac2, Qdac2Settings(channels=1, range="low"), DIALECT, opening) as source:
        with pytest.raises(DeviceError, match="its limits are -2 V and 2 V"):
            source.set_volts({0: 2.5})


def test_currents():
    with qdac([("read? (@1,3)", "1.2e-3,-5e-6")]) as source:
        np.testing.assert_allclose(source.read_amps([0, 2]), [1.2e-3, -5e-6])


AT = "(@1:2)"
BOTH = [0, 1]
LOADED = np.array([[0.1, 0.2], [0.101, 0.199], [0.102, 0.198]])
LAST = f":sour:volt:last? {AT};:syst:err:all?"
STEP = f":tint 2;{LAST}"


def load(*columns: str, channels: str = AT) -> str:
    """Return the message that loads a list with one column per channel, from the first channel on."""
    lists = ";".join(f":sour{n}:list:volt {column}" for n, column in enumerate(columns, 1))
    return (
        f":sour:dc:trig:sour hold,{channels};:sour:volt:mode list,{channels};{lists};:sour:list:tmod step,{channels};"
        f":sour:list:dwel 1e-05,{channels};:sour:list:coun 1,{channels};:sour:dc:trig:sour int2,{channels};"
        f":sour:dc:init:cont on,{channels};:sour:volt:last? {channels};:syst:err:all?"
    )


LOAD = (load("0.1,0.101,0.102", "0.2,0.199,0.198"), f"0,0;{NO_ERROR}")


def written(first: str, second: str, answer: str, *, ends: bool = False) -> tuple[str, str]:
    """Return the exchange that sets both channels; with `ends`, it ends their list first."""
    ended = f"{stop(AT)};" if ends else ""
    return f"{ended}:sour1:volt {first};:sour2:volt {second};{POINTS};:syst:err:all?", f"{answer},0.5;{NO_ERROR}"


@contextmanager
def stepping(lines) -> Iterator[Qdac2WithLists]:
    with qdac(lines, Qdac2Settings(channels=3, lists=True)) as source:
        assert isinstance(source, Qdac2WithLists)
        yield source


def test_a_source_steps_through_lists_only_if_its_settings_ask_for_it():
    with qdac([]) as source:
        assert not isinstance(source, StepsThroughList)
    with stepping([]) as source:
        assert isinstance(source, StepsThroughList)


def test_a_list_is_one_message_and_a_step_is_a_short_message_with_readback():
    lines = [
        LOAD,
        (STEP, f"0.1,0.2;{NO_ERROR}"),
        (STEP, f"0.101,0.199;{NO_ERROR}"),
        (":sour3:volt 1;:sour:volt? (@3);:syst:err:all?", f"1;{NO_ERROR}"),  # setting a channel outside the list does not end it
        ("sour:volt:last? (@1:3)", "0.101,0.199,1"),
        (f"{stop(AT)};:sour1:volt 0;:sour2:volt 0.199;{POINTS};:syst:err:all?", f"0,0.199,1;{NO_ERROR}"),
    ]
    with stepping(lines) as source:
        assert source.load_steps(BOTH, LOADED) == 3
        source.go_to_step(0)
        source.go_to_step(1)
        source.set_volts({2: 1.0})
        assert source.read_volts([0, 1, 2]).tolist() == [0.101, 0.199, 1.0]
        source.set_volts({0: 0.0})  # ends the list; the other channel keeps its voltage


def test_a_step_without_an_answer_is_set_as_voltages_and_so_are_the_following_ones():
    lines = [
        LOAD,
        (STEP, None),
        IDENTITY,
        written("0.1", "0.2", "0.1,0.2", ends=True),
        written("0.101", "0.199", "0.101,0.199"),
        (load("0.102", "0.198"), f"0.101,0.199;{NO_ERROR}"),  # the next list starts from these voltages
        (STEP, f"0.102,0.198;{NO_ERROR}"),
    ]
    with stepping(lines) as source:
        source.load_steps(BOTH, LOADED)
        source.go_to_step(0)
        source.go_to_step(1)
        assert source.load_steps(BOTH, LOADED[2:]) == 1
        source.go_to_step(0)


def test_a_step_that_is_not_the_next_one_is_set_as_voltages():
    with stepping([LOAD, (STEP, f"0.1,0.2;{NO_ERROR}"), written("0.102", "0.198", "0.102,0.198", ends=True)]) as source:
        source.load_steps(BOTH, LOADED)
        source.go_to_step(0)
        source.go_to_step(2)


def test_lists_are_not_used_again_after_a_step_that_was_not_taken(caplog: pytest.LogCaptureFixture):
    caplog.set_level(logging.WARNING, "photonloop.drivers.sources.qdac2_lists")
    asked = [("sour:volt:last? (@1:2)", "0.1,0.2")] * (OUTPUT_POLLS + 1)
    lines = [
        LOAD,
        (STEP, f"0.1,0.2;{NO_ERROR}"),
        (STEP, f"0.1,0.2;{NO_ERROR}"),
        *asked,
        ("sour:volt? (@1:2)", "0,0"),
        written("0.101", "0.199", "0.101,0.199", ends=True),
    ]
    with stepping(lines) as source:
        source.load_steps(BOTH, LOADED)
        source.go_to_step(0)
        source.go_to_step(1)
        assert "left channel 0 at 0.1 V instead of 0.101 V" in caplog.text
        assert source.load_steps(BOTH, LOADED) == 0


def test_a_slow_step_is_waited_for():
    late = [("sour:volt:last? (@1:2)", "0.05,0.2"), ("sour:volt:last? (@1:2)", "0.1,0.2")]
    with stepping([LOAD, (STEP, f"0.01,0.1;{NO_ERROR}"), *late, (STEP, f"0.101,0.199;{NO_ERROR}")]) as source:
        source.load_steps(BOTH, LOADED)
        source.go_to_step(0)
        source.go_to_step(1)


def test_a_list_is_loaded_only_after_slow_outputs_have_arrived():
    arrived = [("sour:volt:last? (@1:2)", "-0.5,0"), ("sour:volt:last? (@1:2)", "0,0")]
    away = [("sour:volt:last? (@1:2)", "-0.5,0")] * (OUTPUT_POLLS + 1)
    with stepping([(":sour1:volt:slew 500;:syst:err:all?", NO_ERROR), *arrived, LOAD, *away]) as source:
        source.set_limits({0: ChannelLimits(-10.0, 10.0, slew_v_per_s=100.0)})
        assert source.load_steps(BOTH, LOADED) == 3
        assert source.load_steps(BOTH, LOADED) == 0


def test_outputs_that_move_while_a_list_is_loaded_are_set_again(caplog: pytest.LogCaptureFixture):
    caplog.set_level(logging.WARNING, "photonloop.drivers.sources.qdac2_lists")
    asked = [("sour:volt:last? (@1:2)", "0.1,0.2")] * (OUTPUT_POLLS + 1)
    lines = [(LOAD[0], f"0.1,0.2;{NO_ERROR}"), *asked, ("sour:volt? (@1:2)", "0,0"), written("0", "0", "0,0", ends=True)]
    with stepping(lines) as source:
        assert source.load_steps(BOTH, LOADED) == 0
    assert "lists are not used any more" in caplog.text


def test_a_restart_is_detected_by_the_next_step():
    lines = [
        (f":sour1:volt 1;{POINTS};:syst:err:all?", f"1,0,0.5;{NO_ERROR}"),
        (LOAD[0], f"1,0;{NO_ERROR}"),
        (STEP, f"0,0;{NO_ERROR}"),
        *[("sour:volt:last? (@1:2)", "0,0")] * (OUTPUT_POLLS + 1),
        ("sour:volt? (@1:2)", "0,0"),
        (POINTS.removeprefix(":"), "0,0,0"),
    ]
    with stepping(lines) as source:
        source.set_volts({0: 1.0})
        source.load_steps(BOTH, LOADED)
        with pytest.raises(DeviceError, match="holds channel 0 at 0 V although it was set to 1 V") as caught:
            source.go_to_step(0)
        assert (caught.value.code, caught.value.outcome) == ("device", "unknown")


def test_an_error_about_a_list_is_raised():
    with stepping([(LOAD[0], '0,0;-113, "Undefined header"')]) as source:
        with pytest.raises(DeviceError, match="reported an error about a list: -113") as caught:
            source.load_steps(BOTH, LOADED)
        assert (caught.value.code, caught.value.outcome) == ("device", "unknown")


def test_check_detects_a_listed_channel_set_by_someone_else():
    checked = [ERRORS, ("sour:volt? (@3)", "0.5"), ("sour:volt:last? (@1:2)", "0.1,3"), (POINTS.removeprefix(":"), "0,0,0.5")]
    with stepping([LOAD, (STEP, f"0.1,0.2;{NO_ERROR}"), *checked]) as source:
        source.load_steps(BOTH, LOADED)
        source.go_to_step(0)
        with pytest.raises(DeviceError, match="holds channel 1 at 3 V although it was set to 0.2 V"):
            source.check()


def test_a_long_list_is_checked_whole_and_loaded_in_part():
    rows = np.linspace(0.0, 1.0, 300)[:, None]
    texts = ",".join(f"{value + 0.0:.9g}" for value in rows[:250].ravel())
    with stepping([(load(texts, channels="(@1)"), f"0;{NO_ERROR}")]) as source:
        for volts in (np.array([[0.0], [11.0]]), np.array([[np.nan]]), np.zeros((2, 2)), np.zeros((0, 1))):
            with pytest.raises(DeviceError) as caught:
                source.load_steps([0], volts)
            assert caught.value.outcome == "not_applied"
        with pytest.raises(DeviceError, match="has no list with a step 0"):
            source.go_to_step(0)
        assert source.load_steps([0], rows) == 250


ALL_ZERO = (f"{stop('(@1:3)')};:sour1:volt 0;:sour2:volt 0;:sour3:volt 0;{POINTS};:syst:err:all?", f"0,0,0;{NO_ERROR}")


def test_safe_is_one_message_repeated_after_a_reconnection():
    with qdac([ALL_ZERO]) as source:
        source.safe()
    lost = [Event("lost", b"reset by peer"), IDENTITY, (POINTS.removeprefix(":"), "0,0,0")]
    with qdac([*lost, ALL_ZERO]) as source:
        source.safe()


def test_safe_ends_a_list():
    with stepping([LOAD, (STEP, f"0.1,0.2;{NO_ERROR}"), ALL_ZERO]) as source:
        source.load_steps(BOTH, LOADED)
        source.go_to_step(0)
        source.safe()


def test_safe_is_sent_without_reply_per_channel_if_nothing_is_answered():
    plain = [(f":sour{n}:dc:init:cont off;:sour{n}:dc:abor;:sour{n}:volt:mode fix;:sour{n}:volt 0", "") for n in (1, 2, 3)] * 2
    unanswered = [(ALL_ZERO[0], None), IDENTITY, (ALL_ZERO[0], None)]
    lines = [*unanswered, *plain, ("*IDN?", None), ("*IDN?", None), *[("*IDN?", None)] * 2, *plain]
    with qdac(lines) as source, pytest.raises(UnconfirmedError, match="0 V was sent to it without confirmation"):
        source.safe()
