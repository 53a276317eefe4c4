"""Memory shared by a client and a server on one machine, so that large arrays need not pass through a socket.

    client                                             server
    create_shared_buffer ──▶ pid, fd, name ──share──▶ open_shared_buffer
    drives written ───────────────── at ────────────▶ copied, then checked
    readings copied ◀─────────────── at ───────────── written

Headers are still sent through the socket, so order, retries, deadlines and leases are the same with and without shared
memory. The memory has an unguessable name. It is sealed, so that neither process can shrink it while the other one uses
it. Linux only; on other systems arrays are sent as frames.
"""

from __future__ import annotations

import fcntl
import mmap
import os
import secrets
from dataclasses import dataclass
from pathlib import Path

from photonloop.protocols.errors import DeviceError

_SEALS = getattr(fcntl, "F_SEAL_SHRINK", 0) | getattr(fcntl, "F_SEAL_GROW", 0)

AVAILABLE = hasattr(os, "memfd_create") and bool(_SEALS)
"""Whether this system supports it."""


@dataclass(frozen=True)
class SharedBuffer:
    """Shared memory. The system frees it when both processes have dropped it or ended."""

    memory: mmap.mmap
    name: str

    @property
    def nbytes(self) -> int:
        """Size of the memory."""
        return len(self.memory)


def create_shared_buffer(nbytes: int) -> tuple[SharedBuffer, int]:
    """Return new shared memory and its file descriptor. Close it when the other process has opened the memory.

    Raises
    ------
    OSError
        There is not enough memory.
    """
    name = f"photonloop-{secrets.token_hex(16)}"
    handle = os.memfd_create(name, os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    try:
        os.posix_fallocate(handle, 0, nbytes)  # otherwise the first access to a page could kill the process
        fcntl.fcntl(handle, fcntl.F_ADD_SEALS, _SEALS)
        return SharedBuffer(mmap.mmap(handle, nbytes), name), handle
    except BaseException:
        os.close(handle)
        raise


def open_shared_buffer(pid: int, handle: int, name: str, nbytes: int) -> SharedBuffer:
    """Return the shared memory that process `pid` has open as `handle`.

    Raises
    ------
    DeviceError
        "bad_request" if it does not exist (as on another machine), is not of this user, or is not sealed.
    """
    path = f"/proc/{pid}/fd/{handle}"
    try:
        if not AVAILABLE or str(Path(path).readlink()) != f"/memfd:{name} (deleted)":
            raise _not_seen(name)
        own = os.open(path, os.O_RDWR | os.O_CLOEXEC | os.O_NONBLOCK)
    except OSError:
        raise _not_seen(name) from None
    try:
        found = os.fstat(own)
        sealed = fcntl.fcntl(own, fcntl.F_GET_SEALS) & _SEALS == _SEALS
        if found.st_uid != os.geteuid() or found.st_size != nbytes or not sealed:
            raise DeviceError("bad_request", f"shared memory {name!r} is not sealed memory of {nbytes} bytes of this user")
        return SharedBuffer(mmap.mmap(own, nbytes), name)
    except (OSError, ValueError):
        raise _not_seen(name) from None
    finally:
        os.close(own)


def _not_seen(name: str) -> DeviceError:
    return DeviceError("bad_request", f"the server cannot open the shared memory {name!r}")
