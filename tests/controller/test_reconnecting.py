"""The link to a device that breaks: how long it tries, what it says meanwhile, and what ends it."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from photonloop.controller.device import waiting
from photonloop.controller.device.open_device import OpenDevice
from photonloop.controller.device.reconnecting import MOST_BREAKS, ReconnectingDevice
from photonloop.controller.device.waiting import wait_for_device
from photonloop.controller.stopping import SessionStopped, Stop
from photonloop.protocols.device import DeviceStatus, Drive, Inputs, LoadedRows, Readings
from photonloop.protocols.errors import DeviceError
from photonloop.simulator.engine.chip import Chip
from photonloop.simulator.parameters import load_chip

STAGED = LoadedRows("train", np.arange(3))


class Clock(Stop):
    """A stop whose pauses pass at once, on a clock of their own."""

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


class Bench:
    """Chips that break as told: `refuses` is asked before every evaluation, with its number."""

    def __init__(self, refuses: Callable[[int], DeviceError | None]) -> None:
        self.refuses, self.evaluations, self.opened = refuses, 0, 0
        self.chips: list[Chip] = []
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

        chip.evaluate, chip.status = maybe, leased
        self.chips.append(chip)
        return OpenDevice(chip)


def linked(bench: Bench, stop: Stop) -> tuple[ReconnectingDevice, list[str], Callable[[], Readings]]:
    told: list[str] = []
    link = ReconnectingDevice(bench.open, stop=stop, on_lost=told.append, on_restored=told.append, on_waiting=told.append)
    link.load_inputs("train", np.ones((3, 4), np.float32))
    drives = np.ones((1, link.description.channels))
    return link, told, lambda: link.evaluate(drives, STAGED, link.description.stages[0].name)


def test_a_device_that_breaks_at_the_same_request_for_ever_is_given_up() -> None:
    clock, bench = Clock(), Bench(lambda _: broken())
    link, told, evaluate = linked(bench, clock)
    with pytest.raises(DeviceError, match=f"lost {MOST_BREAKS} times in a row: the wire was pulled"):
        evaluate()
    assert bench.opened == MOST_BREAKS
    assert told == ["device lost: the wire was pulled"], "the same words once"
    assert clock.pauses_s[:5] == [0.0, 0.2, 0.4, 0.8, 1.6]
    assert max(clock.pauses_s) <= 5.0
    link.close()


def test_breaks_with_answers_in_between_are_borne_without_end() -> None:
    bench = Bench(lambda number: broken(f"pulled at {number}") if number % 2 else None)
    link, told, evaluate = linked(bench, Clock())
    for _ in range(3 * MOST_BREAKS):
        assert evaluate().values.shape == (1, 3, 4)
    assert told[:2] == ["device lost: pulled at 1", "device back, loaded inputs and held drive restored"]
    assert len(told) == 6 * MOST_BREAKS
    link.close()


def test_a_session_that_was_taken_over_stops_and_does_not_take_back() -> None:
    bench = Bench(lambda number: broken("the device is leased to 'b', not to this session", "lease") if number == 2 else None)
    link, _, evaluate = linked(bench, Clock())
    evaluate()
    bench.leased_to = "b"
    with pytest.raises(DeviceError, match=r"another session \('b'\) has taken the device over: this session stops") as caught:
        evaluate()
    assert caught.value.code == "lease"
    assert bench.opened == 1
    link.close()


def test_a_lease_that_ran_out_is_taken_again() -> None:
    """As after a laptop slept: nobody holds the device, so nothing is taken from anybody."""
    bench = Bench(lambda number: broken("this session holds no lease", "lease", retryable=True) if number == 2 else None)
    link, told, evaluate = linked(bench, Clock())
    evaluate()
    evaluate()
    assert bench.opened == 2
    assert told[-1].startswith("device back")
    link.close()


def test_a_lease_that_somebody_else_holds_meanwhile_is_theirs() -> None:
    bench = Bench(lambda number: broken() if number == 1 else None)
    link, _, evaluate = linked(bench, Clock())
    held = broken("the device is leased to 'c' for another 3 s or more", "lease", retryable=True)

    def opener() -> OpenDevice:
        raise held

    link._opener = opener
    with pytest.raises(DeviceError, match="leased to 'c'"):
        evaluate()
    link.close()


def test_a_simulator_that_does_not_start_is_given_up() -> None:
    bench = Bench(lambda _: broken("the simulator died"))
    link, _, evaluate = linked(bench, Clock())
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


def test_a_silent_server_is_waited_for_in_few_words(monkeypatch: pytest.MonkeyPatch) -> None:
    night_s = 8 * 3600
    clock = Clock()
    clock._when = lambda: clock.now_s > night_s
    monkeypatch.setattr(waiting.time, "monotonic", lambda: clock.now_s)
    told: list[str] = []

    def opener() -> OpenDevice:
        clock.now_s += 2.0
        raise broken("no device server answers at tcp://lab:5555 within 2 s", retryable=True)

    with pytest.raises(SessionStopped, match="stopped as asked while waiting for the device"):
        wait_for_device(opener, clock, told.append)
    monkeypatch.undo()
    assert told[0].startswith("still waiting, 1")  # s, ten and some
    assert told[0].endswith(": no device server answers at tcp://lab:5555 within 2 s")
    assert 40 < len(told) < 70
    assert told[-1].startswith("still waiting, 7 h")


@pytest.mark.parametrize("what", ["load_inputs", "apply", "evaluate"])
def test_a_stop_leaves_the_device_as_it_is(what: str) -> None:
    bench, stop = Bench(lambda _: None), Stop()
    link, _, evaluate = linked(bench, stop)
    stop.ask()
    before = bench.chips[0].held_drive()
    actions: dict[str, Callable[[], object]] = {
        "load_inputs": lambda: link.load_inputs("test", np.ones((1, 4), np.float32)),
        "apply": lambda: link.apply(np.ones(link.description.channels)),
        "evaluate": evaluate,
    }
    with pytest.raises(SessionStopped):
        actions[what]()
    assert bench.evaluations == 0
    np.testing.assert_array_equal(bench.chips[0].held_drive(), before)
    link.close()


def test_what_is_dropped_is_stopped_and_never_read_by_the_next_request() -> None:
    bench = Bench(lambda _: None)
    link, _, evaluate = linked(bench, Stop())
    cancelled: list[bool] = []

    class Sent:
        def result(self) -> Readings:
            raise DeviceError("interlock", "the evaluation was cancelled")

    device = link._open.device
    device.submit = lambda *_: Sent()  # pyright: ignore[reportAttributeAccessIssue]
    device.cancel = lambda: cancelled.append(True)
    link.start(np.ones((1, link.description.channels)), STAGED, link.description.stages[0].name)
    link.cancel()
    assert cancelled == [True]
    assert link.under_way == 0
    assert evaluate().values.shape == (1, 3, 4)
    link.close()
