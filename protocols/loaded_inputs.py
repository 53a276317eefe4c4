"""Inputs that a device keeps under names, within the limit `max_loaded_bytes`."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from photonloop.protocols.device import LoadedRows
from photonloop.protocols.errors import DeviceError
from photonloop.protocols.limits import check_loaded_rows


class LoadedInputs:
    """Arrays of inputs by name, shape (samples, …); what `PhotonicDevice.load_inputs` keeps.

    Parameters
    ----------
    max_bytes
        Limit on the bytes of all arrays together, `LimitsDescription.max_loaded_bytes`.

    Examples
    --------
    >>> loaded = LoadedInputs(max_bytes=64)
    >>> loaded.load("train", np.eye(3, 4, dtype=np.float32))
    >>> loaded.rows(LoadedRows("train", np.array([2, 0])))
    array([[0., 0., 1., 0.],
           [1., 0., 0., 0.]], dtype=float32)
    """

    def __init__(self, max_bytes: int) -> None:
        self._max_bytes = max_bytes
        self._arrays: dict[str, NDArray[Any]] = {}
        self._nbytes: dict[str, int] = {}

    @property
    def total_bytes(self) -> int:
        """Bytes that count towards the limit."""
        return sum(self._nbytes.values())

    def check_room(self, name: str, nbytes: int) -> None:
        """Check that an array of `nbytes` bytes may be loaded under `name`, in place of an older array of that name.

        Raises
        ------
        DeviceError
            "limit" if all arrays together would exceed the limit.
        """
        total = self.total_bytes - self._nbytes.get(name, 0) + nbytes
        if total > self._max_bytes:
            raise DeviceError(
                "limit",
                f"inputs {name!r} would bring the loaded inputs to {total} bytes, more than max_loaded_bytes "
                f"{self._max_bytes}: load fewer samples",
            )

    def load(self, name: str, array: NDArray[Any], nbytes: int | None = None) -> None:
        """Keep `array`, without a copy, in place of an older array of that name.

        Parameters
        ----------
        nbytes
            Bytes that count towards the limit, if a device keeps its inputs in another form than they were sent in.

        Raises
        ------
        DeviceError
            "limit" if all arrays together would exceed the limit; nothing is changed then.
        """
        nbytes = array.nbytes if nbytes is None else nbytes
        self.check_room(name, nbytes)
        self._arrays[name] = array
        self._nbytes[name] = nbytes

    def array(self, name: str) -> NDArray[Any]:
        """Return the array that was loaded under `name`; KeyError if there is none."""
        return self._arrays[name]

    def row_numbers(self, rows: LoadedRows) -> NDArray[np.int64]:
        """Return the checked row numbers of `rows`.

        Raises
        ------
        DeviceError
            "bad_request" for an unknown name, no rows, or a row that the array does not have.
        """
        return check_loaded_rows(rows, {name: array.shape[0] for name, array in self._arrays.items()})

    def rows(self, rows: LoadedRows) -> NDArray[Any]:
        """Return a copy of these rows; raises as `row_numbers` does."""
        numbers = self.row_numbers(rows)
        return self._arrays[rows.name][numbers]
