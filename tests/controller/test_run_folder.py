"""Run folders after sessions that were killed, with damaged files, and of other versions."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from photonloop.controller.cli.main import main
from photonloop.controller.data.datasets import DataSpec
from photonloop.controller.learning.optimizers import Moments
from photonloop.controller.runs.checkpoint import RUN_FORMAT, Checkpoint, from_arrays, to_arrays
from photonloop.controller.runs.journal import Measured
from photonloop.controller.runs.provenance import open_run, with_absolute_paths
from photonloop.controller.runs.run_folder import (
    CHECKPOINT,
    EXPERIMENT,
    JOURNAL,
    METRICS,
    RunFolder,
    new_run,
    read_checkpoint,
    read_events,
)
from photonloop.protocols.config import ConfigError


def test_journal_survives_a_record_cut_short(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path)
    for update in range(3):
        folder.record(update, Measured(np.array([0.1 * update, 0.5]), 7))
    folder.close()
    journal = tmp_path / JOURNAL
    journal.write_bytes(journal.read_bytes()[:-5])
    folder = RunFolder(tmp_path)
    recorded = folder.take_journal()
    assert sorted(recorded) == [0, 1]
    assert recorded[1].losses.tolist() == [0.1, 0.5]
    assert recorded[1].around == 7
    folder.record(2, Measured(np.array([7.0, 8.0]), 9))
    folder.close()
    recorded = RunFolder(tmp_path).take_journal()
    assert recorded[2].losses.tolist() == [7.0, 8.0]


@pytest.mark.parametrize("damage", range(0, 108, 7))
def test_damaged_records_of_the_journal_are_not_used(tmp_path: Path, damage: int) -> None:
    folder = RunFolder(tmp_path)
    losses = {update: np.array([0.25 + update, 0.5]) for update in range(3)}
    for update, measured in losses.items():
        folder.record(update, Measured(measured, update))
    folder.close()
    journal = tmp_path / JOURNAL
    content = bytearray(journal.read_bytes())
    content[damage] ^= 4
    journal.write_bytes(content)
    recorded = RunFolder(tmp_path).take_journal()
    assert sorted(recorded) == list(range(damage // 36))
    for update, measured in recorded.items():
        assert measured.losses.tolist() == losses[update].tolist()


def test_a_journal_of_zeros_has_no_records(tmp_path: Path) -> None:
    (tmp_path / JOURNAL).write_bytes(bytes(4096))
    folder = RunFolder(tmp_path)
    assert folder.take_journal() == {}
    assert (tmp_path / JOURNAL).stat().st_size == 0


def test_a_checkpoint_empties_the_journal(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path)
    folder.record(0, Measured(np.zeros(2), 0))
    folder.checkpoint({"x": np.arange(3)})
    folder.record(1, Measured(np.ones(2), 0))
    folder.close()
    assert sorted(RunFolder(tmp_path).take_journal()) == [1]
    assert read_checkpoint(tmp_path)["x"].tolist() == [0, 1, 2]


def test_events_survive_a_line_cut_short(tmp_path: Path) -> None:
    (tmp_path / METRICS).write_text('{"event": "start"}\n{"event": "epo', encoding="utf-8")
    folder = RunFolder(tmp_path)
    folder.event("resume", update=3)
    folder.close()
    assert [event["event"] for event in read_events(tmp_path)] == ["start", "resume"]


def test_two_sessions_cannot_open_one_run_folder(tmp_path: Path) -> None:
    first = RunFolder(tmp_path)
    with pytest.raises(ConfigError, match="in use by another session"):
        RunFolder(tmp_path)
    first.close()
    RunFolder(tmp_path).close()


def test_new_runs_of_one_name_get_folders_of_their_own(tmp_path: Path) -> None:
    assert [new_run(tmp_path, "a").name for _ in range(3)] == ["a", "a-2", "a-3"]


@pytest.mark.parametrize("damage", [lambda b: b[: len(b) // 2], lambda b: b"", lambda b: b"not a zip" * 9, lambda b: b[:-30]])
def test_a_damaged_checkpoint_is_refused_in_one_sentence(tmp_path: Path, damage) -> None:
    folder = RunFolder(tmp_path)
    folder.checkpoint({"x": np.arange(1000)})
    folder.close()
    file = tmp_path / CHECKPOINT
    file.write_bytes(damage(file.read_bytes()))
    with pytest.raises(ConfigError, match="is damaged") as caught:
        read_checkpoint(tmp_path)
    assert "\n" not in str(caught.value)


def some_state() -> Checkpoint:
    return Checkpoint(
        variables=[np.array([0.1, 0.2]), np.array([1.0, 2.0])],
        initial=[np.array([0.0, 0.3]), np.array([1.5, 2.5])],
        moments=Moments(7, np.array([0.5, 0.5]), np.array([0.25, 1e-300])),
        update=7,
        total=19,
        evaluations=38,
        loss_sum=0.1 + 0.2,
        loss_count=2,
        steps=[0.05, 0.06],
    )


def test_a_checkpoint_is_written_and_read_bit_for_bit(tmp_path: Path) -> None:
    folder, state = RunFolder(tmp_path), some_state()
    folder.checkpoint(to_arrays(state, 3))
    before = (tmp_path / CHECKPOINT).read_bytes()
    again = from_arrays(read_checkpoint(tmp_path), 3, "here")
    assert again.loss_sum == state.loss_sum
    assert again.moments is not None
    assert again.moments.second[1] == 1e-300
    folder.checkpoint(to_arrays(again, 3))
    assert (tmp_path / CHECKPOINT).read_bytes() == before


def test_a_checkpoint_of_another_seed_or_with_missing_arrays_is_refused() -> None:
    arrays = to_arrays(some_state(), 3)
    with pytest.raises(ConfigError, match="here has seed 3, but the run has seed 4"):
        from_arrays(arrays, 4, "here")
    for missing in ("meta", "variables_1", "second"):
        with pytest.raises(ConfigError, match="is damaged"):
            from_arrays({k: v for k, v in arrays.items() if k != missing}, 3, "here")
    with pytest.raises(ConfigError, match="is damaged"):
        from_arrays({**arrays, "variables_0": np.array([np.nan, 0.0])}, 3, "here")


def test_a_checkpoint_of_another_format_is_refused() -> None:
    arrays = to_arrays(some_state(), 3)
    older = str(arrays["meta"]).replace(f'"format": {RUN_FORMAT}', '"format": 1')
    with pytest.raises(ConfigError, match=f"here has run format 1, but this version reads {RUN_FORMAT}: start a new run"):
        from_arrays({**arrays, "meta": np.array(older)}, 3, "here")


def old_run(folder: Path, start: str) -> Path:
    """Return a hand-made run of another format, with a key in its experiment that this version does not have."""
    run = folder / "old"
    run.mkdir()
    (run / EXPERIMENT).write_text('name = "old"\nno_longer_a_key = 3\n[data]\nsource = "iris"\n', encoding="utf-8")
    (run / METRICS).write_text(f'{{"event": "warning"}}\n{start}\n{{"event": "epoch"}}\n', encoding="utf-8")
    return run


@pytest.mark.parametrize(
    ("start", "sentence"),
    [
        ('{"event": "start", "seed": 0}', "an earlier version of photonloop (run format 1, this version reads 3)"),
        ('{"event": "start", "run_format": 1}', "an earlier version of photonloop (run format 1, this version reads 3)"),
        ('{"event": "start", "run_format": 4}', "another version of photonloop (run format 4, this version reads 3)"),
    ],
)
@pytest.mark.parametrize("command", [("train", "--resume"), ("evaluate",), ("report",)])
def test_runs_of_another_format_are_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], command: tuple[str, ...], start: str, sentence: str
) -> None:
    run = old_run(tmp_path, start)
    before = sorted(path.name for path in run.iterdir())
    assert main([*command, str(run)]) == 1
    printed = capsys.readouterr()
    assert printed.err == f"photonloop {command[0]}: run {run} was written by {sentence}: start a new run\n"
    assert not printed.out
    assert sorted(path.name for path in run.iterdir()) == before


def test_a_run_killed_before_its_first_event_can_be_opened(tmp_path: Path) -> None:
    (tmp_path / EXPERIMENT).write_text('name = "young"\n[data]\nsource = "iris"\n', encoding="utf-8")
    assert open_run(tmp_path).name == "young"


def test_the_run_keeps_the_absolute_path_of_the_mnist_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "mnist.npz").touch()
    monkeypatch.setenv("PHOTONLOOP_DATA", str(tmp_path))
    kept = with_absolute_paths(DataSpec(source="mnist"))
    assert kept.path == str(tmp_path / "mnist.npz")
    monkeypatch.delenv("PHOTONLOOP_DATA")
    assert with_absolute_paths(kept).path == kept.path
    assert with_absolute_paths(DataSpec(source="mnist")).path is None
    assert with_absolute_paths(DataSpec(source="iris")).path is None
