"""Fields that loaded inputs have at later stages, kept while nothing before those stages changes."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class Fields:
    """Fields entering one stage, row by row of a loaded array; only the rows in `is_known` are filled in."""

    versions: tuple[int, ...]
    field: NDArray[np.float32]
    is_known: NDArray[np.bool_]


class FieldCache:
    """What is kept, by name of the loaded inputs and number of the stage; the longest unused goes first.

    Parameters
    ----------
    max_bytes
        All fields together never take more. What does not fit alone is never kept.
    """

    def __init__(self, max_bytes: int) -> None:
        self._max_bytes = max_bytes
        self._kept: dict[tuple[str, int], Fields] = {}

    def fields(self, name: str, stage: int, shape: tuple[int, ...], versions: tuple[int, ...]) -> Fields | None:
        """Return the fields of loaded inputs of `shape` (rows, ports, …) at `stage` for the held drives of `versions`.

        They come with no row known where the drives have changed; None where they take too much memory to be kept.
        """
        rows, ports = shape[0], shape[1]
        need = rows * ports * 8
        if need > self._max_bytes:
            return None
        kept = self._kept.pop((name, stage), None)
        if kept is None:
            while self._kept and need + sum(other.field.nbytes for other in self._kept.values()) > self._max_bytes:
                del self._kept[next(iter(self._kept))]
            kept = Fields(versions, np.empty((rows, ports, 2), np.float32), np.zeros(rows, np.bool_))
        elif kept.versions != versions:
            kept = Fields(versions, kept.field, np.zeros(rows, np.bool_))
        self._kept[name, stage] = kept  # the latest used comes last
        return kept

    def forget(self, name: str) -> None:
        """Forget everything about the loaded inputs `name`."""
        for key in [key for key in self._kept if key[0] == name]:
            del self._kept[key]
