"""From what readouts answer to photocurrents: units, saturation, and light that must never be."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from drivers.line import InstrumentError, Line
from drivers.watching import OVER_POWER, Tripped
from drivers.wiring import Tap
from protocols.errors import DeviceError


def read_sample(taps: Sequence[Tap], lines: Mapping[str, Line], into: NDArray[np.float32]) -> bool:
    """Read the detectors of a stage once, one exchange a readout, into `into` [A], shape (tap ports,).

    Returns whether any was saturated: such a reading is its full scale, a lower bound.

    Raises
    ------
    InstrumentError
        A readout failed, or answered something that is no reading.
    Tripped
        More light than a detector may ever get.
    """
    saturated = False
    for tap in taps:
        line = lines[tap.instrument]
        amps = np.asarray(line.do("read", lambda driver, tap=tap: driver.read(tap.channels)), np.float64) * tap.ampere_per_unit
        if amps.shape != tap.ports.shape or np.isnan(amps).any():
            line.suspect = True
            detail = f"read answered {amps.tolist()} for channels {list(tap.channels)}"
            raise InstrumentError(line.name, DeviceError("device", detail, outcome="applied"))
        size = np.abs(amps)
        if (size > tap.trip_a).any():
            worst = int(np.argmax(size / tap.trip_a))
            told = f"detector {int(tap.ports[worst])} ({line.name}:{tap.channels[worst]}) reads {amps[worst]:.4g} A"
            raise Tripped(OVER_POWER, f"{told}, above its trip_a {tap.trip_a[worst]:.4g} A")
        over = size >= tap.full_scale_a
        if over.any():
            saturated = True
            amps = np.where(over, np.copysign(tap.full_scale_a, amps), amps)
        into[tap.ports] = amps
    return saturated
