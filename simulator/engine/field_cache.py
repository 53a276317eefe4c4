"""Cache of the fields that loaded inputs have at later stages, valid until an earlier stage changes."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class CachedFields:
    """Fields that enter one stage, one row per row of a loaded array; only the rows in `is_known` are valid."""

    versions: tuple[int, ...]
    field: NDArray[np.float32]
    is_known: NDArray[np.bool_]


class FieldCache:
    """A least-recently-used cache of fields, by name of the loaded inputs and number of the stage.

    Parameters
    ----------
    max_bytes
        Most memory [bytes] that all fields together may take. Fields that alone need more are not cached.
    """

    def __init__(self, max_bytes: int) -> None:
        self._max_bytes = max_bytes
        self._kept: dict[tuple[str, int], CachedFields] = {}

    def fields(self, name: str, stage: int, shape: tuple[int, ...], versions: tuple[int, ...]) -> CachedFields | None:
        """Return the fields of loaded inputs of `shape` (rows, ports, …) at `stage` for the held drives of `versions`.

        If the drives have changed since the last call, no row is marked as known. Returns None if the fields need more
        memory than `max_bytes`.
        """
        rows, ports = shape[0], shape[1]
        need = rows * ports * 8
        if need > self._max_bytes:
            return None
        kept = self._kept.pop((name, stage), None)
        if kept is None:
            while self._kept and need + sum(other.field.nbytes for other in self._kept.values()) > self._max_bytes:
                del self._kept[next(iter(self._kept))]
            kept = CachedFields(versions, np.empty((rows, ports, 2), np.float32), np.zeros(rows, np.bool_))
        elif kept.versions != versions:
            kept = CachedFields(versions, kept.field, np.zeros(rows, np.bool_))
        self._kept[name, stage] = kept  # the most recently used comes last
        return kept

    def forget(self, name: str) -> None:
        """Forget everything about the loaded inputs `name`."""
        for key in [key for key in self._kept if key[0] == name]:
            del self._kept[key]
