"""Memory that a client and a server on one machine both see, so that large arrays need not pass a socket.

    client                                        server
    create_window ──▶ pid, fd, name ──share──▶ open_window
    drives written in ──────────── at ──────▶ copied out, then checked
    readings copied out ◀────────── at ────── written in

The socket still carries every header, so order, retries, deadlines and leases are what they are without it. The memory has a
name that nobody can guess, and is sealed: whoever made it cannot shrink it under the other's feet. Linux only; where it
cannot be had, arrays travel as frames.
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
"""Whether this system has memory of this kind."""


@dataclass(frozen=True)
class SharedBuffer:
    """Shared memory of `nbytes` bytes; it goes when neither side holds it any more, however they end."""

    memory: mmap.mmap
    name: str

    @property
    def nbytes(self) -> int:
        """Size of the memory."""
        return len(self.memory)


def create_shared_buffer(nbytes: int) -> tuple[SharedBuffer, int]:
    """Return a window of this process and its file descriptor, which may be closed once the other side has opened it.

    Raises
    ------
    OSError
        There is not so much memory.
    """
    name = f"photonloop-{secrets.token_hex(16)}"
    handle = os.memfd_create(name, os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    try:
        os.posix_fallocate(handle, 0, nbytes)  # now, or the first touch of a page would kill who touches it
        fcntl.fcntl(handle, fcntl.F_ADD_SEALS, _SEALS)
        return SharedBuffer(mmap.mmap(handle, nbytes), name), handle
    except BaseException:
        os.close(handle)
        raise


def open_shared_buffer(pid: int, handle: int, name: str, nbytes: int) -> SharedBuffer:
    """Return the window that process `pid` has open as `handle`.

    Raises
    ------
    DeviceError
        "bad_request" where it is not there (as on another machine), not of this user, or not sealed.
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
    return DeviceError("bad_request", f"shared memory {name!r} is not to be seen from the server")
