"""Write a file so that readers, and a crash at any time, see either the old content or the new one."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO


def write_atomically(path: Path, content: bytes | Callable[[BinaryIO], object]) -> None:
    """Write `content` to a file beside `path`, flush it to the disk, and rename it to `path`.

    Parameters
    ----------
    path
        The file; its folder must exist.
    content
        The bytes, or a function that writes them to an open file.

    Raises
    ------
    OSError
        The file cannot be written; `path` is unchanged.
    """
    beside = path.with_name(path.name + ".tmp")
    with beside.open("wb") as file:
        if callable(content):
            content(file)
        else:
            file.write(content)
        file.flush()
        os.fsync(file.fileno())
    beside.replace(path)
