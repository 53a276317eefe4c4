"""`photonloop program` on virtual chips in this process."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from support.chips import chip_of
from support.known_stages import DESCRIBED, known_device

from photonloop.controller.calibration import program_device
from photonloop.controller.calibration.calibrated_device import Calibration, StageCalibration, Trouble
from photonloop.controller.calibration.calibration_file import save_calibration
from photonloop.controller.calibration.input_fields import input_couplings
from photonloop.controller.calibration.twin_misfit import ReadingNoise
from photonloop.controller.cli import program_command
from photonloop.controller.cli.main import main
from photonloop.controller.decompose.fidelity import fidelity
from photonloop.controller.decompose.targets import haar_matrix
from photonloop.controller.device.open_device import OpenDevice
from photonloop.controller.stopping import SessionStopped, Stop
from photonloop.protocols.device import DeviceStatus
from photonloop.simulator.engine.chip import Chip
from photonloop.simulator.truth.chip_truth import stage_matrix

Change = Callable[[StageCalibration], StageCalibration]


class Laboratory:
    """A chip, and the calibration file of it in a folder."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
        self.folder, self._monkeypatch, self._capsys = folder, monkeypatch, capsys
        self.file = folder / "calibration.json"
        self.held = np.empty(0)

    def calibrate(self, chip: Chip, change: Change = lambda found: found, *, steady_inputs: bool = True) -> Calibration:
        """Write a calibration with the true parameters, measured dark readings and some change of it."""
        self.chip, known = chip, known_device(chip, steady_inputs=steady_inputs)
        found = known.stages[0]
        parameters = dataclasses.replace(found.parameters, detector_dark=_dark(chip, found))
        noisy = dataclasses.replace(found, parameters=parameters, noise=ReadingNoise(dark=2e-8, relative=2e-3))
        known = dataclasses.replace(known, stages=(change(noisy),))
        save_calibration(self.file, known)
        self._monkeypatch.setattr(program_device, "open_device", self._open)
        return known

    def run(self, *options: str) -> tuple[int, str, str]:
        """Run the command; return its exit code and what it printed."""
        code = main(["program", "sim:soi", "--calibration", str(self.file), *options])
        printed = self._capsys.readouterr()
        return code, printed.out, printed.err

    def answer(self, *options: str) -> dict[str, Any]:
        code, out, err = self.run(*options, "--json")
        assert code == 0, err
        return json.loads(out)

    def _open(self, *_: Any, **__: Any) -> OpenDevice:
        close = self.chip.close

        def remember_and_close() -> None:
            self.held = self.chip.held_drive()
            close()

        self._monkeypatch.setattr(self.chip, "close", remember_and_close)
        return OpenDevice(self.chip)


@pytest.fixture
def laboratory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Laboratory:
    return Laboratory(tmp_path, monkeypatch, capsys)


def soi(ports: int = 4, seed: int = 1, **whole: Any) -> Chip:
    """A chip that its twin describes, with noise and converters.

    It has no thermal crosstalk: the file does not hold the reach, which is not the default here.
    """
    parts = {name: changes for name, changes in DESCRIBED.items() if name != "adc"} | {"crosstalk": {"fraction": 0.0}}
    return chip_of("soi", parts, quiet=False, ports=ports, seed=seed, **{"stages": 1, **whole})


def _dark(chip: Chip, found: StageCalibration) -> np.ndarray:
    chip.set_light(False)
    read = chip.evaluate(np.zeros((16, found.layout.channels)), np.zeros((8, found.layout.ports), np.float32), found.stage.name)
    chip.set_light(True)
    return read.values.mean(axis=(0, 1), dtype=np.float64)


def off(offset_rad: float) -> Change:
    """Errors of all offsets."""

    def change(found: StageCalibration) -> StageCalibration:
        error = offset_rad * np.random.default_rng(3).standard_normal(found.layout.channels)
        return dataclasses.replace(
            found, parameters=dataclasses.replace(found.parameters, offset_rad=found.parameters.offset_rad + error)
        )

    return change


def true_fidelity(laboratory: Laboratory, known: Calibration, target: np.ndarray) -> float:
    """Of the drive that was held at the end."""
    own = known.stages[0].parameters
    matrix = stage_matrix(laboratory.chip, 0, laboratory.held) @ input_couplings(own)
    return fidelity(target, matrix * np.exp(1j * own.input_phase_rad), "fixed" if known.stages[0].steady_inputs else "free")


@pytest.mark.parametrize("steady_inputs", [True, False])
def test_expected_and_measured_errors_agree(laboratory: Laboratory, steady_inputs: bool) -> None:
    known = laboratory.calibrate(soi(), steady_inputs=steady_inputs)
    answer = laboratory.answer("--matrix", "haar:1")
    assert {"device", "stage", "target", "expected", "measured", "refined", "heater_power_w", "settings", "wall_s"} <= set(answer)
    expected, measured = answer["expected"], answer["measured"]
    assert measured["tvd"] == pytest.approx(expected["tvd"], abs=1.5e-3) and measured["tvd_noise"] < 1e-3
    assert measured["power_rms"] == pytest.approx(expected["power_rms"], abs=1.5e-3)
    assert expected["fidelity"] == pytest.approx(true_fidelity(laboratory, known, haar_matrix(4, 1)), abs=2e-5)
    assert expected["input_phases"] == ("fixed" if steady_inputs else "free")
    assert answer["refined"] is None and answer["settings"] == 16
    assert laboratory.chip.status().safe


@pytest.mark.parametrize("steady_inputs", [True, False])
def test_a_refinement_finds_the_phases_that_a_calibration_has_wrong(laboratory: Laboratory, steady_inputs: bool) -> None:
    """Offsets wrong by 0.08 rad. What is left are the losses of the chip, which no phases make up for."""
    known = laboratory.calibrate(soi(seed=2), off(0.08), steady_inputs=steady_inputs)
    answer = laboratory.answer("--matrix", "haar:2", "--refine", "12")
    refined = answer["refined"]
    assert refined["kept"] and refined["tvd"] < 0.6 * refined["tvd_before"]
    assert len(refined["tvd_path"]) > 2 and answer["settings"] == 12 + 3 * 16
    assert true_fidelity(laboratory, known, haar_matrix(4, 2)) > 0.9998


def test_a_refinement_that_does_not_help_says_so(laboratory: Laboratory) -> None:
    laboratory.calibrate(chip_of("ideal", {}, ports=3, stages=1, seed=1))
    code, out, _ = laboratory.run("--matrix", "identity", "--refine", "2", "--repeats", "2")
    assert code == 0 and "does not lower the TVD" in out
    assert "expected   TVD 0 %" in out or "e-" in out.splitlines()[1]


def test_the_drive_is_held_until_the_command_is_stopped(laboratory: Laboratory, monkeypatch: pytest.MonkeyPatch) -> None:
    laboratory.calibrate(soi(seed=3))
    seen: list[DeviceStatus] = []

    class Holding(Stop):
        def pause(self, seconds: float, meanwhile: str = "") -> None:
            seen.append(laboratory.chip.status())
            raise SessionStopped

    @contextmanager
    def stopping() -> Iterator[Stop]:
        yield Holding()

    monkeypatch.setattr(program_command, "stop_on_signals", stopping)
    answer = laboratory.answer("--matrix", "dft", "--hold")
    assert not seen[0].safe and seen[0].light
    assert seen[0].heater_power_w == pytest.approx(answer["heater_power_w"], rel=1e-9)
    assert laboratory.chip.status().safe


def test_phases_from_a_file(laboratory: Laboratory) -> None:
    known = laboratory.calibrate(soi(seed=4))
    phases = np.random.default_rng(1).uniform(-2, 8, known.stages[0].layout.channels)
    path = laboratory.folder / "phases.csv"
    path.write_text("\n".join(map(str, phases)))
    answer = laboratory.answer("--phases", str(path))
    given = known.phases_of_volts(laboratory.held[np.newaxis])[0]
    assert np.abs(np.remainder(given - phases + np.pi, 2 * np.pi) - np.pi).max() < 1e-9
    assert answer["measured"]["tvd"] == pytest.approx(answer["expected"]["tvd"], abs=4e-3)


def test_channels_that_cannot_be_driven_stay_where_they_are(laboratory: Laboratory) -> None:
    """The other heaters make up for it in part."""
    dead = Trouble("dead heater", "mesh0", channels=(2,))
    laboratory.calibrate(soi(seed=5), lambda found: dataclasses.replace(found, troubles=(dead,)))
    code, out, err = laboratory.run("--matrix", "haar:1")
    assert code == 0, err
    assert laboratory.held[2] == 0
    assert "do not allow the best phases of channels 2" in out


def test_a_later_stage_is_programmed_without_measurement(laboratory: Laboratory) -> None:
    chip = soi(stages=2)
    second = chip.describe().stages[1]
    laboratory.calibrate(chip, lambda found: dataclasses.replace(found, stage=second))
    code, out, err = laboratory.run("--matrix", "haar:1")
    assert code == 0 and "measured" not in out and "gets its light through other stages" in err
    channels = slice(second.first_channel, second.first_channel + second.channels)
    assert (laboratory.held[channels] > 0).sum() > second.channels // 2 and not laboratory.held[: second.first_channel].any()


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        (("--matrix", "permutation:1,0"), "has 2 outputs, but the stage has 4"),
        (("--matrix", "half.npy"), "its distance from the nearest unitary matrix is 0.5"),
        (("--phases", "three.csv"), "has shape (3,), but stage mesh0 has 16 channels"),
        (("--phases", "three.txt"), "must be .npy or .csv"),
        (("--matrix", "dft", "--stage", "mesh7"), "stage 'mesh7' is not in the calibration"),
    ],
)
def test_targets_that_are_refused(
    laboratory: Laboratory, monkeypatch: pytest.MonkeyPatch, options: tuple[str, ...], sentence: str
) -> None:
    laboratory.calibrate(soi())
    monkeypatch.chdir(laboratory.folder)
    np.save("half.npy", np.diag([1.0, 1.0, 0.5, 1.0]))
    Path("three.csv").write_text("1,2,3")
    code, _, err = laboratory.run(*options)
    assert code == 1 and sentence in err
    assert laboratory.held.size == 0  # the device was not opened


def test_a_calibration_of_another_chip_is_refused_unless_told_otherwise(laboratory: Laboratory) -> None:
    laboratory.calibrate(soi(seed=6))
    laboratory.chip = soi(seed=7)
    code, _, err = laboratory.run("--matrix", "dft")
    assert code == 1 and "the calibration is of another device" in err
    laboratory.chip = soi(seed=7)
    code, _, err = laboratory.run("--matrix", "dft", "--other-device")
    assert code == 0 and "warning: the calibration is of another device" in err
