"""QDAC-II, as transcripts."""

from __future__ import annotations

import numpy as np
import pytest
from replays import driven

from drivers.instrument import ChannelLimits, DriveSource, PlaysLists, ReadsAmps, ReadsVolts
from drivers.recording import Event
from drivers.sources.qdac2 import DIALECT, Qdac2Settings, open_qdac2
from protocols.errors import DeviceError

WHO = ("*IDN?", "QDevil, QDAC-II, 7, 13-1.57")
FINE = '0, "No error"'
ERRORS = ("syst:err:all?", FINE)
POINTS = ":sour1:volt?;:sour2:volt?;:sour3:volt?"
HELLO = [
    WHO,
    (":syst:err:all?".removeprefix(":"), FINE),
    (":sour1:rang?;:sour2:rang?;:sour3:rang?", "HIGH;LOW;HIGH"),
    (":sour1:volt:mode fix;:sour2:volt:mode fix;:sour3:volt:mode fix;:sour2:rang high;:syst:err:all?", FINE),
    (POINTS, "0;0;0.5"),
]


def qdac(lines, settings: Qdac2Settings | None = None):
    return driven(open_qdac2, settings or Qdac2Settings(channels=3), DIALECT, [*HELLO, *lines])


def test_only_ranges_that_differ_are_written():
    with qdac([WHO]) as source:
        assert all(isinstance(source, what) for what in (DriveSource, ReadsVolts, ReadsAmps, PlaysLists))
        assert str(source.identify()) == "QDevil QDAC-II serial 7 firmware 13-1.57"
        assert source.limits(0).min_v == -10.0


def test_a_setting_is_one_message_read_back_and_asked_for_errors():
    lines = [(f":sour1:volt 1.5;:sour3:volt -2.25;{POINTS};:syst:err:all?", f"1.5;0;-2.25;{FINE}")]
    with qdac(lines) as source:
        source.set_volts({0: 1.5, 2: -2.25})


def test_a_complaint_is_raised_and_the_truth_kept():
    complaint = '-222, "Data out of range"'
    lines = [
        (f":sour1:volt 1.5;{POINTS};:syst:err:all?", f"0;0;0.5;{complaint}"),
        (f":sour2:volt 1;{POINTS};:syst:err:all?", f"0;1;0.5;{FINE}"),
    ]
    with qdac(lines) as source:
        with pytest.raises(DeviceError, match='complained when voltages were set: -222, "Data out of range"') as caught:
            source.set_volts({0: 1.5})
        assert (caught.value.code, caught.value.outcome) == ("device", "unknown")
        source.set_volts({1: 1.0})


def test_a_restart_is_noticed_at_the_next_setting():
    slew = ":sour1:volt:slew 500;:syst:err:all?"  # behind the ramps of the bench, not in their way
    lines = [
        (slew, FINE),
        (f":sour1:volt 1.5;{POINTS};:syst:err:all?", f"1.5;0;0.5;{FINE}"),
        (f":sour2:volt 1;{POINTS};:syst:err:all?", f"0;1;0;{FINE}"),  # channels 1 and 3 have lost theirs
        (slew, FINE),
        (POINTS, "0;1;0"),
        (f":sour1:volt 1.5;:sour2:volt 1;{POINTS};:syst:err:all?", f"1.5;1;0;{FINE}"),
    ]
    with qdac(lines) as source:
        source.arm({0: ChannelLimits(-5.0, 5.0, slew_v_per_s=100.0)})
        source.set_volts({0: 1.5})
        with pytest.raises(DeviceError, match="holds channel 0 at 0 V where it was set to 1.5 V") as caught:
            source.set_volts({1: 1.0})
        assert (caught.value.retryable, caught.value.outcome, caught.value.channel) == (True, "unknown", 0)
        source.set_volts({0: 1.5, 1: 1.0})


def test_check_takes_errors_and_compares():
    other = '-113, "Undefined header"'
    with qdac([ERRORS, (POINTS, "0;0;0.5"), ("syst:err:all?", other), ERRORS]) as source:
        source.check()
        with pytest.raises(DeviceError, match='complains: -113, "Undefined header"'):
            source.check()


def test_limits():
    with qdac([]) as source:
        with pytest.raises(DeviceError, match="slew_v_per_s cannot be 3e\\+07 V/s"):
            source.arm({0: ChannelLimits(0.0, 5.0, slew_v_per_s=3e7)})
        with pytest.raises(DeviceError, match="its limits are -10 V and 10 V"):
            source.set_volts({0: 10.5})
        with pytest.raises(DeviceError, match="has channels 0 to 2, not 3"):
            source.read_volts([3])


def test_the_slew_in_the_instrument_is_a_backstop():
    """As slow as the ramps of the bench it would drag behind each of their steps; the slowest that it can is slow enough."""
    lines = [(f":sour1:volt:slew {v_per_s};:syst:err:all?", FINE) for v_per_s in ("1000", "0.01", "20000000")]
    with qdac(lines) as source:
        for slew_v_per_s, own_v_per_s in ((200.0, 1000.0), (0.001, 0.01), (2e7, 2e7)):
            source.arm({0: ChannelLimits(0.0, 5.0, slew_v_per_s=slew_v_per_s)})
            assert source.limits(0).slew_v_per_s == own_v_per_s


def test_the_low_range_is_a_limit():
    hello = [
        *HELLO[:2],
        (":sour1:rang?", "LOW"),
        (":sour1:volt:mode fix;:syst:err:all?", FINE),
        (":sour1:volt?", "0"),
    ]
    with driven(open_qdac2, Qdac2Settings(channels=1, range="low"), DIALECT, hello) as source:
        with pytest.raises(DeviceError, match="its limits are -2 V and 2 V"):
            source.set_volts({0: 2.5})


def test_currents():
    with qdac([("read? (@1,3)", "1.2e-3,-5e-6")]) as source:
        np.testing.assert_allclose(source.read_amps([0, 2]), [1.2e-3, -5e-6])


def test_lists_start_together_and_are_stopped_by_a_setting():
    def load(number: int, volts: str) -> tuple[str, str]:
        source = f":sour{number}"
        return (
            f"{source}:dc:trig:sour hold;{source}:volt:mode list;{source}:list:volt {volts};{source}:list:tmod auto;"
            f"{source}:list:dwel 0.001;{source}:list:coun 1;:syst:err:all?",
            FINE,
        )

    lines = [
        load(1, "0,0.5,1"),
        (":sour1:dc:trig:sour int1;:sour1:dc:init;:syst:err:all?", FINE),
        load(2, "1,0.5,0"),
        (":sour2:dc:trig:sour int1;:sour2:dc:init;:syst:err:all?", FINE),
        (":tint 1;:syst:err:all?", FINE),
        (":sour1:dc:abor;:sour1:volt:mode fix;:sour1:volt 2;:sour1:volt?;:sour3:volt?;:syst:err:all?", f"2;0.5;{FINE}"),
    ]
    with qdac(lines) as source:
        source.play([0, 1], np.array([[0.0, 1.0], [0.5, 0.5], [1.0, 0.0]]), 1e-3)
        source.set_volts({0: 2.0})


def test_a_trigger_is_never_sent_twice():
    lines = [
        (
            ":sour1:dc:trig:sour hold;:sour1:volt:mode list;:sour1:list:volt 1;:sour1:list:tmod auto;:sour1:list:dwel 1;"
            ":sour1:list:coun 1;:syst:err:all?",
            FINE,
        ),
        (":sour1:dc:trig:sour int1;:sour1:dc:init;:syst:err:all?", FINE),
        (":tint 1;:syst:err:all?", None),
    ]
    with qdac(lines) as source:
        with pytest.raises(DeviceError) as caught:
            source.play([0], np.array([[1.0]]), 1.0)
        assert (caught.value.code, caught.value.outcome) == ("transport", "unknown")


def test_lists_are_checked_whole_before_a_byte_is_sent():
    with qdac([]) as source:
        for volts, dwell_s in (
            (np.array([[0.0], [11.0]]), 1.0),
            (np.array([[np.nan]]), 1.0),
            (np.zeros((2, 2)), 1.0),
            (np.zeros((1, 1)), 0.0),
        ):
            with pytest.raises(DeviceError) as caught:
                source.play([0], volts, dwell_s)
            assert caught.value.outcome == "not_applied"


def test_safe_is_one_message_then_another_then_one_by_one():
    zero = ":sour{n}:dc:abor;:sour{n}:volt:mode fix"
    stop = ";".join(zero.format(n=n) for n in (1, 2, 3))
    all_zero = (f"{stop};:sour1:volt 0;:sour2:volt 0;:sour3:volt 0;{POINTS};:syst:err:all?", f"0;0;0;{FINE}")
    with qdac([all_zero]) as source:
        source.safe()
    lost = [Event("broken", b"reset by peer"), WHO, (POINTS, "0;0;0")]
    with qdac([*lost, all_zero]) as source:
        source.safe()
