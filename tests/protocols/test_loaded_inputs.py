"""Loaded inputs: rows by name, within one limit for all names."""

from __future__ import annotations

import numpy as np
import pytest

from photonloop.protocols.device import LoadedRows
from photonloop.protocols.errors import DeviceError
from photonloop.protocols.loaded_inputs import LoadedInputs

ARRAY = np.arange(12, dtype=np.float32).reshape(3, 4)


def test_rows_are_copies_in_the_order_asked_for() -> None:
    loaded = LoadedInputs(max_bytes=100)
    loaded.load("a", ARRAY)
    rows = loaded.rows(LoadedRows("a", np.array([2, 0, 2])))
    np.testing.assert_array_equal(rows, ARRAY[[2, 0, 2]])
    assert not np.shares_memory(rows, ARRAY)
    assert loaded.array("a") is ARRAY


def test_the_limit_counts_all_names_and_a_replaced_array_only_once() -> None:
    loaded = LoadedInputs(max_bytes=100)
    loaded.load("a", ARRAY)
    loaded.load("a", ARRAY)
    loaded.load("b", ARRAY)
    assert loaded.total_bytes == 96
    with pytest.raises(
        DeviceError, match="inputs 'c' would bring the loaded inputs to 144 bytes, more than max_loaded_bytes 100"
    ) as e:
        loaded.load("c", ARRAY)
    assert (e.value.code, e.value.outcome) == ("limit", "not_applied")
    with pytest.raises(DeviceError, match="to 101 bytes"):
        loaded.load("b", np.zeros((1, 4), np.float32), nbytes=53)
    np.testing.assert_array_equal(loaded.array("b"), ARRAY)


@pytest.mark.parametrize("rows", [LoadedRows("b", np.array([0])), LoadedRows("a", np.array([3])), LoadedRows("a", np.array([]))])
def test_rows_that_are_not_loaded_are_refused(rows: LoadedRows) -> None:
    loaded = LoadedInputs(max_bytes=100)
    loaded.load("a", ARRAY)
    with pytest.raises(DeviceError) as caught:
        loaded.rows(rows)
    assert caught.value.code == "bad_request"
