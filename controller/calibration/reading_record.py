"""Readings of a calibration on disk, and their replay: a calibration that was killed continues where it stopped.

    calibration.json.parts/
        header.json      the device, the options and the seed
        000000.npz …     the answer to each request for readings, in the order of the requests
        log.txt          messages to the user

A calibration is determined by its seed and its readings. A resumed one repeats the same computation. As long as there
are recorded answers, it takes them from the disk, and the device is not used. Then it loads the inputs, restores the
light and the held drive, and goes on measuring.
"""

from __future__ import annotations

import fcntl
import shutil
import zlib
from collections.abc import Callable
from datetime import UTC, datetime
from itertools import count
from pathlib import Path
from typing import IO, Annotated, Any

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from photonloop.controller.calibration.calibration_options import CalibrationOptions
from photonloop.controller.device.processes import VirtualChip
from photonloop.controller.runs.npz_files import read_npz, write_npz
from photonloop.protocols.atomic_files import write_atomically
from photonloop.protocols.config import ConfigError
from photonloop.protocols.device import DeviceDescription

RECORD_FORMAT = 1
"""Version of the folder's format."""

HEADER, LOG = "header.json", "log.txt"


class RecordHeader(BaseModel):
    """What a folder of recorded readings belongs to.

    Parameters
    ----------
    began
        Date and time in UTC, in ISO format.
    address
        Device string.
    chip
        Ports, stages and seed of a virtual chip.
    options
        Options of the calibration.
    lease_key
        Key of the write lease: a resumed calibration takes over the lease of the one that was killed.
    device
        Description of the device.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    record_format: Annotated[int, Field(ge=RECORD_FORMAT, le=RECORD_FORMAT)] = RECORD_FORMAT
    began: str
    address: str
    chip: VirtualChip
    options: CalibrationOptions
    lease_key: str
    device: DeviceDescription


def parts_folder(output: Path) -> Path:
    """Return the folder of the readings for a calibration that is written to `output`."""
    return output.with_name(output.name + ".parts")


def read_header(folder: Path) -> RecordHeader:
    """Return the header of a folder of recorded readings.

    Raises
    ------
    ConfigError
        The folder has no header, or one that is damaged or of another version.
    """
    again = "delete the folder to begin anew"
    try:
        return RecordHeader.model_validate_json((folder / HEADER).read_bytes())
    except FileNotFoundError:
        raise ConfigError(f"{folder} has no {HEADER}, so its readings cannot be used: {again}") from None
    except ValidationError as error:
        (first, *_) = error.errors(include_url=False)
        if first["loc"] == ("record_format",):
            raise ConfigError(f"{folder} was written by another version of photonloop: {again}") from None
        raise ConfigError(f"{folder / HEADER} is damaged: {again}") from None


def new_record(folder: Path, header: RecordHeader) -> ReadingRecord:
    """Create a folder of recorded readings and open it."""
    folder.mkdir()
    write_atomically(folder / HEADER, header.model_dump_json(indent=1).encode())
    return ReadingRecord(folder, header)


def open_record(folder: Path) -> ReadingRecord:
    """Open an existing folder of recorded readings.

    Raises
    ------
    ConfigError
        Another calibration has the folder open, or its header cannot be used.
    """
    return ReadingRecord(folder, read_header(folder))


class ReadingRecord:
    """The open folder of recorded readings of one calibration. While it is open, no other calibration can open it.

    Parameters
    ----------
    folder
        The folder, which must exist.
    header
        Its header.

    Raises
    ------
    ConfigError
        Another calibration has the folder open.

    Attributes
    ----------
    recorded, replayed
        Number of answers on the disk, and of those that `answer` has returned.
    """

    def __init__(self, folder: Path, header: RecordHeader) -> None:
        self.folder, self.header = folder, header
        self._log: IO[str] = (folder / LOG).open("a", encoding="utf-8")
        try:
            fcntl.flock(self._log, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            self._log.close()
            raise ConfigError(f"{folder} is in use by another calibration: wait for its end, or stop it first") from None
        self.replayed = 0
        self.recorded = next(number for number in count() if not self._path(number).exists())

    @property
    def replays(self) -> bool:
        """Whether the next answer is recorded."""
        return self.replayed < self.recorded

    def answer(self, request: int, names: tuple[str, ...], measure: Callable[[], dict[str, Any]]) -> dict[str, NDArray[Any]]:
        """Return the recorded answer to the next request, or measure and record it.

        Parameters
        ----------
        request
            Digest of the request. If another one was recorded at this place, that record and all later ones are
            discarded.
        names
            Names of the arrays of the answer.
        measure
            Asks the device.

        Raises
        ------
        ConfigError
            The recorded answer is damaged.
        """
        path = self._path(self.replayed)
        if self.replays:
            try:
                found = read_npz(path)
            except ConfigError as error:
                raise ConfigError(f"{error}: delete it, and the readings from there on are measured again") from None
            if int(found.pop("request", np.array(-1))) == request and set(found) == set(names):
                self.replayed += 1
                return found
            self.discard(f"from number {self.replayed} on, the recorded readings are of other settings: they are measured again")
        found = measure()
        write_npz(path, {"request": np.uint32(request), **found})
        self.replayed = self.recorded = self.replayed + 1
        return found

    def discard(self, reason: str) -> None:
        """Delete the records that are not replayed yet."""
        self.log(f"warning: {reason}")
        for number in range(self.recorded - 1, self.replayed - 1, -1):  # the last first: no gap if this is interrupted
            self._path(number).unlink()
        self.recorded = self.replayed

    def log(self, message: str) -> None:
        """Append one line to the log."""
        self._log.write(f"{utc_now()} {message}\n")
        self._log.flush()

    def close(self) -> None:
        """Close the folder, so that another calibration can open it."""
        self._log.close()

    def delete(self) -> None:
        """Close the folder and delete it."""
        # Without a header it is not taken for a calibration to be continued, should the deletion be interrupted.
        (self.folder / HEADER).unlink()
        self.close()
        shutil.rmtree(self.folder)

    def _path(self, number: int) -> Path:
        return self.folder / f"{number:06d}.npz"


def digest(*parts: NDArray[Any] | str) -> int:
    """Return a checksum of a request."""
    found = 0
    for part in parts:
        found = zlib.crc32(part.encode() if isinstance(part, str) else np.ascontiguousarray(part).tobytes(), found)
    return found


def utc_now() -> str:
    """Return the date and time in UTC, in ISO format."""
    return datetime.now(UTC).isoformat(timespec="seconds")
