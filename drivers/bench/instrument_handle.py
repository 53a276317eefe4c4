"""An instrument with its lock and connection state.

Calls are made one at a time, counted and timed. Errors name the instrument.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from typing import Generic, TypeVar

from photonloop.drivers.instrument import Identity, Instrument, UnconfirmedError
from photonloop.protocols.errors import DeviceError, Outcome

log = logging.getLogger(__name__)

DriverT = TypeVar("DriverT", bound=Instrument)
AnswerT = TypeVar("AnswerT")


class InstrumentError(DeviceError):
    """A `DeviceError` of one instrument of a bench, whose name in the station file is `instrument`."""

    def __init__(self, instrument: str, error: DeviceError, outcome: Outcome | None = None) -> None:
        # Drivers name their instrument in most errors, but not in all.
        named = error.detail.startswith(instrument)
        super().__init__(
            error.code,
            error.detail if named else f"{instrument}: {error.detail}",
            retryable=error.retryable,
            outcome=outcome or error.outcome,
            channel=error.channel,
        )
        self.instrument = instrument
        self.unconfirmed = isinstance(error, UnconfirmedError)
        """True if the instrument was sent to its safe state and did not confirm it."""


class InstrumentHandle(Generic[DriverT]):
    """An opened instrument on a bench.

    Parameters
    ----------
    name
        Its name in the station file.
    instrument
        The object that the driver's `open` function returned.
    """

    def __init__(self, name: str, instrument: DriverT) -> None:
        self.name = name
        self.instrument = instrument
        self.identity: Identity | None = None
        self.suspect = False
        """True after a failure, until the instrument has been prepared again (`prepare_instruments`)."""
        self.invalidations = 0
        """Number of failures after which a source may have any voltage at any channel.

        `OutputChannels` compares it with the number at its last write: if they differ, all its channels are unknown.
        """
        self.calls = 0
        """Calls of the driver; one exchange each, if the instrument can join commands."""
        self.busy_s = 0.0
        """Time spent in calls."""
        self.lock = threading.RLock()
        """Held during a call. Take it first if a condition must still hold when the call starts."""

    def query(self, what: str, call: Callable[[DriverT], AnswerT]) -> AnswerT:
        """Return the result of a driver call that changes nothing.

        If the call fails with outcome "not_applied", the channels of a source keep their known voltages. Any other
        outcome means that the instrument was restarted or set by someone else, and all its channels become unknown.

        Raises
        ------
        InstrumentError
            The driver's `DeviceError`. Any other exception of the driver becomes "device" with outcome "unknown", and
            `what` names the call in the message.
        """
        return self._call(what, call, mutates=False)

    def mutate(self, what: str, call: Callable[[DriverT], AnswerT]) -> AnswerT:
        """Return the result of a driver call that changes settings of the instrument.

        If the call raises anything, the voltages of all channels of the source are unknown from then on
        (`invalidations`), whatever the outcome in the error: a driver that sets and then queries may not know which of
        the two failed.

        Raises
        ------
        InstrumentError
            As for `query`, but the outcome is always "unknown".
        """
        return self._call(what, call, mutates=True)

    def _call(self, what: str, call: Callable[[DriverT], AnswerT], *, mutates: bool) -> AnswerT:
        with self.lock:
            began_s = time.perf_counter()
            invalidates = True
            try:
                answer = call(self.instrument)
            except DeviceError as error:
                self.suspect = True
                invalidates = mutates or error.outcome != "not_applied"
                raise InstrumentError(self.name, error, outcome="unknown" if mutates else error.outcome) from error
            except Exception as error:
                self.suspect = True
                log.exception("driver of %s, in %s", self.name, what)
                detail = f"its driver failed in {what}: {type(error).__name__}: {str(error)[:300]}"
                raise InstrumentError(self.name, DeviceError("device", detail, outcome="unknown")) from error
            else:
                invalidates = False
                return answer
            finally:
                self.invalidations += invalidates
                self.calls += 1
                self.busy_s += time.perf_counter() - began_s
