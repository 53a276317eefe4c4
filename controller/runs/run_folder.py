"""The run folder: all files that a session writes. A process that is killed loses at most its last update.

    experiment.toml   the experiment, with all defaults
    calibration.json  the calibration, if the variables are calibrated phases
    device.json       description of the device
    metrics.jsonl     events, one per line, appended
    checkpoint.npz    state of the session, replaced atomically
    journal.bin       losses measured since the checkpoint, one record per update
    evaluation.npz    predictions and readings on the test set
    log.txt           messages to the user
    report.html       report

A checkpoint every few seconds with a journal in between costs less than a checkpoint per update, and loses no more. The
measured losses determine an update, so a resumed session replays the journal without the device and obtains the same
variables, bit for bit.
"""

from __future__ import annotations

import fcntl
import json
import os
import platform
from collections.abc import Mapping
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import IO, Any

from numpy.typing import NDArray

from photonloop.controller.runs.journal import Journal, Measured
from photonloop.controller.runs.npz_files import read_npz, write_npz
from photonloop.protocols.config import ConfigError

EXPERIMENT, DEVICE, METRICS = "experiment.toml", "device.json", "metrics.jsonl"
CHECKPOINT, JOURNAL, EVALUATION = "checkpoint.npz", "journal.bin", "evaluation.npz"
LOG, REPORT = "log.txt", "report.html"


class RunFolder:
    """The open run folder of one session. While it is open, no other session can open it.

    Parameters
    ----------
    path
        The folder, which must exist.

    Raises
    ------
    ConfigError
        Another session has the folder open.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._metrics: IO[str] = (path / METRICS).open("a", encoding="utf-8")
        try:
            fcntl.flock(self._metrics, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            self._metrics.close()
            raise ConfigError(f"run {path} is in use by another session: wait for its end, or stop it first") from None
        self._log: IO[str] = (path / LOG).open("a", encoding="utf-8")
        self._journal = Journal(path / JOURNAL)
        self._recorded = self._journal.recorded
        _end_line(path / METRICS, self._metrics)

    def event(self, event: str, **fields: Any) -> None:
        """Append one event to the metrics. On return it survives the end of this process."""
        self._metrics.write(json.dumps({"event": event, "time": _now(), **fields}, ensure_ascii=False) + "\n")
        self._metrics.flush()

    def log(self, message: str) -> None:
        """Append one line to the log."""
        self._log.write(f"{_now()} {message}\n")
        self._log.flush()

    def record(self, update: int, measured: Measured) -> None:
        """Append the losses measured for update number `update` to the journal."""
        self._journal.record(update, measured)

    @property
    def journalled(self) -> int:
        """Number of updates in the journal that `take_journal` has not returned."""
        return len(self._recorded)

    def take_journal(self) -> dict[int, Measured]:
        """Return the losses measured by an earlier session after its checkpoint, by update; later calls return none."""
        recorded, self._recorded = self._recorded, {}
        return recorded

    def checkpoint(self, arrays: Mapping[str, Any]) -> None:
        """Replace the checkpoint, then empty the journal.

        If the process is killed in between, the new checkpoint is used, and the journal's records of earlier updates
        are ignored.
        """
        write_npz(self.path / CHECKPOINT, arrays)
        self._journal.empty()

    def close(self) -> None:
        """Close the files, so that another session can open the folder."""
        for file in (self._metrics, self._log, self._journal):
            file.close()


def new_run(parent: Path, name: str) -> Path:
    """Create and return the folder parent/name; parent/name-2 and so on if runs of that name exist."""
    parent.mkdir(parents=True, exist_ok=True)
    number = 1
    while True:
        path = parent / (name if number == 1 else f"{name}-{number}")
        try:
            path.mkdir()
        except FileExistsError:
            number += 1
        else:
            return path


def read_checkpoint(path: Path) -> dict[str, NDArray[Any]]:
    """Return the arrays of the checkpoint in run folder `path`; empty if there is none yet.

    Raises
    ------
    ConfigError
        The checkpoint is damaged.
    """
    file = path / CHECKPOINT
    if not file.exists():
        return {}
    try:
        return read_npz(file)
    except ConfigError as error:
        raise ConfigError(f"checkpoint {error}: put back a copy of it, or start a new run") from None


def read_events(path: Path) -> list[dict[str, Any]]:
    """Return the events of run folder `path`. Incomplete lines are left out."""
    try:
        # A killed process may leave half a character, which must not hide the other lines. Only "\n" ends a line.
        lines = (path / METRICS).read_text(encoding="utf-8", errors="replace").split("\n")
    except FileNotFoundError:
        return []
    events: list[dict[str, Any]] = []
    for line in lines:
        try:
            event = json.loads(line)
        except json.JSONDecodeError:
            continue  # the last line of a process that was killed
        if isinstance(event, dict):
            events.append(event)
    return events


def versions() -> dict[str, str]:
    """Return the versions of Python and of the packages that affect the numbers of a run."""
    packages = ("photonloop", "numpy", "numba", "pyzmq", "scikit-learn")
    return {"python": platform.python_version(), **{package: version(package) for package in packages}}


def _end_line(path: Path, appended: IO[str]) -> None:
    """Append a line end if a killed session left the last line without one."""
    with path.open("rb") as file:
        if file.seek(0, os.SEEK_END) == 0:
            return
        file.seek(-1, os.SEEK_END)
        if file.read(1) != b"\n":
            appended.write("\n")
            appended.flush()


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="milliseconds")
