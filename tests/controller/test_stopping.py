"""`Stop`: checked at defined points, permanent once asked for, and interrupting only inside `at_once`."""

from __future__ import annotations

import os
import signal
import threading
import time

import pytest

from photonloop.controller.cli.console import stop_on_signals
from photonloop.controller.stopping import SessionStopped, Stop


def test_a_stop_is_permanent_and_names_the_occasion() -> None:
    stop = Stop()
    stop.check("while nothing was wrong")
    stop.ask()
    for _ in range(2):
        with pytest.raises(SessionStopped, match="^stopped on request while the data was read$"):
            stop.check("while the data was read")


def test_a_condition_is_a_reason_to_stop() -> None:
    over = False
    stop = Stop(lambda: over)
    stop.check()
    over = True
    with pytest.raises(SessionStopped, match="^stopped on request$"):
        stop.check()


def test_a_pause_ends_when_asked_to_stop() -> None:
    stop = Stop()
    threading.Timer(0.1, stop.ask).start()
    with pytest.raises(SessionStopped):
        stop.pause(3600.0)


def test_a_pause_lasts_as_long_as_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    now_s = 0.0

    def sleep(seconds: float) -> None:
        nonlocal now_s
        now_s += seconds

    with monkeypatch.context() as clock:
        clock.setattr(time, "monotonic", lambda: now_s)
        clock.setattr(time, "sleep", sleep)
        Stop().pause(10.0)
    assert now_s == pytest.approx(10.0)


def test_the_first_signal_waits_for_a_check_and_a_second_interrupts() -> None:
    with stop_on_signals() as stop:
        for number in (signal.SIGTERM, signal.SIGHUP):
            os.kill(os.getpid(), number)
            assert stop.asked
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), signal.SIGINT)


def test_the_first_signal_interrupts_inside_at_once() -> None:
    with stop_on_signals() as stop:
        with pytest.raises(SessionStopped, match="while the data was read"), stop.at_once("while the data was read"):
            os.kill(os.getpid(), signal.SIGTERM)
            time.sleep(3600)
        assert not stop.breaks_off
        with pytest.raises(SessionStopped, match="before"), stop.at_once("before"):
            pytest.fail("started although a stop was asked for")


def test_a_keyboard_interrupt_without_signal_handler_is_passed_on() -> None:
    with pytest.raises(KeyboardInterrupt), Stop().at_once("in a notebook"):
        raise KeyboardInterrupt


def test_ignored_hangups_stay_ignored() -> None:
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)  # as nohup leaves it
    try:
        with stop_on_signals() as stop:
            os.kill(os.getpid(), signal.SIGHUP)
            assert not stop.asked
        assert signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGHUP, before)
