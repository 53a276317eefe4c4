"""The Qontrol driver against transcripts."""

from __future__ import annotations

import numpy as np
import pytest
from support.replays import driven

from photonloop.drivers.instrument import ChannelLimits, DriveSource, ReadsAmps, ReadsVolts
from photonloop.drivers.sources.qontrol import DIALECT, QontrolSettings, open_qontrol
from photonloop.drivers.transports.recording import Event
from photonloop.protocols.errors import DeviceError

OPENING = [
    ("id?", "Q8iv-0040"),
    ("nup=0", "OK"),
    ("nupall?", "Q8iv-0040: 0\nQ8iv-0041: 1"),
    Event("timeout"),
    ("vfull?", "+12.000000 V"),
    ("ifull?", "+24.000000 mA"),
]
IDENTITY = ("id?", "Q8iv-0040")
ZEROS = ",".join(["0.00000"] * 8)


def chain(lines, settings: QontrolSettings | None = None):
    return driven(open_qontrol, settings or QontrolSettings(), DIALECT, [*OPENING, *lines], serial=True)


def vector(first: int, **volts: float) -> str:
    values = [volts.get(f"c{channel}", 0.0) for channel in range(first, first + 8)]
    return f"VVEC{first}=" + ",".join(f"{value:.5f}" for value in values)


def test_the_chain_is_counted_and_identified():
    with chain([IDENTITY, ("firmware?", "v2.12")]) as source:
        assert isinstance(source, DriveSource)
        assert isinstance(source, ReadsVolts)
        assert isinstance(source, ReadsAmps)
        assert source.channels == 16
        assert source.limits(15) == ChannelLimits(0.0, 12.0, max_a=0.024, bits=16, range_v=12.0)
        assert str(source.identify()) == "Qontrol Q8iv and 1 more serial 0040 firmware v2.12"


def test_modules_of_different_kinds_have_their_own_full_scale():
    opening = [
        *OPENING[:2],
        ("nupall?", "Q8b-0001:0\nQ8iv-0041:1\nOK"),
        Event("timeout"),
        ("vfull?", "12.0 V"),
        ("ifull?", "83.333 mA"),
    ]
    with driven(open_qontrol, QontrolSettings(), DIALECT, opening, serial=True) as source:
        assert source.limits(0).max_a == pytest.approx(0.083333, rel=1e-5)
        assert source.limits(8).max_a == 0.024


def test_missing_modules_are_refused():
    with pytest.raises(DeviceError, match="has 2 modules on its chain, but modules is 3 in its settings"):
        with chain([], QontrolSettings(modules=3)):
            pass


def test_channels_are_set_by_vectors_in_one_write():
    lines = [
        (f"VVEC0={ZEROS}\nVVEC8={ZEROS}", "OK\nOK"),
        (f"{vector(0, c1=1.25)}\n{vector(8, c15=2.0)}", "OK\nOK"),
        (vector(8, c8=0.5, c15=2.0), "OK"),  # only the module that changes; its other channels keep their values
    ]
    with chain(lines) as source:
        source.set_volts(dict.fromkeys(range(16), 0.0))
        source.set_volts({1: 1.25, 15: 2.0})
        source.set_volts({8: 0.5})


def test_channels_that_are_not_named_keep_their_voltage():
    """No vector if a setpoint of the module is unknown: after opening, after a failure, after an unsolicited error."""
    lines = [
        (f"v0=2.00000\n{vector(8, c9=1.0)}", "OK\nOK"),  # every channel of the second module is named
        ("v1=3.00000", "E13:01"),
        ("v0=1.00000\nv1=1.00000", "OK\nOK\nE02:09"),
        ("v0=2.00000\nv8=1.00000", "OK\nOK"),
    ]
    with chain(lines) as source:
        source.set_volts({0: 2.0, **dict.fromkeys(range(8, 16), 0.0), 9: 1.0})
        with pytest.raises(DeviceError, match="forbidden"):
            source.set_volts({1: 3.0})
        with pytest.raises(DeviceError, match="over-current at 9"):
            source.set_volts({0: 1.0, 1: 1.0})
        source.set_volts({0: 2.0, 8: 1.0})  # channel 9 was shut off, and setting its neighbour does not switch it on


def test_nothing_is_written_beyond_a_limit():
    with chain([("vmax3=4.00000\nimax3=20.00000", "OK\nOK")]) as source:
        source.set_limits({3: ChannelLimits(0.0, 4.0, max_a=0.02)})
        for volts, code in (
            ({0: 1.0, 3: 4.001}, "limit"),
            ({0: -0.1}, "limit"),
            ({0: float("nan")}, "bad_request"),
            ({16: 0}, "bad_request"),
        ):
            with pytest.raises(DeviceError) as caught:
                source.set_volts(volts)
            assert (caught.value.code, caught.value.outcome) == (code, "not_applied")
        with pytest.raises(DeviceError, match="cannot be limited to 0 … 13 V"):
            source.set_limits({3: ChannelLimits(0.0, 13.0)})
        with pytest.raises(DeviceError, match="max_a cannot be 0.03 A, the hardware's limit is 0.024 A"):
            source.set_limits({3: ChannelLimits(0.0, 5.0, max_a=0.03)})


def test_limits_are_written_again_after_power_up():
    lines = [
        ("vmax0=4.00000\nvmax1=4.00000\nimax0=24.00000\nimax1=24.00000", "OK\nOK\nOK\nOK"),
        ("v0=1.00000", "OK"),
        (None, "E90:00\nE90:08"),  # the backplane was switched off and on
        ("vmax0=4.00000\nvmax1=4.00000\nimax0=24.00000\nimax1=24.00000", "OK\nOK\nOK\nOK"),
        ("v0=1.00000\nv1=1.00000", "OK\nOK"),
    ]
    with chain(lines) as source:
        source.set_limits({0: ChannelLimits(0.0, 4.0), 1: ChannelLimits(0.0, 4.0)})
        with pytest.raises(DeviceError, match="was powered up again .*its limits have been written again") as caught:
            source.set_volts({0: 1.0})
        assert (caught.value.code, caught.value.retryable, caught.value.outcome) == ("device", True, "unknown")
        source.set_volts({0: 1.0, 1: 1.0})


def test_unsolicited_errors_are_raised_by_the_next_call():
    with chain([("v2=3.00000", "OK"), ("id?", "E02:02\nQ8iv-0040")]) as source:
        source.set_volts({2: 3.0})
        with pytest.raises(DeviceError, match="reports an error: over-current at 2") as caught:
            source.check()
        assert caught.value.channel == 2


def test_an_error_that_comes_with_the_answer_is_raised():
    with chain([("v2=3.00000", "OK\nE02:02")]) as source, pytest.raises(DeviceError, match="over-current at 2"):
        source.set_volts({2: 3.0})


def test_a_refusal_instead_of_the_answer_is_raised_and_not_repeated():
    with chain([("v2=3.00000", "E01:02")]) as source, pytest.raises(DeviceError, match="over-voltage at 2"):
        source.set_volts({2: 3.0})
    with chain([("v2=3.00000", "E13:02")]) as source, pytest.raises(DeviceError, match="refused a command: forbidden"):
        source.set_volts({2: 3.0})


def test_a_command_is_sent_again_after_a_serial_error():
    lines = [("v0=1.00000", "E15:00"), IDENTITY, ("v0=1.00000", "OK")]
    with chain(lines) as source:
        source.set_volts({0: 1.0})


def test_a_setting_without_answer_is_repeated_after_resynchronising():
    lines = [("v0=1.00000", None), ("id?", "OK\nQ8iv-0040"), ("v0=1.00000", "OK")]
    with chain(lines) as source:
        source.set_volts({0: 1.0})


def test_a_setting_that_is_never_answered_is_an_error():
    unanswered = [("v0=1.00000", None), IDENTITY] * 2
    with chain([*unanswered, ("v0=1.00000", None)]) as source:
        with pytest.raises(DeviceError, match="did not answer 'v0=1.0") as caught:
            source.set_volts({0: 1.0})
        assert (caught.value.code, caught.value.outcome, caught.value.retryable) == ("transport", "unknown", True)


def test_measured_volts_and_amps():
    volts = "\n".join(f"+{channel / 10:.6f} V" for channel in range(16))
    amps = "\n".join(f"+{channel:.6f} mA" for channel in range(16))
    with chain([("vall?", volts), ("iall?", amps)]) as source:
        np.testing.assert_allclose(source.read_volts([15, 0]), [1.5, 0.0])
        np.testing.assert_allclose(source.read_amps([3]), [3e-3])


def test_an_invalid_reading_is_queried_again():
    good = "\n".join(["+1.0 V"] * 16)
    with chain([("vall?", "\n".join(["+1.0 V"] * 15 + ["?"])), IDENTITY, ("vall?", good)]) as source:
        assert source.read_volts(range(16)).tolist() == [1.0] * 16


def test_safe_tries_vectors_twice_then_single_channels():
    vectors = f"VVEC0={ZEROS}\nVVEC8={ZEROS}"
    with chain([(vectors, "OK\nOK")]) as source:
        source.safe()
    singles = [(f"v{channel}=0.00000", "OK") for channel in range(16)]
    with chain([(vectors, "E13:00\nOK"), (vectors, "E13:00\nOK"), *singles]) as source:
        source.safe()
    failing = [(f"v{channel}=0.00000", "E13:00" if channel == 4 else "OK") for channel in range(16)]
    with chain([(vectors, "E13:00\nOK"), (vectors, "E13:00\nOK"), *failing]) as source, pytest.raises(DeviceError):
        source.safe()


def test_a_reconnection_writes_limits_again_and_is_reported():
    lines = [
        ("vmax0=4.00000\nimax0=24.00000", "OK\nOK"),
        Event("lost", b"the serial port failed"),
        IDENTITY,
        ("vmax0=4.00000\nimax0=24.00000", "OK\nOK"),
        (f"VVEC0={ZEROS}\nVVEC8={ZEROS}", "OK\nOK"),
    ]
    with chain(lines) as source:
        source.set_limits({0: ChannelLimits(0.0, 4.0)})
        with pytest.raises(DeviceError, match="was lost and reconnected"):
            source.set_volts({0: 1.0})
        source.safe()
