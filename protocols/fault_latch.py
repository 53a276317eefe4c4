"""Latched faults: conditions that block a device until they are cleared by name."""

from __future__ import annotations

import threading

from photonloop.protocols.device import Fault
from photonloop.protocols.errors import DeviceError


class FaultLatch:
    """The faults that are latched now, in the order in which they occurred. Every method may be called from any thread.

    Examples
    --------
    >>> faults = FaultLatch()
    >>> faults.latch("over_power", "the laser emits 12 mW, more than 10 mW")
    >>> [fault.name for fault in faults.all()]
    ['over_power']
    >>> faults.clear("over_power")
    >>> faults.check()
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._faults: dict[str, Fault] = {}

    def __contains__(self, name: object) -> bool:
        """Return whether the fault `name` is latched."""
        with self._lock:
            return name in self._faults

    def latch(self, name: str, detail: str, lease_key: str = "") -> None:
        """Latch the fault `name`. If it is latched already, the first occurrence and its detail are kept."""
        with self._lock:
            self._faults.setdefault(name, Fault(name=name, detail=detail, lease_key=lease_key))

    def describe(self, name: str, detail: str) -> None:
        """Replace the detail of the latched fault `name`; no effect if it is not latched."""
        with self._lock:
            if name in self._faults:
                self._faults[name] = self._faults[name].model_copy(update={"detail": detail})

    def extend(self, name: str, addition: str) -> None:
        """Append "; addition" to the detail of the latched fault `name`; no effect if it is not latched."""
        with self._lock:
            if (fault := self._faults.get(name)) is not None:
                self._faults[name] = fault.model_copy(update={"detail": f"{fault.detail}; {addition}"})

    def clear(self, name: str) -> None:
        """Clear the fault `name`.

        Raises
        ------
        DeviceError
            "bad_request" if it is not latched.
        """
        with self._lock:
            if self._faults.pop(name, None) is None:
                raise _not_latched(name)

    def require(self, name: str) -> None:
        """Check that the fault `name` is latched.

        Raises
        ------
        DeviceError
            "bad_request" if it is not.
        """
        if name not in self:
            raise _not_latched(name)

    def check(self) -> None:
        """Check that no fault is latched.

        Raises
        ------
        DeviceError
            "interlock" for the oldest latched fault, with its detail.
        """
        with self._lock:
            for fault in self._faults.values():
                raise DeviceError("interlock", f"fault {fault.name} is latched ({fault.detail}): clear it by name first")

    def all(self) -> tuple[Fault, ...]:
        """Return the latched faults, the oldest first."""
        with self._lock:
            return tuple(self._faults.values())


def _not_latched(name: str) -> DeviceError:
    return DeviceError("bad_request", f"fault {name!r} is not latched here")
