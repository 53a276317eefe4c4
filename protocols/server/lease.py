"""The write lease: one client may write at a time, and must renew its lease.

Pure functions of a frozen `Lease`. The server keeps the current one, or None, and passes its clock.
"""

from __future__ import annotations

from dataclasses import dataclass

from photonloop.protocols.device import Fault
from photonloop.protocols.errors import DeviceError

LEASE_LOST = "lease_lost"
"""Name of the fault that is latched if a lease runs out without a release."""


@dataclass(frozen=True)
class Lease:
    """A write lease.

    Parameters
    ----------
    key
        Identifies the writer across restarts: a resumed run uses the same key.
    label
        Name of the writer for other users.
    client_id
        The client that holds the lease now.
    ttl_s
        Time after the last renewal at which the lease runs out.
    expires_s
        Time on the server's clock at which it runs out, unless it is renewed.
    """

    key: str
    label: str
    client_id: str
    ttl_s: float
    expires_s: float


def acquire(held: Lease | None, client_id: str, key: str, label: str, ttl_s: float, now_s: float) -> Lease:
    """Return the lease for `client_id`: a new one, or the held one if client or key are the same.

    Raises
    ------
    DeviceError
        "lease" if another writer holds it, with its label and the time until the lease can run out.
    """
    if held is not None and now_s < held.expires_s and client_id != held.client_id and key != held.key:
        raise DeviceError(
            "lease",
            f"the device is leased to {held.label!r} for another {held.expires_s - now_s:.1f} s or more: "
            "wait until it is released",
            retryable=True,
        )
    return Lease(key, label, client_id, ttl_s, now_s + ttl_s)


def renew(held: Lease | None, client_id: str, now_s: float) -> Lease:
    """Return the held lease, renewed for its full time.

    Raises
    ------
    DeviceError
        "lease" if `client_id` does not hold it or it has run out.
    """
    if held is None or now_s >= held.expires_s:
        raise DeviceError("lease", "this client holds no lease on the device: acquire one before writing", retryable=True)
    if held.client_id != client_id:
        raise DeviceError("lease", f"the device is leased to {held.label!r}, not to this client", retryable=True)
    return Lease(held.key, held.label, held.client_id, held.ttl_s, now_s + held.ttl_s)


def expired(held: Lease | None, now_s: float) -> bool:
    """Return whether a held lease has run out."""
    return held is not None and now_s >= held.expires_s


def lost_fault(lost: Lease) -> Fault:
    """Return the fault to latch because `lost` ran out without a release."""
    return Fault(
        name=LEASE_LOST,
        detail=f"the writer {lost.label!r} did not renew its lease for {lost.ttl_s:g} s, so the device was made safe",
        lease_key=lost.key,
    )
