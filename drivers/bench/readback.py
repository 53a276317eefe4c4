"""The measured voltages and currents of all heaters of a bench."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from photonloop.drivers.bench.output_channels import OutputChannels
from photonloop.drivers.instrument import MeasuresVolts, ReadsAmps
from photonloop.protocols.device import Readback

Values = NDArray[np.float64]


def measure(heaters: Sequence[OutputChannels], channels: int) -> Readback:
    """Measure what the sources of `heaters` can; all other values of the `channels` channels are NaN.

    A heater on two channels of its source has the mean of their voltages and the sum of their currents.

    Raises
    ------
    InstrumentError
        A source failed.
    """
    volts, amperes = np.full(channels, np.nan), np.full(channels, np.nan)
    for output in heaters:
        members = output.members
        with output.handle.lock:  # so that currents and voltages belong together
            if (measured := _volts(output)) is not None:
                volts[members] = _sums(members, measured)[members] / np.bincount(members)[members]
            if (measured := _amperes(output)) is not None:
                amperes[members] = _sums(members, measured)[members]
    return Readback(volts, amperes)


def _volts(output: OutputChannels) -> Values | None:
    """Return the measured voltages of the channels of a source [V]; None if it does not measure them."""
    source = output.handle.instrument
    if not isinstance(source, MeasuresVolts):
        return None
    return output.handle.query("measure_volts", lambda _: source.measure_volts(output.channels.tolist()))


def _amperes(output: OutputChannels) -> Values | None:
    """Return the measured currents of the channels of a source [A]; None if it does not measure them."""
    source = output.handle.instrument
    if not isinstance(source, ReadsAmps):
        return None
    return output.handle.query("read_amps", lambda _: source.read_amps(output.channels.tolist()))


def _sums(members: NDArray[np.int64], values: Values) -> Values:
    """Return the sum of `values` of each heater, by its number."""
    return np.bincount(members, weights=values).astype(np.float64)
