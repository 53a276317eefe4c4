"""Prepare the instruments of a bench: check their identity, write limits, bring every source to 0 V, check for errors.

Done when a bench is opened, and again before a fault is cleared, for the instruments that failed.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress

from photonloop.drivers.bench.bench_outputs import BenchOutputs
from photonloop.drivers.bench.instrument_handle import InstrumentError, InstrumentHandle
from photonloop.drivers.bench.wiring import Wiring
from photonloop.drivers.instrument import ChannelLimits, DriveSource
from photonloop.protocols.errors import DeviceError


class WrongInstrument(InstrumentError):
    """Another unit answers than when the bench was opened. Nothing is written to it, not even 0 V."""


def prepare_instruments(
    wiring: Wiring, handles: Mapping[str, InstrumentHandle], outputs: BenchOutputs, *, only_suspects: bool = False
) -> None:
    """Write all limits into the sources that have their own, bring every source to 0 V, then check all instruments for
    errors.

    Sources come first: an error of a readout, or of one source, never keeps the heaters of another source hot.

    Parameters
    ----------
    wiring
        The limits of every channel.
    handles
        The instruments, by their names in the station file.
    outputs
        The channels to bring to 0 V.
    only_suspects
        Check and configure only the instruments that failed since they were last prepared.

    Raises
    ------
    InstrumentError
        The first instrument that failed. The sources after it are at 0 V nevertheless.
    """
    limits: dict[str, dict[int, ChannelLimits]] = {}
    for bank in (*wiring.heaters, *wiring.inputs):
        limits.setdefault(bank.instrument, {}).update(bank.limits)
    errors: list[InstrumentError] = []
    with outputs.heaters_lock, outputs.modulators_lock:
        selected = [handle for handle in handles.values() if handle.suspect or not only_suspects]
        for handle in selected:
            if isinstance(handle.instrument, DriveSource):
                try:
                    _prepare_source(handle, limits.get(handle.name, {}), outputs)
                except InstrumentError as error:
                    errors.append(error)
        replaced = {error.instrument for error in errors if isinstance(error, WrongInstrument)}
        errors += outputs.make_heaters_safe(except_for=replaced)
        errors += outputs.make_modulators_safe(except_for=replaced)
        for error in errors:
            raise error
        for handle in selected:
            _check_errors(handle)


def _prepare_source(handle: InstrumentHandle, limits: Mapping[int, ChannelLimits], outputs: BenchOutputs) -> None:
    _check_identity(handle)
    _discard_errors(handle)
    outputs.mark_unknown(handle)
    handle.mutate("set_limits", lambda source: source.set_limits(limits))
    handle.suspect = False


def _check_errors(handle: InstrumentHandle) -> None:
    if not isinstance(handle.instrument, DriveSource):
        _check_identity(handle)
        _discard_errors(handle)
    handle.query("check", lambda instrument: instrument.check())
    handle.suspect = False


def _discard_errors(handle: InstrumentHandle) -> None:
    """Clear the errors that an instrument has reported so far; one that persists is raised by the next check."""
    with suppress(InstrumentError):
        handle.query("check", lambda instrument: instrument.check())


def _check_identity(handle: InstrumentHandle) -> None:
    """Raise `WrongInstrument` if another unit answers than before."""
    try:
        identity = handle.query("identify", lambda instrument: instrument.identify())
    except InstrumentError as error:
        if error.code != "device" or not error.retryable:
            raise
        # The driver reports a lost connection or a restart once. The instrument is being configured again here.
        identity = handle.query("identify", lambda instrument: instrument.identify())
    known = handle.identity or identity
    if identity.serial != known.serial:
        detail = f"another unit answers now: {identity}, not {known}; connect the same unit, or open the bench again"
        raise WrongInstrument(handle.name, DeviceError("device", detail))
    handle.identity = identity
