"""The virtual chip as a device: limits, held drive, loaded inputs, caches and cancellation."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from photonloop.protocols.device import LoadedRows, PhotonicDevice
from photonloop.protocols.errors import DeviceError
from photonloop.simulator.engine.chip import Chip
from photonloop.simulator.engine.field_cache import FieldCache
from photonloop.simulator.engine.pipeline import Pipeline
from photonloop.simulator.parameters import ChipParameters, load_chip


@pytest.fixture
def chip() -> Chip:
    return Chip(load_chip("ideal", ports=8))


def varied(parameters: ChipParameters, **parts: dict[str, float]) -> ChipParameters:
    """Return `parameters` with fields of its parts changed."""
    changed = {name: getattr(parameters, name).model_copy(update=fields) for name, fields in parts.items()}
    return parameters.model_copy(update=changed)


def drives_of(chip: Chip, settings: int, seed: int = 0) -> NDArray:
    return np.random.default_rng(seed).uniform(0, 6, (settings, chip.stages[0].description.channels))


def test_chip_is_a_photonic_device(chip: Chip) -> None:
    assert isinstance(chip, PhotonicDevice)
    description = chip.describe()
    assert description is chip.describe()
    assert [s.name for s in description.stages] == ["mesh0", "mesh1"]
    assert description.stages[1].first_channel == description.stages[0].channels == 64
    assert [s.nonlinearity for s in description.stages] == ["electro-optic", "none"]
    for stage in description.stages:
        covered = np.concatenate([np.arange(a, b) for a, b in stage.groups.values()])
        np.testing.assert_array_equal(np.sort(covered), np.arange(stage.channels))
        assert sorted({row[2] for row in stage.layout}) == list(range(28))
        assert sorted({row[3] for row in stage.layout}) == list(range(28, 56))


def test_requests_beyond_limits_are_refused_before_anything_changes(chip: Chip) -> None:
    chip.apply(np.full(128, 4.0))
    before, clock_s = chip.held_drive(), chip.status().clock_s
    ones = np.ones((2, 8))
    good = drives_of(chip, 3)
    bad_volts, not_a_volt = good.copy(), good.copy()
    bad_volts[2, 5], not_a_volt[1, 7] = 7.0, np.nan
    cases = [
        ("limit", "drives of channel 5 in setting 2 is 7 V", lambda: chip.evaluate(bad_volts, ones, "mesh0")),
        ("bad_request", "is nan, not a voltage", lambda: chip.evaluate(not_a_volt, ones, "mesh0")),
        ("limit", "total_power_w", lambda: chip.evaluate(np.full((1, 64), 6.7), ones, "mesh0")),
        ("bad_request", "stage is 'mesh7'", lambda: chip.evaluate(good, ones, "mesh7")),
        ("bad_request", "drives has shape", lambda: chip.evaluate(good[:, :-1], ones, "mesh0")),
        ("bad_request", "inputs has shape", lambda: chip.evaluate(good, np.ones((2, 7)), "mesh0")),
        ("bad_request", "outside 0 to 1", lambda: chip.evaluate(good, 1.5 * ones, "mesh0")),
        ("bad_request", "are not loaded", lambda: chip.evaluate(good, LoadedRows("no", np.arange(3)), "mesh0")),
        ("limit", "max_batch", lambda: chip.evaluate(good, np.ones((2**14 + 1, 8)), "mesh0")),
        ("limit", "max_settings", lambda: chip.evaluate(drives_of(chip, 2000), ones, "mesh0")),
        ("bad_request", "drive has shape", lambda: chip.apply(np.zeros(3))),
        ("limit", "drive of channel 100 is 6.9 V", lambda: chip.apply(np.where(np.arange(128) == 100, 6.9, 0.0))),
        ("limit", "below the lowest drive", lambda: chip.apply(np.full(128, -0.1))),
    ]
    for code, words, call in cases:
        with pytest.raises(DeviceError, match=words) as caught:
            call()
        assert caught.value.code == code
        assert caught.value.outcome == "not_applied"
    np.testing.assert_array_equal(chip.held_drive(), before)
    assert chip.status().clock_s == clock_s
    assert chip.status().evaluations == 0


def test_total_power_includes_held_stages() -> None:
    chip = Chip(varied(load_chip("ideal", ports=8), limits={"mean_power_w": 0.03}))
    volts = np.sqrt(0.05 * 770)
    chip.evaluate(np.full((1, 64), volts), np.ones((1, 8)), "mesh0")
    held = np.zeros(128)
    held[64:] = np.sqrt(0.02 * 770)
    chip.apply(held)
    with pytest.raises(DeviceError, match="total_power_w"):
        chip.evaluate(np.full((1, 64), volts), np.ones((1, 8)), "mesh0")
    chip.evaluate(np.full((1, 64), volts), np.ones((1, 8)), "mesh1")


def test_valid_drives_in_other_array_layouts_give_equal_readings(chip: Chip) -> None:
    drives, ones = drives_of(chip, 4), np.ones((2, 8))
    expected = chip.evaluate(drives, ones, "mesh0").values
    locked = drives.copy()
    locked.flags.writeable = False
    shifted = np.frombuffer(b"\0" + drives.tobytes(), np.uint8)[1:].view(np.float64).reshape(drives.shape)
    forms: list[Any] = [locked, np.asfortranarray(drives), shifted, drives.tolist()]
    for form in forms:
        np.testing.assert_array_equal(chip.evaluate(form, ones, "mesh0").values, expected)
    whole_numbers: Any = ones.astype(np.uint8)
    np.testing.assert_array_equal(chip.evaluate(drives, whole_numbers, "mesh0").values, expected)
    np.testing.assert_array_equal(chip.evaluate(drives, ones.astype(np.complex64), "mesh0").values, expected)


def test_complex_inputs_need_settable_phases(chip: Chip) -> None:
    drives, inputs = drives_of(chip, 1), np.exp(1j * np.arange(16.0)).reshape(2, 8)
    values = chip.evaluate(drives, inputs, "mesh0").values
    assert not np.allclose(values, chip.evaluate(drives, np.abs(inputs), "mesh0").values, rtol=0.1)
    soi = Chip(load_chip("soi", ports=8))
    with pytest.raises(DeviceError, match="cannot set input phases"):
        soi.evaluate(drives, inputs, "mesh0")


def test_held_drive_is_restored_after_an_evaluation(chip: Chip) -> None:
    held = np.random.default_rng(3).uniform(0, 5, 128)
    chip.apply(held)
    watts = chip.status().heater_power_w
    assert watts == pytest.approx(np.sum(held**2) / 770)
    before = chip.evaluate(held[np.newaxis, 64:], np.ones((2, 8)), "mesh1").values
    chip.evaluate(drives_of(chip, 5), np.ones((2, 8)), "mesh0")
    np.testing.assert_array_equal(chip.held_drive(), held)
    assert chip.status().heater_power_w == watts
    np.testing.assert_array_equal(chip.evaluate(held[np.newaxis, 64:], np.ones((2, 8)), "mesh1").values, before)


def test_the_held_drive_is_a_copy(chip: Chip) -> None:
    drive = np.full(128, 3.0)
    chip.apply(drive)
    drive[:] = 0
    assert chip.held_drive().min() == 3.0


def test_virtual_clock(chip: Chip) -> None:
    description = chip.describe()
    settle_s, sample_s = description.drive.settle_s, description.readout.sample_s
    assert description.clock == "virtual"
    assert chip.status().clock_s == 0
    chip.apply(np.ones(128))
    assert chip.status().clock_s == pytest.approx(settle_s)
    readings = chip.evaluate(drives_of(chip, 3), np.ones((20, 8)), "mesh1")
    each_s = settle_s + 20 * sample_s
    np.testing.assert_allclose(readings.time_s, settle_s + settle_s + np.arange(3) * each_s)
    assert chip.status().clock_s == pytest.approx(settle_s + 3 * each_s)
    assert chip.status().evaluations == 3


def test_slew_limit_delays_readings() -> None:
    chip = Chip(varied(load_chip("ideal", ports=8), limits={"slew_v_per_s": 100.0}))
    settle_s, sample_s = 1e-5, 1e-5
    chip.apply(np.full(128, 2.0))
    assert chip.status().clock_s == pytest.approx(0.02 + settle_s)
    drives = np.full((2, 64), 2.0)
    drives[0, 3], drives[1, 3] = 3.0, 1.0
    readings = chip.evaluate(drives, np.ones((1, 8)), "mesh0")
    start_s = 0.02 + settle_s
    expected = [start_s + 0.01 + settle_s, start_s + 0.03 + 2 * settle_s + sample_s]
    np.testing.assert_allclose(readings.time_s, expected)
    assert chip.status().clock_s == pytest.approx(start_s + 0.04 + 2 * (settle_s + sample_s))


def test_loaded_rows_give_the_readings_of_the_same_inputs(chip: Chip) -> None:
    rng = np.random.default_rng(2)
    inputs = rng.random((50, 8)).astype(np.float32)
    loaded = inputs.copy()
    chip.load_inputs("train", loaded)
    loaded[:] = 0
    chip.apply(rng.uniform(0, 5, 128))
    rows = rng.integers(0, 50, 41)
    for stage in ("mesh0", "mesh1"):
        direct = chip.evaluate(drives_of(chip, 2), inputs[rows], stage).values
        for _ in range(2):
            np.testing.assert_array_equal(chip.evaluate(drives_of(chip, 2), LoadedRows("train", rows), stage).values, direct)
    with pytest.raises(DeviceError, match="row 50 of 'train'"):
        chip.evaluate(drives_of(chip, 1), LoadedRows("train", np.array([50])), "mesh0")


def test_cached_fields_follow_every_change() -> None:
    """Loaded rows and the same inputs sent with the evaluation give equal readings at later stages."""
    chip = Chip(load_chip("ideal", ports=8, stages=3))
    rng = np.random.default_rng(0)
    inputs = {"a": rng.random((30, 8)), "b": rng.random((20, 8))}
    for name, array in inputs.items():
        chip.load_inputs(name, array)
    for _ in range(60):
        happening = rng.integers(6)
        if happening == 0:
            drive = chip.held_drive()
            stage = chip.stages[rng.integers(3)]
            drive[stage.channels] = rng.uniform(0, 5, 64)
            chip.apply(drive)
        elif happening == 1:
            inputs["b"] = rng.random((rng.integers(5, 30), 8))
            chip.load_inputs("b", inputs["b"])
        elif happening == 2:
            chip.safe()
        name = rng.choice(["a", "b"])
        rows = rng.integers(0, inputs[name].shape[0], rng.integers(1, 20))
        stage = f"mesh{rng.integers(3)}"
        drives = rng.uniform(0, 6, (2, 64))
        values = chip.evaluate(drives, LoadedRows(name, rows), stage).values
        np.testing.assert_allclose(values, chip.evaluate(drives, inputs[name][rows], stage).values, rtol=2e-6)


def test_unchanged_stages_are_computed_once_per_row(chip: Chip, monkeypatch: pytest.MonkeyPatch) -> None:
    passed = []
    original = Pipeline._passed

    def counted(self: Pipeline, index: int, batch: Any, rows: NDArray, *rest: Any) -> NDArray:
        passed.append(rows.tolist())
        return original(self, index, batch, rows, *rest)

    monkeypatch.setattr(Pipeline, "_passed", counted)
    chip.load_inputs("a", np.random.default_rng(0).random((10, 8)))
    drives = drives_of(chip, 2)
    chip.evaluate(drives, LoadedRows("a", np.array([3, 1, 3])), "mesh1")
    chip.evaluate(drives, LoadedRows("a", np.array([1, 3])), "mesh1")
    chip.evaluate(drives, LoadedRows("a", np.array([2, 3])), "mesh1")
    assert passed == [[1, 3], [2]]
    held = np.zeros(128)
    held[70] = 1.0
    chip.apply(held)  # the later stage only
    chip.evaluate(drives, LoadedRows("a", np.array([1, 2, 3])), "mesh1")
    assert passed == [[1, 3], [2]]
    held[7] = 1.0
    chip.apply(held)
    chip.evaluate(drives, LoadedRows("a", np.array([1, 2])), "mesh1")
    assert passed == [[1, 3], [2], [1, 2]]


def test_field_cache_keeps_within_its_memory() -> None:
    kept = FieldCache(max_bytes=1000)
    assert kept.fields("big", 1, (200, 1, 1), (0,)) is None
    for name in ("a", "b", "c"):
        fields = kept.fields(name, 1, (50, 1, 1), (0,))
        assert fields is not None
        assert not fields.is_known.any()
        fields.is_known[:] = True
    again = kept.fields("c", 1, (50, 1, 1), (0,))
    assert again is not None and again.is_known.all()
    gone = kept.fields("a", 1, (50, 1, 1), (0,))
    assert gone is not None and not gone.is_known.any()


def test_loaded_inputs_have_limits() -> None:
    chip = Chip(varied(load_chip("ideal", ports=8), limits={"max_loaded_bytes": 1000}))
    chip.load_inputs("a", np.ones((20, 8)))
    chip.load_inputs("a", np.zeros((25, 8)))
    with pytest.raises(DeviceError, match="max_loaded_bytes 1000"):
        chip.load_inputs("b", np.ones((7, 8)))
    with pytest.raises(DeviceError, match="outside 0 to 1"):
        chip.load_inputs("a", np.full((2, 8), np.nan))
    assert not chip.evaluate(drives_of(chip, 1), LoadedRows("a", np.arange(25)), "mesh0").values.any()


@pytest.mark.parametrize("stop", ["cancel", "safe"])
@pytest.mark.parametrize("realtime", [False, True])
def test_a_long_evaluation_can_be_stopped(stop: str, realtime: bool) -> None:
    if realtime:
        chip = Chip(varied(load_chip("ideal", ports=8), clock={"sample_s": 0.5}), realtime=True)
    else:
        chip = Chip(varied(load_chip("ideal", ports=64), limits={"max_readings": 2**28}))
    held = np.full(chip.describe().channels, 1.0)
    chip.apply(held)
    settings = 2 if realtime else 1000
    inputs = np.ones((40 if realtime else 3000, chip.parameters.ports), np.float32)
    drives = drives_of(chip, settings)
    errors: list[DeviceError] = []

    def evaluate() -> None:
        try:
            chip.evaluate(drives, inputs, "mesh1")
        except DeviceError as error:
            errors.append(error)

    thread = threading.Thread(target=evaluate)
    thread.start()
    while not chip.status().busy:
        time.sleep(0.001)
    getattr(chip, stop)()
    assert chip.status().safe == (stop == "safe")
    thread.join(10.0)
    assert not thread.is_alive()
    assert [(e.code, e.outcome) for e in errors] == [("interlock", "not_applied")]
    np.testing.assert_array_equal(chip.held_drive(), 0.0 if stop == "safe" else held)
    assert chip.status().evaluations == 0
    assert not chip.status().busy
    if not realtime:
        assert chip.evaluate(drives[:1], inputs[:5], "mesh0").values.shape == (1, 5, 64)
    chip.close()


def test_cancel_without_an_evaluation_has_no_effect(chip: Chip) -> None:
    chip.cancel()
    assert not chip.evaluate(drives_of(chip, 1), np.ones((1, 8)), "mesh0").flags.any()


def test_safe_and_status(chip: Chip) -> None:
    assert chip.status().safe
    chip.apply(np.full(128, 1.0))
    assert not chip.status().safe
    chip.safe()
    assert chip.status().safe
    assert chip.status().heater_power_w == 0
    with pytest.raises(DeviceError, match="'overheated' is not latched"):
        chip.clear_fault("overheated")


def test_realtime_operations_take_wall_time() -> None:
    chip = Chip(varied(load_chip("ideal", ports=4), clock={"sample_s": 0.01}), realtime=True)
    assert chip.describe().clock == "real"
    started_s, clock_s = time.monotonic(), chip.status().clock_s
    chip.evaluate(np.zeros((2, 16)), np.ones((5, 4)), "mesh0")
    assert time.monotonic() - started_s >= 0.1
    assert chip.status().clock_s - clock_s >= 0.1


def test_a_closed_chip_refuses_requests(chip: Chip) -> None:
    chip.apply(np.ones(128))
    chip.close()
    chip.close()
    assert chip.status().safe
    for call in (
        lambda: chip.apply(np.zeros(128)),
        lambda: chip.evaluate(drives_of(chip, 1), np.ones((1, 8)), "mesh0"),
        lambda: chip.load_inputs("a", np.ones((1, 8))),
    ):
        with pytest.raises(DeviceError, match="the chip is closed") as caught:
            call()
        assert (caught.value.code, caught.value.outcome) == ("device", "not_applied")


def test_threads_end_with_the_chip() -> None:
    before = set(threading.enumerate())

    def helpers() -> list[threading.Thread]:
        return [thread for thread in threading.enumerate() if thread not in before]

    chip = Chip(load_chip("ideal", ports=4), threads=3)
    assert len(helpers()) == 2
    chip.close()
    forgotten = Chip(load_chip("ideal", ports=4), threads=3)
    del forgotten
    for thread in helpers():
        thread.join(5.0)
    assert helpers() == []


def test_readings_are_bitwise_equal_from_compiled_and_cached_kernels(tmp_path: Path) -> None:
    """A session may resume in a process that compiles the kernels or in one that loads them from disk."""
    program = (
        "import hashlib, numpy as np\n"
        "from photonloop.simulator.engine.chip import Chip\n"
        "from photonloop.simulator.parameters import load_chip\n"
        "chip = Chip(load_chip('ideal', ports=16), threads=1)\n"
        "rng = np.random.default_rng(0)\n"
        "chip.apply(rng.uniform(0, 5, 512))\n"
        "values = [chip.evaluate(rng.uniform(0, 5, (3, 256)), rng.random((40, 16)), f'mesh{k}').values for k in (0, 1)]\n"
        "print(hashlib.sha256(b''.join(v.tobytes() for v in values)).hexdigest())\n"
    )
    environment = {**os.environ, "NUMBA_CACHE_DIR": str(tmp_path)}
    digests = {
        subprocess.run([sys.executable, "-c", program], env=environment, capture_output=True, text=True, check=True).stdout
        for _ in range(2)
    }
    assert any(tmp_path.rglob("*.nbc"))
    assert len(digests) == 1
    assert len(digests.pop().strip()) == 2 * hashlib.sha256().digest_size
