"""Recorded readings: a procedure that is killed at any request gives the same readings as an unbroken one."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from support.chips import chip_of

from photonloop.controller.calibration.calibration_options import CalibrationOptions
from photonloop.controller.calibration.reading_record import (
    HEADER,
    LOG,
    RecordHeader,
    new_record,
    open_record,
    parts_folder,
)
from photonloop.controller.calibration.recorded_device import RecordedDevice
from photonloop.controller.device.open_device import OpenDevice
from photonloop.controller.device.processes import VirtualChip
from photonloop.controller.device.reconnecting import ReconnectingDevice
from photonloop.controller.stopping import SessionStopped, Stop
from photonloop.protocols.config import ConfigError
from photonloop.protocols.device import Drive, Inputs, LoadedRows, Readings
from photonloop.simulator.engine.chip import Chip


class Killed(BaseException):
    """Stands for the end of the process."""


class KilledChip(Chip):
    """A chip whose controller is killed at an evaluation."""

    def __init__(self, at: int) -> None:
        parameters = chip_of("ideal", {}, ports=3, stages=1).parameters
        super().__init__(parameters, threads=1)
        self.calls: list[str] = []
        self._left = at

    def evaluate(self, drives: Drive, inputs: Inputs | LoadedRows, stage: str) -> Readings:
        self.calls.append("evaluate")
        if self._left == 0:
            raise Killed
        self._left -= 1
        return super().evaluate(drives, inputs, stage)

    def apply(self, drive: Drive) -> None:
        self.calls.append("apply")
        super().apply(drive)

    def set_light(self, on: bool) -> None:
        self.calls.append(f"light {on}")
        super().set_light(on)

    def load_inputs(self, name: str, inputs: Inputs) -> None:
        self.calls.append("load")
        super().load_inputs(name, inputs)

    def wait(self, seconds: float) -> None:
        self.calls.append("wait")
        super().wait(seconds)


def header(chip: Chip, **changes: Any) -> RecordHeader:
    whole = {
        "began": "2026-11-25T16:00:00+00:00",
        "address": "sim",
        "chip": VirtualChip(),
        "options": CalibrationOptions(),
        "lease_key": "k",
        "device": chip.describe(),
    }
    return RecordHeader(**(whole | changes))


def procedure(device: RecordedDevice) -> list[Any]:
    """Dark readings, then readings whose settings depend on the readings before."""
    device.set_light(False)
    found: list[Any] = [device.evaluate(np.zeros((2, 9)), np.zeros((3, 3), np.float32), "mesh0").values]
    device.set_light(True)
    device.load_inputs("inputs", np.eye(3, dtype=np.float32))
    drive = np.zeros(9)
    for step in range(3):
        device.wait(0.5)
        drive[step] = 1.0 + float(found[-1].sum())
        device.apply(drive)
        found.append(device.evaluate(drive + np.ones((2, 9)), LoadedRows("inputs", np.arange(3)), "mesh0").values)
    found.append(device.readback().volts)
    return found


def attempt(folder: Path, at: int, act: Callable[[RecordedDevice], Any] = procedure) -> tuple[Any, list[str], KilledChip]:
    """Begin or resume; return the result, or None if it was killed, and the calls of the device."""
    chip = KilledChip(at)
    record = open_record(folder) if folder.exists() else new_record(folder, header(chip))
    try:
        return act(RecordedDevice(ReconnectingDevice(lambda: OpenDevice(chip)), record)), chip.calls, chip
    except Killed:
        return None, chip.calls, chip
    finally:
        record.close()


@pytest.mark.parametrize("at", range(4))
def test_a_killed_procedure_gives_the_same_readings(at: int, tmp_path: Path) -> None:
    unbroken, calls, _ = attempt(tmp_path / "unbroken", 99)
    assert calls.count("evaluate") == 4
    assert attempt(tmp_path / "killed", at)[0] is None
    resumed, calls, chip = attempt(tmp_path / "killed", 99)
    for before, now in zip(unbroken, resumed, strict=True):
        np.testing.assert_array_equal(now, before)
    assert calls.count("evaluate") == 4 - at
    assert chip.status().light


def test_a_replay_leaves_the_device_alone(tmp_path: Path) -> None:
    attempt(tmp_path / "parts", 99)
    _, calls, chip = attempt(tmp_path / "parts", 0)
    assert calls == []
    assert chip.status().clock_s == 0.0


def test_a_resumed_procedure_restores_inputs_light_and_drive_first(tmp_path: Path) -> None:
    attempt(tmp_path / "parts", 3)
    _, calls, _ = attempt(tmp_path / "parts", 99)
    assert calls == ["load", "load", "light True", "apply", "wait", "apply", "evaluate"]


def test_records_of_other_settings_are_measured_again(tmp_path: Path) -> None:
    def other(device: RecordedDevice) -> list[np.ndarray]:
        inputs = np.eye(3, dtype=np.float32)
        return [device.evaluate(np.full((1, 9), volts), inputs, "mesh0").values for volts in (0.5, volts_of_second, 1.5)]

    volts_of_second = 1.0
    first, _, _ = attempt(tmp_path / "parts", 99, other)
    volts_of_second = 1.1
    second, calls, _ = attempt(tmp_path / "parts", 99, other)
    assert calls.count("evaluate") == 2
    np.testing.assert_array_equal(second[0], first[0])
    assert not np.array_equal(second[1], first[1])
    assert "warning: from number 1 on, the recorded readings are of other settings" in (tmp_path / "parts" / LOG).read_text()


def test_long_evaluations_are_divided_and_recorded_in_parts(tmp_path: Path) -> None:
    chip = KilledChip(99)
    slow = chip.describe().model_copy(
        update={"clock": "real", "drive": chip.describe().drive.model_copy(update={"settle_s": 0.4})}
    )
    link, counted = ReconnectingDevice(lambda: OpenDevice(chip)), []
    link.description = slow
    record = new_record(tmp_path / "parts", header(chip))
    device = RecordedDevice(link, record, on_read=lambda settings, replayed: counted.append((settings, replayed)))
    drives = np.linspace(0, 1, 45).reshape(5, 9)
    found = device.evaluate(drives, np.eye(3, dtype=np.float32), "mesh0")
    assert counted == [(2, False), (2, False), (1, False)]
    np.testing.assert_array_equal(found.values, chip.evaluate(drives, np.eye(3, dtype=np.float32), "mesh0").values)
    assert record.recorded == 3
    record.close()


def test_a_stop_takes_effect_after_the_answer_is_recorded(tmp_path: Path) -> None:
    chip, stop = KilledChip(99), Stop()
    record = new_record(tmp_path / "parts", header(chip))

    def evaluate(*_: object) -> Readings:
        stop.ask()
        assert not stop.breaks_off
        return Readings(np.zeros((1, 1, 3), np.float32), np.zeros(1), np.zeros((1, 3), np.uint32))

    link = ReconnectingDevice(lambda: OpenDevice(chip))
    link.evaluate = evaluate  # type: ignore[method-assign]
    device = RecordedDevice(link, record, stop)
    with pytest.raises(SessionStopped), stop.at_once(""):
        device.evaluate(np.zeros((1, 9)), np.eye(3, dtype=np.float32)[:1], "mesh0")
        pytest.fail("went on")
    assert record.recorded == 1
    record.close()


def test_a_folder_is_used_by_one_calibration_at_a_time(tmp_path: Path) -> None:
    record = new_record(tmp_path / "parts", header(KilledChip(0)))
    with pytest.raises(ConfigError, match="in use by another calibration"):
        open_record(tmp_path / "parts")
    record.close()
    open_record(tmp_path / "parts").delete()
    assert list(tmp_path.iterdir()) == []


def test_headers_that_cannot_be_used(tmp_path: Path) -> None:
    folder = parts_folder(tmp_path / "c.json")
    assert folder.name == "c.json.parts"
    folder.mkdir()
    with pytest.raises(ConfigError, match="has no header.json"):
        open_record(folder)
    text = header(KilledChip(0)).model_dump_json()
    for content, sentence in (
        (text[:-9], "is damaged"),
        (text.replace('"record_format":1', '"record_format":7'), "another version"),
    ):
        (folder / HEADER).write_text(content)
        with pytest.raises(ConfigError, match=f"{sentence}.*: delete the folder to begin anew"):
            open_record(folder)


def test_a_damaged_record_is_named(tmp_path: Path) -> None:
    folder = tmp_path / "parts"
    attempt(folder, 99)
    (folder / "000001.npz").write_bytes(b"PK")
    with pytest.raises(ConfigError, match="000001.npz is damaged: delete it"):
        attempt(folder, 99)
