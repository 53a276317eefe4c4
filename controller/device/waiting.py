"""Waiting for a device that does not answer: patient, quiet, and over at once when the user wants to stop."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator

from photonloop.controller.device.processes import OpenDevice
from photonloop.controller.stopping import Stop
from photonloop.protocols.errors import DeviceError

FIRST_PAUSE_S, LONGEST_PAUSE_S = 0.2, 5.0
FIRST_TOLD_S, MOST_UNTOLD_S = 10.0, 600.0


def pauses() -> Iterator[float]:
    """Yield pauses between attempts [s], each twice the last, up to `LONGEST_PAUSE_S`."""
    pause_s = FIRST_PAUSE_S
    while True:
        yield pause_s
        pause_s = min(2 * pause_s, LONGEST_PAUSE_S)


def wait_for_device(opener: Callable[[], OpenDevice], stop: Stop, still: Callable[[str], None]) -> OpenDevice:
    """Return what `opener` opens, trying again for as long as it takes while nobody answers.

    Parameters
    ----------
    opener
        Opens the device.
    stop
        Ends the wait.
    still
        Told that the wait goes on, and why: after ten seconds, and from then on less and less often. One night of it is a
        page of a log.

    Raises
    ------
    SessionStopped
        `stop` was asked for.
    DeviceError
        Anything but silence: somebody else holds the lease, a fault is latched, a simulator does not start.
    """
    began_s = time.monotonic()
    tell_at_s = FIRST_TOLD_S
    for pause_s in pauses():
        stop.check("while waiting for the device")
        try:
            return opener()
        except DeviceError as error:
            if error.code not in {"transport", "deadline"} or not error.retryable:
                raise
            waited_s = time.monotonic() - began_s
            if waited_s >= tell_at_s:
                still(f"still waiting, {_duration(waited_s)}: {error.detail}")
                tell_at_s = waited_s + min(waited_s, MOST_UNTOLD_S)
        stop.pause(pause_s, "while waiting for the device")
    raise AssertionError("pauses never end")


def _duration(seconds: float) -> str:
    if seconds < 120:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 120 else f"{minutes // 60} h {minutes % 60} min"
