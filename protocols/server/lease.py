"""Who may write: one holder at a time, for as long as it keeps saying so.

Pure functions over a frozen `Lease`; the server owns the present one, or None, and passes its clock in.
"""

from __future__ import annotations

from dataclasses import dataclass

from photonloop.protocols.device import Fault
from photonloop.protocols.errors import DeviceError

LEASE_LOST = "lease_lost"
"""Name of the fault that a writer leaves behind when it vanishes."""


@dataclass(frozen=True)
class Lease:
    """The right to write.

    Parameters
    ----------
    key
        Names the writer over its restarts: a run that is resumed comes back with the same key.
    label
        Says to people who it is.
    session
        The client that holds the lease now.
    ttl_s
        The lease dies this long after its last renewal.
    expires_s
        When it dies unless renewed, on the server's clock.
    """

    key: str
    label: str
    client_id: str
    ttl_s: float
    expires_s: float


def acquire(held: Lease | None, client_id: str, key: str, label: str, ttl_s: float, now_s: float) -> Lease:
    """Return the lease for `client_id`: a new one, or the held one taken over by the same session or the same key.

    Raises
    ------
    DeviceError
        "lease", saying who writes and how long the lease would last without renewal.
    """
    if held is not None and now_s < held.expires_s and client_id != held.client_id and key != held.key:
        raise DeviceError(
            "lease",
            f"the device is leased to {held.label!r} for another {held.expires_s - now_s:.1f} s or more: one writer at a time",
            retryable=True,
        )
    return Lease(key, label, client_id, ttl_s, now_s + ttl_s)


def renew(held: Lease | None, client_id: str, now_s: float) -> Lease:
    """Return the held lease with its full time ahead again.

    Raises
    ------
    DeviceError
        "lease" where `client_id` is not the holder or the time is up.
    """
    if held is None or now_s >= held.expires_s:
        raise DeviceError("lease", "this session holds no lease on the device: acquire one before writing", retryable=True)
    if held.client_id != client_id:
        raise DeviceError("lease", f"the device is leased to {held.label!r}, not to this session", retryable=True)
    return Lease(held.key, held.label, held.client_id, held.ttl_s, now_s + held.ttl_s)


def expired(held: Lease | None, now_s: float) -> bool:
    """Return whether a held lease has run out."""
    return held is not None and now_s >= held.expires_s


def lost_fault(lost: Lease) -> Fault:
    """Return the fault to latch when `lost` ran out without a release."""
    return Fault(
        name=LEASE_LOST,
        detail=f"the writer {lost.label!r} was not heard of for {lost.ttl_s:g} s, so the device was made safe",
        lease_key=lost.key,
    )
