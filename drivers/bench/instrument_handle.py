"""An opened instrument on a bench: one call at a time, each counted and timed, and every failure knows whose it was."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Sequence
from typing import Generic, TypeVar

from photonloop.drivers.instrument import Identity, Instrument, UnconfirmedError
from photonloop.protocols.errors import DeviceError, Outcome

log = logging.getLogger(__name__)

DriverT = TypeVar("DriverT", bound=Instrument)
AnswerT = TypeVar("AnswerT")


class InstrumentError(DeviceError):
    """A `DeviceError` of one instrument of a bench, whose name in the station file is `instrument`."""

    def __init__(self, instrument: str, error: DeviceError, outcome: Outcome | None = None) -> None:
        # Drivers call their instrument by the name that they were given; what else may have failed does not know it.
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
        """It was told to go to its safe state, and nobody knows whether it did."""


class InstrumentHandle(Generic[DriverT]):
    """The way to one instrument.

    Parameters
    ----------
    name
        Its name in the station file.
    driver
        What a driver's open function returned.
    """

    def __init__(self, name: str, instrument: DriverT) -> None:
        self.name = name
        self.instrument = instrument
        self.identity: Identity | None = None
        self.suspect = False
        """True from a failure on, until the instrument has been armed anew."""
        self.doubts = 0
        """Failures so far after which a source may have any voltage at any channel; an `Output` compares it with what it saw."""
        self.calls = 0
        """Calls of the driver: one exchange each, where the instrument can join its commands."""
        self.busy_s = 0.0
        """Time spent in them."""
        self.lock = threading.RLock()
        """Held during a call. Who has to look at something just before a call, and be sure of it, takes it first."""

    def query(self, what: str, call: Callable[[DriverT], AnswerT]) -> AnswerT:
        """Return what `call` of the driver returns; for calls that change nothing.

        The channels of a source keep their known voltages if the call fails, unless the error itself has outcome "unknown": the
        driver found that the instrument was restarted or set by someone else.

        Raises
        ------
        InstrumentError
            The driver's `DeviceError`. Any other exception of the driver becomes "device" with outcome "unknown"; `what` names
            the call.
        """
        return self._call(what, call, mutates=False)

    def mutate(self, what: str, call: Callable[[DriverT], AnswerT]) -> AnswerT:
        """Return what `call` of the driver returns; for calls that send settings to the instrument.

        If the call does not return, the voltages of all channels are unknown from then on (`doubts`), whatever the error says
        and whatever kind of exception it is: a driver that sets and then asks cannot be relied on to say which of them failed.

        Raises
        ------
        InstrumentError
            As for `query`, but the outcome is always "unknown".
        """
        return self._call(what, call, mutates=True)

    def _call(self, what: str, call: Callable[[DriverT], AnswerT], *, mutates: bool) -> AnswerT:
        with self.lock:
            began_s = time.perf_counter()
            doubtful = True
            try:
                answer = call(self.instrument)
            except DeviceError as error:
                self.suspect = True
                doubtful = mutates or error.outcome != "not_applied"
                raise InstrumentError(self.name, error, outcome="unknown" if mutates else error.outcome) from error
            except Exception as error:
                self.suspect = True
                log.exception("driver of %s, in %s", self.name, what)
                told = f"its driver failed in {what}: {type(error).__name__}: {str(error)[:300]}"
                raise InstrumentError(self.name, DeviceError("device", told, outcome="unknown")) from error
            else:
                doubtful = False
                return answer
            finally:
                self.doubts += doubtful
                self.calls += 1
                self.busy_s += time.perf_counter() - began_s


def describe_failed_outputs(failed: Sequence[InstrumentError]) -> str:
    """Return in words what became of a bench on which these instruments did not go to their safe state as they should."""
    told = sorted({error.instrument for error in failed if error.unconfirmed})
    lost = sorted({error.instrument for error in failed if not error.unconfirmed})
    words = ["the rest of the bench was made safe"]
    if told:
        words.append(f"{' and '.join(told)} was told to go to its safe state, which nothing confirms")
    if lost:
        words.append(f"{' and '.join(lost)} could not be made safe")
    return ", ".join(words)
