"""Conditions that a request must meet before it may write: the lease, no latched fault, and no stop in between."""

from __future__ import annotations

from photonloop.protocols.device import Fault
from photonloop.protocols.errors import DeviceError
from photonloop.protocols.fault_latch import FaultLatch
from photonloop.protocols.server import lease as leases
from photonloop.protocols.server.lease import Lease
from photonloop.protocols.wire.messages import MADE_SAFE, AcquireBody


class WriteInterlocks:
    """The lease of a server, its latched faults, and the stops (`safe`, `cancel`) that block evaluations.

    All methods belong to the socket loop's thread, except those of `faults`.
    """

    def __init__(self) -> None:
        self.faults = FaultLatch()
        """Faults of the server itself; those of the device are in its status."""
        self._lease: Lease | None = None
        self._must_apply = False
        self._cancelled_seq = 0

    def holder(self, now_s: float) -> Lease | None:
        """Return the lease that is valid at `now_s`, if any."""
        return None if leases.expired(self._lease, now_s) else self._lease

    def expire(self, now_s: float) -> Fault | None:
        """End the lease if it was not renewed in time and latch "lease_lost". Return the fault, or None."""
        lost = self._lease
        if lost is None or not leases.expired(lost, now_s):
            return None
        self._lease = None
        fault = leases.lost_fault(lost)
        self.faults.latch(fault.name, fault.detail, fault.lease_key)
        return fault

    def acquire(self, client_id: str, body: AcquireBody, now_s: float) -> bool:
        """Give the lease to `client_id`. Return True if this took it over from another client with the same key.

        Raises
        ------
        DeviceError
            "lease" if another writer holds it.
        """
        before = self._lease
        self._lease = leases.acquire(before, client_id, body.lease_key, body.label, body.ttl_s, now_s)
        if before is not None and before.client_id == client_id:
            return False
        self._must_apply = False
        self._cancelled_seq = 0
        return before is not None

    def renew(self, client_id: str, now_s: float) -> None:
        """Renew the lease of `client_id`; `DeviceError` "lease" if it does not hold it."""
        self._lease = leases.renew(self._lease, client_id, now_s)

    def release(self) -> None:
        """End the lease without a fault."""
        self._lease = None

    def note_safe(self, client_id: str, label: str) -> None:
        """Record that `client_id` made the device safe. Without a lease this has no effect.

        The next evaluation needs an `apply` first: one that is queued already would read the chip in its safe state.
        If another client than the holder made the device safe, the fault "made_safe" is latched.
        """
        if self._lease is None:
            return
        self._must_apply = True
        if client_id != self._lease.client_id:
            by = repr(label) if label else "without a name"
            self.faults.latch(MADE_SAFE, f"the device was made safe by another client ({by})")

    def note_cancel(self, seq: int) -> None:
        """Record a `cancel` with command number `seq`."""
        self._cancelled_seq = max(self._cancelled_seq, seq)

    def note_applied(self) -> None:
        """Record that a drive was applied after the last stop."""
        self._must_apply = False

    def check_active(self, seq: int, what: str = "evaluation") -> None:
        """Check that the command `seq`, which drives or lights the device, may start; `what` is its name in errors.

        Raises
        ------
        DeviceError
            "interlock" for a latched fault, a `safe` without a later `apply`, or a later `cancel`.
        """
        self.faults.check()
        if self._must_apply:
            raise DeviceError("interlock", "the device was made safe: apply a drive first")
        self.check_not_cancelled(seq, what)

    def check_not_cancelled(self, seq: int, what: str) -> None:
        """Check that no `cancel` with a higher command number came first; `DeviceError` "interlock" otherwise."""
        if seq < self._cancelled_seq:  # the cancel was meant for it, but arrived first
            raise DeviceError("interlock", f"the {what} was cancelled")
