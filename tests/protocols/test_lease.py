from __future__ import annotations

import pytest

from photonloop.protocols.errors import DeviceError
from photonloop.protocols.server import lease
from photonloop.protocols.server.lease import Lease


def test_one_writer_at_a_time() -> None:
    held = lease.acquire(None, "s1", "k1", "first", 5.0, 100.0)
    assert held == Lease("k1", "first", "s1", 5.0, 105.0)
    with pytest.raises(DeviceError, match="leased to 'first' for another 2.0 s") as caught:
        lease.acquire(held, "s2", "k2", "second", 5.0, 103.0)
    assert (caught.value.code, caught.value.retryable, caught.value.outcome) == ("lease", True, "not_applied")
    assert lease.acquire(held, "s2", "k2", "second", 5.0, 105.0).client_id == "s2"


def test_a_client_with_the_same_key_takes_the_lease_over() -> None:
    held = lease.acquire(None, "s1", "k1", "run", 5.0, 0.0)
    taken = lease.acquire(held, "s2", "k1", "run", 5.0, 1.0)
    assert (taken.client_id, taken.expires_s) == ("s2", 6.0)
    with pytest.raises(DeviceError, match="not to this client"):
        lease.renew(taken, "s1", 2.0)


def test_renewal_restores_the_full_time_and_fails_after_expiry() -> None:
    held = lease.acquire(None, "s1", "k1", "run", 5.0, 0.0)
    held = lease.renew(held, "s1", 4.9)
    assert held.expires_s == pytest.approx(9.9)
    assert not lease.expired(held, 9.8)
    assert lease.expired(held, 9.9)
    with pytest.raises(DeviceError, match="holds no lease"):
        lease.renew(held, "s1", 9.9)
    with pytest.raises(DeviceError, match="holds no lease"):
        lease.renew(None, "s1", 0.0)
    assert not lease.expired(None, 1e9)


def test_the_fault_of_a_lost_lease_names_the_writer() -> None:
    fault = lease.lost_fault(Lease("k1", "night run", "s1", 5.0, 0.0))
    assert (fault.name, fault.lease_key) == ("lease_lost", "k1")
    assert "'night run' did not renew its lease for 5 s" in fault.detail
