"""The journal: losses measured since the checkpoint, one record per update. A resumed session replays them.

A record holds a digest of the variables around which its losses were measured, and a checksum. A damaged record is not
used, and neither is one that does not follow from the checkpoint, for example after an older checkpoint was restored.

    update   count   of variables   checksum   losses
    u64      u32     u32            u32        count × f64
"""

from __future__ import annotations

import errno
import os
import struct
import zlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from photonloop.controller.learning.variables import Phases

_HEAD = struct.Struct("<QIII")
_SIGNED = struct.Struct("<QII")
_MARK = 0x504C4A31
"""Start value of the checksum. With it a record of zeros, as a power failure may leave, is not valid."""


@dataclass(frozen=True)
class Measured:
    """Losses of one update, shape (settings,), and a digest of the variables that its probes were centred on."""

    losses: NDArray[np.float64]
    around: int


def variables_digest(variables: Phases) -> int:
    """Return a digest of `variables`."""
    return zlib.crc32(np.ascontiguousarray(variables, "<f8").data)


class Journal:
    """An open journal file, for appending.

    Parameters
    ----------
    path
        The file, which is created if it does not exist. Everything after its last valid record is cut off.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self.recorded, whole = _read(path)
        """The records in the file when it was opened, by update."""
        self._file = path.open("ab", buffering=0)
        self._file.truncate(whole)

    def record(self, update: int, measured: Measured) -> None:
        """Append one record. On return it survives the end of this process.

        Raises
        ------
        OSError
            The disk is full.
        """
        losses = measured.losses.astype("<f8").tobytes()
        signed = _SIGNED.pack(update, measured.losses.size, measured.around)
        content = signed + struct.pack("<I", zlib.crc32(losses, zlib.crc32(signed, _MARK))) + losses
        if self._file.write(content) != len(content):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(self._path))

    def empty(self) -> None:
        """Remove all records."""
        self._file.truncate(0)

    def close(self) -> None:
        """Close the file."""
        self._file.close()


def _read(path: Path) -> tuple[dict[int, Measured], int]:
    """Return the records before the first invalid one, by update, and their size in bytes."""
    content = path.read_bytes() if path.exists() else b""
    recorded: dict[int, Measured] = {}
    whole = 0
    while whole + _HEAD.size <= len(content):
        update, count, around, checksum = _HEAD.unpack_from(content, whole)
        start, end = whole + _HEAD.size, whole + _HEAD.size + 8 * count
        losses = content[start:end]
        if end > len(content) or zlib.crc32(losses, zlib.crc32(content[whole : whole + _SIGNED.size], _MARK)) != checksum:
            break
        recorded[update] = Measured(np.frombuffer(losses, dtype="<f8"), around)
        whole = end
    return recorded, whole
