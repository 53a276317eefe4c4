"""Files with one wrong byte: reading either raises one sentence or returns exactly what was written."""

from __future__ import annotations

import warnings
from pathlib import Path

import numpy as np
import pytest

from photonloop.controller.learning.optimizers import Moments
from photonloop.controller.report.run_contents import read_run_contents
from photonloop.controller.runs.checkpoint import Checkpoint, from_arrays, to_arrays
from photonloop.controller.runs.npz_files import read_npz, write_npz
from photonloop.controller.runs.run_folder import CHECKPOINT, EVALUATION, EXPERIMENT, read_checkpoint
from photonloop.protocols.config import ConfigError


def a_checkpoint(path: Path) -> Checkpoint:
    rng = np.random.default_rng(0)
    state = Checkpoint(
        variables=[rng.random(4)], initial=[rng.random(4)], base=rng.random(4), moments=Moments(7, rng.random(4), rng.random(4))
    )
    state.steps, state.update = [0.05], 7
    write_npz(path, to_arrays(state, 3))
    return state


def damaged(content: bytes, seed: int) -> list[bytes]:
    """Return `content` with one byte wrong: each byte once, by a random amount."""
    rng = np.random.default_rng(seed)
    changes = rng.integers(1, 256, len(content))
    return [content[:at] + bytes([content[at] ^ int(change)]) + content[at + 1 :] for at, change in enumerate(changes)]


def test_a_checkpoint_with_one_wrong_byte_is_refused_or_unchanged(tmp_path: Path) -> None:
    file = tmp_path / CHECKPOINT
    a_checkpoint(file)
    whole, content, refused = read_npz(file), file.read_bytes(), 0
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for wrong in damaged(content, 0):
            file.write_bytes(wrong)
            try:
                arrays = read_checkpoint(tmp_path)
                from_arrays(arrays, 3, "checkpoint")
            except ConfigError as error:
                assert "\n" not in str(error) and "damaged" in str(error)
                refused += 1
            else:  # a date, for example, which is not used
                assert arrays.keys() == whole.keys()
                for name, array in arrays.items():
                    np.testing.assert_array_equal(array, whole[name])
    assert refused > 0.7 * len(content)


def test_cut_short_or_overwritten_it_is_one_sentence(tmp_path: Path) -> None:
    file = tmp_path / CHECKPOINT
    a_checkpoint(file)
    content, rng = file.read_bytes(), np.random.default_rng(1)
    for _ in range(200):
        start, stop = np.sort(rng.integers(0, len(content), 2))
        for wrong in (content[:start], content[:start] + rng.bytes(int(stop - start)) + content[stop:], content[start:]):
            file.write_bytes(wrong)
            if wrong == content:
                continue
            with pytest.raises(ConfigError, match="damaged"):
                from_arrays(read_checkpoint(tmp_path), 3, "checkpoint")


def test_an_evaluation_with_one_wrong_byte_is_remarked_or_unchanged(tmp_path: Path) -> None:
    (tmp_path / EXPERIMENT).write_text("name = 'x'\n", encoding="utf-8")
    (tmp_path / "metrics.jsonl").write_text("", encoding="utf-8")
    file, rng = tmp_path / EVALUATION, np.random.default_rng(2)
    labels = np.arange(6) % 2
    arrays = {"y_true": labels, "vote": labels, "layer_predictions": labels[np.newaxis], "classes": np.array(["a", "b"])}
    write_npz(file, {**arrays, "class_readings_0": rng.random((2, 4), np.float32)})
    whole = read_run_contents(tmp_path).evaluation
    assert whole is not None
    remarked = 0
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for wrong in damaged(file.read_bytes(), 3):
            file.write_bytes(wrong)
            contents = read_run_contents(tmp_path)
            if contents.evaluation is None:
                assert any("evaluation.npz is damaged" in remark for remark in contents.remarks)
                remarked += 1
            else:
                assert repr(contents.evaluation) == repr(whole)
    assert remarked > 0


def test_a_folder_in_place_of_the_file_is_one_sentence(tmp_path: Path) -> None:
    (tmp_path / CHECKPOINT).mkdir()
    with pytest.raises(ConfigError, match=r"checkpoint.npz cannot be read: Is a directory"):
        read_checkpoint(tmp_path)
