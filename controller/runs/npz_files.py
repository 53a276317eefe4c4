"""Write and read .npz files that are replaced atomically and checked for damage.

If any byte of a file is wrong, `read_npz` either raises `ConfigError` or returns exactly what was written: it compares
the checksum of every array before NumPy reads it.
"""

from __future__ import annotations

import io
import struct
import warnings
import zipfile
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from photonloop.protocols.atomic_files import write_atomically
from photonloop.protocols.config import ConfigError

DAMAGED = (
    OSError,
    EOFError,
    ValueError,
    TypeError,
    LookupError,
    ArithmeticError,
    RuntimeError,  # and NotImplementedError, for an unknown compression
    MemoryError,
    SyntaxError,  # the header of an array is a Python literal
    UserWarning,  # a header in the format of an old NumPy
    struct.error,
    zipfile.BadZipFile,
    zlib.error,
)
"""Exceptions that zipfile and NumPy raise for a damaged file."""


def write_npz(path: Path, arrays: Mapping[str, Any]) -> None:
    """Write arrays to an uncompressed .npz file, which replaces `path` atomically. Equal arrays give equal bytes."""
    write_atomically(path, lambda file: np.savez(file, allow_pickle=False, **arrays))


def read_npz(path: Path) -> dict[str, NDArray[Any]]:
    """Return the arrays of the .npz file at `path`, by name.

    Raises
    ------
    ConfigError
        The file is damaged or cannot be read.
    """
    try:
        content = path.read_bytes()
    except OSError as error:
        raise ConfigError(f"{path} cannot be read: {error.strerror or error}") from None
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            with zipfile.ZipFile(io.BytesIO(content)) as archive:
                if (bad := archive.testzip()) is not None:
                    raise ConfigError(f"{path} is damaged: the checksum of {bad} is wrong")
            with np.load(io.BytesIO(content), allow_pickle=False) as arrays:
                return {name: arrays[name] for name in arrays.files}
    except ConfigError:
        raise
    except DAMAGED:
        raise ConfigError(f"{path} is damaged") from None
