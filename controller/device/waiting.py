"""Wait until a device answers or the user wants to stop."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator

from photonloop.controller.device.open_device import OpenDevice
from photonloop.controller.stopping import Stop
from photonloop.protocols.errors import DeviceError

FIRST_PAUSE_S, LONGEST_PAUSE_S = 0.2, 5.0
FIRST_REPORT_S, LONGEST_REPORT_INTERVAL_S = 10.0, 600.0


def pauses() -> Iterator[float]:
    """Yield pauses between attempts [s]; each is twice the last, up to `LONGEST_PAUSE_S`."""
    pause_s = FIRST_PAUSE_S
    while True:
        yield pause_s
        pause_s = min(2 * pause_s, LONGEST_PAUSE_S)


def wait_for_device(opener: Callable[[], OpenDevice], stop: Stop, on_waiting: Callable[[str], None]) -> OpenDevice:
    """Return the device that `opener` opens; try again for as long as no server answers.

    Parameters
    ----------
    opener
        Opens the device.
    stop
        Ends the wait.
    on_waiting
        Called with one sentence, the duration of the wait and its reason: after ten seconds, then at growing intervals
        of at most ten minutes.

    Raises
    ------
    SessionStopped
        `stop` was requested.
    DeviceError
        Any error that waiting cannot resolve: another controller holds the lease, a fault is latched, a
        simulator does not start.
    """
    began_s = time.monotonic()
    report_at_s = FIRST_REPORT_S
    for pause_s in pauses():
        stop.check("while waiting for the device")
        try:
            return opener()
        except DeviceError as error:
            if error.code not in {"transport", "deadline"} or not error.retryable:
                raise
            waited_s = time.monotonic() - began_s
            if waited_s >= report_at_s:
                on_waiting(f"still waiting, {_duration(waited_s)}: {error.detail}")
                report_at_s = waited_s + min(waited_s, LONGEST_REPORT_INTERVAL_S)
        stop.pause(pause_s, "while waiting for the device")
    raise AssertionError("pauses never end")


def _duration(seconds: float) -> str:
    if seconds < 120:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 120 else f"{minutes // 60} h {minutes % 60} min"
