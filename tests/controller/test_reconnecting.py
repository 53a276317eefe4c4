"""`ReconnectingDevice` with a device that fails: how often it reconnects, what it reports, and when it gives up."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import numpy as np
import pytest

from photonloop.controller.device import waiting
from photonloop.controller.device.open_device import OpenDevice
from photonloop.controller.device.reconnecting import MOST_BREAKS, WAIT_SLICE_S, ReconnectingDevice
from photonloop.controller.device.waiting import wait_for_device
from photonloop.controller.stopping import SessionStopped, Stop
from photonloop.protocols.device import DeviceStatus, Drive, Inputs, LoadedRows, Readings
from photonloop.protocols.errors import DeviceError
from photonloop.simulator.engine.chip import Chip
from photonloop.simulator.parameters import load_chip

LOADED = LoadedRows("train", np.arange(3))


class Clock(Stop):
    """A `Stop` whose pauses take no time; they advance a clock of its own."""

    def __init__(self, when: Callable[[], bool] = lambda: False) -> None:
        super().__init__(when)
        self.now_s = 0.0
        self.pauses_s: list[float] = []

    def pause(self, seconds: float, meanwhile: str = "") -> None:
        self.check(meanwhile)
        self.now_s += seconds
        self.pauses_s.append(seconds)


def broken(detail: str = "the wire was pulled", code: str = "transport", **more: object) -> DeviceError:
    return DeviceError(code, detail, **more)  # pyright: ignore[reportArgumentType]


class FailingChips:
    """Opens chips that fail on purpose: `refuses` is called before every evaluation with its number."""

    def __init__(self, refuses: Callable[[int], DeviceError | None], clock: Literal["virtual", "real"] = "virtual") -> None:
        self.refuses, self.evaluations, self.opened, self.clock = refuses, 0, 0, clock
        self.waits_s: list[float] = []
        self.refuses_wait: Callable[[int], DeviceError | None] = lambda _: None
        self.opened_chips: list[Chip] = []
        self.leased_to = ""

    def open(self) -> OpenDevice:
        self.opened += 1
        chip = Chip(load_chip("ideal", ports=4, stages=1), threads=1)
        evaluate, status = chip.evaluate, chip.status

        def maybe(drives: Drive, inputs: Inputs | LoadedRows, stage: str) -> Readings:
            self.evaluations += 1
            if (error := self.refuses(self.evaluations)) is not None:
                raise error
            return evaluate(drives, inputs, stage)

        def leased() -> DeviceStatus:
            return status().model_copy(update={"leased_to": self.leased_to})

        def wait(seconds: float) -> None:
            self.waits_s.append(seconds)
            if (error := self.refuses_wait(len(self.waits_s))) is not None:
                raise error

        described = chip.describe().model_copy(update={"clock": self.clock})
        chip.evaluate, chip.status, chip.wait, chip.describe = maybe, leased, wait, lambda: described
        self.opened_chips.append(chip)
        return OpenDevice(chip)


def linked(chips: FailingChips, stop: Stop) -> tuple[ReconnectingDevice, list[str], Callable[[], Readings]]:
    reported: list[str] = []
    link = ReconnectingDevice(
        chips.open, stop=stop, on_lost=reported.append, on_restored=reported.append, on_waiting=reported.append
    )
    link.load_inputs("train", np.ones((3, 4), np.float32))
    drives = np.ones((1, link.description.channels))
    return link, reported, lambda: link.evaluate(drives, LOADED, link.description.stages[0].name)


def test_a_device_that_always_fails_at_the_same_request_is_given_up() -> None:
    clock, chips = Clock(), FailingChips(lambda _: broken())
    link, reported, evaluate = linked(chips, clock)
    with pytest.raises(DeviceError, match=f"lost {MOST_BREAKS} times in a row: the wire was pulled"):
        evaluate()
    assert chips.opened == MOST_BREAKS
    assert reported == ["device lost: the wire was pulled"], "the same sentence once"
    assert clock.pauses_s[:5] == [0.0, 0.2, 0.4, 0.8, 1.6]
    assert max(clock.pauses_s) <= 5.0
    link.close()


def test_failures_with_answers_in_between_are_not_limited() -> None:
    chips = FailingChips(lambda number: broken(f"pulled at {number}") if number % 2 else None)
    link, reported, evaluate = linked(chips, Clock())
    for _ in range(3 * MOST_BREAKS):
        assert evaluate().values.shape == (1, 3, 4)
    assert reported[:2] == ["device lost: pulled at 1", "device back, loaded inputs and held drive restored"]
    assert len(reported) == 6 * MOST_BREAKS
    link.close()


def test_a_session_whose_device_was_taken_over_stops() -> None:
    chips = FailingChips(
        lambda number: broken("the device is leased to 'b', not to this session", "lease") if number == 2 else None
    )
    link, _, evaluate = linked(chips, Clock())
    evaluate()
    chips.leased_to = "b"
    with pytest.raises(DeviceError, match=r"another session \('b'\) has taken over the device: this session stops") as caught:
        evaluate()
    assert caught.value.code == "lease"
    assert chips.opened == 1
    link.close()


def test_an_expired_lease_is_acquired_again() -> None:
    """As after a laptop slept: no one else holds the device."""
    chips = FailingChips(lambda number: broken("this session holds no lease", "lease", retryable=True) if number == 2 else None)
    link, reported, evaluate = linked(chips, Clock())
    evaluate()
    evaluate()
    assert chips.opened == 2
    assert reported[-1].startswith("device back")
    link.close()


def test_a_lease_that_another_session_holds_meanwhile_is_not_taken() -> None:
    chips = FailingChips(lambda number: broken() if number == 1 else None)
    link, _, evaluate = linked(chips, Clock())
    held = broken("the device is leased to 'c' for another 3 s or more", "lease", retryable=True)

    def opener() -> OpenDevice:
        raise held

    link._opener = opener
    with pytest.raises(DeviceError, match="leased to 'c'"):
        evaluate()
    link.close()


def test_a_simulator_that_does_not_start_is_given_up() -> None:
    chips = FailingChips(lambda _: broken("the simulator died"))
    link, _, evaluate = linked(chips, Clock())
    tries = 0

    def opener() -> OpenDevice:
        nonlocal tries
        tries += 1
        raise broken("the simulator for 'sim' did not start: no memory")

    link._opener = opener
    with pytest.raises(DeviceError, match=r"times in a row: .*no memory"):
        evaluate()
    assert tries == MOST_BREAKS - 1
    link.close()


def test_waiting_for_a_server_is_reported_ever_less_often(monkeypatch: pytest.MonkeyPatch) -> None:
    night_s = 8 * 3600
    clock = Clock()
    clock._when = lambda: clock.now_s > night_s
    monkeypatch.setattr(waiting.time, "monotonic", lambda: clock.now_s)
    reported: list[str] = []

    def opener() -> OpenDevice:
        clock.now_s += 2.0
        raise broken("no device server answers at tcp://lab:5555 within 2 s", retryable=True)

    with pytest.raises(SessionStopped, match="stopped on request while waiting for the device"):
        wait_for_device(opener, clock, reported.append)
    monkeypatch.undo()
    assert reported[0].startswith("still waiting, 1")  # s, ten and some
    assert reported[0].endswith(": no device server answers at tcp://lab:5555 within 2 s")
    assert 40 < len(reported) < 70
    assert reported[-1].startswith("still waiting, 7 h")


@pytest.mark.parametrize("what", ["load_inputs", "apply", "evaluate", "set_light", "wait", "readback"])
def test_a_stop_leaves_the_device_as_it_is(what: str) -> None:
    chips, stop = FailingChips(lambda _: None), Stop()
    link, _, evaluate = linked(chips, stop)
    stop.ask()
    before = chips.opened_chips[0].held_drive()
    actions: dict[str, Callable[[], object]] = {
        "load_inputs": lambda: link.load_inputs("test", np.ones((1, 4), np.float32)),
        "apply": lambda: link.apply(np.ones(link.description.channels)),
        "evaluate": evaluate,
        "set_light": lambda: link.set_light(True),
        "wait": lambda: link.wait(1.0),
        "readback": link.readback,
    }
    with pytest.raises(SessionStopped):
        actions[what]()
    assert (chips.evaluations, chips.waits_s) == (0, [])
    assert chips.opened_chips[0].status().light is False
    np.testing.assert_array_equal(chips.opened_chips[0].held_drive(), before)
    link.close()


def test_a_cancelled_evaluation_is_never_read_by_the_next_request() -> None:
    chips = FailingChips(lambda _: None)
    link, _, evaluate = linked(chips, Stop())
    cancelled: list[bool] = []

    class Sent:
        def result(self) -> Readings:
            raise DeviceError("interlock", "the evaluation was cancelled")

    device = link._open.device
    device.submit = lambda *_: Sent()  # pyright: ignore[reportAttributeAccessIssue]
    device.cancel = lambda: cancelled.append(True)
    link.start(np.ones((1, link.description.channels)), LOADED, link.description.stages[0].name)
    link.cancel()
    assert cancelled == [True]
    assert link.under_way == 0
    assert evaluate().values.shape == (1, 3, 4)
    link.close()


def test_a_virtual_clock_is_advanced_at_once() -> None:
    chips = FailingChips(lambda _: None)
    link, _, _ = linked(chips, Stop())
    link.wait(3600.0)
    link.wait(0.0)
    assert chips.waits_s == [3600.0, 0.0]
    for seconds in (-1.0, float("nan")):
        with pytest.raises(DeviceError) as caught:
            link.wait(seconds)
        assert caught.value.code == "bad_request"
    link.close()


def test_a_wait_in_real_time_is_stopped_after_its_part() -> None:
    chips, stop = FailingChips(lambda _: None, clock="real"), Stop()
    link, _, _ = linked(chips, stop)
    link.wait(2.5)
    assert chips.waits_s == [WAIT_SLICE_S, WAIT_SLICE_S, 0.5]
    chips.refuses_wait = lambda number: stop.ask() if number == 5 else None
    with pytest.raises(SessionStopped):
        link.wait(3600.0)
    assert chips.waits_s[3:] == [WAIT_SLICE_S] * 2
    link.close()


def test_only_the_part_of_a_wait_that_was_lost_is_repeated() -> None:
    chips = FailingChips(lambda _: None, clock="real")
    chips.refuses_wait = lambda number: broken(outcome="unknown", retryable=True) if number == 2 else None
    link, reported, _ = linked(chips, Clock())
    link.wait(3.0)
    assert chips.waits_s == [WAIT_SLICE_S] * 4
    assert (chips.opened, len(reported)) == (2, 2)
    link.close()


def test_the_light_is_switched_off_again_after_a_reconnection() -> None:
    chips = FailingChips(lambda number: broken() if number in {1, 3} else None)
    link, _, evaluate = linked(chips, Clock())
    link.set_light(False)
    dark = evaluate()
    assert not dark.values.any()
    assert chips.opened_chips[1].status().light is False
    link.set_light(True)
    assert evaluate().values.any()
    assert chips.opened_chips[2].status().light is True
    assert np.isnan(link.readback().volts).all()
    link.close()
