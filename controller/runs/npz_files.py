"""Arrays by name in an .npz: readers see the old file or the new one, and no damage passes for data.

Whatever byte of an archive is wrong, `read_npz` either raises one `ConfigError` or returns exactly what was written: the
checksum of every array is compared before NumPy sees a byte of it.
"""

from __future__ import annotations

import io
import os
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
    RuntimeError,  # NotImplementedError is one: a compression that does not exist
    MemoryError,
    SyntaxError,  # from the header of an array, which is a Python literal
    UserWarning,  # of a header that another NumPy would have to repair
    struct.error,
    zipfile.BadZipFile,
    zlib.error,
)
"""What zipfile and NumPy raise for bytes that are no archive; which one of them says nothing to a user."""


def write_npz(path: Path, arrays: Mapping[str, Any]) -> None:
    """Write arrays to an uncompressed .npz at `path`, atomically. Equal arrays give equal bytes."""
    write_atomically(path, lambda file: np.savez(file, allow_pickle=False, **arrays))


def read_npz(path: Path) -> dict[str, NDArray[Any]]:
    """Return the arrays of the .npz at `path`.

    Raises
    ------
    ConfigError
        It is damaged, or cannot be read.
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
                    raise ConfigError(f"{path} is damaged: {bad} is not what was written")
            with np.load(io.BytesIO(content), allow_pickle=False) as arrays:
                return {name: arrays[name] for name in arrays.files}
    except ConfigError:
        raise
    except DAMAGED:
        raise ConfigError(f"{path} is damaged") from None
