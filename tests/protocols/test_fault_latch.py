"""Latched faults: the first occurrence is kept until it is cleared by name."""

from __future__ import annotations

import pytest

from photonloop.protocols.device import Fault
from photonloop.protocols.errors import DeviceError
from photonloop.protocols.fault_latch import FaultLatch


def test_the_first_occurrence_is_kept_and_its_detail_can_be_replaced() -> None:
    faults = FaultLatch()
    faults.latch("lease_lost", "first", lease_key="run-1")
    faults.latch("lease_lost", "second", lease_key="run-2")
    assert faults.all() == (Fault(name="lease_lost", detail="first", lease_key="run-1"),)
    faults.describe("lease_lost", "third")
    faults.describe("unknown", "is not latched by this")
    assert faults.all() == (Fault(name="lease_lost", detail="third", lease_key="run-1"),)


def test_a_latched_fault_interlocks_until_it_is_cleared() -> None:
    faults = FaultLatch()
    faults.check()
    faults.latch("over_power", "12 mW")
    with pytest.raises(DeviceError, match=r"over_power is latched \(12 mW\)") as caught:
        faults.check()
    assert (caught.value.code, caught.value.outcome) == ("interlock", "not_applied")
    faults.require("over_power")
    faults.clear("over_power")
    faults.check()
    assert "over_power" not in faults


def test_a_fault_that_is_not_latched_can_be_neither_cleared_nor_required() -> None:
    faults = FaultLatch()
    for method in (faults.clear, faults.require):
        with pytest.raises(DeviceError, match="fault 'over_power' is not latched here") as caught:
            method("over_power")
        assert caught.value.code == "bad_request"


def test_an_addition_keeps_the_first_detail() -> None:
    faults = FaultLatch()
    faults.latch("heaters_failed", "no answer")
    faults.latch("heaters_failed", "another failure")
    faults.extend("heaters_failed", "could not be made safe")
    faults.extend("other", "not latched")
    assert [(fault.name, fault.detail) for fault in faults.all()] == [("heaters_failed", "no answer; could not be made safe")]
