"""An opened instrument on a bench: one call at a time, each counted and timed, and every failure knows whose it was."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Sequence
from typing import Generic, TypeVar

from drivers.instrument import Identity, Instrument, UnconfirmedError
from protocols.errors import DeviceError

log = logging.getLogger(__name__)

DriverT = TypeVar("DriverT", bound=Instrument)
AnswerT = TypeVar("AnswerT")


class InstrumentError(DeviceError):
    """A `DeviceError` of one instrument of a bench, whose name in the station file is `instrument`."""

    def __init__(self, instrument: str, error: DeviceError) -> None:
        # Drivers call their instrument by the name that they were given; what else may have failed does not know it.
        named = error.detail.startswith(instrument)
        super().__init__(
            error.code,
            error.detail if named else f"{instrument}: {error.detail}",
            retryable=error.retryable,
            outcome=error.outcome,
            channel=error.channel,
        )
        self.instrument = instrument
        self.unconfirmed = isinstance(error, UnconfirmedError)
        """It was told to go to its safe state, and nobody knows whether it did."""


class Line(Generic[DriverT]):
    """The way to one instrument.

    Parameters
    ----------
    name
        Its name in the station file.
    driver
        What a driver's open function returned.
    """

    def __init__(self, name: str, driver: DriverT) -> None:
        self.name = name
        self.driver = driver
        self.identity: Identity | None = None
        self.suspect = False
        """True from a failure on, until the instrument has been armed anew."""
        self.calls = 0
        """Calls of the driver: one exchange each, where the instrument can join its commands."""
        self.busy_s = 0.0
        """Time spent in them."""
        self.lock = threading.RLock()
        """Held during a call. Who has to look at something just before a call, and be sure of it, takes it first."""

    def do(self, what: str, call: Callable[[DriverT], AnswerT]) -> AnswerT:
        """Return what `call` of the driver returns.

        Raises
        ------
        InstrumentError
            Whatever went wrong, as the driver tells it; a driver that breaks its promise of raising nothing else is told of
            as "device" with outcome "unknown". `what` names the call then.
        """
        with self.lock:
            began_s = time.perf_counter()
            try:
                return call(self.driver)
            except DeviceError as error:
                self.suspect = True
                raise InstrumentError(self.name, error) from error
            except Exception as error:
                self.suspect = True
                log.exception("driver of %s, in %s", self.name, what)
                told = f"its driver failed in {what}: {type(error).__name__}: {str(error)[:300]}"
                raise InstrumentError(self.name, DeviceError("device", told, outcome="unknown")) from error
            finally:
                self.calls += 1
                self.busy_s += time.perf_counter() - began_s


def what_became(failed: Sequence[InstrumentError]) -> str:
    """Return in words what became of a bench on which these instruments did not go to their safe state as they should."""
    told = sorted({error.instrument for error in failed if error.unconfirmed})
    lost = sorted({error.instrument for error in failed if not error.unconfirmed})
    words = ["the rest of the bench was made safe"]
    if told:
        words.append(f"{' and '.join(told)} was told to go to its safe state, which nothing confirms")
    if lost:
        words.append(f"{' and '.join(lost)} could not be made safe")
    return ", ".join(words)
