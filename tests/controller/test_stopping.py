"""The wish to stop: seen at every look, never forgotten, and breaking off only what may be broken off."""

from __future__ import annotations

import os
import signal
import threading
import time

import pytest

from photonloop.controller.cli.console import stop_on_signals
from photonloop.controller.stopping import SessionStopped, Stop


def test_a_stop_stays_asked_for_and_says_where() -> None:
    stop = Stop()
    stop.check("while nothing was wrong")
    stop.ask()
    for _ in range(2):
        with pytest.raises(SessionStopped, match="^stopped as asked while the data was read$"):
            stop.check("while the data was read")


def test_a_condition_stops_too() -> None:
    over = False
    stop = Stop(lambda: over)
    stop.check()
    over = True
    with pytest.raises(SessionStopped, match="^stopped as asked$"):
        stop.check()


def test_a_pause_ends_when_asked_to_stop() -> None:
    stop = Stop()
    began_s = time.monotonic()
    threading.Timer(0.1, stop.ask).start()
    with pytest.raises(SessionStopped):
        stop.pause(60.0)
    assert time.monotonic() - began_s < 5
    began_s = time.monotonic()
    Stop().pause(0.1)
    assert time.monotonic() - began_s >= 0.1


def test_the_first_signal_waits_for_a_look_and_the_second_does_not() -> None:
    with stop_on_signals() as stop:
        for number in (signal.SIGTERM, signal.SIGHUP):
            os.kill(os.getpid(), number)
            assert stop.asked
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), signal.SIGINT)


def test_the_first_signal_breaks_off_what_may_be_broken_off() -> None:
    with stop_on_signals() as stop:
        with pytest.raises(SessionStopped, match="while the data was read"), stop.at_once("while the data was read"):
            os.kill(os.getpid(), signal.SIGTERM)
            time.sleep(60)
        assert not stop.breaks_off
        with pytest.raises(SessionStopped, match="before"), stop.at_once("before"):
            pytest.fail("begun although a stop was asked for")


def test_an_interrupt_that_is_no_wish_to_stop_goes_its_way() -> None:
    with pytest.raises(KeyboardInterrupt), Stop().at_once("in a notebook"):
        raise KeyboardInterrupt


def test_hang_ups_that_are_ignored_stay_ignored() -> None:
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)  # as nohup leaves it
    try:
        with stop_on_signals() as stop:
            os.kill(os.getpid(), signal.SIGHUP)
            assert not stop.asked
        assert signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGHUP, before)
