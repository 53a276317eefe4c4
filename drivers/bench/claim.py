"""Claim instruments for one process, before they are opened.

Many instruments accept a second connection without an error, and two programs could then drive the same chip. A claim
is an operating system lock on a small file, one per instrument address. It ends with the process, however the process
ends.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import tempfile
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

from photonloop.drivers.transports.instrument_address import same_place
from photonloop.protocols.errors import DeviceError


class Claim:
    """Instruments that only this process may open; made by `claim`."""

    def __init__(self) -> None:
        self._files: list[int] = []

    def add(self, address: str, folder: Path) -> None:
        """Claim the instrument at `address`; see `claim`."""
        name = hashlib.sha256(same_place(address).encode()).hexdigest()[:32]
        file = os.open(folder / f"{name}.lock", os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o666)
        with suppress(PermissionError):  # created by another user, who has done this
            os.fchmod(file, 0o666)
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            holder = os.pread(file, 32, 0).decode(errors="replace").strip() or "unknown"
            os.close(file)
            raise DeviceError(
                "lease", f"the instrument at {address} is in use by process {holder} on this machine", retryable=True
            ) from None
        os.truncate(file, 0)
        os.pwrite(file, str(os.getpid()).encode(), 0)
        self._files.append(file)

    def release(self) -> None:
        """Release all instruments. Calling it twice is harmless."""
        while self._files:
            os.close(self._files.pop())


def claim(addresses: Iterable[str], folder: Path | None = None) -> Claim:
    """Claim all of `addresses`, or none.

    Parameters
    ----------
    addresses
        VISA resource names.
    folder
        Folder of the lock files; by default one for the whole machine.

    Raises
    ------
    DeviceError
        "lease" if a process, named in the message, has claimed one of them; "transport" if lock files cannot be
        created.
    """
    claimed = Claim()
    try:
        place = _lock_folder() if folder is None else folder
        for address in sorted(addresses):  # the same unit under two addresses is refused too
            claimed.add(address, place)
    except OSError as error:
        claimed.release()
        detail = f"instruments cannot be claimed in {error.filename or 'the folder for locks'}: {error.strerror or error}"
        raise DeviceError("transport", detail) from None
    except DeviceError:
        claimed.release()
        raise
    return claimed


def _lock_folder() -> Path:
    folder = Path(tempfile.gettempdir()) / "photonloop-instruments"
    folder.mkdir(exist_ok=True)
    with suppress(PermissionError):  # created by another user
        folder.chmod(0o1777)
    return folder
