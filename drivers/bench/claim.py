"""One program at a time: a bench claims its instruments before it opens them.

Many instruments take a second connection without a word, and two programs that each believe to hold the drive would fight over a
chip. The claim is a lock of the operating system on a small file, one an instrument's address: it ends with the process,
however that ends.
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
    """Instruments that this process alone may open; made by `claim`."""

    def __init__(self) -> None:
        self._files: list[int] = []

    def add(self, address: str, folder: Path) -> None:
        """Claim the instrument at `address`; see `claim`."""
        name = hashlib.sha256(same_place(address).encode()).hexdigest()[:32]
        file = os.open(folder / f"{name}.lock", os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o666)
        with suppress(PermissionError):  # made by somebody else, who did this
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
        """Let others have the instruments. Twice is harmless."""
        while self._files:
            os.close(self._files.pop())


def claim(addresses: Iterable[str], folder: Path | None = None) -> Claim:
    """Claim all of `addresses`, or none; `folder` holds the locks (one for the whole machine, unless a test has its own).

    Raises
    ------
    DeviceError
        "lease", naming the process that has one of them; "transport" where locks cannot be kept.
    """
    claimed = Claim()
    try:
        place = _lock_folder() if folder is None else folder
        for address in sorted(addresses):  # a place that is named twice is refused as well: this process has it then
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
    with suppress(PermissionError):  # somebody else's already
        folder.chmod(0o1777)
    return folder
