"""Fault handling of a bench: make it safe on every exception, latch a fault for instruments and bounds."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

from photonloop.drivers.bench.instrument_handle import InstrumentError
from photonloop.drivers.bench.laser_light import LaserControl
from photonloop.drivers.bench.monitors import OVER_POWER, TrippedError
from photonloop.protocols.errors import DeviceError
from photonloop.protocols.fault_latch import FaultLatch

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class FaultHandler:
    """Makes a bench safe and latches faults.

    Parameters
    ----------
    faults
        The latched faults.
    make_outputs_safe
        Brings all outputs to 0 V and returns one error per source that failed.
    light
        The laser, switched off on a fault.
    """

    faults: FaultLatch
    make_outputs_safe: Callable[[], list[InstrumentError]]
    light: LaserControl

    @contextmanager
    def safe_on_failure(self) -> Iterator[None]:
        """Make the bench safe on every exception except a refusal; latch a fault if an instrument or a bound is the
        reason.

        A refusal is a `DeviceError` that is not an `InstrumentError`: it passes unchanged.

        Raises
        ------
        DeviceError
            "transport" or "device" for a failed instrument, "interlock" for a value beyond its bound, both with outcome
            "unknown".
        """
        try:
            yield
        except InstrumentError as error:
            result = self.trip(f"{error.instrument}_failed", error.detail)
            code = error.code if error.code == "transport" else "device"
            raise DeviceError(code, f"{error.detail}; {result}", outcome="unknown") from error
        except TrippedError as error:
            result = self.trip(error.name, error.detail)
            raise DeviceError("interlock", f"{error.name}: {error.detail}; {result}", outcome="unknown") from error
        except DeviceError:
            raise
        except BaseException:  # Ctrl-C in a script or a bug: no heater may stay hot
            log_errors([*self.make_outputs_safe(), *self.light.force_off()])
            raise

    def trip(self, name: str, detail: str) -> str:
        """Latch the fault `name`, make the bench safe and switch the light off.

        If there is too much light, it is switched off first. If part of the bench could not be made safe, the detail
        of the fault names it. Returns the result as a phrase for an error message.
        """
        log.error("%s: %s", name, detail)
        self.faults.latch(name, detail)
        steps = [self.make_outputs_safe, self.light.force_off]
        failed = [error for step in (reversed(steps) if name == OVER_POWER else steps) for error in step()]
        log_errors(failed)
        if not failed:
            return "the bench was made safe"
        result = describe_failed_outputs(failed)
        self.faults.extend(name, result)
        return result


def log_errors(errors: Sequence[DeviceError]) -> None:
    """Log what failed while a bench was made safe."""
    for error in errors:
        log.warning("while making the bench safe: %s", error.detail)


def describe_failed_outputs(failed: Sequence[InstrumentError]) -> str:
    """Return a phrase for a message: the state of a bench after these instruments failed to become safe."""
    unconfirmed = sorted({error.instrument for error in failed if error.unconfirmed})
    lost = sorted({error.instrument for error in failed if not error.unconfirmed})
    phrases = ["the rest of the bench was made safe"]
    if unconfirmed:
        phrases.append(f"{' and '.join(unconfirmed)} was sent to its safe state, but did not confirm it")
    if lost:
        phrases.append(f"{' and '.join(lost)} could not be made safe")
    return ", ".join(phrases)
